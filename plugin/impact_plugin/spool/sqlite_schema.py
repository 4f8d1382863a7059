"""The file of the embedded spool: its tables, how it is opened, and who may hold it."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from impact_plugin.errors import StateError
from impact_plugin.files import SYNCHRONOUS, Durability, make_private

FILE: Final = "spool.db"
LOCK: Final = "spool.lock"
TAKEN: Final = "another process delivers from the spool here; give this one a folder of its own (state.dir)"
"""Two processes would each deliver every event."""

SCHEMA_VERSION: Final = 1
LARGEST_WAL: Final = 256 * 1024 * 1024
CHECKPOINT_PAGES: Final = 8000
"""Pages (4 KiB) of the log before they go into the file: digests hit pages at random, and more of them share one."""

# The counts are kept by triggers, so that the service and the commands beside it agree, and opening counts nothing.
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS events (
  number INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, destination TEXT NOT NULL, urgent INTEGER NOT NULL,
  lane BLOB, due INTEGER NOT NULL, received INTEGER NOT NULL, attempt INTEGER NOT NULL, failing_since INTEGER,
  order_id TEXT, people BLOB NOT NULL, visit BLOB NOT NULL, payload BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS dues ON events (destination, urgent, due, number);
CREATE INDEX IF NOT EXISTS lanes ON events (lane, number) WHERE lane IS NOT NULL;
CREATE TABLE IF NOT EXISTS dead (
  number INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, destination TEXT NOT NULL, urgent INTEGER NOT NULL,
  lane BLOB, died INTEGER NOT NULL, received INTEGER NOT NULL, attempts INTEGER NOT NULL, reason TEXT NOT NULL,
  detail TEXT NOT NULL, request BLOB NOT NULL, order_id TEXT, people BLOB NOT NULL, visit BLOB NOT NULL,
  payload BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS dead_orders ON dead (order_id) WHERE order_id IS NOT NULL;
CREATE TABLE IF NOT EXISTS seen (id BLOB PRIMARY KEY, hour INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS seen_ages ON seen (hour);
CREATE TABLE IF NOT EXISTS seen_hours (hour INTEGER PRIMARY KEY, rows INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS waiting (
  destination TEXT PRIMARY KEY, rows INTEGER NOT NULL, bytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counts (dead INTEGER NOT NULL);
INSERT INTO counts SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM counts);
CREATE TRIGGER IF NOT EXISTS event_put AFTER INSERT ON events BEGIN
  INSERT INTO waiting VALUES (new.destination, 1, length(new.payload) + length(new.visit))
  ON CONFLICT (destination) DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER IF NOT EXISTS event_gone AFTER DELETE ON events BEGIN
  UPDATE waiting SET rows = rows - 1, bytes = bytes - length(old.payload) - length(old.visit)
  WHERE destination = old.destination;
END;
CREATE TRIGGER IF NOT EXISTS letter_put AFTER INSERT ON dead BEGIN UPDATE counts SET dead = dead + 1; END;
CREATE TRIGGER IF NOT EXISTS letter_gone AFTER DELETE ON dead BEGIN UPDATE counts SET dead = dead - 1; END;
CREATE TABLE IF NOT EXISTS probe (content BLOB);
PRAGMA user_version = 1;
"""


def unusable(path: Path, error: Exception) -> StateError:
    """What to tell the operator about a file that cannot be opened."""
    return StateError(
        path,
        f"the spool cannot be opened: {error}; free or mend the disk, or move the file away: then the events "
        "in it wait there until a service is given it again",
    )


def connect(folder: Path, *, timeout: float, durability: Durability, make: bool = True) -> sqlite3.Connection:
    """Open the file, made where it is not there; raises :class:`StateError`."""
    path = folder / FILE
    if not make and not path.exists():
        raise StateError(path, "there is no spool here; is state.dir the folder of the service?")
    try:
        make_private(path)
        connection = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise unusable(path, error) from error
    try:
        # One damaged text must not hide the rows beside it; it is told from others by what cannot be encoded.
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        _prepare(connection, path, durability)
    except sqlite3.Error as error:
        connection.close()
        raise unusable(path, error) from error
    except StateError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, durability: Durability) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StateError(path, "was written by a later version of impact-plugin; use that one, or move it away")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS[durability]}")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute(f"PRAGMA journal_size_limit = {LARGEST_WAL}")
    connection.execute("PRAGMA cache_size = -32768")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    if version < SCHEMA_VERSION:
        connection.executescript(SCHEMA)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """One transaction, all or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
