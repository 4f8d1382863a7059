"""The service with a source, as a process whose ports stay the same over restarts, and what its senders do."""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from impact_plugin.testing.fake_impact import Call, FakeImpact
from tests import builders
from tests.builders import HOME, TOKEN
from tests.waiting import SECONDS, until

KEY: Final = "a-key-of-the-shop-0123456789"


class IngestSite:
    """One folder of state, one configuration file, and one process after the other on them."""

    def __init__(
        self, folder: Path, launch: Callable[..., Any], free_port: Callable[[], int], impact: FakeImpact
    ) -> None:
        self.file = folder / "impact.toml"
        self.state = folder / "var"
        self.impact = impact
        self._launch = launch
        self._ports = {name: free_port() for name in ("port", "operator_port", "ingest_port")}
        self.url = f"http://127.0.0.1:{self._ports['ingest_port']}"
        self.router_url = f"http://127.0.0.1:{self._ports['port']}"
        self.operator_url = f"http://127.0.0.1:{self._ports['operator_port']}"
        self.write()

    def write(self, *, settings: str = "", api_key: str = TOKEN, keys: str = f'["{KEY}"]') -> None:
        """Write the configuration file; ``settings`` are further sections."""
        ports = "\n".join(f"{name} = {port}" for name, port in self._ports.items())
        self.file.write_text(
            f"""
[server]
{ports}
[impact]
tracking_url = "{self.impact.url}"
api_url = "{self.impact.url}"
[log]
level = "warning"
{settings}
[sources.shop]
keys = {keys}
[destinations.eu]
accountSID = "IRtest"
apiKey = "{api_key}"
campaignId = "23224"
eventTypeId = "56446"
enableIdentifyEvents = true
""",
            encoding="utf-8",
        )

    def launch(self, **variables: str) -> Any:
        """A new process, which may not be up yet."""
        return self._launch("serve", "--config", str(self.file), STATE__DIR=str(self.state), **variables)

    async def start(self, **variables: str) -> Any:
        """A new process, which takes events."""
        process = self.launch(**variables)
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if await self.ready() == 200 and await self.posts([]) == 200:
                return process
            await asyncio.sleep(0.02)
        pytest.fail(f"the service is not up: {process.log}")

    async def ready(self) -> int:
        """The status of ``/ready``; 0 when nobody listens."""
        return (await self._fetch("/ready"))[0]

    async def waiting(self) -> float:
        """How many events wait, as the metrics tell; -1 when they do not."""
        _, text = await self._fetch("/metrics")
        found = re.search(r'^impact_plugin_spool_waiting\{destination="eu"\} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else -1.0

    async def posts(self, events: list[dict[str, Any]], key: str = KEY, seconds: float = 5.0) -> int:
        """The status that a batch gets; 0 for no answer."""
        headers = {"Authorization": f"Bearer {key}"}
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(f"{self.url}/v1/batch", data=body_of(events), headers=headers) as response,
            ):
                await response.read()
                return response.status
        except (aiohttp.ClientError, TimeoutError):
            return 0

    async def _fetch(self, path: str) -> tuple[int, str]:
        try:
            async with aiohttp.ClientSession() as session, session.get(self.operator_url + path) as response:
                return response.status, await response.text()
        except aiohttp.ClientError:
            return 0, ""

    async def troubled(self, word: str) -> None:
        """Wait until readiness tells of a trouble with this word in it."""
        deadline = time.monotonic() + SECONDS
        while word not in (text := (await self._fetch("/ready"))[1]):
            assert time.monotonic() < deadline, text
            await asyncio.sleep(0.05)

    async def told(self, process: Any, word: str) -> None:
        """Wait until the word stands in the process's log."""
        await until(lambda: word in process.log, f"no {word} in the log")

    async def delivered(self, names: set[str], seconds: float = SECONDS) -> None:
        """Wait until all of these have arrived, and a moment for what should not."""
        deadline = time.monotonic() + seconds
        while names - (found := set(arrivals(self.impact))):
            assert time.monotonic() < deadline, f"{len(names - found)} of {len(names)} have not arrived"
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.2)


def body_of(events: list[dict[str, Any]]) -> bytes:
    """A batch."""
    return json.dumps({"batch": events}).encode()


def page(visitor: str, number: int) -> dict[str, Any]:
    """A page of a visitor."""
    return builders.page(f"page-{visitor}-{number}", visitor, f"{HOME}{visitor}/{number}")


def order(visitor: str, number: int) -> dict[str, Any]:
    """An order of a visitor."""
    return builders.order(f"order-{visitor}-{number}", f"order-{visitor}-{number}", visitor)


def name_of(call: Call) -> str:
    """The message id of the page or the order that a call is about."""
    if "OrderId" in call.form:
        return call.form["OrderId"]
    return "page-" + "-".join(call.form.get("PageUrl", "").split("/")[-2:])


def arrivals(impact: FakeImpact) -> Counter[str]:
    """How often each event was accepted, in the order of the first time."""
    return Counter(name_of(call) for call in impact.calls if call.accepted)
