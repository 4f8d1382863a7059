"""The session state at size, and what it adds to the transformation.

python -m benchmarks.sessions [--quick] [--json] [--only PART ...] [--profile]
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from benchmarks.claims import Size, Stalls, Start, measure_size, measure_stalls, measure_start
from benchmarks.clicks import Kept, measure_answers, measure_clicks
from benchmarks.fresh import STATM, run_fresh
from benchmarks.report import print_heading, print_json, print_table, verdict
from benchmarks.stateful import Overhead, measure_overhead, profile_overhead
from benchmarks.traffic import read_day

BYTES_GOAL: Final = 150
STALL_GOAL_MS: Final = 10
START_GOAL_SECONDS: Final = 5
START_CLAIMS: Final = 2_000_000
OVERHEAD_GOAL: Final = 1.5
MOST_CLICKS: Final = 8


class Scale(msgspec.Struct, frozen=True):
    """How much is measured; ``sizes`` are numbers of claims, ``events`` of the recorded day."""

    sizes: tuple[int, ...] = (1_000_000, 2_850_000, 5_000_000)
    stall_sizes: tuple[int, ...] = (1_000_000, 5_000_000)
    expiring_seconds: float = 10.0
    start_claims: int = START_CLAIMS
    identities: int = 200_000
    rounds: int = 20
    events: int | None = None


FULL: Final = Scale()
QUICK: Final = Scale(
    sizes=(200_000,),
    stall_sizes=(200_000,),
    expiring_seconds=2.0,
    start_claims=200_000,
    identities=50_000,
    rounds=4,
    events=3200,
)


class Line(msgspec.Struct, frozen=True):
    """One line of the summary: a number that has a goal."""

    what: str
    value: float
    goal: float

    def cells(self) -> tuple[str, ...]:
        """The line as text."""
        return (self.what, f"{self.value:,.2f}", *verdict(self.value, self.goal))


class Part(msgspec.Struct, frozen=True):
    """One table: its heads, rows as text, what stands below, and the numbers in it that have a goal."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str
    lines: Sequence[Line]
    measured: Sequence[Any]


def measure_sizes(scale: Scale) -> Part:
    """Claims in memory."""
    found: list[Size] = [run_fresh(measure_size, size) for size in scale.sizes]
    nanoseconds = ("ns NEW", "ns REPEAT", "ns SAME", "ns NEW, full")
    heads = ("claims", "bytes/claim", "after repeats", *nanoseconds, "ms batch", "ms full", "ms advance", "ms free")
    rows = [
        (
            f"{one.claims:,}",
            *_whole(one.bytes_per_claim, one.bytes_after_repeats),
            *_whole(one.new_ns, one.repeat_ns, one.same_ns, one.full_ns),
            *_numbers(one.turn_ms, one.full_ms, one.advance_ms, one.free_ms),
        )
        for one in found
    ]
    lines = []
    for one in found:
        lines += [
            Line(f"bytes per claim, {one.claims:,}", one.bytes_per_claim, BYTES_GOAL),
            Line(f"bytes per claim after repeats, {one.claims:,}", one.bytes_after_repeats, BYTES_GOAL),
            Line(f"ms of the longest turn, {one.claims:,}", one.longest_ms, STALL_GOAL_MS),
        ]
    note = (
        "after repeats: each key was seen once more. full: at capacity, each new claim pushes the oldest out.\n"
        "ms: the longest single turn of deciding about 256, of advancing a generation, of freeing it; CPU time."
    )
    return Part("Claims in memory", heads, rows, note, lines, found)


def measure_pulses(scale: Scale) -> Part:
    """The longest stalls of the event loop."""
    found: list[Stalls] = [run_fresh(measure_stalls, size, scale.expiring_seconds) for size in scale.stall_sizes]
    heads = ("claims", "ms idle", "ms filling", "ms expiring", "ms slowest reply")
    rows = [
        (f"{one.claims:,}", *_numbers(one.idle_ms, one.filling_ms, one.expiring_ms, one.slowest_reply_ms))
        for one in found
    ]
    lines = []
    for one in found:
        lines += [
            Line(f"ms of the longest stall filling, {one.claims:,}", one.filling_ms, STALL_GOAL_MS),
            Line(f"ms of the longest stall expiring, {one.claims:,}", one.expiring_ms, STALL_GOAL_MS),
        ]
    note = "By how much a pulse of the event loop was late. slowest reply: a batch of 256 while rows are swept."
    return Part("Stalls of the event loop", heads, rows, note, lines, found)


def measure_starts(scale: Scale) -> Part:
    """The start from disk."""
    found: Start = measure_start(scale.start_claims)
    rows = [(f"{found.claims:,}", f"{found.seconds:.2f}", f"{found.file_mib:.0f}")]
    lines = [Line(f"seconds to open {found.claims:,} claims", found.seconds, START_GOAL_SECONDS)]
    return Part("Start from disk", ("claims", "seconds", "MiB on disk"), rows, "", lines, [found])


def measure_memory(scale: Scale) -> Part:
    """Clicks and answers."""
    count = scale.identities
    found: list[Kept] = [run_fresh(measure_clicks, count, clicks) for clicks in (1, MOST_CLICKS)]
    found += [run_fresh(_measure_answers, count, with_click_id) for with_click_id in (False, True)]
    heads = ("entry", "entries", "bytes/entry", "ns write", "ms batch", "ns look-up", "ns replay")
    rows = [
        (
            one.kind,
            f"{one.entries:,}",
            f"{one.bytes_per_entry:.0f}",
            f"{one.write_ns:,.0f}",
            f"{one.turn_ms:.2f}",
            *("" if ns is None else f"{ns:,.0f}" for ns in (one.look_up_ns, one.replay_ns)),
        )
        for one in found
    ]
    note = (
        "Click ids have 36 characters. write: for each click, or each answer. batch: the longest turn of writing 256.\n"
        "look-up: an order's, whose answer is kept. replay: the same order again."
    )
    lines = [Line(f"ms of the longest turn, {one.kind}", one.turn_ms, STALL_GOAL_MS) for one in found]
    return Part("Clicks and answers in memory", heads, rows, note, lines, found)


def _measure_answers(count: int, with_click_id: bool) -> Kept:
    return measure_answers(count, with_click_id=with_click_id)


def measure_transform(scale: Scale) -> Part:
    """The whole transformation with sessions and without."""
    found: list[Overhead] = asyncio.run(measure_overhead(read_day(), scale.rounds, scale.events))
    heads = ("durability", "streams", "us/event with", "us/event without", "CPU ratio", "least", "wall ratio")
    rows = [
        (
            one.durability,
            str(one.streams),
            *_numbers(one.with_us, one.without_us, one.cpu_ratio, one.least_cpu_ratio, one.wall_ratio),
        )
        for one in found
    ]
    lines = [
        Line(f"{name} ratio, durability {one.durability}, {one.streams} streams", value, OVERHEAD_GOAL)
        for one in found
        for name, value in (("CPU", one.cpu_ratio), ("wall", one.wall_ratio))
    ]
    note = (
        "Processor, plain, batches of 200; us of CPU, all threads. Medians over the rounds; least: the least of them."
    )
    return Part("The transformation with sessions", heads, rows, note, lines, found)


PARTS: Final[dict[str, Callable[[Scale], Part]]] = {
    "claims": measure_sizes,
    "stalls": measure_pulses,
    "start": measure_starts,
    "clicks": measure_memory,
    "transform": measure_transform,
}


def _numbers(*values: float) -> tuple[str, ...]:
    return tuple(f"{value:,.2f}" for value in values)


def _whole(*values: float) -> tuple[str, ...]:
    return tuple(f"{value:,.0f}" for value in values)


def print_part(part: Part) -> None:
    """Print a table as soon as it is there: all of them take minutes."""
    print(f"{part.title}\n")
    if part.rows:
        print_table(part.heads, part.rows)
        print()
    if part.note:
        print(f"{part.note}\n")
    sys.stdout.flush()


def print_goals(parts: Sequence[Part]) -> None:
    """Print all numbers that have a goal."""
    print("Goals\n")
    print_table(("what", "value", "goal", "met?"), [line.cells() for part in parts for line in part.lines])


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer rounds: a look, not a result")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="only these parts")
    parser.add_argument("--profile", action="store_true", help="print a profile of the transformation with sessions")
    options = parser.parse_args()
    if options.profile:
        asyncio.run(profile_overhead(read_day()))
        return
    if not STATM.exists():
        sys.exit("this benchmark reads /proc/self/statm, which only Linux has")
    if not options.json:
        print_heading("The session state")
    scale, parts = QUICK if options.quick else FULL, []
    for name in options.only:
        part = PARTS[name](scale)
        parts.append(part)
        if not options.json:
            print_part(part)
    if options.json:
        print_json(scale=scale, parts={part.title: {"measured": part.measured, "goals": part.lines} for part in parts})
        return
    print_goals(parts)


if __name__ == "__main__":
    main()
