"""The lines of a recording: gzipped NDJSON, which ``zcat`` and ``jq`` can read.

The first line is the header. A destination's configuration, without credentials, precedes the first event that goes to
it, and follows again after every change. Events of one request share one ``request`` number, because the sessions
decide about a request as a whole.
"""

from typing import Any, Final, TypeAlias

import msgspec

VERSION: Final = 1


class Header(msgspec.Struct, frozen=True, tag_field="line", tag="recording"):
    """The version of the format, when the recording began (ISO 8601), and the version of the plugin."""

    version: int
    at: str
    plugin: str


class DestinationLine(msgspec.Struct, frozen=True, tag_field="line", tag="destination"):
    """The configuration that the destination of this id has from here on."""

    id: str
    config: dict[str, Any]


class EventLine(msgspec.Struct, frozen=True, tag_field="line", tag="event"):
    """An event: when it was received (ms since 1970), by which way, in which request, and for which destinations."""

    at: int
    via: str
    request: int
    to: tuple[str, ...]
    event: msgspec.Raw


class EndLine(msgspec.Struct, frozen=True, tag_field="line", tag="end"):
    """The number of events, the number left out because they arrived too fast, and why the recording ended."""

    events: int
    left_out: int
    cause: str


Line: TypeAlias = Header | DestinationLine | EventLine | EndLine
