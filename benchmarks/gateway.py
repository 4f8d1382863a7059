"""What passing through costs: the way by us against the direct one, in time, processor and memory.

python -m benchmarks.gateway [--quick] [--json]
"""

import argparse
import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Final

import aiohttp
import msgspec

from benchmarks.report import print_heading, print_json, print_table
from benchmarks.servers import Server, cpu_seconds, run_bare, run_service

CONNECTIONS: Final = (1, 20, 100)
SIZES: Final = (2_000, 200_000)
"""Bytes of a body and of its answer: one event, and a processor's batch of a hundred."""

REQUESTS: Final = {2_000: 3000, 200_000: 600}
ROUNDS: Final = 5
QUICK_ROUNDS: Final = 2
LARGE: Final = 150 * 1024 * 1024
BLOCK: Final = bytes(256 * 1024)
MIB: Final = 1024 * 1024
MILLISECONDS: Final = 1e3
SECONDS: Final = 60.0
HEADS: Final = (
    "body",
    "connections",
    "direct/s",
    "through us/s",
    "p50 ms direct",
    "p50 ms us",
    "p99 ms direct",
    "p99 ms us",
    "p99 added ms",
    "CPU us/request",
    "CPU us/upstream",
)


class Way(msgspec.Struct, frozen=True):
    """One round on one way: seconds of each request and of all, and the processor's time of the server asked."""

    each: list[float]
    wall: float
    cpu: float


class Row(msgspec.Struct, frozen=True):
    """One line of the table: medians over the rounds."""

    body: int
    connections: int
    direct_per_second: float
    ours_per_second: float
    direct_p50: float
    ours_p50: float
    direct_p99: float
    ours_p99: float
    cpu_ratio: float
    cpu_us: float

    def cells(self) -> tuple[str, ...]:
        """The line as text."""
        times = (self.direct_p50, self.ours_p50, self.direct_p99, self.ours_p99, self.ours_p99 - self.direct_p99)
        return (
            f"{self.body // 1000} kB",
            str(self.connections),
            f"{self.direct_per_second:,.0f}",
            f"{self.ours_per_second:,.0f}",
            *(f"{time:.2f}" for time in times),
            f"{self.cpu_us:.0f}",
            f"{self.cpu_ratio:.2f}",
        )


async def drive(url: str, pid: int, size: int, requests: int, connections: int) -> Way:
    """Send so many requests over so many connections at a time, each answered with as many bytes as it had."""
    body, each = bytes(size), []
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    waiting = iter(range(requests))

    async def send_all(session: aiohttp.ClientSession, numbers: Iterator[int]) -> None:
        for _ in numbers:
            began = perf_counter()
            async with session.post(f"{url}/{size}", data=body) as response:
                await response.read()
                response.raise_for_status()
            each.append(perf_counter() - began)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections), timeout=timeout) as session:
        cpu, wall = cpu_seconds(pid), perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(send_all(session, waiting))
        return Way(each, perf_counter() - wall, cpu_seconds(pid) - cpu)


async def measure(service: Server, bare: Server, rounds: int) -> list[Row]:
    """Both ways in turns, for every size and number of connections; the first round warms up."""
    rows = []
    for size in SIZES:
        for connections in CONNECTIONS:
            direct, ours = [], []
            for _ in range(rounds + 1):
                direct.append(await drive(bare.url, bare.pid, size, REQUESTS[size], connections))
                ours.append(await drive(service.url, service.pid, size, REQUESTS[size], connections))
            rows.append(_row(size, connections, direct[1:], ours[1:]))
    return rows


def _row(size: int, connections: int, direct: list[Way], ours: list[Way]) -> Row:
    number = REQUESTS[size]
    return Row(
        body=size,
        connections=connections,
        direct_per_second=median(number / way.wall for way in direct),
        ours_per_second=median(number / way.wall for way in ours),
        direct_p50=median(median(way.each) for way in direct) * MILLISECONDS,
        ours_p50=median(median(way.each) for way in ours) * MILLISECONDS,
        direct_p99=median(quantiles(way.each, n=100)[98] for way in direct) * MILLISECONDS,
        ours_p99=median(quantiles(way.each, n=100)[98] for way in ours) * MILLISECONDS,
        cpu_ratio=median(one.cpu / other.cpu for one, other in zip(ours, direct, strict=True)),
        cpu_us=median(way.cpu for way in ours) / number * MILLISECONDS**2,
    )


async def pass_large(service: Server) -> tuple[float, float]:
    """Most resident MiB before and after a body of 150 MB passed."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(LARGE // len(BLOCK)):
            yield BLOCK

    before = _most_memory(service.pid)
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS)) as session,
        session.post(f"{service.url}/1", data=pieces()) as response,
    ):
        await response.read()
        response.raise_for_status()
    return before, _most_memory(service.pid)


def _most_memory(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / MIB


def main() -> None:
    """Read the options, start the servers, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a result")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    with run_bare() as bare, run_service(IMPACT_PLUGIN__RUDDER__UPSTREAM=bare.url) as service:
        rows = asyncio.run(measure(service, bare, rounds))
        before, after = asyncio.run(pass_large(service))
    if options.json:
        print_json(rounds=rounds, rows=rows, memory_before_mib=before, memory_after_mib=after)
        return
    print_heading("Passing through")
    print_table(HEADS, [row.cells() for row in rows])
    print(f"\nMost resident memory before and after a body of 150 MB: {before:.1f} and {after:.1f} MiB.")


if __name__ == "__main__":
    main()
