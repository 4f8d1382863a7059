"""Sockets and how connections are taken from them: what is accepted is served, what is not stays in the queue."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from impact_plugin.errors import SettingsError
from impact_plugin.process.listening import Acceptor, Port, bind, serve_ports, url_of

REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"


async def echo(request: web.Request) -> web.Response:
    """Answer with the body."""
    return web.Response(body=await request.read())


@pytest.fixture(name="app")
def app_fixture() -> web.Application:
    """Lend an application."""
    app = web.Application()
    app.router.add_post("/", echo)
    return app


@pytest.fixture(name="stack")
async def stack_fixture() -> AsyncIterator[AsyncExitStack]:
    """Lend a stack that is closed after the test."""
    async with AsyncExitStack() as stack:
        yield stack


async def ask(port: int, *parts: bytes) -> bytes:
    """Send a request in parts and return the answer's body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.02)
    await reader.readuntil(b"\r\n\r\n")
    body = await reader.readexactly(5)
    writer.close()
    return body


@pytest.mark.parametrize("cut", [1, 10, len(REQUEST) - 5, len(REQUEST) - 1, len(REQUEST)])
async def test_a_request_is_read_whole_however_it_comes(stack: AsyncExitStack, app: web.Application, cut: int) -> None:
    """What was read at once and what comes later are one request."""
    listening = bind("127.0.0.1", 0)
    port = listening.getsockname()[1]
    await stack.enter_async_context(serve_ports([Port(app, listening)], 1.0))

    assert await ask(port, REQUEST[:cut], REQUEST[cut:]) == b"hello"


async def test_a_body_larger_than_what_is_read_at_once(stack: AsyncExitStack, app: web.Application) -> None:
    """The rest comes by the ordinary way."""
    app = web.Application(client_max_size=10_000_000)
    app.router.add_post("/", echo)
    listening = bind("127.0.0.1", 0)
    port = listening.getsockname()[1]
    await stack.enter_async_context(serve_ports([Port(app, listening)], 1.0))
    body = bytes(3_000_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n" + body)
    await reader.readuntil(b"\r\n\r\n")
    answered = await reader.readexactly(len(body))
    writer.close()

    assert answered == body


async def test_what_waits_after_a_stop_is_for_who_else_has_the_socket(app: web.Application) -> None:
    """The first of two owners stops; the connections in the queue are served by the second."""
    listening = bind("127.0.0.1", 0)
    other = listening.dup()
    port = listening.getsockname()[1]
    async with serve_ports([Port(app, listening)], 1.0):
        pass
    asking = [asyncio.create_task(ask(port, REQUEST)) for _ in range(20)]
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in asking)
    async with serve_ports([Port(app, other)], 1.0):
        assert await asyncio.gather(*asking) == [b"hello"] * 20


class _Exhausted:
    """A listening socket for which no descriptor is left, so many times."""

    def __init__(self, listening: socket.socket, times: int) -> None:
        self._listening = listening
        self.times = times

    def accept(self) -> tuple[socket.socket, Any]:
        """Fail as often as was asked for."""
        if self.times:
            self.times -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._listening.accept()

    def fileno(self) -> int:
        """The descriptor of the real socket."""
        return self._listening.fileno()

    def close(self) -> None:
        """Close the real one."""
        self._listening.close()


async def test_without_descriptors_it_waits_and_comes_back(
    stack: AsyncExitStack, app: web.Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full table of descriptors is no reason to take the whole processor, or to stop for good."""
    monkeypatch.setattr("impact_plugin.process.listening.PAUSE_SECONDS", 0.01)
    listening = bind("127.0.0.1", 0)
    port = listening.getsockname()[1]
    runner = web.AppRunner(app)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    exhausted: Any = _Exhausted(listening, 3)
    acceptor = Acceptor(exhausted, runner.server)  # type: ignore[arg-type]
    acceptor.start()
    stack.push_async_callback(acceptor.stop)

    assert await ask(port, REQUEST) == b"hello"
    assert exhausted.times == 0


def test_an_address_that_cannot_be_listened_on_is_named() -> None:
    """A port that is taken, a name that means nothing, an address of another machine."""
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        for host, number in (("127.0.0.1", port), ("no-such-host.invalid", 0), ("192.0.2.1", 0)):
            with pytest.raises(SettingsError, match=f"cannot listen on {host}:{number}"):
                bind(host, number)


def test_addresses_are_told_as_clients_write_them() -> None:
    """IPv6 addresses stand in brackets."""
    with bind("127.0.0.1", 0) as four, bind("::1", 0) as six:
        assert url_of(four) == f"http://127.0.0.1:{four.getsockname()[1]}"
        assert url_of(six) == f"http://[::1]:{six.getsockname()[1]}"
