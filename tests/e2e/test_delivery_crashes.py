"""The service is killed, or told to stop, while it delivers: what impact.com got is counted call by call."""

import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from impact_plugin.testing.fake_impact import FakeImpact
from impact_plugin.testing.rudder_queue import JobEnd, RouterJob, RouterQueue
from tests.builders import CONFIG, basic, conversion, request

ORDERS = 100
"""For each kill or stop: it comes when half of them have been answered since the last one."""

KILLS = [4, pytest.param(100, marks=[pytest.mark.campaign, pytest.mark.timeout(1800)])]
STOPS = 3
SECONDS = 60.0
ANSWER_SECONDS = 0.03
UNDER_WAY_SECONDS = ANSWER_SECONDS + 0.1
"""An answer, and the moment until it is noted in the ledger."""


def job(impact: FakeImpact, number: int) -> RouterJob:
    """An order of one of forty visitors."""
    visitor = f"visitor-{number % 40}"
    form = conversion(f"order-{number}", visitor)
    delivery = request(f"{impact.url}/Advertisers/IRtest/Conversions", form, basic())
    return RouterJob(number, visitor, lambda _attempt: delivery)


def raw_calls(impact: FakeImpact) -> Counter[str]:
    """How often each order arrived, answered or not."""
    return Counter(call.form["OrderId"] for call in impact.calls)


async def answered(impact: FakeImpact, calls: int) -> None:
    """Wait until impact.com has answered so many, and more are under way."""
    async with asyncio.timeout(SECONDS):
        while len(impact.calls) < calls:  # noqa: ASYNC110 - kept by the stand-in
            await asyncio.sleep(0.005)


async def until_up(url: str) -> None:
    """Wait for the service."""
    async with aiohttp.ClientSession() as session:
        for _ in range(750):
            try:
                async with session.get(f"{url}/health"):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.02)
    pytest.fail(f"{url} did not answer")


class Site:
    """The service as a process on a port that stays the same over restarts."""

    def __init__(self, launch: Callable[..., Any], free_port: Callable[[], int], impact: FakeImpact) -> None:
        self._launch, self._port, self._operator_port, self._impact = launch, free_port(), free_port(), impact
        self.url = f"http://127.0.0.1:{self._port}"
        self.operator_url = f"http://127.0.0.1:{self._operator_port}"

    async def start(self, **more: str) -> Any:
        """A new process."""
        variables = {
            "SERVER__PORT": str(self._port),
            "SERVER__OPERATOR_PORT": str(self._operator_port),
            "IMPACT__API_URL": self._impact.url,
            "IMPACT__TRACKING_URL": self._impact.url,
            "LOG__LEVEL": "warning",
        }
        process = self._launch("serve", **variables, **more)
        await until_up(self.url)
        return process


@pytest.mark.parametrize("kills", KILLS)
async def test_killed_between_sending_and_noting(
    launch: Callable[..., Any], free_port: Callable[[], int], kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under load: every order arrives, and no more are sent again than were under way at the kills."""
    orders = ORDERS * kills
    async with FakeImpact() as impact:
        impact.script([{"delay": ANSWER_SECONDS}])
        site = Site(launch, free_port, impact)
        process = await site.start()
        under_way = 0
        async with RouterQueue(site.url, config=CONFIG, shortest_backoff=0.05) as rudder:
            running = asyncio.create_task(rudder.run([job(impact, number) for number in range(orders)]))
            for number in range(kills):
                await answered(impact, (number + 1) * ORDERS // 2)
                process.send(signal.SIGKILL)
                process.wait()
                under_way += sum(call.received_at > time.time() - UNDER_WAY_SECONDS for call in impact.calls)
                process = await site.start()
            ends: list[JobEnd] = await running
        calls = raw_calls(impact)
    again = sum(count - 1 for count in calls.values())
    with capsys.disabled():
        told = f"{len(calls)} orders, {again} sent again after a kill"
        sys.stdout.write(f"\n{told}, at most {under_way} were under way at the kills\n")

    assert {end.state for end in ends} == {"succeeded"}
    assert len(calls) == orders
    assert again <= under_way


async def test_told_to_stop_under_load(launch: Callable[..., Any], free_port: Callable[[], int]) -> None:
    """SIGTERM: what is under way is answered, what waits is told to come again, and nothing is sent twice."""
    async with FakeImpact() as impact:
        impact.script([{"delay": 0.05}])
        site = Site(launch, free_port, impact)
        process = await site.start(DELIVERY__ACCOUNT_CONNECTIONS="8")
        async with RouterQueue(site.url, config=CONFIG, shortest_backoff=0.05) as rudder:
            running = asyncio.create_task(rudder.run([job(impact, number) for number in range(STOPS * ORDERS)]))
            codes = []
            for number in range(STOPS):
                await answered(impact, (number + 1) * ORDERS // 2)
                process.send(signal.SIGTERM)
                codes.append(await asyncio.to_thread(process.wait))
                process = await site.start(DELIVERY__ACCOUNT_CONNECTIONS="8")
            ends: list[JobEnd] = await running
        calls = raw_calls(impact)

    assert codes == [0] * STOPS
    assert {end.state for end in ends} == {"succeeded"}
    assert set(calls.values()) == {1}
    assert len(calls) == STOPS * ORDERS
