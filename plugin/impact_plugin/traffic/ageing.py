"""Forgetting by the times of the events, so that a replay of months keeps what the service would keep of them."""

from typing import Final

import msgspec

from impact_plugin.config.settings import StateSettings
from impact_plugin.store.engine import Engine
from impact_plugin.store.table import GENERATIONS

DAY_MS: Final = 86_400_000
BELIEVED: Final = 256
"""So many events in a row must lie in the next generation: a wrong clock or two cannot empty the memory."""

FREEING_SECONDS: Final = 60.0


class Clock(msgspec.Struct):
    """When the next generation begins: the time (ms since 1970) that is waited for, and how many lay beyond it."""

    span: int
    generation: int = 0
    due: int | None = None
    beyond: int = 0
    least: int = 0

    def turns(self, time: int) -> bool:
        """Take note of an event; tells whether a generation begins with it."""
        if self.due is not None and time < self.due:
            self.beyond = 0
            return False
        self.least = time if self.beyond == 0 else min(time, self.least)
        self.beyond += 1
        if self.beyond < BELIEVED:
            return False
        # With the first of them it is only said when the next begins.
        begins = self.due is not None
        self.generation, self.due, self.beyond = self.generation + begins, self.least + self.span, 0
        return begins


class Ageing:
    """Ages the tables of an engine by the event times, as the service does by its clock with the default settings.

    ``retention`` is the engine's, in milliseconds. Events without a time say nothing. It is not ``on`` where files
    follow each other that may be of the same days: those of the second would find nothing of the first.
    """

    def __init__(self, engine: Engine, retention: int, *, on: bool) -> None:
        self.journal = Clock(retention // GENERATIONS)
        self.clicks = Clock(int(StateSettings().click_memory_days * DAY_MS) // GENERATIONS)
        self._engine = engine
        self._on = on

    def note(self, time: int) -> None:
        """An event of this time was decided; 0 for none."""
        if not time or not self._on:
            return
        engine = self._engine
        if self.journal.turns(time):
            for table in (engine.claims, engine.answers):
                table.advance(self.journal.generation)
                table.free(FREEING_SECONDS)
        if self.clicks.turns(time):
            engine.identities.advance(self.clicks.generation)
            engine.identities.free(FREEING_SECONDS)
