"""The answer contract over a real socket, with a stand-in for what takes the events."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import pytest
from aiohttp import web
from anyio.abc import TaskGroup

from impact_plugin.config.sources import Source, make_routing
from impact_plugin.errors import StateUnavailableError
from impact_plugin.http import body_budget
from impact_plugin.http import ingest as ingest_app
from impact_plugin.http.ingest import IngestApp
from impact_plugin.http.ingest_responses import STATUSES
from impact_plugin.http.readiness import Readiness
from impact_plugin.ingest.intake import Item, ItemResult, Unusable
from impact_plugin.process.background import open_background
from impact_plugin.process.memory import MemoryWatch
from impact_plugin.process.shutdown import Shutdown
from impact_plugin.sessions.sessions import Health
from impact_plugin.spool.base import SpoolFullError
from impact_plugin.telemetry import Telemetry
from tests.builders import CONFIG
from tests.one_task import in_one_task

KEY: Final = "a-key-of-the-shop-0123456789"
BEARER: Final = {"Authorization": f"Bearer {KEY}"}
CONTRACT: Final = {200, 400, 401, 404, 413, 429, 500, 503}


class Port:
    """A running ingest port; ``fault`` is raised and ``results`` are given by what takes the events."""

    def __init__(self, folder: Path, http: aiohttp.ClientSession, tasks: TaskGroup) -> None:
        self.http = http
        self.url = ""
        self.fault: Exception | None = None
        self.results: list[ItemResult] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.taken: list[Item | Unusable] = []
        self.forgotten: list[tuple[list[str], list[str]]] = []
        self.shutdown = Shutdown(0.1)
        memory = MemoryWatch(0, Telemetry())
        self.readiness = Readiness(folder, Health(), self.shutdown, memory, ())
        sources = {"shop": {"keys": [KEY]}, "strict": {"keys": [KEY[::-1]], "strict": True}}
        routing = make_routing({"sources": sources, "destinations": {"eu": CONFIG}}, {})
        app = IngestApp(lambda: routing, self._take, self._forget, self.readiness, self.shutdown, Telemetry(), tasks)
        self._runner = web.AppRunner(app.application(), auto_decompress=False, shutdown_timeout=0.1)

    async def start(self) -> None:
        """Listen on a free port."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Close the port, when all is done that was asked for."""
        self.gate.set()
        await self.close()

    async def close(self) -> None:
        """Close the port."""
        await self._runner.cleanup()

    async def post(self, path: str, body: Any, key: str = KEY) -> tuple[int, str | None, Any]:
        """Status, Retry-After and decoded body of a request."""
        data, headers = msgspec.json.encode(body), {"Authorization": f"Bearer {key}"}
        async with self.http.post(f"{self.url}{path}", data=data, headers=headers) as response:
            raw = await response.read()
            assert response.content_type == "application/json"
            return response.status, response.headers.get("Retry-After"), msgspec.json.decode(raw)

    async def raw(self, head: bytes, body: bytes = b"") -> bytes:
        """The first line that a request gets whose bytes no client library would send."""
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.url.rpartition(":")[2]))
        length = f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        writer.write(head + b"Host: x\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n" + length + body)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer.partition(b"\r\n")[0]

    async def _take(self, _source: Source, items: Sequence[Item | Unusable]) -> list[ItemResult]:
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        self.taken.extend(items)
        return self.results or [ItemResult("m-1", "stored") for _ in items]

    async def _forget(self, users: Sequence[str], anonymous: Sequence[str]) -> None:
        if self.fault is not None:
            raise self.fault
        self.forgotten.append((list(users), list(anonymous)))


@pytest.fixture(name="port")
async def port_fixture(tmp_path: Path, http: aiohttp.ClientSession) -> AsyncIterator[Port]:
    """Lend a running port."""
    async with in_one_task(open_background()) as tasks:
        port = Port(tmp_path, http, tasks)
        await port.start()
        yield port
        await port.stop()


@pytest.mark.parametrize("path", ["/v1/track", "/webhook/shop"])
async def test_a_stored_event_is_answered_shortly(port: Port, path: str) -> None:
    """200 and nothing else: Jitsu takes 201 to 204 for a failure."""
    assert (200, None, {"success": True}) == await port.post(path, {"type": "track"})


@pytest.mark.parametrize("path", ["/v1/track", "/v1/batch", "/webhook/shop"])
@pytest.mark.parametrize(
    ("fault", "status", "seconds", "reason"),
    [
        (SpoolFullError("the spool has 1,000 events", 17), 429, "17", "spool_full"),
        (StateUnavailableError("out of reach"), 503, "5", "state_unavailable"),
        (RuntimeError("a secret"), 500, None, "internal_error"),
        (KeyError("batch"), 500, None, "internal_error"),
    ],
)
async def test_a_fault_is_an_answer_of_the_contract(
    port: Port, path: str, fault: Exception, status: int, seconds: str | None, reason: str
) -> None:
    """Full, out of reach, and a defect: senders come again, and a defect's words stay with us."""
    port.fault = fault
    found = await port.post(path, {"batch": [{"type": "track"}]})

    assert (status, seconds, reason) == (found[0], found[1], found[2]["error"])
    assert "secret" not in str(found[2])


async def test_a_slow_store_is_answered_in_time(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, and what it was about to do is done all the same."""
    monkeypatch.setattr(ingest_app, "RESPONSE_SECONDS", 0.05)
    port.gate.clear()
    found = await port.post("/v1/track", {"event": "x"})
    port.gate.set()
    await asyncio.sleep(0)
    await port.post("/v1/track", {"event": "y"})

    assert (503, "1", "too_slow") == (found[0], found[1], found[2]["error"])
    assert 2 == len(port.taken)


async def test_what_goes_on_after_its_answer_ends_with_the_service(
    tmp_path: Path, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender was told to come again: nothing is lost when the work is cancelled."""
    monkeypatch.setattr(ingest_app, "RESPONSE_SECONDS", 0.05)
    async with open_background() as tasks:
        port = Port(tmp_path, http, tasks)
        await port.start()
        port.gate.clear()
        found = await port.post("/v1/track", {"event": "x"})
        await port.close()
    port.gate.set()
    await asyncio.sleep(0.01)

    assert (503, []) == (found[0], port.taken)


async def test_a_sender_that_goes_on_sending_at_a_stop_breaks_nothing(
    port: Port, caplog: pytest.LogCaptureFixture
) -> None:
    """Its answer is there before all of its body; what comes later is nobody's any more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port.url.rpartition(":")[2]))
    writer.write(f"POST /v1/batch HTTP/1.1\r\nHost: x\r\nX-Write-Key: {KEY}\r\nContent-Length: 900000\r\n\r\n".encode())
    writer.write(b" " * 1000)
    await asyncio.sleep(0.05)
    answered = asyncio.create_task(reader.readline())
    port.shutdown.begin()
    for _ in range(100):
        writer.write(b" " * 1000)
        await asyncio.sleep(0)
    status = await answered
    writer.close()

    assert status.startswith(b"HTTP/1.1 503 ")
    assert [] == [record.message for record in caplog.records if record.levelname == "ERROR"]


def test_every_refusal_has_a_status_of_the_contract() -> None:
    """Senders of each kind understand it."""
    assert CONTRACT >= set(STATUSES.values())


async def test_a_service_that_stops_says_so(port: Port) -> None:
    """503 before anything is read."""
    port.shutdown.begin()
    found = await port.post("/v1/track", {})

    assert (503, "1", "stopping") == (found[0], found[1], found[2]["error"])
    assert [] == port.taken


async def test_too_many_large_bodies_are_put_off(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """429, and when they are done there is room again."""
    monkeypatch.setattr(body_budget, "MAX_BYTES", 10)
    first = await port.post("/v1/track", {"event": "too large for the room"})
    second = await port.post("/v1/track", {})

    assert (429, "1", "busy") == (first[0], first[1], first[2]["error"])
    assert 200 == second[0]


async def send_raw(port: Port, *pieces: bytes, body_seconds: float = 5.0) -> bytes:
    """The answer to a request that is written in pieces."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port.url.rpartition(":")[2]))
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    async with asyncio.timeout(body_seconds):
        head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return head


def chunked(body: bytes, extra: bytes = b"") -> tuple[bytes, bytes]:
    """Head and chunk of a request that does not tell its length, and does not end."""
    head = b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + KEY.encode()
    return head + b"\r\nTransfer-Encoding: chunked\r\n" + extra + b"\r\n", b"%x\r\n%s\r\n" % (len(body), body)


async def test_a_body_that_does_not_tell_its_length_counts_as_it_comes(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """429 before it has ended; what is small has room again."""
    monkeypatch.setattr(body_budget, "MAX_BYTES", 1000)
    answer = await send_raw(port, *chunked(b"x" * 2000))
    after = await port.post("/v1/track", {})

    assert answer.startswith(b"HTTP/1.1 429 ")
    assert 200 == after[0]


async def test_a_body_counts_for_what_it_is_inflated_to(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small body may be a large one in disguise."""
    monkeypatch.setattr(body_budget, "MAX_BYTES", 10_000)
    packed = gzip.compress(msgspec.json.encode({"batch": [], "pad": "x" * 20_000}))
    head, chunk = chunked(packed, b"Content-Encoding: gzip\r\n")
    answer = await send_raw(port, head, chunk, b"0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 429 ")


async def test_a_body_larger_than_the_limit_is_refused_before_it_ends(port: Port) -> None:
    """Though it does not tell its length: 413."""
    answer = await send_raw(port, *chunked(b"x" * (4 * 1024 * 1024 + 1)))

    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(("members", "status"), [(64, b"200"), (65, b"400")])
async def test_a_compressed_body_may_have_some_members(port: Port, members: int, status: bytes) -> None:
    """Each costs a pass, so there is a limit."""
    text = msgspec.json.encode({"batch": [{"type": "page", "pad": "x" * 80}]})
    parts = [text[number : number + 1] for number in range(members - 1)]
    packed = b"".join(gzip.compress(part) for part in [*parts, text[members - 1 :]])
    head, chunk = chunked(packed, b"Content-Encoding: gzip\r\n")
    answer = await send_raw(port, head, chunk, b"0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 " + status)


async def test_a_sender_that_does_not_go_on_is_let_go(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, which it repeats on; the room it held is free."""
    monkeypatch.setattr(ingest_app, "BODY_SECONDS", 0.05)
    answer = await send_raw(port, *chunked(b"{"))

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1" in answer


async def test_an_unusable_event_is_no_error_but_where_it_is_wished(port: Port) -> None:
    """200 with the reason, or 400 for a strict source and a single event; never for a batch."""
    port.results = [ItemResult("m-1", "rejected", "no_order_id", "nothing to tell apart")]
    usual = await port.post("/v1/track", {})
    strict = await port.post("/v1/track", {}, KEY[::-1])
    batch = await port.post("/v1/batch", {"batch": [{}]}, KEY[::-1])

    assert [200, 400, 200] == [usual[0], strict[0], batch[0]]
    assert "no_order_id: nothing to tell apart" == usual[2]["results"][0]["error"]
    assert "no_order_id" == strict[2]["error"]


async def test_a_batch_is_counted_and_only_exceptions_are_told(port: Port) -> None:
    """In the order they came; no more than a hundred, and how many more there are."""
    port.results = [ItemResult("m", "stored"), *(ItemResult("m", "rejected", "bad", "x" * 5000) for _ in range(150))]
    _, _, body = await port.post("/v1/batch", {"batch": [{}] * 151})

    assert (1, 150, 0, 100, 50) == (
        body["accepted"], body["rejected"], body["duplicates"], len(body["results"]), body["more"]
    )  # fmt: skip
    assert 1 == body["results"][0]["index"]
    assert 200 == len(body["results"][0]["error"])


async def test_a_wish_to_be_deleted_is_carried_out(port: Port) -> None:
    """Segment's delete message forgets the person, and is no event; its neighbours are."""
    batch = {"batch": [{"type": "track"}, {"type": "Delete", "userId": "u-1", "anonymousId": 7}]}
    status, _, body = await port.post("/v1/batch", batch)

    assert (200, 2, 1) == (status, body["accepted"], len(port.taken))
    assert [(["u-1"], ["7"])] == port.forgotten


async def test_a_wish_that_cannot_be_carried_out_now_comes_again(port: Port) -> None:
    """It must not be lost."""
    port.fault = StateUnavailableError("out of reach")
    found = await port.post("/webhook/shop", {"type": "delete", "userId": "u-1"})

    assert (503, "5") == found[:2]


@pytest.mark.parametrize(
    ("path", "key", "status", "reason"),
    [
        ("/v1/track", "wrong", 401, "unknown_key"),
        ("/webhook/shop", "wrong", 401, "unknown_key"),
        ("/webhook/shop", KEY[::-1], 401, "unknown_key"),
        ("/v1/unknown", KEY, 404, "unknown_path"),
        ("/webhook/other", KEY, 404, "unknown_path"),
        ("/webhook", KEY, 404, "unknown_path"),
        ("/", KEY, 404, "unknown_path"),
        ("/v1/batch", KEY, 400, "undecodable_body"),
    ],
)
async def test_the_first_characters_say_why(port: Port, path: str, key: str, status: int, reason: str) -> None:
    """Jitsu's log shows 255 characters, and the answer fits in them where it has no list."""
    found = await port.post(path, {"no": "batch"}, key)

    assert (status, reason) == (found[0], found[2]["error"])
    assert 350 > len(msgspec.json.encode(found[2]))
    assert msgspec.json.encode(found[2]).startswith(f'{{"success":false,"error":"{reason}"'.encode())


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/track HTTP/1.1\r\nContent-Encoding: \xff\xfe\r\n",
        b"POST /v1/track HTTP/1.1\r\nContent-Encoding: br\r\n",
        b"POST /v1/track HTTP/1.1\r\nExpect: miracles\r\n",
        b"POST /v1/track HTTP/1.1\r\nContent-Type: \xff; charset=\xff\r\n",
        b"POST /v1/track HTTP/1.1\r\nX-Write-Key: \xff\r\n",
        b"POST /v1/%ff%00%0a HTTP/1.1\r\n",
        b"POST /webhook/shop/%ff?token=%ff HTTP/1.1\r\n",
        b"POST /webhook/%ff HTTP/1.1\r\n",
        b"BREW /v1/track HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"GET /v1/track HTTP/1.1\r\n",
        b"PUT /webhook/shop HTTP/1.1\r\n",
        b"POST http://[ HTTP/1.1\r\n",
    ],
)
async def test_odd_heads_of_requests_get_a_status_of_the_contract(port: Port, head: bytes) -> None:
    """Whatever a proxy or a scanner sends; and none is a defect."""
    status = int((await port.raw(head, b"{}")).split()[1])

    assert status in CONTRACT - {500}
