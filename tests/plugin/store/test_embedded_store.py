"""The embedded backend keeps to the port."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from impact_plugin.store.base import SessionStore
from impact_plugin.store.embedded import EmbeddedSettings, open_embedded
from impact_plugin.store.engine import Capacities
from tests.plugin.store.conformance import StoreConformance


class TestEmbedded(StoreConformance):
    """The suite, on a folder of its own."""

    @pytest.fixture(name="store")
    async def store_fixture(self, tmp_path: Path) -> AsyncIterator[SessionStore]:
        """Lend a store without anything in it."""
        settings = EmbeddedSettings(tmp_path, Capacities(10_000, 10_000, 10_000), 96 * 3600, 30 * 86400, 5)
        async with open_embedded(settings, time.time) as store:
            yield store
