"""What the tests of the ingest port share."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from impact_plugin.testing.fake_impact import FakeImpact
from tests.plugin.ingest.ingest_shop import Shop


@pytest.fixture(name="shop")
async def shop_fixture(tmp_path: Path, impact: FakeImpact, http: aiohttp.ClientSession) -> AsyncIterator[Shop]:
    """Lend a service with a source; it is to be started by the test."""
    async with AsyncExitStack() as stack:
        yield Shop(tmp_path, impact, stack, http)


@pytest.fixture(name="running")
async def running_fixture(shop: Shop) -> Shop:
    """Lend one that runs."""
    await shop.start()
    return shop
