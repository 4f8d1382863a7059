"""The lines of a recording: gzipped NDJSON that ``zcat`` and ``jq`` read.

The first line tells the format. A destination's configuration stands before the first event that goes to it, and again
when it changed; credentials are not in it. Events of one request have one ``request`` number, because the sessions
decide about a request as a whole.
"""

from typing import Any, Final, TypeAlias

import msgspec

VERSION: Final = 1


class Header(msgspec.Struct, frozen=True, tag_field="line", tag="recording"):
    """What the file is, and from when."""

    version: int
    at: str
    plugin: str


class DestinationLine(msgspec.Struct, frozen=True, tag_field="line", tag="destination"):
    """What the destination of this id is configured to, from here on."""

    id: str
    config: dict[str, Any]


class EventLine(msgspec.Struct, frozen=True, tag_field="line", tag="event"):
    """One event: when it was received (ms since 1970), by which way, in which request, and for which destinations."""

    at: int
    via: str
    request: int
    to: tuple[str, ...]
    event: msgspec.Raw


class EndLine(msgspec.Struct, frozen=True, tag_field="line", tag="end"):
    """How many events there are, how many were left out because they came too fast, and why it ended."""

    events: int
    left_out: int
    cause: str


Line: TypeAlias = Header | DestinationLine | EventLine | EndLine
