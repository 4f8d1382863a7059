"""The limiter in the whole engine, over real sockets, against a stand-in that takes only so much; on virtual time."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from benchmarks.scenarios import Phase, Scenario
from benchmarks.simulation import play
from impact_plugin.config.settings import DeliverySettings
from impact_plugin.delivery.client import open_delivery_client
from impact_plugin.delivery.pipeline import Deliveries, DeliveryRequest
from impact_plugin.process.background import open_background
from impact_plugin.telemetry import Telemetry
from impact_plugin.testing.capacity import Capacity, CapacityTally
from impact_plugin.testing.fake_impact import FakeImpact
from impact_plugin.testing.virtual_time import VirtualLoop, run_virtual

pytestmark = pytest.mark.slow

FORM = b"CampaignId=1&EventDate=NOW&CustomProfileId=v&PageUrl=https%3A%2F%2Fshop.example.com%2F"
HEADERS = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
FAMILIES = (
    "x-ratelimit",
    "x-ratelimit-epoch",
    "x-ratelimit-hour",
    "ratelimit-draft",
    "retry-after-seconds",
    "retry-after-float",
    "retry-after-date",
)

Change = tuple[float, Capacity]


class Course:
    """What a run has shown: accepted by the second, and the sink's counts."""

    def __init__(self, accepted: list[int], tally: CapacityTally) -> None:
        self.accepted, self.tally = accepted, tally

    @property
    def refused_share(self) -> float:
        """Refusals among all requests that arrived."""
        return self.tally.refused / max(1, self.tally.offered)

    def rate(self, first: int, last: int) -> float:
        """Accepted a second from one second to another."""
        return sum(self.accepted[first:last]) / (last - first)


def run(
    capacity: Capacity, *, seconds: int, changes: tuple[Change, ...] = (), wanted: int = 100, patience: float = 9.5
) -> Course:
    """Deliver page loads of one account without pause, as ``wanted`` visitors at once, and watch what is taken."""

    async def main() -> Course:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        accepted = [0] * (seconds + 1)
        settings = DeliverySettings(account_connections=512)
        async with (
            FakeImpact(clock=loop.wall, capacity=capacity) as impact,
            open_delivery_client() as client,
            open_background() as tasks,
        ):
            for at, change in changes:
                loop.call_later(at, setattr, impact, "capacity", change)
            ledger: Any = None
            deliveries = Deliveries(settings, client, ledger, str.encode, Telemetry(), loop.wall)
            deliveries._check_ledger = _nothing  # type: ignore[method-assign]
            tasks.start_soon(deliveries.run)
            end = loop.time() + seconds

            async def visitor(number: int) -> None:
                request = DeliveryRequest("IRtest", "pageload", f"{impact.url}/PageLoad", HEADERS, FORM, f"v-{number}")
                while loop.time() < end:
                    verdict = await deliveries.deliver(request, seconds=patience)
                    if verdict.result == "delivered" and loop.time() < end:
                        accepted[int(loop.time() - end + seconds)] += 1
                    elif verdict.result != "delivered":
                        await asyncio.sleep(0.5)

            await asyncio.gather(*(visitor(number) for number in range(wanted)))
            return Course(accepted, msgspec.structs.replace(impact.tally))

    return run_virtual(main)


async def _nothing() -> None:
    """Page loads need no ledger."""


def lengths(short: int, long: int) -> list[Any]:
    """The length of a course in make test, and in the campaign."""
    return [short, pytest.param(long, marks=pytest.mark.campaign)]


@pytest.mark.parametrize("concurrent", [5, 20])
def test_a_hidden_cap_is_found_and_kept(concurrent: int) -> None:
    """At least nine tenths of what it takes, with three refusals in a hundred at most."""
    course = run(Capacity(concurrent=concurrent, latency=0.1), seconds=60)

    assert course.rate(3, 60) >= 0.9 * concurrent / 0.1
    assert course.refused_share <= 0.03


def test_a_hidden_rate_is_found_and_kept() -> None:
    """429 without a word about when: the pace is learned, for which half a minute would be too short."""
    course = run(Capacity(rate=100, latency=0.1), seconds=60)

    assert course.rate(3, 60) >= 0.85 * 100
    assert course.refused_share <= 0.03


@pytest.mark.parametrize("windows", lengths(2, 6))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_quota_is_used_up_whatever_headers_announce_it(family: Any, windows: int) -> None:
    """Families that say what is left: no refusal after the first. The others: one burst, of all requests in flight."""
    course = run(Capacity(rate=200, window=20.0, announced=family, latency=0.1), seconds=20 * windows)
    tells_what_is_left = not family.startswith("retry-after")

    assert course.tally.accepted >= (0.99 if tells_what_is_left else 0.9) * 200 * windows - 5
    assert course.tally.refused <= (1 if tells_what_is_left else 100 + 0.03 * course.tally.offered)


@pytest.mark.parametrize("down", ["503", "silence"])
def test_an_outage_is_over_within_ten_seconds_of_its_end(down: Any) -> None:
    """It is probed, not flooded, and the rate is back soon."""
    capacity = Capacity(concurrent=20, latency=0.1)
    changes = ((10.0, msgspec.structs.replace(capacity, down=down)), (30.0, capacity))
    course = run(capacity, seconds=55, changes=changes)

    assert course.rate(41, 54) >= 0.9 * 200
    assert course.rate(3, 10) >= 0.9 * 200
    assert course.tally.refused <= 150


def test_a_slow_drift_is_followed() -> None:
    """Answers that take three times as long for everybody are no reason to send less at once."""
    steps = tuple((5.0 + step, Capacity(concurrent=20, latency=0.1 + 0.02 * step)) for step in range(11))
    course = run(Capacity(concurrent=20, latency=0.1), seconds=40, changes=steps)

    assert course.rate(20, 40) >= 0.85 * 20 / 0.3


def test_a_cap_that_moves_is_followed() -> None:
    """Down to a fifth and up again."""
    changes = ((10.0, Capacity(concurrent=5, latency=0.1)), (20.0, Capacity(concurrent=25, latency=0.1)))
    course = run(Capacity(concurrent=25, latency=0.1), seconds=45, changes=changes)

    assert course.rate(13, 20) >= 0.85 * 50
    assert course.rate(32, 45) >= 0.85 * 250
    assert course.refused_share <= 0.05


def test_no_growth_without_demand() -> None:
    """Three visitors do not teach us that hundreds at once would be fine."""
    seen: Callable[[], Course] = lambda: run(Capacity(latency=0.1), seconds=30, wanted=3)  # noqa: E731 - named for reading

    assert seen().tally.most <= 4


CAP = Capacity(concurrent=20, latency=0.1)
COURSES = {
    "a cap": (Phase(0.0, CAP, 200.0),),
    "a rate": (Phase(0.0, Capacity(rate=100, latency=0.1), 100.0),),
    "an outage": (
        Phase(0.0, CAP, 200.0),
        Phase(10.0, msgspec.structs.replace(CAP, down="503"), 0.0),
        Phase(25.0, CAP, 200.0),
    ),
    "slower answers": (Phase(0.0, CAP, 200.0), Phase(15.0, Capacity(concurrent=20, latency=0.3), 200 / 3)),
    "a moving cap": (Phase(0.0, CAP, 200.0), Phase(15.0, Capacity(concurrent=5, latency=0.1), 50.0)),
}


# Both have a quiet part too.
SAMPLE = ("an outage", "a moving cap")


@pytest.mark.parametrize(
    "course", [one if one in SAMPLE else pytest.param(one, marks=pytest.mark.campaign) for one in COURSES]
)
def test_the_simulation_tells_the_truth(course: str) -> None:
    """Over real sockets and through the whole engine the same share is reached, within five points.

    When an outage is noticed to be over is a matter of chance, so the simulation plays some times.
    """
    scenario = Scenario(course, "first", COURSES[course], seconds=45.0)
    played = [play(scenario, "ours", seed).throughput for seed in range(1, 9)]
    changes = tuple((phase.at, phase.capacity) for phase in scenario.phases[1:])
    measured = sum(run(scenario.phases[0].capacity, seconds=45, changes=changes).accepted) / scenario.best()

    assert min(played) - 0.05 <= measured <= max(played) + 0.05
