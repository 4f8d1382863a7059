"""Webhooks: ``POST /webhook/{source}`` with one event, an array, JSON lines, or an object that contains events."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from impact_plugin.config.sources import Source
from impact_plugin.errors import EnvelopeError
from impact_plugin.ingest.adapters import ADAPTERS, UnadaptableError
from impact_plugin.ingest.intake import Item, Unusable
from impact_transformers.events import UNREADABLE

LISTS: Final = ("batch", "events", "records")
"""The keys under which an object that is not an event contains events."""

MAX_LINES: Final = 100_000


class _Holder(msgspec.Struct, frozen=True):
    # A field of type Raw | None would always decode to None, so the type must be Raw alone.
    type: Any = None
    batch: msgspec.Raw = msgspec.Raw()
    events: msgspec.Raw = msgspec.Raw()
    records: msgspec.Raw = msgspec.Raw()


_holders: Final = msgspec.json.Decoder(_Holder)
_lists: Final = msgspec.json.Decoder(list[msgspec.Raw])


def presented_keys(
    source: Source, headers: Mapping[str, str], token: str, basic: tuple[str, str], bearer: str
) -> tuple[str, ...]:
    """Return the candidate keys from the places that the source's ``authentication`` names.

    ``token`` comes from the URL, ``basic`` and ``bearer`` from the Authorization header; empty if absent.
    """
    found = {
        "bearer": (bearer,),
        "basic": basic,
        "header": (headers.get(source.header, "").strip(),) if source.header else (),
        "url_token": (unquote(token),),
        "key": (bearer, *basic, headers.get("X-Write-Key", ""), unquote(token)),
        "none": (),
    }[source.authentication]
    return tuple(key for key in found if key)


def read_items(body: bytes, source: Source) -> Sequence[Item | Unusable]:
    """Return the events of a body, each separate and converted to the core's dialect.

    Raises :class:`EnvelopeError` if the body has none of the supported forms.
    """
    limit = source.max_event_kb * 1024
    return [_item(raw, source, limit) for raw in _split(body)]


def _split(body: bytes) -> Sequence[bytes | msgspec.Raw]:
    text = body.lstrip()
    if text.startswith(b"["):
        return _list(text)
    if not text.startswith(b"{"):
        raise EnvelopeError("the body must be a JSON object, an array of them, or one in each line")
    try:
        holder = _holders.decode(text)
    except UNREADABLE as error:
        lines = _lines(text)
        if lines is None:
            raise EnvelopeError(f"the body is not JSON: {error}") from error
        return lines
    held = [bytes(raw) for raw in (holder.batch, holder.events, holder.records)] if holder.type is None else []
    return next((_list(raw) for raw in held if raw.startswith(b"[")), [text])


def _list(text: bytes) -> Sequence[msgspec.Raw]:
    try:
        return _lists.decode(text)
    except UNREADABLE as error:
        raise EnvelopeError(f"the array is not JSON: {error}") from error


def _lines(text: bytes) -> list[bytes] | None:
    """Return the lines of JSON lines, None if the first line is not a complete object."""
    lines = [line for line in (line.strip() for line in text.split(b"\n", MAX_LINES)) if line]
    if len(lines) < 2:
        return None
    try:
        _holders.decode(lines[0])
    except UNREADABLE:
        return None
    return lines


def _item(raw: bytes | msgspec.Raw, source: Source, limit: int) -> Item | Unusable:
    payload = bytes(raw)
    if len(payload) > limit:
        return Unusable(f"the event has {len(payload):,} bytes; at most {limit:,} are taken (max_event_kb)", payload)
    if source.adapter == "segment":
        return Item(payload)
    try:
        message = msgspec.json.decode(payload)
        if not isinstance(message, dict):
            return Unusable("the event is no JSON object", payload)
        return Item(msgspec.json.encode(ADAPTERS[source.adapter](message)))
    except UnadaptableError as error:
        return Unusable(str(error), payload)
    except UNREADABLE as error:
        return Unusable(f"the event is not readable JSON: {error}", payload)
