"""What all tests share."""

import socket
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

# How fast a machine is, is not what properties are about: the first text that is drawn alone may take two seconds.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(name="free_port")
def free_port_fixture() -> Callable[[], int]:
    """Lend a finder of ports that were free a moment ago."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find
