"""One aiohttp session for both hosts of impact.com; every failure becomes a value."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from impact_plugin.delivery.policy import ImpactResponse, NoResponse

MAX_RESPONSE_BYTES: Final = 65536
"""Bytes of a response that are read; those of impact.com have a few hundred."""

CONNECT_SECONDS: Final = 5.0
DNS_SECONDS: Final = 60
KEEP_ALIVE_SECONDS: Final = 30.0
"""Less than servers keep an idle connection: a POST on one that they close is ambiguous, and not repeated."""

_BEFORE_WRITING: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)


class DeliveryClient:
    """Sends forms. It follows no redirects, ignores proxies in the environment, and verifies certificates.

    It has no limits of its own: acquire a permit of the limiter first. Made by :func:`open_delivery_client`.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, *, seconds: float
    ) -> ImpactResponse | NoResponse:
        """Send one request and wait at most ``seconds`` for all of it."""
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, CONNECT_SECONDS))
        form = _Form(body)
        try:
            async with self._session.post(
                url, data=form, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                return ImpactResponse(response.status, await _read_beginning(response), response.headers)
        except _BEFORE_WRITING as error:
            return NoResponse(written=False, detail=type(error).__name__)
        except TimeoutError as error:
            # The deadline may end the DNS lookup as well as the wait for the response.
            return NoResponse(written=form.written, detail=type(error).__name__)
        except (aiohttp.ClientError, OSError) as error:
            return NoResponse(written=True, detail=type(error).__name__)


@asynccontextmanager
async def open_delivery_client() -> AsyncIterator[DeliveryClient]:
    """Yield a client with a session of its own, closed when the block ends."""
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=DNS_SECONDS, keepalive_timeout=KEEP_ALIVE_SECONDS)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield DeliveryClient(session)


class _Form(aiohttp.BytesPayload):
    """A body that records whether aiohttp began to write it: if not, impact.com cannot have the request."""

    written = False

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Called by aiohttp when the connection is established."""
        self.written = True
        await super().write_with_length(writer, content_length)


async def _read_beginning(response: aiohttp.ClientResponse) -> bytes:
    """Read a body up to the limit."""
    if response.content_length is not None and response.content_length <= MAX_RESPONSE_BYTES:
        return await response.read()
    body = bytearray()
    async for chunk in response.content.iter_chunked(8192):
        body += chunk
        if len(body) >= MAX_RESPONSE_BYTES:
            response.close()
            break
    return bytes(body[:MAX_RESPONSE_BYTES])
