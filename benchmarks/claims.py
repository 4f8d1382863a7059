"""Claims at size: their memory, the time of a decision, the stalls of the event loop, the start from disk.

Each function is called in a process of its own; see :mod:`benchmarks.sessions`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, thread_time
from typing import Final

import msgspec

from benchmarks import queries
from benchmarks.fresh import resident_bytes, run_fresh
from impact_plugin.config.settings import StateSettings
from impact_plugin.store.base import CALL_SIZE, SessionQuery
from impact_plugin.store.embedded import EmbeddedStore, open_store
from impact_plugin.store.engine import Capacities, Engine
from impact_plugin.store.table import GENERATIONS
from impact_plugin.units import HOUR_SECONDS

SAMPLED_BATCHES: Final = 400
"""Batches of 256 over which a decision is timed."""

FREE_SECONDS: Final = 0.002
"""How long the store frees at a time; see :mod:`impact_plugin.store.embedded`."""

PULSE_SECONDS: Final = 0.001
BATCH: Final = 200
"""Events in a batch where batches are journalled: as many as a router sends."""

BATCH_EVERY_SECONDS: Final = 0.02
NANOSECONDS: Final = 1e9
MILLISECONDS: Final = 1e3


class Stopwatch:
    """Adds up turns of work and remembers the longest, in CPU time of this thread: other processes do not count."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.longest = 0.0
        self.decisions = 0

    def decide(self, engine: Engine, batch: Sequence[SessionQuery]) -> None:
        """One turn, as the embedded store makes it; the changes are handed over, as for the journal."""
        started = thread_time()
        answers = engine.write(batch)
        engine.read(batch, answers)
        engine.take_changes()
        self._add(started, len(batch))

    def run(self, work: Callable[[], object]) -> None:
        """One turn of any other kind."""
        started = thread_time()
        work()
        self._add(started, 0)

    def _add(self, started: float, decisions: int) -> None:
        took = thread_time() - started
        self.seconds += took
        self.longest = max(self.longest, took)
        self.decisions += decisions

    @property
    def ns(self) -> float:
        """Nanoseconds for a decision."""
        return self.seconds / self.decisions * NANOSECONDS

    @property
    def longest_ms(self) -> float:
        """The longest turn in milliseconds."""
        return self.longest * MILLISECONDS


class Size(msgspec.Struct, frozen=True):
    """What so many claims take, in memory alone: no disk, no event loop."""

    claims: int
    bytes_per_claim: float
    bytes_after_repeats: float
    new_ns: float
    repeat_ns: float
    same_ns: float
    full_ns: float
    full_ms: float
    turn_ms: float
    advance_ms: float
    free_ms: float

    @property
    def longest_ms(self) -> float:
        """The longest turn of any kind."""
        return max(self.turn_ms, self.full_ms, self.advance_ms, self.free_ms)


def measure_size(count: int) -> Size:
    """Fill an engine with claims of one window, ask it again in all ways, let it expire."""
    batches = count // CALL_SIZE
    engine = Engine(queries.ROOMY, int(queries.RETENTION_SECONDS * 1000))
    before = resident_bytes()
    filling = Stopwatch()
    for batch in range(batches):
        filling.decide(engine, queries.claims(batch))
    held = len(engine.claims)
    grown = resident_bytes() - before
    sample = list(queries.sampled(batches, min(SAMPLED_BATCHES, batches)))
    new = _timed(engine, (queries.claims(batches + index) for index in range(len(sample))))
    same = _timed(engine, (queries.claims(batch) for batch in sample))
    repeat = _timed(engine, (queries.claims(batch, "second", later_ms=1000) for batch in sample))
    for batch in range(batches):
        filling.decide(engine, queries.claims(batch, "third", later_ms=2000))
    repeated = resident_bytes() - before
    advancing, freeing = _expire(engine)
    full = run_fresh(measure_full, count)
    return Size(
        claims=held,
        bytes_per_claim=grown / held,
        bytes_after_repeats=repeated / (held + new.decisions),
        new_ns=new.ns,
        repeat_ns=repeat.ns,
        same_ns=same.ns,
        full_ns=full.new_ns,
        full_ms=full.turn_ms,
        turn_ms=max(one.longest_ms for one in (filling, new, same, repeat)),
        advance_ms=advancing.longest_ms,
        free_ms=freeing.longest_ms,
    )


def _timed(engine: Engine, batches: Iterable[Sequence[SessionQuery]]) -> Stopwatch:
    """Decide about batches that are made one by one: all of them at once would count as memory of the claims."""
    watch = Stopwatch()
    for batch in batches:
        watch.decide(engine, batch)
    return watch


def _expire(engine: Engine) -> tuple[Stopwatch, Stopwatch]:
    """Advance the claims' generations until nothing is left, then free what they held."""
    advancing, freeing = Stopwatch(), Stopwatch()
    generation = 0
    while len(engine.claims):
        generation += 1
        advancing.run(partial(engine.claims.advance, generation))
    resident, turns_without = resident_bytes(), 0
    # A table does not tell what it has still to free; a turn that is over at once had nothing to do.
    while turns_without < GENERATIONS:
        started = perf_counter()
        freeing.run(partial(engine.claims.free, FREE_SECONDS))
        turns_without = turns_without + 1 if perf_counter() - started < FREE_SECONDS / 2 else 0
    if resident_bytes() >= resident:
        raise RuntimeError("nothing was freed")
    return advancing, freeing


class Full(msgspec.Struct, frozen=True):
    """New claims when there is room for no more, so that each pushes the oldest out."""

    new_ns: float
    turn_ms: float


def measure_full(count: int) -> Full:
    """Fill an engine to its capacity, and write half as much again: what cleaning up costs shows after a while."""
    batches = count // CALL_SIZE
    engine = Engine(Capacities(batches * CALL_SIZE, 1, 1), int(queries.RETENTION_SECONDS * 1000))
    _timed(engine, (queries.claims(batch) for batch in range(batches)))
    beyond = _timed(engine, (queries.claims(batch) for batch in range(batches, batches + batches // 2)))
    return Full(beyond.ns, beyond.longest_ms)


class Stalls(msgspec.Struct, frozen=True):
    """The longest time in milliseconds by which a pulse of the event loop came late, by what the store was doing."""

    claims: int
    idle_ms: float
    filling_ms: float
    expiring_ms: float
    slowest_reply_ms: float


class Pulse:
    """A task that sleeps a millisecond again and again, and notices by how much it oversleeps."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def beat(self) -> None:
        """Run until cancelled."""
        while True:
            started = perf_counter()
            await asyncio.sleep(PULSE_SECONDS)
            self.longest = max(self.longest, perf_counter() - started - PULSE_SECONDS)

    @asynccontextmanager
    async def beating(self) -> AsyncIterator["Pulse"]:
        """Beat until the block ends."""
        task = asyncio.create_task(self.beat())
        try:
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


class Clock:
    """A clock that is moved by hand, in seconds since 1970."""

    def __init__(self) -> None:
        self.now = queries.START_MS / 1000

    def __call__(self) -> float:
        """The time."""
        return self.now


def settings_for(folder: Path) -> StateSettings:
    """The embedded store in that folder, with room for all."""
    room = queries.ROOMY
    return StateSettings(
        str(folder),
        durability="process",
        decision_retention_hours=queries.RETENTION_SECONDS / HOUR_SECONDS,
        max_claims=room.claims,
        max_identities=room.identities,
        max_answers=room.answers,
        timeout_seconds=60.0,
    )


def measure_stalls(count: int, expiring_seconds: float) -> Stalls:
    """The embedded store with its disk, while other work wants the event loop."""
    return asyncio.run(_measure_stalls(count, expiring_seconds))


async def _measure_stalls(count: int, seconds: float) -> Stalls:
    clock = Clock()
    with TemporaryDirectory() as folder:
        async with open_store(settings_for(Path(folder)), clock) as store:
            async with Pulse().beating() as idle:
                await asyncio.sleep(seconds / 4)
            async with Pulse().beating() as filling:
                for batch in range(count // CALL_SIZE):
                    await _ask(store, queries.claims(batch))
            # All that was written runs out at once: the generations in memory, and the rows on disk little by little.
            clock.now += queries.RETENTION_SECONDS * (GENERATIONS + 2) / GENERATIONS
            deadline, batch, slowest = perf_counter() + seconds, count, 0.0
            async with Pulse().beating() as expiring:
                while perf_counter() < deadline:
                    batch += 1
                    slowest = max(slowest, await _ask(store, queries.claims(batch)))
                    await asyncio.sleep(BATCH_EVERY_SECONDS)
    longest = (idle.longest, filling.longest, expiring.longest, slowest)
    return Stalls(count, *(one * MILLISECONDS for one in longest))


async def _ask(store: EmbeddedStore, batch: Sequence[SessionQuery]) -> float:
    """Ask the store and say how long it took; making the batch and asking are turns of their own."""
    await asyncio.sleep(0)
    started = perf_counter()
    await store.decide(batch)
    return perf_counter() - started


class Start(msgspec.Struct, frozen=True):
    """Opening the store again after it was closed in order."""

    claims: int
    seconds: float
    file_mib: float


def measure_start(count: int) -> Start:
    """Write claims to disk, and time another process that opens them."""
    with TemporaryDirectory() as folder:
        run_fresh(fill_folder, folder, count)
        size = sum(one.stat().st_size for one in Path(folder).iterdir())
        seconds = run_fresh(open_folder, folder, count)
    return Start(count, seconds, size / 1024 / 1024)


def fill_folder(folder: str, count: int) -> None:
    """Write so many claims there, in batches of 200, several to a commit as under load."""
    asyncio.run(_fill(Path(folder), count))


async def _fill(folder: Path, count: int) -> None:
    async with open_store(settings_for(folder), Clock()) as store:
        waiting = iter(range(count // BATCH))

        async def send() -> None:
            for batch in waiting:
                await store.decide(queries.claims(batch, size=BATCH))

        await asyncio.gather(*(send() for _ in range(8)))


def open_folder(folder: str, count: int) -> float:
    """Seconds until the store answers."""
    return asyncio.run(_open(Path(folder), count))


async def _open(folder: Path, count: int) -> float:
    started = perf_counter()
    async with open_store(settings_for(folder), Clock()) as store:
        took = perf_counter() - started
        held = (await store.tally()).sizes["claims"]
        if held != count:
            raise RuntimeError(f"{held:,} claims came back of {count:,}")
    return took
