"""What a file of this folder says, read strictly: a journey of one or more people, and the truth of every event."""

from pathlib import Path
from typing import Any, Final, Literal

import msgspec

FOLDER: Final = Path(__file__).parent

Way = Literal["processor", "router"]


class Recorded(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One event and what must become of it; ``stitched`` tells that its click id comes from memory, to a Conversion."""

    event: dict[str, Any]
    becomes: str
    click_id: str | None
    stitched: bool = False
    because: str = ""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events that the router sends together; ``through`` fixes the way, which else the test chooses."""

    events: tuple[Recorded, ...]
    through: Way | None = None


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the operator must read in the metrics after the journey."""

    clicks: int
    stitched_orders: int


class Journey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See README.md; ``everywhere`` lies beneath each event, ``excepted`` tells why a way of sending does not apply."""

    title: str
    why: str
    expected: Expected
    requests: tuple[Request, ...]
    everywhere: dict[str, Any] = {}
    config: dict[str, Any] = {}
    excepted: dict[str, str] = msgspec.field(default_factory=dict, name="except")


def read_journeys() -> dict[str, Journey]:
    """All journeys by name."""
    return {path.stem: msgspec.json.decode(path.read_bytes(), type=Journey) for path in sorted(FOLDER.glob("*.json"))}


def complete(journey: Journey, recorded: Recorded) -> dict[str, Any]:
    """The event as the router hands it on; the times that it does not name are its ``timestamp``."""
    event = _merged(journey.everywhere, recorded.event)
    times = dict.fromkeys(("originalTimestamp", "sentAt", "receivedAt"), event["timestamp"])
    return times | event


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = below | above
    for name in below.keys() & above.keys():
        if isinstance(below[name], dict) and isinstance(above[name], dict):
            merged[name] = _merged(below[name], above[name])
    return merged
