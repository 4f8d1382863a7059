"""An hour in which impact.com takes nothing, on virtual time: what waits must not pile up in memory."""

import asyncio
import gc
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from benchmarks.fresh import resident_bytes
from impact_plugin.config.settings import DeliverySettings
from impact_plugin.delivery.pipeline import Deliveries, DeliveryRequest, OrderIdentity
from impact_plugin.delivery.policy import NoResponse
from impact_plugin.orders.ledger import LedgerTally, OrderOutcome, Standing
from impact_plugin.process.background import open_background
from impact_plugin.telemetry import Telemetry
from impact_plugin.testing.virtual_time import run_virtual

ACCOUNTS: Final = 20
WORKERS: Final = 64
"""Of the router, for each account."""

PATIENCE_SECONDS: Final = 9.5
PAUSE_SECONDS: Final = 10.0
HOUR_SECONDS: Final = 3600.0
FIRST_LOOK_SECONDS: Final = 300.0
MEGABYTE: Final = 1024 * 1024


class Hour(msgspec.Struct, frozen=True):
    """What an hour has shown."""

    asked: int
    attempts: int
    most_waiting: int
    before_mb: float
    after_mb: float


class _Dead:
    """A client whose requests are written and never answered."""

    def __init__(self) -> None:
        self.attempts = 0

    async def post(self, _url: str, _headers: Mapping[str, str], _body: bytes, *, seconds: float) -> NoResponse:
        self.attempts += 1
        await asyncio.sleep(seconds)
        return NoResponse(written=True, detail="TimeoutError")


class _Clear:
    """A ledger that lets everything pass: its own memory is not what is measured."""

    async def begin(self, _identity: bytes, *, again: bool = False) -> Standing:
        return Standing.DELIVERED if again else Standing.CLEAR

    async def settle(self, _identity: bytes, _outcome: OrderOutcome) -> None:
        """Nothing is kept."""

    async def tally(self) -> LedgerTally:
        return LedgerTally(0, 0, 0, 0)


async def _hour() -> Hour:
    dead, telemetry = _Dead(), Telemetry()
    client: Any = dead
    ledger: Any = _Clear()
    loop = asyncio.get_running_loop()
    asked = most = 0
    async with open_background() as tasks:
        deliveries = Deliveries(DeliverySettings(), client, ledger, str.encode, telemetry, loop.time)
        tasks.start_soon(deliveries.run)

        async def worker(account: int, number: int) -> None:
            nonlocal asked, most
            order = OrderIdentity(f"IR{account}", "1", "id:1", f"o-{number}")
            request = DeliveryRequest(f"IR{account}", "conversions", "http://x", {}, b"a=1", f"v-{number}", order, 1)
            while loop.time() < end:
                asked += 1
                await deliveries.deliver(request, seconds=PATIENCE_SECONDS)
                most = max(most, sum(one.waiting for one in deliveries.report()) if not asked % 1000 else 0)
                await asyncio.sleep(PAUSE_SECONDS)

        end = loop.time() + HOUR_SECONDS
        workers = [
            asyncio.create_task(worker(account, number)) for account in range(ACCOUNTS) for number in range(WORKERS)
        ]
        await asyncio.sleep(FIRST_LOOK_SECONDS)
        before = _resident_mb()
        await asyncio.gather(*workers)
        after = _resident_mb()
    return Hour(asked, dead.attempts, most, before, after)


def _resident_mb() -> float:
    gc.collect()
    return resident_bytes() / MEGABYTE


def measure_hour() -> Hour:
    """The hour, in this process."""
    return run_virtual(_hour)
