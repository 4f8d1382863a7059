"""The end of a service: when it begins, what it cancels, and how much time is left."""

import asyncio

import anyio

from impact_plugin.process.shutdown import Shutdown
from impact_plugin.testing.virtual_time import run_virtual


def test_the_grace_period_begins_with_the_stop() -> None:
    """Once; a second call does not begin it again."""

    async def main() -> list[float]:
        shutdown = Shutdown(10.0)
        left = [shutdown.seconds_left()]
        await asyncio.sleep(5)
        shutdown.begin()
        for seconds in (4, 4, 4):
            left.append(shutdown.seconds_left())
            await asyncio.sleep(seconds)
            shutdown.begin()
        return [*left, shutdown.seconds_left()]

    assert run_virtual(main) == [10.0, 10.0, 6.0, 2.0, 0.0]


async def test_a_block_ends_when_the_service_stops() -> None:
    """At once, also where it begins after that."""
    shutdown, reached = Shutdown(1.0), []

    async def wait() -> None:
        with shutdown.cancels(60) as scope:
            await anyio.sleep_forever()
        reached.append(scope.cancelled_caught)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.lowlevel.checkpoint()
        shutdown.begin()
    await wait()

    assert reached == [True, True]


async def test_a_block_ends_after_its_time() -> None:
    """Without any stop; and one that ends by itself was not cancelled."""
    shutdown = Shutdown(1.0)
    with shutdown.cancels(0.01) as late:
        await anyio.sleep_forever()
    with shutdown.cancels(60) as early:
        await anyio.lowlevel.checkpoint()

    assert (late.cancelled_caught, early.cancelled_caught, shutdown.begun) == (True, False, False)
