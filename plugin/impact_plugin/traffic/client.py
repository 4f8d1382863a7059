"""A small HTTP/1.1 client for load: requests are bytes made before, answers are a status, and little is spent on both.

General clients cost more for a request than the service does, and would measure themselves. This one keeps connections,
sends one request at a time on each, and understands bodies with a length and in chunks: what the service sends.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

END: Final = b"\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
LARGEST_ANSWER: Final = 256 * 1024 * 1024


class HttpAnswer(msgspec.Struct, frozen=True, gc=False):
    """What came back: a status, or 0 and the kind of trouble; ``body`` only where it is wanted."""

    status: int
    trouble: str = ""
    head: bytes = b""
    body: bytes = b""


Done = Callable[[HttpAnswer], None]


class Connection(asyncio.Protocol):
    """One connection; ``ask`` may be called again once the answer to the last request was told."""

    def __init__(self) -> None:
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._done: Done | None = None
        self._needed = -1
        self._head = b""
        self._keeps_body = False

    def ask(self, request: bytes, done: Done, *, keep_body: bool = False) -> None:
        """Send the request; ``done`` is called once."""
        self._done, self._keeps_body, self._needed = done, keep_body, -1
        if self._transport is None or self._transport.is_closing():
            self._tell(HttpAnswer(0, "closed"))
            return
        self._transport.write(request)

    def give_up(self, trouble: str) -> None:
        """Wait no longer; the connection cannot be used again."""
        self.close()
        self._tell(HttpAnswer(0, trouble))

    def close(self) -> None:
        """Let go of it."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio: whoever waits hears of it."""
        self.closed = True
        self._tell(HttpAnswer(0, "reset" if exc is not None else "closed"))

    def data_received(self, data: bytes) -> None:
        """Called by asyncio with a part of an answer."""
        self._buffer += data
        if self._needed < 0 and not self._read_head():
            return
        if self._needed == 0:
            if not self._buffer.endswith(LAST_CHUNK):
                return
        elif len(self._buffer) < self._needed:
            if len(self._buffer) > LARGEST_ANSWER:
                self.give_up("too large")
            return
        self._finish()

    def _read_head(self) -> bool:
        """Read status and length once the head is there; a needed length of 0 stands for chunks."""
        end = self._buffer.find(END)
        if end < 0:
            return False
        self._head = bytes(self._buffer[:end]).lower()
        found = self._head.find(b"content-length:")
        if found >= 0:
            line = self._head[found + 15 :].partition(b"\r\n")[0]
            self._needed = end + len(END) + int(line)
        else:
            self._needed = 0 if b"transfer-encoding: chunked" in self._head else end + len(END)
        return True

    def _finish(self) -> None:
        status = int(self._head[9:12])
        body = bytes(self._buffer[len(self._head) + len(END) :]) if self._keeps_body else b""
        self._buffer.clear()
        if b"connection: close" in self._head:
            self.close()
        self._tell(HttpAnswer(status, "", self._head, body))

    def _tell(self, answer: HttpAnswer) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(answer)


async def connect(host: str, port: int, seconds: float = 5.0) -> Connection | str:
    """A connection, or the kind of trouble."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            _, connection = await loop.create_connection(Connection, host, port)
    except TimeoutError:
        return "connect timeout"
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "unreachable"
    return connection


def request_bytes(method: str, host: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    """A request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}"]).encode() + END + body
