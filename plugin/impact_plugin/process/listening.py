"""Listening sockets, and how connections are taken from them.

A router that opens a connection for each request must meet none that is lost: whatever a process has accepted and not
read yet is reset when the process is killed, and what waits in the queue of a socket is lost when its last owner closes
it. So the socket may belong to a supervisor that outlives its workers, the kernel keeps a connection in the queue until
its request is there (``TCP_DEFER_ACCEPT``, https://man7.org/linux/man-pages/man7/tcp.7.html), connections are accepted
a few at a time, and each is read from at once.
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
"""Connections that wait to be accepted, as far as the system allows (net.core.somaxconn)."""

DEFER_SECONDS: Final = 30
"""How long the kernel keeps a connection without a request; then it is accepted as it is."""

AT_A_TIME: Final = 16
"""Connections accepted in one turn of the loop: what is accepted is served, not queued where a kill loses it."""

FIRST_BYTES: Final = 256 * 1024
PAUSE_SECONDS: Final = 0.1
"""How long to wait when the process has no descriptor left for a connection."""

LEAST_GRACE_SECONDS: Final = 0.01
"""For aiohttp 0 is no limit at all."""

KEEP_ALIVE_SECONDS: Final = 75.0
"""rudder-server keeps idle connections for 30 s; closing later than it does spares both sides a reset."""


class Sockets(msgspec.Struct, frozen=True):
    """What a service listens on; without senders there is no ingest socket."""

    router: socket.socket
    operator: socket.socket
    ingest: socket.socket | None = None


def bind_all(server: ServerSettings, *, ingest: bool) -> Sockets:
    """Listen where the settings say; raises :class:`SettingsError`."""
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
    """Where the socket listens, for people and clients."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Port(msgspec.Struct, frozen=True):
    """An application and the socket it is served on."""

    app: web.Application
    listening: socket.socket


@asynccontextmanager
async def serve_ports(ports: Sequence[Port], grace_seconds: float) -> AsyncIterator[None]:
    """Serve until the block ends, and requests under way for up to ``grace_seconds`` longer, on all ports at once."""
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
        # aiohttp waits twice as long: first for a handler, then for it to notice that its body ends.
        shutdown_timeout=max(grace_seconds / 2, LEAST_GRACE_SECONDS),
        handler_cancellation=False,
        auto_decompress=False,
    )


class Acceptor:
    """Takes connections from a listening socket that other processes may share."""

    def __init__(self, listening: socket.socket, server: web.Server) -> None:
        self._listening = listening
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._beginning: set[asyncio.Task[object]] = set()
        self._resuming: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to accept."""
        self._loop.add_reader(self._listening.fileno(), self._accept)

    async def stop(self) -> None:
        """Accept no more; what waits in the queue stays there for whoever else has the socket."""
        self._loop.remove_reader(self._listening.fileno())
        if self._resuming is not None:
            self._resuming.cancel()
        self._listening.close()
        # What is accepted is known to the server after this, and so is finished before the process ends.
        await asyncio.gather(*self._beginning, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(AT_A_TIME):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._pause()
                return
            self._begin(connection)

    def _begin(self, connection: socket.socket) -> None:
        first = b""
        connection.setblocking(False)
        with suppress(OSError):
            first = connection.recv(FIRST_BYTES)
        # A task of asyncio, for each request of a router that keeps no connection: anyio's costs five times as much.
        task = self._loop.create_task(self._serve(connection, first))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _serve(self, connection: socket.socket, first: bytes) -> None:
        await self._loop.connect_accepted_socket(lambda: _Begun(self._server, first), connection)

    def _pause(self) -> None:
        """Come back later: out of descriptors, the socket stays readable, and asking at once would take the loop."""
        self._loop.remove_reader(self._listening.fileno())
        self._resuming = self._loop.call_later(PAUSE_SECONDS, self.start)


class _Begun(asyncio.Protocol):
    """Hands a connection over to aiohttp together with what was read of it."""

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
