"""SDKs of three vendors, as they are, against the service as a process: what they flush arrives once."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from impact_plugin.testing.fake_impact import FakeImpact
from tests.e2e.ingest_site import KEY, IngestSite
from tests.waiting import SECONDS, until

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

    async def flush(self, visitors: range) -> str:
        """Send what these visitors do, and return what the SDK says of it."""
        self.ask(visitors)
        return await self.answer()

    def ask(self, visitors: range) -> None:
        """Let it send and flush; :meth:`answer` returns what it says."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{visitors.start} {len(visitors)}\n".encode())

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


async def arrived(site: IngestSite, visitors: range) -> None:
    """Wait until all they did has arrived and the service has nothing more to send."""
    everything = set(expected(visitors))
    await until(lambda: everything <= set(told(site.impact)), "not everything has arrived")
    async with asyncio.timeout(SECONDS):
        while await site.waiting():  # noqa: ASYNC110 - counted by another process
            await asyncio.sleep(0.02)


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


def conversions_of(impact: FakeImpact, visitors: range) -> list[int]:
    """How often the order of each visitor was told."""
    found = Counter(call.form["OrderId"] for call in impact.conversions)
    return [found[f"order-{number}"] for number in visitors]


async def somebody_calls(url: str) -> None:
    """Take the service's place until somebody calls, and hang up."""
    called = asyncio.Event()

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        called.set()

    async with asyncio.timeout(SECONDS), await asyncio.start_server(hang_up, "127.0.0.1", int(url.rpartition(":")[2])):
        await called.wait()


@pytest.mark.parametrize(("module", "encoding"), SDKS)
async def test_everything_that_is_flushed_arrives_once(site: IngestSite, module: str, encoding: str) -> None:
    """Pages, identifies and orders, in requests of a hundred, with both ids; over a restart, a kill, and an outage.

    While the service is down the SDK tries again by itself, with the same message ids, until somebody answers.
    """
    first, second, killed, down = (range(start, end) for start, end in pairwise((0, 60, 120, 125, 130)))
    process = await site.start()
    async with open_shop(site, module, encoding) as shop:
        said = [await shop.flush(first)]
        process.send(signal.SIGTERM)
        code = await asyncio.to_thread(process.wait)
        process = await site.start()
        said.append(await shop.flush(second))
        await arrived(site, range(killed.start))
        undisturbed, statuses = told(site.impact), {call.status for call in site.impact.calls}

        said.append(await shop.flush(killed))
        process.send(signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        shop.ask(down)
        await somebody_calls(site.url)
        await site.start()
        said.append(await shop.answer())
        await arrived(site, range(down.stop))

    assert ["flushed"] * 4 == said
    assert 0 == code
    assert expected(range(killed.start)) == undisturbed
    assert {200} == statuses
    # What was under way at the kill may come twice.
    assert set(expected(range(down.stop))) == set(told(site.impact))
    assert [1] * len(down) == conversions_of(site.impact, down)
