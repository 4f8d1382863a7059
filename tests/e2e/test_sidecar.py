"""In front of the stock transformer: bodies of any size pass byte for byte in flat memory; neighbours never wait."""

import asyncio
import contextlib
import gzip
import hashlib
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web

from impact_plugin.rudder.feature_checks import check_features
from impact_plugin.testing.strict_rudder import StrictRudder
from tests import builders
from tests.builders import SHOP

MIB: Final = 1024 * 1024
BLOCK: Final = bytes(range(256)) * 1024
LARGE: Final = 150 * MIB
ROOM: Final = 24 * MIB
"""How much a body of any size may add to the process: buffers of both connections, and what Python keeps."""

SIZES: Final = [0, 1, 65_535, 65_536, 65_537, MIB + 1, LARGE]


class Stock:
    """A stand-in for the stock transformer: tells what it got, and sends as much as it is asked for."""

    def __init__(self) -> None:
        self.url = ""
        self.pause = 0.0
        self.headers: dict[str, str] = {}
        self._runner = web.ServerRunner(web.Server(self._serve, auto_decompress=False), shutdown_timeout=0.1)

    async def start(self, port: int = 0) -> None:
        """Listen."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Close the port."""
        await self._runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/features":
            # Asked in the background, whenever it is time.
            return web.json_response({"routerTransform": {"HS": True}, "upgradedToSourceTransformV2": True})
        self.headers = dict(request.headers)
        if request.path.startswith("/v0/destinations/"):
            jobs = await request.json()
            entries = [{"output": {"from": "stock"}, "metadata": job["metadata"], "statusCode": 200} for job in jobs]
            return web.json_response(entries, headers={"apiVersion": "2"})
        digest, size = hashlib.sha256(), 0
        async for piece in request.content.iter_chunked(MIB):
            digest.update(piece)
            size += len(piece)
            await asyncio.sleep(self.pause)
        told = {"X-Size": str(size), "X-Digest": digest.hexdigest(), "apiVersion": "2"}
        answer = web.StreamResponse(headers=told)
        wanted = int(request.query.get("send", "0"))
        if request.query.get("known"):
            answer.content_length = wanted
        await answer.prepare(request)
        for piece in pieces(wanted):
            await answer.write(piece)
        await answer.write_eof()
        return answer


@pytest.fixture(name="stock")
async def stock_fixture() -> AsyncIterator[Stock]:
    """Lend a running stand-in."""
    stock = Stock()
    await stock.start()
    yield stock
    await stock.stop()


class Fronting:
    """Our service as a process, and how large it has ever been."""

    def __init__(self, process: Any, url: str) -> None:
        self._process = process
        self.url = url

    def most_memory(self) -> int:
        """The most resident bytes so far."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.fixture(name="front")
def front_fixture(
    launch: Callable[..., Any], free_port: Callable[[], int], until_up: Callable[[str], None], fake_impact: str
) -> Callable[..., Awaitable[Fronting]]:
    """Lend a starter of services in front of an upstream."""

    async def front(upstream: str, **more: str) -> Fronting:
        port, operator_port = free_port(), free_port()
        process = launch(
            "serve",
            SERVER__PORT=str(port),
            SERVER__OPERATOR_PORT=str(operator_port),
            RUDDER__UPSTREAM=upstream,
            IMPACT__API_URL=fake_impact,
            IMPACT__TRACKING_URL=fake_impact,
            LOG__LEVEL="error",
            **more,
        )
        await asyncio.to_thread(until_up, f"http://127.0.0.1:{operator_port}/health")
        return Fronting(process, f"http://127.0.0.1:{port}")

    return front


@pytest.fixture(name="http")
async def http_fixture() -> AsyncIterator[aiohttp.ClientSession]:
    """Lend a client that leaves bodies as they are."""
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(auto_decompress=False, timeout=timeout) as session:
        yield session


def pieces(size: int) -> list[bytes]:
    """So many bytes, in pieces."""
    whole, rest = divmod(size, len(BLOCK))
    return [BLOCK] * whole + ([BLOCK[:rest]] if rest else [])


def digest_of(size: int) -> str:
    """What their digest is."""
    digest = hashlib.sha256()
    for piece in pieces(size):
        digest.update(piece)
    return digest.hexdigest()


async def sent(size: int, pause: float = 0.0) -> AsyncIterator[bytes]:
    """The bytes as a client sends them, slowly if it must be."""
    for number, piece in enumerate(pieces(size)):
        if pause and number % 16 == 0:
            await asyncio.sleep(pause)
        yield piece


async def received(response: aiohttp.ClientResponse, pause: float = 0.0) -> tuple[int, str]:
    """Size and digest of an answer, read slowly if it must be."""
    digest, size = hashlib.sha256(), 0
    async for piece in response.content.iter_chunked(MIB):
        digest.update(piece)
        size += len(piece)
        await asyncio.sleep(pause)
    return size, digest.hexdigest()


@pytest.mark.parametrize("known", [True, False], ids=["length", "chunked"])
async def test_bodies_of_every_size_pass_in_flat_memory(
    front: Callable[..., Awaitable[Fronting]], stock: Stock, http: aiohttp.ClientSession, known: bool
) -> None:
    """0 bytes to 150 MB, there and back, with a length and in chunks: equal digests, a process as large as before."""
    service = await front(stock.url)
    before = 0
    for size in SIZES:
        headers = {"Content-Length": str(size)} if known else {}
        query = f"send={size}&known=1" if known else f"send={size}"
        async with http.post(f"{service.url}/v2/sources/x?{query}", data=sent(size), headers=headers) as response:
            back = await received(response)

        assert (response.headers["X-Size"], response.headers["X-Digest"]) == (str(size), digest_of(size))
        assert back == (size, digest_of(size))
        assert ("Content-Length" in response.headers) == known
        # Nothing is nothing, with a length or in no chunk at all.
        assert ("Content-Length" in stock.headers) == (known or size == 0)
        before = before or service.most_memory()

    assert service.most_memory() - before < ROOM


@pytest.mark.parametrize("slow", ["client writes", "upstream reads", "client reads"])
async def test_the_slow_are_waited_for_and_not_buffered(
    front: Callable[..., Awaitable[Fronting]], stock: Stock, http: aiohttp.ClientSession, slow: str
) -> None:
    """Whoever is slow slows the other side down; between the two nothing piles up."""
    service = await front(stock.url)
    async with http.get(f"{service.url}/warm") as response:
        await response.read()
    before = service.most_memory()
    stock.pause = 0.01 if slow == "upstream reads" else 0.0
    size, wanted = (0, LARGE) if slow == "client reads" else (LARGE, 0)
    body = sent(size, 0.02 if slow == "client writes" else 0.0) if size else None
    async with http.post(f"{service.url}/v2/sources/x?send={wanted}", data=body) as response:
        back = await received(response, 0.01 if slow == "client reads" else 0.0)

    assert response.headers["X-Digest"] == digest_of(size)
    assert back == (wanted, digest_of(wanted))
    assert service.most_memory() - before < ROOM


async def test_compressed_bodies_of_many_sizes_pass_unopened(
    front: Callable[..., Awaitable[Fronting]], stock: Stock, http: aiohttp.ClientSession
) -> None:
    """What is compressed stays so, with odd headers beside it."""
    service = await front(stock.url)
    for size in (0, 1, 100_000, 4 * MIB):
        packed = gzip.compress(b"".join(pieces(size)), 1)
        headers = {"Content-Encoding": "gzip", "X-Odd": 'a,b;c="d"', "X-Empty": "", "x-lower-CASE": "\xe9"}
        async with http.post(f"{service.url}/v2/sources/x", data=packed, headers=headers) as response:
            await response.read()

        assert response.headers["X-Digest"] == hashlib.sha256(packed).hexdigest()
        assert {name: stock.headers.get(name) for name in headers} == headers


def order(number: int) -> dict[str, Any]:
    """An order of one of twenty visitors."""
    return builders.order(f"o-{number}", f"m-{number}", f"a-{number % 20}")


async def test_interleaved_destinations_each_get_their_own(
    front: Callable[..., Awaitable[Fronting]], stock: Stock, http: aiohttp.ClientSession
) -> None:
    """Batches of ours and of the stock transformer's at the same time: no answer goes to the wrong one."""
    service = await front(stock.url)

    async def ask(number: int) -> bool:
        ours = number % 2 == 0
        job = {
            "message": order(number),
            "metadata": {"jobId": number, "destinationId": "d"},
            "destination": {"ID": "d", "Config": SHOP},
        }
        path = "/v0/destinations/impact" if ours else "/v0/destinations/marketo"
        async with http.post(service.url + path, json=[job]) as response:
            (entry,) = await response.json()
        known = {"from": "stock"} if not ours else None
        assert entry["metadata"]["jobId"] == number
        assert (entry["output"] == known) == (not ours)
        return ours or entry["output"] == known

    assert all(await asyncio.gather(*map(ask, range(400))))


async def test_where_events_are_transformed_may_change_at_any_time(
    front: Callable[..., Awaitable[Fronting]], stock: Stock, fake_impact: str, http: aiohttp.ClientSession
) -> None:
    """Jobs queued under one mode and new ones under the other, side by side: every order once."""
    service = await front(stock.url)
    async with StrictRudder(service.url, destination_config=SHOP, concurrency=8) as rudder:
        await rudder.wait_for_features()
        runs = [
            rudder.run(
                [order(number) for number in range(first, first + 100)],
                transform="router" if first % 200 else "processor",
                delivery="proxy",
            )
            for first in range(0, 800, 100)
        ]
        summaries = await asyncio.gather(*runs)
    async with http.get(f"{fake_impact}/_calls") as response:
        calls = (await response.json())["calls"]
    orders = [call["form"]["OrderId"] for call in calls if "OrderId" in call["form"]]

    assert [summary.states for summary in summaries] == [{"succeeded": 100}] * 8
    assert sorted(orders) == sorted(f"o-{number}" for number in range(800))


async def test_features_are_there_before_the_upstream(
    front: Callable[..., Awaitable[Fronting]], free_port: Callable[[], int], http: aiohttp.ClientSession
) -> None:
    """All three start at once and the stock transformer is last: the router starts, and hears of it later."""
    port = free_port()
    service = await front(f"http://127.0.0.1:{port}")
    async with http.get(f"{service.url}/features") as response:
        first = check_features(response.status, await response.read())
    stock = Stock()
    await stock.start(port)
    try:
        async with asyncio.timeout(20):
            while True:
                async with http.get(f"{service.url}/features") as response:
                    told = await response.json()
                if "HS" in told["routerTransform"]:
                    break
                await asyncio.sleep(0.1)
    finally:
        await stock.stop()

    assert not first.compacted
    assert told["routerTransform"] == {"HS": True, "IMPACT": True}


async def test_a_state_store_that_hangs_delays_no_other_destination(
    front: Callable[..., Awaitable[Fronting]],
    stock: Stock,
    http: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    """No commit is taken: ours are sent back in time, and the stock transformer's are answered as ever."""
    service = await front(stock.url, STATE__TIMEOUT_SECONDS="1", STATE__GRACE_SECONDS="60")
    job = {
        "message": {
            "type": "page",
            "messageId": "m",
            "anonymousId": "a",
            "properties": {"url": "https://a.b/?irclickid=c"},
        },
        "metadata": {"jobId": 1, "destinationId": "d"},
        "destination": {"ID": "d", "Config": SHOP},
    }

    async def ask(path: str) -> tuple[int, float]:
        began = time.monotonic()
        async with http.post(service.url + path, json=[job]) as response:
            await response.read()
            return response.status, time.monotonic() - began

    with contextlib.closing(sqlite3.connect(tmp_path / "var" / "sessions.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        ours = [asyncio.create_task(ask("/v0/destinations/impact")) for _ in range(20)]
        await asyncio.sleep(0.2)
        others = [await ask("/v0/destinations/marketo") for _ in range(50)]
        answered = await asyncio.gather(*ours)

    assert {status for status, _ in others} == {200}
    assert max(seconds for _, seconds in others) < 0.9
    assert {status for status, _ in answered} == {503}
