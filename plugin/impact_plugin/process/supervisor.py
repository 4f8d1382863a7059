"""The supervisor: it owns the listening sockets, and sees to it that a worker serves them.

The sockets outlive every worker, so that a router meets neither a refused connection nor one that was lost in a queue:
what comes while the worker is replaced waits. A worker that dies is replaced at once, by a spare process which has
loaded its code already, because that takes longest. On SIGHUP it is replaced by a process that loads code, settings and
configuration anew; one that cannot start leaves the old one where it is.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from time import monotonic
from typing import Final, Self

from impact_plugin.config.settings import ServerSettings
from impact_plugin.process.listening import Sockets, bind_all, url_of
from impact_plugin.process.worker import GO, PREPARED, READY, Assignment, assign
from impact_plugin.tasks import finish
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.process import (
    SupervisorStarted,
    WorkerEnded,
    WorkerNotReplaced,
    WorkerReplaced,
    WorkerStarted,
)

PREPARE_SECONDS: Final = 30.0
READY_SECONDS: Final = 120.0
"""How long a worker may take to open a large state before the one before it, or a try, is given up."""

LATE_SECONDS: Final = 5.0
"""How much longer than its grace period a worker may take to end before it is killed."""

PAUSES: Final = (0.0, 0.1, 0.2, 0.4, 0.8)
"""Before each next try to replace a worker that never got ready; the last one for all further tries."""

UNUSABLE: Final = 2
"""A worker's exit code for settings or state that cannot be used."""


class Child:
    """One worker process and the supervisor's end of its line."""

    def __init__(self, process: asyncio.subprocess.Process, line: socket.socket) -> None:
        self.process = process
        self.prepared = asyncio.Event()
        self.ready = asyncio.Event()
        self.started = monotonic()
        self._line = line
        self._listening = asyncio.create_task(self._listen())
        self.ended = asyncio.create_task(self.process.wait())

    @classmethod
    async def start(cls, command: Sequence[str], sockets: Sockets, restarts: int) -> Self:
        """Start a worker that will wait for leave to begin."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            ingest = None if sockets.ingest is None else sockets.ingest.fileno()
            assignment = Assignment(
                sockets.router.fileno(), sockets.operator.fileno(), theirs.fileno(), ingest, restarts
            )
            environment = dict(os.environ)
            assign(environment, assignment)
            passed = [assignment.router, assignment.operator, assignment.line, *([] if ingest is None else [ingest])]
            process = await asyncio.create_subprocess_exec(*command, env=environment, pass_fds=passed)
        return cls(process, ours)

    async def go(self) -> None:
        """Give leave to begin."""
        with suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._line, GO)

    async def stop(self, seconds: float) -> None:
        """Let it finish what is under way; after so many seconds it is killed."""
        self.signal(signal.SIGTERM)
        await asyncio.wait((self.ended,), timeout=seconds)
        self.signal(signal.SIGKILL)
        await self.ended
        await self.close()

    async def close(self) -> None:
        """Give up the line of a worker that ended."""
        await finish((self._listening,), 0)
        self._line.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, where somebody is left to get it."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def _listen(self) -> None:
        heard = b""
        with suppress(OSError):
            while more := await asyncio.get_running_loop().sock_recv(self._line, 64):
                heard += more
                if PREPARED in heard:
                    self.prepared.set()
                if READY in heard:
                    self.ready.set()


class WorkerSlot:
    """The worker of a number, whichever process it is at the moment."""

    def __init__(
        self, number: int, sockets: Sockets, command: Sequence[str], grace: float, telemetry: Telemetry
    ) -> None:
        self.number = number
        self.sockets = sockets
        self.exit_code: int | None = None
        self._command = command
        self._patience = grace + LATE_SECONDS
        self._telemetry = telemetry
        self._restarts = 0
        self._failures = 0
        self._served = False
        self._wanted = asyncio.Event()
        self._replaced = asyncio.Event()
        self._stopping = asyncio.Event()
        self._spare: Child | None = None
        self._sparing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Keep a worker there until it is to stop, or until the first one cannot use what it was given."""
        child = await self._start()
        while not self._stopping.is_set():
            await _first(child.ended, self._stopping, self._wanted)
            self._served = self._served or child.ready.is_set()
            if child.ended.done():
                self._told_ended(child)
                await child.close()
                if not self._served and child.process.returncode == UNUSABLE:
                    self.exit_code = UNUSABLE
                    return
                child = await self._start_again(child)
            elif self._wanted.is_set() and not self._stopping.is_set():
                child = await self._replace(child)
                self._wanted.clear()
                self._replaced.set()
        await self._drop_spare()
        await child.stop(self._patience)

    async def replace(self) -> None:
        """Put a new process in the worker's place; it begins when the old one, which holds the state, has left."""
        self._replaced.clear()
        self._wanted.set()
        await self._replaced.wait()

    def stop(self) -> None:
        """Let the worker end."""
        self._stopping.set()
        self._replaced.set()

    async def _start(self) -> Child:
        child = await self._take_spare() or await Child.start(self._command, self.sockets, self._restarts)
        self._telemetry.emit(WorkerStarted(self.number, child.process.pid, self._restarts))
        await child.go()
        self._follow(child)
        return child

    async def _start_again(self, dead: Child) -> Child:
        self._restarts += 1
        self._failures = 0 if dead.ready.is_set() else self._failures + 1
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), PAUSES[min(self._failures, len(PAUSES) - 1)])
        return await self._start()

    def _follow(self, child: Child) -> None:
        self._sparing = asyncio.create_task(self._make_spare(child))

    async def _make_spare(self, child: Child) -> None:
        """Prepare the next process, when the first does not need the processor for its own start any more."""
        if await self._comes(child, child.ready, READY_SECONDS):
            self._spare = await Child.start(self._command, self.sockets, self._restarts + 1)

    async def _take_spare(self) -> Child | None:
        """The spare process, if it is of use."""
        spare, self._spare = self._spare, None
        if spare is None or (spare.prepared.is_set() and not spare.ended.done()):
            return spare
        await spare.stop(0)
        return None

    async def _drop_spare(self) -> None:
        if self._sparing is not None:
            await finish((self._sparing,), 0)
        spare, self._spare = self._spare, None
        if spare is not None:
            await spare.stop(0)

    async def _replace(self, old: Child) -> Child:
        # It has loaded what was there before.
        await self._drop_spare()
        fresh = await Child.start(self._command, self.sockets, self._restarts)
        if not await self._comes(fresh, fresh.prepared, PREPARE_SECONDS):
            return await self._keep(old, fresh)
        await old.stop(self._patience)
        await fresh.go()
        self._telemetry.emit(WorkerReplaced(self.number, old.process.pid, fresh.process.pid))
        self._follow(fresh)
        return fresh

    async def _comes(self, child: Child, sign: asyncio.Event, seconds: float) -> bool:
        """Whether the child gives the sign in time, while nobody stops us."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await _first(child.ended, sign, self._stopping)
        return sign.is_set() and not child.ended.done()

    async def _keep(self, old: Child, fresh: Child) -> Child:
        code = fresh.process.returncode
        await fresh.stop(0)
        cause = "it was not ready in time" if code is None else f"it ended with exit code {code}; see its line above"
        self._telemetry.emit(WorkerNotReplaced(self.number, old.process.pid, cause))
        self._follow(old)
        return old

    def _told_ended(self, child: Child) -> None:
        code = child.process.returncode or 0
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._telemetry.emit(WorkerEnded(self.number, child.process.pid, cause, monotonic() - child.started))


async def supervise(server: ServerSettings, arguments: Sequence[str], telemetry: Telemetry, *, ingest: bool) -> int:
    """Serve with a worker until SIGTERM or SIGINT; the exit code.

    ``arguments`` are those of the command that runs the worker.
    """
    command = [sys.executable, "-m", "impact_plugin", *arguments]
    with ExitStack() as stack:
        sockets = bind_all(server, ingest=ingest)
        for listening in (sockets.router, sockets.operator, sockets.ingest):
            if listening is not None:
                stack.enter_context(listening)
        slot = WorkerSlot(0, sockets, command, server.shutdown_grace_seconds, telemetry)
        telemetry.emit(SupervisorStarted(url_of(sockets.router), server.workers))
        replacing = _on_signals(slot)
        try:
            await slot.run()
        finally:
            await finish((replacing,), 0)
    return slot.exit_code or 0


def _on_signals(slot: WorkerSlot) -> asyncio.Task[None]:
    """Stop on SIGTERM and SIGINT; the task that replaces the worker on SIGHUP."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    async def replace_when_asked() -> None:
        while await asked.wait():
            asked.clear()
            await slot.replace()

    loop.add_signal_handler(signal.SIGHUP, asked.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, slot.stop)
    return loop.create_task(replace_when_asked())


async def _first(ended: asyncio.Task[int], *signs: asyncio.Event) -> None:
    """Wait for the end of a process or for one of the signs."""
    waits = [asyncio.create_task(sign.wait()) for sign in signs]
    try:
        await asyncio.wait((ended, *waits), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await finish(waits, 0)
