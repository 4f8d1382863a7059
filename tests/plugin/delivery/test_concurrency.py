"""The limit of requests at once: how it grows, and what it makes of refusals and time-outs."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from impact_plugin.delivery.limits.concurrency import COLLAPSE_SECONDS, MAX_HOLD_SECONDS, Concurrency
from impact_plugin.delivery.limits.permits import LimitChange, Permit

RTT = 0.1


class Flights:
    """Requests in rounds: each sends as many as the limit allows, of which the host accepts some."""

    def __init__(self, max_limit: int = 64) -> None:
        self.notified: list[LimitChange] = []
        self.concurrency = Concurrency(max_limit, self.notified.append)
        self.issued = 0
        self.now = 0.0

    def send(self, count: int) -> list[Permit]:
        """Send several requests at once."""
        first, self.issued = self.issued + 1, self.issued + count
        return [Permit(first + place, place + 1, self.now) for place in range(count)]

    def fly(self, cap: int, *, demand: int = 1000, rtt: float = RTT) -> None:
        """One round: requests above the cap are refused with a 503, after the others succeed."""
        permits = self.send(min(demand, self.concurrency.limit))
        self.now += rtt
        for permit in permits[:cap]:
            self.concurrency.record_response(permit, self.now, self.issued, self.issued + 1)
        for permit in permits[cap:]:
            self.concurrency.record_refusal(permit, self.now, self.issued)

    def limits(self, rounds: int, cap: int) -> list[int]:
        """The limit after each of some rounds."""
        found = []
        for _ in range(rounds):
            self.fly(cap)
            found.append(self.concurrency.limit)
        return found


def test_it_starts_with_four_and_doubles() -> None:
    """Up to the most that is allowed."""
    assert [8, 16, 32, 64, 64] == Flights().limits(5, 1000)


def test_it_does_not_grow_without_demand() -> None:
    """What was never used up has proved nothing."""
    flights = Flights()
    for _ in range(100):
        flights.fly(1000, demand=3)

    assert 4 == flights.concurrency.limit


def test_a_refusal_tells_the_cap() -> None:
    """The rank of the first one refused, less one."""
    assert [8, 16, 32, 64, 50, 50] == Flights().limits(6, 50)


def test_a_burst_of_refusals_is_one_cut() -> None:
    """Twenty of one round, and those of it that come later, cut once."""
    flights = Flights(max_limit=40)
    flights.limits(4, 1000)
    late = flights.send(40)
    for permit in late[20:]:
        flights.concurrency.record_refusal(permit, 1.0, flights.issued)

    assert 20 == flights.concurrency.limit
    assert [] == flights.notified


def test_a_second_refusal_without_a_clean_round_means_that_the_capacity_fell() -> None:
    """From fifty to ten in a few rounds, not one by one."""
    flights = Flights(max_limit=50)
    flights.limits(5, 50)

    assert [10] == flights.limits(1, 10)
    assert 2 >= flights.limits(2, 2)[-1]


def test_a_second_refusal_after_growth_falls_back_to_what_was_proved() -> None:
    """Six were good and eight are not: neither is seven; only when six are refused too is it less than before."""
    flights = Flights()
    flights.limits(20, 5)
    while flights.concurrency.limit != 8:
        flights.fly(1000)
    found = []
    for _ in range(3):
        last = flights.send(flights.concurrency.limit)[-1]
        flights.concurrency.record_refusal(last, flights.now, flights.issued)
        found.append(flights.concurrency.limit)

    assert [7, 6, 4] == found


def test_one_more_is_tried_ever_less_often() -> None:
    """A cap that stays is tried after 1, 2, 4 and then every 8 seconds: few refusals."""
    flights = Flights()
    tried = []
    for _ in range(600):
        before = flights.concurrency.limit
        flights.fly(20)
        if flights.concurrency.limit == 21 and before == 20:
            tried.append(flights.now)
    pauses = [round(later - earlier) for earlier, later in pairwise(tried)]

    assert [2, 4] == pauses[:2]
    assert MAX_HOLD_SECONDS + 1 >= max(pauses)
    assert min(pauses[3:]) >= MAX_HOLD_SECONDS - 1


def test_a_step_up_is_found_within_ten_seconds() -> None:
    """Once one more is taken, two, four and eight more are tried at once."""
    flights = Flights()
    flights.limits(300, 10)
    started = flights.now
    while flights.concurrency.limit < 48 and flights.now < started + 60:
        flights.fly(50)

    assert flights.now - started < 10.0


@pytest.mark.parametrize("cap", [1, 2, 5])
def test_no_limit_is_stuck_at_one_after_recovery(cap: int) -> None:
    """After the worst, rounds of one request lead up again."""
    flights = Flights()
    flights.limits(20, cap)
    for _ in range(50):
        for permit in flights.send(flights.concurrency.limit):
            flights.concurrency.record_timeout(permit, flights.now, flights.issued)
        flights.now += 1.0
    assert 1 == flights.concurrency.limit
    flights.limits(200, 1000)

    assert 64 == flights.concurrency.limit


def test_time_outs_cut_once_a_burst() -> None:
    """By three tenths, and those sent before the cut not again."""
    flights = Flights()
    flights.limits(4, 1000)
    for permit in flights.send(64):
        flights.concurrency.record_timeout(permit, 1.0, flights.issued)

    assert 44 == flights.concurrency.limit


def test_it_starts_anew_after_an_outage() -> None:
    """Slowly, and without the ceiling of before."""
    flights = Flights()
    flights.limits(30, 10)
    flights.concurrency.restart(flights.issued)

    assert [8, 16, 32, 64] == flights.limits(4, 1000)


def test_a_collapse_is_notified_once() -> None:
    """To a quarter within ten seconds; a slow decline is not one."""
    flights = Flights()
    flights.limits(5, 1000)
    flights.limits(2, 8)
    assert ["limit_collapsed"] == [one.change for one in flights.notified]

    slow = Flights()
    slow.limits(5, 1000)
    for cap in (32, 16, 8, 4):
        slow.now += COLLAPSE_SECONDS + 1
        slow.fly(cap)
        slow.concurrency.restart(slow.issued)

    assert [] == slow.notified


def line_of(workers: int) -> Callable[[int], float]:
    """How long a round takes if a fixed number of workers serve it and other requests queue."""
    return lambda at_once: RTT * max(1.0, at_once / workers)


def fly_timed(flights: Flights, rounds: int, seconds: Callable[[int], float]) -> None:
    """Rounds without refusals, whose time depends on the number of requests at once."""
    for _ in range(rounds):
        flights.fly(1000, rtt=seconds(flights.concurrency.limit))


def test_a_line_is_not_made_longer() -> None:
    """Ten workers: further requests only queue, so a lower limit is tried, and kept because it helps."""
    flights = Flights(512)
    fly_timed(flights, 600, line_of(10))
    seen = []
    for _ in range(300):
        fly_timed(flights, 1, line_of(10))
        seen.append(flights.concurrency.limit)

    assert max(seen) <= 16
    assert min(seen) >= 9


def test_answers_that_are_late_for_everybody_are_no_reason_to_send_less() -> None:
    """A lower limit does not make them faster, so the limit is restored and continues to grow."""
    flights = Flights()
    flights.limits(30, 20)
    fly_timed(flights, 10, lambda _: RTT)
    for _ in range(60):
        flights.fly(20, rtt=RTT * 3)

    assert flights.concurrency.limit >= 20


def test_one_late_round_is_chance() -> None:
    """Only the second in a row makes it try less."""
    flights = Flights()
    flights.limits(30, 20)
    found = []
    for slow in (True, False, False, True, False, False):
        flights.fly(20, rtt=RTT * (3 if slow else 1))
        found.append(flights.concurrency.limit)

    assert min(found) >= 20


def test_late_answers_never_raise_the_limit() -> None:
    """Not even the first late round, which may be chance."""
    flights = Flights()
    flights.limits(2, 1000)
    before = flights.concurrency.limit
    flights.fly(1000, rtt=RTT * 3)

    assert before == flights.concurrency.limit
