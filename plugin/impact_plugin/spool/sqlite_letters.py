"""Dead letters and deletion in the embedded spool's file: for the service, and for the commands beside it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final, TypeAlias

from impact_plugin.errors import StateUnavailableError
from impact_plugin.spool.base import DeadLetter, DeadLetterFilter, Forgotten
from impact_plugin.spool.sqlite_rows import storable
from impact_plugin.spool.sqlite_schema import connect, transaction, unusable

PAGE: Final = 500
SCAN: Final = 20_000
PATIENCE_SECONDS: Final = 5.0
TRUNCATE_SECONDS: Final = 1.0
TRUNCATE_PAUSE: Final = 0.05
TRUNCATE_WAIT_MS: Final = 50
"""How long one try waits for readers: nobody can write meanwhile."""

LOG_HELD: Final = "what was deleted still stands in the spool's log, because somebody reads it"
DIGEST_BYTES: Final = 15

Span: TypeAlias = tuple[int, int]
"""After which number, and up to which one."""

Step: TypeAlias = Callable[[sqlite3.Connection, Span], list[int]]
"""Does something to the dead letters of a span, a page of them; their numbers."""

_LETTER: Final = (
    "SELECT number, source, destination, reason, detail, received, died, attempts, order_id, payload, request FROM dead"
)
_REVIVE: Final = """
INSERT INTO events (source, destination, urgent, lane, due, received, attempt, order_id, people, visit, payload)
SELECT source, destination, urgent, lane, ?, ?, 0, order_id, people, visit, payload FROM dead WHERE number = ?
"""


def condition(which: DeadLetterFilter) -> tuple[str, list[object]]:
    """The filter as SQL with its values, of which the first two bound the number."""
    parts: list[str] = ["number > ?", "number <= ?"]
    values: list[object] = []
    for column, value in (
        ("reason = ?", which.reason),
        ("source = ?", which.source),
        ("destination = ?", which.destination),
        ("order_id = ?", which.order_id),
        ("died >= ?", which.since),
        ("died < ?", which.until),
    ):
        if value is not None:
            parts.append(column)
            values.append(storable(value) if isinstance(value, str) else value)
    if which.numbers is not None:
        parts.append(f"number IN ({','.join(str(int(number)) for number in which.numbers)})")
    return " AND ".join(parts), values


def last_letter(run: sqlite3.Connection) -> int:
    """The number of the newest: what is buried meanwhile is not followed, or a retry would never end."""
    found: int = run.execute("SELECT coalesce(max(number), 0) FROM dead").fetchone()[0]
    return found


def letter_page(run: sqlite3.Connection, which: DeadLetterFilter, span: Span) -> list[DeadLetter]:
    """The next dead letters meant."""
    where, values = condition(which)
    rows = run.execute(f"{_LETTER} WHERE {where} ORDER BY number LIMIT {PAGE}", (*span, *values))
    return [_letter(*row) for row in rows]


def _letter(number: int, *columns: Any) -> DeadLetter:
    """A dead letter of whatever stands in the columns: those of damaged rows are for somebody to look at."""
    source, destination, reason, detail, received, died, attempts, order_id, payload, request = columns
    return DeadLetter(
        number,
        *(_text(source), _text(destination), _text(reason), _text(detail)),
        *(_number(received), _number(died), _number(attempts)),
        *(None if order_id is None else _text(order_id), _bytes(payload), _bytes(request)),
    )


def _text(value: Any) -> str:
    return _bytes(value).decode("utf-8", "replace")


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _numbers(run: sqlite3.Connection, which: DeadLetterFilter, span: Span) -> list[int]:
    where, values = condition(which)
    rows = run.execute(f"SELECT number FROM dead WHERE {where} ORDER BY number LIMIT {PAGE}", (*span, *values))  # noqa: S608 - values are bound
    return [number for (number,) in rows]


def retry_page(run: sqlite3.Connection, which: DeadLetterFilter, span: Span, now: int) -> list[int]:
    """Let the next dead letters meant be due; returns their numbers."""
    numbers = _numbers(run, which, span)
    run.executemany(_REVIVE, [(now, now, number) for number in numbers])
    erase(run, "dead", numbers)
    return numbers


def purge_page(run: sqlite3.Connection, which: DeadLetterFilter, span: Span) -> list[int]:
    """Delete the next dead letters meant; returns their numbers."""
    numbers = _numbers(run, which, span)
    erase(run, "dead", numbers)
    return numbers


def find_people(
    run: sqlite3.Connection, table: str, people: frozenset[bytes], after: int
) -> tuple[list[int], int | None]:
    """The rows about any of these people in the next stretch of a table, and its last number; None at the end."""
    query = f"SELECT number, people FROM {table} WHERE number > ? ORDER BY number LIMIT {SCAN}"  # noqa: S608 - our own names
    rows = run.execute(query, (after,)).fetchall()
    return [number for number, held in rows if _is_about(held, people)], rows[-1][0] if rows else None


def _is_about(held: Any, people: frozenset[bytes]) -> bool:
    return isinstance(held, bytes) and any(
        held[at : at + DIGEST_BYTES] in people for at in range(0, len(held), DIGEST_BYTES)
    )


def erase(run: sqlite3.Connection, table: str, numbers: Sequence[int]) -> int:
    """Delete rows; returns how many there were."""
    meant = ",".join(str(int(number)) for number in numbers)
    return run.execute(f"DELETE FROM {table} WHERE number IN ({meant})").rowcount  # noqa: S608 - numbers only


def truncate_log(run: sqlite3.Connection) -> bool:
    """Empty the log, which still has what was deleted from the file; False while somebody reads it."""
    (patience,) = run.execute("PRAGMA busy_timeout").fetchone()
    run.execute(f"PRAGMA busy_timeout = {TRUNCATE_WAIT_MS}")
    try:
        return not run.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    finally:
        run.execute(f"PRAGMA busy_timeout = {patience}")


class Letters:
    """Dead letters through a connection of its own; what it changes, the running service sees at its next look."""

    def __init__(self, connection: sqlite3.Connection, now: Callable[[], float]) -> None:
        self._connection = connection
        self._now = now

    async def letters(self, which: DeadLetterFilter) -> AsyncIterator[DeadLetter]:
        """See the port."""
        after, last = 0, await asyncio.to_thread(last_letter, self._connection)
        while page := await asyncio.to_thread(letter_page, self._connection, which, (after, last)):
            for letter in page:
                yield letter
            after = page[-1].number

    async def retry(self, which: DeadLetterFilter) -> int:
        """See the port."""
        return await self._paged(lambda run, span: retry_page(run, which, span, int(self._now() * 1000)))

    async def purge(self, which: DeadLetterFilter) -> int:
        """See the port."""
        return await self._paged(lambda run, span: purge_page(run, which, span))

    async def forget(self, people: Sequence[bytes]) -> Forgotten:
        """See the port."""
        return await asyncio.to_thread(self._forget, frozenset(people))

    async def _paged(self, step: Step) -> int:
        """Short transactions, so that the service can write between them."""
        count, after, last = 0, 0, await asyncio.to_thread(last_letter, self._connection)
        while numbers := await asyncio.to_thread(self._step, step, (after, last)):
            count += len(numbers)
            after = numbers[-1]
        return count

    def _step(self, step: Step, span: Span) -> list[int]:
        with transaction(self._connection) as run:
            return step(run, span)

    def _forget(self, people: frozenset[bytes]) -> Forgotten:
        found = Forgotten(self._erase("events", people), self._erase("dead", people))
        deadline = monotonic() + TRUNCATE_SECONDS
        while not truncate_log(self._connection):
            if monotonic() > deadline:
                raise StateUnavailableError(LOG_HELD)
            sleep(TRUNCATE_PAUSE)
        return found

    def _erase(self, table: str, people: frozenset[bytes]) -> int:
        removed, after = 0, 0
        while True:
            numbers, last = find_people(self._connection, table, people, after)
            for start in range(0, len(numbers), PAGE):
                with transaction(self._connection) as run:
                    removed += erase(run, table, numbers[start : start + PAGE])
            if last is None:
                return removed
            after = last


@asynccontextmanager
async def open_letters(folder: Path, now: Callable[[], float]) -> AsyncIterator[Letters]:
    """The dead letters of a folder, whether a service runs on it or not; raises :class:`StateError`."""
    connection = await asyncio.to_thread(connect, folder, timeout=PATIENCE_SECONDS, durability="power", make=False)
    try:
        yield Letters(connection, now)
    except sqlite3.Error as error:
        raise unusable(folder, error) from error
    finally:
        await asyncio.to_thread(connection.close)
