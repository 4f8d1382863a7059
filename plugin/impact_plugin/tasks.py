"""What the service does with its tasks when it ends."""

import asyncio
from collections.abc import Collection
from typing import Any


async def finish(tasks: Collection[asyncio.Task[Any]], seconds: float) -> None:
    """Wait for the tasks, ``seconds`` at most; what is late then is cancelled, and ends."""
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=seconds)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late)
