"""Time that jumps: quick, in order, and never ahead of sockets and threads."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from impact_plugin.testing.virtual_time import START, DeadlockError, VirtualLoop, run_virtual


def test_hours_pass_in_no_time() -> None:
    """Sleeping for a day takes less than a second, and the loop's clock shows a day."""

    async def day() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        for _ in range(24):
            await asyncio.sleep(3600)
        return loop.time(), loop.wall()

    started = time.monotonic()
    found = run_virtual(day)

    assert found == pytest.approx((86_400.0, START + 86_400.0))
    assert time.monotonic() - started < 60.0


def test_timers_fire_in_their_order() -> None:
    """Whatever the order in which they were set."""
    order: list[int] = []

    async def sleeper(seconds: int) -> None:
        await asyncio.sleep(seconds)
        order.append(seconds)

    async def main() -> None:
        await asyncio.gather(*(sleeper(seconds) for seconds in (30, 10, 20, 10)))

    run_virtual(main)

    assert order == [10, 10, 20, 30]


def test_a_timeout_fires_at_its_time() -> None:
    """``asyncio.timeout`` is on the same clock."""

    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7):
                await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == pytest.approx(7.0)


def test_a_thread_is_not_overtaken() -> None:
    """A timer of a second must not fire before a thread that takes a tenth of one."""

    async def main() -> list[str]:
        order: list[str] = []

        async def timer() -> None:
            await asyncio.sleep(1)
            order.append("timer")

        async def thread() -> None:
            await asyncio.to_thread(time.sleep, 0.1)
            order.append("thread")

        await asyncio.gather(timer(), thread())
        return order

    assert run_virtual(main) == ["thread", "timer"]


def test_a_database_in_a_thread_works(tmp_path: Path) -> None:
    """SQLite, as the service uses it."""

    def write(number: int) -> int:
        with closing(sqlite3.connect(tmp_path / "x.db")) as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS t (n)")
            connection.execute("INSERT INTO t VALUES (?)", (number,))
            return int(connection.execute("SELECT count(*) FROM t").fetchone()[0])

    async def main() -> int:
        for number in range(5):
            await asyncio.sleep(600)
            found = await asyncio.to_thread(write, number)
        return found

    assert run_virtual(main) == 5


def test_real_sockets_are_not_overtaken() -> None:
    """A server that sleeps an hour before each answer, and a client that would give up after two."""

    async def slow(_request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(3600)
        return web.Response(text="late")

    async def main() -> tuple[list[str], float]:
        runner = web.ServerRunner(web.Server(slow))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=7200)) as session:

            async def ask() -> str:
                async with session.get(url) as response:
                    return await response.text()

            found = await asyncio.gather(*(ask() for _ in range(20)))
        await runner.cleanup()
        return found, asyncio.get_running_loop().time()

    found, took = run_virtual(main)

    assert found == ["late"] * 20
    assert 3600 <= took < 3700


def test_a_deadlock_is_told() -> None:
    """A task that waits for nothing must not hang the test."""

    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(DeadlockError, match="no timer is set"):
        run_virtual(main)
