"""What the embedded spool writes with one commit, for everybody who waits. In a thread.

What cannot be written, because of what it says, fails alone: neither a sender nor the rows of others wait for it.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from impact_plugin.spool.base import DeadLetterCause, NewEvent
from impact_plugin.spool.reasons import DeadLetterReason
from impact_plugin.spool.sqlite_rows import BuriedRow, Lane, Push, Settle, write_events, write_settled
from impact_plugin.spool.sqlite_schema import transaction

_T = TypeVar("_T")


class Put(msgspec.Struct, frozen=True):
    """Events that a sender waits for, with the number of their rows and bytes."""

    events: Sequence[NewEvent]
    rows: int
    size: int
    waiter: "asyncio.Future[list[bool]]"


class SpoolWrite(msgspec.Struct, frozen=True):
    """Something to be done in the next transaction; when it cannot be written, it is done once more."""

    work: Callable[[sqlite3.Connection], int]
    waiter: "asyncio.Future[int]"


class SpoolTurn(msgspec.Struct, frozen=True):
    """What goes into one transaction, and who waits for it."""

    puts: Sequence[Put]
    settled: Sequence[Settle]
    jobs: Sequence[SpoolWrite]
    flushes: "Sequence[asyncio.Future[None]]"


class Written(msgspec.Struct, frozen=True):
    """What to tell those who wait for puts and jobs."""

    stored: Sequence[list[bool] | Exception]
    results: Sequence[int | Exception]


def write_turn(connection: sqlite3.Connection, turn: SpoolTurn, lost: Container[Lane], now: int) -> Written:
    """Write everything, or raise what is wrong with the disk; what is wrong with one part only is among the answers."""
    try:
        with transaction(connection) as run:
            write_settled(run, turn.settled, lost)
            results = [job.work(run) for job in turn.jobs]
            return Written(write_events(run, [put.events for put in turn.puts], now), results)
    except Exception as error:
        if _is_of_disk(error):
            raise
    with transaction(connection) as run:
        return _write_singly(run, turn, lost, now)


def _is_of_disk(error: Exception) -> bool:
    """Whether the disk or the file is in trouble, rather than what was to be written."""
    trouble = (sqlite3.OperationalError, sqlite3.InternalError, OSError, MemoryError)
    # A damaged file has no class of its own.
    return isinstance(error, trouble) or type(error) is sqlite3.DatabaseError


def _write_singly(run: sqlite3.Connection, turn: SpoolTurn, lost: Container[Lane], now: int) -> Written:
    for one in turn.settled:
        failure = _alone(run, partial(write_settled, run, [one], lost))
        if failure is not None and not isinstance(one, Push):
            # It was tried, and would be again and again.
            grave = BuriedRow(
                one.row, DeadLetterCause(str(DeadLetterReason.FAULT), type(failure).__name__), now, tried=True
            )
            _alone(run, partial(write_settled, run, [grave], lost))
    results = [_alone(run, partial(job.work, run)) for job in turn.jobs]
    return Written([_alone(run, partial(_store, run, put, now)) for put in turn.puts], results)


def _store(run: sqlite3.Connection, put: Put, now: int) -> list[bool]:
    return write_events(run, [put.events], now)[0]


def _alone(run: sqlite3.Connection, work: Callable[[], _T]) -> _T | Exception:
    run.execute("SAVEPOINT alone")
    try:
        found: _T | Exception = work()
    except Exception as error:
        if _is_of_disk(error):
            raise
        run.execute("ROLLBACK TO alone")
        found = error
    run.execute("RELEASE alone")
    return found
