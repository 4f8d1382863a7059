"""The embedded spool keeps to the port, and to what it was given: kills, damaged rows, disks that do not take it."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from impact_plugin.config.settings import SpoolSettings, StateSettings
from impact_plugin.errors import StateError, StateUnavailableError
from impact_plugin.files import Durability
from impact_plugin.spool import sqlite
from impact_plugin.spool.base import DeadLetterCause, SpoolFullError, SpoolTally
from impact_plugin.spool.sqlite import SqliteSpool, open_sqlite_spool
from impact_plugin.spool.sqlite_letters import open_letters
from impact_plugin.spool.sqlite_schema import connect
from tests.builders import Clock
from tests.plugin.spool.spool_conformance import ALL, Opener, SpoolConformance, dead, digest, event, names, take

SECONDS = 10.0
DAY = 86_400.0


def opener_of(folder: Path, clock: Callable[[], float]) -> Opener:
    """What opens the spool of a folder."""

    def opened(durability: Durability = "power", **limits: Any) -> Any:
        given: dict[str, Any] = {"min_free_mb": 0, "timeout_seconds": 5.0, **limits}
        return open_sqlite_spool(SpoolSettings(**given), StateSettings(str(folder), durability=durability), clock)

    return opened


async def tallied(spool: SqliteSpool, enough: Callable[[SpoolTally], bool]) -> SpoolTally:
    """The first tally that is as it should be, within some seconds."""
    deadline = time.monotonic() + SECONDS
    while not enough(tally := await spool.tally()):
        assert time.monotonic() < deadline, tally
        await asyncio.sleep(0.05)
    return tally


class TestSqliteSpool(SpoolConformance):
    """The port."""

    @pytest.fixture(name="opener")
    def opener_fixture(self, tmp_path: Path, clock: Clock) -> Opener:
        """Lend what opens the spool of a folder."""
        return opener_of(tmp_path, clock)


@pytest.fixture(name="clock")
def clock_fixture() -> Clock:
    """Lend a clock."""
    return Clock()


@pytest.fixture(name="opener")
def opener_fixture(tmp_path: Path, clock: Clock) -> Any:
    """Lend what opens the spool of a folder."""
    return opener_of(tmp_path, clock)


def damage(folder: Path, statement: str, *values: object) -> None:
    """Change the file as no program of ours would."""
    with sqlite3.connect(folder / "spool.db") as other:
        other.execute(statement, values)
    other.close()


async def swept(spool: SqliteSpool) -> None:
    """Wait for the next sweep of the whole file, which is within a second."""
    sweep, done = spool._tick, asyncio.Event()

    async def tell() -> bool:
        removed = await sweep()
        done.set()
        return removed

    spool._tick = tell  # type: ignore[method-assign]
    async with asyncio.timeout(SECONDS):
        await done.wait()
    spool._tick = sweep  # type: ignore[method-assign]


async def test_a_damaged_row_is_buried_and_costs_no_other(tmp_path: Path, opener: Any) -> None:
    """Text where a number or bytes belong: the row is a dead letter, and the spool goes on."""
    columns = ["received", "attempt", "failing_since", "payload", "visit", "lane", "due"]
    async with opener() as spool:
        await spool.put([event(column, f"visitor-{column}") for column in columns])
        await spool.put([event(f"behind {column}", f"visitor-{column}", urgent=True) for column in columns])
        await spool.put([event("good")])
        for number, column in enumerate(columns, 1):
            damage(tmp_path, f"UPDATE events SET {column} = 'text' WHERE number = {number}")  # noqa: S608 - our own names
        await swept(spool)
        rows = names(await take(spool, urgent=True)) + names(await take(spool))
        await spool.flush()
        stored = await spool.put([event("after")])
        letters = await dead(spool)

        assert [True] == stored
        assert "good" in rows
        # A row without a time is due: everything else can be read.
        assert {"due"} == set(columns) & set(rows)
        assert ["unreadable"] * 6 == [one.reason for one in letters]


async def test_bytes_that_are_no_text_hide_nothing(tmp_path: Path, opener: Any) -> None:
    """A row with invalid UTF-8 in a column of text is a dead letter, shown as it can be."""
    async with opener() as spool:
        await spool.put([event("a"), event("b")])
        damage(tmp_path, "UPDATE events SET source = CAST(x'ff41' AS TEXT), order_id = source WHERE number = 1")
        rows = names(await take(spool))
        await spool.flush()
        (letter,) = await dead(spool)

        assert ["b"] == rows
        assert ("unreadable", "\ufffdA", b"a") == (letter.reason, letter.source, letter.payload)


async def test_damaged_dead_letters_can_be_seen_and_thrown_away(tmp_path: Path, opener: Any, clock: Clock) -> None:
    """Whatever stands in their columns, by the service and by the commands, and letting go passes over them."""
    async with opener(dead_letter_days=1 / 24) as spool:
        await spool.put(
            [event("a", death=DeadLetterCause("x", ""), people=("ada",)), event("b", death=DeadLetterCause("x", ""))]
        )
        damage(
            tmp_path, "UPDATE dead SET died = 'text', attempts = x'00', detail = x'ff', payload = 7, people = 'text'"
        )
        found = [(one.died, one.attempts, one.detail, one.payload) for one in await dead(spool)]
        forgotten = await spool.forget([digest("ada")])
        await spool._tick()
        async with open_letters(tmp_path, clock) as letters:
            beside = [(one.died, one.attempts, one.detail, one.payload) async for one in letters.letters(ALL)]
            purged = await letters.purge(ALL)

        assert [(0, 0, "\ufffd", b"7")] * 2 == found == beside
        assert (0, 2) == (forgotten.dead, purged)


async def test_text_that_cannot_be_stored_stops_nobody(opener: Any) -> None:
    """Half a surrogate pair in an order id or in impact.com's words."""
    async with opener() as spool:
        odd = event("a", order_id="\ud800", death=DeadLetterCause("x", "\udfff"))
        answers = await asyncio.gather(spool.put([odd]), spool.put([event("b")]), spool.put([event("c")]))
        (row, *_) = await take(spool)
        spool.bury(row, DeadLetterCause("y", "\ud800 words"))
        await spool.flush()

        assert [[True]] * 3 == list(answers)
        assert ["?", "? words"] == [one.detail for one in await dead(spool)]


async def test_flushing_waits_for_the_commit_under_way(opener: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was settled before is on disk when it returns."""
    async with opener() as spool:
        await spool.put([event("a")])
        (row,) = await take(spool)
        real, begun = spool._write, threading.Event()

        def slow(turn: Any) -> Any:
            begun.set()
            time.sleep(0.2)
            return real(turn)

        monkeypatch.setattr(spool, "_write", slow)
        spool.done(row)
        await asyncio.to_thread(begun.wait, SECONDS)
        await spool.flush()

        assert {"eu": 0} == dict((await spool.tally()).waiting)


async def test_retrying_does_not_follow_those_that_die_again(opener: Any) -> None:
    """It ends, whatever the service does with them meanwhile."""
    async with opener() as spool:
        await spool.put([event(f"e{number}", death=DeadLetterCause("x", "")) for number in range(1500)])

        async def bury_again() -> None:
            while True:
                for row in await take(spool):
                    spool.bury(row, DeadLetterCause("x", "again"))
                await asyncio.sleep(0)

        busy = asyncio.create_task(bury_again())
        async with asyncio.timeout(SECONDS):
            count = await spool.retry(ALL)
        busy.cancel()

        assert 1500 == count


async def test_a_second_process_is_refused(opener: Any) -> None:
    """Each of the two would deliver every event."""
    async with opener():
        with pytest.raises(StateError, match="another process"):
            async with opener():
                pass


async def test_commands_work_beside_the_service(tmp_path: Path, opener: Any, clock: Clock) -> None:
    """The service sees what they change: rows to take, and numbers."""
    async with opener() as spool:
        await spool.put(
            [event("a", death=DeadLetterCause("x", "")), event("b", death=DeadLetterCause("y", "")), event("c")]
        )
        async with open_letters(tmp_path, clock) as letters:
            listed = [one.payload async for one in letters.letters(ALL)]
            retried = await letters.retry(ALL)
        await tallied(spool, lambda tally: tally.dead == 0 and tally.waiting == {"eu": 3})

        assert ([b"a", b"b"], 2) == (listed, retried)
        assert ["a", "b", "c"] == sorted(names(await take(spool)))


async def test_commands_need_a_spool(tmp_path: Path, clock: Clock) -> None:
    """A wrong folder is told, not made."""
    with pytest.raises(StateError, match=r"state\.dir"):
        async with open_letters(tmp_path, clock):
            pass

    assert [] == list(tmp_path.iterdir())


async def test_what_was_forgotten_is_in_no_file(tmp_path: Path, opener: Any) -> None:
    """Overwritten in the file, and gone from the log."""
    async with opener() as spool:
        await spool.put([event("the secret text of ada", people=("ada",)), event("of bob", people=("bob",))])
        await spool.forget([digest("ada")])
        written = b"".join(file.read_bytes() for file in tmp_path.iterdir())

    assert b"the secret text of ada" not in written
    assert b"of bob" in written


async def test_forgetting_that_cannot_be_finished_says_so(tmp_path: Path, opener: Any) -> None:
    """A reader that holds the log keeps what was deleted: whoever asked must ask again."""
    async with opener() as spool:
        await spool.put([event("a", people=("ada",))])
        reader = sqlite3.connect(tmp_path / "spool.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        with pytest.raises(StateUnavailableError, match="log"):
            await spool.forget([digest("ada")])
        reader.execute("COMMIT")
        reader.close()
        again = await spool.forget([digest("ada")])

    assert 0 == again.waiting


async def test_a_broken_file_is_told_at_the_start(tmp_path: Path, opener: Any) -> None:
    """With what the operator can do."""
    (tmp_path / "spool.db").write_bytes(b"this is no database, and never was one" * 100)
    with pytest.raises(StateError, match="move the file away"):
        async with opener():
            pass


async def test_a_torn_log_loses_nothing_that_was_acknowledged(tmp_path: Path, opener: Any) -> None:
    """Bytes after the last commit are of one that nobody was told of."""
    async with opener() as spool:
        await spool.put([event("a")])
        copies = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for name, content in copies.items():
        (tmp_path / name).write_bytes(content + (os.urandom(5000) if name.endswith("-wal") else b""))
    async with opener() as spool:
        assert ["a"] == names(await take(spool))


async def test_a_later_version_is_not_touched(tmp_path: Path, opener: Any) -> None:
    """An older program might lose what it does not know of."""
    async with opener():
        pass
    damage(tmp_path, "PRAGMA user_version = 99")
    with pytest.raises(StateError, match="later version"):
        async with opener():
            pass


async def test_a_disk_that_takes_nothing_is_told_and_comes_back(opener: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Senders hear it at once, nothing that was settled is lost, and it goes on when the disk does."""
    async with opener() as spool:
        await spool.put([event("a"), event("b")])
        first, _ = await take(spool)
        page_count = spool._writer.execute("PRAGMA page_count").fetchone()[0]
        spool._writer.execute(f"PRAGMA max_page_count = {page_count}")
        spool.done(first)
        with pytest.raises(StateUnavailableError, match="full"):
            await spool.put([event("c", size=200_000)])
        with pytest.raises(StateUnavailableError):
            await asyncio.gather(*(spool.put([event(f"x{number}", size=50_000)]) for number in range(3)))
        spool._writer.execute("PRAGMA max_page_count = 1000000")
        stored = await spool.put([event("c", size=200_000)])
        await spool.check()

        assert [True] == stored
        assert {"eu": 2} == dict((await spool.tally()).waiting)


async def test_a_clock_that_was_set_back_hides_nothing(opener: Any, clock: Clock) -> None:
    """What was put off by the old time is due at once: at the start, and while it runs."""
    async with opener() as spool:
        await spool.put([event("a")])
        (row,) = await take(spool)
        spool.later(row, clock.ms + 60_000, failed=True)
        await spool.flush()
    clock.now -= 5 * DAY
    async with opener() as spool:
        assert ["a"] == names(await take(spool))


async def test_a_clock_set_back_while_it_runs_hides_nothing(opener: Any, clock: Clock) -> None:
    """Within a tick."""
    async with opener() as spool:
        await spool.put([event("a")])
        (row,) = await take(spool)
        spool.later(row, clock.ms + 60_000, failed=True)
        await spool.flush()
        await swept(spool)
        clock.now -= 5 * DAY
        deadline = time.monotonic() + SECONDS
        while not (rows := await take(spool)):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)

        assert ["a"] == names(rows)


async def test_what_is_being_sent_does_not_expire(opener: Any, clock: Clock) -> None:
    """It may have been delivered; what waits beside it expires."""
    async with opener(retention_days=60 / DAY) as spool:
        await spool.put([event("sent"), event("waits")])
        (row,) = await take(spool, limit=1)
        clock.now += 3600
        await tallied(spool, lambda tally: tally.dead == 1)
        spool.done(row)
        await spool.flush()

        assert [(b"waits", "expired")] == [(one.payload, one.reason) for one in await dead(spool)]
        assert {"eu": 0} == dict((await spool.tally()).waiting)


async def test_letting_go_keeps_pace(opener: Any) -> None:
    """Twenty thousand too many are gone within a few ticks."""
    async with opener(max_seen=1000) as spool:
        for start in range(0, 20_000, 2000):
            await spool.put(
                [event(f"{number}", death=DeadLetterCause("x", "")) for number in range(start, start + 2000)]
            )
        tally = await tallied(spool, lambda tally: tally.seen <= 1000)

        assert (20_000, 1000) == (tally.dead, tally.seen)
        assert 0 < tally.evicted <= 19_000


WRITER = """
import asyncio, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.plugin.spool.spool_conformance import event
from tests.plugin.spool.test_sqlite_spool import opener_of

async def main():
    async with opener_of(Path(sys.argv[1]), time.time)(durability="process") as spool:
        number = 0
        while True:
            await spool.put([event(f"e{number}-{part}") for part in range(5)])
            print(number, flush=True)
            number += 1

asyncio.run(main())
"""


def told_before_kill(folder: Path) -> list[int]:
    """The batches that a process said it had stored until it was killed."""
    command = [sys.executable, "-c", WRITER, str(folder), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        # The kill may have cut the last number.
        return told + [int(line) for line in process.stdout.read().split("\n")[:-1]]


async def test_killed_at_any_moment_nothing_acknowledged_is_lost(tmp_path: Path, opener: Any) -> None:
    """Every batch that was said to be stored is there, and of one that was not, all or none."""
    for _ in range(3):
        told = told_before_kill(tmp_path)
        async with opener() as spool:
            rows = names(await take(spool, limit=1_000_000))

            assert {f"e{number}-{part}" for number in told for part in range(5)} <= set(rows)
            assert len(rows) == len(set(rows))
            assert 0 == len(rows) % 5
        for file in tmp_path.iterdir():
            file.unlink()


async def test_settling_what_cannot_be_written_stops_nobody(opener: Any) -> None:
    """It is this row's defect: it becomes a dead letter, and everything that was written with it is written."""
    async with opener() as spool:
        await spool.put([event("bad"), event("good"), event("wrong")])
        bad, good, wrong = await take(spool)
        spool.later(bad, 2**70, failed=True)
        spool.done(good)
        odd: Any = object()
        spool.bury(wrong, DeadLetterCause("x", "", odd))
        answers = await asyncio.gather(spool.put([event("c")]), spool.purge(ALL))

        assert [[True], 2] == list(answers)
        assert ["c"] == names(await take(spool))
        assert {"eu": 1} == dict((await spool.tally()).waiting)


async def test_what_cannot_be_written_of_a_row_is_told_with_it(opener: Any) -> None:
    """The row is a dead letter of ours, with the try that it had."""
    async with opener() as spool:
        await spool.put([event("bad")])
        (row,) = await take(spool)
        spool.later(row, 2**70, failed=True)
        await spool.flush()

        assert [("fault", "OverflowError", 1)] == [(one.reason, one.detail, one.attempts) for one in await dead(spool)]
        assert [] == await take(spool)


async def test_events_that_cannot_be_written_fail_alone(opener: Any) -> None:
    """All of their call, and none of the calls beside it."""
    async with opener() as spool:
        bad = msgspec.structs.replace(event("bad"), received=2**70)
        calls = ([event("a")], [event("b"), bad], [event("c"), event("a")], [event("b")])
        answers = await asyncio.gather(*map(spool.put, calls), return_exceptions=True)

        assert [[True], [True, False], [True]] == [answers[0], *answers[2:]]
        assert isinstance(answers[1], StateUnavailableError)
        assert ["a", "c", "b"] == names(await take(spool))


async def test_a_commit_is_not_written_again_for_what_comes_after_it(
    opener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk whose free space cannot be told has stored the events all the same, and a failed try counts once."""
    async with opener() as spool:
        await spool.put([event("a")])
        (row,) = await take(spool)
        monkeypatch.setattr(spool, "_count", raising(OSError("no answer")))
        spool.later(row, 0, failed=True)
        stored = await spool.put([event("b")])
        monkeypatch.undo()
        await spool.put([event("c")])
        rows = await take(spool)

        assert [True] == stored
        assert [("a", 1), ("b", 0), ("c", 0)] == [(*names([row]), row.attempt) for row in rows]


def raising(error: Exception) -> Callable[..., Any]:
    """A function that raises."""

    def function(*_: object) -> Any:
        raise error

    return function


async def test_a_defect_in_letting_go_is_told_and_costs_no_event(opener: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The spool goes on, and the log has it."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    monkeypatch.setattr(sqlite, "TICK_SECONDS", 0.05)
    async with opener() as spool:
        monkeypatch.setattr(spool, "_sweep", raising(TypeError("a defect")))
        await until(lambda: len(told) > 1)

        assert [True] == await spool.put([event("a")])
    assert {"the spool met a defect"} == {context["message"] for context in told}


async def until(done: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_while_the_disk_hangs_nothing_piles_up(opener: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was told to come again is not written, but for what was begun; that counts until it has an end."""
    hanging = threading.Event()
    async with opener(timeout_seconds=0.2, max_events=3) as spool:
        write = spool._write

        def hang(turn: Any) -> Any:
            hanging.wait(SECONDS)
            return write(turn)

        monkeypatch.setattr(spool, "_write", hang)
        begun = asyncio.create_task(spool.put([event("begun")]))
        await asyncio.sleep(0.05)
        late: list[Any] = []
        for number in range(3):
            late += await asyncio.gather(
                *(spool.put([event(f"{number}{part}")]) for part in "ab"), return_exceptions=True
            )
        with pytest.raises(SpoolFullError):
            await spool.put([event("c"), event("d"), event("e")])
        checks = [await asyncio.gather(spool.check(), return_exceptions=True) for _ in range(2)]
        left = len(spool._puts) + len(spool._jobs)
        hanging.set()
        await asyncio.gather(begun, return_exceptions=True)
        again = await spool.put([event("begun"), event("0a")])

        assert {"the disk took no commit within 0.2 s"} == set(map(str, (*late, *(one for (one,) in checks))))
        assert 0 == left
        assert [False, True] == again
        assert (0, 0) == (spool._queued_rows, spool._queued_bytes)


async def test_what_expires_is_given_to_nobody(opener: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order is either sent or a dead letter, also when somebody looks just then."""
    swept = threading.Event()
    async with opener(retention_days=60 / DAY) as spool:
        await spool.put([event("order", urgent=True, order_id="o-1")])
        sweep = spool._sweep

        def slow(*given: Any) -> Any:
            swept.wait(SECONDS)
            return sweep(*given)

        monkeypatch.setattr(spool, "_sweep", slow)
        clock.now += 3600
        await until(lambda: bool(spool._taken))
        rows = await take(spool, urgent=True)
        swept.set()
        await tallied(spool, lambda tally: tally.dead == 1)

        assert [] == rows == await take(spool, urgent=True)
        assert [("expired", "o-1", 0)] == [(one.reason, one.order_id, one.attempts) for one in await dead(spool)]


@pytest.mark.parametrize("back", ["release", "later"])
async def test_a_row_given_back_during_a_look_goes_first(
    opener: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch, back: str
) -> None:
    """Those of its lane that were found meanwhile are not given without it."""
    async with opener() as spool:
        await spool.put([event("first", "ada")])
        (first,) = await take(spool)
        await spool.put([event("second", "ada"), event("other", "bob")])
        read = spool._read

        async def slow(function: Any) -> Any:
            found = await read(function)
            spool.release([first]) if back == "release" else spool.later(first, clock.ms + 60_000, failed=True)
            return found

        monkeypatch.setattr(spool, "_read", slow)
        rows = names(await take(spool))
        monkeypatch.undo()
        rest = names(await take(spool))

        assert ["other"] == rows
        assert (["first", "second"] if back == "release" else []) == rest


async def test_what_cannot_be_opened_twice_is_closed(
    tmp_path: Path, opener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing keeps the file when the start has failed."""
    opened: list[sqlite3.Connection] = []

    def once(*given: Any, **named: Any) -> sqlite3.Connection:
        if opened:
            raise StateError(tmp_path, "too many files")
        opened.append(connect(*given, **named))
        return opened[0]

    monkeypatch.setattr(sqlite, "connect", once)
    with pytest.raises(StateError, match="too many files"):
        async with opener():
            pass
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        opened[0].execute("SELECT 1")
    monkeypatch.undo()
    async with opener():
        assert (tmp_path / "spool.db").exists()


async def test_a_disk_made_read_only_is_told(opener: Any) -> None:
    """What was taken can be taken to its end when the disk is back."""
    async with opener() as spool:
        await spool.put([event("a")])
        (row,) = await take(spool)
        spool._writer.execute("PRAGMA query_only = ON")
        spool.done(row)
        with pytest.raises(StateUnavailableError, match="readonly"):
            await spool.put([event("b")])
        with pytest.raises(StateUnavailableError, match="readonly"):
            await spool.check()
        spool._writer.execute("PRAGMA query_only = OFF")
        await spool.check()

        assert {"eu": 0} == dict((await spool.tally()).waiting)


async def test_a_file_spoilt_under_way_is_told(opener: Any) -> None:
    """Neither senders nor the drain hear that all is well."""
    async with opener() as spool:
        await spool.put([event("a")])
        spool._writer.execute("DROP TABLE events")
        with pytest.raises(StateUnavailableError, match="cannot be written"):
            await spool.put([event("b")])
        with pytest.raises(StateUnavailableError, match="cannot be read"):
            await take(spool)


async def test_of_a_log_cut_short_all_but_the_end_is_there(tmp_path: Path, opener: Any) -> None:
    """A commit is there as a whole or not at all."""
    async with opener() as spool:
        await spool.put([event("a")])
        before = (tmp_path / "spool.db-wal").stat().st_size
        await spool.put([event("b", size=100_000), event("c")])
        copies = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for name, content in copies.items():
        cut = (before + len(content)) // 2 if name.endswith("-wal") else len(content)
        (tmp_path / name).write_bytes(content[:cut])
    (tmp_path / "spool.db-shm").unlink()
    async with opener() as spool:
        assert ["a"] == names(await take(spool))
        assert [False, True, True] == await spool.put([event("a"), event("b"), event("c")])


@pytest.mark.parametrize(("limits", "match"), [({"max_mb": 0.001}, "max_mb"), ({"min_free_mb": 2**40}, "min_free_mb")])
async def test_other_limits_are_told(opener: Any, limits: dict[str, float], match: str) -> None:
    """In bytes that wait and in bytes that are free; both let the spool start."""
    async with opener() as spool:
        await spool.put([event("a", size=900)])
    async with opener(**limits) as spool:
        with pytest.raises(SpoolFullError, match=match):
            await spool.put([event("b", size=900)])

        assert ["a"] == names(await take(spool))


async def test_a_full_spool_that_drains_asks_for_less_patience(opener: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the excess takes at the rate of late, in events or in bytes."""
    seconds = []
    async with opener(max_events=100, max_mb=100_000 / 2**20) as spool:
        await spool.put([event(f"e{number}", size=999) for number in range(90)])
        for rate in (0.0, 2.0, 1000.0):
            monkeypatch.setattr(spool, "_rate", rate)
            for size, count in ((0, 20), (19_000, 1)):
                with pytest.raises(SpoolFullError) as full:
                    await spool.put([event(f"x{number}", size=size) for number in range(count)])
                seconds.append(full.value.seconds)

    assert [30, 30, 5, 5, 1, 1] == seconds


async def test_seen_events_are_forgotten_after_their_time(opener: Any, clock: Clock) -> None:
    """Then one that comes again is a new one."""
    async with opener(seen_hours=1.0) as spool:
        first = await spool.put([event("a")])
        clock.now += 3500
        second = await spool.put([event("a")])
        clock.now += 2 * 3600
        tally = await tallied(spool, lambda tally: tally.seen == 0)

        assert ([True], [False], [True]) == (first, second, await spool.put([event("a")]))
        assert 0 == tally.evicted
