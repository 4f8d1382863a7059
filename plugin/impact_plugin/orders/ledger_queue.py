"""What every backend of the ledger does alike: operations wait in one queue, and go to the state in turns.

While a turn is under way the next ones gather, so that one commit or one round trip serves many. Whoever has stopped
waiting for a begin has not sent anything: the begin leaves the queue or, where it was or may have been written, the
attempt is taken back by its name, which harms no other attempt of the same order.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, cast

from impact_plugin.errors import StateUnavailableError
from impact_plugin.orders.ledger import (
    BEGUN,
    COUNT_BYTES,
    Begin,
    LedgerTally,
    Operation,
    OrderOutcome,
    Settle,
    Standing,
)

TICK_SECONDS: Final = 1.0
WITHDRAWN_LIMIT: Final = 10_000
"""Begins nobody waited for that are still to be taken back; of more the oldest stay, as attempts of unknown outcome."""


class _Entry(NamedTuple):
    """An operation and who waits for it; without one, somebody waits until all before is written.

    ``probe`` is for those who want something to be written in any case.
    """

    operation: Operation | None
    waiter: asyncio.Future[Standing | None] | None
    probe: bool = False


class QueuedLedger(ABC):
    """A ledger but for the writing; takes turns while :meth:`running` does."""

    def __init__(self, place: str, owner: bytes, timeout: float, turn_size: int) -> None:
        """``owner`` is random, of this start of the process; ``timeout`` in seconds; ``place`` is named in errors."""
        self._place = place
        self._owner = owner
        self._timeout = timeout
        self._turn_size = turn_size
        self._count = 0
        self._in_flight: dict[bytes, bytes] = {}
        self._queue: deque[_Entry] = deque()
        self._withdrawn: deque[Settle] = deque(maxlen=WITHDRAWN_LIMIT)
        self._wanted = asyncio.Event()
        self._stopping = False

    async def begin(self, identity: bytes, *, again: bool = False) -> Standing:
        """See the port."""
        self._count += 1
        begin = Begin(identity, self._owner + self._count.to_bytes(COUNT_BYTES), again)
        waiter = asyncio.get_running_loop().create_future()
        try:
            standing = await self._wait(_Entry(begin, waiter))
        except BaseException:
            # The answer may have come at the very moment the caller stopped waiting for it.
            if self._in_flight.get(identity) == begin.attempt:
                del self._in_flight[identity]
                self._withdraw(begin)
                self._wanted.set()
            raise
        # Who begins is answered; only the others that wait are told nothing.
        return cast("Standing", standing)

    async def settle(self, identity: bytes, outcome: OrderOutcome) -> None:
        """See the port."""
        self._queue.append(_Entry(Settle(identity, self._in_flight.pop(identity, b""), outcome), None))
        self._wanted.set()

    async def flush(self) -> None:
        """See the port."""
        await self._wait(_Entry(None, asyncio.get_running_loop().create_future()))

    async def check(self) -> None:
        """See the port."""
        await self._wait(_Entry(None, asyncio.get_running_loop().create_future(), probe=True))

    @abstractmethod
    async def tally(self) -> LedgerTally:
        """See the port."""

    @abstractmethod
    async def _perform(self, operations: Sequence[Operation], *, probe: bool) -> list[Standing | None]:
        """Carry out and make durable; with ``probe`` write something in any case. An error may leave it half done."""

    @abstractmethod
    async def _tend(self) -> None:
        """What is done every second; must not fail."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take turns until the block ends; what was settled is written before it does, unless the state is down."""
        # A task of its own, not of a group: what is written last is written also when the block is cancelled.
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._stopping = True
            self._wanted.set()
            await task

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        tended = loop.time()
        alarm = loop.call_at(tended + TICK_SECONDS, self._wanted.set)
        while not self._stopping:
            await self._wanted.wait()
            self._wanted.clear()
            await self._turn()
            if loop.time() - tended >= TICK_SECONDS:
                tended = loop.time()
                await self._tend()
                alarm = loop.call_at(tended + TICK_SECONDS, self._wanted.set)
        alarm.cancel()
        while (self._queue or self._withdrawn) and await self._turn():
            pass

    async def _wait(self, entry: _Entry) -> Standing | None:
        """Queue up and wait for the answer, but not for long."""
        if self._stopping or entry.waiter is None:
            raise StateUnavailableError(f"{self._place}: the ledger of orders is closed")
        self._queue.append(entry)
        self._wanted.set()
        try:
            async with asyncio.timeout(self._timeout):
                return await entry.waiter
        except TimeoutError:
            raise StateUnavailableError(f"{self._place} took no order within {self._timeout:g} s") from None

    async def _turn(self) -> bool:
        """Carry out what waits, up to the size of a turn; tells whether the state took it."""
        withdrawn = [self._withdrawn.popleft() for _ in range(min(self._turn_size, len(self._withdrawn)))]
        entries = self._next_entries()
        if not entries and not withdrawn:
            return True
        operations = [*withdrawn, *(entry.operation for entry in entries if entry.operation is not None)]
        try:
            standings = await self._perform(operations, probe=any(entry.probe for entry in entries))
        except StateUnavailableError as error:
            self._fail(withdrawn, entries, error)
            return False
        except Exception as error:  # noqa: BLE001 - the border of the state: whatever it met, those who wait must hear
            self._fail(withdrawn, entries, StateUnavailableError(f"the orders cannot be written: {error}"))
            return False
        answers = iter(standings[len(withdrawn) :])
        for entry in entries:
            self._tell(entry, None if entry.operation is None else next(answers))
        if self._queue or self._withdrawn:
            self._wanted.set()
        return True

    def _next_entries(self) -> list[_Entry]:
        """Of the queue, without those for whose answer nobody waits any more: they are not begun at all."""
        entries: list[_Entry] = []
        while self._queue and len(entries) < self._turn_size:
            entry = self._queue.popleft()
            if entry.waiter is None or not entry.waiter.done():
                entries.append(entry)
        return entries

    def _tell(self, entry: _Entry, standing: Standing | None) -> None:
        """Answer whoever waits; take back what was begun for somebody who has gone."""
        operation, waiter = entry.operation, entry.waiter
        if waiter is None:
            return
        if isinstance(operation, Begin) and standing in BEGUN:
            if waiter.done():
                self._withdraw(operation)
                return
            self._in_flight[operation.identity] = operation.attempt
        if not waiter.done():
            waiter.set_result(standing)

    def _fail(self, withdrawn: Sequence[Settle], entries: Sequence[_Entry], error: StateUnavailableError) -> None:
        """Tell those who wait; what was settled stays for a later turn, before all that came meanwhile.

        The begins may have been written all the same, and are taken back when the state is back.
        """
        self._withdrawn = deque([*withdrawn, *self._withdrawn], WITHDRAWN_LIMIT)
        self._queue.extendleft(entry for entry in reversed(entries) if entry.waiter is None)
        for entry in entries:
            if isinstance(entry.operation, Begin):
                self._withdraw(entry.operation)
            if entry.waiter is not None and not entry.waiter.done():
                entry.waiter.set_exception(error)

    def _withdraw(self, begin: Begin) -> None:
        self._withdrawn.append(Settle(begin.identity, begin.attempt, OrderOutcome.NOTHING))
