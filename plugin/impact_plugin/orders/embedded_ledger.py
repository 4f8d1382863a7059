"""The ledger of a single process, in an SQLite file of its own; nothing of it is kept in memory.

A commit takes all operations that wait: one query finds what is known of their orders, the rules of the port decide,
one transaction writes what changed. The folder is held by one process, so an attempt in flight of another is of one
that died, and its outcome is unknown at once.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from impact_plugin.config.settings import DeliverySettings, StateSettings
from impact_plugin.errors import StateError, StateUnavailableError
from impact_plugin.files import SYNCHRONOUS, hold_file, make_private
from impact_plugin.orders.ledger import OWNER_BYTES, Entry, LedgerTally, Operation, Standing, Terms, play
from impact_plugin.orders.ledger_queue import QueuedLedger
from impact_plugin.units import DAY_SECONDS, HOUR_SECONDS

FILE: Final = "ledger.db"
LOCK: Final = "ledger.lock"
TAKEN: Final = (
    "another process keeps its ledger of orders here; stop it, or give this one a folder of its own (state.dir) for "
    "other traffic"
)
"""Of two processes each would take the other's attempts for those of a dead one."""

SCHEMA_VERSION: Final = 1
SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS orders (
  id BLOB PRIMARY KEY, delivered INTEGER NOT NULL, touched INTEGER NOT NULL,
  since INTEGER, attempt BLOB NOT NULL, begun INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ages ON orders (delivered, touched);
CREATE TABLE IF NOT EXISTS probe (content BLOB);
PRAGMA user_version = {SCHEMA_VERSION};
"""
KEEP: Final = """
INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET delivered = excluded.delivered,
touched = excluded.touched, since = excluded.since, attempt = excluded.attempt, begun = excluded.begun
"""
OLDEST: Final = "SELECT id FROM orders WHERE delivered = ? AND touched < ? ORDER BY touched LIMIT ?"
FOREVER_MS: Final = 2**62

TURN_SIZE: Final = 2000
"""Operations of one commit: some tens of milliseconds at most, and fewer parameters than SQLite takes."""

EXPIRED_ROWS: Final = 2000
"""Rows deleted at a time when they have run out or are too many, so that no commit waits for long."""

SHORTEST_LEASE: Final = 120.0
"""Seconds that an attempt to send an order counts as in flight, at least: routers name deadlines of up to a minute."""

PROBE_BYTES: Final = 8192
"""More than a page, so that a probe needs room on the disk."""


@asynccontextmanager
async def open_ledger(
    settings: StateSettings, delivery: DeliverySettings, now: Callable[[], float]
) -> AsyncIterator["EmbeddedLedger"]:
    """Keep the ledger until the block ends; raises :class:`StateError` when the folder cannot be used.

    ``now`` is the time in seconds since 1970.
    """
    folder = Path(settings.dir)
    with hold_file(folder / LOCK, _unusable, TAKEN):
        connection = await asyncio.to_thread(_connect, settings)
        try:
            ledger = EmbeddedLedger(settings, delivery, now, connection)
            await asyncio.to_thread(_measure, ledger, folder / FILE)
            async with ledger.running():
                yield ledger
        finally:
            await asyncio.to_thread(connection.close)


def _unusable(path: Path, error: Exception) -> StateError:
    return StateError(
        path,
        f"the ledger of orders cannot be opened: {error}; free or mend the disk, or move the file away: "
        "then orders that come again are sent again",
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


def _measure(ledger: "EmbeddedLedger", path: Path) -> None:
    try:
        ledger.measure()
    except sqlite3.Error as error:
        raise _unusable(path, error) from error


class _Found(msgspec.Struct, frozen=True):
    """What the file has of some orders: all of their rows, and the entries that have not run out."""

    rows: Mapping[bytes, bool]
    book: dict[bytes, Entry]


class EmbeddedLedger(QueuedLedger):
    """See the module; made by :func:`open_ledger`."""

    def __init__(
        self,
        settings: StateSettings,
        delivery: DeliverySettings,
        now: Callable[[], float],
        connection: sqlite3.Connection,
    ) -> None:
        owner = os.urandom(OWNER_BYTES)
        super().__init__("the disk", owner, settings.timeout_seconds, TURN_SIZE)
        self._now = now
        self._connection = connection
        self._capacity = settings.max_orders
        self._retention = int(settings.order_memory_days * DAY_SECONDS * 1000)
        window, lease = delivery.dedup_window_hours * HOUR_SECONDS, max(SHORTEST_LEASE, 2 * delivery.timeout_seconds)
        self._terms = Terms(int(window * 1000), int(lease * 1000), owner)
        self._sizes = {True: 0, False: 0}
        self._latest = 0
        self._evicted = 0

    def measure(self) -> None:
        """Count what the file holds; blocks, and is done once, before the first call."""
        for delivered, count, latest in self._connection.execute(
            "SELECT delivered, count(*), max(touched) FROM orders GROUP BY delivered"
        ):
            self._sizes[bool(delivered)] = count
            self._latest = max(self._latest, latest)

    async def tally(self) -> LedgerTally:
        """See the port."""
        evicted, self._evicted = self._evicted, 0
        return LedgerTally(sum(self._sizes.values()), self._capacity, evicted, self._sizes[False])

    async def _perform(self, operations: Sequence[Operation], *, probe: bool) -> list[Standing | None]:
        """See the queue: one transaction, in a thread."""
        try:
            return await asyncio.to_thread(self._write, operations, probe=probe)
        except sqlite3.Error as error:
            raise StateUnavailableError(f"the orders cannot be written: {error}") from error

    def _write(self, operations: Sequence[Operation], *, probe: bool) -> list[Standing | None]:
        now = int(self._now() * 1000)
        with self._transaction() as run:
            found = self._find(run, {operation.identity for operation in operations}, now)
            book = dict(found.book)
            standings = play(book, operations, now, self._terms)
            sizes = self._store(run, found, book, now)
            evicted = self._make_room(run, sizes)
            if probe:
                _probe(run)
        self._sizes = sizes
        self._evicted += evicted
        return standings

    def _find(self, run: sqlite3.Connection, identities: set[bytes], now: int) -> _Found:
        """All rows of these orders, by one query."""
        rows: dict[bytes, bool] = {}
        book: dict[bytes, Entry] = {}
        marks = ",".join("?" * len(identities))
        query = f"SELECT id, delivered, touched, since, attempt, begun FROM orders WHERE id IN ({marks})"  # noqa: S608 - marks only
        for id_, delivered, touched, since, attempt, begun in run.execute(query, tuple(identities)):
            rows[id_] = bool(delivered)
            # What has run out is gone, although its row is deleted a little later.
            if touched >= now - self._retention:
                book[id_] = Entry(bool(delivered), since, attempt, begun)
        return _Found(rows, book)

    def _store(self, run: sqlite3.Connection, found: _Found, book: Mapping[bytes, Entry], now: int) -> dict[bool, int]:
        """Write what changed; returns how many orders are then kept, delivered and not.

        A row's age is by the latest time ever seen: written while the clock was wrong, it must not run out early.
        """
        touched = self._latest = max(self._latest, now)
        changed = {id_: entry for id_, entry in book.items() if entry is not found.book.get(id_)}
        gone = [id_ for id_ in found.book if id_ not in book]
        if changed:
            run.executemany(
                KEEP,
                [(id_, one.delivered, touched, one.since, one.attempt, one.begun) for id_, one in changed.items()],
            )
        if gone:
            run.executemany("DELETE FROM orders WHERE id = ?", [(id_,) for id_ in gone])
        sizes = dict(self._sizes)
        for id_ in (*changed, *gone):
            if id_ in found.rows:
                sizes[found.rows[id_]] -= 1
        for entry in changed.values():
            sizes[entry.delivered] += 1
        return sizes

    def _make_room(self, run: sqlite3.Connection, sizes: dict[bool, int]) -> int:
        """Delete the oldest beyond the capacity, delivered ones first; returns how many, and changes ``sizes``."""
        surplus = min(EXPIRED_ROWS, sum(sizes.values()) - self._capacity)
        evicted = 0
        for delivered in (True, False):
            if evicted < surplus:
                rows = _delete_oldest(run, FOREVER_MS, surplus - evicted, delivered=delivered)
                sizes[delivered] -= rows
                evicted += rows
        return evicted

    async def _tend(self) -> None:
        """Let go of what has run out, a little at a time; a disk in trouble is told by the commits."""
        with suppress(sqlite3.Error):
            await asyncio.to_thread(self._expire)

    def _expire(self) -> None:
        oldest = int(self._now() * 1000) - self._retention
        sizes = dict(self._sizes)
        with self._transaction() as run:
            for delivered in (True, False):
                sizes[delivered] -= _delete_oldest(run, oldest, EXPIRED_ROWS, delivered=delivered)
            evicted = self._make_room(run, sizes)
        self._sizes = sizes
        self._evicted += evicted

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


def _delete_oldest(run: sqlite3.Connection, before: int, limit: int, *, delivered: bool) -> int:
    """Delete some rows last touched before that time (milliseconds); returns how many."""
    found = run.execute(OLDEST, (delivered, before, limit)).fetchall()
    run.executemany("DELETE FROM orders WHERE id = ?", found)
    return len(found)


def _probe(run: sqlite3.Connection) -> None:
    """Take room that is not there on a full disk, and change a page so that the commit has something to write."""
    run.execute("INSERT INTO probe VALUES (zeroblob(?))", (PROBE_BYTES,))
    run.execute("DELETE FROM probe")
    run.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
