"""A service with a source and a destination, from a file that can change, and what senders and its operator do."""

import asyncio
import base64
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from impact_plugin.app import Service, run_service
from impact_plugin.config.settings import load_settings
from impact_plugin.config.sources import RoutingFile
from impact_plugin.testing.fake_impact import FakeImpact
from tests.one_task import in_one_task

KEY: Final = "a-key-of-the-shop-0123456789"
BASIC: Final = {"Authorization": "Basic " + base64.b64encode(f"{KEY}:".encode()).decode()}
SECONDS: Final = 10.0


class Shop:
    """A running service, and what its operator and its senders do."""

    def __init__(self, folder: Path, impact: FakeImpact, stack: AsyncExitStack, http: aiohttp.ClientSession) -> None:
        self.file = folder / "impact.toml"
        self.folder = folder / "var"
        self.impact = impact
        self.http = http
        self.now: Callable[[], float] = time.time
        self.environment: dict[str, str] = {}
        self._stack = stack
        self._service: Service | None = None
        self.running = AsyncExitStack()

    def write(self, *, source: str = "", destination: str = "", settings: str = "", more: str = "") -> None:
        """Write the configuration file; each is lines of TOML."""
        self.file.write_text(
            f"""
[server]
port = 0
operator_port = 0
ingest_port = 0
shutdown_grace_seconds = 2.0
[impact]
tracking_url = "{self.impact.url}"
api_url = "{self.impact.url}"
[state]
dir = "{self.folder}"
{settings}
[sources.shop]
keys = ["{KEY}"]
{source}
[destinations.eu]
accountSID = "IRtest"
apiKey = "test-token-secret"
campaignId = "23224"
{destination}
{more}
""",
            encoding="utf-8",
        )

    async def start(self) -> Service:
        """Start the service on the file."""
        if not self.file.exists():
            self.write()
        routing = RoutingFile(self.file, self.environment)
        settings = load_settings(self.file, self.environment)
        self.running = AsyncExitStack()
        self._stack.push_async_exit(self.running)
        running = in_one_task(run_service(settings, {}, self.now, routing))
        self._service = await self.running.enter_async_context(running)
        return self._service

    async def stop(self) -> None:
        """Stop it; it can be started again."""
        await self.running.aclose()

    @property
    def service(self) -> Service:
        """The running service."""
        assert self._service is not None
        return self._service

    async def post(self, path: str, body: Any, headers: dict[str, str] | None = None, **more: Any) -> tuple[int, Any]:
        """Status and decoded body of a request with the source's key; bodies that are no bytes are JSON."""
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        given = BASIC if headers is None else headers
        async with self.http.post(f"{self.service.ingest_url}{path}", data=data, headers=given, **more) as response:
            raw = await response.read()
            return response.status, msgspec.json.decode(raw) if raw else None

    async def delivered(self, calls: int) -> None:
        """Wait until impact.com got so many calls, and a moment for one too many."""
        deadline = time.monotonic() + SECONDS
        while len(self.impact.calls) < calls:
            assert time.monotonic() < deadline, f"{len(self.impact.calls)} of {calls} calls"
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)

        assert calls == len(self.impact.calls)

    def metric(self, name: str, **labels: str) -> float:
        """A value of the service's metrics; 0 where it is not there."""
        text = self.service.telemetry.metrics.render().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == f"impact_plugin_{name}" and labels.items() <= sample.labels.items():
                    return sample.value
        return 0.0

    async def until(self, name: str, value: float, **labels: str) -> None:
        """Wait until a metric has the value."""
        deadline = time.monotonic() + SECONDS
        while self.metric(name, **labels) != value:
            assert time.monotonic() < deadline, f"{name} is {self.metric(name, **labels)}, not {value}"
            await asyncio.sleep(0.02)
