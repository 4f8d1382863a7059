"""What the tests of the service share: running services, stand-ins, and the bodies of ordinary requests."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import aiohttp
import msgspec
import pytest
import structlog
from aiohttp import web
from aioresponses import aioresponses

from impact_plugin.app import Service, run_service
from impact_plugin.config.settings import LogSettings, Settings, load_settings
from impact_plugin.telemetry import configure_logging
from impact_plugin.testing.fake_impact import FakeImpact
from impact_transformers import prepare
from tests.builders import SHOP, job, order, page, settings
from tests.one_task import in_one_task


@pytest.fixture(autouse=True)
def _quiet_log() -> Iterator[None]:
    """Keep the log of one test out of the next; tests of the log set it up themselves."""
    configure_logging(LogSettings(level="error"))
    yield
    structlog.reset_defaults()


@pytest.fixture(name="impact")
async def impact_fixture() -> AsyncIterator[FakeImpact]:
    """Lend a running stand-in for impact.com."""
    async with FakeImpact() as impact:
        yield impact


@pytest.fixture(name="start")
async def start_fixture(tmp_path: Path, impact: FakeImpact) -> AsyncIterator[Callable[..., Awaitable[Service]]]:
    """Lend a starter of services: ``await start(rudder={"upstream": url}, environment={...})``.

    Sections are merged over ports of 0, a folder of the test's own and the stand-in's address.
    """
    async with AsyncExitStack() as stack:

        async def start(
            environment: dict[str, str] | None = None,
            clock: Callable[[], float] = time.time,
            **sections: dict[str, Any],
        ) -> Service:
            chosen = settings(tmp_path / "var", impact.url, **sections)
            return await stack.enter_async_context(in_one_task(run_service(chosen, environment or {}, clock)))

        yield start


@pytest.fixture(name="service")
async def service_fixture(start: Callable[..., Awaitable[Service]]) -> Service:
    """Lend a running service that sends to the stand-in."""
    return await start()


@pytest.fixture(name="http")
async def http_fixture() -> AsyncIterator[aiohttp.ClientSession]:
    """Lend a client for requests no well-behaved router sends."""
    async with aiohttp.ClientSession(
        auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=30)
    ) as session:
        yield session


class Seen(msgspec.Struct, frozen=True):
    """One request as it arrived on the wire; ``headers`` in order and spelling."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes


class Upstream:
    """A stand-in for the stock transformer that keeps bytes as they came; ``reply`` makes each answer.

    What the service asks in the background, ``/features``, is counted apart.
    """

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.features_asked = 0
        self.url = ""
        self.reply: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] = self._ordinary
        self._runner = web.ServerRunner(web.Server(self._serve, auto_decompress=False), shutdown_timeout=0.1)

    async def start(self) -> None:
        """Listen on a free port."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Close the port."""
        await self._runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if (request.method, request.path) == ("GET", "/features"):
            self.features_asked += 1
            return await self.reply(request)
        body = await request.read()
        headers = [(name.decode(), value.decode()) for name, value in request.raw_headers]
        self.seen.append(Seen(request.method, request.raw_path, headers, body))
        return await self.reply(request)

    async def _ordinary(self, _request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(
            body=b'{"from":"upstream"}', headers={"apiVersion": "2", "Content-Type": "application/json"}
        )


@pytest.fixture(name="upstream")
async def upstream_fixture() -> AsyncIterator[Upstream]:
    """Lend a running stand-in for the stock transformer."""
    upstream = Upstream()
    await upstream.start()
    yield upstream
    await upstream.stop()


@pytest.fixture(name="client_faults")
def client_faults_fixture(monkeypatch: pytest.MonkeyPatch) -> Iterator[aioresponses]:
    """Lend faults of the HTTP client that no server can cause."""

    def make(*given: Any, **named: Any) -> aiohttp.ClientResponse:
        # aiohttp 3.14 asks for an argument that aioresponses does not know of.
        return aiohttp.ClientResponse(*given, **named, stream_writer=Mock())

    monkeypatch.setattr("aioresponses.core.ClientResponse", make)
    with aioresponses(passthrough=["http://127.0.0.1"]) as faults:
        yield faults


@pytest.fixture(name="spoil")
def spoil_fixture(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lend a defect of ours: ``spoil(error, "m-bad")`` has the mapping raise it for the event of that message."""

    def spoil(error: Exception, message: str = "m-bad") -> None:
        def broken(event: Any, *rest: Any) -> Any:
            if getattr(event, "message_id", None) == message:
                raise error
            return prepare(event, *rest)

        monkeypatch.setattr("impact_plugin.transformation.step.prepare", broken)

    return spoil


@pytest.fixture(name="load")
def load_fixture() -> Callable[..., Settings]:
    """Lend a loader of settings from named variables: ``load(SERVER__PORT="1")``."""

    def load(file: Path | None = None, **variables: str) -> Settings:
        return load_settings(file, {f"IMPACT_PLUGIN__{name}": value for name, value in variables.items()})

    return load


@pytest.fixture(name="config")
def config_fixture() -> dict[str, Any]:
    """Lend the configuration of an ordinary destination."""
    return dict(SHOP)


@pytest.fixture(name="page")
def page_fixture() -> dict[str, Any]:
    """Lend a page call that becomes a Page Load."""
    return page()


@pytest.fixture(name="order")
def order_fixture() -> dict[str, Any]:
    """Lend an order that becomes a Conversion."""
    return order()


@pytest.fixture(name="item")
def item_fixture() -> Callable[..., dict[str, Any]]:
    """Lend a maker of elements of a plain batch."""
    return job
