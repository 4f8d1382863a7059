"""The default backend: what is on disk, what survives, what is refused, and what a failing disk does."""

import asyncio
import fcntl
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

import impact_plugin.store.embedded
from impact_plugin.config.settings import StateSettings
from impact_plugin.errors import StateError, StateUnavailableError
from impact_plugin.sessions.sessions import Digests, Sessions
from impact_plugin.store.base import CALL_SIZE, SessionQuery
from impact_plugin.store.embedded import (
    EXPIRED_ROWS,
    FILE,
    LOCK,
    SCHEMA_VERSION,
    SWEEPS,
    EmbeddedStore,
    open_store,
)
from impact_plugin.telemetry import Telemetry
from impact_transformers import Decision, Question, Secret
from tests.builders import Clock, digest, query

NEW, REPEAT = Decision.NEW, Decision.REPEAT
NOON = 1_789_000_000
MINUTE = 60_000
HOUR = 3600.0
DAY = 24 * HOUR
RETENTION = 4 * DAY
MEMORY = 30 * DAY
LONGEST_WAIT = 500

Opener = Callable[..., AbstractAsyncContextManager[EmbeddedStore]]
Asker = Callable[..., Any]


@pytest.fixture(name="clock")
def clock_fixture() -> Clock:
    """Lend a clock."""
    return Clock()


@pytest.fixture(name="opened")
def opened_fixture(tmp_path: Path, clock: Clock) -> Opener:
    """Lend an opener of stores in the test's folder: ``async with opened(timeout_seconds=1) as store``."""

    def opened(**more: Any) -> AbstractAsyncContextManager[EmbeddedStore]:
        chosen: dict[str, Any] = {"durability": "process", **more}
        return open_store(StateSettings(str(tmp_path), **chosen), clock)

    return opened


def landing(message: str, minute: int = 0, visitor: str = "a", click_id: str = "CLICK-1") -> SessionQuery:
    """A click candidate that carries its id."""
    return query(
        message, minute, key=digest(f"key {visitor} {click_id}"), window=30 * MINUTE, click_id=click_id,
        anonymous=digest(visitor),
    )  # fmt: skip


def order(message: str, minute: int = 5, visitor: str = "a") -> SessionQuery:
    """An order that wants a click id."""
    return query(
        message, minute, anonymous=digest(visitor), asks=True, order=True, keeps=True, referral=int(MEMORY * 1000)
    )


async def ask(store: EmbeddedStore, *queries: SessionQuery) -> list[tuple[Decision | None, str | None]]:
    """Decisions and click ids of one call."""
    return [(one.decision, one.click_id) for one in await store.decide(queries)]


DAY_IN_SHORT = (landing("m1"), landing("m2", 20), order("o1"), order("o2", visitor="nobody"))
TOLD = [(NEW, None), (REPEAT, None), (None, "CLICK-1"), (None, None)]


def rows(folder: Path, statement: str) -> list[tuple[Any, ...]]:
    """What a reader of the file finds."""
    connection = sqlite3.connect(folder / FILE)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def bytes_on_disk(folder: Path) -> bytes:
    """Everything the store has left there."""
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))


async def test_what_was_answered_survives_a_restart(opened: Opener) -> None:
    """Decisions, windows, clicks and answers, also that of an order without a click id."""
    async with opened() as store:
        first = await ask(store, *DAY_IN_SHORT)
    async with opened() as store:
        again = await ask(store, *reversed(DAY_IN_SHORT))
        later = await ask(store, landing("m3", 49), landing("m4", 80), order("o3", 90))

    assert TOLD == first
    assert TOLD[::-1] == again
    assert [(REPEAT, None), (NEW, None), (None, "CLICK-1")] == later


async def test_what_was_answered_survives_without_a_proper_end(opened: Opener, tmp_path: Path) -> None:
    """The file as it is at the moment of the answer is enough: nothing waits for the close."""
    async with opened() as store:
        await ask(store, *DAY_IN_SHORT)
        left = {name: (tmp_path / name).read_bytes() for name in (FILE, f"{FILE}-wal")}
    for name, content in left.items():
        (tmp_path / name).write_bytes(content)
    async with opened() as store:
        assert TOLD == await ask(store, *DAY_IN_SHORT)


async def test_a_large_call_is_answered_and_kept_as_small_ones(opened: Opener) -> None:
    """More than one turn: everything is written before anything is read, and all of it is on disk."""
    size = 2 * CALL_SIZE + 7
    batch = [order(f"o{number}", visitor=f"a{number}") for number in range(size)]
    batch += [landing(f"m{number}", visitor=f"a{number}", click_id=f"C{number}") for number in range(size)]
    async with opened() as store:
        first = await ask(store, *batch)
    async with opened() as store:
        again = await ask(store, *batch)

    assert [(None, f"C{number}") for number in range(size)] + [(NEW, None)] * size == first
    assert first == again


async def test_a_small_call_goes_between_the_turns_of_a_large_one(opened: Opener) -> None:
    """Calls that overlap find one click between them, and neither waits for the other's last turn."""
    large = [landing(f"m{number}", visitor="a") for number in range(4 * CALL_SIZE)]
    async with opened() as store:
        first, second = await asyncio.gather(ask(store, *large), ask(store, landing("small"), order("o")))
        again = await ask(store, landing("small"), order("o"), *large)

    assert [NEW] == [decision for decision, _ in [*first, *second] if decision is NEW]
    assert [*second, *first] == again


@pytest.mark.parametrize("restarted", [False, True], ids=["in memory", "on disk"])
async def test_decisions_expire_after_their_retention(opened: Opener, clock: Clock, restarted: bool) -> None:
    """They are there until the last moment of the retention, and gone a quarter of it later."""
    async with opened() as store:
        await ask(store, *DAY_IN_SHORT)
        clock.now += RETENTION
        kept = [] if restarted else await ask(store, order("o1"), order("o2", visitor="nobody"))
    if restarted:
        async with opened() as store:
            kept = await ask(store, order("o1"), order("o2", visitor="nobody"))
    clock.now = NOON + RETENTION * 5 / 4 + 1
    async with opened() as store:
        await ask(store, landing("late", 1, "nobody", "CLICK-2"))
        gone = await ask(store, order("o2", visitor="nobody"), landing("new", 1), order("o1"))

    assert TOLD[2:] == kept
    assert [(None, "CLICK-2"), (NEW, None), (None, "CLICK-1")] == gone


async def test_a_claim_that_is_seen_lives_on(opened: Opener, clock: Clock) -> None:
    """The window of a visitor who keeps coming is not forgotten with the generation that it began in."""
    async with opened() as store:
        await ask(store, landing("m1"))
        for day in range(1, 9):
            clock.now = NOON + day * DAY
            await ask(store, landing(f"again {day}", 1))
        in_memory = await ask(store, landing("m1"))
    async with opened() as store:
        assert in_memory == await ask(store, landing("m1"))
        assert [(NEW, None)] == in_memory


@pytest.mark.parametrize("restarted", [False, True], ids=["in memory", "on disk"])
async def test_clicks_are_forgotten_after_their_days(opened: Opener, clock: Clock, restarted: bool) -> None:
    """They are there until the last moment, and gone a quarter later."""
    found = []
    async with opened() as store:
        await ask(store, landing("m1"))
        for number, seconds in enumerate([MEMORY, MEMORY * 5 / 4 + 1]):
            clock.now = NOON + seconds
            if not restarted:
                found += await ask(store, order(f"o{number}"))
    for number, seconds in enumerate([MEMORY, MEMORY * 5 / 4 + 1] if restarted else []):
        clock.now = NOON + seconds
        async with opened() as store:
            found += await ask(store, order(f"o{number}"))

    assert [(None, "CLICK-1"), (None, None)] == found


async def test_expired_rows_leave_the_file_in_parts(
    opened: Opener, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sweeping deletes what has run out and nothing else, so many rows at a time."""
    monkeypatch.setattr(impact_plugin.store.embedded, "TICK_SECONDS", 0.0001)
    async with opened() as store:
        await ask(store, landing("old", visitor="old"))
    connection = sqlite3.connect(tmp_path / FILE)
    with connection:
        generation, claims, answers = connection.execute("SELECT generation, claims, answers FROM journal").fetchone()
        copies = [(generation, claims, answers)] * (2 * EXPIRED_ROWS)
        connection.executemany("INSERT INTO journal (generation, claims, answers) VALUES (?, ?, ?)", copies)
    connection.close()
    async with opened() as store:
        clock.now += 2 * MEMORY
        await ask(store, landing("young", visitor="young"))
        for _ in range(LONGEST_WAIT):
            if store._sweep_from == SWEEPS:
                break
            await asyncio.sleep(0.01)

        assert [(1,)] == rows(tmp_path, "SELECT count(*) FROM journal")
        assert [(digest("young"),)] == rows(tmp_path, "SELECT id FROM identities")
        assert [(NEW, None), (None, "CLICK-1")] == await ask(
            store, landing("young", visitor="young"), order("o", visitor="young")
        )


async def test_a_second_store_in_the_folder_is_refused(opened: Opener) -> None:
    """Two memories on one file would each count every click; the error names the ways out."""
    async with opened() as store:
        with pytest.raises(StateError, match=r"another process keeps its session state here.*stop it.*state\.dir"):
            async with opened():
                pytest.fail("a second store was opened")

        assert TOLD == await ask(store, *DAY_IN_SHORT)
    async with opened() as store:
        assert TOLD == await ask(store, *DAY_IN_SHORT)


async def test_a_second_process_in_the_folder_is_refused(opened: Opener, tmp_path: Path) -> None:
    """Another process holds the lock; when it is killed the folder is free again."""
    program = textwrap.dedent("""
        import fcntl, sys, time
        lock = open(sys.argv[1], "a")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print("locked", flush=True)
        time.sleep(60)
    """)
    other = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / LOCK)], stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - a short wait in a test
    assert other.stdout is not None
    try:
        assert "locked\n" == other.stdout.readline()
        with pytest.raises(StateError, match=r"state\.dir"):
            async with opened():
                pytest.fail("a second store was opened")
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    async with opened() as store:
        assert TOLD == await ask(store, *DAY_IN_SHORT)


async def test_a_folder_that_failed_to_open_is_not_held(opened: Opener, tmp_path: Path) -> None:
    """A start that was refused leaves no lock behind."""
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(StateError):
        async with opened():
            pytest.fail("a damaged file was opened")
    with (tmp_path / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    (tmp_path / FILE).unlink()
    async with opened() as store:
        assert TOLD == await ask(store, *DAY_IN_SHORT)


async def test_a_damaged_beginning_is_told(opened: Opener, tmp_path: Path) -> None:
    """A file that is no database is refused, named, and left as it is."""
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(StateError, match=rf"{FILE}: the session state cannot be opened.*move the file away"):
        async with opened():
            pytest.fail("a damaged file was opened")

    assert b"no database" * 1000 == (tmp_path / FILE).read_bytes()


async def test_a_damaged_page_is_told(opened: Opener, tmp_path: Path) -> None:
    """Damage behind the beginning comes to light when the state is read, and is told in the same way."""
    async with opened() as store:
        for number in range(50):
            await ask(store, *[landing(f"m{number} {one}", visitor=f"a{number} {one}") for one in range(50)])
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(StateError, match=rf"{FILE}: .*move the file away"):
        async with opened():
            pytest.fail("a damaged file was opened")


async def test_a_file_of_a_later_version_is_refused(opened: Opener, tmp_path: Path) -> None:
    """An older release does not guess at what a newer one wrote."""
    async with opened() as store:
        await ask(store, *DAY_IN_SHORT)
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(StateError, match="written by a later version of impact-plugin"):
        async with opened():
            pytest.fail("a later file was opened")
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.close()
    async with opened() as store:
        assert TOLD == await ask(store, *DAY_IN_SHORT)


def fill_disk(store: EmbeddedStore) -> None:
    """Let the file not grow by a single page."""
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")


def free_disk(store: EmbeddedStore) -> None:
    """Let it grow again."""
    store._connection.execute("PRAGMA max_page_count = 1000000")


async def test_a_full_disk_is_told_and_loses_nothing(opened: Opener) -> None:
    """Batches are refused while it lasts; afterwards they get what was decided the first time, also from disk."""
    batch = [landing(f"m{number}", visitor=f"a{number}") for number in range(2000)]
    early = batch[:10]
    async with opened() as store:
        before = await ask(store, *early)
        fill_disk(store)
        for _ in range(2):
            with pytest.raises(StateUnavailableError, match=r"cannot be written: database or disk is full"):
                await store.decide(batch)
        # A message that comes late, by the same visitor, must not become the click in place of a refused one.
        with pytest.raises(StateUnavailableError):
            await store.decide([landing("late", 1, "a1999")])
        with pytest.raises(StateUnavailableError):
            await store.check()
        free_disk(store)
        await store.check()
        after = await ask(store, *batch, landing("late", 1, "a1999"))
        tally = await store.tally()
    async with opened() as store:
        restarted = await ask(store, *batch, landing("late", 1, "a1999"))

    assert [(NEW, None)] * len(early) == before
    assert [(NEW, None)] * len(batch) + [(REPEAT, None)] == after
    assert after == restarted
    assert 0 == tally.unsaved


async def test_what_was_decided_alone_is_taken_in_later(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the disk out of reach this process decides on, and writes it all when the disk is back."""
    monkeypatch.setattr(impact_plugin.store.embedded, "TICK_SECONDS", 0.01)
    batch = [landing(f"m{number}", visitor=f"a{number}") for number in range(2000)]
    async with opened() as store:
        fill_disk(store)
        with pytest.raises(StateUnavailableError):
            await store.decide(batch)
        alone = [one.decision for one in await store.decide_locally([*batch, landing("repeat", 1, "a1"), order("o1")])]
        free_disk(store)
    async with opened() as store:
        found = await ask(store, *batch, landing("repeat", 1, "a1"))

    assert [*[NEW] * len(batch), REPEAT, None] == alone
    assert [(NEW, None)] * len(batch) + [(REPEAT, None)] == found


async def test_a_disk_that_fails_for_a_while(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any error of the disk, at any commit: the same message gets the same answer, before, between and after."""
    write, failures = EmbeddedStore._write, count()

    def sometimes(store: EmbeddedStore, rows: Sequence[Any]) -> None:
        if next(failures) % 3 != 2:
            raise sqlite3.OperationalError("disk I/O error")
        write(store, rows)

    monkeypatch.setattr(EmbeddedStore, "_write", sometimes)
    told: dict[str, Any] = {}
    refused = 0
    async with opened() as store:
        for number in range(60):
            name = f"m{number % 20}"
            [found] = await asyncio.gather(ask(store, landing(name, number % 20, "a")), return_exceptions=True)
            if isinstance(found, list):
                assert told.setdefault(name, found[0]) == found[0]
                continue
            assert "the session state cannot be written: disk I/O error" == str(found)
            refused += 1
    monkeypatch.undo()
    async with opened() as store:
        again = {name: (await ask(store, landing(name, int(name[1:]), "a")))[0] for name in told}

    assert refused > 10
    assert told == again
    assert [(NEW, None)] == [found for found in told.values() if found[0] is NEW]


async def test_a_commit_that_fails_writes_nothing_of_it(opened: Opener, tmp_path: Path) -> None:
    """A transaction is all or nothing: after a failure within it the connection takes the next one."""
    async with opened() as store:
        store._connection.execute(
            "CREATE TEMP TRIGGER full BEFORE INSERT ON identities BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
        with pytest.raises(StateUnavailableError, match="no room"):
            await store.decide(DAY_IN_SHORT)
        left = rows(tmp_path, "SELECT count(*) FROM journal")
        store._connection.execute("DROP TRIGGER full")

        assert [(0,)] == left
        assert TOLD == await ask(store, *DAY_IN_SHORT)


async def test_a_slow_disk_is_not_waited_for_without_end(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the timeout the batch is refused; what it decided is written all the same when the disk comes round."""
    write, slow = EmbeddedStore._write, asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait(store: EmbeddedStore, rows: Sequence[Any]) -> None:
        asyncio.run_coroutine_threadsafe(slow.wait(), loop).result(10)
        write(store, rows)

    monkeypatch.setattr(EmbeddedStore, "_write", wait)
    async with opened(timeout_seconds=0.05) as store:
        for _ in range(2):
            with pytest.raises(StateUnavailableError, match=r"took no commit within 0\.05 s"):
                await store.decide(DAY_IN_SHORT)
        slow.set()
    async with opened() as store:
        assert TOLD == await ask(store, *DAY_IN_SHORT)


async def test_changes_that_wait_are_bounded(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk takes none for long, the oldest live in memory only, and are counted."""
    monkeypatch.setattr(impact_plugin.store.embedded, "UNSAVED_LIMIT", 3000)
    async with opened() as store:
        fill_disk(store)
        for number in range(50):
            await store.decide_locally([landing(f"m{number}", visitor=f"a{number}")])
        free_disk(store)
        await store.check()
        unsaved, again = (await store.tally()).unsaved, (await store.tally()).unsaved
        answers = await ask(store, *[landing(f"m{number}", visitor=f"a{number}") for number in range(50)])
        waiting = store._waiting_bytes
    async with opened() as store:
        sizes = (await store.tally()).sizes

    assert 50 - 3000 // 256 <= unsaved < 50
    assert 0 == again
    assert 0 == waiting
    assert [(NEW, None)] * 50 == answers
    # The answers above were replays: they wrote nothing that was not there.
    assert 50 - unsaved == sizes["claims"]


async def test_parallel_calls_share_commits(opened: Opener, tmp_path: Path) -> None:
    """A row for each commit: two hundred calls at the same time need but a few."""
    async with opened(durability="power") as store:
        await asyncio.gather(*[ask(store, landing(f"m{number}", visitor=f"a{number}")) for number in range(200)])

        assert rows(tmp_path, "SELECT count(*) FROM journal")[0][0] <= 3


async def test_an_answer_waits_for_what_it_rests_on(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry writes nothing of its own, and yet is answered only when the decision it repeats is on disk."""
    write, allowed = EmbeddedStore._write, asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait(store: EmbeddedStore, rows: Sequence[Any]) -> None:
        asyncio.run_coroutine_threadsafe(allowed.wait(), loop).result(10)
        write(store, rows)

    monkeypatch.setattr(EmbeddedStore, "_write", wait)
    async with opened() as store:
        first = asyncio.create_task(ask(store, landing("m1")))
        await asyncio.sleep(0.01)
        retry = asyncio.create_task(ask(store, landing("m1")))
        await asyncio.sleep(0.05)
        early = first.done() or retry.done()
        allowed.set()

        assert not early
        assert [(NEW, None)] == await first == await retry


@pytest.mark.parametrize(("durability", "level"), [("power", 2), ("process", 1)])
async def test_durability_is_sqlites(opened: Opener, durability: str, level: int) -> None:
    """``power`` is FULL, ``process`` NORMAL, both with a write-ahead log. https://sqlite.org/pragma.html#pragma_synchronous."""
    async with opened(durability=durability) as store:
        found = [store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")]

    assert [level, "wal"] == found


async def test_the_files_are_their_owners_alone(opened: Opener, tmp_path: Path) -> None:
    """Mode 0600 for everything that holds state, whatever the umask."""
    async with opened() as store:
        await ask(store, *DAY_IN_SHORT)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir() if file.name != LOCK}

    assert {FILE: 0o600, f"{FILE}-wal": 0o600, f"{FILE}-shm": 0o600} == modes


async def test_nothing_on_disk_reveals_a_person(opened: Opener, tmp_path: Path) -> None:
    """Neither ids nor addresses, in no file and no coding; times and click ids are what is kept."""
    secrets = ["visitor-4711", "jane@example.com", "message-0815", "IRaccount", "https://shop.example.com/landing"]
    visitor, user, message, account, page = secrets
    program = f"{account}\x1f1"
    landed = Question(
        program=program, message=message, time=NOON * 1000, received=NOON * 1000,
        key=f"{program}\x1f{visitor}\x1f{page}", click_id="CLICK-1",
        anonymous_id=visitor, user_id=user, asks=False, joins=False, order=False,
        window_ms=MINUTE, referral_ms=MINUTE, first=False,
    )  # fmt: skip
    joined = msgspec.structs.replace(landed, message=f"{message}-2", key=None, click_id=None, asks=True, joins=True)
    async with opened() as store:
        sessions = Sessions(store, Digests(Secret("a secret of a test")), Telemetry(), 0, lambda: NOON)
        visits = await sessions.visits([landed, joined])
        found = bytes_on_disk(tmp_path)

    assert [(NEW, None), (None, "CLICK-1")] == [(one.decision, one.click_id) for one in visits]
    assert b"CLICK-1" in found
    for secret in [*secrets, "a secret of a test"]:
        for written in (secret.encode(), secret.encode("utf-16-le"), secret.encode().hex().encode()):
            assert written not in found


async def test_what_is_forgotten_leaves_the_disk(opened: Opener, tmp_path: Path) -> None:
    """Not only the row goes: its bytes are overwritten, and no restart brings the click back."""
    async with opened() as store:
        await ask(store, landing("m1", click_id="CLICK-OF-JANE"), landing("m2", visitor="b", click_id="CLICK-OF-JOE"))
        forgotten = await store.forget([digest("a"), digest("nobody")])
        at_once = await ask(store, order("o1"))
        store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        open_bytes = bytes_on_disk(tmp_path)
    closed_bytes = bytes_on_disk(tmp_path)
    async with opened() as store:
        later = await ask(store, order("o2"), order("o3", visitor="b"))

    assert 1 == forgotten
    assert [(None, None)] == at_once
    assert [(None, None), (None, "CLICK-OF-JOE")] == later
    for found in (open_bytes, closed_bytes):
        assert b"CLICK-OF-JANE" not in found
        assert b"CLICK-OF-JOE" in found


async def test_forgetting_is_on_disk_when_it_returns(opened: Opener) -> None:
    """A disk that is out of reach makes it fail, and it is carried out when the disk is back."""
    async with opened() as store:
        await ask(store, landing("m1"))
        store._connection.execute(
            "CREATE TEMP TRIGGER full BEFORE DELETE ON identities BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
        with pytest.raises(StateUnavailableError, match="no room"):
            await store.forget([digest("a")])
        store._connection.execute("DROP TRIGGER full")
        await store.check()
    async with opened() as store:
        assert [(None, None)] == await ask(store, order("o"))


async def test_what_was_pushed_out_of_memory_can_be_forgotten(opened: Opener) -> None:
    """At capacity a row outlives its entry in memory; forgetting reaches it."""
    async with opened(max_claims=10, max_identities=1, max_answers=10) as store:
        await ask(store, landing("m1"))
        await ask(store, landing("m2", visitor="b"))
        await store.forget([digest("a")])
    async with opened() as store:
        assert [(None, None), (None, "CLICK-1")] == await ask(store, order("o"), order("o2", visitor="b"))


async def test_capacities_hold_in_memory_and_after_a_restart(opened: Opener) -> None:
    """The oldest go, are counted once, and the tally tells how much room there is."""
    small = {"max_claims": 3, "max_identities": 2, "max_answers": 1}
    async with opened(**small) as store:
        for number in range(5):
            await ask(store, landing(f"m{number}", visitor=f"a{number}"), order(f"o{number}", visitor=f"a{number}"))
        full, after = await store.tally(), await store.tally()
        newest = await ask(store, *[landing(f"m{number}", visitor=f"a{number}") for number in (2, 3, 4)])
    async with opened(**small) as store:
        loaded = await store.tally()
        reloaded = await ask(store, landing("m4", visitor="a4"), order("o4", visitor="a4"))

    assert {"claims": 3, "clicks": 2, "answers": 1} == full.capacities == full.sizes == loaded.sizes
    assert {"claims": 2, "clicks": 3, "answers": 4} == full.evicted
    assert {"claims": 0, "clicks": 0, "answers": 0} == after.evicted
    assert [(NEW, None)] * 3 == newest
    assert [(NEW, None), (None, "CLICK-1")] == reloaded


async def test_a_clock_that_jumps_back_changes_no_answer(opened: Opener, clock: Clock) -> None:
    """A corrected clock, before and after a restart."""
    clock.now += 10 * DAY
    async with opened() as store:
        await ask(store, *DAY_IN_SHORT)
        clock.now -= 10 * DAY
        back = await ask(store, *DAY_IN_SHORT)
        await ask(store, landing("m9", visitor="z"))
    async with opened() as store:
        assert TOLD == back == await ask(store, *DAY_IN_SHORT)
        assert [(NEW, None)] == await ask(store, landing("m9", visitor="z"))
