"""One aiohttp session for both hosts of impact.com; every failure becomes a value."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from impact_plugin.delivery.policy import ImpactAnswer, NoAnswer

MAX_ANSWER: Final = 65536
"""Bytes read of an answer; impact.com's are a few hundred."""

CONNECT_SECONDS: Final = 5.0
DNS_SECONDS: Final = 60
KEEP_ALIVE_SECONDS: Final = 30.0
"""A little less than servers keep an idle connection: a POST on a closed one is ambiguous, and is not repeated."""

_BEFORE_WRITING: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)


class DeliveryClient:
    """Sends forms. Redirects are refused, proxies in the environment are not asked, certificates are verified.

    It has no limit of its own: who sends has a permit of the limiter. Made by :func:`open_delivery_client`.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, *, seconds: float
    ) -> ImpactAnswer | NoAnswer:
        """Send one request and wait at most ``seconds`` for all of it."""
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, CONNECT_SECONDS))
        form = _Form(body)
        try:
            async with self._session.post(
                url, data=form, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                return ImpactAnswer(response.status, await _beginning(response), response.headers)
        except _BEFORE_WRITING as error:
            return NoAnswer(written=False, detail=type(error).__name__)
        except TimeoutError as error:
            # The deadline may end a look-up of the host's name as well as a wait for the answer.
            return NoAnswer(written=form.written, detail=type(error).__name__)
        except (aiohttp.ClientError, OSError) as error:
            return NoAnswer(written=True, detail=type(error).__name__)


@asynccontextmanager
async def open_delivery_client() -> AsyncIterator[DeliveryClient]:
    """Yield a client with a session of its own, closed when the block ends."""
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=DNS_SECONDS, keepalive_timeout=KEEP_ALIVE_SECONDS)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield DeliveryClient(session)


class _Form(aiohttp.BytesPayload):
    """A body that knows whether it was begun to be written: without it impact.com cannot have the request."""

    written = False

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Called by aiohttp when the connection stands."""
        self.written = True
        await super().write_with_length(writer, content_length)


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """Read an answer up to the limit; what is longer is not one of impact.com's."""
    if response.content_length is not None and response.content_length <= MAX_ANSWER:
        return await response.read()
    found = bytearray()
    async for chunk in response.content.iter_chunked(8192):
        found += chunk
        if len(found) >= MAX_ANSWER:
            response.close()
            break
    return bytes(found[:MAX_ANSWER])
