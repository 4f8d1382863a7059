"""Background tasks: everything the service starts runs in one task group and ends with it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from anyio import create_task_group, sleep
from anyio.abc import TaskGroup

from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.faults import RequestFault


@asynccontextmanager
async def open_background() -> AsyncIterator[TaskGroup]:
    """Yield a task group, and cancel its remaining tasks when the block ends.

    An exception of the block propagates unwrapped, not in an exception group; tasks report their own errors, see
    :func:`run_guarded`. The same task must enter and exit the block.
    """
    raised: Exception | None = None
    async with create_task_group() as tasks:
        try:
            yield tasks
        except Exception as error:  # noqa: BLE001 - raised again below, outside the group
            raised = error
        tasks.cancel_scope.cancel()
    if raised is not None:
        raise raised


async def run_guarded(telemetry: Telemetry, name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Run the work; an exception is reported under the name, and does not propagate."""
    try:
        await work()
    except Exception as error:  # noqa: BLE001 - the boundary of one background task
        telemetry.emit(RequestFault(name, type(error).__name__, error))


async def repeat(telemetry: Telemetry, name: str, work: Callable[[], Awaitable[object]], pause_seconds: float) -> None:
    """Pause and run the work, repeatedly until cancelled; an exception ends only one iteration."""
    while True:
        await sleep(pause_seconds)
        await run_guarded(telemetry, name, work)
