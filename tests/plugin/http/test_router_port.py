"""The router's port: whose request is whose, and never a 4xx for trouble of ours."""

import asyncio
import gzip
import io
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import msgspec
import pytest
from yarl import URL

from impact_plugin.app import Service
from impact_plugin.process.shutdown import Shutdown
from impact_plugin.protocols import rudder_processor
from impact_plugin.rudder.bodies import QueuedEvent, Route, processor_body
from impact_plugin.rudder.replies import check_processor_reply

Start = Callable[..., Awaitable[Service]]
Item = Callable[..., dict[str, Any]]

ROUTES = [
    "/v0/destinations/impact",
    "/routerTransform",
    "/v0/destinations/impact/proxy",
    "/v1/destinations/impact/proxy",
]


class Told(msgspec.Struct, frozen=True):
    """An answer, as far as the router looks."""

    status: int
    retry: str | None
    reason: str | None
    body: bytes


async def ask(http: aiohttp.ClientSession, method: str, url: str, data: Any = None, **headers: str) -> Told:
    """Send anything."""
    large = io.BytesIO(data) if isinstance(data, bytes) else data
    async with http.request(method, URL(url, encoded=True), data=large, headers=headers) as response:
        body = await response.read()
        found = response.headers
        return Told(response.status, found.get("X-Rudder-Should-Retry"), found.get("X-Rudder-Error-Reason"), body)


async def ask_raw(url: str, request: bytes) -> bytes:
    """Send bytes as they are and read all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(url).port)
    writer.write(request)
    await writer.drain()
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


async def test_listens_where_the_settings_say(
    http: aiohttp.ClientSession, start: Start, unused: tuple[int, int]
) -> None:
    """Both addresses and both ports are the operator's choice."""
    port, operator_port = unused
    service = await start(
        server={"host": "127.0.0.2", "port": port, "operator_host": "127.0.0.3", "operator_port": operator_port}
    )

    assert service.url == f"http://127.0.0.2:{port}"
    assert service.operator_url == f"http://127.0.0.3:{operator_port}"
    assert (await ask(http, "GET", f"{service.url}/health")).status == 200
    assert (await ask(http, "GET", f"{service.operator_url}/metrics")).status == 200


@pytest.fixture(name="unused")
async def unused_fixture() -> tuple[int, int]:
    """Lend two ports that were free a moment ago."""
    servers = [await asyncio.start_server(lambda _r, _w: None, host, 0) for host in ("127.0.0.2", "127.0.0.3")]
    ports = [int(server.sockets[0].getsockname()[1]) for server in servers]
    for server in servers:
        server.close()
        await server.wait_closed()
    return ports[0], ports[1]


@pytest.mark.parametrize(
    "path",
    [
        "/v0/destinations/impact",
        "/v0/destinations/impact/",
        "//v0/destinations/impact",
        "///v0//destinations///impact//",
        "/v0/destinations/IMPACT",
        "/V0/Destinations/Impact",
    ],
)
async def test_slashes_and_letter_case_do_not_matter(
    http: aiohttp.ClientSession, service: Service, item: Item, page: dict[str, Any], path: str
) -> None:
    """A slash too many in the router's URL setting must not turn batches into 404s, which lose them."""
    told = await ask(http, "POST", service.url + path, msgspec.json.encode([item(page)]))

    assert told.status == 200
    assert msgspec.json.decode(told.body)[0]["statusCode"] == 200


@pytest.mark.parametrize("path", ["//features", "/Features/", "/FEATURES", "/features?x=1"])
async def test_features_are_found_by_any_spelling(http: aiohttp.ClientSession, service: Service, path: str) -> None:
    """As above, for the router's boot."""
    assert (await ask(http, "GET", service.url + path)).status == 200


@pytest.mark.parametrize("path", ["/routerTransform", "/routertransform", "//routerTransform/"])
async def test_router_transform_is_found_by_any_spelling(
    http: aiohttp.ClientSession, service: Service, path: str
) -> None:
    """As above, for the router's workers."""
    told = await ask(http, "POST", service.url + path, b'{"input":[],"destType":"impact"}')

    assert (told.status, told.body) == (200, b'{"output":[]}')


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/nothing"),
        ("GET", "/a%0Ab"),
        ("GET", "/%ff%fe"),
        ("GET", "/metrics"),
        ("POST", "/nothing"),
        ("POST", "/customTransform"),
        ("POST", "/v0/destinations/marketo"),
        ("POST", "/v0/destinations/impact/other"),
        ("POST", "/v2/destinations/impact/proxy"),
        ("POST", "/v0/destinations/"),
        ("GET", "/v0/destinations/impact"),
        ("GET", "/routerTransform"),
        ("GET", "/v1/destinations/impact/proxy"),
        ("PUT", "/v0/destinations/impact"),
        ("DELETE", "/routerTransform"),
        ("POST", "/features"),
        ("POST", "/health"),
        ("OPTIONS", "/x"),
        ("PATCH", "/x"),
        ("TRACE", "/x"),
    ],
)
async def test_without_an_upstream_the_unknown_is_asked_for_again(
    http: aiohttp.ClientSession, service: Service, method: str, path: str
) -> None:
    """404 and 405 abort whole batches of other destinations; 503 keeps them until the setting is put right."""
    told = await ask(http, method, service.url + path, b"[]" if method == "POST" else None)

    assert (told.status, told.retry, told.reason) == (503, "true", "not_ours")
    assert b"rudder.upstream" in told.body


BODIES: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"hello",
    "cut off": b'[{"message":{"type"',
    "a number": b"7",
    "null": b"null",
    "binary": bytes(range(256)),
    "not UTF-8": b'{"input":"\xff"}',
    "deep": b"[" * 100_000,
    "a list of numbers": b"[1,2]",
    "a list of lists": b"[[]]",
    "XML": b"<a/>",
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("path", ROUTES)
async def test_an_undecodable_body_is_asked_for_again(
    http: aiohttp.ClientSession, service: Service, path: str, name: str
) -> None:
    """A body mangled on the way is not the events' fault."""
    told = await ask(http, "POST", service.url + path, BODIES[name])

    assert (told.status, told.retry, told.reason) == (503, "true", "undecodable_body")


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "body",
    [
        gzip.compress(msgspec.json.encode([{"message": {"n": n}} for n in range(5000)]))[:-20],
        gzip.compress(b"[]")[:12],
        b"\x1f\x8b" + b"\x00" * 30,
        b"not gzip at all",
        b"",
    ],
    ids=["cut off", "cut off early", "garbage", "plain", "empty"],
)
async def test_a_broken_gzip_body_is_asked_for_again(
    http: aiohttp.ClientSession, service: Service, path: str, body: bytes
) -> None:
    """What cannot be inflated may arrive whole the next time."""
    told = await ask(http, "POST", service.url + path, body, **{"Content-Encoding": "gzip"})

    assert (told.status, told.retry) == (503, "true")
    assert told.reason in {"unreadable_body", "undecodable_body"}


@pytest.mark.parametrize("encoding", ["br", "zstd"])
async def test_an_encoding_nobody_can_inflate_is_asked_for_again(
    http: aiohttp.ClientSession, service: Service, encoding: str
) -> None:
    """A proxy between router and us that recompresses bodies loses nothing."""
    told = await ask(http, "POST", f"{service.url}/v0/destinations/impact", b"xxxx", **{"Content-Encoding": encoding})

    assert (told.status, told.retry) == (503, "true")


@pytest.mark.parametrize("path", ROUTES)
async def test_a_gzip_bomb_is_stopped_at_the_limit(http: aiohttp.ClientSession, start: Start, path: str) -> None:
    """The limit counts inflated bytes, so a small body cannot fill the memory."""
    service = await start(server={"max_body_mb": 1})
    bomb = gzip.compress(b"[" + b" " * 30_000_000 + b"]")
    told = await ask(http, "POST", service.url + path, bomb, **{"Content-Encoding": "gzip"})

    assert len(bomb) < 100_000
    assert (told.status, told.retry) == (503, "true")
    assert told.reason in {"body_too_large", "unreadable_body"}


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ROUTES)
async def test_a_body_over_the_limit_is_asked_for_again(
    http: aiohttp.ClientSession, start: Start, path: str, chunked: bool
) -> None:
    """413 would abort the batch; 503 keeps it, and the text names the setting."""
    service = await start(server={"max_body_mb": 1})
    body = b"[" + b" " * 1_200_000 + b"]"

    async def chunks() -> AsyncIterator[bytes]:
        for index in range(0, len(body), 100_000):
            yield body[index : index + 100_000]

    told = await ask(http, "POST", service.url + path, chunks() if chunked else body)

    assert (told.status, told.retry, told.reason) == (503, "true", "body_too_large")
    assert b"server.max_body_mb" in told.body


async def test_a_body_at_the_limit_is_taken(http: aiohttp.ClientSession, start: Start) -> None:
    """The limit itself is allowed."""
    service = await start(server={"max_body_mb": 1})
    told = await ask(http, "POST", f"{service.url}/v0/destinations/impact", b"[" + b" " * (1024 * 1024 - 2) + b"]")

    assert (told.status, told.body) == (200, b"[]")


async def test_a_body_of_20_mb_is_taken(
    http: aiohttp.ClientSession, service: Service, page: dict[str, Any], config: dict[str, Any]
) -> None:
    """Aiohttp's own limit of 1 MiB is not ours."""
    events = [{**page, "properties": {**page["properties"], "padding": "x" * 200_000}} for _ in range(100)]
    queued = [QueuedEvent(number, event) for number, event in enumerate(events, 1)]
    built = processor_body(queued, Route(config), now=1.0, compacted=True)
    async with http.post(
        f"{service.url}/v0/destinations/impact",
        data=io.BytesIO(built.body),
        headers={"X-Content-Format": "json+compactedv1"},
    ) as response:
        reply = check_processor_reply(built.jobs, response.status, dict(response.headers), await response.read())

    assert len(built.body) > 20_000_000
    assert {job.status for job in reply.jobs} == {200}


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compressed_body_is_inflated(
    http: aiohttp.ClientSession, service: Service, item: Item, page: dict[str, Any], encoding: str
) -> None:
    """rudder-server compresses nothing, but a proxy in between may."""
    body = msgspec.json.encode([item(page)] * 50)
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    told = await ask(http, "POST", f"{service.url}/v0/destinations/impact", packed, **{"Content-Encoding": encoding})

    assert told.status == 200
    assert len(msgspec.json.decode(told.body)) == 50


async def test_a_defect_of_ours_is_asked_for_again(
    http: aiohttp.ClientSession, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception anywhere in a request is a 503 that tells nothing about the events."""

    async def broken(*_given: Any, **_named: Any) -> bytes:
        raise RuntimeError("jane@example.com")

    monkeypatch.setattr(rudder_processor, "handle", broken)
    told = await ask(http, "POST", f"{service.url}/v0/destinations/impact", b"[]")

    assert (told.status, told.retry, told.reason) == (503, "true", "internal_error")
    assert b"jane" not in told.body
    assert service.telemetry.metrics.registry.get_sample_value("impact_plugin_faults_total", {"where": "request"}) == 1


async def test_other_destination_types_can_be_ours(
    http: aiohttp.ClientSession, start: Start, item: Item, page: dict[str, Any]
) -> None:
    """``rudder.destination_types`` names the definitions; the others are not ours."""
    service = await start(rudder={"destination_types": ["IMPACT_EU", "Impact_Us"]})
    body = msgspec.json.encode([item(page)])
    found = {
        name: (await ask(http, "POST", f"{service.url}/v0/destinations/{name}", body)).status
        for name in ("impact_eu", "impact_us", "impact")
    }
    routed = await ask(http, "POST", f"{service.url}/routerTransform", b'{"input":[],"destType":"impact_us"}')

    assert found == {"impact_eu": 200, "impact_us": 200, "impact": 503}
    assert routed.body == b'{"output":[]}'


async def test_a_client_that_leaves_in_the_middle_harms_nobody(
    http: aiohttp.ClientSession, service: Service, item: Item, page: dict[str, Any]
) -> None:
    """A half-sent request ends with its connection; the next one is served."""
    for half in (b"POST /v0/destinations/impact HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n[{", b"POST /v0"):
        _, writer = await asyncio.open_connection("127.0.0.1", URL(service.url).port)
        writer.write(half)
        await writer.drain()
        writer.close()
    told = await ask(http, "POST", f"{service.url}/v0/destinations/impact", msgspec.json.encode([item(page)]))

    assert told.status == 200


async def test_a_connection_serves_many_requests(service: Service) -> None:
    """Keep-alive works, also after a refusal."""
    one = b"POST /v0/destinations/impact HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"
    last = b"POST /v0/destinations/impact HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
    answer = await ask_raw(service.url, one + b"[]" + one + b"{]" + last + b"[]")

    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.count(b"HTTP/1.1 503 ") == 1


async def test_a_stopping_service_sends_processor_batches_back(
    http: aiohttp.ClientSession, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that comes on a kept connection after the signal is asked for again, of the next instance."""
    monkeypatch.setattr(Shutdown, "begun", True)
    service = await start()
    told = await ask(http, "POST", f"{service.url}/v0/destinations/impact", b"[]")
    ready = await ask(http, "GET", f"{service.url}/ready")
    health = await ask(http, "GET", f"{service.url}/health")

    assert (told.status, told.retry, told.reason) == (503, "true", "stopping")
    assert (ready.status, health.status) == (503, 200)
    assert b"the service is stopping" in ready.body
