"""The embedded spool: an SQLite file of one process, in the folder of its state.

One commit takes everything that waits to be written, so that it serves many senders. What is taken is known in memory
only: when the process dies, all of it is there to be taken again.

A clock that was set back would hide rows that are due by the old time: nothing is put off for longer than five minutes,
so a row that is due in more than an hour is due at once.
"""

import asyncio
import os
import sqlite3
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeVar

from impact_plugin.config.settings import SpoolSettings, StateSettings
from impact_plugin.errors import StateUnavailableError
from impact_plugin.files import hold_file
from impact_plugin.spool.base import (
    DeadLetter,
    DeadLetterCause,
    DeadLetterFilter,
    Forgotten,
    NewEvent,
    SpoolFullError,
    SpoolRow,
    SpoolTally,
)
from impact_plugin.spool.reasons import DeadLetterReason
from impact_plugin.spool.sqlite_letters import (
    LOG_HELD,
    PAGE,
    TRUNCATE_PAUSE,
    TRUNCATE_SECONDS,
    Step,
    erase,
    find_people,
    last_letter,
    letter_page,
    purge_page,
    retry_page,
    truncate_log,
)
from impact_plugin.spool.sqlite_look import DueRows
from impact_plugin.spool.sqlite_rows import BuriedRow, FinishedRow, Lane, Later, Settle, number_of, probe, storable
from impact_plugin.spool.sqlite_schema import (
    FILE,
    LARGEST_WAL,
    LOCK,
    TAKEN,
    connect,
    transaction,
    unusable,
)
from impact_plugin.spool.sqlite_sweep import Ages, Old, find_old, mend, sweep
from impact_plugin.spool.sqlite_turn import Put, SpoolTurn, SpoolWrite, Written, write_turn
from impact_plugin.units import DAY_SECONDS, HOUR_SECONDS, MIB

TURN_EVENTS: Final = 2000
"""Events of one commit, more only where one sender hands over more: some tens of milliseconds."""

LAG_SECONDS: Final = 0.05
"""How long settled rows wait for company; a sender's events wait for nothing."""

TICK_SECONDS: Final = 1.0
SWEEP_SECONDS: Final = 0.05
"""For letting go of what has run out, at a time: senders wait as long."""

SWEEP_PAUSE: Final = 0.05
"""Until the next time while there is more to let go of: faster than it can come in."""

LOST_LANES: Final = 10_000
SHORTEST_WAIT: Final = 1
LONGEST_WAIT: Final = 30
LOOKS: Final = 3
"""How often rows are looked for when all that were found wait behind others."""

_T = TypeVar("_T")


@asynccontextmanager
async def open_sqlite_spool(
    settings: SpoolSettings, state: StateSettings, now: Callable[[], float]
) -> AsyncIterator["SqliteSpool"]:
    """Keep the spool, in the folder of the state, until the block ends.

    ``now`` is the time in seconds since 1970. Raises :class:`StateError` when the folder cannot be used.
    """
    folder = Path(state.dir)
    with hold_file(folder / LOCK, unusable, TAKEN):
        opened = partial(connect, folder, timeout=settings.timeout_seconds, durability=state.durability)
        spool = SqliteSpool(settings, folder, now)
        try:
            await spool.open(opened)
            # A task of its own, not of a group: what is written last is written also when the block is cancelled.
            task = asyncio.create_task(spool.run())
            try:
                yield spool
            finally:
                spool.stop()
                await task
        finally:
            await spool.close()


class SqliteSpool:
    """See the module; made by :func:`open_sqlite_spool`."""

    _writer: sqlite3.Connection
    _reader: sqlite3.Connection

    def __init__(self, settings: SpoolSettings, folder: Path, now: Callable[[], float]) -> None:
        self._settings = settings
        self._folder = folder
        self._now = now
        self._reading = asyncio.Lock()
        # A thread for each connection, which closes it too: a read goes on when whoever asked has been cancelled.
        self._readers, self._writers = ThreadPoolExecutor(1, "spool-reader"), ThreadPoolExecutor(1, "spool-writer")
        self._puts: OrderedDict[asyncio.Future[list[bool]], Put] = OrderedDict()
        self._settled: list[Settle] = []
        self._jobs: dict[asyncio.Future[int], SpoolWrite] = {}
        self._flushes: dict[asyncio.Future[None], None] = {}
        self._wanted = asyncio.Event()
        self._stopping = self._settling = False
        self._taken: set[int] = set()
        self._put_off: set[int] = set()
        self._lost: OrderedDict[Lane, None] = OrderedDict()
        self._waiting: dict[str, tuple[int, int]] = {}
        self._dead = self._seen = self._free = 0
        self._oldest: int | None = None
        self._queued_rows = self._queued_bytes = 0
        self._drained, self._drained_at, self._rate = 0, monotonic(), 0.0
        self._expired = self._unordered = self._evicted = 0

    async def open(self, opened: Callable[[], sqlite3.Connection]) -> None:
        """Open the file twice, once for each thread, and read the counts; raises :class:`StateError`."""
        loop = asyncio.get_running_loop()
        self._writer = await loop.run_in_executor(self._writers, opened)
        self._reader = await loop.run_in_executor(self._readers, opened)
        await loop.run_in_executor(self._writers, self._load)

    def _load(self) -> None:
        """Read the counts, and mend what a clock set back has put off."""
        try:
            with transaction(self._writer) as run:
                mend(run, self._time())
            self._count()
        except sqlite3.Error as error:
            raise unusable(self._folder / FILE, error) from error

    async def put(self, events: Sequence[NewEvent]) -> list[bool]:
        """See the port."""
        rows = sum(len(event.rows) for event in events)
        size = sum(len(row.payload) + len(row.visit) for event in events for row in event.rows)
        self._check_room(rows, size)
        put = Put(events, rows, size, asyncio.get_running_loop().create_future())
        self._queued_rows += rows
        self._queued_bytes += size
        put.waiter.add_done_callback(lambda _: self._leave_queue(put))
        self._puts[put.waiter] = put
        self._wanted.set()
        return await self._in_time(put.waiter, self._puts)

    async def take(self, destination: str, *, urgent: bool, limit: int) -> list[SpoolRow]:
        """See the port."""
        for _ in range(LOOKS):
            if self._put_off:
                # Until it is written, the later ones of its lane do not know that they must wait.
                await self.flush()
            async with self._reading:
                # What is settled while the look lasts is still in what it reads.
                taken, lost = frozenset(self._taken), frozenset(self._lost)
                look = DueRows(storable(destination), urgent, limit, self._time(), taken, lost)
                await self._read(partial(look.run, self._reader))
                rows = self._keep(look)
            if rows or not (look.pushes or look.rows):
                return rows
            await self.flush()
        return []

    def release(self, rows: Sequence[SpoolRow]) -> None:
        """See the port."""
        self._taken.difference_update(row.number for row in rows)

    def holds(self, row: SpoolRow) -> bool:
        """See the port."""
        return row.number in self._taken

    def done(self, row: SpoolRow) -> None:
        """See the port."""
        self._drained += 1
        self._settle(FinishedRow(row))

    def later(self, row: SpoolRow, due: int, *, failed: bool) -> None:
        """See the port."""
        self._put_off.add(row.number)
        self._settle(Later(row, due, failed, self._time()))

    def bury(self, row: SpoolRow, death: DeadLetterCause) -> None:
        """See the port."""
        self._drained += 1
        self._settle(BuriedRow(row, death, self._time(), tried=True))

    async def flush(self) -> None:
        """See the port."""
        if not self._settled and not self._settling:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flushes[waiter] = None
        self._wanted.set()
        await self._in_time(waiter, self._flushes)

    async def forget(self, people: Sequence[bytes]) -> Forgotten:
        """See the port."""
        waiting, dead = [await self._forget(table, frozenset(people)) for table in ("events", "dead")]
        deadline = monotonic() + TRUNCATE_SECONDS
        while not await self._truncate():
            if monotonic() > deadline:
                raise StateUnavailableError(LOG_HELD)
            await asyncio.sleep(TRUNCATE_PAUSE)
        return Forgotten(waiting, dead)

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
            self._settings.max_events,
            self._settings.max_mb * MIB,
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
        sweeps_at = loop.time() + TICK_SECONDS
        while not self._stopping:
            alarm = loop.call_at(sweeps_at, self._wanted.set)
            await self._wanted.wait()
            alarm.cancel()
            self._wanted.clear()
            try:
                await self._write_all()
                if loop.time() >= sweeps_at:
                    sweeps_at = loop.time() + TICK_SECONDS
                    if await self._tick():
                        sweeps_at = loop.time() + SWEEP_PAUSE
            except (sqlite3.Error, OSError, StateUnavailableError):
                # A disk in trouble is told to whoever wants something of it.
                pass
            except Exception as error:  # noqa: BLE001 - the border of the spool: without this task nobody is served
                loop.call_exception_handler({"message": "the spool met a defect", "exception": error})
        await self._write_all()

    async def close(self) -> None:
        """Close the file, after what was begun."""
        loop = asyncio.get_running_loop()
        for name, thread in (("_reader", self._readers), ("_writer", self._writers)):
            if hasattr(self, name):
                await loop.run_in_executor(thread, getattr(self, name).close)
            thread.shutdown(wait=False)

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
        most, most_bytes = self._settings.max_events, self._settings.max_mb * MIB
        held = sum(rows for rows, _ in self._waiting.values()) + self._queued_rows
        held_bytes = sum(size for _, size in self._waiting.values()) + self._queued_bytes
        if held + rows > most:
            seconds = self._room_in(held + rows - most)
            raise SpoolFullError(f"{held} events wait already (spool.max_events)", seconds)
        if held_bytes + size > most_bytes:
            seconds = self._room_in((held_bytes + size - most_bytes) * max(1, held) / max(1, held_bytes))
            raise SpoolFullError("the events that wait fill the spool (spool.max_mb)", seconds)
        if self._free < self._settings.min_free_mb * MIB + size:
            raise SpoolFullError("the disk is nearly full (spool.min_free_mb)", LONGEST_WAIT)

    def _room_in(self, rows: float) -> int:
        """In how many seconds so many rows will have left, as fast as they did lately."""
        seconds = rows / self._rate if self._rate else LONGEST_WAIT
        return round(max(SHORTEST_WAIT, min(LONGEST_WAIT, seconds)))

    def _leave_queue(self, put: Put) -> None:
        self._queued_rows -= put.rows
        self._queued_bytes -= put.size

    async def _in_time(self, waiter: "asyncio.Future[_T]", queue: "MutableMapping[asyncio.Future[_T], Any]") -> _T:
        """Wait until it is written; what was not even begun then is dropped, so that nothing piles up."""
        try:
            finished, _ = await asyncio.wait((waiter,), timeout=self._settings.timeout_seconds)
        finally:
            # What was begun goes on when nobody waits for it any more: what comes again then is a duplicate.
            if queue.pop(waiter, waiter) is not waiter:
                waiter.cancel()
        if not finished:
            raise StateUnavailableError(f"the disk took no commit within {self._settings.timeout_seconds:g} s")
        return waiter.result()

    async def _read(self, function: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, function)
        except sqlite3.Error as error:
            raise StateUnavailableError(f"the spool cannot be read: {error}") from error

    async def _job(self, work: Callable[[sqlite3.Connection], int]) -> int:
        """Do something in the next transaction."""
        job = SpoolWrite(work, asyncio.get_running_loop().create_future())
        self._jobs[job.waiter] = job
        self._wanted.set()
        return await self._in_time(job.waiter, self._jobs)

    async def _truncate(self) -> bool:
        async with self._reading:
            # Nor must this process itself read the log.
            return await asyncio.get_running_loop().run_in_executor(self._writers, truncate_log, self._writer)

    async def _last_letter(self) -> int:
        async with self._reading:
            return await self._read(partial(last_letter, self._reader))

    async def _paged(self, step: Step) -> int:
        """Page by page, so that senders are answered between them; what was buried before is meant too."""
        await self.flush()
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
        """Stretch by stretch, so that rows are taken between them."""
        removed, after = 0, 0
        while True:
            async with self._reading:
                numbers, last = await self._read(partial(find_people, self._reader, table, people, after))
            for start in range(0, len(numbers), PAGE):
                part = numbers[start : start + PAGE]
                removed += await self._job(partial(erase, table=table, numbers=part))
                if table == "events":
                    # A look that began before has found them still.
                    async with self._reading:
                        self._taken.difference_update(part)
            if last is None:
                return removed
            after = last

    def _keep(self, look: DueRows) -> list[SpoolRow]:
        """Take what was found; what waits behind another is put off with it."""
        for lane in look.found_again:
            self._lost.pop(lane, None)
        for lane in look.newly_lost:
            self._unordered += 1
            self._lost[lane] = None
            if len(self._lost) > LOST_LANES:
                self._lost.popitem(last=False)
        settled: list[Settle] = [
            BuriedRow(row, DeadLetterCause(str(DeadLetterReason.UNREADABLE), reason), self._time(), tried=False)
            for row, reason in look.unreadable
        ]
        for settle in (*settled, *look.pushes):
            self._taken.add(number_of(settle))
            self._settle(settle)
        # Whoever had the first rows of a lane may have given them back while the look lasted: they go first.
        under_way = self._taken - self._put_off
        broken = {lane for lane, numbers in look.behind.items() if not numbers <= under_way}
        rows = [row for row in look.rows if row.lane not in broken]
        self._taken.update(row.number for row in rows)
        return rows

    async def _write_all(self) -> None:
        """Everything that waits, a commit at a time."""
        while self._puts or self._settled or self._jobs or self._flushes:
            if not await self._write_turn(self._next_turn()):
                return

    def _next_turn(self) -> SpoolTurn:
        puts: list[Put] = []
        events = 0
        while self._puts and events < TURN_EVENTS:
            puts.append(self._puts.popitem(last=False)[1])
            events += len(puts[-1].events)
        turn = SpoolTurn(puts, self._settled, list(self._jobs.values()), list(self._flushes))
        self._settled = []
        self._jobs.clear()
        self._flushes.clear()
        return turn

    async def _write_turn(self, turn: SpoolTurn) -> bool:
        self._settling = bool(turn.settled)
        try:
            written = await asyncio.get_running_loop().run_in_executor(self._writers, self._write, turn)
        except Exception as error:  # noqa: BLE001 - the border of the thread: whatever it met, those who wait must hear
            self._settled[:0] = turn.settled
            waiters: list[asyncio.Future[Any]] = [*(put.waiter for put in turn.puts), *turn.flushes]
            for waiter in (*waiters, *(job.waiter for job in turn.jobs)):
                _tell(waiter, error)
            return False
        finally:
            self._settling = False
        self._taken.difference_update(map(number_of, turn.settled))
        self._put_off.difference_update(one.row.number for one in turn.settled if isinstance(one, Later))
        for put, answers in zip(turn.puts, written.stored, strict=True):
            _tell(put.waiter, answers)
        for job, result in zip(turn.jobs, written.results, strict=True):
            _tell(job.waiter, result)
        for flush in turn.flushes:
            _tell(flush, None)
        return True

    def _write(self, turn: SpoolTurn) -> Written:
        """In a thread: one transaction."""
        written = write_turn(self._writer, turn, self._lost, self._time())
        # It is written; whatever happens from here on must not make it be written once more.
        with suppress(Exception):
            self._count()
        return written

    async def _tick(self) -> bool:
        """Let go of what has run out; True when there is more."""
        elapsed = monotonic() - self._drained_at
        if elapsed >= TICK_SECONDS:
            self._rate += (self._drained / elapsed - self._rate) * 0.3
            self._drained, self._drained_at = 0, monotonic()
        now, settings = self._time(), self._settings
        async with self._reading:
            # Nobody can take them from here on: what is being sent must not expire.
            taken, before = frozenset(self._taken), now - int(settings.retention_days * DAY_SECONDS * 1000)
            old = await self._read(partial(find_old, self._reader, before, taken))
            self._taken.update(old.numbers)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._writers, self._sweep, now, old)
        finally:
            self._taken.difference_update(old.numbers)

    def _sweep(self, now: int, old: Old) -> bool:
        settings = self._settings
        ages = Ages(
            int(settings.dead_letter_days * DAY_SECONDS * 1000),
            settings.max_dead_letters,
            int(settings.seen_hours * HOUR_SECONDS * 1000),
            settings.max_seen,
        )
        swept = sweep(self._writer, ages, now, old, SWEEP_SECONDS)
        self._expired += len(old.expired)
        self._evicted += swept.evicted
        self._count()
        wal = self._folder / f"{FILE}-wal"
        if wal.exists() and wal.stat().st_size > LARGEST_WAL:
            truncate_log(self._writer)
        return swept.more

    def _count(self) -> None:
        """Look up what is held; kept by triggers, so it is a few rows whatever the size."""
        run = self._writer
        self._waiting = {name: (rows, size) for name, rows, size in run.execute("SELECT * FROM waiting")}
        self._dead = run.execute("SELECT dead FROM counts").fetchone()[0]
        self._seen = run.execute("SELECT coalesce(sum(rows), 0) FROM seen_hours").fetchone()[0]
        oldest = run.execute("SELECT received FROM events ORDER BY number LIMIT 1").fetchone()
        self._oldest = oldest[0] if oldest is not None and isinstance(oldest[0], int) else None
        disk = os.statvfs(self._folder)
        self._free = disk.f_bavail * disk.f_frsize

    def _time(self) -> int:
        return int(self._now() * 1000)


def _tell(waiter: "asyncio.Future[_T]", answer: _T | Exception) -> None:
    """Answer whoever waits, if they still do."""
    if waiter.done():
        return
    if isinstance(answer, Exception):
        waiter.set_exception(StateUnavailableError(f"the spool cannot be written: {answer}"))
        # Who gave up waiting does not fetch it.
        waiter.exception()
    else:
        waiter.set_result(answer)
