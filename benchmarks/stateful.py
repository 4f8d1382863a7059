"""The whole transformation with sessions and without them, in turns, on the recorded day."""

import asyncio
import cProfile
import gc
import itertools
import pstats
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from benchmarks.floor import MICROSECONDS, Cost, spend_async
from benchmarks.memory import vary
from benchmarks.traffic import KINDS, Answer, Day, answerer, make_bodies, make_context
from impact_plugin.config.settings import StateSettings
from impact_plugin.files import Durability
from impact_plugin.sessions.sessions import Digests, Sessions
from impact_plugin.store.embedded import open_store
from impact_transformers import Secret

BATCH: Final = 200
STREAMS: Final = (1, 8)
DURABILITIES: Final[tuple[Durability, ...]] = ("process", "power")
GRACE_SECONDS: Final = 300.0
PROFILED_ROUNDS: Final = 5
PROFILED_ROWS: Final = 40


class Overhead(msgspec.Struct, frozen=True):
    """What the sessions add: microseconds of CPU for an event, and ratios with to without; medians over the rounds."""

    durability: Durability
    streams: int
    with_us: float
    without_us: float
    cpu_ratio: float
    least_cpu_ratio: float
    wall_ratio: float


async def measure_overhead(day: Day, rounds: int, events: int | None) -> list[Overhead]:
    """Every durability over one and over several streams of batches."""
    bodies = make_bodies(day.well_formed[:events], KINDS[0], BATCH)
    fresh = itertools.count()
    found = []
    for durability in DURABILITIES:
        async with open_contexts(durability) as (stateful, stateless):
            gc.collect()
            gc.freeze()
            for streams in STREAMS:
                measured = [
                    await _round(list(vary(bodies, number)), streams, stateful, stateless)
                    for number in itertools.islice(fresh, rounds + 1)
                ]
                found.append(_overhead(durability, streams, len(bodies) * BATCH, measured[1:]))
    return found


@asynccontextmanager
async def open_contexts(durability: Durability) -> AsyncIterator[tuple[Answer, Answer]]:
    """The processor's answer with the embedded store, as the service opens it, and without sessions."""
    stateless = make_context()
    with TemporaryDirectory() as folder:
        settings = StateSettings(dir=folder, durability=durability)
        digests = Digests(Secret("benchmark"))
        async with open_store(settings, time.time) as store:
            sessions = Sessions(store, digests, stateless.telemetry, GRACE_SECONDS, time.time)
            stateful = msgspec.structs.replace(stateless, sessions=sessions)
            yield answerer(KINDS[0], stateful), answerer(KINDS[0], stateless)


async def _round(bodies: Sequence[bytes], streams: int, stateful: Answer, stateless: Answer) -> tuple[Cost, Cost]:
    """All bodies through both, in turns of one batch for each stream; who goes first changes."""
    with_, without = Cost(), Cost()
    pairs = ((stateful, with_), (stateless, without))
    for number, start in enumerate(range(0, len(bodies) - streams + 1, streams)):
        turn = bodies[start : start + streams]
        for answer, cost in pairs if number % 2 == 0 else reversed(pairs):
            await _spend(answer, turn, cost)
    return with_, without


async def _spend(answer: Answer, bodies: Sequence[bytes], cost: Cost) -> None:
    """One batch for each stream, at the same time; CPU time is of all threads."""

    async def all_at_once(_: bytes) -> bytes:
        return b"".join(await asyncio.gather(*(answer(body) for body in bodies)))

    if len(bodies) == 1:
        await spend_async(answer, bodies, cost)
    else:
        await spend_async(all_at_once, bodies[:1], cost)


def _overhead(durability: Durability, streams: int, events: int, rounds: Sequence[tuple[Cost, Cost]]) -> Overhead:
    # What does not fill the last turn was left out.
    events -= events % (streams * BATCH)
    ratios = [with_.cpu / without.cpu for with_, without in rounds]
    return Overhead(
        durability,
        streams,
        median(with_.cpu for with_, _ in rounds) / events * MICROSECONDS,
        median(without.cpu for _, without in rounds) / events * MICROSECONDS,
        median(ratios),
        min(ratios),
        median(with_.wall / without.wall for with_, without in rounds),
    )


async def profile_overhead(day: Day) -> None:
    """Print where the time goes with sessions; the profiler itself makes calls look dear and sees no other thread."""
    bodies = make_bodies(day.well_formed, KINDS[0], BATCH)
    rounds: Iterator[list[bytes]] = (list(vary(bodies, number)) for number in range(PROFILED_ROUNDS))
    profiler = cProfile.Profile()
    async with open_contexts("process") as (stateful, _):
        for varied in rounds:
            profiler.enable()
            for body in varied:
                await stateful(body)
            profiler.disable()
    print(f"{len(bodies) * BATCH * PROFILED_ROUNDS:,} events, {KINDS[0].name}, batch {BATCH}, durability process")
    pstats.Stats(profiler).strip_dirs().sort_stats("tottime").print_stats(PROFILED_ROWS)
