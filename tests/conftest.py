"""What all tests share: a real Redis or Valkey server for those that need one."""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

SECONDS = 15.0

# How fast a machine is, is not what properties are about: the first text that is drawn alone may take two seconds.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


class RedisServer:
    """A server of its own for a test run, on a Unix socket, without persistence."""

    def __init__(self, folder: Path, *options: str) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        # Left out silently, these tests would prove nothing where they matter most.
        assert program is not None, "no redis-server or valkey-server: run tools/install_servers.py (make test does)"
        self._socket = folder / "redis.sock"
        self._command = [program, "--port", "0", "--unixsocket", str(self._socket), "--save", "", *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What ``state.url`` takes."""
        return f"unix://{self._socket}"

    def start(self) -> None:
        """Start and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(self._socket)) == 0:
                    probe.sendall(b"PING\r\n")
                    if probe.recv(16).startswith((b"+PONG", b"-NOAUTH")):
                        return
            time.sleep(0.01)
        pytest.fail("the Redis server did not start")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(SECONDS)
            self._process = None
        self._socket.unlink(missing_ok=True)


@pytest.fixture(scope="session", name="make_redis")
def make_redis_fixture() -> Iterator[Callable[..., RedisServer]]:
    """Lend a maker of running servers; options are the server's own."""
    made: list[RedisServer] = []
    folders: list[tempfile.TemporaryDirectory[str]] = []

    def make(*options: str) -> RedisServer:
        # A socket's path must be short, which pytest's folders are not.
        folder = tempfile.TemporaryDirectory(prefix="redis-")
        folders.append(folder)
        server = RedisServer(Path(folder.name), *options)
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.kill()
    for folder in folders:
        folder.cleanup()


@pytest.fixture(scope="session", name="redis_url")
def redis_url_fixture(make_redis: Callable[..., RedisServer]) -> str:
    """Lend the address of a running server, shared by the tests of a run."""
    return make_redis().url


@pytest.fixture(name="free_port")
def free_port_fixture() -> Callable[[], int]:
    """Lend a finder of ports that were free a moment ago."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find
