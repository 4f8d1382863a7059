"""A small HTTP/1.1 client for load tests: it sends prepared bytes, and reads little more than the status of a reply.

A general client costs more for a request than the service does, and would measure itself. This one keeps connections,
sends one request at a time on each, and reads bodies with a length or in chunks, as the service sends them. It is a
protocol of asyncio, whose callbacks need no task and no event for a request.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
from anyio import Event, fail_after

END: Final = b"\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
MAX_REPLY_BYTES: Final = 256 * 1024 * 1024


class HttpReply(msgspec.Struct, frozen=True, gc=False):
    """A reply: its status, or 0 and the fault; the body only if it was asked to be kept."""

    status: int
    fault: str = ""
    head: bytes = b""
    body: bytes = b""


OnReply = Callable[[HttpReply], None]


class Connection(asyncio.Protocol):
    """One connection; call ``send`` again only after the reply to the last request."""

    def __init__(self) -> None:
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._on_reply: OnReply | None = None
        self._needed = -1
        self._head = b""
        self._keeps_body = False

    def send(self, request: bytes, on_reply: OnReply, *, keep_body: bool = False) -> None:
        """Send the request; ``on_reply`` is called once."""
        self._on_reply, self._keeps_body, self._needed = on_reply, keep_body, -1
        if self._transport is None or self._transport.is_closing():
            self._report(HttpReply(0, "closed"))
            return
        self._transport.write(request)

    async def exchange(self, request: bytes) -> HttpReply:
        """Send the request and return the reply with its body."""
        replies, replied = list[HttpReply](), Event()

        def on_reply(reply: HttpReply) -> None:
            replies.append(reply)
            replied.set()

        self.send(request, on_reply, keep_body=True)
        await replied.wait()
        return replies[0]

    def give_up(self, fault: str) -> None:
        """Stop waiting for the reply, and close the connection."""
        self.close()
        self._report(HttpReply(0, fault))

    def close(self) -> None:
        """Close the connection."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio: report the fault to whoever waits for a reply."""
        self.closed = True
        self._report(HttpReply(0, "reset" if exc is not None else "closed"))

    def data_received(self, data: bytes) -> None:
        """Called by asyncio with a part of a reply."""
        self._buffer += data
        if self._needed < 0 and not self._read_head():
            return
        if self._needed == 0:
            if not self._buffer.endswith(LAST_CHUNK):
                return
        elif len(self._buffer) < self._needed:
            if len(self._buffer) > MAX_REPLY_BYTES:
                self.give_up("too large")
            return
        self._finish()

    def _read_head(self) -> bool:
        """Read the length once the head is complete; 0 stands for a chunked body."""
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
        self._report(HttpReply(status, "", self._head, body))

    def _report(self, reply: HttpReply) -> None:
        on_reply, self._on_reply = self._on_reply, None
        if on_reply is not None:
            on_reply(reply)


async def connect(host: str, port: int, seconds: float = 5.0) -> Connection | str:
    """Open a connection, or name the fault."""
    loop = asyncio.get_running_loop()
    try:
        with fail_after(seconds):
            _, connection = await loop.create_connection(Connection, host, port)
    except TimeoutError:
        return "connect timeout"
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "unreachable"
    return connection


def request_bytes(method: str, host: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    """Build the bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}"]).encode() + END + body
