"""The embedded spool: an SQLite file of one process, in the folder of its state.

One commit takes everything that waits to be written, so that it serves many senders. What is taken is known in memory
only: when the process dies, all of it is there to be taken again.

A clock that was set back would hide rows that are due by the old time: nothing is put off for longer than five minutes,
so a row that is due in more than an hour is due at once.
"""

import asyncio
import os
import sqlite3
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeVar

import msgspec

from impact_plugin.dead_letters import Burial
from impact_plugin.spool.base import (
    DeadLetter,
    DeadLetterFilter,
    Death,
    Forgotten,
    NewEvent,
    Row,
    SpoolFullError,
    SpoolTally,
)
from impact_plugin.spool.sqlite_letters import (
    LOG_HELD,
    TRUNCATE_PAUSE,
    Step,
    erase,
    find_people,
    last_letter,
    letter_page,
    purge_page,
    retry_page,
    truncate_log,
)
from impact_plugin.spool.sqlite_look import Look
from impact_plugin.spool.sqlite_rows import (
    Bury,
    Done,
    Later,
    Settle,
    number_of,
    probe,
    write_events,
    write_settled,
)
from impact_plugin.spool.sqlite_schema import (
    FILE,
    LARGEST_WAL,
    Durability,
    connect,
    exclusive,
    transaction,
    unusable,
)
from impact_plugin.spool.sqlite_sweep import Ages, mend, sweep
from impact_plugin.store.base import StoreUnavailableError

TURN_EVENTS: Final = 2000
"""Events of one commit, more only where one sender hands over more: some tens of milliseconds."""

LAG_SECONDS: Final = 0.05
"""How long settled rows wait for company; a sender's events wait for nothing."""

TICK_SECONDS: Final = 1.0
SWEEP_SECONDS: Final = 0.2
"""Of each tick, for letting go of what has run out: faster than it can come in."""

TRUNCATE_TRIES: Final = 40
JUMP_MS: Final = 60_000
"""A clock that went back by so much was set."""

LOST_LANES: Final = 10_000
SHORTEST_WAIT: Final = 1
LONGEST_WAIT: Final = 30
LOOKS: Final = 3
"""How often rows are looked for when all that were found wait behind others."""

_T = TypeVar("_T")


class SqliteSpoolSettings(msgspec.Struct, frozen=True):
    """Limits in rows, bytes and seconds."""

    folder: Path
    max_rows: int
    max_bytes: int
    min_free_bytes: int
    retention: float
    dead_retention: float
    max_dead: int
    seen: float
    max_seen: int
    timeout: float
    durability: Durability = "power"


class _Put(msgspec.Struct, frozen=True):
    """Events that a sender waits for, with the number of their rows and bytes."""

    events: Sequence[NewEvent]
    rows: int
    size: int
    waiter: "asyncio.Future[list[bool]]"


class _Job(msgspec.Struct, frozen=True):
    """Something to be done in the next transaction."""

    work: Callable[[sqlite3.Connection], int]
    waiter: "asyncio.Future[int]"


class _Turn(msgspec.Struct, frozen=True):
    """What goes into one transaction, and who waits for it."""

    puts: Sequence[_Put]
    settled: Sequence[Settle]
    jobs: Sequence[_Job]
    flushes: "Sequence[asyncio.Future[None]]"


@asynccontextmanager
async def open_sqlite_spool(settings: SqliteSpoolSettings, now: Callable[[], float]) -> AsyncIterator["SqliteSpool"]:
    """Keep the spool until the block ends; raises :class:`StateError` when the folder cannot be used.

    ``now`` is the time in seconds since 1970.
    """
    with exclusive(settings.folder):
        opened = partial(connect, settings.folder, timeout=settings.timeout, durability=settings.durability)
        writer = await asyncio.to_thread(opened)
        spool = SqliteSpool(settings, now, writer)
        try:
            await spool.open_reader(opened)
            await asyncio.to_thread(spool.load)
            # A task rather than a task group: the block may be entered and left by different tasks.
            task = asyncio.create_task(spool.run())
            try:
                yield spool
            finally:
                spool.stop()
                await task
        finally:
            await spool.close_reader()
            await asyncio.to_thread(writer.close)


class SqliteSpool:
    """See the module; made by :func:`open_sqlite_spool`."""

    def __init__(
        self,
        settings: SqliteSpoolSettings,
        now: Callable[[], float],
        writer: sqlite3.Connection,
    ) -> None:
        self._settings = settings
        self._now = now
        self._writer = writer
        self._reader = writer
        self._reading = asyncio.Lock()
        # One thread for all reads, and for closing: a read goes on when whoever asked has been cancelled.
        self._readers = ThreadPoolExecutor(1, "spool-reader")
        self._puts: deque[_Put] = deque()
        self._settled: list[Settle] = []
        self._jobs: list[_Job] = []
        self._flushes: list[asyncio.Future[None]] = []
        self._wanted = asyncio.Event()
        self._stopping = self._writing = self._truncates = self._truncated = False
        self._taken: set[int] = set()
        self._put_off = 0
        self._lost: OrderedDict[bytes, None] = OrderedDict()
        self._waiting: dict[str, tuple[int, int]] = {}
        self._dead = self._seen = self._free = 0
        self._oldest: int | None = None
        self._queued_rows = self._queued_bytes = 0
        self._drained, self._drained_at, self._rate = 0, monotonic(), 0.0
        self._expired = self._unordered = self._evicted = 0
        self._latest = self._time()

    def load(self) -> None:
        """Read the counts, and mend what a clock set back has put off; blocks, and is done once."""
        try:
            with transaction(self._writer) as run:
                mend(run, self._time())
            self._count()
        except sqlite3.Error as error:
            raise unusable(self._settings.folder / FILE, error) from error

    async def put(self, events: Sequence[NewEvent]) -> list[bool]:
        """See the port."""
        rows = sum(len(event.rows) for event in events)
        size = sum(len(row.payload) + len(row.visit) for event in events for row in event.rows)
        self._check_room(rows, size)
        put = _Put(events, rows, size, asyncio.get_running_loop().create_future())
        self._puts.append(put)
        self._queued_rows += rows
        self._queued_bytes += size
        self._wanted.set()
        return await self._in_time(put.waiter)

    async def take(self, destination: str, *, urgent: bool, limit: int) -> list[Row]:
        """See the port."""
        if self._put_off:
            # Until it is written, the later ones of its lane do not know that they must wait.
            await self.flush()
        for _ in range(LOOKS):
            async with self._reading:
                # What is settled while the look lasts is still in what it reads.
                look = Look(destination, urgent, limit, self._time(), frozenset(self._taken), frozenset(self._lost))
                await self._read(partial(look.run, self._reader))
                self._keep(look)
            if look.rows or not look.pushes:
                return look.rows
            await self.flush()
        return []

    def release(self, rows: Sequence[Row]) -> None:
        """See the port."""
        self._taken.difference_update(row.number for row in rows)

    def holds(self, row: Row) -> bool:
        """See the port."""
        return row.number in self._taken

    def done(self, row: Row) -> None:
        """See the port."""
        self._drained += 1
        self._settle(Done(row))

    def later(self, row: Row, due: int, *, failed: bool) -> None:
        """See the port."""
        self._put_off += 1
        self._settle(Later(row, due, failed, self._time()))

    def bury(self, row: Row, death: Death) -> None:
        """See the port."""
        self._drained += 1
        self._settle(Bury(row, death, self._time(), tried=True))

    async def flush(self) -> None:
        """See the port."""
        if not self._settled and not self._writing:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flushes.append(waiter)
        self._wanted.set()
        await self._in_time(waiter)

    async def forget(self, people: Sequence[bytes]) -> Forgotten:
        """See the port."""
        waiting, dead = [await self._forget(table, frozenset(people)) for table in ("events", "dead")]
        for _ in range(TRUNCATE_TRIES):
            self._truncates = True
            await self._job(lambda _: 0)
            if self._truncated:
                return Forgotten(waiting, dead)
            await asyncio.sleep(TRUNCATE_PAUSE)
        raise StoreUnavailableError(LOG_HELD)

    async def letters(self, which: DeadLetterFilter) -> AsyncIterator[DeadLetter]:
        """See the port."""
        after, last = 0, await self._last_letter()
        while True:
            async with self._reading:
                page = await self._read(partial(letter_page, self._reader, which, (after, last)))
            if not page:
                return
            for letter in page:
                yield letter
            after = page[-1].number

    async def retry(self, which: DeadLetterFilter) -> int:
        """See the port."""
        return await self._paged(lambda run, span: retry_page(run, which, span, self._time()))

    async def purge(self, which: DeadLetterFilter) -> int:
        """See the port."""
        return await self._paged(lambda run, span: purge_page(run, which, span))

    async def check(self) -> None:
        """See the port: commits what waits, and writes something for the purpose."""
        await self._job(probe)

    async def tally(self) -> SpoolTally:
        """See the port."""
        found = SpoolTally(
            {name: rows for name, (rows, _) in self._waiting.items()},
            self._dead,
            sum(size for _, size in self._waiting.values()),
            self._settings.max_rows,
            self._settings.max_bytes,
            self._oldest,
            self._seen,
            self._expired,
            self._unordered,
            self._evicted,
        )
        self._expired = self._unordered = self._evicted = 0
        return found

    async def run(self) -> None:
        """Write what waits, and let go of what has run out, until :meth:`stop`."""
        loop = asyncio.get_running_loop()
        ticked = loop.time()
        while not self._stopping:
            alarm = loop.call_at(ticked + TICK_SECONDS, self._wanted.set)
            await self._wanted.wait()
            alarm.cancel()
            self._wanted.clear()
            await self._write_all()
            if loop.time() - ticked >= TICK_SECONDS:
                ticked = loop.time()
                await self._tick()
        await self._write_all()

    async def open_reader(self, opened: Callable[[], sqlite3.Connection]) -> None:
        """Open what reads, in the thread that reads."""
        self._reader = await asyncio.get_running_loop().run_in_executor(self._readers, opened)

    async def close_reader(self) -> None:
        """Close what reads, after the last read."""
        if self._reader is not self._writer:
            await asyncio.get_running_loop().run_in_executor(self._readers, self._reader.close)
        self._readers.shutdown(wait=False)

    def stop(self) -> None:
        """Let :meth:`run` write once more and return."""
        self._stopping = True
        self._wanted.set()

    def _settle(self, settle: Settle) -> None:
        if not self._settled:
            asyncio.get_running_loop().call_later(LAG_SECONDS, self._wanted.set)
        self._settled.append(settle)

    def _check_room(self, rows: int, size: int) -> None:
        """Raise :class:`SpoolFullError` when the rows do not fit."""
        settings = self._settings
        held = sum(rows for rows, _ in self._waiting.values()) + self._queued_rows
        held_bytes = sum(size for _, size in self._waiting.values()) + self._queued_bytes
        if held + rows > settings.max_rows:
            seconds = self._room_in(held + rows - settings.max_rows)
            raise SpoolFullError(f"{held} events wait already (spool.max_events)", seconds)
        if held_bytes + size > settings.max_bytes:
            seconds = self._room_in((held_bytes + size - settings.max_bytes) * max(1, held) / max(1, held_bytes))
            raise SpoolFullError("the events that wait fill the spool (spool.max_mb)", seconds)
        if self._free < settings.min_free_bytes + size:
            raise SpoolFullError("the disk is nearly full (spool.min_free_mb)", LONGEST_WAIT)

    def _room_in(self, rows: float) -> int:
        """In how many seconds so many rows will have left, as fast as they did lately."""
        seconds = rows / self._rate if self._rate else LONGEST_WAIT
        return round(max(SHORTEST_WAIT, min(LONGEST_WAIT, seconds)))

    async def _in_time(self, waiter: "asyncio.Future[_T]") -> _T:
        # The write goes on when nobody waits for it any more: what comes again then is a duplicate.
        finished, _ = await asyncio.wait((waiter,), timeout=self._settings.timeout)
        if not finished:
            raise StoreUnavailableError(f"the disk took no commit within {self._settings.timeout:g} s")
        return waiter.result()

    async def _read(self, function: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, function)
        except sqlite3.Error as error:
            raise StoreUnavailableError(f"the spool cannot be read: {error}") from error

    async def _job(self, work: Callable[[sqlite3.Connection], int]) -> int:
        """Do something in the next transaction."""
        job = _Job(work, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._wanted.set()
        return await self._in_time(job.waiter)

    async def _last_letter(self) -> int:
        async with self._reading:
            return await self._read(partial(last_letter, self._reader))

    async def _paged(self, step: Step) -> int:
        """Page by page, so that senders are answered between them."""
        count, after, last = 0, 0, await self._last_letter()
        while True:
            page: list[int] = []

            def work(run: sqlite3.Connection, page: list[int] = page, after: int = after) -> int:
                page[:] = step(run, (after, last))
                return len(page)

            if not await self._job(work):
                return count
            count, after = count + len(page), page[-1]

    async def _forget(self, table: str, people: frozenset[bytes]) -> int:
        async with self._reading:
            found = await self._read(lambda: list(find_people(self._reader, table, people)))
        removed = 0
        for numbers in found:
            if numbers:
                removed += await self._job(partial(erase, table=table, numbers=numbers))
                if table == "events":
                    # A look that began before has found them still.
                    async with self._reading:
                        self._taken.difference_update(numbers)
        return removed

    def _keep(self, look: Look) -> None:
        """Take what was found; what waits behind another is put off with it."""
        for lane in look.found_again:
            self._lost.pop(lane, None)
        for lane in look.newly_lost:
            self._unordered += 1
            self._lost[lane] = None
            if len(self._lost) > LOST_LANES:
                self._lost.popitem(last=False)
        settled: list[Settle] = [
            Bury(row, Death(str(Burial.UNREADABLE), reason), self._time(), tried=False)
            for row, reason in look.unreadable
        ]
        for settle in (*settled, *look.pushes):
            self._taken.add(number_of(settle))
            self._settle(settle)
        self._taken.update(row.number for row in look.rows)

    async def _write_all(self) -> None:
        """Everything that waits, a commit at a time."""
        while self._puts or self._settled or self._jobs or self._flushes:
            if not await self._write_turn(self._next_turn()):
                return

    def _next_turn(self) -> _Turn:
        puts: list[_Put] = []
        events = 0
        while self._puts and events < TURN_EVENTS:
            puts.append(self._puts.popleft())
            events += len(puts[-1].events)
        turn = _Turn(puts, self._settled, self._jobs, self._flushes)
        self._settled, self._jobs, self._flushes = [], [], []
        return turn

    async def _write_turn(self, turn: _Turn) -> bool:
        self._writing = True
        try:
            stored, results = await asyncio.to_thread(self._write, turn)
        except Exception as error:  # noqa: BLE001 - the border of the thread: whatever it met, those who wait must hear
            failure = StoreUnavailableError(f"the spool cannot be written: {error}")
            self._settled[:0] = turn.settled
            waiters: list[asyncio.Future[Any]] = [
                *(put.waiter for put in turn.puts),
                *(job.waiter for job in turn.jobs),
            ]
            for waiter in (*waiters, *turn.flushes):
                if not waiter.done():
                    waiter.set_exception(failure)
                    # Who gave up waiting does not fetch it.
                    waiter.exception()
            return False
        finally:
            self._writing = False
            self._queued_rows -= sum(put.rows for put in turn.puts)
            self._queued_bytes -= sum(put.size for put in turn.puts)
        self._taken.difference_update(map(number_of, turn.settled))
        self._put_off -= sum(isinstance(one, Later) for one in turn.settled)
        for put, answers in zip(turn.puts, stored, strict=True):
            put.waiter.set_result(answers)
        for job, result in zip(turn.jobs, results, strict=True):
            job.waiter.set_result(result)
        for flush in turn.flushes:
            flush.set_result(None)
        return True

    def _write(self, turn: _Turn) -> tuple[list[list[bool]], list[int]]:
        """In a thread: one transaction."""
        with transaction(self._writer) as run:
            write_settled(run, turn.settled, self._lost)
            results = [job.work(run) for job in turn.jobs]
            stored = write_events(run, [put.events for put in turn.puts], self._time())
        # It is written; whatever happens from here on must not make it be written once more.
        with suppress(sqlite3.Error, OSError):
            if self._truncates:
                self._truncates, self._truncated = False, truncate_log(self._writer)
            self._count()
        return stored, results

    async def _tick(self) -> None:
        """Let go of what has run out."""
        try:
            # Nothing is taken meanwhile: what is being sent must not expire.
            async with self._reading:
                await asyncio.to_thread(self._sweep)
        except Exception:  # noqa: BLE001, S110 - the border of a tick: a disk in trouble is told by the commits
            pass
        now = monotonic()
        self._rate += (self._drained / max(TICK_SECONDS, now - self._drained_at) - self._rate) * 0.3
        self._drained, self._drained_at = 0, now

    def _sweep(self) -> None:
        now, settings = self._time(), self._settings
        ages = Ages(
            int(settings.retention * 1000),
            int(settings.dead_retention * 1000),
            settings.max_dead,
            int(settings.seen * 1000),
            settings.max_seen,
        )
        if now < self._latest - JUMP_MS:
            with transaction(self._writer) as run:
                mend(run, now)
        self._latest = now
        deadline, more = monotonic() + SWEEP_SECONDS, True
        while more and monotonic() < deadline:
            with transaction(self._writer) as run:
                swept = sweep(run, ages, now, frozenset(self._taken))
            self._expired += swept.expired
            self._evicted += swept.evicted
            more = swept.more
        self._count()
        wal = settings.folder / f"{FILE}-wal"
        if wal.exists() and wal.stat().st_size > LARGEST_WAL:
            truncate_log(self._writer)

    def _count(self) -> None:
        """Look up what is held; kept by triggers, so it is a few rows whatever the size."""
        run = self._writer
        self._waiting = {name: (rows, size) for name, rows, size in run.execute("SELECT * FROM waiting")}
        self._dead = run.execute("SELECT dead FROM counts").fetchone()[0]
        self._seen = run.execute("SELECT coalesce(sum(rows), 0) FROM seen_hours").fetchone()[0]
        oldest = run.execute("SELECT received FROM events ORDER BY number LIMIT 1").fetchone()
        self._oldest = oldest[0] if oldest is not None and isinstance(oldest[0], int) else None
        disk = os.statvfs(self._settings.folder)
        self._free = disk.f_bavail * disk.f_frsize

    def _time(self) -> int:
        return int(self._now() * 1000)
