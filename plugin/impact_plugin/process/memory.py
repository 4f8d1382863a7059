"""Enforces the memory limit: a process above it refuses events, so that it does not starve others on the machine.

Also measures the process's CPU time, file descriptors, and event loop lag.
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

MEASURE_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 30.0
"""How long a supervised worker may exceed its limit before the supervisor replaces it."""

_STATM: Final = Path("/proc/self/statm")
_DESCRIPTORS: Final = Path("/proc/self/fd")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(statm: Path = _STATM) -> int:
    """Return the resident memory of this process, 0 if the system does not provide it.

    https://man7.org/linux/man-pages/man5/proc_pid_statm.5.html
    """
    try:
        return int(statm.read_text(encoding="ascii").split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def open_descriptors(folder: Path = _DESCRIPTORS) -> int:
    """Return the number of open file descriptors of this process, 0 if the system does not provide it.

    Since Linux 6.2 it is the size of the directory; before, we have to list it.
    https://docs.kernel.org/filesystems/proc.html
    """
    try:
        return folder.stat().st_size or sum(1 for _ in folder.iterdir())
    except OSError:
        return 0


class MemoryWatch:
    """Measures the process every second.

    ``give_up`` is called once if the process stays above its limit; None for a process that would not be replaced.
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
        self._measured_at = monotonic() - MEASURE_SECONDS

    @property
    def exceeded(self) -> bool:
        """Whether the process exceeds its memory limit, and must refuse events."""
        return self._since is not None

    def trouble(self) -> str:
        """Return what the operator should know, "" if nothing."""
        return "events are refused: the process is above server.max_memory_mb" if self.exceeded else ""

    def measure(self, now: float, loop_lag: float = 0.0) -> None:
        """Measure the process, and emit telemetry when it crosses its limit."""
        size = self._read()
        self._report(size, loop_lag)
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

    def _report(self, size: int, loop_lag: float) -> None:
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
        """Measure immediately and then every second, until cancelled."""
        await run_guarded(self._telemetry, "memory", self._measure_now)
        await repeat(self._telemetry, "memory", self._measure_now, MEASURE_SECONDS)

    async def _measure_now(self) -> None:
        now, before = monotonic(), self._measured_at
        self._measured_at = now
        self.measure(now, max(0.0, now - before - MEASURE_SECONDS))
