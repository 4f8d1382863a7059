"""This process as the worker of a supervisor: the sockets it was given, and the line between the two.

The worker says ``prepared`` when its code is loaded and its settings are good, waits for ``go`` before it touches any
state, and says ``ready`` when it takes requests. When the line ends the supervisor is gone, and so the worker goes too.
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
"""Set by the supervisor for its workers, and by nobody else."""

PREPARED: Final = b"prepared\n"
GO: Final = b"go\n"
READY: Final = b"ready\n"


class Assignment(msgspec.Struct, frozen=True):
    """What the supervisor hands over: file descriptors, and how often it had to replace this worker."""

    router: int
    operator: int
    line: int
    ingest: int | None = None
    restarts: int = 0


class Worker:
    """The worker's end of the line."""

    def __init__(self, assignment: Assignment) -> None:
        ingest = None if assignment.ingest is None else socket.socket(fileno=assignment.ingest)
        self.sockets = Sockets(
            socket.socket(fileno=assignment.router), socket.socket(fileno=assignment.operator), ingest
        )
        self.restarts = assignment.restarts
        self._line = socket.socket(fileno=assignment.line)
        self._line.setblocking(False)

    async def wait_for_go(self) -> bool:
        """Say that all is prepared and wait for the word to begin; False when the supervisor is gone."""
        self._say(PREPARED)
        return await self._heard() == GO

    async def follow(self) -> None:
        """Say that requests are taken, and end with the supervisor: another one may need the ports and the state."""
        self._say(READY)
        while await self._heard():
            pass
        signal.raise_signal(signal.SIGTERM)

    def _say(self, word: bytes) -> None:
        # When the supervisor is gone, the next thing heard is the end of the line.
        with suppress(OSError):
            self._line.send(word)

    async def _heard(self) -> bytes:
        try:
            await wait_readable(self._line)
            return self._line.recv(len(GO))
        except OSError:
            return b""


def assigned(environment: Mapping[str, str]) -> Worker | None:
    """The worker this process is; None where nobody supervises it."""
    told = environment.get(VARIABLE)
    if told is None:
        return None
    try:
        return Worker(msgspec.json.decode(told, type=Assignment))
    except (msgspec.DecodeError, OSError) as error:
        raise SettingsError(
            Problem(VARIABLE, f"is set by serve --workers for its own workers; unset it: {error}")
        ) from error


def assign(environment: MutableMapping[str, str], assignment: Assignment) -> None:
    """Tell a worker that is about to start."""
    environment[VARIABLE] = msgspec.json.encode(assignment).decode()
