"""Which rows of the embedded spool are due, and in what order those of a visitor go."""

import sqlite3
from typing import Any, Final

import msgspec

from impact_plugin.spool.base import LANE_LENGTH, LANE_SECONDS, Row
from impact_plugin.spool.sqlite_rows import Push

_DUE: Final = """
SELECT number, source, destination, payload, visit, urgent, lane, received, attempt, failing_since
FROM events WHERE destination = ? AND urgent = ? AND due <= ? ORDER BY due, number LIMIT ?
"""
_ROW: Final = """
SELECT number, source, destination, payload, visit, urgent, lane, received, attempt, failing_since
FROM events WHERE number = ?
"""

# Numbers whatever stands there: a damaged row is told apart when it is read whole.
_BEFORE: Final = """
SELECT number, CAST(due AS INTEGER), CAST(failing_since AS INTEGER)
FROM events WHERE lane = ? AND number < ? AND destination = ? ORDER BY number LIMIT ?
"""


class Look:
    """One search for rows that are due, in a thread; ``taken`` ones and the order of ``lost`` lanes do not count."""

    def __init__(
        self,
        destination: str,
        urgent: bool,
        limit: int,
        now: int,
        taken: frozenset[int],
        lost: frozenset[bytes],
    ) -> None:
        self._destination = destination
        self._urgent = urgent
        self._limit = limit
        self._now = now
        self._seen = set(taken)
        self._lost = set(lost)
        self.rows: list[Row] = []
        self.pushes: list[Push] = []
        self.unreadable: list[tuple[Row, str]] = []
        self.newly_lost: list[bytes] = []
        self.found_again: list[bytes] = []

    def run(self, run: sqlite3.Connection) -> None:
        """Find rows, with those of their lanes that go before them."""
        values = (self._destination, self._urgent, self._now, self._limit + len(self._seen))
        found = run.execute(_DUE, values)
        for columns in found.fetchall():
            if len(self.rows) >= self._limit:
                return
            if columns[0] in self._seen:
                continue
            row = self._row(columns)
            if row is not None:
                self._consider(run, row)

    def _consider(self, run: sqlite3.Connection, row: Row) -> None:
        """Give the row after those of its lane that are due, or let it wait with the first that is not."""
        if row.lane is None:
            self._add(row)
            return
        values = (row.lane, row.number, self._destination, LANE_LENGTH + 1)
        before = run.execute(_BEFORE, values).fetchall()
        if self._is_lost(row, row.lane, before):
            self._add(row)
            return
        for number, due, _ in before:
            if number in self._seen:
                continue
            if due > self._now:
                self._seen.add(row.number)
                self.pushes.append(Push(row.number, due))
                return
            earlier = self._row(run.execute(_ROW, (number,)).fetchone())
            if earlier is not None:
                self._add(earlier)
        self._add(row)

    def _is_lost(self, row: Row, lane: bytes, before: list[tuple[int, int, int | None]]) -> bool:
        """Whether the lane goes without order: for as long as something stands before a row of it."""
        failing = before[0][2] if before else row.failing_since
        stuck = failing is not None and self._now - failing > LANE_SECONDS * 1000
        if lane in self._lost:
            if not before and not stuck:
                self._lost.discard(lane)
                self.found_again.append(lane)
            return bool(before)
        if len(before) <= LANE_LENGTH and not stuck:
            return False
        self._lost.add(lane)
        self.newly_lost.append(lane)
        return True

    def _add(self, row: Row) -> None:
        self._seen.add(row.number)
        self.rows.append(row)

    def _row(self, columns: tuple[Any, ...]) -> Row | None:
        """The row, or None for one whose columns were damaged: it must not be met again and again."""
        try:
            return msgspec.convert(columns, _Columns, strict=True).row()
        except msgspec.ValidationError as error:
            number = columns[0]
            self._seen.add(number)
            self.unreadable.append((Row(number, "", self._destination, b"", b"", False, None, 0), str(error)))
            return None


class _Columns(msgspec.Struct, frozen=True, array_like=True):
    """A row as SQLite gives it; it takes any type in any column."""

    number: int
    source: str
    destination: str
    payload: bytes
    visit: bytes
    urgent: int
    lane: bytes | None
    received: int
    attempt: int
    failing_since: int | None

    def row(self) -> Row:
        """The row in the port's types."""
        return Row(
            self.number,
            self.source,
            self.destination,
            self.payload,
            self.visit,
            bool(self.urgent),
            self.lane,
            self.received,
            self.attempt,
            self.failing_since,
        )
