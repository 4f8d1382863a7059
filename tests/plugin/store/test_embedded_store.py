"""The embedded backend keeps to the port."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from impact_plugin.config.settings import StateSettings
from impact_plugin.store.base import SessionStore
from impact_plugin.store.embedded import open_store
from tests.plugin.store.conformance import StoreConformance


class TestEmbedded(StoreConformance):
    """The suite, on a folder of its own."""

    @pytest.fixture(name="store")
    async def store_fixture(self, tmp_path: Path) -> AsyncIterator[SessionStore]:
        """Lend a store without anything in it."""
        async with open_store(StateSettings(str(tmp_path)), time.time) as store:
            yield store
