"""For fixtures: contexts that must be entered and left by the same task, as anyio's task groups must."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

Value = TypeVar("Value")


@asynccontextmanager
async def in_one_task(context: AbstractAsyncContextManager[Value]) -> AsyncIterator[Value]:
    """Enter and leave the context in a task of its own: pytest-asyncio runs the halves of a fixture in two."""
    entered: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def hold() -> None:
        async with context as value:
            entered.set_result(value)
            await leave.wait()

    task = asyncio.create_task(hold())
    await asyncio.wait((task, entered), return_when=asyncio.FIRST_COMPLETED)
    try:
        if entered.done():
            yield entered.result()
    finally:
        leave.set()
        await task
