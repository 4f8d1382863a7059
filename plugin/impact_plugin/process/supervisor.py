"""The supervisor: it owns the listening sockets, and sees to it that a worker serves them.

The sockets outlive every worker, so that a router meets neither a refused connection nor one that was lost in a queue:
what comes while the worker is replaced waits. A worker that dies is replaced at once, by a spare process which has
loaded its code already, because that takes longest. On SIGHUP it is replaced by a process that loads code, settings and
configuration anew; one that cannot start leaves the old one where it is.
"""

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from time import monotonic
from typing import Final

from anyio import (
    CancelScope,
    Event,
    create_task_group,
    move_on_after,
    open_process,
    open_signal_receiver,
    sleep,
    wait_readable,
)
from anyio.abc import Process, TaskGroup

from impact_plugin.config.settings import ServerSettings
from impact_plugin.process.background import open_background
from impact_plugin.process.listening import Sockets, bind_all, url_of
from impact_plugin.process.worker import GO, PREPARED, READY, Assignment, assign
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
"""How long a worker may take to open a large state before no spare process is prepared beside it."""

LATE_SECONDS: Final = 5.0
"""How much longer than its grace period a worker may take to end before it is killed."""

PAUSES_SECONDS: Final = (0.0, 0.1, 0.2, 0.4, 0.8)
"""Before each next try to replace a worker that never got ready; the last one for all further tries."""

UNUSABLE: Final = 2
"""A worker's exit code for settings or state that cannot be used."""

NUMBER: Final = 0
"""What the log calls the worker, of which there is one."""


class WorkerProcess:
    """A worker's process and the supervisor's end of the line between the two."""

    def __init__(self, process: Process, line: socket.socket) -> None:
        self.pid = process.pid
        self.started = monotonic()
        self.begun = False
        self.prepared, self.ready, self.ended = Event(), Event(), Event()
        self._process = process
        self._line = line

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.returncode

    async def listen(self) -> None:
        """Hear what it says until it ends."""
        heard = b""
        with self._line, suppress(OSError):
            while more := await self._hear():
                heard += more
                if PREPARED in heard:
                    self.prepared.set()
                if READY in heard:
                    self.ready.set()

    async def wait(self) -> None:
        """Wait for its end."""
        await self._process.wait()
        self.ended.set()

    async def gives(self, sign: Event, seconds: float) -> bool:
        """Whether it gives the sign in time, and still runs."""
        with move_on_after(seconds):
            await _first(sign.wait, self.ended.wait)
        return sign.is_set() and not self.ended.is_set()

    def begin(self) -> None:
        """Let it open its state and serve."""
        self.begun = True
        with suppress(OSError):
            self._line.send(GO)

    async def stop(self, seconds: float) -> None:
        """Let it finish what is under way; after so many seconds it is killed."""
        self._signal(signal.SIGTERM)
        with move_on_after(seconds):
            await self.ended.wait()
        self._signal(signal.SIGKILL)
        await self.ended.wait()

    async def _hear(self) -> bytes:
        await wait_readable(self._line)
        return self._line.recv(64)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)


class Supervisor:
    """Keeps a worker serving, whichever process it is at the moment."""

    def __init__(
        self, sockets: Sockets, command: Sequence[str], grace_seconds: float, telemetry: Telemetry, tasks: TaskGroup
    ) -> None:
        self._sockets = sockets
        self._command = command
        self._patience_seconds = grace_seconds + LATE_SECONDS
        self._telemetry = telemetry
        self._tasks = tasks
        self._processes: set[WorkerProcess] = set()
        self._spare: WorkerProcess | None = None
        self._sparing = CancelScope()
        self._restarts = 0
        self._replacement_wanted = Event()

    async def serve(self) -> int:
        """Keep a worker there until cancelled; the exit code of a first one that cannot use what it was given."""
        worker, served, failures = await self._start_worker(), False, 0
        while True:
            await _first(worker.ended.wait, self._replacement_wanted.wait)
            served = served or worker.ready.is_set()
            if not worker.ended.is_set():
                worker = await self._handle_replacement(worker)
                continue
            self._report_end(worker)
            if not served and worker.exit_code == UNUSABLE:
                return UNUSABLE
            failures = 0 if worker.ready.is_set() else failures + 1
            worker = await self._handle_end(PAUSES_SECONDS[min(failures, len(PAUSES_SECONDS) - 1)])

    async def handle_signals(self, signals: AsyncIterator[signal.Signals], serving: CancelScope) -> None:
        """Replace the worker on SIGHUP, and cancel ``serving`` on all others."""
        async for number in signals:
            if number == signal.SIGHUP:
                self._replacement_wanted.set()
            else:
                serving.cancel()

    async def stop(self) -> None:
        """End all processes: the worker within its grace period, those that have not begun at once."""
        self._sparing.cancel()
        async with create_task_group() as stopping:
            for process in self._processes:
                stopping.start_soon(process.stop, self._patience_seconds if process.begun else 0)

    async def _handle_end(self, pause_seconds: float) -> WorkerProcess:
        """The worker has ended by itself: another one takes its place."""
        self._restarts += 1
        await sleep(pause_seconds)
        return await self._start_worker()

    async def _handle_replacement(self, old: WorkerProcess) -> WorkerProcess:
        """A new process begins when the old one, which holds the state, has ended; unless it could not be prepared."""
        self._replacement_wanted = Event()
        # The spare one has loaded what was there before.
        await self._drop_spare()
        fresh = await self._launch(self._restarts)
        if await fresh.gives(fresh.prepared, PREPARE_SECONDS):
            await old.stop(self._patience_seconds)
            fresh.begin()
            self._telemetry.emit(WorkerReplaced(NUMBER, old.pid, fresh.pid))
            self._prepare_spare_for(fresh)
            return fresh
        code = fresh.exit_code
        await fresh.stop(0)
        cause = "it was not ready in time" if code is None else f"it ended with exit code {code}; see its line above"
        self._telemetry.emit(WorkerNotReplaced(NUMBER, old.pid, cause))
        self._prepare_spare_for(old)
        return old

    async def _start_worker(self) -> WorkerProcess:
        worker = await self._take_spare() or await self._launch(self._restarts)
        self._telemetry.emit(WorkerStarted(NUMBER, worker.pid, self._restarts))
        worker.begin()
        self._prepare_spare_for(worker)
        return worker

    async def _launch(self, restarts: int) -> WorkerProcess:
        """Start a process that loads its code and waits for the word to begin."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs, ExitStack() as unused:
            unused.enter_context(ours)
            process = WorkerProcess(await self._open_process(theirs.fileno(), restarts), ours)
            unused.pop_all()
        self._processes.add(process)
        self._tasks.start_soon(process.listen)
        self._tasks.start_soon(self._wait_for, process)
        return process

    async def _open_process(self, line: int, restarts: int) -> Process:
        sockets = self._sockets
        ingest = None if sockets.ingest is None else sockets.ingest.fileno()
        router, operator = sockets.router.fileno(), sockets.operator.fileno()
        environment = dict(os.environ)
        assign(environment, Assignment(router, operator, line, ingest, restarts))
        passed = [router, operator, line, *([] if ingest is None else [ingest])]
        return await open_process(self._command, stdin=None, stdout=None, stderr=None, env=environment, pass_fds=passed)

    async def _wait_for(self, process: WorkerProcess) -> None:
        await process.wait()
        self._processes.discard(process)

    def _prepare_spare_for(self, worker: WorkerProcess) -> None:
        self._sparing = CancelScope()
        self._tasks.start_soon(self._prepare_spare, worker, self._sparing)

    async def _prepare_spare(self, worker: WorkerProcess, scope: CancelScope) -> None:
        """Launch the next process, when the worker does not need the processor for its own start any more."""
        with scope:
            if await worker.gives(worker.ready, READY_SECONDS):
                self._spare = await self._launch(self._restarts + 1)

    async def _take_spare(self) -> WorkerProcess | None:
        """The spare process, if it is of use."""
        spare = self._spare
        if spare is not None and spare.prepared.is_set() and not spare.ended.is_set():
            self._spare = None
            return spare
        await self._drop_spare()
        return None

    async def _drop_spare(self) -> None:
        self._sparing.cancel()
        spare, self._spare = self._spare, None
        if spare is not None:
            await spare.stop(0)

    def _report_end(self, worker: WorkerProcess) -> None:
        code = worker.exit_code or 0
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._telemetry.emit(WorkerEnded(NUMBER, worker.pid, cause, monotonic() - worker.started))


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
        signals = stack.enter_context(open_signal_receiver(signal.SIGHUP, signal.SIGTERM, signal.SIGINT))
        telemetry.emit(SupervisorStarted(url_of(sockets.router), server.workers))
        code = 0
        async with open_background() as tasks:
            supervisor = Supervisor(sockets, command, server.shutdown_grace_seconds, telemetry, tasks)
            try:
                with CancelScope() as serving:
                    tasks.start_soon(supervisor.handle_signals, signals, serving)
                    code = await supervisor.serve()
            finally:
                with CancelScope(shield=True):
                    await supervisor.stop()
    return code


async def _first(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return when the first of them does, and cancel the others."""
    async with create_task_group() as tasks:

        async def wait(one: Callable[[], Awaitable[object]]) -> None:
            await one()
            tasks.cancel_scope.cancel()

        for one in waits:
            tasks.start_soon(wait, one)
