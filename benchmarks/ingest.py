"""Durable ingest over HTTP: events/s, time to the answer and CPU, as ratios to bare commits; spool and drain alone.

python -m benchmarks.ingest [--quick] [--json]
"""

import argparse
import asyncio
import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import perf_counter, process_time, sleep
from typing import Final
from urllib.request import urlopen

import msgspec

from benchmarks.delivery import run_sink
from benchmarks.fresh import run_fresh
from benchmarks.report import print_heading, print_json, print_table, verdict
from benchmarks.servers import HOST, Server, cpu_seconds
from benchmarks.spool_start import DESTINATION, KEY, event_of, fill, open_spool, run_ingest, stored

CONNECTIONS: Final = {1: 64, 100: 8, 10_000: 1}
EVENTS: Final = {1: 3000, 100: 30_000, 10_000: 20_000}
"""Events in a round, by batch; ``--quick`` takes a third."""

ROUNDS: Final = 3
QUICK_ROUNDS: Final = 2
DRAINED: Final = 20_000
DRAIN_SECONDS: Final = 600.0
PAUSE_SECONDS: Final = 0.1
REFUSING: Final = f"http://{HOST}:9"
GOAL_BATCH: Final = 100
GOAL_RATE: Final = 20_000
GOAL_P99_MS: Final = 50.0
MICROSECONDS: Final = 1e6
MILLISECONDS: Final = 1e3
HEADS: Final = (
    "batch",
    "impact.com",
    "connections",
    "events/s",
    "goal",
    "met?",
    "p50 ms",
    "p99 ms",
    "goal",
    "met?",
    "us CPU/event",
    "us CPU/event bare",
    "rate to bare",
    "429, 503",
)
_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Taken(msgspec.Struct, frozen=True):
    """One round: events/s, CPU seconds for each, how long each answer took, and how many were to come again."""

    per_second: float
    cpu: float
    seconds: Sequence[float]
    refused: int


class Row(msgspec.Struct, frozen=True):
    """One line: medians over the rounds, and quantiles of all answers."""

    batch: int
    impact: str
    connections: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    bare_us: float
    ratio: float
    refused: int

    def cells(self) -> tuple[str, ...]:
        """The line as text."""
        judged = self.batch == GOAL_BATCH
        rate = (f">= {GOAL_RATE:,}", "yes" if self.per_second >= GOAL_RATE else "no") if judged else ("", "")
        return (
            f"{self.batch:,}",
            self.impact,
            str(self.connections),
            f"{self.per_second:,.0f}",
            *rate,
            *(f"{self.p50_ms:.1f}", f"{self.p99_ms:.1f}"),
            *verdict(self.p99_ms, GOAL_P99_MS if judged else None),
            *(f"{self.cpu_us:.1f}", f"{self.bare_us:.1f}", f"{self.ratio:.2f}", str(self.refused)),
        )


class Alone(msgspec.Struct, frozen=True):
    """How many events/s the spool takes when nothing else is done, in batches of this size from as many senders."""

    batch: int
    per_second: float


class Drained(msgspec.Struct, frozen=True):
    """What waited, and how fast it went to a sink."""

    rows: int
    per_second: float
    cpu_us: float


def bodies_of(first: int, events: int, batch: int) -> list[bytes]:
    """Batches of events that nobody has sent before."""
    starts = range(first, first + events, batch)
    return [msgspec.json.encode({"batch": [event_of(start + one) for one in range(batch)]}) for start in starts]


def request_of(body: bytes) -> bytes:
    """A whole request."""
    head = f"POST /v1/batch HTTP/1.1\r\nHost: {HOST}\r\nX-Write-Key: {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _stream(port: int, requests: list[bytes], seconds: list[float], refused: list[str]) -> None:
    """Send what is left over one connection, as cheaply as Python can: the service is what is measured.

    What is to come again comes again, sooner than it is asked to.
    """
    reader, writer = await asyncio.open_connection(HOST, port)
    while requests:
        request = requests.pop()
        started = perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        answer = await reader.readexactly(int(length[1]) if length else 0)
        seconds.append(perf_counter() - started)
        if head.startswith((b"HTTP/1.1 429 ", b"HTTP/1.1 503 ")):
            refused.append(answer.decode())
            requests.append(request)
            await asyncio.sleep(PAUSE_SECONDS)
        elif not head.startswith(b"HTTP/1.1 200 ") or b'"rejected":0' not in answer:
            raise RuntimeError(f"not taken: {head!r} {answer[:200]!r}")
    writer.close()
    await writer.wait_closed()


async def post_all(server: Server, bodies: Sequence[bytes], batch: int, connections: int) -> Taken:
    """Send all batches over so many connections."""
    requests, seconds, refused = [request_of(body) for body in bodies], list[float](), list[str]()
    port = int(server.url.rpartition(":")[2])
    cpu, wall = cpu_seconds(server.pid), perf_counter()
    await asyncio.gather(*(_stream(port, requests, seconds, refused) for _ in range(connections)))
    cpu, wall = cpu_seconds(server.pid) - cpu, perf_counter() - wall
    return Taken(len(bodies) * batch / wall, cpu / (len(bodies) * batch), seconds, len(refused))


def commit_all(bodies: Sequence[bytes], batch: int) -> Taken:
    """The floor: the same bytes into one table without an index, a transaction for each batch, as safe as ours."""
    parts = [[bytes(raw) for raw in msgspec.json.decode(body, type=_Batch).batch] for body in bodies]
    with TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "floor.db", isolation_level=None)
        connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE events (payload)")
        cpu, wall = process_time(), perf_counter()
        for part in parts:
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO events VALUES (?)", [(payload,) for payload in part])
            connection.execute("COMMIT")
        cpu, wall = process_time() - cpu, perf_counter() - wall
        connection.close()
    return Taken(len(bodies) * batch / wall, cpu / (len(bodies) * batch), (), 0)


class _Batch(msgspec.Struct):
    batch: list[msgspec.Raw]


def measure_batch(impact: str, url: str, batch: int, events: int, rounds: int) -> Row:
    """One line, on a folder of its own; the service and the floor take turns. For a fresh process."""
    ours, floors = list[Taken](), list[Taken]()
    with TemporaryDirectory() as folder, run_ingest(Path(folder), url) as (server, _):
        for number in range(rounds + 1):
            bodies = bodies_of(number * events, events, batch)
            taken = asyncio.run(post_all(server, bodies, batch, CONNECTIONS[batch]))
            floor = commit_all(bodies, batch)
            if number:
                ours.append(taken)
                floors.append(floor)
    seconds = sorted(one for taken in ours for one in taken.seconds)
    return Row(
        batch,
        impact,
        CONNECTIONS[batch],
        median(one.per_second for one in ours),
        median(seconds) * MILLISECONDS,
        quantiles(seconds, n=100)[98] * MILLISECONDS,
        median(one.cpu for one in ours) * MICROSECONDS,
        median(one.cpu for one in floors) * MICROSECONDS,
        median(one.per_second / floor.per_second for one, floor in zip(ours, floors, strict=True)),
        sum(one.refused for one in ours),
    )


def measure_spool(batch: int, events: int) -> Alone:
    """The spool without HTTP, sessions and transformation. For a fresh process."""
    with TemporaryDirectory() as folder:
        seconds = asyncio.run(put_all(Path(folder), batch, events))
    return Alone(batch, events // batch * batch / seconds)


async def put_all(folder: Path, batch: int, events: int) -> float:
    """Seconds to put so many events, with as many batches at a time as there are connections."""
    batches = [[stored(start + one) for one in range(batch)] for start in range(0, events // batch * batch, batch)]

    async def put() -> None:
        while batches:
            await spool.put(batches.pop())

    async with open_spool(folder, "power") as spool:
        started = perf_counter()
        await asyncio.gather(*(put() for _ in range(CONNECTIONS[batch])))
        return perf_counter() - started


def _waiting(operator: str) -> float:
    with urlopen(f"{operator}/metrics", timeout=10) as response:  # noqa: S310 - the loopback interface
        text = response.read().decode()
    found = re.search(rf'^impact_plugin_spool_waiting{{destination="{DESTINATION}"}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else -1.0


def measure_drain(url: str, rows: int) -> Drained:
    """How fast a full spool is emptied when nothing comes in."""
    with TemporaryDirectory() as folder:
        run_fresh(fill, Path(folder), rows)
        with run_ingest(Path(folder), url) as (server, operator):
            cpu, started = cpu_seconds(server.pid), perf_counter()
            left = first = _waiting(operator)
            while left and perf_counter() - started < DRAIN_SECONDS:
                sleep(0.25)
                left = _waiting(operator)
                first = left if first < 0 else first
            cpu, wall = cpu_seconds(server.pid) - cpu, perf_counter() - started
    return Drained(rows, (first - left) / wall, cpu / (first - left) * MICROSECONDS)


def measure(*, quick: bool) -> tuple[list[Row], list[Alone], Drained]:
    """Every size of batch, while impact.com refuses connections and while a sink takes what is sent; spool; drain."""
    rounds, share = (QUICK_ROUNDS, 3) if quick else (ROUNDS, 1)
    rows: list[Row] = []
    counts = {batch: max(batch * 2, events // share) for batch, events in EVENTS.items()}
    alone = [run_fresh(measure_spool, batch, counted) for batch, counted in counts.items()]
    with run_sink() as sink:
        for batch, counted in counts.items():
            for impact, url in (("refuses", REFUSING), ("takes", sink.url)):
                rows.append(run_fresh(measure_batch, impact, url, batch, counted, rounds))
        drained = measure_drain(sink.url, DRAINED // share)
    return rows, alone, drained


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer events and rounds: a look, not a result")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    rows, alone, drained = measure(quick=options.quick)
    if options.json:
        print_json(rows=rows, alone=alone, drained=drained)
        return
    print_heading("Durable ingest over HTTP")
    print_table(HEADS, [row.cells() for row in rows])
    print("\nBare: SQLite alone, the same bytes in transactions of one batch, durable to the same degree.")
    print(
        "\nThe spool alone: " + ", ".join(f"{one.per_second:,.0f}/s in batches of {one.batch:,}" for one in alone) + "."
    )
    print(f"\n{drained.rows:,} events that waited went to a sink at {drained.per_second:,.0f}/s,")
    print(f"{drained.cpu_us:.0f} us of CPU each.")


if __name__ == "__main__":
    main()
