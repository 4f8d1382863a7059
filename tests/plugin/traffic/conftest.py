"""What tests of traffic share."""

from collections.abc import AsyncIterator

import pytest

from tests.plugin.traffic.scripted_server import Server


@pytest.fixture(name="server")
async def server_fixture() -> AsyncIterator[Server]:
    """Lend a running server."""
    server = Server()
    await server.start()
    yield server
    await server.stop()
