"""What the embedded spool writes: rows as they are put, settled and deleted. In a thread, within a transaction."""

import sqlite3
from collections.abc import Container, Sequence
from typing import Final, TypeAlias

import msgspec

from impact_plugin.spool.base import Death, NewEvent, NewRow, Row

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
BURY: Final = """
INSERT INTO dead (source, destination, urgent, lane, died, received, attempts, reason, detail, request, order_id,
people, visit, payload)
SELECT source, destination, urgent, lane, ?, received, attempt + ?, ?, ?, ?, order_id, people, visit, payload
FROM events WHERE number = ?
"""
_LATER: Final = """
UPDATE events SET due = ?, attempt = attempt + ?,
failing_since = CASE WHEN ? THEN coalesce(failing_since, ?) ELSE failing_since END WHERE number = ?
"""
_PUSH_LANE: Final = "UPDATE events SET due = max(due, ?) WHERE lane = ? AND number > ? AND destination = ?"
_PUSH: Final = "UPDATE events SET due = max(due, ?) WHERE number = ?"
DELETE: Final = "DELETE FROM events WHERE number = ?"


class Done(msgspec.Struct, frozen=True):
    """The row is not needed any more."""

    row: Row


class Later(msgspec.Struct, frozen=True):
    """The row is to be tried again at ``due``; ``at`` is now."""

    row: Row
    due: int
    failed: bool
    at: int


class Bury(msgspec.Struct, frozen=True):
    """The row becomes a dead letter; ``tried`` counts the attempt that led to it."""

    row: Row
    death: Death
    at: int
    tried: bool


class Push(msgspec.Struct, frozen=True):
    """A row that waits behind an earlier one of its lane."""

    number: int
    due: int


Settle: TypeAlias = Done | Later | Bury | Push


def storable(text: str | None) -> str | None:
    """Text that SQLite can hold: half a surrogate pair would make the whole commit fail, again and again."""
    return None if text is None else text.encode("utf-8", "replace").decode()


def number_of(one: Settle) -> int:
    """The row's number."""
    return one.number if isinstance(one, Push) else one.row.number


def write_settled(run: sqlite3.Connection, settled: Sequence[Settle], lost: Container[bytes]) -> None:
    """Write how rows have ended; the later ones of a lane wait with the first, unless it has lost its order."""
    done = [one.row.number for one in settled if isinstance(one, Done)]
    if done:
        run.execute(f"DELETE FROM events WHERE number IN ({','.join(map(str, done))})")  # noqa: S608 - numbers only
    for one in settled:
        match one:
            case Bury():
                death = one.death
                told = (storable(death.reason), storable(death.detail), death.request)
                run.execute(BURY, (one.at, one.tried, *told, one.row.number))
                run.execute(DELETE, (one.row.number,))
            case Later():
                row = one.row
                run.execute(_LATER, (one.due, one.failed, one.failed, one.at, row.number))
                if row.lane is not None and row.lane not in lost:
                    run.execute(_PUSH_LANE, (one.due, row.lane, row.number, row.destination))
            case Push():
                run.execute(_PUSH, (one.due, one.number))
            case Done():
                pass


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
    return (
        *(event.source, row.destination, row.urgent, row.lane, now, event.received, 0),
        *(storable(row.order_id), b"".join(row.people), row.visit, row.payload),
    )


def _dead_columns(event: NewEvent, row: NewRow, death: Death, now: int) -> tuple[object, ...]:
    return (
        *(event.source, row.destination, row.urgent, row.lane, now, event.received, 0),
        *(storable(death.reason), storable(death.detail), death.request),
        *(storable(row.order_id), b"".join(row.people), row.visit, row.payload),
    )


def probe(run: sqlite3.Connection) -> int:
    """Take room that is not there on a full disk."""
    run.execute("INSERT INTO probe VALUES (zeroblob(8192))")
    return run.execute("DELETE FROM probe").rowcount
