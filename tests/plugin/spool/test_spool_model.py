"""Any history of a spool is the one of plain rules: random steps against a reference that a reader can check.

The reference keeps a list and never writes, sweeps or counts. Events that come again, lanes that wait and lose their
order, outcomes of any kind in any order, time going by, persons who are forgotten, and processes that die.
"""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st

from impact_plugin.spool.base import LANE_SECONDS, DeadLetterCause, Spool, SpoolRow
from tests.builders import Clock
from tests.plugin.spool.spool_conformance import ALL, dead, digest, event, names
from tests.plugin.spool.test_sqlite_spool import opener_of
from tests.properties import tried

Step = tuple[Any, ...]

DESTINATIONS: Final = ("eu", "us")

places = st.integers(0, 9)
puts = st.tuples(
    st.just("put"), st.integers(0, 60), st.sampled_from(["ada", "ada", "bob", None]), st.booleans(), st.integers(0, 9)
)
takes = st.tuples(st.just("take"), st.sampled_from(DESTINATIONS), st.booleans())
ends = st.tuples(st.sampled_from(["done", "bury", "release"]), places)
laters = st.tuples(st.just("later"), places, st.sampled_from([0, 5, 60]), st.booleans())
others = st.one_of(
    st.tuples(st.just("pass"), st.sampled_from([1, 30, 60, LANE_SECONDS + 1])),
    st.tuples(st.sampled_from(["die", "retry"])),
    st.tuples(st.just("forget"), st.sampled_from(["ada", "bob"])),
)
kinds = st.sampled_from([puts, puts, puts, takes, takes, takes, ends, laters, laters, others])
steps = st.lists(kinds.flatmap(lambda kind: kind), min_size=20, max_size=60)
"""One in ten is of those that end a situation."""


@dataclass
class Kept:
    """A row of the reference."""

    name: str
    to: str
    lane: str | None
    urgent: bool
    due: int
    attempt: int = 0
    failing_since: int | None = None
    taken: bool = False


class Naive:
    """The rules of the port, one after the other."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rows: list[Kept] = []
        self.dead: list[tuple[Kept, str, int]] = []
        self.seen: set[str] = set()
        self.lost: set[tuple[str, str]] = set()

    def put(self, name: str, lane: str | None, *, urgent: bool, dies: bool) -> bool:
        """Store an event for both destinations, unless it was seen."""
        if name in self.seen:
            return False
        self.seen.add(name)
        rows = [Kept(name, to, lane, urgent, self.clock.ms) for to in DESTINATIONS]
        if dies:
            self.dead += [(row, "born", 0) for row in rows]
        else:
            self.rows += rows
        return True

    def take(self, to: str, *, urgent: bool) -> list[Kept]:
        """All that is due, oldest due first, each with those of its lane that go before it."""
        given: list[Kept] = []
        mine = [row for row in self.rows if (row.to, row.urgent) == (to, urgent) and row.due <= self.clock.ms]
        for row in sorted(mine, key=lambda row: row.due):
            if not row.taken:
                given += self._with_earlier(row)
        return given

    def _with_earlier(self, row: Kept) -> list[Kept]:
        before = [one for one in self.rows[: self.rows.index(row)] if row.lane and self._is_mate(one, row)]
        if self._is_lost(row, before):
            before = []
        given: list[Kept] = []
        for one in (*before, row):
            if one.taken:
                continue
            if one.due > self.clock.ms:
                row.due = one.due
                return given
            one.taken = True
            given.append(one)
        return given

    def _is_mate(self, one: Kept, other: Kept) -> bool:
        return (one.to, one.lane) == (other.to, other.lane)

    def _is_lost(self, row: Kept, before: list[Kept]) -> bool:
        if row.lane is None:
            return False
        since = before[0].failing_since if before else row.failing_since
        stuck = since is not None and self.clock.ms - since > LANE_SECONDS * 1000
        if stuck:
            self.lost.add((row.to, row.lane))
        elif not before:
            self.lost.discard((row.to, row.lane))
        return (row.to, row.lane) in self.lost

    def later(self, row: Kept, due: int, *, failed: bool) -> None:
        """Put the row off, and with it those of its lane that came after it."""
        row.taken, row.due = False, due
        if failed:
            row.attempt += 1
            row.failing_since = self.clock.ms if row.failing_since is None else row.failing_since
        if row.lane and (row.to, row.lane) not in self.lost:
            for one in self.rows[self.rows.index(row) + 1 :]:
                if self._is_mate(one, row):
                    one.due = max(one.due, due)

    def end(self, row: Kept, *, buried: bool) -> None:
        """Of a row that needs nothing more, or is given up."""
        self.rows.remove(row)
        if buried:
            self.dead.append((row, "refused", row.attempt + 1))

    def retry(self) -> int:
        """All that are dead are new."""
        found, self.dead = self.dead, []
        self.rows += [Kept(row.name, row.to, row.lane, row.urgent, self.clock.ms) for row, _, _ in found]
        return len(found)

    def forget(self, lane: str) -> tuple[int, int]:
        """All of one person."""
        before = len(self.rows), len(self.dead)
        self.rows = [row for row in self.rows if row.lane != lane]
        self.dead = [one for one in self.dead if one[0].lane != lane]
        return before[0] - len(self.rows), before[1] - len(self.dead)

    def die(self) -> None:
        """Of what was taken and lost only the process knew."""
        self.lost.clear()
        for row in self.rows:
            row.taken = False


class Twins:
    """A spool and the reference, held against each other at every step."""

    def __init__(self, spool: Spool, naive: Naive, clock: Clock) -> None:
        self.spool = spool
        self.naive = naive
        self.clock = clock
        self.held: list[tuple[SpoolRow, Kept]] = []

    async def step(self, step: Step) -> None:
        """One step of a history."""
        match step:
            case "put", number, lane, urgent, fate:
                await self._put(f"e{number}", lane, urgent=urgent, dies=fate == 0)
            case "take", to, urgent:
                await self._take(to, urgent=urgent)
            case "pass", seconds:
                self.clock.now += seconds
            case ("retry",):
                await self.spool.flush()
                assert self.naive.retry() == await self.spool.retry(ALL)
            case "forget", lane:
                found = await self.spool.forget([digest(lane)])
                assert self.naive.forget(lane) == (found.waiting, found.dead)
            case kind, place, *more:
                self._settle(kind, place, *more)

    async def _put(self, name: str, lane: str | None, *, urgent: bool, dies: bool) -> None:
        people = (lane,) if lane else ()
        death = DeadLetterCause("born", "") if dies else None
        new = event(name, lane, urgent=urgent, people=people, death=death, to=DESTINATIONS)

        assert [self.naive.put(name, lane, urgent=urgent, dies=dies)] == await self.spool.put([new])

    async def _take(self, to: str, *, urgent: bool) -> None:
        # The reference writes at once.
        await self.spool.flush()
        rows, kept = await self.spool.take(to, urgent=urgent, limit=1000), self.naive.take(to, urgent=urgent)

        assert [(one.name, one.attempt) for one in kept] == [(*names([row]), row.attempt) for row in rows]
        self.held += zip(rows, kept, strict=True)

    def _settle(self, kind: str, place: int, *more: Any) -> None:
        if not self.held:
            return
        row, kept = self.held.pop(place % len(self.held))
        there = any(one is kept for one in self.naive.rows)
        assert there == self.spool.holds(row)
        match kind:
            case "release":
                self.spool.release([row])
                kept.taken = False
            case "later":
                due, failed = self.clock.ms + more[0] * 1000, more[1]
                self.spool.later(row, due, failed=failed)
                if there:
                    self.naive.later(kept, due, failed=failed)
            case "done":
                self.spool.done(row)
            case _:
                self.spool.bury(row, DeadLetterCause("refused", ""))
        if there and kind in ("done", "bury"):
            self.naive.end(kept, buried=kind == "bury")

    async def close(self) -> None:
        """What is left."""
        await self.spool.flush()
        tally = await self.spool.tally()
        letters = [(one.payload.decode().strip(), one.reason, one.attempts) for one in await dead(self.spool)]

        assert [(row.name, *more) for row, *more in self.naive.dead] == letters
        assert len(self.naive.rows) == sum(tally.waiting.values())
        assert (len(letters), len(self.naive.seen)) == (tally.dead, tally.seen)


@tried(150)
@given(steps)
def test_any_history_is_the_one_of_the_reference(history: list[Step]) -> None:
    """What is put, taken, given back, put off, buried, retried and forgotten, over any number of processes."""

    async def run() -> None:
        clock = Clock()
        naive = Naive(clock)
        with tempfile.TemporaryDirectory() as folder:
            opener = opener_of(Path(folder), clock)
            async with AsyncExitStack() as life:
                twins = Twins(await life.enter_async_context(opener(durability="process")), naive, clock)
                for step in history:
                    if step != ("die",):
                        await twins.step(step)
                        continue
                    await life.aclose()
                    naive.die()
                    twins = Twins(await life.enter_async_context(opener(durability="process")), naive, clock)
                await twins.close()

    asyncio.run(run())
