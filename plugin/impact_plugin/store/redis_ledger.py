"""The ledger in Redis or Valkey, for several processes or replicas: one call of one script for each turn.

The script (``ledger.lua``) has the rules of :mod:`impact_plugin.orders.ledger`; the conformance suite holds both to the
port. An attempt of another process is in flight for the lease, by the clocks of the two processes: the lease must be
longer than the longest attempt by more than they differ. If it is not, two processes may have the same order under way,
with the same OrderId. Keys expire by the server's clock.

What is durable is the server's matter: one that forgets its last second at a crash (``appendfsync everysec``) or its
last writes at a failover forgets those attempts, and one that evicts keys forgets orders.
"""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from impact_plugin.orders.ledger import OWNER_BYTES, Begin, LedgerTally, Operation, OrderOutcome, Standing
from impact_plugin.orders.ledger_queue import QueuedLedger
from impact_plugin.store.base import StoreUnavailableError
from impact_plugin.store.redis_server import PREFIX, RedisServer, connect, name_of
from impact_transformers import Secret

SCRIPT: Final = files("impact_plugin.store").joinpath("ledger.lua").read_text(encoding="utf-8")
TURN_SIZE: Final = 256
"""Operations of one call of the script, which is one uninterrupted stretch of the server's time."""

_BEGIN: Final = (1, 2)
_OUTCOMES: Final = {OrderOutcome.DELIVERED: 3, OrderOutcome.NOTHING: 4, OrderOutcome.UNKNOWN: 5}
_STANDINGS: Final = (
    None,
    Standing.CLEAR,
    Standing.AMBIGUOUS,
    Standing.EXPIRED,
    Standing.DELIVERED,
    Standing.BUSY,
)
"""By the script's numbers, as are the two above; None is for a settle."""


class RedisLedgerSettings(msgspec.Struct, frozen=True):
    """Seconds: how long orders are remembered, may be sent again, are in flight; how long to wait for the server."""

    url: Secret
    retention: float
    dedup_window: float
    lease: float
    timeout: float


@asynccontextmanager
async def open_redis_ledger(settings: RedisLedgerSettings, now: Callable[[], float]) -> AsyncIterator["RedisLedger"]:
    """Connect until the block ends; raises :class:`StateError` when the server cannot be used.

    ``now`` is the time in seconds since 1970.
    """
    async with connect(settings) as client:
        ledger = RedisLedger(settings, now, client)
        await ledger.inspect()
        async with ledger.running():
            yield ledger


class RedisLedger(RedisServer, QueuedLedger):
    """See the module; made by :func:`open_redis_ledger`."""

    def __init__(self, settings: RedisLedgerSettings, now: Callable[[], float], client: Redis) -> None:
        RedisServer.__init__(self, settings, client, SCRIPT)
        QueuedLedger.__init__(self, self._place, os.urandom(OWNER_BYTES), settings.timeout, TURN_SIZE)
        self._now = now
        self._lengths = tuple(
            int(seconds * 1000) for seconds in (settings.retention, settings.dedup_window, settings.lease)
        )
        self._encode = msgspec.msgpack.Encoder().encode

    async def tally(self) -> LedgerTally:
        """See the port; the server's own limit is its ``maxmemory``, so there is no capacity to tell."""
        size, evicted = await self._measure()
        return LedgerTally(size, 0, evicted, len(self._in_flight))

    async def _perform(self, operations: Sequence[Operation], *, probe: bool) -> list[Standing | None]:
        """See the queue: one round trip."""
        if probe:
            await self._probe()
        if not operations:
            return []
        rows = self._encode([_row(operation) for operation in operations])
        return self._read(await self._call(PREFIX, *self._lengths, int(self._now() * 1000), rows), len(operations))

    async def _tend(self) -> None:
        """Nothing: the server lets go of its keys by itself."""

    def _read(self, answers: Any, count: int) -> list[Standing | None]:
        try:
            standings = [_STANDINGS[answer] for answer in answers]
        except (IndexError, TypeError):
            standings = []
        if len(standings) != count:
            raise StoreUnavailableError(f"{self._place} cannot be used: its answer is not the script's")
        return standings


def _row(operation: Operation) -> tuple[str, str, int]:
    """An operation as the script reads it."""
    kind = _BEGIN[operation.again] if isinstance(operation, Begin) else _OUTCOMES[operation.outcome]
    return name_of(operation.identity), name_of(operation.attempt), kind
