"""A replay of many events: its rate beside that of the transformation in the same process, its memory, its report.

python -m benchmarks.replay [--events N] [--json]
"""

import argparse
import asyncio
import gzip
import json
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Final

import msgspec

from benchmarks.fresh import resident_bytes
from benchmarks.report import print_heading, print_json, print_table, verdict
from benchmarks.stateful import measure_overhead
from benchmarks.traffic import read_day
from impact_plugin.cli.replay import replay
from impact_plugin.config.manifest import load_manifest
from impact_transformers import DecodedEvent, compile_destination, transform

ROOT: Final = Path(__file__).resolve().parents[1]
DAY: Final = ROOT / "tools" / "day.ndjson.gz"
CONFIG: Final = {"accountSID": "IRdemoAccount", "apiKey": "demo-token", "campaignId": "23224"}
RECORDED_DAY: Final = b"2026-09-10"
FIRST_DAY: Final = date(2026, 1, 1)
EVENTS: Final = 1_000_000
MICROSECONDS: Final = 1e6
MIB: Final = 1024 * 1024
ROUNDS: Final = 3
GOAL_RATIO: Final = 1.5
GOAL_REPORT_MB: Final = 2.0


class Replayed(msgspec.Struct, frozen=True):
    """What a replay took: CPU seconds, resident MiB at its end, and the size of its report in MB."""

    events: int
    wall: float
    cpu: float
    memory_mib: float
    report_mb: float


def write_traffic(path: Path, events: int) -> int:
    """Day after day like the recorded one, each with visitors and messages of its own; how many events."""
    lines = gzip.decompress(DAY.read_bytes()).splitlines()
    written = 0
    with gzip.open(path, "wb", compresslevel=1) as file:
        for number in range(-(-events // len(lines))):
            mark, day = b"%05d-" % number, (FIRST_DAY + timedelta(days=number)).isoformat().encode()
            for line in lines:
                renewed = line.replace(b'"messageId":"', b'"messageId":"' + mark, 1).replace(RECORDED_DAY, day)
                file.write(renewed.replace(b'"anonymousId":"', b'"anonymousId":"' + mark, 1) + b"\n")
                written += 1
    return written


def transform_alone(path: Path, events: int) -> float:
    """CPU seconds an event for decoding a line and transforming it, without sessions, over the first events."""
    destination = compile_destination(CONFIG, load_manifest().configuration, {})
    decoder = msgspec.json.Decoder(DecodedEvent)
    with gzip.open(path) as file:
        lines = [line for line, _ in zip(file, range(events), strict=False)]
    done, began = 0, process_time()
    for line in lines:
        try:
            event = decoder.decode(line)
        except msgspec.DecodeError:
            continue
        transform(event, destination)
        done += 1
    return (process_time() - began) / done


def transform_with_sessions() -> float:
    """CPU seconds an event for what the service does in the process: a batch of 200, decided and answered."""
    overheads = asyncio.run(measure_overhead(read_day(), ROUNDS, None))
    return overheads[0].with_us / MICROSECONDS


def replay_in_process(path: Path, events: int, report: Path) -> Replayed:
    """One replay, quiet, with its report."""
    wall, cpu = perf_counter(), process_time()
    code = replay(path, html=report, quiet=True)
    if code != 0:
        raise RuntimeError(f"the replay ended with {code}")
    spent = process_time() - cpu
    return Replayed(events, perf_counter() - wall, spent, resident_bytes() / MIB, report.stat().st_size / 1e6)


def measure(path: Path, events: int) -> Replayed:
    """The same in a process of its own, whose memory is that of the replay alone."""
    command = [sys.executable, "-m", "benchmarks.replay", "--child", str(path), str(events)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return msgspec.convert(json.loads(done.stdout), Replayed)


def main() -> None:
    """Read the options, make the traffic, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS, help="how many events")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        path = Path(options.child[0])
        found = replay_in_process(path, int(options.child[1]), path.with_suffix(".html"))
        sys.stdout.buffer.write(msgspec.json.encode(found))
        return
    with TemporaryDirectory() as folder:
        tenth, whole = Path(folder) / "tenth.ndjson.gz", Path(folder) / "whole.ndjson.gz"
        few, many = write_traffic(tenth, options.events // 10), write_traffic(whole, options.events)
        alone = transform_alone(tenth, few)
        small, large = measure(tenth, few), measure(whole, many)
        deciding = transform_with_sessions()
    each = large.cpu / large.events
    if options.json:
        microseconds = {"alone_us": alone * MICROSECONDS, "deciding_us": deciding * MICROSECONDS}
        print_json(**microseconds, tenth=small, whole=large, ratio=each / alone, deciding_ratio=each / deciding)
        return
    print_heading("Replay")
    rows = [
        (
            f"{one.events:,}",
            f"{one.events / one.wall:,.0f}",
            f"{one.cpu / one.events * MICROSECONDS:.1f}",
            f"{one.memory_mib:.0f}",
            f"{one.report_mb:.3f}",
        )
        for one in (small, large)
    ]
    print_table(("events", "events/s", "us CPU/event", "MiB at the end", "MB report"), rows)
    goal, met = verdict(each / alone, GOAL_RATIO)
    print(
        f"\nDecoding and transforming alone, without sessions: {alone * MICROSECONDS:.1f} us; ratio {each / alone:.2f}"
    )
    print(f"(goal {goal}, met: {met}); report goal <= {GOAL_REPORT_MB} MB.")
    print(f"The service's transformation with sessions: {deciding * MICROSECONDS:.1f} us; ratio {each / deciding:.2f}.")


if __name__ == "__main__":
    main()
