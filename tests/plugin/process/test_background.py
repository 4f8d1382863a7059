"""Work in the background: it ends with its block, and a defect in it is reported and costs nothing else."""

import anyio
import pytest

from impact_plugin.process.background import open_background, repeat, run_guarded
from impact_plugin.telemetry import Telemetry


def faults(telemetry: Telemetry) -> float | None:
    """How many defects were reported."""
    return telemetry.metrics.registry.get_sample_value("impact_plugin_faults_total", {"where": "request"})


async def fail() -> None:
    """A defect."""
    raise KeyError


async def test_what_is_left_is_cancelled_when_the_block_ends() -> None:
    """And is waited for, until it has cleaned up."""
    cleaned = False

    async def work() -> None:
        nonlocal cleaned
        try:
            await anyio.sleep_forever()
        finally:
            cleaned = True

    async with open_background() as tasks:
        tasks.start_soon(work)
        await anyio.lowlevel.checkpoint()

    assert cleaned


async def test_an_exception_of_the_block_leaves_as_it_is() -> None:
    """Whoever opens the service catches its errors by their kind, not groups of them."""

    async def block() -> None:
        async with open_background() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            await fail()

    with pytest.raises(KeyError):
        await block()


async def test_a_defect_in_guarded_work_is_reported() -> None:
    """The tasks beside it go on."""
    telemetry = Telemetry()
    async with open_background() as tasks:
        tasks.start_soon(run_guarded, telemetry, "test", fail)
        await anyio.sleep(0.01)

    assert faults(telemetry) == 1


async def test_a_defect_costs_one_turn() -> None:
    """Work that repeats is done again after its pause."""
    telemetry, turns = Telemetry(), 0
    done = anyio.Event()

    async def work() -> None:
        nonlocal turns
        turns += 1
        if turns == 3:
            done.set()
        await fail()

    async with open_background() as tasks:
        tasks.start_soon(repeat, telemetry, "test", work, 0)
        await done.wait()
        await anyio.sleep(0.01)

    assert (faults(telemetry) or 0) >= 3
