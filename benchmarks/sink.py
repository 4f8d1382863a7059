"""A server that takes any POST and says QUEUED, as cheaply as Python can: what is measured is who sends.

python -m benchmarks.sink PORT
"""

import asyncio
import re
import sys
from typing import Final

BODY: Final = b'{"Status":"QUEUED","QueuedUri":"/Advertisers/IRbench/APISubmissions/A-1"}'
REPLY: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
_LENGTH: Final = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)


class Sink(asyncio.Protocol):
    """One connection: counts bytes of bodies, and answers when one is whole."""

    def __init__(self) -> None:
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a TCP server's are
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        held = self._held + data
        while (end := held.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(held, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(held) < whole:
                break
            held = held[whole:]
            self._transport.write(REPLY)
        self._held = held


async def serve(port: int) -> None:
    """Listen until the process is ended."""
    await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", port, backlog=1024)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
