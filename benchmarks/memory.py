"""Whether a process that transforms for a long time stays as large as it was.

python -m benchmarks.memory [--events 1000000] [--json]
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from benchmarks.fresh import STATM, resident_bytes, run_fresh
from benchmarks.report import print_heading, print_json
from benchmarks.traffic import KINDS, Answer, answerer, make_bodies, make_context, read_day

BATCH: Final = 200
STEP: Final = 100_000
SETTLED: Final = 200_000
"""Events after which every cache and pool has had its chance to fill."""

FLAT_MIB: Final = 3.0
MIB: Final = 1024 * 1024


class Mark(msgspec.Struct, frozen=True):
    """Resident memory after so many events."""

    events: int
    rss_mib: float


class Verdict(msgspec.Struct, frozen=True):
    """What the marks say; nothing when the run was too short to settle and then go on for a step."""

    grown_mib: float
    since_events: int
    flat: bool | None


def make_traffic() -> tuple[list[bytes], list[bytes]]:
    """Bodies that fit the types, and compacted bodies with the day's misshapen events among them."""
    day = read_day()
    return make_bodies(day.well_formed, KINDS[0], BATCH), make_bodies(day.events, KINDS[1], BATCH)


def vary(bodies: Sequence[bytes], number: int) -> Iterator[bytes]:
    """The bodies with ids nobody has had yet: whoever keeps something for each id or visitor grows."""
    for body in bodies:
        fresh = body.replace(b'"messageId":"', b'"messageId":"%x-' % number)
        yield fresh.replace(b'"anonymousId":"', b'"anonymousId":"%x-' % number)


def endless(plain: Sequence[bytes], mixed: Sequence[bytes]) -> Iterator[tuple[bytes, Answer]]:
    """Bodies for ever, each with the function that answers it."""
    context = make_context()
    number = 0
    while True:
        for kind, bodies in ((KINDS[0], plain), (KINDS[1], mixed)):
            answer = answerer(kind, context)
            yield from ((body, answer) for body in vary(bodies, number))
        number += 1


async def measure(events: int, *, quiet: bool) -> list[Mark]:
    """Transform so many events and look at the process now and then."""
    # Made by another process: memory that the making freed here would hide what the service keeps.
    traffic = endless(*run_fresh(make_traffic))
    marks = [_mark(0, quiet=quiet)]
    for done in range(BATCH, events + 1, BATCH):
        body, answer = next(traffic)
        await answer(body)
        if done % STEP == 0 or done + BATCH > events:
            marks.append(_mark(done, quiet=quiet))
    return marks


def _mark(events: int, *, quiet: bool) -> Mark:
    mark = Mark(events, resident_bytes() / MIB)
    if not quiet:
        print(f"{mark.events:>12,} events  {mark.rss_mib:8.2f} MiB", flush=True)
    return mark


def judge(marks: Sequence[Mark]) -> Verdict:
    """The growth since the process settled."""
    settled = next((mark for mark in marks if mark.events >= SETTLED), marks[-1])
    grown = marks[-1].rss_mib - settled.rss_mib
    long_enough = marks[-1].events >= settled.events + STEP
    return Verdict(grown, settled.events, grown < FLAT_MIB if long_enough else None)


def _sentence(found: Verdict) -> str:
    if found.flat is None:
        return f"too short to tell: it takes {SETTLED + STEP:,} events or more"
    word = "flat" if found.flat else "growing"
    return f"{word}: {found.grown_mib:+.2f} MiB since {found.since_events:,} events (flat is < {FLAT_MIB} MiB)"


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="how many events to transform")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if not STATM.exists():
        sys.exit("this benchmark reads /proc/self/statm, which only Linux has")
    if not options.json:
        print_heading("Memory")
    marks = asyncio.run(measure(options.events, quiet=options.json))
    found = judge(marks)
    if options.json:
        print_json(marks=marks, verdict=found)
        return
    print(f"\n{_sentence(found)}")


if __name__ == "__main__":
    main()
