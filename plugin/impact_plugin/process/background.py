"""Work in the background: everything the service starts lives in one task group and ends with it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from anyio import create_task_group, sleep
from anyio.abc import TaskGroup

from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.faults import RequestFault


@asynccontextmanager
async def open_background() -> AsyncIterator[TaskGroup]:
    """Yield a task group, and cancel what is left in it when the block ends.

    An exception of the block leaves as it is, not wrapped in a group of exceptions: a task started here reports its own
    faults, see :func:`run_guarded`. The same task must enter and leave the block.
    """
    raised: Exception | None = None
    async with create_task_group() as tasks:
        try:
            yield tasks
        except Exception as error:  # noqa: BLE001 - raised again below, outside of the group
            raised = error
        tasks.cancel_scope.cancel()
    if raised is not None:
        raise raised


async def run_guarded(telemetry: Telemetry, name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Do the work; a defect in it is reported under the name, and takes nothing else down."""
    try:
        await work()
    except Exception as error:  # noqa: BLE001 - the border of one piece of background work
        telemetry.emit(RequestFault(name, type(error).__name__, error))


async def repeat(telemetry: Telemetry, name: str, work: Callable[[], Awaitable[object]], pause_seconds: float) -> None:
    """Pause and do the work, again and again until cancelled; a defect costs one turn only."""
    while True:
        await sleep(pause_seconds)
        await run_guarded(telemetry, name, work)
