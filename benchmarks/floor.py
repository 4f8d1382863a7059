"""The floor: what decoding and encoding a body costs when nothing is done to its events; and ours measured against it.

Ours and the floor take turns every few hundred events, so that whatever else the machine does meets both alike.
"""

import gc
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter, process_time
from typing import Any, Final, TypeAlias

import msgspec

from benchmarks.traffic import Answer, Kind
from impact_plugin.protocols.rudder_envelope import TypedBatch
from impact_plugin.transformation.batch import TypedJob

Work: TypeAlias = Callable[[bytes], object]

TURN: Final = 200
"""Events between two readings of the clock: reading it costs about a microsecond."""

MICROSECONDS: Final = 1e6


class Cost(msgspec.Struct):
    """Seconds spent so far."""

    cpu: float = 0.0
    wall: float = 0.0


class Comparison(msgspec.Struct, frozen=True):
    """Ours against the floor over some rounds: medians, and the least of the rounds' ratios."""

    events_per_second: float
    ours_us: float
    floor_us: float
    ratio: float
    least_ratio: float


def typed_decode(kind: Kind) -> Work:
    """Decode a body into the service's own types, metadata and destinations left as they are."""
    plain = kind.protocol == "processor" and not kind.compacted
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[TypedJob] if plain else TypedBatch)
    return decoder.decode


def typed_floor(kind: Kind) -> Work:
    """Decode a body into the service's own types and encode the result."""
    decode, encode = typed_decode(kind), msgspec.json.Encoder().encode
    return lambda body: encode(decode(body))


def untyped_floor() -> Work:
    """Decode a body without types and encode the result: the floor for events that fit no type."""
    decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode
    return lambda body: encode(decode(body))


async def compare(bodies: Sequence[bytes], batch: int, ours: Answer, floor: Work, rounds: int) -> Comparison:
    """Measure both over the bodies, once to warm up and then ``rounds`` times.

    The benchmark's own objects are set aside first: a garbage collection that walks the recorded day would be counted
    against whoever happens to be at work. Garbage of the two themselves is collected as ever.
    """
    gc.collect()
    gc.freeze()
    size = max(TURN // batch, 1)
    turns = [bodies[start : start + size] for start in range(0, len(bodies), size)]
    measured = [await _round(turns, ours, floor, ours_first=number % 2 == 0) for number in range(rounds + 1)][1:]
    events = len(bodies) * batch
    ratios = [our.cpu / its.cpu for our, its in measured]
    return Comparison(
        events_per_second=median(events / our.wall for our, _ in measured),
        ours_us=median(our.cpu for our, _ in measured) / events * MICROSECONDS,
        floor_us=median(its.cpu for _, its in measured) / events * MICROSECONDS,
        ratio=median(ratios),
        least_ratio=min(ratios),
    )


async def _round(turns: Sequence[Sequence[bytes]], ours: Answer, floor: Work, *, ours_first: bool) -> tuple[Cost, Cost]:
    """All bodies through both. Who goes second finds the bodies in the cache, so the order changes with the round."""
    our_cost, floor_cost = Cost(), Cost()
    for bodies in turns:
        if ours_first:
            await spend_async(ours, bodies, our_cost)
        spend(floor, bodies, floor_cost)
        if not ours_first:
            await spend_async(ours, bodies, our_cost)
    return our_cost, floor_cost


async def spend_async(work: Answer, bodies: Sequence[bytes], cost: Cost) -> None:
    """Do the work and add what it took."""
    wall, cpu = perf_counter(), process_time()
    for body in bodies:
        await work(body)
    cost.cpu += process_time() - cpu
    cost.wall += perf_counter() - wall


def spend(work: Work, bodies: Sequence[bytes], cost: Cost) -> None:
    """As :func:`spend_async`, for work that never waits."""
    wall, cpu = perf_counter(), process_time()
    for body in bodies:
        work(body)
    cost.cpu += process_time() - cpu
    cost.wall += perf_counter() - wall
