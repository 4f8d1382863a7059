"""What the embedded spool lets go of: a little at a time, so that no commit waits for long. In a thread."""

import sqlite3
from collections.abc import Callable, Container
from contextlib import closing
from time import monotonic
from typing import Final

import msgspec

from impact_plugin.spool.base import DeadLetterCause
from impact_plugin.spool.reasons import DeadLetterReason
from impact_plugin.spool.sqlite_rows import HOUR_MS, bury
from impact_plugin.spool.sqlite_schema import transaction

SWEPT_ROWS: Final = 500
SWEPT_SEEN: Final = 2000
"""What one statement lets go of; there are as many as the time allows."""

YOUNG_ROWS: Final = 500
"""How many rows of the oldest are passed over: a clock that was set makes some look younger than they are."""

_EXPIRED: Final = DeadLetterCause(str(DeadLetterReason.EXPIRED), "waited for longer than spool.retention_days")
_DAMAGED: Final = DeadLetterCause(str(DeadLetterReason.UNREADABLE), "received is no number")


class Ages(msgspec.Struct, frozen=True):
    """How long (milliseconds) and how many."""

    dead_retention: int
    max_dead: int
    seen: int
    max_seen: int


class Old(msgspec.Struct, frozen=True):
    """Numbers of rows that have waited for too long, and of those of which nobody can tell."""

    expired: list[int]
    damaged: list[int]

    @property
    def numbers(self) -> list[int]:
        """All of them."""
        return self.expired + self.damaged

    @property
    def is_full(self) -> bool:
        """Whether there may be more."""
        return len(self.expired) + len(self.damaged) >= SWEPT_ROWS


class Swept(msgspec.Struct, frozen=True):
    """How many dead letters and entries of what was seen went before their time; whether there may be more to go."""

    evicted: int
    more: bool


def find_old(run: sqlite3.Connection, before: int, taken: Container[int]) -> Old:
    """Rows that were received before, of those that nobody has taken."""
    old, young = Old([], []), 0
    with closing(run.execute("SELECT number, received FROM events ORDER BY number")) as rows:
        for number, received in rows:
            if number in taken:
                continue
            if not isinstance(received, int):
                old.damaged.append(number)
            elif received < before:
                old.expired.append(number)
            else:
                young += 1
            if old.is_full or young > YOUNG_ROWS:
                break
    return old


def sweep(connection: sqlite3.Connection, ages: Ages, now: int, old: Old, seconds: float) -> Swept:
    """Bury the rows, and let go of what else has run out for about so long."""
    deadline = monotonic() + seconds
    with transaction(connection) as run:
        mend(run, now)
        bury(run, old.expired, _EXPIRED, now, tried=False)
        bury(run, old.damaged, _DAMAGED, now, tried=False)
        letters = _repeat(deadline, lambda: _drop_letters(run, now - ages.dead_retention, ages.max_dead))
        seen = _repeat(deadline, lambda: _drop_seen(run, (now - ages.seen) // HOUR_MS, ages.max_seen))
    return Swept(letters.evicted + seen.evicted, old.is_full or letters.more or seen.more)


def mend(run: sqlite3.Connection, now: int) -> None:
    """Let be due some of what a clock that was set back has put off for hours, or no clock can have put off."""
    for (destination,) in run.execute("SELECT destination FROM waiting WHERE rows > 0").fetchall():
        for urgent in (0, 1):
            run.execute(
                "UPDATE events SET due = ? WHERE number IN "
                "(SELECT number FROM events WHERE destination = ? AND urgent = ? AND due > ? LIMIT ?)",
                (now, destination, urgent, now + HOUR_MS, SWEPT_ROWS),
            )


def _repeat(deadline: float, step: Callable[[], Swept]) -> Swept:
    """Once at least, so that each kind has its turn however long the others take."""
    evicted = 0
    while True:
        swept = step()
        evicted += swept.evicted
        if not swept.more or monotonic() > deadline:
            return Swept(evicted, swept.more)


def _drop_letters(run: sqlite3.Connection, before: int, most: int) -> Swept:
    """Drop old dead letters, and the oldest where there are too many."""
    rows = run.execute("SELECT number, died FROM dead ORDER BY number LIMIT ?", (SWEPT_ROWS,)).fetchall()
    surplus = max(0, run.execute("SELECT dead FROM counts").fetchone()[0] - most)
    # Of one whose time was damaged nobody knows the age: it goes when there are too many.
    old = {number for number, died in rows if isinstance(died, int) and died < before}
    gone = [number for place, (number, _) in enumerate(rows) if number in old or place < surplus]
    if gone:
        run.execute(f"DELETE FROM dead WHERE number IN ({','.join(map(str, gone))})")  # noqa: S608 - numbers only
    return Swept(len(gone) - len(old), len(gone) == SWEPT_ROWS)


def _drop_seen(run: sqlite3.Connection, before: int, most: int) -> Swept:
    """Forget what was seen before that hour, and the oldest where it is too much."""
    total, oldest = run.execute("SELECT coalesce(sum(rows), 0), min(hour) FROM seen_hours").fetchone()
    if oldest is None or (oldest >= before and total <= most):
        return Swept(0, more=False)
    limit = SWEPT_SEEN if oldest < before else min(SWEPT_SEEN, total - most)
    gone = run.execute(
        "DELETE FROM seen WHERE id IN (SELECT id FROM seen WHERE hour = ? LIMIT ?)", (oldest, limit)
    ).rowcount
    run.execute("UPDATE seen_hours SET rows = rows - ? WHERE hour = ?", (gone, oldest))
    run.execute("DELETE FROM seen_hours WHERE hour = ? AND (rows <= 0 OR ? = 0)", (oldest, gone))
    return Swept(gone if oldest >= before else 0, gone < limit or gone == SWEPT_SEEN)
