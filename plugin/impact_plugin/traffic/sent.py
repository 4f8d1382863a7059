"""How far a sending is, counted, and written down so that it can go on after a stop of any kind."""

from pathlib import Path
from typing import Final

import msgspec

from impact_plugin.files import write_whole
from impact_plugin.traffic.reading import ReadingError
from impact_plugin.traffic.replay import EXAMPLES
from impact_transformers.events import UNREADABLE
from impact_transformers.normalize import redact_emails

VERSION: Final = 1
DETAIL: Final = 200
TAKEN: Final = frozenset({"stored", "duplicate", "filtered", "transformed", "delivered"})
"""Endings after which nothing is left to do about an event."""


class Sent(msgspec.Struct):
    """Events done with, by how they ended, and requests that went out more than once."""

    events: int = 0
    endings: dict[str, int] = {}
    examples: dict[str, list[str]] = {}
    repeats: int = 0
    complete: bool = False

    @property
    def lost(self) -> int:
        """Events that the service did not take, or nobody could read."""
        return sum(count for ending, count in self.endings.items() if ending not in TAKEN)

    def count(self, ending: str, events: int = 1, detail: str = "") -> None:
        """Note how events ended; of each ending the first few are kept with their detail."""
        self.endings[ending] = self.endings.get(ending, 0) + events
        kept = self.examples.setdefault(ending, []) if detail else []
        if len(kept) < EXAMPLES:
            kept.append(redact_emails(detail)[:DETAIL])

    def add(self, other: "Sent") -> None:
        """Count what another counted too."""
        self.events += other.events
        self.repeats += other.repeats
        for ending, events in other.endings.items():
            self.count(ending, events)
        for ending, examples in other.examples.items():
            for detail in examples:
                self.count(ending, 0, detail)


class _Saved(msgspec.Struct, frozen=True):
    """What is sent (files by their fingerprints) and where to, and how far it is."""

    version: int
    files: list[tuple[str, int, str]]
    target: tuple[str, ...]
    sent: Sent


def save_sent(path: Path, files: list[tuple[str, int, str]], target: tuple[str, ...], sent: Sent) -> None:
    """Write it down, whole or not at all; raises :class:`ReadingError`."""
    try:
        write_whole(path, msgspec.json.encode(_Saved(VERSION, files, target, sent)))
    except OSError as error:
        raise ReadingError(f"{path}: cannot be written: {error.strerror}") from error


def load_sent(path: Path, files: list[tuple[str, int, str]], target: tuple[str, ...]) -> Sent:
    """How far the sending of these files to this target is; from the beginning where there is no such file.

    Raises :class:`ReadingError` where the file is of another sending.
    """
    if not path.exists():
        return Sent()
    try:
        saved = msgspec.json.decode(path.read_bytes(), type=_Saved)
    except (OSError, *UNREADABLE) as error:
        raise ReadingError(f"{path}: cannot be read as a sending that was stopped: {error}") from error
    if saved.version != VERSION or saved.files != files or saved.target != target:
        raise ReadingError(f"{path}: is of a sending of other files or to another target; delete it to begin anew")
    return saved.sent
