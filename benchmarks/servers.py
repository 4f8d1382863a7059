"""Servers as processes of their own, and the CPU time they have used."""

import importlib
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

HOST: Final = "127.0.0.1"
START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 10.0


class Server(msgspec.Struct, frozen=True):
    """A running server."""

    pid: int
    url: str


@contextmanager
def run_service(**variables: str) -> Iterator[Server]:
    """The real service, as an operator starts it, with these variables more; it logs errors only."""
    port, operator_port = free_ports(2)
    with TemporaryDirectory() as state:
        environment = {
            "IMPACT_PLUGIN__SERVER__PORT": str(port),
            "IMPACT_PLUGIN__SERVER__OPERATOR_PORT": str(operator_port),
            "IMPACT_PLUGIN__STATE__DIR": state,
            "IMPACT_PLUGIN__LOG__LEVEL": "error",
            **variables,
        }
        with run_process([sys.executable, "-m", "impact_plugin", "serve"], environment, port) as server:
            yield server


@contextmanager
def run_bare() -> Iterator[Server]:
    """The bare handler."""
    (port,) = free_ports(1)
    with run_process([sys.executable, "-m", "benchmarks.bare", str(port)], {}, port) as server:
        yield server


def free_ports(number: int) -> list[int]:
    """Ports of the loopback interface on which nobody listens now."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def run_process(command: Sequence[str], environment: dict[str, str], port: int) -> Iterator[Server]:
    """Any server, once it listens on the port; it is ended with the block."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("IMPACT_PLUGIN__")}
    process = subprocess.Popen(command, env=own | environment)
    try:
        _wait_for(process, port)
        yield Server(process.pid, f"http://{HOST}:{port}")
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode}")
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nobody listens on port {port} after {START_SECONDS:.0f} s")


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of another process, in user space and in the kernel.

    Linux has a clock for each process (``clock_getcpuclockid(3)``) with nanoseconds; ``/proc/<pid>/stat`` and psutil,
    which reads it, count hundredths of a second. psutil serves other systems, where it must be installed.
    """
    if platform.system() == "Linux":
        return time.clock_gettime((~pid << 3) | 2)
    used = importlib.import_module("psutil").Process(pid).cpu_times()
    return float(used.user + used.system)
