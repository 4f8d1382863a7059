"""Expires session state by event time, so that a replay of months remembers what the service would."""

from collections.abc import Sequence
from typing import Final

import msgspec

from impact_plugin.config.settings import StateSettings
from impact_plugin.store.table import GENERATIONS, GenerationTable

DAY_MS: Final = 86_400_000
CONFIRMING_EVENTS: Final = 256
"""Consecutive events needed to begin a generation: a few events with wrong clocks must not expire anything."""

FREEING_SECONDS: Final = 60.0


class GenerationClock(msgspec.Struct):
    """When the next generation begins: at ``due`` (ms since 1970); ``beyond`` counts consecutive events since then."""

    span: int
    generation: int = 0
    due: int | None = None
    beyond: int = 0
    least: int = 0

    def advance(self, time: int) -> bool:
        """Note an event; returns whether it begins a new generation."""
        if self.due is not None and time < self.due:
            self.beyond = 0
            return False
        self.least = time if self.beyond == 0 else min(time, self.least)
        self.beyond += 1
        if self.beyond < CONFIRMING_EVENTS:
            return False
        # The first time only determines when the next generation begins.
        begins = self.due is not None
        self.generation, self.due, self.beyond = self.generation + begins, self.least + self.span, 0
        return begins


class Ageing:
    """Ages tables by event time, as the service does by its clock with the default settings.

    ``decisions`` are kept for ``retention`` (milliseconds), ``clicks`` as long as clicks are remembered. Events without
    a time are ignored. ``on=False`` disables expiry, for consecutive files of the same days: events of the second must
    find the state that the first left.
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
        """Note the time of a decided event, 0 if it has none."""
        if not time or not self._on:
            return
        for clock, tables in ((self.decision_clock, self._decisions), (self.click_clock, self._clicks)):
            if clock.advance(time):
                for table in tables:
                    table.advance(clock.generation)
                    table.free(FREEING_SECONDS)
