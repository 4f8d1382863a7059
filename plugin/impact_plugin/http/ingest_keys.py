"""Finds the source of a sender's request, and authenticates the sender."""

from collections.abc import Mapping

from aiohttp import web

from impact_plugin.config.sources import Routing, Source
from impact_plugin.protocols import segment_api, webhook
from impact_plugin.protocols.refusals import RefusalReason, RefusedError
from impact_plugin.protocols.signatures import SignatureError, verify


def source_of_header(routing: Routing, headers: Mapping[str, str]) -> Source | None:
    """Return the source whose key is in a header, None without a key; an unknown one raises :class:`RefusedError`."""
    key = segment_api.presented_key(headers)
    return None if key is None else _known(routing.source_of_key(key))


def source_of_body(routing: Routing, body: bytes) -> Source:
    """Return the source whose key is in the body; raises :class:`RefusedError`."""
    return _known(routing.source_of_key(segment_api.body_key(body) or ""))


def authenticate(source: Source, request: web.Request, token: str) -> None:
    """Check the keys of a webhook request, including ``token`` from its URL; raises :class:`RefusedError`."""
    scheme, _, value = request.headers.get("Authorization", "").strip().partition(" ")
    basic = segment_api.basic_pair(value) if scheme.lower() == "basic" else ("", "")
    bearer = value.strip() if scheme.lower() == "bearer" else ""
    keys = webhook.presented_keys(source, request.headers, token, basic, bearer)
    if source.authentication != "none" and not any([source.has_key(key) for key in keys]):  # noqa: C419 - compares all of them, in constant time
        raise _unknown_key()


def check_signature(source: Source, headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Check the signature if the source requires one; raises :class:`RefusedError`."""
    if source.signature is None:
        return
    try:
        verify(source.signature, headers, body, now)
    except SignatureError as error:
        raise RefusedError(RefusalReason.WRONG_SIGNATURE, str(error)) from error


def _known(source: Source | None) -> Source:
    if source is None:
        raise _unknown_key()
    return source


def _unknown_key() -> RefusedError:
    return RefusedError(
        RefusalReason.UNKNOWN_KEY, "no source has this key; compare it with sources.NAME.keys of the configuration"
    )
