"""A Redis or Valkey server as every backend needs it: its address, a deadline, a script, and errors without secrets.

A backend's rules run in one script of its own, whose keys are made inside it, so it needs one primary, not a cluster.
https://redis.io/docs/latest/develop/programmability/
"""

import asyncio
import hashlib
from binascii import b2a_base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import NoScriptError, RedisError

from impact_plugin.errors import StateError
from impact_plugin.store.base import StoreUnavailableError
from impact_transformers import Secret

PREFIX: Final = "impact-plugin:"
PROBE: Final = f"{PREFIX}check"
PROBE_MS: Final = 1000
CONNECTIONS: Final = 32
OLDEST_VERSION: Final = (6, 2)
LONGEST_CAUSE: Final = 160
NO_ADDRESS: Final = (
    "state.url: is no address of a server: redis://user:password@host:6379/0, rediss://..., or unix:///path; "
    "in user and password write %2F for /, %3F for ?, %23 for # and %40 for @"
)


class Address(Protocol):
    """Of a backend's settings: where the server is, and how long (seconds) to wait for it."""

    @property
    def url(self) -> Secret:
        """Of redis-py's forms: redis://, rediss://, unix://."""

    @property
    def timeout(self) -> float:
        """For each command, or a call of several."""


@asynccontextmanager
async def connect(address: Address) -> AsyncIterator[Redis]:
    """Lend a client until the block ends; raises :class:`StateError` for an address that cannot be one."""
    pool = _make_pool(address)
    try:
        yield Redis(connection_pool=pool)
    finally:
        await pool.disconnect()


def _make_pool(address: Address) -> BlockingConnectionPool:
    """The connections to be; none is opened yet."""
    shown = place(address.url)
    try:
        pool = BlockingConnectionPool.from_url(
            address.url.reveal(),
            max_connections=CONNECTIONS,
            timeout=address.timeout,
            socket_timeout=address.timeout,
            socket_connect_timeout=address.timeout,
        )
        # The URL's options come last there, but answers of the script are bytes.
        pool.connection_kwargs["decode_responses"] = False
        # Options are looked at when a connection is made: better now than at the first batch.
        pool.connection_class(**pool.connection_kwargs)
    except (RedisError, TypeError, ValueError) as error:
        # What they say may quote the URL.
        cause = f"{type(error).__name__}; look at the options after the question mark, and at the database"
        raise StateError(f"state.url: {shown} cannot be used: {cause}") from None
    return pool


def place(url: Secret) -> str:
    """The server's address without user, password and options; raises :class:`StateError` when it is none.

    A password with a slash, a question mark or a hash ends the address before its time, so that a part of it looks like
    a port or a path: then nothing of the URL is told.
    """
    try:
        parts = urlsplit(url.reveal())
        host, port = parts.hostname, parts.port
    except ValueError:
        raise StateError(NO_ADDRESS) from None
    unix = parts.scheme == "unix"
    if "@" not in parts.netloc and (parts.netloc if unix else "@" in url.reveal()):
        raise StateError(NO_ADDRESS)
    if unix:
        return f"unix://{parts.path}"
    shown = f"[{host}]" if host and ":" in host else host or "localhost"
    return f"{parts.scheme}://{shown}" + (f":{port}" if port else "")


def name_of(digest: bytes) -> str:
    """A digest as it stands in keys: printable, because msgpack in Lua knows no bytes."""
    return b2a_base64(digest, newline=False).decode()


class RedisServer:
    """The base of a backend at a server; ``script`` holds its rules."""

    def __init__(self, settings: Address, client: Redis, script: str) -> None:
        self._settings = settings
        self._client: Any = client
        self._place = place(settings.url)
        self._script = script
        self._script_sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._evicted_before = 0

    async def inspect(self) -> None:
        """Raise :class:`StateError` unless the server answers and can do what is needed; load the script."""
        try:
            found = await self._ask("INFO", "server")
            cluster = await self._ask("INFO", "cluster")
            self._refuse_unsuitable(str(found["redis_version"]), cluster)
            await self._probe()
            await self._ask("SCRIPT LOAD", self._script)
            # What was evicted before we came is not news, and the commands of the watch must be allowed to us.
            await self._measure()
        except StoreUnavailableError as error:
            raise StateError(f"state.url: {error}") from error

    def _refuse_unsuitable(self, version: str, cluster: Mapping[str, Any]) -> None:
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_VERSION:
            raise StateError(f"state.url: {self._place} is version {version}; 6.2 or newer is needed")
        if cluster.get("cluster_enabled"):
            raise StateError(f"state.url: {self._place} is a cluster; use one primary, with replicas if you like")

    async def _measure(self) -> tuple[int, int]:
        """How many keys the database has, and how many the server has evicted since the last look."""
        size = int(await self._ask("DBSIZE"))
        total = int((await self._ask("INFO", "stats")).get("evicted_keys", 0))
        evicted, self._evicted_before = max(0, total - self._evicted_before), total
        return size, evicted

    async def _probe(self) -> None:
        """Write something: a full server, or one that became a replica, still answers a ping."""
        await self._ask("SET", PROBE, 1, "PX", PROBE_MS)
        await self._ask("DEL", PROBE)

    async def _call(self, *arguments: Any) -> Any:
        """Run the script: one round trip, unless the server has lost it."""
        try:
            return await self._ask("EVALSHA", self._script_sha, 0, *arguments)
        except _ScriptLostError:
            return await self._ask("EVAL", self._script, 0, *arguments)

    async def _ask(self, *words: Any) -> Any:
        """Send one command within the deadline; every trouble of the server is the same to the caller."""
        try:
            async with self._deadline():
                return await self._client.execute_command(*words)
        except NoScriptError as error:
            raise _ScriptLostError from error
        except (RedisError, OSError) as error:
            cause = f"{type(error).__name__}: {error}"[:LONGEST_CAUSE]
            raise StoreUnavailableError(f"{self._place} cannot be used: {cause}") from None

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        """What happens within takes no longer than a call may."""
        try:
            async with asyncio.timeout(self._settings.timeout):
                yield
        except TimeoutError:
            raise StoreUnavailableError(f"{self._place} did not answer within {self._settings.timeout:g} s") from None


class _ScriptLostError(Exception):
    """The server was restarted or flushed its scripts."""
