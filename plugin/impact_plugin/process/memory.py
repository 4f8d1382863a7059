"""The memory ceiling: above it events are refused, so that a process that grows does not take its neighbours along.

What else a process uses up is measured in the same look.
"""

import os
import resource
from collections.abc import Callable
from pathlib import Path
from time import monotonic, process_time
from typing import Final

from impact_plugin.process.background import repeat, run_guarded
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.process import MemoryExceeded, MemoryRecovered, ProcessMeasured

LOOK_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 30.0
"""How long a supervised worker may stay above its ceiling before another one takes its place."""

_STATM: Final = Path("/proc/self/statm")
_DESCRIPTORS: Final = Path("/proc/self/fd")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Memory of this process that is not swapped out; 0 where the system does not tell.

    https://man7.org/linux/man-pages/man5/proc_pid_statm.5.html
    """
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def open_descriptors() -> int:
    """How many file descriptors this process has open; 0 where the system does not tell.

    Since Linux 6.2 the folder's size is their number; before it they have to be listed.
    https://docs.kernel.org/filesystems/proc.html
    """
    try:
        return _DESCRIPTORS.stat().st_size or sum(1 for _ in _DESCRIPTORS.iterdir())
    except OSError:
        return 0


class MemoryWatch:
    """Looks every second; ``exceeded`` tells whether events are to be refused.

    ``give_up`` is called once when the process stays above its ceiling; None where nobody would replace it.
    """

    def __init__(
        self,
        ceiling: int,
        telemetry: Telemetry,
        give_up: Callable[[], None] | None = None,
        read: Callable[[], int] = resident_bytes,
    ) -> None:
        self._ceiling = ceiling
        self._telemetry = telemetry
        self._give_up = give_up
        self._read = read
        self._since: float | None = None
        self._used = 0.0
        self._looked_at = monotonic() - LOOK_SECONDS

    @property
    def exceeded(self) -> bool:
        """Whether the process holds more than it may."""
        return self._since is not None

    def trouble(self) -> str:
        """What an operator should know; "" for nothing."""
        return "events are refused: the process is above server.max_memory_mb" if self.exceeded else ""

    def look(self, now: float, loop_lag: float = 0.0) -> None:
        """Measure, and tell what changed."""
        size = self._read()
        self._measure(size, loop_lag)
        if not self._ceiling:
            return
        if size <= self._ceiling:
            if self._since is not None:
                self._telemetry.emit(MemoryRecovered(size, now - self._since))
                self._since = None
        elif self._since is None:
            self._telemetry.emit(MemoryExceeded(size, self._ceiling))
            self._since = now
        elif now - self._since >= PATIENCE_SECONDS and self._give_up is not None:
            self._give_up()
            self._give_up = None

    def _measure(self, size: int, loop_lag: float) -> None:
        before, self._used = self._used, process_time()
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._telemetry.emit(
            ProcessMeasured(
                bytes=size,
                ceiling=self._ceiling,
                descriptors=open_descriptors(),
                descriptors_limit=max(limit, 0),
                cpu_seconds=self._used - before,
                loop_lag=loop_lag,
            )
        )

    async def watch(self) -> None:
        """Look at once, and then again and again until cancelled."""
        await run_guarded(self._telemetry, "memory", self._look_now)
        await repeat(self._telemetry, "memory", self._look_now, LOOK_SECONDS)

    async def _look_now(self) -> None:
        now, before = monotonic(), self._looked_at
        self._looked_at = now
        self.look(now, max(0.0, now - before - LOOK_SECONDS))
