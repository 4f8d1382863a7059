"""Segment-spec events as every router spells them, decoded once and only as far as they are read.

One set of Structs serves RudderStack (``request_ip``), Jitsu (``requestIp``) and Segment. Well-formed events take the
typed decoder; anything odd (an object where a string belongs, ``"type": "TRACK"``) takes
:func:`decode_leniently`, which leaves out what cannot be read and keeps the rest, because an order with a strange
``context.device`` is still an order. Source: https://segment.com/docs/connections/spec/common/

None of the Structs takes part in garbage collection: decoded JSON has no cycles, and the collector's walks over a large
batch would cost as much as the decoding.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias, TypeVar, get_args

import msgspec

Scalar: TypeAlias = str | int | float | bool | None
"""What a JSON leaf may be: senders mix numbers, strings and null for the same field."""


class Part(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Base of the objects inside ``context``: leaves only, unknown fields ignored."""


class PageInfo(Part, frozen=True, gc=False):
    """``context.page``: the web page on which the event happened."""

    url: Scalar = None
    referrer: Scalar = None
    search: Scalar = None


class App(Part, frozen=True, gc=False):
    """``context.app``: the mobile app; ``namespace`` is its package name or bundle id."""

    name: Scalar = None
    version: Scalar = None
    namespace: Scalar = None


class Device(Part, frozen=True, gc=False):
    """``context.device``: the phone or tablet."""

    id: Scalar = None
    advertising_id: Scalar = None
    manufacturer: Scalar = None
    model: Scalar = None
    type: Scalar = None


class OperatingSystem(Part, frozen=True, gc=False):
    """``context.os``."""

    name: Scalar = None
    version: Scalar = None


class Library(Part, frozen=True, gc=False):
    """``context.library``: the SDK that made the event."""

    name: Scalar = None


class Referrer(Part, frozen=True, gc=False):
    """``context.referrer``: legacy SDKs put the click id here (``type`` ``impactRadius``)."""

    type: Scalar = None
    id: Scalar = None
    url: Scalar = None


NO_PAGE: Final = PageInfo()
NO_APP: Final = App()
NO_DEVICE: Final = Device()
NO_OS: Final = OperatingSystem()
NO_LIBRARY: Final = Library()
NO_REFERRER: Final = Referrer()


class Context(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """``context``: where and on what the event happened."""

    ip: Scalar = None
    user_agent: Scalar = None
    page: PageInfo | None = NO_PAGE
    app: App | None = NO_APP
    device: Device | None = NO_DEVICE
    os: OperatingSystem | None = NO_OS
    library: Library | None = NO_LIBRARY
    referrer: Referrer | None = NO_REFERRER
    traits: dict[str, Any] | None = None


NO_CONTEXT: Final = Context()


class Event(msgspec.Struct, frozen=True, gc=False, rename="camel", tag_field="type"):
    """What all calls have in common. ``properties`` and ``traits`` stay as decoded JSON: shops add their own keys."""

    message_id: Scalar = None
    anonymous_id: Scalar = None
    user_id: Scalar = None
    context: Context | None = NO_CONTEXT
    properties: dict[str, Any] | None = None
    traits: dict[str, Any] | None = None
    timestamp: Scalar = None
    original_timestamp: Scalar = None
    sent_at: Scalar = None
    received_at: Scalar = None
    request_ip_rudder: Scalar = msgspec.field(default=None, name="request_ip")
    request_ip: Scalar = None
    channel: Scalar = None


class Track(Event, frozen=True, gc=False, rename="camel", tag="track"):
    """Something the visitor did. https://segment.com/docs/connections/spec/track/"""

    event: Scalar = None


class Page(Event, frozen=True, gc=False, rename="camel", tag="page"):
    """A page was seen. https://segment.com/docs/connections/spec/page/"""

    name: Scalar = None


class Screen(Event, frozen=True, gc=False, rename="camel", tag="screen"):
    """A screen of an app was seen. https://segment.com/docs/connections/spec/screen/"""

    name: Scalar = None


class Identify(Event, frozen=True, gc=False, rename="camel", tag="identify"):
    """Who the visitor is. https://segment.com/docs/connections/spec/identify/"""


class Group(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="group"):
    """A call we do not forward, yet common: named here so that it decodes like the others."""

    @property
    def type(self) -> str:
        """The call's name."""
        return "group"


class Alias(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="alias"):
    """As :class:`Group`."""

    @property
    def type(self) -> str:
        """The call's name."""
        return "alias"


class Unsupported(msgspec.Struct, frozen=True):
    """A call we do not forward and know nothing of: any other ``type``, or (``None``) no usable type at all."""

    type: str | None


KnownEvent: TypeAlias = Track | Page | Screen | Identify
DecodedEvent: TypeAlias = KnownEvent | Group | Alias
AnyEvent: TypeAlias = DecodedEvent | Unsupported

CALLS: Final[dict[str, type[KnownEvent]]] = {"track": Track, "page": Page, "screen": Screen, "identify": Identify}

_decoder: Final[msgspec.json.Decoder[DecodedEvent]] = msgspec.json.Decoder(DecodedEvent)
_S = TypeVar("_S", bound=msgspec.Struct)


UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not JSON, not UTF-8, or nested without end."""


class UndecodableEventError(ValueError):
    """The bytes are not one JSON object; the message says what they are instead."""


def decode_event(raw: bytes | bytearray | memoryview | msgspec.Raw) -> AnyEvent:
    """Decode one JSON event in any of the dialects; raises :class:`UndecodableEventError` for non-objects only."""
    try:
        return _decoder.decode(raw)
    except UNREADABLE:
        return decode_leniently(decode_object(raw))


def decode_object(raw: bytes | bytearray | memoryview | msgspec.Raw) -> dict[str, Any]:
    """Decode one JSON object without types; raises :class:`UndecodableEventError` for anything else."""
    try:
        message = msgspec.json.decode(raw)
    except UNREADABLE as error:
        raise UndecodableEventError(f"the event is not readable JSON: {error}") from error
    if not isinstance(message, dict):
        raise UndecodableEventError(f"the event is a JSON {type(message).__name__}, not an object")
    return message


def decode_leniently(message: Mapping[str, Any]) -> AnyEvent:
    """Build the event from decoded JSON, leaving out each value whose shape does not fit its field."""
    kind = message.get("type")
    if not isinstance(kind, str) or not kind.strip():
        return Unsupported(None)
    call = CALLS.get(kind.strip().lower())
    return Unsupported(kind.strip()) if call is None else _fit(message, call)


def _fit(value: Mapping[str, Any], struct: type[_S]) -> _S:
    """Make ``struct`` from the entries of ``value`` that fit its fields."""
    fitting: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        entry = value.get(field.encode_name)
        kind = get_args(field.type)[0]
        if kind is str and isinstance(entry, str | int | float):
            fitting[field.name] = entry
        elif isinstance(entry, dict) and kind is not str:
            nested = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
            fitting[field.name] = _fit(entry, kind) if nested else entry
    return struct(**fitting)
