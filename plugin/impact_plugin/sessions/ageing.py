"""Forgetting by the times of the events, so that a replay of months remembers what the service would remember."""

from collections.abc import Sequence
from typing import Final

import msgspec

from impact_plugin.config.settings import StateSettings
from impact_plugin.store.table import GENERATIONS, GenerationTable

DAY_MS: Final = 86_400_000
CONFIRMING_EVENTS: Final = 256
"""How many events in a row must lie in the next generation before it begins: a wrong clock or two forget nothing."""

FREEING_SECONDS: Final = 60.0


class GenerationClock(msgspec.Struct):
    """When the next generation begins: ``due`` in ms since 1970, and how many events in a row lay at or after it."""

    span: int
    generation: int = 0
    due: int | None = None
    beyond: int = 0
    least: int = 0

    def turns(self, time: int) -> bool:
        """Take note of an event; returns whether a generation begins with it."""
        if self.due is not None and time < self.due:
            self.beyond = 0
            return False
        self.least = time if self.beyond == 0 else min(time, self.least)
        self.beyond += 1
        if self.beyond < CONFIRMING_EVENTS:
            return False
        # The first time only settles when the next generation begins.
        begins = self.due is not None
        self.generation, self.due, self.beyond = self.generation + begins, self.least + self.span, 0
        return begins


class Ageing:
    """Ages tables by the event times, as the service does by its clock with the default settings.

    ``decisions`` are kept for ``retention`` (milliseconds), ``clicks`` as long as clicks are remembered. Events without
    a time say nothing. With ``on=False`` nothing is forgotten: files may follow each other that are of the same days,
    and the events of the second must find what the first left.
    """

    def __init__(
        self, decisions: Sequence[GenerationTable], clicks: Sequence[GenerationTable], retention: int, *, on: bool
    ) -> None:
        self.decision_clock = GenerationClock(retention // GENERATIONS)
        self.click_clock = GenerationClock(int(StateSettings().click_memory_days * DAY_MS) // GENERATIONS)
        self._decisions = decisions
        self._clicks = clicks
        self._on = on

    def note(self, time: int) -> None:
        """An event of this time was decided; 0 for one without a time."""
        if not time or not self._on:
            return
        for clock, tables in ((self.decision_clock, self._decisions), (self.click_clock, self._clicks)):
            if clock.turns(time):
                for table in tables:
                    table.advance(clock.generation)
                    table.free(FREEING_SECONDS)
