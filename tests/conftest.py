"""What all tests share."""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings

# A test of processes starts dozens of them; each starts faster from compiled files, and so does pytest itself.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A property says nothing of the machine's speed: the first text that is drawn alone may take two seconds.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
settings.register_profile("patient", _PATIENT)
settings.register_profile("quick", _PATIENT, max_examples=10)
settings.register_profile("campaign", _PATIENT, max_examples=5000)
settings.load_profile("patient")


@pytest.fixture(name="free_port")
def free_port_fixture() -> Iterator[Callable[[], int]]:
    """Lend a finder of ports for services that must be known before they start, or again after a restart.

    Each is bound until the test ends, and not listened on: the kernel gives it to nobody who asks for any port, and a
    service that asks for this very one gets it.
    """
    with ExitStack() as held:

        def find() -> int:
            holder = held.enter_context(socket.socket())
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
            return int(holder.getsockname()[1])

        yield find
