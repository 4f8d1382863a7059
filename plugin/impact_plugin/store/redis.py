"""Sessions in Redis or Valkey, for several processes or replicas: one call of one script for each batch.

The script (``decide.lua``) has the rules of :mod:`impact_plugin.store.engine`; the conformance suite holds both to the
port. Keys are made inside it, so it needs one primary, not a cluster. https://redis.io/docs/latest/develop/programmability/
"""

import asyncio
import hashlib
from binascii import b2a_base64
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import NoScriptError, RedisError

from impact_plugin.errors import StateError
from impact_plugin.store.base import CALL_SIZE, Answer, Query, StoreUnavailableError, Tally
from impact_plugin.store.engine import Capacities, Engine
from impact_transformers import Decision, Secret
from impact_transformers.clicks import EARLIEST_MS

PREFIX: Final = "impact-plugin:"
SCRIPT: Final = files("impact_plugin.store").joinpath("decide.lua").read_text(encoding="utf-8")
SCRIPT_SHA: Final = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
PROBE: Final = f"{PREFIX}check"
PROBE_MS: Final = 1000
CONNECTIONS: Final = 32
OLDEST_VERSION: Final = (6, 2)
MISSED_LIMIT: Final = 50_000
"""Queries answered by this process alone that are written to the server when it is back; the oldest give way."""

LONGEST_CAUSE: Final = 160
NO_ADDRESS: Final = (
    "state.url: is no address of a server: redis://user:password@host:6379/0, rediss://..., or unix:///path; "
    "in user and password write %2F for /, %3F for ?, %23 for # and %40 for @"
)

_DECISIONS: Final = (None, Decision.NEW, Decision.REPEAT)


class RedisSettings(msgspec.Struct, frozen=True):
    """Seconds: ``retention`` and ``referral`` say how long decisions and clicks live, ``timeout`` how long to wait."""

    url: Secret
    capacities: Capacities
    retention: float
    referral: float
    timeout: float


class _Results(msgspec.Struct, frozen=True, array_like=True):
    """What the script returns: decision, click id, replayed, start and end of the window, for each query."""

    answers: list[tuple[int, str, int, int, int]]
    late_clicks: int


@asynccontextmanager
async def open_redis(settings: RedisSettings) -> AsyncIterator["RedisStore"]:
    """Connect until the block ends; raises :class:`StateError` when the server cannot be used."""
    pool = _make_pool(settings)
    store = RedisStore(settings, Redis(connection_pool=pool))
    try:
        await store.inspect()
        yield store
    finally:
        await pool.disconnect()


def _make_pool(settings: RedisSettings) -> BlockingConnectionPool:
    """The connections to be; none is opened yet."""
    address = place(settings.url)
    try:
        pool = BlockingConnectionPool.from_url(
            settings.url.reveal(),
            max_connections=CONNECTIONS,
            timeout=settings.timeout,
            socket_timeout=settings.timeout,
            socket_connect_timeout=settings.timeout,
        )
        # The URL's options come last there, but answers of the script are bytes.
        pool.connection_kwargs["decode_responses"] = False
        # Options are looked at when a connection is made: better now than at the first batch.
        pool.connection_class(**pool.connection_kwargs)
    except (RedisError, TypeError, ValueError) as error:
        # What they say may quote the URL.
        cause = f"{type(error).__name__}; look at the options after the question mark, and at the database"
        raise StateError(f"state.url: {address} cannot be used: {cause}") from None
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


class RedisStore:
    """See the module; made by :func:`open_redis`."""

    def __init__(self, settings: RedisSettings, client: Redis) -> None:
        self._settings = settings
        self._client: Any = client
        self._place = place(settings.url)
        self._lifetimes = (
            int(settings.retention * 1000),
            int(settings.referral * 1000),
            int(settings.retention * 1000) + EARLIEST_MS,
        )
        self._alone = self._make_engine()
        self._missed: deque[Query] = deque()
        self._late_clicks = 0
        self._unsaved = 0
        self._evicted_before = 0
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(_Results).decode

    async def inspect(self) -> None:
        """Raise :class:`StateError` unless the server answers and can do what is needed; load the script."""
        try:
            found = await self._ask("INFO", "server")
            cluster = await self._ask("INFO", "cluster")
            self._refuse_unsuitable(str(found["redis_version"]), cluster)
            await self._probe()
            await self._ask("SCRIPT LOAD", SCRIPT)
            # What was evicted before we came is not news, and the commands of the watch must be allowed to us.
            await self.tally()
        except StoreUnavailableError as error:
            raise StateError(f"state.url: {error}") from error

    def _refuse_unsuitable(self, version: str, cluster: Mapping[str, Any]) -> None:
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_VERSION:
            raise StateError(f"state.url: {self._place} is version {version}; 6.2 or newer is needed")
        if cluster.get("cluster_enabled"):
            raise StateError(f"state.url: {self._place} is a cluster; use one primary, with replicas if you like")

    async def decide(self, queries: Sequence[Query]) -> list[Answer]:
        """See the port."""
        if len(queries) <= CALL_SIZE:
            return _answers(self._read(await self._run("both", queries)))
        async with self._deadline():
            return await self._decide_in_turns(queries)

    async def _decide_in_turns(self, queries: Sequence[Query]) -> list[Answer]:
        """A round trip for each chunk's writing and, when all are written, for its answers."""
        chunks = [queries[start : start + CALL_SIZE] for start in range(0, len(queries), CALL_SIZE)]
        written = [await self._run("write", chunk) for chunk in chunks]
        for raw in written:
            self._read(raw)
        found: list[Answer] = []
        for chunk, raw in zip(chunks, written, strict=True):
            found += _answers(self._read(await self._run("read", chunk, raw)))
        return found

    async def decide_locally(self, queries: Sequence[Query]) -> list[Answer]:
        """See the port: by a memory of this process, which the server gets when it is back."""
        chunks = [queries[start : start + CALL_SIZE] for start in range(0, len(queries), CALL_SIZE)]
        # All at once and first: what is missed after the server came back would wait for the next outage.
        self._remember_missed(queries)
        # Catching up replaces the memory; a call keeps the one it began with.
        alone = self._alone
        parts = []
        for chunk in chunks:
            parts.append(alone.write(chunk))
            await asyncio.sleep(0)
        for chunk, part in zip(chunks, parts, strict=True):
            alone.read(chunk, part)
            await asyncio.sleep(0)
        alone.take_changes()
        return [answer for part in parts for answer in part]

    def _remember_missed(self, queries: Sequence[Query]) -> None:
        self._missed.extend(queries)
        while len(self._missed) > MISSED_LIMIT:
            self._missed.popleft()
            self._unsaved += 1

    async def forget(self, identities: Sequence[bytes]) -> int:
        """See the port."""
        if not identities:
            return 0
        gone = frozenset(identities)
        self._alone.forget(identities)
        # Catching up must not bring back what is to be forgotten; the decisions about messages hold no identity.
        self._missed = deque(_without(query, gone) for query in self._missed)
        names = [_name(identity) for identity in identities]
        await self._ask("DEL", *[f"{PREFIX}w{name}" for name in names])
        return int(await self._ask("DEL", *[f"{PREFIX}i{name}" for name in names]))

    async def check(self) -> None:
        """See the port."""
        await self._probe()
        while self._missed:
            # Taken out first: meanwhile others may be missed, and the oldest of them give way.
            chunk = [self._missed.popleft() for _ in range(min(CALL_SIZE, len(self._missed)))]
            try:
                self._read(await self._run("both", chunk))
            except BaseException:
                self._missed.extendleft(reversed(chunk))
                raise
        self._alone = self._make_engine()

    async def tally(self) -> Tally:
        """See the port; the server's own limit is its ``maxmemory``, so there are no capacities to tell."""
        size = int(await self._ask("DBSIZE"))
        evicted = int((await self._ask("INFO", "stats")).get("evicted_keys", 0))
        found = Tally(
            {"keys": size},
            {},
            {"keys": max(0, evicted - self._evicted_before)},
            self._late_clicks,
            self._unsaved,
        )
        self._evicted_before, self._late_clicks, self._unsaved = evicted, 0, 0
        return found

    def _make_engine(self) -> Engine:
        return Engine(self._settings.capacities, int(self._settings.retention * 1000))

    async def _probe(self) -> None:
        """Write something: a full server, or one that became a replica, still answers a ping."""
        await self._ask("SET", PROBE, 1, "PX", PROBE_MS)
        await self._ask("DEL", PROBE)

    async def _run(self, phase: str, queries: Sequence[Query], *more: bytes) -> bytes:
        """One round trip, unless the server has lost the script."""
        arguments = (0, PREFIX, *self._lifetimes, phase, self._encode([_row(query) for query in queries]), *more)
        try:
            raw: bytes = await self._ask("EVALSHA", SCRIPT_SHA, *arguments)
        except _ScriptLostError:
            raw = await self._ask("EVAL", SCRIPT, *arguments)
        return raw

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

    def _read(self, raw: bytes) -> _Results:
        try:
            results = self._decode(raw)
        except (msgspec.DecodeError, TypeError):
            raise StoreUnavailableError(f"{self._place} cannot be used: its answer is not the script's") from None
        self._late_clicks += results.late_clicks
        return results


class _ScriptLostError(Exception):
    """The server was restarted or flushed its scripts."""


def _row(query: Query) -> tuple[Any, ...]:
    """A query as the script reads it; absent parts are false, because nil would end a Lua array."""
    return (
        _name(query.owner),
        query.time,
        query.key is not None and _name(query.key),
        query.window,
        query.click_id or False,
        query.anonymous is not None and _name(query.anonymous),
        query.user is not None and _name(query.user),
        query.referral,
        query.asks,
        query.joins,
        query.order,
        query.keeps,
        query.first,
    )


def _without(query: Query, gone: frozenset[bytes]) -> Query:
    """The query, of which nothing will be remembered for these identities."""
    if query.anonymous not in gone and query.user not in gone:
        return query
    anonymous, user = (None if one in gone else one for one in (query.anonymous, query.user))
    return msgspec.structs.replace(query, anonymous=anonymous, user=user)


def _name(digest: bytes) -> str:
    """A digest as it stands in keys: printable, because msgpack in Lua knows no bytes."""
    return b2a_base64(digest, newline=False).decode()


def _answers(results: _Results) -> list[Answer]:
    return [
        Answer(_DECISIONS[kind], click_id or None, bool(replayed), start, end)
        for kind, click_id, replayed, start, end in results.answers
    ]
