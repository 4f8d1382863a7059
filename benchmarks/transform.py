"""The transformation without HTTP, as a ratio to decoding and encoding the same bodies.

python -m benchmarks.transform [--quick] [--json] [--profile]
"""

import argparse
import asyncio
import cProfile
import pstats
from typing import Final

import msgspec

from benchmarks.floor import Comparison, Work, compare, typed_floor, untyped_floor
from benchmarks.report import print_heading, print_json, print_table, verdict
from benchmarks.traffic import KINDS, Answer, Day, Kind, answerer, make_bodies, make_context, read_day

BATCHES: Final = (1, 100, 200)
GOAL: Final = 2.2
GOAL_BATCHES: Final = (100, 200)
ROUNDS: Final = 30
QUICK_ROUNDS: Final = 6
QUICK_EVENTS: Final = 1000
PROFILED_ROUNDS: Final = 5
PROFILED_ROWS: Final = 25
HEADS: Final = ("body", "batch", "events/s", "us/event ours", "us/event floor", "ratio", "least", "goal", "met?")


class Row(msgspec.Struct, frozen=True):
    """One line of the table; ``goal`` is None where none is set."""

    body: str
    batch: int
    measured: Comparison
    goal: float | None = None

    def cells(self) -> tuple[str, ...]:
        """The line as text; the goal is for the median."""
        found = self.measured
        return (
            self.body,
            str(self.batch),
            f"{found.events_per_second:,.0f}",
            f"{found.ours_us:.2f}",
            f"{found.floor_us:.2f}",
            f"{found.ratio:.2f}",
            f"{found.least_ratio:.2f}",
            *verdict(found.ratio, self.goal),
        )


async def measure(day: Day, rounds: int, events: int | None) -> list[Row]:
    """Measure every kind of body at every size, and the whole day once."""
    context = make_context()
    rows = []
    for kind in KINDS:
        for batch in BATCHES:
            bodies = make_bodies(day.well_formed[:events], kind, batch)
            found = await compare(bodies, batch, answerer(kind, context), typed_floor(kind), rounds)
            rows.append(Row(kind.name, batch, found, GOAL if batch in GOAL_BATCHES else None))
    kind, batch = KINDS[0], BATCHES[-1]
    ours, floor = answerer(kind, context), untyped_floor()
    rows.append(Row(f"{kind.name}, all events", batch, await _measure_all(day, kind, batch, ours, floor, rounds)))
    return rows


async def _measure_all(day: Day, kind: Kind, batch: int, ours: Answer, floor: Work, rounds: int) -> Comparison:
    """The day with its misshapen events: one of them makes the service decode its batch event by event."""
    return await compare(make_bodies(day.events, kind, batch), batch, ours, floor, rounds)


def profile(day: Day) -> None:
    """Print where the processor's time goes at the largest batch; the profiler itself makes calls look dear."""
    kind = KINDS[0]
    bodies = make_bodies(day.well_formed, kind, BATCHES[-1]) * PROFILED_ROUNDS
    answer = answerer(kind, make_context())

    async def work() -> None:
        for body in bodies:
            await answer(body)

    asyncio.run(work())
    profiler = cProfile.Profile()
    profiler.runcall(asyncio.run, work())
    print(f"{len(bodies) * BATCHES[-1]:,} events, {kind.name}, batch {BATCHES[-1]}")
    pstats.Stats(profiler).strip_dirs().sort_stats("tottime").print_stats(PROFILED_ROWS)


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer events and rounds: a look, not a result")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--profile", action="store_true", help="print a profile instead of the table")
    options = parser.parse_args()
    day = read_day()
    if options.profile:
        profile(day)
        return
    rounds, events = (QUICK_ROUNDS, QUICK_EVENTS) if options.quick else (ROUNDS, None)
    rows = asyncio.run(measure(day, rounds, events))
    if options.json:
        print_json(events=len(day.events), left_out=day.left_out, rounds=rounds, rows=rows)
        return
    print_heading("Transformation in one process")
    print_table(HEADS, [row.cells() for row in rows])
    print(f"\n{day.left_out} of {len(day.events):,} events fit no type and are only in the last row,")
    print("whose floor is decoding without types. ratio: median over the rounds; least: the least of them.")


if __name__ == "__main__":
    main()
