"""Pass-through: every request that is not ours goes to the stock transformer and its answer back, as they are."""

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

SECONDS: Final = 600.0
"""rudder-server's own limit for a transformation."""


KEEP_ALIVE_SECONDS: Final = 4.0
"""Node's servers close an idle connection after five; a request on one that is just being closed would be lost."""

MOST_FEATURES: Final = 1024 * 1024
NOT_OURS: Final = "not ours, and no upstream transformer is configured (setting rudder.upstream)"

CHECK_SECONDS: Final = 1.0
"""How often to check whether the router still waits for an answer."""


class Upstream(Protocol):
    """Where requests go that are not ours."""

    is_configured: bool

    async def features(self) -> bytes | None:
        """The upstream's own /features; None when it cannot be had."""
        ...

    async def forward(self, request: web.Request, body: bytes | None) -> web.StreamResponse:
        """Send the request on and stream the answer back; ``body`` is what was read of it already.

        Raises :class:`RefusedError` where there is none, or it does not take the request.
        """
        ...


class NoUpstream:
    """In the place of an upstream where none is configured."""

    is_configured = False

    async def features(self) -> bytes | None:
        """See :class:`Upstream`."""
        return None

    async def forward(self, request: web.Request, body: bytes | None) -> web.StreamResponse:  # noqa: ARG002 - see Upstream
        """See :class:`Upstream`."""
        raise RefusedError(RefusalReason.NOT_OURS, f"{request.method} is {NOT_OURS}")


class Gateway:
    """Streams to the upstream. Bodies are never inflated, nor kept but for those read to tell them apart."""

    is_configured = True

    def __init__(self, upstream: str, session: aiohttp.ClientSession, telemetry: Telemetry) -> None:
        self._base = upstream.rstrip("/")
        self._session = session
        self._telemetry = telemetry

    async def features(self) -> bytes | None:
        """See :class:`Upstream`."""
        try:
            async with self._session.get(f"{self._base}/features", timeout=aiohttp.ClientTimeout(total=5)) as response:
                return await _read_some(response) if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    async def forward(self, request: web.Request, body: bytes | None) -> web.StreamResponse:
        """See :class:`Upstream`."""
        started = perf_counter()
        data: bytes | AsyncIterator[bytes] | None = body
        if body is None and request.can_read_body:
            data = request.content.iter_any()
        asking = self._session.request(
            request.method,
            URL(self._base + request.raw_path, encoded=True),
            headers=_end_to_end(request.headers, {"host", "content-length"} if body is not None else {"host"}),
            data=data,
            allow_redirects=False,
            skip_auto_headers=(hdrs.USER_AGENT, hdrs.CONTENT_TYPE, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING),
        )
        try:
            response = await _ask_while_router_waits(request, asking)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._telemetry.emit(PassedThrough(0, perf_counter() - started))
            raise RefusedError(RefusalReason.UPSTREAM_UNREACHABLE, type(error).__name__) from error
        async with response:
            self._telemetry.emit(PassedThrough(response.status, perf_counter() - started))
            return await _stream_back(request, response)


@asynccontextmanager
async def open_upstream(url: str, telemetry: Telemetry) -> AsyncIterator[Upstream]:
    """Yield the gateway to the stock transformer at the address; "" stands for none."""
    if not url:
        yield NoUpstream()
        return
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=SECONDS, sock_connect=5),
    ) as session:
        yield Gateway(url, session, telemetry)


async def _ask_while_router_waits(
    request: web.Request, asking: Coroutine[Any, Any, aiohttp.ClientResponse]
) -> aiohttp.ClientResponse:
    """The upstream's answer; when the router hangs up before it, the upstream is not kept busy any longer."""
    async with open_background() as tasks:
        tasks.start_soon(_cancel_when_abandoned, request, tasks.cancel_scope)
        return await asking
    raise aiohttp.ClientConnectionError("the router hung up")


async def _cancel_when_abandoned(request: web.Request, scope: CancelScope) -> None:
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 - a transport offers no event to wait for
        await sleep(CHECK_SECONDS)
    scope.cancel()


async def _read_some(response: aiohttp.ClientResponse) -> bytes | None:
    """The body, where it is not too long to be meant."""
    raw = bytearray()
    async for piece in response.content.iter_any():
        raw += piece
        if len(raw) > MOST_FEATURES:
            return None
    return bytes(raw)


def _end_to_end(headers: CIMultiDictProxy[str], dropped: set[str]) -> CIMultiDict[str]:
    """The headers that are not about one connection."""
    named = {name.strip().lower() for name in headers.get(hdrs.CONNECTION, "").split(",")}
    kept = ((name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP | named | dropped)
    return CIMultiDict(kept)


async def _stream_back(request: web.Request, response: aiohttp.ClientResponse) -> web.StreamResponse:
    headers = _end_to_end(response.headers, set())
    answer = web.StreamResponse(status=response.status, reason=response.reason, headers=headers)
    await answer.prepare(request)
    try:
        async for chunk in response.content.iter_any():
            await answer.write(chunk)
    except (aiohttp.ClientError, TimeoutError):
        # Half an answer must not look whole: breaking the connection makes the router ask again.
        if request.transport is not None:
            request.transport.abort()
        return answer
    await answer.write_eof()
    return answer
