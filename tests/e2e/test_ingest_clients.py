"""SDKs of three vendors, as they are, against the service as a process: what they flush arrives once."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from impact_plugin.testing.fake_impact import FakeImpact
from tests.e2e.ingest_site import KEY, SECONDS, IngestSite, until

VISITORS = 60
SENDER = Path(__file__).with_name("sdk_sender.py")
SDKS = [
    ("segment.analytics", "plain"),
    ("segment.analytics", "gzip"),
    ("rudderstack.analytics", "gzip"),
    ("customerio.analytics", "plain"),
]


@pytest.fixture(name="site")
async def site_fixture(
    tmp_path: Path, launch: Callable[..., Any], free_port: Callable[[], int]
) -> AsyncIterator[IngestSite]:
    """Lend a site that is to be started by the test."""
    async with FakeImpact() as impact:
        yield IngestSite(tmp_path, launch, free_port, impact)


class Shop:
    """A process that uses an SDK."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def flush(self, first: int, count: int) -> str:
        """Send what so many visitors do, and return what the SDK says of it."""
        self.ask(first, count)
        return await self.answer()

    def ask(self, first: int, count: int) -> None:
        """Let it send and flush; the answer is to be fetched."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{first} {count}\n".encode())

    async def answer(self) -> str:
        """What it says of a flush."""
        assert self._process.stdout is not None
        async with asyncio.timeout(SECONDS):
            return (await self._process.stdout.readline()).decode().strip()


@asynccontextmanager
async def open_shop(site: IngestSite, module: str, encoding: str) -> AsyncIterator[Shop]:
    """A process that uses the SDK, until the block ends."""
    pipe = asyncio.subprocess.PIPE
    words = (module, site.url, KEY, encoding)
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SENDER), *words, stdin=pipe, stdout=pipe, env=environment
    )
    try:
        yield Shop(process)
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(SECONDS):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def arrived(impact: FakeImpact, calls: int) -> None:
    """Wait for so many calls, and a moment for one too many."""
    await until(lambda: len(impact.calls) >= calls, f"not all of {calls} calls have come")
    await asyncio.sleep(0.3)


def told(impact: FakeImpact) -> Counter[tuple[str, ...]]:
    """How often each thing was told, accepted or not: kind, visitor, user and order."""
    found: Counter[tuple[str, ...]] = Counter()
    for call in impact.calls:
        form = call.form
        kind = "conversion" if call.path.endswith("/Conversions") else "page load"
        found[kind, form.get("CustomProfileId", ""), form.get("CustomerId", ""), form.get("OrderId", "")] += 1
    return found


def expected(visitors: range) -> Counter[tuple[str, ...]]:
    """Once each: a landing before the log-in, the log-in, and an order."""
    found: Counter[tuple[str, ...]] = Counter()
    for number in visitors:
        anonymous, user = f"anonymous-{number}", f"user-{number}"
        found["page load", anonymous, "", ""] += 1
        found["page load", anonymous, user, ""] += 1
        found["conversion", anonymous, user, f"order-{number}"] += 1
    return found


@pytest.mark.parametrize(("module", "encoding"), SDKS)
async def test_everything_that_is_flushed_arrives_once(site: IngestSite, module: str, encoding: str) -> None:
    """Pages, identifies and orders, in requests of a hundred, with both ids; and again over a restart in between."""
    process = await site.start()
    async with open_shop(site, module, encoding) as shop:
        said = [await shop.flush(0, VISITORS)]
        process.send(signal.SIGTERM)
        code = await asyncio.to_thread(process.wait)
        process = await site.start()
        said.append(await shop.flush(VISITORS, VISITORS))
        await arrived(site.impact, 2 * VISITORS * 3)

    assert ["flushed", "flushed"] == said
    assert 0 == code
    assert expected(range(2 * VISITORS)) == told(site.impact)
    assert {200} == {call.status for call in site.impact.calls}


@pytest.mark.parametrize("module", ["segment.analytics", "rudderstack.analytics", "customerio.analytics"])
async def test_flushed_while_the_service_is_down(site: IngestSite, module: str) -> None:
    """The SDK comes again by itself, with the same message ids, until somebody answers."""
    process = await site.start()
    async with open_shop(site, module, "plain") as shop:
        first = await shop.flush(0, 5)
        process.send(signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        shop.ask(5, 5)
        await asyncio.sleep(0.3)
        await site.start()
        second = await shop.answer()
        await arrived(site.impact, 30)
    conversions = Counter(call.form["OrderId"] for call in site.impact.conversions)

    assert ["flushed", "flushed"] == [first, second]
    assert {f"order-{number}" for number in range(10)} == set(conversions)
    assert set(expected(range(10))) == set(told(site.impact))
    # Of what was under way at the kill a page load may come twice.
    assert {1} == {count for name, count in conversions.items() if int(name.removeprefix("order-")) >= 5}
