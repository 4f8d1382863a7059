"""What another configuration would change, event by event and in sum."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from impact_plugin.traffic.replay import EXAMPLES, ReplayedEvent
from impact_transformers import Send

MAX_KINDS: Final = 200
"""Kinds of changes that are distinguished; further ones are counted together."""

NOTHING: Final = "nothing"


class OutcomeChange(msgspec.Struct):
    """Events that would change in the same way: how many, and the first few."""

    before: str
    after: str
    parameters: tuple[str, ...]
    count: int = 0
    examples: list[str] = []


class Comparison:
    """Counts the differences between two runs over the same events."""

    def __init__(self) -> None:
        self.changes: dict[tuple[str, str, tuple[str, ...]], OutcomeChange] = {}
        self.compared = 0
        self.changed = 0

    def compare(self, before: Sequence[ReplayedEvent], after: Sequence[ReplayedEvent]) -> None:
        """Compare the outcomes of one request; an event without a counterpart became, or would become, nothing."""
        counterparts = _by_place(after)
        for place, one in _by_place(before).items():
            self._note(one.number, one, counterparts.pop(place, None))
        for one in counterparts.values():
            self._note(one.number, None, one)

    def _note(self, number: int, before: ReplayedEvent | None, after: ReplayedEvent | None) -> None:
        self.compared += 1
        first, second = (NOTHING if one is None else one.label for one in (before, after))
        parameters = _differing(before, after)
        if first == second and not parameters:
            return
        self.changed += 1
        key = first, second, parameters
        if key not in self.changes and len(self.changes) >= MAX_KINDS:
            key = "other", "other", ()
        change = self.changes.setdefault(key, OutcomeChange(*key, 0, []))
        change.count += 1
        if len(change.examples) < EXAMPLES:
            change.examples.append(", ".join((f"event {number}", *_values(before, after, parameters))))


def _by_place(events: Sequence[ReplayedEvent]) -> dict[tuple[int, int], ReplayedEvent]:
    """The events by number, and by place among those of one number: an event may go to several destinations."""
    placed: dict[tuple[int, int], ReplayedEvent] = {}
    place = 0
    for one in events:
        place = place + 1 if (one.number, place) in placed else 0
        placed[one.number, place] = one
    return placed


def _differing(before: ReplayedEvent | None, after: ReplayedEvent | None) -> tuple[str, ...]:
    """The parameters that differ between two requests; none if one of the two is not a request."""
    if before is None or after is None or not isinstance(before.outcome, Send) or not isinstance(after.outcome, Send):
        return ()
    one, other = before.form, after.form
    if one == other:
        return ()
    return tuple(name for name in sorted({*one, *other}) if one.get(name) != other.get(name))


def _values(before: ReplayedEvent | None, after: ReplayedEvent | None, parameters: Sequence[str]) -> Iterator[str]:
    for name in parameters[:EXAMPLES]:
        values = [NOTHING if one is None else one.form.get(name, NOTHING) for one in (before, after)]
        yield f"{name} {values[0]} -> {values[1]}"
