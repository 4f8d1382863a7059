"""What the embedded spool writes: rows as they are put, settled and deleted. In a thread, within a transaction."""

import sqlite3
from collections.abc import Container, Sequence
from typing import Final, TypeAlias

import msgspec

from impact_plugin.spool.base import DeadLetterCause, NewEvent, NewRow, SpoolRow

HOUR_MS: Final = 3_600_000
MARKS: Final = 2000
"""Values of one query; SQLite takes 32,766."""

CHUNKS: Final = (512, 64, 8, 1)
"""Rows of one statement. Each one takes the interpreter's lock back from the event loop, which may keep it for long."""

_PUT_SEEN: Final = "INSERT INTO seen (id, hour)"
_PUT: Final = """
INSERT INTO events (source, destination, urgent, lane, due, received, attempt, order_id, people, visit, payload)
"""
_PUT_DEAD: Final = """
INSERT INTO dead (source, destination, urgent, lane, died, received, attempts, reason, detail, request, order_id,
people, visit, payload)
"""
_BURY: Final = """
INSERT INTO dead (source, destination, urgent, lane, died, received, attempts, reason, detail, request, order_id,
people, visit, payload)
SELECT source, destination, urgent, lane, ?, received, attempt + ?, ?, ?, ?, order_id, people, visit, payload
FROM events WHERE number IN (%s) ORDER BY number
"""
_LATER: Final = """
UPDATE events SET due = ?, attempt = attempt + ?,
failing_since = CASE WHEN ? THEN coalesce(failing_since, ?) ELSE failing_since END WHERE number = ?
"""
_PUSH_LANE: Final = "UPDATE events SET due = max(due, ?) WHERE lane = ? AND number > ? AND destination = ?"
_PUSH: Final = "UPDATE events SET due = max(due, ?) WHERE number = ?"


class FinishedRow(msgspec.Struct, frozen=True):
    """The row is not needed any more."""

    row: SpoolRow


class Later(msgspec.Struct, frozen=True):
    """The row is to be tried again at ``due``; ``at`` is now."""

    row: SpoolRow
    due: int
    failed: bool
    at: int


class BuriedRow(msgspec.Struct, frozen=True):
    """The row becomes a dead letter; ``tried`` counts the attempt that led to it."""

    row: SpoolRow
    death: DeadLetterCause
    at: int
    tried: bool


class Push(msgspec.Struct, frozen=True):
    """A row that waits behind an earlier one of its lane."""

    number: int
    due: int


Settle: TypeAlias = FinishedRow | Later | BuriedRow | Push
Lane: TypeAlias = tuple[str, bytes]
"""A destination and one of its lanes."""


def storable(text: str) -> str:
    """Text that SQLite can hold: half a surrogate pair would make the whole commit fail, again and again."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def number_of(one: Settle) -> int:
    """The row's number."""
    return one.number if isinstance(one, Push) else one.row.number


def write_settled(run: sqlite3.Connection, settled: Sequence[Settle], lost: Container[Lane]) -> None:
    """Write how rows have ended; a row that is not there any more has ended already.

    The later ones of a lane wait with the first, unless the lane has lost its order.
    """
    delete(run, [one.row.number for one in settled if isinstance(one, FinishedRow)])
    for one in settled:
        match one:
            case BuriedRow():
                bury(run, [one.row.number], one.death, one.at, tried=one.tried)
            case Later():
                row = one.row
                values = (one.due, one.failed, one.failed, one.at, row.number)
                there = run.execute(_LATER, values).rowcount
                if there and row.lane is not None and (row.destination, row.lane) not in lost:
                    run.execute(_PUSH_LANE, (one.due, row.lane, row.number, row.destination))
            case Push():
                run.execute(_PUSH, (one.due, one.number))
            case FinishedRow():
                pass


def bury(run: sqlite3.Connection, numbers: Sequence[int], death: DeadLetterCause, at: int, *, tried: bool) -> None:
    """Make dead letters of rows."""
    if numbers:
        values = (at, tried, storable(death.reason), storable(death.detail), death.request)
        run.execute(_BURY % ",".join(map(str, numbers)), values)
        delete(run, numbers)


def delete(run: sqlite3.Connection, numbers: Sequence[int]) -> None:
    """Delete rows."""
    if numbers:
        run.execute(f"DELETE FROM events WHERE number IN ({','.join(map(str, numbers))})")  # noqa: S608 - numbers only


def write_events(run: sqlite3.Connection, calls: Sequence[Sequence[NewEvent]], now: int) -> list[list[bool]]:
    """Write the events of several calls that were not seen before; answers for each whether it was new."""
    known = _find_seen(run, [event.seen for events in calls for event in events])
    stored: list[list[bool]] = []
    fresh: list[NewEvent] = []
    for events in calls:
        answers: list[bool] = []
        for event in events:
            new = event.seen not in known
            answers.append(new)
            if new:
                known.add(event.seen)
                fresh.append(event)
        stored.append(answers)
    if fresh:
        _insert(run, fresh, now)
    return stored


def _find_seen(run: sqlite3.Connection, digests: Sequence[bytes]) -> set[bytes]:
    found: set[bytes] = set()
    for start in range(0, len(digests), MARKS):
        part = digests[start : start + MARKS]
        query = f"SELECT id FROM seen WHERE id IN ({','.join('?' * len(part))})"  # noqa: S608 - marks only
        found.update(id_ for (id_,) in run.execute(query, part))
    return found


def _insert(run: sqlite3.Connection, events: Sequence[NewEvent], now: int) -> None:
    hour = now // HOUR_MS
    _insert_all(run, _PUT_SEEN, [(event.seen, hour) for event in events])
    run.execute(
        "INSERT INTO seen_hours VALUES (?, ?) ON CONFLICT (hour) DO UPDATE SET rows = rows + excluded.rows",
        (hour, len(events)),
    )
    rows = [(event, row) for event in events for row in event.rows]
    _insert_all(run, _PUT, [_columns(event, row, now) for event, row in rows if row.death is None])
    dead = [_dead_columns(event, row, row.death, now) for event, row in rows if row.death is not None]
    _insert_all(run, _PUT_DEAD, dead)


def _insert_all(run: sqlite3.Connection, insert: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows, many with each statement."""
    start = 0
    for size in CHUNKS:
        while len(rows) - start >= size:
            part = rows[start : start + size]
            marks = f"({','.join('?' * len(part[0]))})"
            run.execute(f"{insert} VALUES {','.join([marks] * size)}", [value for row in part for value in row])
            start += size


def _columns(event: NewEvent, row: NewRow, now: int) -> tuple[object, ...]:
    order_id = None if row.order_id is None else storable(row.order_id)
    return (
        *(storable(event.source), storable(row.destination), row.urgent, row.lane, now, event.received, 0),
        *(order_id, b"".join(row.people), row.visit, row.payload),
    )


def _dead_columns(event: NewEvent, row: NewRow, death: DeadLetterCause, now: int) -> tuple[object, ...]:
    columns = _columns(event, row, now)
    return (*columns[:7], storable(death.reason), storable(death.detail), death.request, *columns[7:])


def probe(run: sqlite3.Connection) -> int:
    """Take room that is not there on a full disk."""
    run.execute("INSERT INTO probe VALUES (zeroblob(8192))")
    return run.execute("DELETE FROM probe").rowcount
