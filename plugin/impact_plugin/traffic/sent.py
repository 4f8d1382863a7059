"""Progress of sending recorded events: outcomes, counted, and written down so that it survives any stop."""

from pathlib import Path
from typing import Final

import msgspec

from impact_plugin.files import write_whole
from impact_plugin.traffic.reading import ReadingError
from impact_plugin.traffic.replay import EXAMPLES
from impact_transformers.events import UNREADABLE
from impact_transformers.normalize import redact_emails

VERSION: Final = 2
MAX_DETAIL: Final = 200
TAKEN: Final = frozenset({"held", "duplicate", "filtered", "transformed", "sent"})
"""Outcomes after which there is nothing left to do about an event."""


class Sent(msgspec.Struct):
    """Events that are done with, by their outcome, and requests that were repeated.

    The outcomes: held (the service stored the event and will send it), duplicate (the service had it), filtered,
    rejected, transformed (by processor or router), sent (through the proxy), failed (the service asked for a retry).
    """

    events: int = 0
    outcomes: dict[str, int] = {}
    examples: dict[str, list[str]] = {}
    repeats: int = 0
    complete: bool = False

    @property
    def lost(self) -> int:
        """Events that still need attention."""
        return sum(count for outcome, count in self.outcomes.items() if outcome not in TAKEN)

    def count(self, outcome: str, events: int = 1, detail: str = "") -> None:
        """Count events of one outcome; the first few details of each are kept as examples."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + events
        kept = self.examples.setdefault(outcome, []) if detail else []
        if len(kept) < EXAMPLES:
            kept.append(redact_emails(detail)[:MAX_DETAIL])

    def add(self, other: "Sent") -> None:
        """Add the counts of another."""
        self.events += other.events
        self.repeats += other.repeats
        for outcome, events in other.outcomes.items():
            self.count(outcome, events)
        for outcome, examples in other.examples.items():
            for detail in examples:
                self.count(outcome, 0, detail)


class _Saved(msgspec.Struct, frozen=True):
    """The files (by their fingerprints), the target, and the progress."""

    version: int
    files: list[tuple[str, int, str]]
    target: tuple[str, ...]
    sent: Sent


def save_sent(path: Path, files: list[tuple[str, int, str]], target: tuple[str, ...], sent: Sent) -> None:
    """Write the progress down, whole or not at all; raises :class:`ReadingError`."""
    try:
        write_whole(path, msgspec.json.encode(_Saved(VERSION, files, target, sent)))
    except OSError as error:
        raise ReadingError(f"{path}: cannot be written: {error.strerror}") from error


def load_sent(path: Path, files: list[tuple[str, int, str]], target: tuple[str, ...]) -> Sent:
    """Read the progress of these files to this target; without the file, start from the beginning.

    Raises :class:`ReadingError` if the file belongs to other files or another target.
    """
    if not path.exists():
        return Sent()
    try:
        saved = msgspec.json.decode(path.read_bytes(), type=_Saved)
    except (OSError, *UNREADABLE) as error:
        raise ReadingError(f"{path}: cannot be read as the progress of replay --send: {error}") from error
    if saved.version != VERSION or saved.files != files or saved.target != target:
        raise ReadingError(f"{path}: belongs to other files or another target; delete it to start from the beginning")
    return saved.sent
