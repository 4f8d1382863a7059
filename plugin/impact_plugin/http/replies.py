"""Response bodies of the router's and the operator's port, other than those of the protocols."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from aiohttp import web

from impact_plugin.delivery.limits.scheduler import LimitReport

JSON: Final = "application/json"


class HealthReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The process is alive. The format is the stock transformer's; the ingest port omits the version."""

    service: Literal["UP"]
    version: str = ""


class ReadyReply(msgspec.Struct, frozen=True):
    """Whether to send traffic: ``problems`` prevent it, ``troubles`` only need the operator's attention."""

    ready: bool
    problems: list[str]
    troubles: list[str]


class VersionReply(msgspec.Struct, frozen=True):
    """The name and version of the package."""

    name: str
    version: str


class LimitsReply(msgspec.Struct, frozen=True):
    """The recently used accounts, one entry for each of their endpoints."""

    accounts: Sequence[LimitReport]


class ErrorReply(msgspec.Struct, frozen=True):
    """Why the request failed."""

    error: str


def json_response(value: object, status: int = 200) -> web.Response:
    """Return a response with the value as JSON."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type=JSON)
