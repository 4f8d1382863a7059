"""Pass-through: what is not ours goes to the stock transformer, and its answer back, byte for byte."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from impact_plugin.app import Service

Start = Callable[..., Awaitable[Service]]

BODY = bytes(range(256)) * 600
"""150 KB of every byte."""


@pytest.fixture(name="fronting")
async def fronting_fixture(start: Start, upstream: Any) -> Service:
    """Lend a service in front of the stand-in for the stock transformer."""
    return await start(rudder={"upstream": upstream.url})


def header(seen: Any, name: str) -> str | None:
    """One header of a request that arrived."""
    return next((value for key, value in seen.headers if key.lower() == name.lower()), None)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/v0/destinations/marketo"),
        ("POST", "/customTransform"),
        ("POST", "/v2/sources/shopify?whIDResolve=1&x=%2F%20+%C3%A9&x=2"),
        ("POST", "/v2/sources/a%2Fb/hydrate"),
        ("POST", "//v0//destinations/marketo/"),
        ("POST", "/V0/Destinations/Marketo"),
        ("POST", "/v1/destinations/marketo/proxy"),
        ("POST", "/batch"),
        ("POST", "/deleteUsers"),
        ("GET", "/buildVersion"),
        ("GET", "/docs/a;b=c/d,e"),
        ("GET", "/a%0Ab"),
        ("GET", "/"),
        ("PUT", "/workspaces/1/x"),
        ("DELETE", "/x"),
        ("PATCH", "/x"),
        ("OPTIONS", "/x"),
        ("POST", "/features"),
        ("PUT", "/v0/destinations/impact"),
    ],
)
async def test_a_request_that_is_not_ours_reaches_the_upstream_as_it_was(
    http: aiohttp.ClientSession, fronting: Service, upstream: Any, method: str, target: str
) -> None:
    """Method, path with its slashes, case and escapes, query and body stay."""
    body = b'{"a":1}' if method == "POST" else None
    async with http.request(method, URL(fronting.url + target, encoded=True), data=body) as response:
        answered = await response.read()
    (seen,) = upstream.seen

    assert (seen.method, seen.target, seen.body) == (method, target, body or b"")
    assert (response.status, answered) == (200, b'{"from":"upstream"}')
    assert response.headers["apiVersion"] == "2"


async def test_headers_stay_but_for_those_of_one_connection(
    http: aiohttp.ClientSession, fronting: Service, upstream: Any
) -> None:
    """The router's headers arrive; hop-by-hop ones, and those a Connection header names, do not."""
    sent = {
        "X-Content-Format": "json+compactedv1",
        "X-Feature-Gzip-Support": "?1",
        "RdProxy-Timeout": "10000",
        "Oauth-Secret": "s",
        "X-Rudder-Dest-Info": "{}",
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": "Go-http-client/1.1",
        "Accept-Encoding": "gzip",
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "1",
        "Keep-Alive": "timeout=5",
        "Cookie": "a=1",
    }
    async with http.post(f"{fronting.url}/customTransform", data=b"[]", headers=sent) as response:
        await response.read()
    (seen,) = upstream.seen
    kept = {name: value for name, value in sent.items() if name not in {"Connection", "X-Hop", "Keep-Alive"}}

    assert {name: header(seen, name) for name in kept} == kept
    assert header(seen, "X-Hop") is None
    assert header(seen, "Keep-Alive") is None
    assert header(seen, "Host") == upstream.url.removeprefix("http://")


async def test_no_header_is_added_that_go_would_not_send(fronting: Service, upstream: Any) -> None:
    """A client that names no Accept or User-Agent has none at the upstream either."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(fronting.url).port)
    writer.write(b"GET /buildVersion HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await reader.read()
    writer.close()
    names = {name.lower() for name, _ in upstream.seen[0].headers}

    assert names <= {"host", "connection"}


@pytest.mark.parametrize("status", [200, 201, 204, 301, 304, 400, 404, 429, 500, 503, 809])
async def test_status_and_headers_of_the_answer_stay(
    http: aiohttp.ClientSession, fronting: Service, upstream: Any, status: int
) -> None:
    """Also the ones the router reads on failures, and redirects, which are not followed."""

    async def reply(_request: web.BaseRequest) -> web.StreamResponse:
        body = None if status in {204, 304} else b"upstream"
        headers = {"X-Rudder-Should-Retry": "true", "X-Response-Time": "5ms", "X-Instance-ID": "i", "Location": "/x"}
        return web.Response(status=status, reason="Because", body=body, headers=headers)

    upstream.reply = reply
    async with http.post(f"{fronting.url}/customTransform", data=b"[]", allow_redirects=False) as response:
        answered = await response.read()

    assert (response.status, response.reason) == (status, "Because")
    assert answered == (b"" if status in {204, 304} else b"upstream")
    assert response.headers["X-Rudder-Should-Retry"] == "true"
    assert response.headers["X-Instance-ID"] == "i"
    assert len(upstream.seen) == 1


async def test_a_repeated_header_of_the_answer_stays_repeated(
    http: aiohttp.ClientSession, fronting: Service, upstream: Any
) -> None:
    """Two cookies are two headers."""

    async def reply(_request: web.BaseRequest) -> web.StreamResponse:
        response = web.Response(body=b"x")
        response.headers.add("X-Two", "1")
        response.headers.add("X-Two", "2")
        return response

    upstream.reply = reply
    async with http.get(f"{fronting.url}/x") as response:
        await response.read()

    assert response.headers.getall("X-Two") == ["1", "2"]


async def test_a_gzipped_answer_passes_unopened(http: aiohttp.ClientSession, fronting: Service, upstream: Any) -> None:
    """The bytes are the upstream's, and so is the header that says what they are."""
    packed = gzip.compress(BODY)

    async def reply(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    upstream.reply = reply
    async with http.get(f"{fronting.url}/x", headers={"Accept-Encoding": "gzip"}) as response:
        answered = await response.read()

    assert response.headers["Content-Encoding"] == "gzip"
    assert answered == packed


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x-custom"])
async def test_an_encoded_request_passes_unopened(
    http: aiohttp.ClientSession, fronting: Service, upstream: Any, encoding: str
) -> None:
    """A compressed webhook arrives at the stock transformer as it was sent, header and bytes agreeing."""
    packed = gzip.compress(BODY) if encoding == "gzip" else b"\x00whatever this is"
    async with http.post(
        f"{fronting.url}/v2/sources/x", data=packed, headers={"Content-Encoding": encoding}
    ) as response:
        await response.read()

    assert response.status == 200
    assert upstream.seen[0].body == packed
    assert header(upstream.seen[0], "Content-Encoding") == encoding
    assert header(upstream.seen[0], "Content-Length") == str(len(packed))


async def test_a_streamed_body_is_passed_on_as_it_comes(
    http: aiohttp.ClientSession, fronting: Service, upstream: Any
) -> None:
    """A chunked request of unknown length arrives whole."""

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(BODY), 10_000):
            yield BODY[start : start + 10_000]
            await asyncio.sleep(0)

    async with http.post(f"{fronting.url}/v2/sources/x", data=chunks()) as response:
        await response.read()

    assert upstream.seen[0].body == BODY


async def test_a_streamed_answer_is_passed_on_as_it_comes(
    http: aiohttp.ClientSession, fronting: Service, upstream: Any
) -> None:
    """The first chunk of an answer is there before the last one is made."""
    more = asyncio.Event()

    async def reply(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(BODY)
        await more.wait()
        await response.write(b"the end")
        await response.write_eof()
        return response

    upstream.reply = reply
    async with http.get(f"{fronting.url}/x") as response:
        first = await response.content.readexactly(len(BODY))
        more.set()
        rest = await response.content.read()

    assert (first, rest) == (BODY, b"the end")


@pytest.mark.parametrize("known_length", [True, False])
async def test_an_answer_cut_off_by_the_upstream_is_cut_off_for_the_router(
    http: aiohttp.ClientSession, fronting: Service, upstream: Any, known_length: bool
) -> None:
    """Half an answer must not look like a whole one: the router tries again after a broken connection."""

    async def reply(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "400"} if known_length else {})
        await response.prepare(request)
        await response.write(b"x" * 100)
        await asyncio.sleep(0.05)
        assert request.transport is not None
        request.transport.abort()
        return response

    upstream.reply = reply

    with pytest.raises(aiohttp.ClientError):
        async with http.post(
            f"{fronting.url}/customTransform", data=b"[]", timeout=aiohttp.ClientTimeout(total=2)
        ) as response:
            await response.read()


async def test_a_head_request_is_answered_without_a_body(
    http: aiohttp.ClientSession, fronting: Service, upstream: Any
) -> None:
    """Probes by HEAD work."""
    async with http.head(f"{fronting.url}/x") as response:
        answered = await response.read()

    assert (response.status, answered) == (200, b"")
    assert upstream.seen[0].method == "HEAD"


async def test_jobs_of_another_type_are_passed_on(
    http: aiohttp.ClientSession, fronting: Service, upstream: Any
) -> None:
    """The type stands in the body, so the body is read first, and sent on as it was."""
    body = b'{"input":[ {"message":{},"metadata":{"jobId":1}} ],"destType":"marketo"}'
    headers = {"Content-Type": "application/json; charset=utf-8", "Oauth-Secret": "s"}
    async with http.post(f"{fronting.url}/routerTransform", data=body, headers=headers) as response:
        answered = await response.read()
    (seen,) = upstream.seen

    assert (seen.target, seen.body) == ("/routerTransform", body)
    assert header(seen, "Oauth-Secret") == "s"
    assert header(seen, "Content-Length") == str(len(body))
    assert (response.headers["apiVersion"], answered) == ("2", b'{"from":"upstream"}')


async def test_gzipped_jobs_of_another_type_are_passed_on_readable(
    http: aiohttp.ClientSession, fronting: Service, upstream: Any
) -> None:
    """Whatever the body's encoding on arrival, header and bytes agree at the upstream."""
    body = b'{"input":[],"destType":"marketo"}'
    async with http.post(
        f"{fronting.url}/routerTransform", data=gzip.compress(body), headers={"Content-Encoding": "gzip"}
    ) as response:
        await response.read()
    (seen,) = upstream.seen
    readable = gzip.decompress(seen.body) if header(seen, "Content-Encoding") == "gzip" else seen.body

    assert readable == body


@pytest.mark.parametrize("path", ["/routerTransform", "/batch"])
async def test_a_body_nobody_can_read_is_the_stock_transformers(
    http: aiohttp.ClientSession, fronting: Service, upstream: Any, path: str
) -> None:
    """With somebody behind us it is not for us to say what is spoilt."""
    async with http.post(fronting.url + path, data=b'{"input":[') as response:
        await response.read()

    assert (response.status, upstream.seen[0].body) == (200, b'{"input":[')


async def test_when_the_router_hangs_up_the_upstream_is_not_kept_busy(
    fronting: Service, upstream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that nobody waits for any more ends at the stock transformer too."""
    monkeypatch.setattr("impact_plugin.http.gateway.CHECK_SECONDS", 0.02)
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def reply(request: web.BaseRequest) -> web.StreamResponse:
        arrived.set()
        for _ in range(500):
            await asyncio.sleep(0.01)
            if request.transport is None or request.transport.is_closing():
                gone.set()
                break
        return web.Response()

    upstream.reply = reply
    _, writer = await asyncio.open_connection("127.0.0.1", URL(fronting.url).port)
    writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    await arrived.wait()
    writer.close()
    async with asyncio.timeout(2):
        await gone.wait()

    assert upstream.seen[0].target == "/slow"


async def test_our_own_requests_do_not_reach_the_upstream(
    http: aiohttp.ClientSession, fronting: Service, upstream: Any, item: Callable[..., Any], page: dict[str, Any]
) -> None:
    """Events of ours are worked on here, health and version are ours as well."""
    async with http.post(f"{fronting.url}/v0/destinations/impact", json=[item(page)]) as response:
        entry = (await response.json())[0]
    async with http.post(
        f"{fronting.url}/routerTransform", json={"input": [item(page)], "destType": "impact"}
    ) as response:
        output = (await response.json())["output"][0]
    for path in ("/health", "/ready", "/version"):
        async with http.get(fronting.url + path) as response:
            assert response.status == 200

    assert (entry["statusCode"], output["statusCode"]) == (200, 200)
    assert upstream.seen == []


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_dead_upstream_is_asked_for_again(http: aiohttp.ClientSession, start: Start, method: str) -> None:
    """503 with the header: the processor waits for as long as it takes, and loses nothing."""
    service = await start(rudder={"upstream": "http://127.0.0.1:9"})
    async with http.request(method, f"{service.url}/v0/destinations/marketo") as response:
        await response.read()

    assert (response.status, response.headers["X-Rudder-Should-Retry"]) == (503, "true")
    assert response.headers["X-Rudder-Error-Reason"] == "upstream_unreachable"


async def test_an_upstream_that_hangs_up_is_asked_for_again(
    http: aiohttp.ClientSession, fronting: Service, upstream: Any
) -> None:
    """A connection cut before the answer is trouble of the moment."""

    async def reply(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    upstream.reply = reply
    async with http.post(f"{fronting.url}/v0/destinations/marketo", data=b"[]") as response:
        await response.read()

    assert (response.status, response.headers["X-Rudder-Should-Retry"]) == (503, "true")


async def test_an_upstream_may_live_below_a_path(http: aiohttp.ClientSession, start: Start, upstream: Any) -> None:
    """``http://host/stock/`` is put before every path."""
    service = await start(rudder={"upstream": f"{upstream.url}/stock/"})
    async with http.get(f"{service.url}/a?b=1") as response:
        await response.read()

    assert upstream.seen[0].target == "/stock/a?b=1"


async def test_answers_are_counted_by_class(http: aiohttp.ClientSession, fronting: Service, upstream: Any) -> None:
    """What the upstream answered shows in the metrics, and so does its silence."""
    for _ in range(2):
        async with http.get(f"{fronting.url}/x") as response:
            await response.read()
    await upstream.stop()
    async with http.get(f"{fronting.url}/x") as response:
        await response.read()
    value = fronting.telemetry.metrics.registry.get_sample_value

    assert value("impact_plugin_passed_through_total", {"status": "2xx"}) == 2
    assert value("impact_plugin_passed_through_total", {"status": "unreachable"}) == 1


async def test_many_requests_pass_at_the_same_time(
    http: aiohttp.ClientSession, fronting: Service, upstream: Any
) -> None:
    """Concurrent bodies and answers do not mix."""

    async def reply(_request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(0.01)
        return web.Response(body=upstream.seen[-1].body[:0] + b"ok")

    upstream.reply = reply

    async def one(number: int) -> int:
        async with http.post(f"{fronting.url}/v2/sources/{number}", data=str(number).encode()) as response:
            await response.read()
            return response.status

    statuses = await asyncio.gather(*map(one, range(50)))

    assert statuses == [200] * 50
    assert {(seen.target, seen.body) for seen in upstream.seen} == {
        (f"/v2/sources/{number}", str(number).encode()) for number in range(50)
    }
