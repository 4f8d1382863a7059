"""The embedded ledger keeps to the port, and says clearly when the disk does not take an order."""

import asyncio
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from impact_plugin.config.settings import DeliverySettings, StateSettings
from impact_plugin.errors import StateError, StateUnavailableError
from impact_plugin.orders.embedded_ledger import (
    EXPIRED_ROWS,
    FILE,
    LOCK,
    SCHEMA_VERSION,
    EmbeddedLedger,
    open_ledger,
)
from impact_plugin.orders.ledger import Ledger, LedgerTally, OrderOutcome
from tests.builders import NOON, Clock
from tests.plugin.store.ledger_conformance import (
    AMBIGUOUS,
    CLEAR,
    DAY,
    DELIVERED,
    HOUR,
    LEASE,
    ONE,
    RETENTION,
    WINDOW,
    LedgerConformance,
    Opener,
    Step,
    attempt,
    clock_fixture,
    expected,
    order,
    standings,
    steps,
)
from tests.properties import tried

__all__ = ["clock_fixture"]


def opened(
    folder: Path, clock: Callable[[], float], *, retention: float = RETENTION, timeout: float = 5.0, **more: Any
) -> AbstractAsyncContextManager[EmbeddedLedger]:
    """The ledger of that folder; ``retention`` and ``timeout`` are in seconds."""
    state = StateSettings(str(folder), order_memory_days=retention / DAY, timeout_seconds=timeout, **more)
    return open_ledger(state, DeliverySettings(dedup_window_hours=WINDOW / HOUR, timeout_seconds=LEASE / 2), clock)


@pytest.fixture(name="open_it")
def open_it_fixture(tmp_path: Path, clock: Clock) -> Opener:
    """Lend an opener of ledgers in a folder of their own."""

    @asynccontextmanager
    async def open_it(**more: Any) -> AsyncIterator[EmbeddedLedger]:
        async with opened(tmp_path, clock, **more) as ledger:
            yield ledger

    return open_it


class TestEmbeddedLedger(LedgerConformance):
    """The suite, on a folder of its own."""


@tried(200)
@given(steps)
def test_any_history_stands_as_the_reference_has_it(history: list[Step]) -> None:
    """Begins, outcomes, crashes and clocks of any order: each answer is the one of the plain rules."""

    async def run() -> Any:
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            lives = AsyncExitStack()

            async def begin_life() -> Ledger:
                await lives.aclose()
                return await lives.enter_async_context(opened(Path(folder), clock, durability="process"))

            async with lives:
                return await standings(history, clock, begin_life, "")

    assert expected(history, alone=True) == asyncio.run(run())


async def test_of_another_process_nothing_is_in_flight(open_it: Opener) -> None:
    """Who holds the folder is alone, so what is begun and not settled is of unknown outcome without waiting."""
    async with open_it() as ledger:
        await ledger.begin(ONE)
    async with open_it() as ledger:
        assert AMBIGUOUS is await ledger.begin(ONE)


async def test_a_folder_is_of_one_process(open_it: Opener, tmp_path: Path) -> None:
    """The second is refused with the ways out; the first does not notice."""
    async with open_it() as ledger:
        with pytest.raises(StateError, match=r"another process keeps its ledger of orders here.*stop it.*state\.dir"):
            async with open_it():
                pass

        assert CLEAR is await ledger.begin(ONE)
    assert (tmp_path / LOCK).exists()


async def test_the_file_is_ours_alone_and_holds_digests(open_it: Opener, tmp_path: Path) -> None:
    """Nobody else may read it; an owner's name, a time and the digest are all that is in it."""
    async with open_it() as ledger:
        await attempt(ledger, ONE, OrderOutcome.UNKNOWN)
    connection = sqlite3.connect(tmp_path / FILE)
    rows = connection.execute("SELECT * FROM orders").fetchall()
    connection.close()

    assert 0o600 == (tmp_path / FILE).stat().st_mode & 0o777
    assert [(ONE, 0, NOON * 1000, NOON * 1000, b"", 0)] == rows


@pytest.mark.parametrize(("durability", "expected_level"), [("power", 2), ("process", 1)])
async def test_durability_decides_how_a_commit_is_written(
    open_it: Opener, durability: str, expected_level: int
) -> None:
    """FULL waits for the disk at every commit, NORMAL does not."""
    async with open_it(durability=durability) as ledger:
        assert (expected_level,) == ledger._connection.execute("PRAGMA synchronous").fetchone()


async def test_at_capacity_the_oldest_delivered_go_first(open_it: Opener, clock: Clock) -> None:
    """What is of unknown outcome stays longer; each that went is counted once."""
    async with open_it(max_orders=4) as ledger:
        for name, outcome in (
            ("u", OrderOutcome.UNKNOWN),
            ("d1", OrderOutcome.DELIVERED),
            ("d2", OrderOutcome.DELIVERED),
        ):
            await attempt(ledger, order(name), outcome)
            await ledger.flush()
            clock.now += 1
        for name in ("d3", "d4"):
            await attempt(ledger, order(name), OrderOutcome.DELIVERED)
            await ledger.flush()
            clock.now += 1
        tallies = [await ledger.tally(), await ledger.tally()]
        # Before d1 is begun anew, and pushes out another one.
        found = [await ledger.begin(order(name)) for name in ("u", "d2", "d3", "d4", "d1")]

    assert [LedgerTally(4, 4, 1, 1), LedgerTally(4, 4, 0, 1)] == tallies
    assert [AMBIGUOUS, DELIVERED, DELIVERED, DELIVERED, CLEAR] == found


async def test_at_capacity_without_delivered_ones(open_it: Opener, clock: Clock) -> None:
    """Then the oldest of unknown outcome go, and what was begun last is still known."""
    async with open_it(max_orders=3) as ledger:
        for number in range(5):
            await attempt(ledger, order(number), OrderOutcome.UNKNOWN)
            await ledger.flush()
            clock.now += 1

        assert LedgerTally(3, 3, 2, 3) == await ledger.tally()
        assert AMBIGUOUS is await ledger.begin(order(4))


async def test_what_has_run_out_leaves_the_file(open_it: Opener, clock: Clock, tmp_path: Path) -> None:
    """A little at a time; what is counted is what is there, also after a restart."""
    names = [order(number) for number in range(EXPIRED_ROWS + 500)]
    async with open_it() as ledger:
        await asyncio.gather(*map(ledger.begin, names))
        for name in names[::2]:
            await ledger.settle(name, OrderOutcome.DELIVERED)
        await ledger.flush()
        clock.now += RETENTION + 1
        await attempt(ledger, ONE, OrderOutcome.DELIVERED)
        await ledger.flush()
        sizes = [(await ledger.tally()).size]
        await ledger._tend()
        sizes.append((await ledger.tally()).size)
        await ledger._tend()
        sizes.append((await ledger.tally()).size)
    async with open_it() as ledger:
        again = await ledger.tally()

    assert [EXPIRED_ROWS + 501, 1, 1] == sizes
    assert LedgerTally(1, StateSettings().max_orders, 0, 0) == again


async def test_a_lower_capacity_is_reached_bit_by_bit(open_it: Opener) -> None:
    """So that the first commit after a restart does not wait for millions of rows."""
    async with open_it() as ledger:
        names = [order(number) for number in range(EXPIRED_ROWS + 100)]
        await asyncio.gather(*map(ledger.begin, names))
    async with open_it(max_orders=50) as ledger:
        await ledger._tend()
        first = await ledger.tally()
        await ledger._tend()

        assert [100, 50] == [first.size, (await ledger.tally()).size]


async def test_what_was_written_while_the_clock_was_wrong_does_not_run_out_early(open_it: Opener, clock: Clock) -> None:
    """An order delivered while the clock was a hundred days late is remembered when the clock is right."""
    async with open_it() as ledger:
        await attempt(ledger, order("before"), OrderOutcome.DELIVERED)
        clock.now -= 100 * DAY
        await attempt(ledger, ONE, OrderOutcome.DELIVERED)
    async with open_it() as ledger:
        await attempt(ledger, order("two"), OrderOutcome.DELIVERED)
        await ledger.flush()
        clock.now += 100 * DAY
        await ledger._tend()

        assert [DELIVERED, DELIVERED] == [await ledger.begin(ONE), await ledger.begin(order("two"))]


async def test_a_full_disk_permits_nothing_until_there_is_room(open_it: Opener) -> None:
    """Begins raise at once, outcomes are kept, and the check fails as long as a begin would."""
    async with open_it() as ledger:
        await ledger.begin(ONE)
        run = ledger._connection.execute
        (pages,) = run("PRAGMA page_count").fetchone()
        run(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StateUnavailableError, match="full"):
            await asyncio.gather(*[ledger.begin(order(number)) for number in range(500)])
        with pytest.raises(StateUnavailableError, match="full"):
            await ledger.check()
        await ledger.settle(ONE, OrderOutcome.DELIVERED)
        run("PRAGMA max_page_count = 1000000")
        await ledger.check()
        found = await asyncio.gather(*[ledger.begin(order(number)) for number in range(500)])

        assert {CLEAR} == set(found)
        assert DELIVERED is await ledger.begin(ONE)


async def test_a_disk_that_takes_no_commit_is_told_in_time(open_it: Opener, tmp_path: Path) -> None:
    """Whoever waits is told after the timeout; when the disk is back, what was begun for them is taken back."""
    async with open_it(timeout=0.3) as ledger:
        await ledger.begin(ONE)
        other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        found = await asyncio.gather(*[ledger.begin(order(number)) for number in range(3)], return_exceptions=True)
        await ledger.settle(ONE, OrderOutcome.DELIVERED)
        with pytest.raises(StateUnavailableError, match=r"locked|took no order within 0\.3 s"):
            await ledger.check()
        other.execute("ROLLBACK")
        other.close()
        await ledger.check()

        assert {StateUnavailableError} == set(map(type, found))
        assert [DELIVERED, CLEAR] == [await ledger.begin(ONE), await ledger.begin(order(0))]


async def test_a_commit_that_comes_too_late_is_taken_back(open_it: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk hangs for longer than the callers wait, and then writes: nobody has sent, so nothing is in flight."""
    hanging = threading.Event()
    async with open_it(timeout=0.2) as ledger:
        write = ledger._write

        def hang(*given: Any, **named: Any) -> Any:
            hanging.wait(5)
            return write(*given, **named)

        monkeypatch.setattr(ledger, "_write", hang)
        first, later = asyncio.create_task(ledger.begin(ONE)), asyncio.create_task(ledger.begin(order("later")))
        await asyncio.sleep(0.05)
        queued = asyncio.create_task(ledger.begin(order("queued")))
        found = await asyncio.gather(first, later, queued, return_exceptions=True)
        hanging.set()
        await ledger.flush()
        await ledger.flush()

        assert ["the disk took no order within 0.2 s"] * 3 == [str(one) for one in found]
        assert 0 == (await ledger.tally()).size
        assert CLEAR is await ledger.begin(ONE)


async def test_a_file_spoilt_under_way_permits_nothing(open_it: Opener) -> None:
    """Whatever the database says then, it is no answer."""
    async with open_it() as ledger:
        ledger._connection.execute("DROP TABLE orders")
        with pytest.raises(StateUnavailableError, match="the orders cannot be written: no such table"):
            await ledger.begin(ONE)


@pytest.mark.parametrize("content", [b"no database " * 1000, b"\x00" * 3])
async def test_a_file_that_is_none_of_ours_stops_the_start(open_it: Opener, tmp_path: Path, content: bytes) -> None:
    """The error names the file and says what moving it away would mean."""
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(StateError, match=r"ledger\.db: the ledger of orders cannot be opened.*are sent again"):
        async with open_it():
            pass


async def test_a_place_that_cannot_be_written_stops_the_start(open_it: Opener, tmp_path: Path) -> None:
    """A folder where the file should be, and a state folder that is none."""
    (tmp_path / FILE).mkdir()
    with pytest.raises(StateError, match=r"ledger\.db: the ledger of orders cannot be opened"):
        async with open_it():
            pass
    with pytest.raises(StateError, match=r"ledger\.lock: the ledger of orders cannot be opened"):
        async with opened(tmp_path / "absent", lambda: NOON):
            pass


async def test_a_read_only_file_permits_nothing(open_it: Opener) -> None:
    """A disk that the system has made read-only because of errors; also then the answer of a delivery is lost."""
    async with open_it() as ledger:
        await attempt(ledger, ONE, OrderOutcome.DELIVERED)
        await ledger.flush()
        ledger._connection.execute("PRAGMA query_only = ON")
        with pytest.raises(StateUnavailableError, match="readonly"):
            await ledger.begin(order("two"))
        ledger._connection.execute("PRAGMA query_only = OFF")

        assert [DELIVERED, CLEAR] == [await ledger.begin(ONE), await ledger.begin(order("two"))]


async def test_a_file_of_a_later_version_stops_the_start(open_it: Opener, tmp_path: Path) -> None:
    """It is not touched."""
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(StateError, match="was written by a later version of impact-plugin"):
        async with open_it():
            pass

    assert before == (tmp_path / FILE).read_bytes()
