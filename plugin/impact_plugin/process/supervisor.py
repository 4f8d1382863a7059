"""The supervisor: owns the listening sockets, and keeps a worker serving them.

The sockets outlive every worker, so that no connection of a router is refused or lost in a queue: connections wait
while a worker is being replaced. A worker that dies is replaced immediately by a spare process that has already loaded
its code, which takes longest. On SIGHUP the worker is replaced by a process that reloads code, settings and
configuration; if that cannot start, the old worker continues.
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
"""How long to wait for a worker to open its state; after that it gets no spare process."""

LATE_SECONDS: Final = 5.0
"""How long after its grace period a worker is killed."""

PAUSES_SECONDS: Final = (0.0, 0.1, 0.2, 0.4, 0.8)
"""Back-off before replacing workers that never became ready; further replacements wait as long as the last."""

UNUSABLE: Final = 2
"""A worker's exit code for settings or state that cannot be used."""

NUMBER: Final = 0
"""The only worker's number in the log."""


class WorkerProcess:
    """A worker process, and the supervisor's end of the connection to it."""

    def __init__(self, process: Process, line: socket.socket) -> None:
        self.pid = process.pid
        self.started = monotonic()
        self.begun = False
        self.prepared, self.ready, self.ended = Event(), Event(), Event()
        self._process = process
        self._line = line

    @property
    def exit_code(self) -> int | None:
        """None while the process runs; negative if a signal ended it."""
        return self._process.returncode

    async def listen(self) -> None:
        """Receive the worker's messages until it ends."""
        received = b""
        with self._line, suppress(OSError):
            while more := await self._receive():
                received += more
                if PREPARED in received:
                    self.prepared.set()
                if READY in received:
                    self.ready.set()

    async def wait(self) -> None:
        """Wait until the process ends."""
        await self._process.wait()
        self.ended.set()

    async def reaches(self, state: Event, seconds: float) -> bool:
        """Wait for ``prepared`` or ``ready``; returns whether the process reached it in time and still runs."""
        with move_on_after(seconds):
            await _first(state.wait, self.ended.wait)
        return state.is_set() and not self.ended.is_set()

    def begin(self) -> None:
        """Let the worker open its state and serve."""
        self.begun = True
        with suppress(OSError):
            self._line.send(GO)

    async def stop(self, seconds: float) -> None:
        """Shut the worker down gracefully; kill it after ``seconds``."""
        self._signal(signal.SIGTERM)
        with move_on_after(seconds):
            await self.ended.wait()
        self._signal(signal.SIGKILL)
        await self.ended.wait()

    async def _receive(self) -> bytes:
        await wait_readable(self._line)
        return self._line.recv(64)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)


class Supervisor:
    """Keeps one worker serving, and replaces its process when needed."""

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
        """Keep a worker running until cancelled; returns early if the first one rejects its settings or state."""
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
        """Replace the worker on SIGHUP; cancel ``serving`` on other signals."""
        async for number in signals:
            if number == signal.SIGHUP:
                self._replacement_wanted.set()
            else:
                serving.cancel()

    async def stop(self) -> None:
        """Stop all processes: the worker within its grace period, and spare ones immediately."""
        self._sparing.cancel()
        async with create_task_group() as stopping:
            for process in self._processes:
                stopping.start_soon(process.stop, self._patience_seconds if process.begun else 0)

    async def _handle_end(self, pause_seconds: float) -> WorkerProcess:
        """Replace a worker that ended by itself."""
        self._restarts += 1
        await sleep(pause_seconds)
        return await self._start_worker()

    async def _handle_replacement(self, old: WorkerProcess) -> WorkerProcess:
        """Prepare a new process, stop the old one, which holds the state, and let the new one begin."""
        self._replacement_wanted = Event()
        # The spare process has loaded the old code and configuration.
        await self._drop_spare()
        fresh = await self._launch(self._restarts)
        if await fresh.reaches(fresh.prepared, PREPARE_SECONDS):
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
        """Start a process that loads its code and waits for the signal to begin."""
        own_end, worker_end = socket.socketpair()
        own_end.setblocking(False)
        with worker_end, ExitStack() as unused:
            unused.enter_context(own_end)
            process = WorkerProcess(await self._open_process(worker_end.fileno(), restarts), own_end)
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
        """Launch the spare process once the worker is ready and no longer needs the CPU for its start."""
        with scope:
            if await worker.reaches(worker.ready, READY_SECONDS):
                self._spare = await self._launch(self._restarts + 1)

    async def _take_spare(self) -> WorkerProcess | None:
        """Return the spare process if it is usable."""
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
    """Serve with a worker until SIGTERM or SIGINT; returns the exit code.

    ``arguments`` are the command-line arguments that run the worker.
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
    """Return when the first of the waits does, and cancel the others."""
    async with create_task_group() as tasks:

        async def wait(one: Callable[[], Awaitable[object]]) -> None:
            await one()
            tasks.cancel_scope.cancel()

        for one in waits:
            tasks.start_soon(wait, one)
