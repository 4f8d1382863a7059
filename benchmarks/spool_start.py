"""The start with a full spool: seconds until the first request goes out, and resident memory.

python -m benchmarks.spool_start [--quick] [--json]
"""

import argparse
import asyncio
import hashlib
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, time
from typing import Any, ClassVar, Final

import msgspec

from benchmarks.fresh import run_fresh
from benchmarks.report import print_heading, print_json, print_table, verdict
from benchmarks.servers import HOST, Server, free_ports, run_process
from benchmarks.sink import Sink
from impact_plugin.config.settings import make_settings
from impact_plugin.spool.base import NewEvent, NewRow
from impact_plugin.spool.sqlite import SqliteSpool, open_sqlite_spool
from impact_transformers import NO_VISIT

KEY: Final = "a-key-of-the-benchmark-0123456789"
DESTINATION: Final = "eu"
SOURCE: Final = "shop"
ROWS: Final = 1_000_000
QUICK_ROWS: Final = 50_000
ROUNDS: Final = 3
FILLED_AT_ONCE: Final = 5000
WATCHED_SECONDS: Final = 10.0
FIRST_SEND_SECONDS: Final = 60.0
GOAL_SECONDS: Final = 3.0
GOAL_MB: Final = 200.0
KIB: Final = 1024
ORDER_EVERY: Final = 5
HEADS: Final = ("rows that wait", "s to the first send", "goal", "met?", "MB resident, highest", "goal", "met?")
_VISIT: Final = msgspec.msgpack.encode(NO_VISIT)


class Start(msgspec.Struct, frozen=True):
    """One start: seconds from the command to the first bytes at impact.com; the most resident memory, in megabytes."""

    seconds: float
    resident_mb: float


class Row(msgspec.Struct, frozen=True):
    """Medians over the rounds."""

    rows: int
    seconds: float
    resident_mb: float

    def cells(self) -> tuple[str, ...]:
        """The line as text."""
        seconds = (f"{self.seconds:.2f}", *verdict(self.seconds, GOAL_SECONDS))
        return (f"{self.rows:,}", *seconds, f"{self.resident_mb:.0f}", *verdict(self.resident_mb, GOAL_MB))


class Watched(Sink):
    """A sink that knows when the first bytes came."""

    first: ClassVar[float]
    seen: ClassVar[asyncio.Event]

    def data_received(self, data: bytes) -> None:
        """Note the time, and answer."""
        if not Watched.seen.is_set():
            Watched.first = perf_counter()
            Watched.seen.set()
        super().data_received(data)


def event_of(number: int) -> dict[str, Any]:
    """A page load, or every fifth time an order, of a visitor who has five events."""
    visitor = f"507f191e-810c-4972-9de8-{number // ORDER_EVERY:012d}"
    context = {
        "ip": "192.0.2.1",
        "userAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0",
        "locale": "en-GB",
        "library": {"name": "analytics.js", "version": "2.11.1"},
    }
    common = {
        "messageId": f"ajs-{number:012d}-8f6a7f1c3f",
        "anonymousId": visitor,
        "timestamp": "2026-09-10T10:00:00.000Z",
        "context": context,
    }
    if number % ORDER_EVERY == ORDER_EVERY - 1:
        products = [{"sku": "sku-1", "price": 10.0, "quantity": 1, "category": "shoes"}]
        properties: dict[str, Any] = {"order_id": f"o-{number}", "total": 10.0, "currency": "EUR", "products": products}
        return {"type": "track", "event": "Order Completed", **common, "properties": properties}
    url = f"https://shop.example.com/products/{number % 1000}?utm_source=news&utm_campaign=autumn"
    return {"type": "page", **common, "properties": {"url": url, "title": "A product", "referrer": ""}}


def configuration(folder: Path, impact: str, ports: tuple[int, int, int]) -> Path:
    """The configuration file of a service on this folder that delivers to this address."""
    port, operator_port, ingest_port = ports
    file = folder / "impact.toml"
    file.write_text(
        f"""
[server]
port = {port}
operator_port = {operator_port}
ingest_port = {ingest_port}
shutdown_grace_seconds = 1
[impact]
tracking_url = "{impact}"
api_url = "{impact}"
[state]
dir = "{folder}"
[spool]
max_events = 10000000
[log]
level = "error"
[sources.{SOURCE}]
keys = ["{KEY}"]
max_batch_mb = 64
[destinations.{DESTINATION}]
accountSID = "IRbench"
apiKey = "token-of-benchmarks"
campaignId = "23224"
eventTypeId = "1"
""",
        encoding="utf-8",
    )
    return file


@contextmanager
def run_ingest(folder: Path, impact: str) -> Iterator[tuple[Server, str]]:
    """The service with a source; its server, whose URL is the senders', and the operator's URL."""
    port, operator_port, ingest_port = free_ports(3)
    file = configuration(folder, impact, (port, operator_port, ingest_port))
    command = [sys.executable, "-m", "impact_plugin", "serve", "--config", str(file)]
    with run_process(command, {}, ingest_port) as server:
        yield server, f"http://{HOST}:{operator_port}"


def fill(folder: Path, rows: int) -> None:
    """Let so many events wait in a spool, as if they had just been taken in."""
    asyncio.run(_fill(folder, rows))


def open_spool(folder: Path, durability: str) -> AbstractAsyncContextManager[SqliteSpool]:
    """A spool in the folder that has room for everything, and patience with the disk."""
    tree = {"state": {"dir": str(folder), "durability": durability}, "spool": {"max_events": 10 * ROWS}}
    settings = make_settings(tree)
    return open_sqlite_spool(msgspec.structs.replace(settings.spool, timeout_seconds=60.0), settings.state, time)


async def _fill(folder: Path, rows: int) -> None:
    async with open_spool(folder, "process") as spool:
        for start in range(0, rows, FILLED_AT_ONCE):
            await spool.put([stored(number) for number in range(start, min(rows, start + FILLED_AT_ONCE))])


def stored(number: int) -> NewEvent:
    """The event as the intake hands it to the spool."""
    payload = msgspec.json.encode(event_of(number))
    order = number % ORDER_EVERY == ORDER_EVERY - 1
    lane = _digest(f"visitor-{number // ORDER_EVERY}")
    row = NewRow(DESTINATION, payload, _VISIT, order, lane, (lane,), f"o-{number}" if order else None)
    return NewEvent(SOURCE, _digest(f"event-{number}"), int(time() * 1000), (row,))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=15).digest()


def peak_mb(pid: int) -> float:
    """The most memory of a process that was resident so far."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / KIB


async def _start(folder: Path) -> Start:
    """Start the service on the folder, and watch it for a while."""
    Watched.first, Watched.seen = 0.0, asyncio.Event()
    sink = await asyncio.get_running_loop().create_server(Watched, HOST, 0, backlog=1024)
    url = f"http://{HOST}:{sink.sockets[0].getsockname()[1]}"
    started = perf_counter()
    running = run_ingest(folder, url)
    server, _ = await asyncio.to_thread(running.__enter__)
    try:
        async with asyncio.timeout(FIRST_SEND_SECONDS):
            await Watched.seen.wait()
        await asyncio.sleep(WATCHED_SECONDS)
        return Start(Watched.first - started, peak_mb(server.pid))
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)
        sink.close()


def measure(rows: int, rounds: int) -> Row:
    """Fill one spool, and start on it again and again: what a start has sent is a small part of it."""
    with TemporaryDirectory() as folder:
        run_fresh(fill, Path(folder), rows)
        found = [asyncio.run(_start(Path(folder))) for _ in range(rounds)]
    return Row(rows, median(one.seconds for one in found), max(one.resident_mb for one in found))


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rows and one round: a look, not a result")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    rows, rounds = (QUICK_ROWS, 1) if options.quick else (ROWS, ROUNDS)
    row = measure(rows, rounds)
    if options.json:
        print_json(rounds=rounds, row=row)
        return
    print_heading("The start with a full spool")
    print_table(HEADS, [row.cells()])
    print(f"\nResident memory: the highest within {WATCHED_SECONDS:.0f} s after the first send, while it is drained.")


if __name__ == "__main__":
    main()
