"""The client that speaks to impact.com: every failure is a value that tells whether bytes went out."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aioresponses import aioresponses

from impact_plugin.delivery.client import MAX_RESPONSE_BYTES, DeliveryClient, open_delivery_client
from impact_plugin.delivery.policy import ImpactResponse, NoResponse
from impact_plugin.testing.fake_impact import FakeImpact

URL = "https://api.example.com/Advertisers/IRtest/Conversions"


@pytest.fixture(name="client")
async def client_fixture() -> AsyncIterator[DeliveryClient]:
    """Lend an open client."""
    async with open_delivery_client() as client:
        yield client


async def ask(client: DeliveryClient, url: str, seconds: float = 5.0) -> ImpactResponse | NoResponse:
    """Send one small form."""
    return await client.post(url, {"Content-Type": "application/x-www-form-urlencoded"}, b"a=1", seconds=seconds)


def certificate_fault() -> aiohttp.ClientConnectorCertificateError:
    """A certificate of another host."""
    return aiohttp.ClientConnectorCertificateError(_key(), ssl.CertificateError("hostname mismatch"))


def _key() -> Any:
    return type("Key", (), {"host": "api.example.com", "port": 443, "is_ssl": True, "ssl": True})()


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (
            aiohttp.ClientConnectorError(_key(), OSError(111, "refused")),
            NoResponse(written=False, detail="ClientConnectorError"),
        ),
        (
            aiohttp.ClientConnectorDNSError(_key(), OSError(-2, "unknown")),
            NoResponse(written=False, detail="ClientConnectorDNSError"),
        ),
        (certificate_fault(), NoResponse(written=False, detail="ClientConnectorCertificateError")),
        (aiohttp.ConnectionTimeoutError(), NoResponse(written=False, detail="ConnectionTimeoutError")),
        (aiohttp.ServerDisconnectedError(), NoResponse(written=True, detail="ServerDisconnectedError")),
        (aiohttp.ClientOSError(104, "reset"), NoResponse(written=True, detail="ClientOSError")),
        (aiohttp.ClientPayloadError("cut"), NoResponse(written=True, detail="ClientPayloadError")),
        (ConnectionResetError(), NoResponse(written=True, detail="ConnectionResetError")),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_every_fault_is_a_value_that_tells_whether_it_was_sent(
    client: DeliveryClient, client_faults: aioresponses, fault: Exception, expected: NoResponse
) -> None:
    """A fault before the connection stands cannot have sent a conversion; every later one may have."""
    client_faults.post(URL, exception=fault)

    assert await ask(client, URL) == expected


async def test_a_scripted_answer_is_read_whole(client: DeliveryClient, client_faults: aioresponses) -> None:
    """Status and body come back as they are."""
    client_faults.post(URL, status=202, body=b'{"Status":"QUEUED"}')

    answer = await ask(client, URL)

    assert isinstance(answer, ImpactResponse)
    assert (answer.status, answer.body) == (202, b'{"Status":"QUEUED"}')


async def test_a_closed_port_was_not_sent(client: DeliveryClient) -> None:
    """Nobody listens, so nobody has the conversion."""
    assert await ask(client, "http://127.0.0.1:9/PageLoad") == NoResponse(written=False, detail="ClientConnectorError")


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_reset_after_the_request_is_ambiguous(client: DeliveryClient, impact: FakeImpact, moment: str) -> None:
    """The connection stood and the request went out: it may have counted."""
    impact.script([{"reset": moment}])
    answer = await ask(client, f"{impact.url}/PageLoad")

    assert isinstance(answer, NoResponse)
    assert answer.written


async def test_a_late_answer_is_ambiguous_and_the_wait_is_bounded(client: DeliveryClient, impact: FakeImpact) -> None:
    """After ``seconds`` the client gives up; the request was taken."""
    impact.script([{"delay": 120}])
    loop = asyncio.get_running_loop()
    started = loop.time()
    answer = await ask(client, f"{impact.url}/PageLoad", 0.2)

    assert answer == NoResponse(written=True, detail="TimeoutError")
    assert loop.time() - started < 100
    assert len(impact.calls) == 1


async def test_a_deadline_that_ends_while_connecting_was_not_sent(client: DeliveryClient) -> None:
    """A host that takes no connections in time has nothing; it need not be taken for an order of unknown fate."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        answer = await ask(client, f"http://127.0.0.1:{full.getsockname()[1]}/PageLoad", 0.3)

    assert isinstance(answer, NoResponse)
    assert not answer.written


async def test_a_look_up_that_takes_too_long_was_not_sent(
    client: DeliveryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that does not answer ends in the same deadline as an impact.com that does not."""

    async def never(*_arguments: Any, **_options: Any) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", never)
    answer = await ask(client, "http://impact.example.com/PageLoad", 0.2)

    assert answer == NoResponse(written=False, detail="TimeoutError")


async def test_headers_of_the_answer_come_back(client: DeliveryClient, impact: FakeImpact) -> None:
    """The limiter reads the quota from them, in any letter case."""
    impact.script([{"headers": {"X-RateLimit-Remaining": "7"}}])
    answer = await ask(client, f"{impact.url}/PageLoad")

    assert isinstance(answer, ImpactResponse)
    assert answer.headers["x-ratelimit-remaining"] == "7"


async def test_redirects_are_not_followed(client: DeliveryClient, impact: FakeImpact) -> None:
    """Credentials and personal data go where they were meant to go, and nowhere else."""
    impact.script([{"status": 302, "headers": {"Location": f"{impact.url}/elsewhere"}}])
    answer = await ask(client, f"{impact.url}/PageLoad")

    assert isinstance(answer, ImpactResponse)
    assert answer.status == 302
    assert [call.path for call in impact.calls] == ["/PageLoad"]


async def test_proxies_of_the_environment_are_not_asked(
    client: DeliveryClient, impact: FakeImpact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable of the machine does not reroute conversions."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert isinstance(await ask(client, f"{impact.url}/PageLoad"), ImpactResponse)


async def test_cookies_are_not_kept(client: DeliveryClient, impact: FakeImpact) -> None:
    """One account's request carries nothing of another's."""
    impact.script([{"headers": {"Set-Cookie": "a=1; Path=/"}}])
    await ask(client, f"{impact.url}/PageLoad")
    await ask(client, f"{impact.url}/PageLoad")

    assert all("cookie" not in map(str.lower, call.headers) for call in impact.calls)


async def test_a_long_answer_is_cut(client: DeliveryClient, impact: FakeImpact) -> None:
    """However much comes back, a bounded part is read."""
    impact.script([{"status": 200, "body": "x" * 1_000_000}])
    answer = await ask(client, f"{impact.url}/PageLoad")

    assert isinstance(answer, ImpactResponse)
    assert len(answer.body) == MAX_RESPONSE_BYTES


async def test_connections_are_bounded(start: Any, impact: FakeImpact, http: aiohttp.ClientSession) -> None:
    """``delivery.connections`` is the most that impact.com sees from us at the same time."""
    together = most = 0

    async def slow(_request: web.BaseRequest) -> web.Response:
        nonlocal together, most
        together += 1
        most = max(most, together)
        await asyncio.sleep(0.02)
        together -= 1
        return web.Response(body=b"{}")

    runner = web.ServerRunner(web.Server(slow))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    service = await start(delivery={"connections": 3}, impact={"tracking_url": url})
    body = {"endpoint": f"{url}/PageLoad", "method": "POST", "metadata": [{"jobId": 1}], "body": {"FORM": {"A": "1"}}}

    async def deliver() -> int:
        async with http.post(f"{service.url}/v1/destinations/impact/proxy", json=body) as response:
            return int((await response.json())["output"]["status"])

    statuses = await asyncio.gather(*(deliver() for _ in range(12)))
    await runner.cleanup()

    assert statuses == [200] * 12
    assert most == 3
