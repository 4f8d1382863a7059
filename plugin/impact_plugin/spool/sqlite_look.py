"""Which rows of the embedded spool are due, and in what order those of a visitor go."""

import sqlite3
from typing import Any, Final, TypeAlias

import msgspec

from impact_plugin.spool.base import LANE_LENGTH, LANE_SECONDS, SpoolRow
from impact_plugin.spool.sqlite_rows import Lane, Push

_DUE: Final = """
SELECT number, lane, failing_since FROM events WHERE destination = ? AND urgent = ? AND due <= ?
ORDER BY due, number LIMIT ?
"""
_LANE: Final = """
SELECT number, due, failing_since FROM events WHERE lane = ? AND destination = ? ORDER BY number LIMIT ?
"""
_ROW: Final = """
SELECT number, source, destination, payload, visit, urgent, lane, received, attempt, failing_since
FROM events WHERE number = ?
"""

_Place: TypeAlias = tuple[int, Any, Any]
"""Number, ``due`` and ``failing_since`` of a row in its lane, whatever stands there."""


class DueRows:
    """One search for rows that are due, in a thread; ``taken`` ones and the order of ``lost`` lanes do not count.

    ``behind`` tells of each lane which of the taken rows its rows were given behind.
    """

    def __init__(
        self,
        destination: str,
        urgent: bool,
        limit: int,
        now: int,
        taken: frozenset[int],
        lost: frozenset[Lane],
    ) -> None:
        self._destination = destination
        self._urgent = urgent
        self._limit = limit
        self._now = now
        self._taken = taken
        self._seen = set(taken)
        self._lost = set(lost)
        self._lanes: dict[bytes, list[_Place]] = {}
        self.rows: list[SpoolRow] = []
        self.pushes: list[Push] = []
        self.unreadable: list[tuple[SpoolRow, str]] = []
        self.newly_lost: list[Lane] = []
        self.found_again: list[Lane] = []
        self.behind: dict[bytes, set[int]] = {}

    def run(self, run: sqlite3.Connection) -> None:
        """Find rows, with those of their lanes that go before them."""
        values = (self._destination, self._urgent, self._now, self._limit + len(self._seen))
        for number, lane, failing_since in run.execute(_DUE, values).fetchall():
            if len(self.rows) >= self._limit:
                return
            if number in self._seen:
                continue
            if isinstance(lane, bytes):
                self._consider(run, number, lane, failing_since)
            else:
                self._give(run, number)

    def _consider(self, run: sqlite3.Connection, number: int, lane: bytes, failing_since: Any) -> None:
        """Give the row after those of its lane that are due, or let it wait with the first that is not."""
        places = self._places(run, lane)
        before = [place for place in places if place[0] < number]
        failing = before[0][2] if before else failing_since
        stuck = isinstance(failing, int) and self._now - failing > LANE_SECONDS * 1000
        if self._is_lost(lane, stuck=stuck, ahead=len(before), length=len(places)):
            self._give(run, number)
            return
        for earlier, due, _ in before:
            if earlier in self._taken:
                self.behind.setdefault(lane, set()).add(earlier)
            if earlier in self._seen:
                continue
            if isinstance(due, int) and due > self._now:
                self._seen.add(number)
                self.pushes.append(Push(number, due))
                return
            self._give(run, earlier)
        self._give(run, number)

    def _places(self, run: sqlite3.Connection, lane: bytes) -> list[_Place]:
        """The first rows of a lane, looked up once: a visitor may have many that are due."""
        found = self._lanes.get(lane)
        if found is None:
            found = run.execute(_LANE, (lane, self._destination, LANE_LENGTH + 1)).fetchall()
            self._lanes[lane] = found
        return found

    def _is_lost(self, lane: bytes, *, stuck: bool, ahead: int, length: int) -> bool:
        """Whether the lane goes without order: from too long a wait on, until a row of it is the first of a few."""
        key = self._destination, lane
        if key in self._lost:
            if ahead or stuck or length > LANE_LENGTH:
                return True
            self._lost.discard(key)
            self.found_again.append(key)
            return False
        if ahead <= LANE_LENGTH and not stuck:
            return False
        self._lost.add(key)
        self.newly_lost.append(key)
        return True

    def _give(self, run: sqlite3.Connection, number: int) -> None:
        """Read the row; one whose columns were damaged is told of: it must not be met again and again."""
        self._seen.add(number)
        columns = run.execute(_ROW, (number,)).fetchone()
        if columns is None:
            # Deleted since its number was found.
            return
        try:
            # Without the types that are built in, text would pass as the base64 of bytes.
            self.rows.append(msgspec.convert(columns, _Columns, builtin_types=(bytes,)).row())
        except (msgspec.ValidationError, UnicodeEncodeError) as error:
            self.unreadable.append((SpoolRow(number, "", self._destination, b"", b"", False, None, 0), str(error)))


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

    def row(self) -> SpoolRow:
        """The row in the port's types; raises ``UnicodeEncodeError`` for a text that was damaged."""
        self.source.encode()
        return SpoolRow(
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
