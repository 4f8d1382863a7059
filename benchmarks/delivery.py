"""Delivery: POST/s through our client, the engine and the whole proxy path, as ratios to the bare aiohttp client.

python -m benchmarks.delivery [--quick] [--json]
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final
from urllib.parse import parse_qsl

import aiohttp
import msgspec

from benchmarks.dead_sink import Hour, measure_hour
from benchmarks.fresh import run_fresh
from benchmarks.posting import FORM, Posted, bare, client, conversions, page_loads, post_all
from benchmarks.report import print_heading, print_json, print_table
from benchmarks.servers import Server, cpu_seconds, free_ports, run_process

IN_FLIGHT: Final = (16, 64, 256)
POSTS: Final = 8000
ROUNDS: Final = 5
MICROSECONDS: Final = 1e6
GOAL_RATIO: Final = 0.6
GOAL_LAG_MS: Final = 20.0
GOAL_RATE: Final = 4000.0
WAYS: Final[dict[str, Any]] = {
    "bare aiohttp client": bare,
    "our client": client,
    "engine, page loads": page_loads,
    "engine, conversions, process": conversions("process"),
    "engine, conversions, power": conversions("power"),
}
HEADS: Final = (
    "way",
    "in flight",
    "POST/s",
    "us CPU/POST",
    "ratio to bare",
    "goal",
    "met?",
    "loop lag p99 ms",
    "goal",
    "met?",
)


class Row(msgspec.Struct, frozen=True):
    """One line: medians over the rounds. The ratio is the bare client's CPU time over this way's."""

    way: str
    in_flight: int
    per_second: float
    cpu_us: float
    ratio: float
    lag_ms: float

    def cells(self) -> tuple[str, ...]:
        """The line as text."""
        judged = self.way != "bare aiohttp client"
        ratio = (f">= {GOAL_RATIO}", "yes" if self.ratio >= GOAL_RATIO else "no") if judged else ("", "")
        lag = (f"<= {GOAL_LAG_MS:.0f}", "yes" if self.lag_ms <= GOAL_LAG_MS else "no") if judged else ("", "")
        numbers = (f"{self.per_second:,.0f}", f"{self.cpu_us:.0f}", f"{self.ratio:.2f}")
        return (self.way, str(self.in_flight), *numbers, *ratio, f"{self.lag_ms:.1f}", *lag)


async def _rounds(url: str, in_flight: int, posts: int, rounds: int) -> dict[str, list[Posted]]:
    """All ways in turns, so that a slow moment of the machine meets all of them."""
    found: dict[str, list[Posted]] = {name: [] for name in WAYS}
    for number in range(rounds + 1):
        for name, way in WAYS.items():
            async with way(url) as send:
                posted = await post_all(send, posts, in_flight, number * posts)
            if number:
                found[name].append(posted)
    return found


def measure_ways(url: str, in_flight: int, posts: int, rounds: int) -> dict[str, list[Posted]]:
    """In this process; for a fresh one."""
    return asyncio.run(_rounds(url, in_flight, posts, rounds))


def rows_of(found: dict[str, list[Posted]], in_flight: int) -> list[Row]:
    """The lines of one number in flight."""
    floors = [one.cpu for one in found["bare aiohttp client"]]
    return [
        Row(
            name,
            in_flight,
            median(one.per_second for one in posted),
            median(one.cpu for one in posted) * MICROSECONDS,
            median(floor / one.cpu for floor, one in zip(floors, posted, strict=True)),
            max(one.lag_ms for one in posted),
        )
        for name, posted in found.items()
    ]


@contextmanager
def run_sink() -> Iterator[Server]:
    """The sink as a process of its own."""
    (port,) = free_ports(1)
    with run_process([sys.executable, "-m", "benchmarks.sink", str(port)], {}, port) as server:
        yield server


@contextmanager
def run_proxy(sink: str) -> Iterator[Server]:
    """The service, delivering to the sink."""
    port, operator_port = free_ports(2)
    with TemporaryDirectory() as state:
        settings = {
            "SERVER__PORT": port,
            "SERVER__OPERATOR_PORT": operator_port,
            "STATE__DIR": state,
            "STATE__DURABILITY": "process",
            "LOG__LEVEL": "error",
            "DELIVERY__ACCOUNT_CONNECTIONS": 512,
            "IMPACT__TRACKING_URL": sink,
            "IMPACT__API_URL": sink,
        }
        environment = {f"IMPACT_PLUGIN__{name}": str(value) for name, value in settings.items()}
        with run_process([sys.executable, "-m", "impact_plugin", "serve"], environment, port) as server:
            yield server


async def _through(service: Server, sink: str, in_flight: int, posts: int) -> Posted:
    """Deliver through the proxy over sockets; CPU of the service's process, lag as /health sees it."""
    url = f"{service.url}/v1/destinations/impact/proxy"
    form = dict(parse_qsl(FORM.decode()))
    waiting = iter(range(posts))
    connector = aiohttp.TCPConnector(limit=0)
    late: list[float] = []
    async with aiohttp.ClientSession(connector=connector) as session:

        async def stream() -> None:
            for number in waiting:
                body = proxy_body(sink, {**form, "CustomProfileId": f"v-{number}"}, number)
                async with session.post(url, data=body, headers={"RdProxy-Timeout": "10000"}) as response:
                    if b'"statusCode":200' not in await response.read():
                        raise RuntimeError("a job was not delivered")

        probe = asyncio.create_task(_probe(session, service.url, late))
        cpu, wall = cpu_seconds(service.pid), perf_counter()
        await asyncio.gather(*(stream() for _ in range(in_flight)))
        cpu, wall = cpu_seconds(service.pid) - cpu, perf_counter() - wall
        probe.cancel()
    return Posted(posts / wall, cpu / posts, quantiles(late, n=100)[98] * 1e3 if len(late) > 1 else 0.0)


def proxy_body(sink: str, form: dict[str, str], number: int) -> bytes:
    """One page load as the router hands it over."""
    return msgspec.json.encode(
        {
            "type": "REST",
            "endpoint": f"{sink}/PageLoad",
            "method": "POST",
            "headers": {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
            "body": {"JSON": {}, "JSON_ARRAY": {}, "XML": {}, "FORM": form},
            "files": {},
            "metadata": [{"jobId": number, "attemptNum": 0, "destinationId": "d-1", "workspaceId": "w-1"}],
            "destinationConfig": {"accountSID": "IRbench"},
        }
    )


async def _probe(session: aiohttp.ClientSession, url: str, late: list[float]) -> None:
    """Ask for /health now and then: what that takes is the loop's lag, and more."""
    while True:
        started = perf_counter()
        async with session.get(f"{url}/health") as response:
            await response.read()
        late.append(perf_counter() - started)
        await asyncio.sleep(0.01)


def measure(posts: int, rounds: int) -> list[Row]:
    """Every way and the whole path, for each number in flight."""
    rows: list[Row] = []
    with run_sink() as sink, run_proxy(sink.url) as service:
        for in_flight in IN_FLIGHT:
            found = run_fresh(measure_ways, sink.url, in_flight, posts, rounds)
            name = "whole proxy path (CPU of the service)"
            found[name] = [asyncio.run(_through(service, sink.url, in_flight, posts)) for _ in range(rounds + 1)][1:]
            rows += rows_of(found, in_flight)
    return rows


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer requests and rounds: a look, not a result")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    posts, rounds = (POSTS // 4, 2) if options.quick else (POSTS, ROUNDS)
    rows, hour = measure(posts, rounds), run_fresh(measure_hour)
    if options.json:
        print_json(rounds=rounds, rows=rows, hour=hour)
        return
    print_heading("Delivery to a loopback sink")
    print_table(HEADS, [row.cells() for row in rows])
    _print_hour(hour)


def _print_hour(hour: Hour) -> None:
    print(f"\nAn hour of a dead sink on virtual time: {hour.asked:,} deliveries asked for, {hour.attempts:,} attempts,")
    memory = f"{hour.before_mb:.1f} MB after 5 minutes and {hour.after_mb:.1f} MB after 60"
    print(f"at most {hour.most_waiting} waiting, resident memory {memory}.")


if __name__ == "__main__":
    main()
