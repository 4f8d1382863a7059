"""What ``impact-plugin load`` costs itself, and whether it measures what an independent tool does.

python -m benchmarks.load [--quick] [--json]

Needs wrk (https://github.com/wg/wrk; ``apt-get install wrk``).
"""

import argparse
import asyncio
import re
import shutil
import subprocess
from contextlib import aclosing
from itertools import repeat
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import urlsplit

import msgspec

from benchmarks.report import print_heading, print_json, print_table, verdict
from benchmarks.servers import Server, run_bare, run_service
from impact_plugin.traffic.client import request_bytes
from impact_plugin.traffic.driver import Driver, LoadOutcome, LoadStep

RATE: Final = 2000
SECONDS: Final = 15
QUICK_SECONDS: Final = 4
ROUNDS: Final = 3
CONNECTIONS: Final = (1, 10, 50)
GOAL_SHARE: Final = 0.333
PERCENTILES: Final = (50.0, 90.0, 99.0)
MILLISECONDS: Final = 1e3
WRK_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_PERCENTILE: Final = re.compile(r"^\s+(50|90|99)%\s+([\d.]+)(us|ms|s)$", re.MULTILINE)
_ANSWERED: Final = re.compile(r"^\s+(\d+) requests in ", re.MULTILINE)

EVENT: Final = {
    "message": {"type": "page", "messageId": "m-1", "anonymousId": "a-1", "originalTimestamp": "2026-09-10T10:00:00Z"},
    "metadata": {"jobId": 1, "messageId": "m-1"},
    "destination": {
        "ID": "d-1",
        "Config": {"accountSID": "IRdemoAccount", "apiKey": "demo-token", "campaignId": "23224"},
    },
}
PATH: Final = "/v0/destinations/impact"
BODY: Final = msgspec.json.encode([EVENT])


class Measured(msgspec.Struct, frozen=True):
    """One closed-loop run: answers a second, and latencies in milliseconds by percentile."""

    per_second: float
    latencies: tuple[float, ...]


class Row(msgspec.Struct, frozen=True):
    """Both tools on so many connections: medians over the rounds."""

    connections: int
    wrk: Measured
    ours: Measured


async def drive_open(server: Server, seconds: float) -> LoadOutcome:
    """The schedule of a steady rate, against a handler that does nothing but answer."""
    address = urlsplit(server.url)
    request = request_bytes("POST", address.netloc, PATH, {"Content-Type": "application/json"}, BODY)
    driver = Driver(address.hostname or "", address.port or 0, repeat(request))
    async with aclosing(driver):
        return await driver.run([LoadStep(RATE, RATE, seconds)])


async def drive_closed(server: Server, requests: int, connections: int) -> Measured:
    """So many requests, the next when the last was answered."""
    address = urlsplit(server.url)
    request = request_bytes("POST", address.netloc, PATH, {"Content-Type": "application/json"}, BODY)
    driver = Driver(address.hostname or "", address.port or 0, repeat(request))
    async with aclosing(driver):
        outcome = await driver.run_closed(requests, connections)
    if outcome.good != requests:
        raise RuntimeError(f"answers other than 200: {dict(outcome.kinds)}")
    latencies = tuple(outcome.latencies.percentile(share) * MILLISECONDS for share in PERCENTILES)
    return Measured(requests / outcome.seconds, latencies)


def drive_wrk(server: Server, seconds: int, connections: int, script: Path) -> tuple[Measured, int]:
    """The same requests by wrk, and how many there were."""
    options = ["--latency", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "-s", str(script)]
    done = subprocess.run(["wrk", *options, server.url + PATH], capture_output=True, text=True, check=True)
    if "Non-2xx" in done.stdout:
        raise RuntimeError(done.stdout)
    answered = int(_ANSWERED.findall(done.stdout)[0])
    found = {int(share): float(value) * WRK_UNITS[unit] for share, value, unit in _PERCENTILE.findall(done.stdout)}
    return Measured(answered / seconds, tuple(found[int(share)] * MILLISECONDS for share in PERCENTILES)), answered


def compare(server: Server, seconds: int) -> list[Row]:
    """Both tools in turns, for every number of connections."""
    rows = []
    with TemporaryDirectory() as folder:
        script = Path(folder) / "body.lua"
        lines = ('wrk.method = "POST"', f"wrk.body = [==[{BODY.decode()}]==]")
        script.write_text("\n".join([*lines, 'wrk.headers["Content-Type"] = "application/json"']), encoding="utf-8")
        drive_wrk(server, 1, CONNECTIONS[0], script)
        for connections in CONNECTIONS:
            theirs, ours = [], []
            for _ in range(ROUNDS):
                measured, answered = drive_wrk(server, seconds, connections, script)
                theirs.append(measured)
                ours.append(asyncio.run(drive_closed(server, answered, connections)))
            rows.append(Row(connections, _middle(theirs), _middle(ours)))
    return rows


def _middle(rounds: list[Measured]) -> Measured:
    latencies = zip(*(one.latencies for one in rounds), strict=True)
    return Measured(median(one.per_second for one in rounds), tuple(map(median, latencies)))


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter runs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed: apt-get install wrk")
    seconds = QUICK_SECONDS if options.quick else SECONDS
    with run_bare() as bare:
        steady = asyncio.run(drive_open(bare, seconds))
    with run_service() as service:
        rows = compare(service, max(2, seconds // 3))
    late = steady.late.percentile(99) * MILLISECONDS
    if options.json:
        print_json(own_core_share=steady.core_share, own_delay_p99_ms=late, answered=steady.good, closed_loop=rows)
        return
    print_heading("Load")
    goal, met = verdict(steady.core_share, GOAL_SHARE)
    print(f"{RATE:,} requests/s for {seconds} s: {steady.good:,} of {steady.intended:,} answered well;")
    print(f"{steady.core_share:.1%} of a core (goal {goal}, met: {met}), {late:.2f} ms late at p99\n")
    heads = ["connections", "tool", "requests/s", *(f"p{share:g} ms" for share in PERCENTILES)]
    print_table(heads, [cells for row in rows for cells in _cells(row)])


def _cells(row: Row) -> list[tuple[str, ...]]:
    return [
        (str(row.connections), tool, f"{one.per_second:,.0f}", *(f"{value:.2f}" for value in one.latencies))
        for tool, one in (("wrk", row.wrk), ("load", row.ours))
    ]


if __name__ == "__main__":
    main()
