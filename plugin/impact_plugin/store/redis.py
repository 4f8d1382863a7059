"""Sessions in Redis or Valkey, for several processes or replicas: one call of one script for each batch.

The script (``decide.lua``) has the rules of :mod:`impact_plugin.store.engine`; the conformance suite holds both to the
port.
"""

import asyncio
from binascii import a2b_base64
from collections import deque
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from impact_plugin.store.base import CALL_SIZE, SessionAnswer, SessionQuery, StoreTally, StoreUnavailableError
from impact_plugin.store.engine import Capacities, Engine
from impact_plugin.store.redis_server import PREFIX, RedisServer, connect, name_of
from impact_transformers import Decision, Secret
from impact_transformers.clicks import EARLIEST_MS

SCRIPT: Final = files("impact_plugin.store").joinpath("decide.lua").read_text(encoding="utf-8")
MISSED_LIMIT: Final = 50_000
"""Queries answered by this process alone that are written to the server when it is back; the oldest give way."""

SCANNED: Final = 500
"""Keys looked at in one round trip, where all are looked at."""

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
    async with connect(settings) as client:
        store = RedisStore(settings, client)
        await store.inspect()
        yield store


class RedisStore(RedisServer):
    """See the module; made by :func:`open_redis`."""

    def __init__(self, settings: RedisSettings, client: Redis) -> None:
        super().__init__(settings, client, SCRIPT)
        self._settings: RedisSettings = settings
        self._lifetimes = (
            int(settings.retention * 1000),
            int(settings.referral * 1000),
            int(settings.retention * 1000) + EARLIEST_MS,
        )
        self._alone = self._make_engine()
        self._missed: deque[SessionQuery] = deque()
        self._late_clicks = 0
        self._unsaved = 0
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(_Results).decode

    async def decide(self, queries: Sequence[SessionQuery]) -> list[SessionAnswer]:
        """See the port."""
        if len(queries) <= CALL_SIZE:
            return _answers(self._read(await self._run("both", queries)))
        async with self._deadline():
            return await self._decide_in_turns(queries)

    async def _decide_in_turns(self, queries: Sequence[SessionQuery]) -> list[SessionAnswer]:
        """A round trip for each chunk's writing and, when all are written, for its answers."""
        chunks = [queries[start : start + CALL_SIZE] for start in range(0, len(queries), CALL_SIZE)]
        written = [await self._run("write", chunk) for chunk in chunks]
        for raw in written:
            self._read(raw)
        found: list[SessionAnswer] = []
        for chunk, raw in zip(chunks, written, strict=True):
            found += _answers(self._read(await self._run("read", chunk, raw)))
        return found

    async def decide_locally(self, queries: Sequence[SessionQuery]) -> list[SessionAnswer]:
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

    def _remember_missed(self, queries: Sequence[SessionQuery]) -> None:
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
        names = [name_of(identity) for identity in identities]
        await self._ask("DEL", *[f"{PREFIX}w{name}" for name in names])
        return int(await self._ask("DEL", *[f"{PREFIX}i{name}" for name in names]))

    async def joined(self, identities: Sequence[bytes]) -> list[bytes]:
        """See the port: a walk through the server's keys, some at a time."""
        names = {name_of(identity) for identity in identities}
        found: list[bytes] = []
        cursor: Any = 0
        while True:
            cursor, keys = await self._ask("SCAN", cursor, "MATCH", f"{PREFIX}i*", "COUNT", SCANNED)
            raws = await self._ask("MGET", *keys) if keys else []
            found += [
                a2b_base64(bytes(key).removeprefix(f"{PREFIX}i".encode()))
                for key, raw in zip(keys, raws, strict=True)
                if raw is not None and _names(raw, names)
            ]
            if not int(cursor):
                return found

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

    async def tally(self) -> StoreTally:
        """See the port; the server's own limit is its ``maxmemory``, so there are no capacities to tell."""
        size, evicted = await self._measure()
        found = StoreTally({"keys": size}, {}, {"keys": evicted}, self._late_clicks, self._unsaved)
        self._late_clicks = self._unsaved = 0
        return found

    def _make_engine(self) -> Engine:
        return Engine(self._settings.capacities, int(self._settings.retention * 1000))

    async def _run(self, phase: str, queries: Sequence[SessionQuery], *more: bytes) -> bytes:
        """One phase of a call, of at most ``CALL_SIZE`` queries."""
        rows = self._encode([_row(query) for query in queries])
        raw: bytes = await self._call(PREFIX, *self._lifetimes, phase, rows, *more)
        return raw

    def _read(self, raw: bytes) -> _Results:
        try:
            results = self._decode(raw)
        except (msgspec.DecodeError, TypeError):
            raise StoreUnavailableError(f"{self._place} cannot be used: its answer is not the script's") from None
        self._late_clicks += results.late_clicks
        return results


def _row(query: SessionQuery) -> tuple[Any, ...]:
    """A query as the script reads it; absent parts are false, because nil would end a Lua array."""
    return (
        name_of(query.owner),
        query.time,
        query.key is not None and name_of(query.key),
        query.window,
        query.click_id or False,
        query.anonymous is not None and name_of(query.anonymous),
        query.user is not None and name_of(query.user),
        query.referral,
        query.asks,
        query.joins,
        query.order,
        query.keeps,
        query.first,
    )


def _without(query: SessionQuery, gone: frozenset[bytes]) -> SessionQuery:
    """The query, of which nothing will be remembered for these identities."""
    if query.anonymous not in gone and query.user not in gone:
        return query
    anonymous, user = (None if one in gone else one for one in (query.anonymous, query.user))
    return msgspec.structs.replace(query, anonymous=anonymous, user=user)


def _names(raw: bytes, users: Collection[str]) -> bool:
    """Whether an identity's entry names any of the users."""
    _, known = msgspec.msgpack.decode(raw, type=tuple[Any, list[tuple[Any, str]] | dict[str, Any]])
    return isinstance(known, list) and any(user in users for _, user in known)


def _answers(results: _Results) -> list[SessionAnswer]:
    return [
        SessionAnswer(_DECISIONS[kind], click_id or None, bool(replayed), start, end)
        for kind, click_id, replayed, start, end in results.answers
    ]
