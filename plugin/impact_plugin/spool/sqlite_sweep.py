"""What the embedded spool lets go of: a little in each tick, so that no commit waits for long. In a thread."""

import sqlite3
from collections.abc import Container
from typing import Final

import msgspec

from impact_plugin.dead_letters import Burial
from impact_plugin.spool.sqlite_rows import BURY, DELETE, HOUR_MS

SWEPT_ROWS: Final = 500
SWEPT_SEEN: Final = 5000
"""What one transaction lets go of."""

_DETAIL: Final = "waited for longer than spool.retention_days"

# Chosen in SQL: whatever stands in a damaged column, it can be compared there.
_OLD: Final = """
SELECT number FROM (SELECT number, received FROM events ORDER BY number LIMIT ?) WHERE received < ?
"""
_OLD_LETTERS: Final = """
SELECT number, died >= ? FROM (SELECT number, died, row_number() OVER (ORDER BY number) AS place FROM dead
ORDER BY number LIMIT ?) WHERE died < ? OR place <= ?
"""


class Swept(msgspec.Struct, frozen=True):
    """How many rows became dead letters of old age, what was dropped before its time, and whether there may be more."""

    expired: int
    evicted: int
    more: bool


class Ages(msgspec.Struct, frozen=True):
    """How long (milliseconds) and how many."""

    retention: int
    dead_retention: int
    max_dead: int
    seen: int
    max_seen: int


def sweep(run: sqlite3.Connection, ages: Ages, now: int, taken: Container[int]) -> Swept:
    """Let go of what has run out; rows that are being sent are let be."""
    expired = _expire(run, now - ages.retention, now, taken)
    letters, early_letters = _drop_letters(run, now - ages.dead_retention, ages.max_dead)
    seen, early_seen = _drop_seen(run, (now - ages.seen) // HOUR_MS, ages.max_seen)
    more = SWEPT_ROWS in (expired, letters) or seen == SWEPT_SEEN
    return Swept(expired, early_letters + early_seen, more)


def mend(run: sqlite3.Connection, now: int) -> None:
    """Let be due what a clock that was set back has put off for hours."""
    for (destination,) in run.execute("SELECT destination FROM waiting WHERE rows > 0").fetchall():
        for urgent in (0, 1):
            run.execute(
                "UPDATE events SET due = ? WHERE destination = ? AND urgent = ? AND due > ?",
                (now, destination, urgent, now + HOUR_MS),
            )


def _expire(run: sqlite3.Connection, before: int, now: int, taken: Container[int]) -> int:
    found = run.execute(_OLD, (SWEPT_ROWS, before)).fetchall()
    old = [number for (number,) in found if number not in taken]
    run.executemany(BURY, [(now, 0, str(Burial.EXPIRED), _DETAIL, b"", number) for number in old])
    run.executemany(DELETE, [(number,) for number in old])
    return len(old)


def _drop_letters(run: sqlite3.Connection, before: int, most: int) -> tuple[int, int]:
    """Drop old dead letters, and the oldest where there are too many; how many, and how many before their time."""
    surplus = max(0, run.execute("SELECT dead FROM counts").fetchone()[0] - most)
    gone = run.execute(_OLD_LETTERS, (before, SWEPT_ROWS, before, surplus)).fetchall()
    run.executemany("DELETE FROM dead WHERE number = ?", [(number,) for number, _ in gone])
    return len(gone), sum(early for _, early in gone)


def _drop_seen(run: sqlite3.Connection, before: int, most: int) -> tuple[int, int]:
    """Forget what was seen before that hour, and the oldest where it is too much; as :func:`_drop_letters`."""
    total, oldest = run.execute("SELECT coalesce(sum(rows), 0), min(hour) FROM seen_hours").fetchone()
    if oldest is None or (oldest >= before and total <= most):
        return 0, 0
    limit = SWEPT_SEEN if oldest < before else min(SWEPT_SEEN, total - most)
    gone = run.execute(
        "DELETE FROM seen WHERE id IN (SELECT id FROM seen WHERE hour = ? LIMIT ?)", (oldest, limit)
    ).rowcount
    run.execute("UPDATE seen_hours SET rows = rows - ? WHERE hour = ?", (gone, oldest))
    run.execute("DELETE FROM seen_hours WHERE hour = ? AND (rows <= 0 OR ? = 0)", (oldest, gone))
    return gone, (gone if oldest >= before else 0)
