"""Pass-through: requests for other destinations go to the stock transformer and its responses back, unchanged."""

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any, Final, Protocol

import aiohttp
from aiohttp import hdrs, web
from anyio import CancelScope, sleep
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from impact_plugin.process.background import open_background
from impact_plugin.protocols.refusals import RefusalReason, RefusedError
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.http import PassedThrough

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that belong to one connection. https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1"""

TIMEOUT_SECONDS: Final = 600.0
"""rudder-server's own timeout for a transformation."""

KEEP_ALIVE_SECONDS: Final = 4.0
"""Node's servers close idle connections after five seconds; a request sent at that moment would be lost."""

MAX_FEATURES_BYTES: Final = 1024 * 1024
NO_UPSTREAM: Final = "not ours, and no upstream transformer is configured (setting rudder.upstream)"

CHECK_SECONDS: Final = 1.0
"""How often to check whether the router still waits for the response."""


class Upstream(Protocol):
    """Handles requests for other destinations."""

    is_configured: bool

    async def features(self) -> bytes | None:
        """Return the upstream's own /features, None if it cannot be fetched."""
        ...

    async def forward(self, request: web.Request, body: bytes | None) -> web.StreamResponse:
        """Forward the request and stream the response back; ``body`` is the body if it was read already.

        Raises :class:`RefusedError` if there is no upstream, or if it cannot be reached.
        """
        ...


class NoUpstream:
    """Stands in when no upstream is configured."""

    is_configured = False

    async def features(self) -> bytes | None:
        """See :class:`Upstream`."""
        return None

    async def forward(self, request: web.Request, body: bytes | None) -> web.StreamResponse:  # noqa: ARG002 - see Upstream
        """See :class:`Upstream`."""
        raise RefusedError(RefusalReason.NOT_OURS, f"{request.method} is {NO_UPSTREAM}")


class Gateway:
    """Streams requests to the upstream. Never decompresses bodies, and buffers only those read for routing."""

    is_configured = True

    def __init__(self, upstream: str, session: aiohttp.ClientSession, telemetry: Telemetry) -> None:
        self._base = upstream.rstrip("/")
        self._session = session
        self._telemetry = telemetry

    async def features(self) -> bytes | None:
        """See :class:`Upstream`."""
        try:
            async with self._session.get(f"{self._base}/features", timeout=aiohttp.ClientTimeout(total=5)) as response:
                return await _read_bounded(response) if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    async def forward(self, request: web.Request, body: bytes | None) -> web.StreamResponse:
        """See :class:`Upstream`."""
        started = perf_counter()
        data: bytes | AsyncIterator[bytes] | None = body
        if body is None and request.can_read_body:
            data = request.content.iter_any()
        sending = self._session.request(
            request.method,
            URL(self._base + request.raw_path, encoded=True),
            headers=_end_to_end(request.headers, {"host", "content-length"} if body is not None else {"host"}),
            data=data,
            allow_redirects=False,
            skip_auto_headers=(hdrs.USER_AGENT, hdrs.CONTENT_TYPE, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING),
        )
        try:
            response = await _send_unless_abandoned(request, sending)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._telemetry.emit(PassedThrough(0, perf_counter() - started))
            raise RefusedError(RefusalReason.UPSTREAM_UNREACHABLE, type(error).__name__) from error
        async with response:
            self._telemetry.emit(PassedThrough(response.status, perf_counter() - started))
            return await _stream_back(request, response)


@asynccontextmanager
async def open_upstream(url: str, telemetry: Telemetry) -> AsyncIterator[Upstream]:
    """Yield the gateway to the stock transformer at ``url``; "" means that there is none."""
    if not url:
        yield NoUpstream()
        return
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS, sock_connect=5),
    ) as session:
        yield Gateway(url, session, telemetry)


async def _send_unless_abandoned(
    request: web.Request, sending: Coroutine[Any, Any, aiohttp.ClientResponse]
) -> aiohttp.ClientResponse:
    """Return the upstream's response; cancels the request when the router disconnects first."""
    async with open_background() as tasks:
        tasks.start_soon(_cancel_when_abandoned, request, tasks.cancel_scope)
        return await sending
    raise aiohttp.ClientConnectionError("the router disconnected")


async def _cancel_when_abandoned(request: web.Request, scope: CancelScope) -> None:
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 - a transport offers no event to wait for
        await sleep(CHECK_SECONDS)
    scope.cancel()


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes | None:
    """Return the body, None if it is implausibly long."""
    raw = bytearray()
    async for piece in response.content.iter_any():
        raw += piece
        if len(raw) > MAX_FEATURES_BYTES:
            return None
    return bytes(raw)


def _end_to_end(headers: CIMultiDictProxy[str], dropped: set[str]) -> CIMultiDict[str]:
    """Return the headers without the hop-by-hop ones and those in ``dropped``."""
    named = {name.strip().lower() for name in headers.get(hdrs.CONNECTION, "").split(",")}
    kept = ((name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP | named | dropped)
    return CIMultiDict(kept)


async def _stream_back(request: web.Request, response: aiohttp.ClientResponse) -> web.StreamResponse:
    headers = _end_to_end(response.headers, set())
    streamed = web.StreamResponse(status=response.status, reason=response.reason, headers=headers)
    await streamed.prepare(request)
    try:
        async for chunk in response.content.iter_any():
            await streamed.write(chunk)
    except (aiohttp.ClientError, TimeoutError):
        # A truncated response must not look complete: aborting the connection makes the router retry.
        if request.transport is not None:
            request.transport.abort()
        return streamed
    await streamed.write_eof()
    return streamed
