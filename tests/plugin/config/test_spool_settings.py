"""Every setting of the spool, turned: what it bounds, and what happens at the bound."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from impact_plugin.app import run_service
from impact_plugin.config.settings import make_settings
from impact_plugin.config.sources import RoutingFile
from impact_plugin.errors import StateUnavailableError
from impact_plugin.spool.base import DeadLetterCause, NewEvent, NewRow, SpoolFullError, SpoolTally
from impact_plugin.spool.sqlite import SqliteSpool, open_sqlite_spool
from tests.builders import NOON, Clock

HOUR = 3600.0
DAY = 24 * HOUR
SECONDS = 10.0


@pytest.fixture(name="clock")
def clock_fixture() -> Clock:
    """Lend a clock."""
    return Clock()


def opened(folder: Path, clock: Clock, **spool: Any) -> Any:
    """A spool with these settings."""
    settings = make_settings({"state": {"dir": str(folder)}, "spool": {"min_free_mb": 0, **spool}})
    return open_sqlite_spool(settings.spool, settings.state, clock)


def event(number: int, *, size: int = 10, death: DeadLetterCause | None = None) -> NewEvent:
    """An event with one row."""
    seen = number.to_bytes(15)
    return NewEvent("shop", seen, int(NOON * 1000), (NewRow("eu", b"x" * size, death=death),))


async def tallied(spool: SqliteSpool, enough: Callable[[SpoolTally], bool]) -> bool:
    """Whether the tally is as it should be within some seconds."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if enough(await spool.tally()):
            return True
        await asyncio.sleep(0.05)
    return False


async def test_as_many_events_as_allowed_may_wait(tmp_path: Path, clock: Clock) -> None:
    """``spool.max_events``."""
    async with opened(tmp_path, clock, max_events=1000) as spool:
        await spool.put([event(number) for number in range(1000)])
        with pytest.raises(SpoolFullError, match=r"spool\.max_events"):
            await spool.put([event(2000)])


async def test_as_many_bytes_as_allowed_may_wait(tmp_path: Path, clock: Clock) -> None:
    """``spool.max_mb``."""
    async with opened(tmp_path, clock, max_mb=1) as spool:
        await spool.put([event(1, size=1_000_000)])
        with pytest.raises(SpoolFullError, match=r"spool\.max_mb"):
            await spool.put([event(2, size=100_000)])


async def test_some_of_the_disk_stays_free(tmp_path: Path, clock: Clock) -> None:
    """``spool.min_free_mb``."""
    async with opened(tmp_path, clock, min_free_mb=1_000_000) as spool:
        with pytest.raises(SpoolFullError, match=r"spool\.min_free_mb"):
            await spool.put([event(1)])


async def test_events_wait_for_so_many_days(tmp_path: Path, clock: Clock) -> None:
    """``spool.retention_days``: then they are dead letters."""
    async with opened(tmp_path, clock, retention_days=1) as spool:
        await spool.put([event(1)])
        clock.now += DAY + 60

        assert await tallied(spool, lambda tally: tally.dead == 1 and sum(tally.waiting.values()) == 0)


async def test_dead_letters_are_kept_for_so_many_days(tmp_path: Path, clock: Clock) -> None:
    """``spool.dead_letter_days``."""
    async with opened(tmp_path, clock, dead_letter_days=1) as spool:
        await spool.put([event(1, death=DeadLetterCause("configuration", "wrong"))])
        before = await spool.tally()
        clock.now += DAY + 60

        assert 1 == before.dead
        assert await tallied(spool, lambda tally: tally.dead == 0)


async def test_so_many_dead_letters_are_kept(tmp_path: Path, clock: Clock) -> None:
    """``spool.max_dead_letters``: the oldest go first, and are counted."""
    async with opened(tmp_path, clock, max_dead_letters=2) as spool:
        await spool.put([event(number, death=DeadLetterCause("configuration", "wrong")) for number in range(3)])

        assert await tallied(spool, lambda tally: tally.dead == 2 and tally.evicted == 1)


async def test_duplicates_are_known_for_so_many_hours(tmp_path: Path, clock: Clock) -> None:
    """``spool.seen_hours``: then an event is a new one."""
    async with opened(tmp_path, clock, seen_hours=1) as spool:
        first, again = await spool.put([event(1)]), await spool.put([event(1)])
        clock.now += 3 * HOUR
        forgotten = await tallied(spool, lambda tally: tally.seen == 0)
        later = await spool.put([event(1)])

        assert forgotten
        assert ([True], [False], [True]) == (first, again, later)


async def test_so_many_duplicates_are_known(tmp_path: Path, clock: Clock) -> None:
    """``spool.max_seen``: the oldest go first."""
    async with opened(tmp_path, clock, max_seen=1000) as spool:
        await spool.put([event(number) for number in range(1500)])

        assert await tallied(spool, lambda tally: tally.seen <= 1000)


async def test_the_disk_is_waited_for_so_long(tmp_path: Path, clock: Clock) -> None:
    """``spool.timeout_seconds``: then the sender is told to come again."""
    async with opened(tmp_path, clock, timeout_seconds=0.2) as spool:
        other = sqlite3.connect(tmp_path / "spool.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(StateUnavailableError):
            await spool.put([event(1)])
        waited = time.monotonic() - started
        other.execute("ROLLBACK")
        other.close()

    assert 0.1 < waited < 30.0


async def test_the_senders_port_is_where_the_settings_say(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """``server.ingest_host`` and ``server.ingest_port``, with a source to open it for."""
    port = free_port()
    file = tmp_path / "impact.toml"
    file.write_text(
        '[sources.shop]\nkeys = ["0123456789abcdef"]\n'
        '[destinations.eu]\naccountSID = "IRtest"\napiKey = "token-of-tests"\ncampaignId = "1"\n',
        encoding="utf-8",
    )
    server = {"port": 0, "operator_port": 0, "ingest_host": "127.0.0.1", "ingest_port": port}
    settings = make_settings({"server": server, "state": {"dir": str(tmp_path / "var")}})
    async with run_service(settings, {}, routing=RoutingFile(file, {})) as service:
        assert f"http://127.0.0.1:{port}" == service.ingest_url
