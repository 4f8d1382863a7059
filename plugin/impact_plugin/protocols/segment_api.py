"""The Segment HTTP API: ``POST /v1/{call}`` and ``POST /v1/batch``, as SDKs and other routers call it.

https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from impact_plugin.errors import EnvelopeError
from impact_plugin.ingest.adapters import merged
from impact_plugin.ingest.intake import Item, Unusable, with_entries
from impact_transformers.events import UNREADABLE

BATCH: Final = "batch"
CALLS: Final[dict[str, str]] = {
    "track": "track",
    "page": "page",
    "screen": "screen",
    "identify": "identify",
    "group": "group",
    "alias": "alias",
    "t": "track",
    "p": "page",
    "s": "screen",
    "i": "identify",
    "g": "group",
    "a": "alias",
    "batch": BATCH,
    "import": BATCH,
    "b": BATCH,
}
"""The call for each last segment of the path; analytics.js uses the short ones."""


class _Batch(msgspec.Struct, frozen=True, rename="camel"):
    batch: list[msgspec.Raw]
    context: dict[str, Any] | None = None
    integrations: dict[str, Any] | None = None
    sent_at: Any = None
    write_key: Any = None


class _Single(msgspec.Struct, frozen=True, rename="camel"):
    write_key: Any = None


_batches: Final = msgspec.json.Decoder(_Batch)
_singles: Final = msgspec.json.Decoder(_Single)


def presented_key(headers: Mapping[str, str]) -> str | None:
    """Return the key in the headers: Basic (the user name, with or without a colon), ``X-Write-Key``, or Bearer."""
    scheme, _, value = headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() == "basic":
        return basic_pair(value)[0]
    return headers.get("X-Write-Key") or (value.strip() if scheme.lower() == "bearer" else None)


def basic_pair(value: str) -> tuple[str, str]:
    """Return the user name and password of Basic credentials, empty if they cannot be decoded."""
    try:
        text = base64.b64decode(value.strip(), validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return "", ""
    user, _, password = text.partition(":")
    return user, password


def body_key(body: bytes) -> str | None:
    """Return the ``writeKey`` in the body, None without one."""
    try:
        key = _singles.decode(body).write_key
    except UNREADABLE:
        return None
    return key if isinstance(key, str) else None


def read_items(body: bytes, call: str, limit: int) -> Sequence[Item | Unusable]:
    """Return the events of a body, each separate so that a bad one affects no other; ``limit`` is in bytes per event.

    Raises :class:`EnvelopeError` if the body is not a JSON object, or lacks the batch of a batch call.
    """
    if call != BATCH:
        return [_item(_object(body), call, limit)]
    try:
        batch = _batches.decode(body)
    except UNREADABLE as error:
        raise EnvelopeError(f"the body must be an object with a batch array: {error}") from error
    shared = {"context": batch.context or {}, "integrations": batch.integrations or {}}
    shared = {name: value for name, value in shared.items() if value}
    sent_at = batch.sent_at if isinstance(batch.sent_at, str) else None
    return [_item(_shared(bytes(raw), shared, sent_at), None, limit) for raw in batch.batch]


def _object(body: bytes) -> bytes:
    try:
        _singles.decode(body)
    except UNREADABLE as error:
        raise EnvelopeError(f"the body must be one JSON object: {error}") from error
    return body


def _item(payload: bytes, call: str | None, limit: int) -> Item | Unusable:
    if len(payload) > limit:
        return Unusable(f"the event has {len(payload):,} bytes; at most {limit:,} are taken (max_event_kb)", payload)
    return Item(payload, call)


def _shared(payload: bytes, shared: Mapping[str, Any], sent_at: str | None) -> bytes:
    """Return the event merged with the fields that the batch shares; its own fields take precedence."""
    if shared:
        try:
            message = msgspec.json.decode(payload)
        except UNREADABLE:
            return payload
        if isinstance(message, dict):
            payload = msgspec.json.encode(merged(shared, {**message, **_without_null(message, shared)}))
    if sent_at is not None and payload.startswith(b"{") and not _has_time(payload):
        payload = with_entries(payload, {"sentAt": sent_at})
    return payload


def _without_null(message: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """An item's ``"context": null`` must not hide the batch's."""
    return {name: {} for name in shared if name in message and message[name] is None}


def _has_time(payload: bytes) -> bool:
    """Whether the event has a time of its own; wrong only if one of the names occurs elsewhere in it."""
    return b'"timestamp"' in payload or b'"sentAt"' in payload or b'"originalTimestamp"' in payload
