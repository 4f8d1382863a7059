"""The default backend: exact, in this process's memory, with SQLite underneath; one process for each folder.

A call decides in memory and returns when its changes are committed. Whatever is asked meanwhile is decided in memory
too and goes into the next commit, so that a commit serves many calls and nothing is answered that rests on something
lost. Claims and answers are appended to a journal, a row for each commit, because updating a row for each claim would
cost ten times as much; they leave it generation by generation. Clicks are few, are kept for weeks and must be erasable,
so they have a row for each identity.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from impact_plugin.config.settings import StateSettings
from impact_plugin.errors import StateError, StateUnavailableError
from impact_plugin.files import SYNCHRONOUS, hold_file, make_private
from impact_plugin.store.base import (
    CALL_SIZE,
    SessionAnswer,
    SessionQuery,
    StoreTally,
)
from impact_plugin.store.engine import Capacities, Changes, Engine
from impact_plugin.store.table import GENERATIONS
from impact_plugin.units import DAY_SECONDS, HOUR_SECONDS

FILE: Final = "sessions.db"
LOCK: Final = "sessions.lock"
TAKEN: Final = (
    "another process keeps its session state here; stop it, or give this one a folder of its own (state.dir) for other "
    "traffic"
)
"""Two processes with memories of their own would each count every click."""

SCHEMA_VERSION: Final = 1
SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS journal (id INTEGER PRIMARY KEY, generation INTEGER NOT NULL, claims BLOB, answers BLOB);
CREATE TABLE IF NOT EXISTS identities (id BLOB PRIMARY KEY, generation INTEGER NOT NULL, known BLOB) WITHOUT ROWID;
PRAGMA user_version = {SCHEMA_VERSION};
"""
REMEMBER: Final = """
INSERT INTO identities VALUES (?, ?, ?)
ON CONFLICT (id) DO UPDATE SET generation = excluded.generation, known = excluded.known
"""
KEY_BYTES: Final = 15
LENGTH_BYTES: Final = 2
"""Of a value in the journal; the largest is a claim with all its windows, far below what two bytes can tell."""

_LENGTHS: Final = tuple(length.to_bytes(LENGTH_BYTES) for length in range(1024))
IDENTITY_BYTES: Final = 256
"""What a changed identity counts for in the limit below; few are larger."""

UNSAVED_LIMIT: Final = 256 * 1024 * 1024
"""Bytes of changes that wait for a disk that does not take them; beyond it the oldest live in memory only."""

TICK_SECONDS: Final = 1.0
FREE_SECONDS: Final = 0.002
EXPIRED_ROWS: Final = 500
"""Rows of the journal deleted at a time when a generation runs out, so that no commit waits for long."""

SWEEPS: Final = 256
"""In how many parts the identities are searched for expired ones: by the first byte of the digest."""


class _Row(msgspec.Struct, frozen=True):
    """A row of the journal to be, and the identities that changed with it."""

    claims: bytes
    answers: bytes
    identities: Mapping[bytes, bytes | None]

    @property
    def size(self) -> int:
        """Bytes, roughly."""
        return len(self.claims) + len(self.answers) + IDENTITY_BYTES * len(self.identities)


@asynccontextmanager
async def open_store(settings: StateSettings, now: Callable[[], float]) -> AsyncIterator["EmbeddedStore"]:
    """Load the state and keep it until the block ends; raises :class:`StateError` when the folder cannot be used.

    ``now`` is the time in seconds since 1970; it only says when things expire.
    """
    folder = Path(settings.dir)
    with hold_file(folder / LOCK, _unusable, TAKEN):
        connection = await asyncio.to_thread(_connect, settings)
        try:
            store = EmbeddedStore(settings, now, connection)
            await asyncio.to_thread(_load, store, folder / FILE)
            # A task of its own, not of a group: what is written last is written also when the block is cancelled.
            task = asyncio.create_task(store.run())
            try:
                yield store
            finally:
                store.stop()
                await task
        finally:
            await asyncio.to_thread(connection.close)


def _load(store: "EmbeddedStore", path: Path) -> None:
    try:
        store.load()
    except sqlite3.Error as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> StateError:
    return StateError(
        path,
        f"the session state cannot be opened: {error}; free or mend the disk, or move the file away to start "
        "with an empty memory",
    )


def _connect(settings: StateSettings) -> sqlite3.Connection:
    path = Path(settings.dir) / FILE
    try:
        make_private(path)
        connection = sqlite3.connect(
            path, timeout=settings.timeout_seconds, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(connection, settings)
        except BaseException:
            connection.close()
            raise
    except (OSError, sqlite3.Error) as error:
        raise _unusable(path, error) from error
    return connection


def _prepare(connection: sqlite3.Connection, settings: StateSettings) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        path = Path(settings.dir) / FILE
        raise StateError(path, "was written by a later version of impact-plugin; use that one, or move it away")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS[settings.durability]}")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    connection.executescript(SCHEMA)


class EmbeddedStore:
    """See the module; made by :func:`open_store`."""

    def __init__(self, settings: StateSettings, now: Callable[[], float], connection: sqlite3.Connection) -> None:
        self._retention = settings.decision_retention_hours * HOUR_SECONDS
        self._memory = settings.click_memory_days * DAY_SECONDS
        self._timeout = settings.timeout_seconds
        self._now = now
        self._connection = connection
        capacities = Capacities(settings.max_claims, settings.max_identities, settings.max_answers)
        self._engine = Engine(capacities, int(self._retention * 1000))
        self._waiting: list[_Row] = []
        self._waiting_bytes = 0
        self._unsaved = 0
        self._written = 0
        self._durable = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._wanted = asyncio.Event()
        self._stopping = False
        self._sweep_from = 0

    async def decide(self, queries: Sequence[SessionQuery]) -> list[SessionAnswer]:
        """See the port."""
        answers = await self.decide_locally(queries)
        await self._committed()
        return answers

    async def decide_locally(self, queries: Sequence[SessionQuery]) -> list[SessionAnswer]:
        """See the port: the same tables, and the commit follows when it can."""
        self._advance()
        engine = self._engine
        if len(queries) <= CALL_SIZE:
            answers = engine.write(queries)
            engine.read(queries, answers)
        else:
            answers = await self._decide_in_turns(queries)
        self._enqueue(engine.take_changes())
        return answers

    async def forget(self, identities: Sequence[bytes]) -> int:
        """See the port; the rows are overwritten on disk too."""
        forgotten = self._engine.forget(identities)
        self._enqueue(self._engine.take_changes())
        await self._committed()
        return forgotten

    async def joined(self, identities: Sequence[bytes]) -> list[bytes]:
        """See the port: a walk through the memory, letting others have the event loop."""
        found: list[bytes] = []
        for stretch in self._engine.identities.stretches():
            found += self._engine.joined(stretch, frozenset(identities))
            await asyncio.sleep(0)
        return found

    async def check(self) -> None:
        """See the port: commits what waits."""
        await self._committed()

    async def tally(self) -> StoreTally:
        """See the port."""
        engine = self._engine
        tables = {"claims": engine.claims, "clicks": engine.identities, "answers": engine.answers}
        found = StoreTally(
            {name: len(table) for name, table in tables.items()},
            {name: table.capacity for name, table in tables.items()},
            {name: table.evicted for name, table in tables.items()},
            engine.late_clicks,
            self._unsaved,
        )
        for table in tables.values():
            table.evicted = 0
        engine.late_clicks = self._unsaved = 0
        return found

    def load(self) -> None:
        """Read the state from disk; blocks, and is done once, before the first call."""
        engine, connection = self._engine, self._connection
        journal, clicks = self._generations()
        rows = connection.execute(
            "SELECT generation, claims, answers FROM journal WHERE generation >= ? ORDER BY id",
            (journal - GENERATIONS,),
        )
        for generation, claims, answers in rows:
            engine.claims.load(generation, _entries(claims))
            engine.answers.load(generation, _entries(answers))
        known = connection.execute(
            "SELECT generation, id, known FROM identities WHERE generation >= ? ORDER BY generation",
            (clicks - GENERATIONS,),
        )
        for generation, identity, raw in known:
            engine.identities.load(generation, ((identity, raw),))
        self._advance()

    async def run(self) -> None:
        """Commit what waits as soon as it waits, and expire what has run out, until :meth:`stop`."""
        loop = asyncio.get_running_loop()
        expired = loop.time()
        alarm = loop.call_at(expired + TICK_SECONDS, self._wanted.set)
        while not self._stopping:
            await self._wanted.wait()
            self._wanted.clear()
            await self._commit()
            if loop.time() - expired >= TICK_SECONDS:
                expired = loop.time()
                await self._expire()
                alarm = loop.call_at(expired + TICK_SECONDS, self._wanted.set)
        alarm.cancel()
        await self._commit()

    def stop(self) -> None:
        """Let :meth:`run` commit once more and return."""
        self._stopping = True
        self._wanted.set()

    async def _decide_in_turns(self, queries: Sequence[SessionQuery]) -> list[SessionAnswer]:
        """A large batch must not keep the event loop from small ones."""
        chunks = [queries[start : start + CALL_SIZE] for start in range(0, len(queries), CALL_SIZE)]
        parts = []
        for chunk in chunks:
            parts.append(self._engine.write(chunk))
            await asyncio.sleep(0)
        for chunk, part in zip(chunks, parts, strict=True):
            self._engine.read(chunk, part)
            await asyncio.sleep(0)
        return [answer for part in parts for answer in part]

    def _generations(self) -> tuple[int, int]:
        """The present generations of the journal and of the clicks."""
        now = self._now()
        return int(now * GENERATIONS // self._retention), int(now * GENERATIONS // self._memory)

    def _advance(self) -> None:
        journal, clicks = self._generations()
        engine = self._engine
        expired = engine.claims.advance(journal)
        engine.answers.advance(journal)
        if engine.identities.advance(clicks) or expired:
            self._sweep_from = 0

    def _enqueue(self, changes: Changes) -> None:
        """Let the changes go into the next commit; the oldest give way when the disk has not taken any for long."""
        if not changes:
            return
        row = _Row(_packed(changes.claims), _packed(changes.answers), changes.identities)
        self._waiting.append(row)
        self._waiting_bytes += row.size
        self._written += 1
        while self._waiting_bytes > UNSAVED_LIMIT:
            self._waiting_bytes -= self._waiting.pop(0).size
            self._unsaved += 1

    async def _committed(self) -> None:
        """Return when everything written so far is on disk, whoever wrote it: the answers may rest on any of it."""
        if self._durable >= self._written:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._wanted.set()
        try:
            async with asyncio.timeout(self._timeout):
                await waiter
        except TimeoutError:
            raise StateUnavailableError(f"the disk took no commit within {self._timeout:g} s") from None

    async def _commit(self) -> None:
        """Write all that waits in one transaction and wake those who wait for it."""
        rows, self._waiting, self._waiting_bytes = self._waiting, [], 0
        waiters, self._waiters = self._waiters, []
        written = self._written
        failure: StateUnavailableError | None = None
        if rows:
            try:
                await asyncio.to_thread(self._write, rows)
            except Exception as error:  # noqa: BLE001 - the border of the thread: whatever it met, those who wait must hear
                failure = StateUnavailableError(f"the session state cannot be written: {error}")
                self._waiting[:0] = rows
                self._waiting_bytes += sum(row.size for row in rows)
        if failure is None:
            self._durable = written
        for waiter in waiters:
            if waiter.done():
                continue
            if failure is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(failure)

    def _write(self, rows: Sequence[_Row]) -> None:
        """In a thread: one transaction."""
        journal, clicks = self._generations()
        claims, answers = b"".join(row.claims for row in rows), b"".join(row.answers for row in rows)
        changed: dict[bytes, bytes | None] = {}
        for row in rows:
            changed.update(row.identities)
        kept = [(identity, clicks, raw) for identity, raw in changed.items() if raw is not None]
        gone = [(identity,) for identity, raw in changed.items() if raw is None]
        with self._transaction() as run:
            if claims or answers:
                run.execute(
                    "INSERT INTO journal (generation, claims, answers) VALUES (?, ?, ?)", (journal, claims, answers)
                )
            if kept:
                run.executemany(REMEMBER, kept)
            if gone:
                run.executemany("DELETE FROM identities WHERE id = ?", gone)
        if gone:
            # The log still has what was deleted from the file.
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    async def _expire(self) -> None:
        """Let go of what has run out, a little at a time."""
        self._advance()
        engine = self._engine
        for table in (engine.claims, engine.answers, engine.identities):
            table.free(FREE_SECONDS)
        if self._sweep_from < SWEEPS:
            # A commit meets the same trouble, and reports it to somebody who waits.
            with suppress(sqlite3.Error):
                await asyncio.to_thread(self._sweep)

    def _sweep(self) -> None:
        """In a thread: delete some rows of expired generations."""
        journal, clicks = self._generations()
        with self._transaction() as run:
            rows = run.execute(
                "DELETE FROM journal WHERE generation < ? AND id IN (SELECT id FROM journal ORDER BY id LIMIT ?)",
                (journal - GENERATIONS, EXPIRED_ROWS),
            ).rowcount
            part = self._sweep_from
            run.execute(
                "DELETE FROM identities WHERE id >= ? AND (id < ? OR ? = 256) AND generation < ?",
                (bytes([part]), bytes([(part + 1) % SWEEPS]), part + 1, clicks - GENERATIONS),
            )
        # The journal's turn comes again until nothing is left; the identities wait so long.
        if rows < EXPIRED_ROWS:
            self._sweep_from += 1

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _packed(entries: Mapping[bytes, bytes]) -> bytes:
    """Entries in a row: key, length of the value, value."""
    return b"".join([part for key, value in entries.items() for part in (key, _LENGTHS[len(value)], value)])


def _entries(packed: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The entries of :func:`_packed`."""
    at, end = 0, len(packed)
    while at < end:
        begin = at + KEY_BYTES + LENGTH_BYTES
        after = begin + int.from_bytes(packed[at + KEY_BYTES : begin])
        yield packed[at : at + KEY_BYTES], packed[begin:after]
        at = after
