"""Sessions on a Redis or Valkey server of our own on the loopback interface: round trips, latency, throughput."""

import asyncio
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import msgspec
from benchmarks import queries
from benchmarks.servers import HOST, free_ports, run_process
from redis.asyncio import Redis

from impact_plugin.store.base import CALL_SIZE, SessionQuery
from impact_plugin.store.redis import RedisSettings, RedisStore, open_redis
from impact_transformers import Secret

PROGRAMS: Final = ("redis-server", "valkey-server")
TIMEOUT_SECONDS: Final = 5.0
STREAMS: Final = 8
SIZES: Final = (100, CALL_SIZE)
MILLISECONDS: Final = 1e3

MAKES: Final[dict[str, Callable[..., list[SessionQuery]]]] = {
    "claims": queries.claims,
    "landings with a click id": queries.landings,
    "orders": queries.orders,
}


class Trip(msgspec.Struct, frozen=True):
    """Calls of one size and kind: script calls the server got for each, milliseconds for one, keys/s for many."""

    kind: str
    keys: int
    round_trips: float
    p50_ms: float
    p99_ms: float
    keys_per_second: float


def program() -> str | None:
    """The server's program, when there is one."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


@contextmanager
def run_server(path: str) -> Iterator[str]:
    """A server without persistence, on a port of the loopback interface; gives its URL."""
    (port,) = free_ports(1)
    with TemporaryDirectory() as folder:
        command = [path, "--bind", HOST, "--port", str(port), "--save", "", "--dir", folder, "--logfile", "log"]
        with run_process(command, {}, port):
            yield f"redis://{HOST}:{port}/0"


async def measure_trips(path: str, calls: int) -> list[Trip]:
    """All kinds and sizes, ``calls`` times each."""
    with run_server(path) as url:
        client: Any = Redis.from_url(url)
        settings = RedisSettings(
            Secret(url), queries.ROOMY, queries.RETENTION_SECONDS, queries.REFERRAL_SECONDS, TIMEOUT_SECONDS
        )
        try:
            async with open_redis(settings) as store:
                return [
                    await _measure(store, client, kind, make, size, calls)
                    for kind, make in MAKES.items()
                    for size in SIZES
                ]
        finally:
            await client.aclose()


async def _script_calls(client: Any) -> int:
    """How many calls of scripts the server has counted; the store sends nothing else for a batch."""
    found = await client.info("commandstats")
    return sum(found.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


async def _measure(
    store: RedisStore, client: Any, kind: str, make: Callable[..., list[SessionQuery]], size: int, calls: int
) -> Trip:
    batches = [make(size * calls + number, size=size) for number in range(calls)]
    before = await _script_calls(client)
    took = [await _ask(store, batch) for batch in batches]
    trips = (await _script_calls(client) - before) / calls
    again = [make(size * calls * 3 + number, size=size) for number in range(calls)]
    started = perf_counter()
    await _ask_at_once(store, again)
    seconds = perf_counter() - started
    percentiles = quantiles(took, n=100)
    return Trip(kind, size, trips, median(took) * MILLISECONDS, percentiles[98] * MILLISECONDS, size * calls / seconds)


async def _ask(store: RedisStore, batch: Sequence[SessionQuery]) -> float:
    started = perf_counter()
    await store.decide(batch)
    return perf_counter() - started


async def _ask_at_once(store: RedisStore, batches: Sequence[Sequence[SessionQuery]]) -> None:
    """Several streams of batches at the same time."""
    waiting = iter(batches)

    async def send() -> None:
        for batch in waiting:
            await _ask(store, batch)

    await asyncio.gather(*(send() for _ in range(STREAMS)))
