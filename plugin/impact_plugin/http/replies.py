"""The bodies that the router's and the operator's port answer with, unless a protocol has its own."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from aiohttp import web

from impact_plugin.delivery.limits.scheduler import LimitReport

JSON: Final = "application/json"


class HealthReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The process answers. The body is the stock transformer's; senders are not told the version."""

    service: Literal["UP"]
    version: str = ""


class ReadyReply(msgspec.Struct, frozen=True):
    """Whether traffic is welcome, what speaks against it, and what does not and yet needs somebody to look."""

    ready: bool
    problems: list[str]
    troubles: list[str]


class VersionReply(msgspec.Struct, frozen=True):
    """What is installed."""

    name: str
    version: str


class LimitsReply(msgspec.Struct, frozen=True):
    """Every account that something was sent for lately, a line for each of its endpoints."""

    accounts: Sequence[LimitReport]


class ErrorReply(msgspec.Struct, frozen=True):
    """Why the request was not served."""

    error: str


def json_reply(value: object, status: int = 200) -> web.Response:
    """The value as JSON."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type=JSON)
