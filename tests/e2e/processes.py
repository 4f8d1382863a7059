"""Our commands as processes of their own, and what the system knows of a process."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.waiting import SECONDS


class Process:
    """A command of ours as a process of its own, its standard error in a file."""

    def __init__(self, folder: Path, words: list[str], environment: dict[str, str]) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("IMPACT_")}
        self._log = folder / f"{time.monotonic_ns()}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "impact_plugin", *words],
                env={**kept, **environment},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What stands on standard error so far."""
        return self._log.read_text(encoding="utf-8")

    def line(self) -> str:
        """The next line on standard output."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        return self._process.wait(SECONDS)

    def end(self) -> None:
        """Make sure that nothing stays behind."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()


def children_of(process: int) -> list[int]:
    """The processes that it started and that still run."""
    return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def is_running(process: int) -> bool:
    """Whether the process has not ended, reaped or not."""
    return Path(f"/proc/{process}").exists() and work_of(process)[0] != "Z"


def work_of(process: int) -> tuple[str, int]:
    """Whether it waits, and the ticks of the processor that it has used. https://man7.org/linux/man-pages/man5/proc.5.html"""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[11]) + int(fields[12])


def is_accepted(client: socket.socket) -> bool:
    """Whether the process at the other end of a loopback connection has taken it from its queue.

    Until then the connection has no inode. https://docs.kernel.org/networking/proc_net_tcp.html
    """
    ends = [f"0100007F:{port:04X}" for _, port in (client.getpeername(), client.getsockname())]
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines())
    return any(row[1:3] == ends and row[9] != "0" for row in rows)
