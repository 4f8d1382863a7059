"""What the router and the shop may rely on, judged by the raw calls that impact.com received.

The whole service, its stand-in for impact.com (whose own protection against repeated orders is off) and rudder-server's
router with its 64 workers and its retry table run in this process, over real sockets, on virtual time.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from impact_plugin.app import Service, run_service
from impact_plugin.testing.capacity import Capacity
from impact_plugin.testing.fake_impact import FakeImpact
from impact_plugin.testing.rudder_queue import JobEnd, Mischief, RouterJob, RouterQueue
from impact_plugin.testing.virtual_time import VirtualLoop, run_virtual
from tests.builders import CONFIG, TOKEN, basic, conversion, page_load, request, settings

pytestmark = pytest.mark.slow

HOUR = 3600.0


class World:
    """Everybody, running."""

    def __init__(self, impact: FakeImpact, service: Service, rudder: RouterQueue) -> None:
        self.impact, self.service, self.rudder = impact, service, rudder

    def orders(self) -> Counter[tuple[str, str]]:
        """How often impact.com took each order of each event type."""
        return Counter((call.form["EventTypeId"], call.form["OrderId"]) for call in self.impact.conversions)

    def sequence(self) -> dict[str, list[str]]:
        """The orders of each visitor as impact.com took them."""
        found = defaultdict(list)
        for call in self.impact.conversions:
            found[call.form["CustomProfileId"]].append(call.form["OrderId"])
        return found


@asynccontextmanager
async def world(folder: Path, *, delivery: dict[str, Any] | None = None, **rudder: Any) -> AsyncIterator[World]:
    """Start everybody; the service's clock and impact.com's are the loop's."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    async with FakeImpact(clock=loop.wall) as impact:
        chosen = settings(folder, impact.url, state={"durability": "process"}, delivery=delivery or {})
        async with (
            run_service(chosen, {}, loop.wall) as service,
            RouterQueue(service.url, config=CONFIG, **rudder) as queue,
        ):
            yield World(impact, service, queue)


def on_virtual_time(main: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine function."""

    async def body() -> None:
        await main()

    run_virtual(body)


def job(
    impact: FakeImpact,
    number: int,
    visitor: int,
    *,
    tokens: Sequence[str] = (TOKEN,),
    forms: Sequence[dict[str, str]] = ({},),
) -> RouterJob:
    """An order; of ``tokens`` and ``forms`` the attempt takes its own, the last for all later ones."""

    def prepare(attempt: int) -> dict[str, Any]:
        token = tokens[min(attempt, len(tokens) - 1)]
        form = conversion(f"order-{number}", f"visitor-{visitor}") | forms[min(attempt, len(forms) - 1)]
        return request(f"{impact.url}/Advertisers/IRtest/Conversions", form, basic(password=token))

    return RouterJob(number, f"visitor-{visitor}", prepare)


def page(impact: FakeImpact, number: int, visitor: int) -> RouterJob:
    """A page load."""
    form = page_load(f"visitor-{visitor}")
    return RouterJob(number, f"visitor-{visitor}", lambda _: request(f"{impact.url}/PageLoad", form))


def states(ends: Sequence[JobEnd]) -> Counter[str]:
    """How many jobs ended how."""
    return Counter(end.state for end in ends)


@pytest.mark.parametrize("visitors", [12, pytest.param(80, marks=pytest.mark.campaign)])
def test_four_hours_without_impact_abort_nothing(tmp_path: Path, visitors: int) -> None:
    """Longer than the router keeps a 5xx: all is delivered afterwards, once, each visitor's orders in sequence."""

    async def main() -> None:
        async with world(tmp_path) as w:
            loop = asyncio.get_running_loop()
            w.impact.script([{"status": 503}])
            loop.call_later(4 * HOUR, w.impact.script, [])
            jobs = [job(w.impact, number, number % visitors) for number in range(3 * visitors)]
            ends = await w.rudder.run([*jobs, *(page(w.impact, 1000 + number, number) for number in range(visitors))])

            assert states(ends) == {"succeeded": 4 * visitors}
            assert {status for end in ends for status in end.statuses} <= {200, 429}
            assert set(w.orders().values()) == {1}
            assert len(w.orders()) == 3 * visitors
            assert all(found == sorted(found, key=lambda o: int(o[6:])) for found in w.sequence().values())
            assert w.rudder.late == 0

    on_virtual_time(main)


def test_an_outage_without_any_answer_aborts_nothing_either(tmp_path: Path) -> None:
    """impact.com accepts the connection and says nothing: ambiguous, and still nothing is sent twice that was taken."""

    async def main() -> None:
        async with world(tmp_path) as w:
            loop = asyncio.get_running_loop()
            w.impact.script([{"reset": "before"}])
            loop.call_later(1 * HOUR, w.impact.script, [])
            ends = await w.rudder.run([job(w.impact, number, number) for number in range(30)])

            assert states(ends) == {"succeeded": 30}
            assert set(w.orders().values()) == {1}

    on_virtual_time(main)


def test_a_reply_lost_on_the_way_to_the_router_sends_nothing_twice(tmp_path: Path) -> None:
    """impact.com had answered 200; the router asks again, and hears that it is delivered."""

    async def main() -> None:
        mischief = Mischief(lose_reply=lambda _job, attempt: attempt == 0)
        async with world(tmp_path, mischief=mischief) as w:
            ends = await w.rudder.run([job(w.impact, number, number % 7) for number in range(50)])

            assert states(ends) == {"succeeded": 50}
            assert {end.statuses for end in ends} == {(500, 200)}
            assert set(w.orders().values()) == {1}

    on_virtual_time(main)


def test_a_router_that_hangs_up_sends_nothing_twice(tmp_path: Path) -> None:
    """Before impact.com's answer: the attempt goes on without it, and the next one hears the outcome."""

    async def main() -> None:
        mischief = Mischief(hang_up=lambda _job, attempt: 1.0 if attempt == 0 else None)
        async with world(tmp_path, mischief=mischief) as w:
            w.impact.script([{"delay": 3}])
            ends = await w.rudder.run([job(w.impact, number, number) for number in range(40)])

            assert states(ends) == {"succeeded": 40}
            assert set(w.orders().values()) == {1}

    on_virtual_time(main)


def test_a_token_corrected_between_attempts_is_used_at_once(tmp_path: Path) -> None:
    """The account was closed for a wrong token; the events waited, and the right one opens it."""

    async def main() -> None:
        async with world(tmp_path) as w:
            w.impact.auth_token = "right"
            jobs = [job(w.impact, number, number, tokens=("wrong", "wrong", "right")) for number in range(20)]
            ends = await w.rudder.run(jobs)

            assert states(ends) == {"succeeded": 20}
            assert set(w.orders().values()) == {1}
            assert max(end.seconds for end in ends) < 300
            assert sum(call.status == 401 for call in w.impact.calls) <= 6

    on_virtual_time(main)


def test_a_mapping_changed_between_attempts_sends_nothing_twice(tmp_path: Path) -> None:
    """The bytes differ, the order is the same."""

    async def main() -> None:
        mischief = Mischief(lose_reply=lambda _job, attempt: attempt == 0)
        async with world(tmp_path, mischief=mischief) as w:
            forms = ({"Text1": "before"}, {"Text1": "after", "Numeric1": "2"})
            ends = await w.rudder.run([job(w.impact, number, number, forms=forms) for number in range(20)])

            assert states(ends) == {"succeeded": 20}
            assert set(w.orders().values()) == {1}
            assert {call.form["Text1"] for call in w.impact.conversions} == {"before"}

    on_virtual_time(main)


def test_an_event_type_corrected_between_attempts_is_sent_as_the_right_one(tmp_path: Path) -> None:
    """What failed under the wrong event type goes out once under the right one."""

    async def main() -> None:
        async with world(tmp_path) as w:
            w.impact.script([{"match": {"parameter": {"EventTypeId": "9"}}, "status": 503}])
            forms = ({"EventTypeId": "9"}, {"EventTypeId": "2"})
            ends = await w.rudder.run([job(w.impact, number, number, forms=forms) for number in range(20)])

            assert states(ends) == {"succeeded": 20}
            assert w.orders() == {("2", f"order-{number}"): 1 for number in range(20)}

    on_virtual_time(main)


def test_an_order_that_is_refused_is_aborted_and_its_visitor_goes_on(tmp_path: Path) -> None:
    """Only what is permanent aborts, with impact.com's field errors; the visitor's next order follows at once."""

    async def main() -> None:
        async with world(tmp_path) as w:
            bad = {"CurrencyCode": "XXQ"}
            jobs = [job(w.impact, 1, 1, forms=(bad,)), job(w.impact, 2, 1)]
            ends = await w.rudder.run(jobs)

            assert [end.state for end in ends] == ["aborted", "succeeded"]
            assert "CurrencyCode" in ends[0].error
            assert ends[1].seconds < 10

    on_virtual_time(main)


@pytest.mark.parametrize("limit", [24, pytest.param(120, marks=pytest.mark.campaign)])
@pytest.mark.parametrize("version", ["v0", "v1"])
def test_a_quota_for_the_hour_is_kept_and_used_up(tmp_path: Path, version: str, limit: int) -> None:
    """More orders than an hour's quota: none refused twice, none late, nothing lost, done when the quota allows."""

    async def main() -> None:
        async with world(tmp_path, version=version) as w:
            w.impact.capacity = Capacity(rate=limit, window=HOUR, announced="x-ratelimit")
            ends = await w.rudder.run([job(w.impact, number, number) for number in range(limit * 5 // 2)])

            assert states(ends) == {"succeeded": limit * 5 // 2}
            assert set(w.orders().values()) == {1}
            assert w.impact.tally.refused <= 1
            assert w.rudder.late == 0
            assert max(end.seconds for end in ends) < 3.5 * HOUR

    on_virtual_time(main)
