"""An event loop on which time jumps: hours of waiting pass in milliseconds, with real sockets and threads.

If nothing is ready, the loop does not wait for its next timer but moves its clock there. It must not overtake what
happens outside the loop: it never jumps while a thread works on a call, and before a jump it waits for sockets for a
moment of real time. So a service, its stand-ins and a database run unchanged, as long as they are in this process and
get the time from the loop: monotonic from ``loop.time()``, seconds since 1970 from :meth:`VirtualLoop.wall`.
"""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, Final, TypeVar, TypeVarTuple

from impact_plugin.errors import ImpactPluginError

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

START: Final = 1_790_000_000.0
"""Where the virtual clock starts, in seconds since 1970."""

SETTLE_SECONDS: Final = 0.0001
"""Real time to wait for sockets before a jump; what is written to a loopback connection is there when write returns."""

THREAD_SECONDS: Final = 0.01
"""Real time to wait for sockets while a thread works; the thread's end wakes the loop earlier."""


class DeadlockError(ImpactPluginError):
    """Every task waits, and nothing can wake one: there is no timer, and no thread that works."""


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for sockets for a moment and, if none is ready, moves the clock instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.jump: Callable[[float | None], bool] = lambda _: False
        self.busy: Callable[[], bool] = lambda: False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Do as the base class, but without waiting for ``timeout``."""
        if timeout is not None and timeout <= 0:
            return super().select(0)
        while True:
            ready = super().select(THREAD_SECONDS if self.busy() else 0)
            if not ready and not self.busy():
                time.sleep(SETTLE_SECONDS)
                ready = super().select(0)
            if ready or (not self.busy() and self.jump(timeout)):
                return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on which time jumps; :meth:`wall` begins at ``start``, in seconds since 1970."""

    def __init__(self, *, start: float = START) -> None:
        self._jumping = _JumpingSelector()
        self._virtual = 0.0
        self._in_threads = 0
        self._start = start
        super().__init__(self._jumping)
        self._jumping.jump = self._jump
        self._jumping.busy = lambda: self._in_threads > 0

    def time(self) -> float:
        """Return the virtual monotonic time in seconds."""
        return self._virtual

    def wall(self) -> float:
        """Return the virtual time in seconds since 1970."""
        return self._start + self._virtual

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Arguments], Result], *args: *Arguments
    ) -> asyncio.Future[Result]:
        """Do as the base class; the clock stands still until the call is done."""
        self._in_threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        """Do as the base class, which waits for a thread of its own."""
        self._in_threads += 1
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self._in_threads -= 1

    def _thread_done(self, _future: object) -> None:
        self._in_threads -= 1

    def _jump(self, timeout: float | None) -> bool:
        """Move the clock to the next timer; returns True, or raises DeadlockError if there is none."""
        if timeout is None:
            raise DeadlockError("deadlock: every task waits, and no timer is set")
        self._virtual += timeout
        return True


def run_virtual(main: Callable[[], Coroutine[Any, Any, Result]], *, start: float = START) -> Result:
    """Run a coroutine function on a virtual loop of its own; raises :class:`DeadlockError` if it can never end."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(start=start)) as runner:
        return runner.run(main())
