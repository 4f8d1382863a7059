"""The worker's side of the supervision: its inherited sockets, and its connection to the supervisor.

The worker sends ``prepared`` when it has loaded its code and validated its settings, waits for ``go`` before it opens
any state, and sends ``ready`` when it accepts requests. When the connection ends, so has the supervisor, and the worker
shuts down.
"""

import signal
import socket
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Final

import msgspec
from anyio import wait_readable

from impact_plugin.errors import SettingsError
from impact_plugin.process.listening import Sockets
from impact_transformers.configuration import Problem

VARIABLE: Final = "IMPACT_PLUGIN_WORKER"
"""Set only by the supervisor, for its workers."""

PREPARED: Final = b"prepared\n"
GO: Final = b"go\n"
READY: Final = b"ready\n"


class Assignment(msgspec.Struct, frozen=True):
    """What the supervisor passes to a worker: file descriptors, and how often it replaced the worker."""

    router: int
    operator: int
    line: int
    ingest: int | None = None
    restarts: int = 0


class Worker:
    """The worker's end of the connection to its supervisor."""

    def __init__(self, assignment: Assignment) -> None:
        ingest = None if assignment.ingest is None else socket.socket(fileno=assignment.ingest)
        self.sockets = Sockets(
            socket.socket(fileno=assignment.router), socket.socket(fileno=assignment.operator), ingest
        )
        self.restarts = assignment.restarts
        self._line = socket.socket(fileno=assignment.line)
        self._line.setblocking(False)

    async def wait_for_go(self) -> bool:
        """Report that the process is prepared and wait for ``go``; returns False if the supervisor has ended."""
        self._send(PREPARED)
        return await self._receive() == GO

    async def end_with_supervisor(self) -> None:
        """Report that the service is ready, and shut down when the supervisor ends, to free the ports and the state."""
        self._send(READY)
        while await self._receive():
            pass
        signal.raise_signal(signal.SIGTERM)

    def _send(self, message: bytes) -> None:
        # If the supervisor has ended, the next _receive notices.
        with suppress(OSError):
            self._line.send(message)

    async def _receive(self) -> bytes:
        try:
            await wait_readable(self._line)
            return self._line.recv(len(GO))
        except OSError:
            return b""


def assigned(environment: Mapping[str, str]) -> Worker | None:
    """Return this process's worker, None if it has no supervisor."""
    assignment = environment.get(VARIABLE)
    if assignment is None:
        return None
    try:
        return Worker(msgspec.json.decode(assignment, type=Assignment))
    except (msgspec.DecodeError, OSError) as error:
        raise SettingsError(
            Problem(VARIABLE, f"is set by serve --workers for its own workers; unset it: {error}")
        ) from error


def assign(environment: MutableMapping[str, str], assignment: Assignment) -> None:
    """Add the assignment to the environment of a worker to be started."""
    environment[VARIABLE] = msgspec.json.encode(assignment).decode()
