"""Opens the listening sockets and accepts connections without losing any.

A router may open a connection for each request. When a process is killed, the kernel resets the connections that it
accepted but has not read from; when the last owner of a socket closes it, the queued connections are lost. Therefore a
supervisor that outlives its workers may own the socket, the kernel queues a connection until its request arrives
(``TCP_DEFER_ACCEPT``, https://man7.org/linux/man-pages/man7/tcp.7.html), and we accept a few connections at a time and
read from each immediately.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Final, cast

import msgspec
from aiohttp import web
from anyio import CancelScope, create_task_group

from impact_plugin.config.settings import ServerSettings
from impact_plugin.errors import SettingsError
from impact_transformers.configuration import Problem

BACKLOG: Final = 4096
"""The length of the accept queue; the system may limit it further (net.core.somaxconn)."""

DEFER_SECONDS: Final = 30
"""How long the kernel queues a connection without a request before we accept it anyway."""

ACCEPTS_PER_TURN: Final = 16
"""Connections accepted per iteration of the event loop; further ones stay in the kernel's queue, safe from a kill."""

FIRST_READ_BYTES: Final = 256 * 1024
PAUSE_SECONDS: Final = 0.1
"""How long to stop accepting when the process is out of file descriptors."""

MIN_GRACE_SECONDS: Final = 0.01
"""aiohttp treats 0 as no limit."""

KEEP_ALIVE_SECONDS: Final = 75.0
"""Longer than rudder-server keeps idle connections (30 s), so that it closes them first, without a reset."""


class Sockets(msgspec.Struct, frozen=True):
    """The listening sockets of a service; without sources there is no ingest socket."""

    router: socket.socket
    operator: socket.socket
    ingest: socket.socket | None = None


def bind_all(server: ServerSettings, *, ingest: bool) -> Sockets:
    """Listen on the configured addresses; raises :class:`SettingsError`."""
    with ExitStack() as opened:
        router = opened.enter_context(bind(server.host, server.port))
        operator = opened.enter_context(bind(server.operator_host, server.operator_port))
        senders = bind(server.ingest_host, server.ingest_port) if ingest else None
        opened.pop_all()
        return Sockets(router, operator, senders)


def bind(host: str, port: int) -> socket.socket:
    """Listen on one address; raises :class:`SettingsError`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_DEFER_ACCEPT"):
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_SECONDS)
        listening.bind(address)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise _cannot_listen(host, port, error) from error
    return listening


def url_of(listening: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Port(msgspec.Struct, frozen=True):
    """An application and its listening socket."""

    app: web.Application
    listening: socket.socket


@asynccontextmanager
async def serve_ports(ports: Sequence[Port], grace_seconds: float) -> AsyncIterator[None]:
    """Serve all ports until the block ends; then stop accepting, and finish requests within ``grace_seconds``."""
    runners = [_runner(port.app, grace_seconds) for port in ports]
    acceptors: list[Acceptor] = []
    try:
        for port, runner in zip(ports, runners, strict=True):
            await runner.setup()
            acceptor = Acceptor(port.listening, cast("web.Server", runner.server))
            acceptor.start()
            acceptors.append(acceptor)
        yield
    finally:
        with CancelScope(shield=True):
            for acceptor in acceptors:
                await acceptor.stop()
            async with create_task_group() as closing:
                for runner in runners:
                    closing.start_soon(runner.cleanup)


def _runner(app: web.Application, grace_seconds: float) -> web.AppRunner:
    return web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=KEEP_ALIVE_SECONDS,
        # aiohttp applies the timeout twice: to the handler, and then to the rest of the request body.
        shutdown_timeout=max(grace_seconds / 2, MIN_GRACE_SECONDS),
        handler_cancellation=False,
        auto_decompress=False,
    )


class Acceptor:
    """Accepts connections from a listening socket that other processes may share."""

    def __init__(self, listening: socket.socket, server: web.Server) -> None:
        self._listening = listening
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._starting: set[asyncio.Task[object]] = set()
        self._resuming: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start accepting."""
        self._loop.add_reader(self._listening.fileno(), self._accept)

    async def stop(self) -> None:
        """Stop accepting; queued connections stay for the other owners of the socket."""
        self._loop.remove_reader(self._listening.fileno())
        if self._resuming is not None:
            self._resuming.cancel()
        self._listening.close()
        # After this the server knows every accepted connection, and serves it before the process ends.
        await asyncio.gather(*self._starting, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._pause()
                return
            self._start_serving(connection)

    def _start_serving(self, connection: socket.socket) -> None:
        first = b""
        connection.setblocking(False)
        with suppress(OSError):
            first = connection.recv(FIRST_READ_BYTES)
        # A task of asyncio, for each request of a router that keeps no connection: anyio's costs five times as much.
        task = self._loop.create_task(self._serve(connection, first))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _serve(self, connection: socket.socket, first: bytes) -> None:
        await self._loop.connect_accepted_socket(lambda: _PrereadProtocol(self._server, first), connection)

    def _pause(self) -> None:
        """Stop accepting for a while: without free file descriptors, retrying immediately would spin the event loop."""
        self._loop.remove_reader(self._listening.fileno())
        self._resuming = self._loop.call_later(PAUSE_SECONDS, self.start)


class _PrereadProtocol(asyncio.Protocol):
    """Hands a connection over to aiohttp, together with the bytes already read from it."""

    def __init__(self, server: web.Server, first: bytes) -> None:
        self._server = server
        self._first = first

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        handler = self._server()
        if isinstance(transport, asyncio.Transport):
            transport.set_protocol(handler)
        handler.connection_made(transport)
        if self._first:
            handler.data_received(self._first)


def _cannot_listen(host: str, port: int, error: OSError) -> SettingsError:
    return SettingsError(Problem("server", f"cannot listen on {host}:{port}: {error.strerror or error}"))
