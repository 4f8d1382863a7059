"""One aiohttp session for both hosts of impact.com; every failure becomes a value."""

from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

import aiohttp

from impact_plugin.delivery.policy import Answer, NoAnswer

MAX_ANSWER: Final = 65536
"""Bytes read of an answer; impact.com's are a few hundred."""

CONNECT_SECONDS: Final = 5.0


class DeliveryClient:
    """Sends forms. Redirects are refused, proxies in the environment are not asked, certificates are verified."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, *, seconds: float) -> Answer | NoAnswer:
        """Send one request and wait at most ``seconds`` for all of it."""
        if self._session is None:
            raise RuntimeError("the client is used outside of its context")
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, CONNECT_SECONDS))
        try:
            async with self._session.post(
                url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                return Answer(response.status, await _beginning(response))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            return NoAnswer(written=False, detail=type(error).__name__)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return NoAnswer(written=True, detail=type(error).__name__)


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """Read an answer up to the limit; what is longer is not one of impact.com's."""
    found = bytearray()
    async for chunk in response.content.iter_chunked(8192):
        found += chunk
        if len(found) >= MAX_ANSWER:
            response.close()
            break
    return bytes(found[:MAX_ANSWER])
