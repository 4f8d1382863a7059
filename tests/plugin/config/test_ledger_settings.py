"""The settings of the ledger of orders, each flipped."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from impact_plugin.config.settings import make_settings
from impact_plugin.orders.embedded_ledger import open_ledger
from impact_plugin.orders.ledger import Ledger, OrderOutcome, Standing

NOON = 1_789_000_000.0
HOUR = 3600.0
ONE, TWO = b"1" * 15, b"2" * 15

Open = Callable[..., AbstractAsyncContextManager[Ledger]]


@pytest.fixture(name="open_at")
def open_at_fixture(tmp_path: Path) -> Open:
    """Lend an opener of the ledger at a time, with settings of the sections."""

    def open_at(seconds: float, *, delivery: Any = None, **state: Any) -> AbstractAsyncContextManager[Ledger]:
        settings = make_settings({"state": {"dir": str(tmp_path), **state}, "delivery": delivery or {}})
        return open_ledger(settings.state, settings.delivery, lambda: seconds)

    return open_at


@pytest.mark.parametrize(("hours", "expected"), [(24.0, Standing.AMBIGUOUS), (12.0, Standing.EXPIRED)])
async def test_the_window_decides_how_long_an_order_is_sent_again(
    open_at: Open, hours: float, expected: Standing
) -> None:
    """Thirteen hours after an attempt without an answer it may be sent again, or not any more."""
    async with open_at(NOON) as ledger:
        await ledger.begin(ONE)
        await ledger.settle(ONE, OrderOutcome.UNKNOWN)
    async with open_at(NOON + 13 * HOUR, delivery={"dedup_window_hours": hours}) as ledger:
        assert expected is await ledger.begin(ONE)


@pytest.mark.parametrize(("days", "expected"), [(90.0, Standing.DELIVERED), (40.0, Standing.CLEAR)])
async def test_orders_are_forgotten_after_their_days(open_at: Open, days: float, expected: Standing) -> None:
    """Fifty days after it was delivered an order is known, or not any more."""
    async with open_at(NOON) as ledger:
        await ledger.begin(ONE)
        await ledger.settle(ONE, OrderOutcome.DELIVERED)
    async with open_at(NOON + 50 * 24 * HOUR, order_memory_days=days) as ledger:
        assert expected is await ledger.begin(ONE)


@pytest.mark.parametrize(("capacity", "expected"), [(2, Standing.DELIVERED), (1, Standing.CLEAR)])
async def test_the_capacity_bounds_what_is_kept(open_at: Open, capacity: int, expected: Standing) -> None:
    """Of two orders the older one is known, or has gone."""
    async with open_at(NOON, max_orders=capacity) as ledger:
        for identity in (ONE, TWO):
            await ledger.begin(identity)
            await ledger.settle(identity, OrderOutcome.DELIVERED)
            await ledger.flush()

        assert expected is await ledger.begin(ONE)
