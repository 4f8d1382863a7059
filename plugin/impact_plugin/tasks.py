"""What the service does with its tasks when it ends."""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let the work go on beside the block, at whose end it is cancelled.

    A task rather than a task group: the block may be entered and left by different tasks.
    """
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        await finish((task,), 0)


async def finish(tasks: Collection[asyncio.Task[Any]], seconds: float) -> None:
    """Wait for the tasks, ``seconds`` at most; what is late then is cancelled, and ends."""
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=seconds)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late)
