"""What all tests share."""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.properties import register_profiles

# A test of processes starts dozens of them; each starts faster from compiled files, and so does pytest itself.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

register_profiles()


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
