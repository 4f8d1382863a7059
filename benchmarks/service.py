"""The service over loopback connections: CPU time of its process against a bare handler and against decoding alone.

python -m benchmarks.service [--quick] [--json]
"""

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from statistics import median
from time import perf_counter
from typing import Final

import aiohttp
import msgspec

from benchmarks.floor import MICROSECONDS, Cost, Work, spend, typed_decode
from benchmarks.report import print_heading, print_json, print_table, verdict
from benchmarks.servers import Server, cpu_seconds, run_bare, run_service
from benchmarks.traffic import KINDS, Day, Kind, make_bodies, read_day

BATCHES: Final = (1, 100, 200)
CONCURRENCIES: Final = (1, 8)
GOAL: Final = 3.3
GOAL_BATCH: Final = 200
EVENTS: Final = {1: 400, 100: 3000, 200: 3200}
"""Events in a round, by batch; ``--quick`` takes a quarter."""

ROUNDS: Final = 9
QUICK_ROUNDS: Final = 3
REQUEST_SECONDS: Final = 30.0
HEADS: Final = (
    "body",
    "batch",
    "connections",
    "events/s",
    "us/event service",
    "us/event bare",
    "us/event decode",
    "service/bare",
    "service/decode",
    "goal",
    "met?",
)


class Call(msgspec.Struct, frozen=True):
    """One request, ready to be sent."""

    url: str
    body: bytes
    headers: dict[str, str]


class Round(msgspec.Struct, frozen=True):
    """What one turn of each of the three took."""

    service: Cost
    bare: Cost
    decode: Cost


class Row(msgspec.Struct, frozen=True):
    """One line of the table: medians over the rounds, CPU time of one process each."""

    body: str
    batch: int
    connections: int
    events_per_second: float
    service_us: float
    bare_us: float
    decode_us: float
    service_to_bare: float
    service_to_decode: float
    goal: float | None

    def cells(self) -> tuple[str, ...]:
        """The line as text."""
        times = (self.service_us, self.bare_us, self.decode_us, self.service_to_bare, self.service_to_decode)
        return (
            self.body,
            str(self.batch),
            str(self.connections),
            f"{self.events_per_second:,.0f}",
            *(f"{time:.2f}" for time in times),
            *verdict(self.service_to_decode, self.goal),
        )


class Bench:
    """Drives both servers with the same bodies, in turns."""

    def __init__(self, service: Server, bare: Server, rounds: int) -> None:
        self._service = service
        self._bare = bare
        self._rounds = rounds

    async def measure(self, kind: Kind, batch: int, bodies: Sequence[bytes], connections: int) -> Row:
        """One line of the table."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        connector = aiohttp.TCPConnector(limit=connections)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            calls = [_call(self._service.url, kind, body) for body in bodies]
            sizes = [await _send(session, call) for call in calls]
            bare = [
                Call(f"{self._bare.url}/{size}", call.body, call.headers)
                for size, call in zip(sizes, calls, strict=True)
            ]
            found = [
                await self._round(session, calls, bare, typed_decode(kind), connections)
                for _ in range(self._rounds + 1)
            ]
        return _row(kind, batch, connections, len(bodies) * batch, found[1:])

    async def _round(
        self,
        session: aiohttp.ClientSession,
        service: Sequence[Call],
        bare: Sequence[Call],
        decode: Work,
        connections: int,
    ) -> Round:
        """The service, the bare handler and the decoding, one after the other."""
        cost = Cost()
        ours = await _drive(session, service, connections, self._service.pid)
        theirs = await _drive(session, bare, connections, self._bare.pid)
        spend(decode, [call.body for call in service], cost)
        return Round(ours, theirs, cost)


def _call(url: str, kind: Kind, body: bytes) -> Call:
    path = "/v0/destinations/impact" if kind.protocol == "processor" else "/routerTransform"
    headers = {"Content-Type": "application/json"}
    if kind.compacted:
        headers["X-Content-Format"] = "json+compactedv1"
    return Call(url + path, body, headers)


async def _drive(session: aiohttp.ClientSession, calls: Sequence[Call], connections: int, pid: int) -> Cost:
    """Send all calls over so many connections at a time, and say what the server took."""
    waiting = iter(calls)
    cpu, wall = cpu_seconds(pid), perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(_send_all(session, waiting))
    return Cost(cpu_seconds(pid) - cpu, perf_counter() - wall)


async def _send_all(session: aiohttp.ClientSession, waiting: Iterator[Call]) -> None:
    for call in waiting:
        await _send(session, call)


async def _send(session: aiohttp.ClientSession, call: Call) -> int:
    """The size of the reply, which must be a 200."""
    async with session.post(call.url, data=call.body, headers=call.headers) as response:
        reply = await response.read()
        response.raise_for_status()
        return len(reply)


def _row(kind: Kind, batch: int, connections: int, events: int, rounds: Sequence[Round]) -> Row:
    return Row(
        body=kind.name,
        batch=batch,
        connections=connections,
        events_per_second=median(events / one.service.wall for one in rounds),
        service_us=median(one.service.cpu for one in rounds) / events * MICROSECONDS,
        bare_us=median(one.bare.cpu for one in rounds) / events * MICROSECONDS,
        decode_us=median(one.decode.cpu for one in rounds) / events * MICROSECONDS,
        service_to_bare=median(one.service.cpu / one.bare.cpu for one in rounds),
        service_to_decode=median(one.service.cpu / one.decode.cpu for one in rounds),
        goal=GOAL if batch == GOAL_BATCH else None,
    )


async def measure(day: Day, bench: Bench, *, quick: bool) -> list[Row]:
    """Every kind of body at every size over one and over several connections."""
    rows = []
    for kind in KINDS:
        for batch in BATCHES:
            events = EVENTS[batch] // 4 if quick else EVENTS[batch]
            bodies = make_bodies(day.well_formed[:events], kind, batch)
            rows += [await bench.measure(kind, batch, bodies, connections) for connections in CONCURRENCIES]
    return rows


def main() -> None:
    """Read the options, start the servers, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer events and rounds: a look, not a result")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    day, rounds = read_day(), QUICK_ROUNDS if options.quick else ROUNDS
    with run_service() as service, run_bare() as bare:
        rows = asyncio.run(measure(day, Bench(service, bare, rounds), quick=options.quick))
    if options.json:
        print_json(rounds=rounds, rows=rows)
        return
    print_heading("The service over HTTP")
    print_table(HEADS, [row.cells() for row in rows])
    print("\nCPU time of the server's process, user and kernel. One process serves; the client is another.")


if __name__ == "__main__":
    main()
