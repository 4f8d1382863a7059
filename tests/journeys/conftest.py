"""A running service for journeys, shared, and settings for a test's own."""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio
import structlog

from impact_plugin.app import Service, run_service
from impact_plugin.config.settings import LogSettings, Settings
from impact_plugin.telemetry import configure_logging
from tests.builders import settings
from tests.one_task import in_one_task

NewStore = Callable[[], Settings]


@pytest.fixture(scope="module", autouse=True)
def _quiet_log() -> Iterator[None]:
    """Keep the services' log out of the tests' output."""
    configure_logging(LogSettings(level="error"))
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module", name="new_store")
def new_store_fixture(tmp_path_factory: pytest.TempPathFactory) -> NewStore:
    """Lend a maker of settings for a service whose store is empty; the same settings again are the same store."""

    def make() -> Settings:
        return settings(tmp_path_factory.mktemp("state"))

    return make


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="service")
async def service_fixture(new_store: NewStore) -> AsyncIterator[Service]:
    """Lend a running service; the programs of many journeys share its store, as they do in life."""
    async with in_one_task(run_service(new_store(), {})) as service:
        yield service
