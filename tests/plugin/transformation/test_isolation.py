"""One account's trouble is its own, and one account's load takes nobody's share; on virtual time."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from statistics import quantiles
from typing import Any

import pytest

from impact_plugin.config.settings import DeliverySettings
from impact_plugin.delivery.pipeline import Deliveries, DeliveryRequest
from impact_plugin.delivery.policy import ImpactResponse, NoResponse
from impact_plugin.process.background import open_background
from impact_plugin.telemetry import Telemetry
from impact_plugin.testing.virtual_time import run_virtual

pytestmark = pytest.mark.slow

OK = ImpactResponse(200, b"{}")


class Sink:
    """impact.com as every account sees it: a tenth of a second, and nothing at all for those that hang."""

    def __init__(self, hanging: str = "") -> None:
        self._hanging = hanging
        self._chance = Random(1)  # noqa: S311 - jitter of a test

    async def post(
        self, url: str, _headers: Mapping[str, str], _body: bytes, *, seconds: float
    ) -> ImpactResponse | NoResponse:
        """Answer in about a tenth of a second."""
        if url == self._hanging:
            await asyncio.sleep(seconds)
            return NoResponse(written=True, detail="TimeoutError")
        await asyncio.sleep(self._chance.uniform(0.08, 0.12))
        return OK


def deliver_with(sink: Sink, main: Callable[[Deliveries], Awaitable[Any]], **settings: Any) -> Any:
    """Run on deliveries to this sink, on virtual time."""

    async def body() -> Any:
        client: Any = sink
        ledger: Any = None
        clock = asyncio.get_running_loop().time
        async with open_background() as tasks:
            made = Deliveries(DeliverySettings(**settings), client, ledger, str.encode, Telemetry(), clock)
            made._check_ledger = _nothing  # type: ignore[method-assign]
            tasks.start_soon(made.run)
            return await main(made)

    return run_virtual(body)


async def _nothing() -> None:
    """Page loads need no ledger."""


def healthy_times(hanging: str, seconds: int) -> tuple[list[float], int]:
    """Times of the deliveries of nineteen accounts, while one more may hang; and what is left waiting."""

    async def main(deliveries: Deliveries) -> tuple[list[float], int]:
        loop = asyncio.get_running_loop()
        times: dict[str, list[float]] = defaultdict(list)

        async def one(account: str, number: int) -> None:
            started = loop.time()
            await deliveries.deliver(DeliveryRequest(account, "pageload", account, {}, b"", f"{number}"), seconds=9.5)
            times[account].append(loop.time() - started)

        tasks = []
        for tick in range(seconds * 8):
            await asyncio.sleep(0.125)
            tasks += [asyncio.create_task(one(f"account-{number}", tick)) for number in range(20)]
        await asyncio.gather(*tasks)
        waiting = sum(report.waiting for report in deliveries.report())
        return [took for account, found in times.items() if account != "account-0" for took in found], waiting

    found: tuple[list[float], int] = deliver_with(Sink(hanging), main)
    return found


SECONDS = [20, pytest.param(60, marks=pytest.mark.campaign)]


@pytest.mark.parametrize("seconds", SECONDS)
def test_an_account_that_hangs_delays_no_other(seconds: int) -> None:
    """One of twenty gets no answer: the others' p99 stays within a tenth of what it was."""
    before, _ = healthy_times("", seconds)
    during, waiting = healthy_times("account-0", seconds)

    assert quantiles(during, n=100)[98] <= 1.1 * quantiles(before, n=100)[98]
    assert len(during) == len(before) == 19 * seconds * 8
    assert waiting == 0


@pytest.mark.parametrize("seconds", SECONDS)
def test_an_account_at_a_hundred_times_the_load_takes_nobodys_share(seconds: int) -> None:
    """Among two hundred that all want more than there is, the others keep their fair share."""

    async def main(deliveries: Deliveries) -> Counter[str]:
        loop = asyncio.get_running_loop()
        served: Counter[str] = Counter()

        async def worker(account: str, number: int) -> None:
            while loop.time() < seconds:
                request = DeliveryRequest(account, "pageload", account, {}, b"", f"{number}")
                verdict = await deliveries.deliver(request, seconds=9.5)
                served[account] += verdict.result == "delivered" and loop.time() < seconds
                await asyncio.sleep(0)

        await asyncio.gather(
            *(worker("greedy", number) for number in range(200)),
            *(worker(f"account-{account}", number) for account in range(199) for number in range(2)),
        )
        return served

    served = deliver_with(Sink(), main, connections=16)
    share = sum(served.values()) / 200
    others = [served[f"account-{account}"] for account in range(199)]

    assert sum(others) / 199 >= 0.99 * share
    assert min(others) >= share - 3
