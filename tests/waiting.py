"""Waiting for what another task, thread or process does."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

SECONDS: Final = 60.0
"""Generous: nothing takes that long unless it never comes, however busy the machine is."""

PAUSE_SECONDS: Final = 0.01


async def until(done: Callable[[], object], otherwise: Callable[[], object] | str, seconds: float = SECONDS) -> None:
    """Wait until it is so; fails with what ``otherwise`` says."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, otherwise if isinstance(otherwise, str) else otherwise()
        await asyncio.sleep(PAUSE_SECONDS)


async def until_so(
    done: Callable[[], Awaitable[object]], otherwise: Callable[[], object] | str, seconds: float = SECONDS
) -> None:
    """As :func:`until`, where to see whether it is so must be waited for."""
    deadline = time.monotonic() + seconds
    while not await done():
        assert time.monotonic() < deadline, otherwise if isinstance(otherwise, str) else otherwise()
        await asyncio.sleep(PAUSE_SECONDS)


def wait_for(done: Callable[[], object], otherwise: str, seconds: float = SECONDS) -> None:
    """As :func:`until`, for a test without an event loop: looks as often as possible."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, otherwise
