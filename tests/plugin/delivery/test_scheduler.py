"""Which request gets the next permit: fair over accounts, urgent ones first, a visitor's in order."""

from collections import defaultdict
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impact_plugin.delivery.limits.permits import EndpointName, Gate, LimiterStatistics, Permit, Wait
from impact_plugin.delivery.limits.rate_limits import NO_RATE_LIMITS
from impact_plugin.delivery.limits.scheduler import (
    ACCOUNT_SHARE_DIVISOR,
    AGING_SECONDS,
    MAX_LANE_LENGTH,
    MAX_LANE_SECONDS,
    QueuedRequest,
    Scheduler,
    Urgency,
)
from impact_plugin.delivery.policy import Cause
from tests.properties import tried

PATHS: dict[Urgency, EndpointName] = {
    Urgency.CONVERSION: "conversions",
    Urgency.MODIFICATION: "conversions",
    Urgency.PAGE_LOAD: "pageload",
}


class Desk:
    """A scheduler with limiters of a fixed width, and the requests that got a permit, in order.

    Permits wait for :meth:`wake`, so that a test can queue several requests first.
    """

    def __init__(self, *, width: int = 1, total: float = inf, max_waiting: int = 10_000, ordered: bool = True) -> None:
        self.width, self.total = width, total
        self.limiters: dict[tuple[str, str], FixedLimiter] = {}
        self.granted: list[str] = []
        self.in_flight: dict[str, tuple[QueuedRequest, Permit]] = {}
        self.unordered = 0
        self.now = 0.0
        self.queueing = False
        self.wakes_at = inf
        self.scheduler = Scheduler(
            self._make,
            max_waiting=max_waiting,
            ordered=ordered,
            wake_at=self._wake_at,
            notify_unordered=self._note_unordered,
        )

    def _make(self, account: str, endpoint: EndpointName) -> Any:
        return self.limiters.setdefault((account, endpoint), FixedLimiter(self))

    def _wake_at(self, when: float) -> None:
        self.wakes_at = when

    def _note_unordered(self) -> None:
        self.unordered += 1

    def submit(self, name: str, urgency: Urgency = Urgency.CONVERSION, **more: Any) -> QueuedRequest:
        """Queue a request; its account is the name's first letter by default."""
        account = more.pop("account", name[0])

        def grant(permit: Permit) -> bool:
            self.granted.append(name)
            self.in_flight[name] = (request, permit)
            return True

        request = QueuedRequest(account, PATHS[urgency], urgency, grant, **more)
        self.queueing = True
        self.refusal = self.scheduler.submit(request, self.now)
        self.queueing = False
        return request

    def wake(self) -> float:
        """Grant permits now; returns when to do so again."""
        self.scheduler.wake(self.now)
        return self.wakes_at

    def finish(self, name: str, cause: Cause = Cause.OK) -> None:
        """End a request in flight."""
        request, permit = self.in_flight.pop(name)
        self.scheduler.release(request, permit, cause, NO_RATE_LIMITS, self.now)

    def finish_all(self) -> None:
        """End the requests in flight, oldest first, until there are none."""
        while self.in_flight:
            self.finish(next(iter(self.in_flight)))


class FixedLimiter:
    """Has permits for a fixed number of requests in flight; a test may close it."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.in_flight = 0
        self.asked = 0
        self.closed: Wait | None = None
        self.no_retries = False

    def try_acquire(self, now: float, *, retry: bool = False, credentials: int = 0) -> Permit | Wait:
        """Grant a permit while fewer are in flight, and count the calls."""
        if self.desk.queueing:
            return Wait(Gate.SLOTS, inf)
        self.asked += 1
        if self.closed is not None and self.closed.until > now and credentials == 0:
            return self.closed
        if self.in_flight >= self.desk.width:
            return Wait(Gate.CONCURRENCY, inf)
        if retry and self.no_retries:
            return Wait(Gate.RETRY_BUDGET, now + 1.0)
        if sum(one.in_flight for one in self.desk.limiters.values()) >= self.desk.total:
            return Wait(Gate.SLOTS, inf)
        self.in_flight += 1
        return Permit(self.asked, self.in_flight, now, retry=retry)

    def release(self, _permit: Permit, _cause: Cause, _limits: Any, _now: float) -> None:
        """End one."""
        self.in_flight -= 1

    def release_unused(self, _permit: Permit) -> None:
        """End one."""
        self.in_flight -= 1

    def is_idle(self, _now: float) -> bool:
        """Nothing in flight."""
        return not self.in_flight

    def statistics(self, _now: float) -> LimiterStatistics:
        """For the report."""
        return LimiterStatistics("open", self.desk.width, self.in_flight, None, None, None, None, None, None, "")


def test_a_permit_is_granted_as_soon_as_there_is_one() -> None:
    """By submitting, by ending a request and by cancelling one: no other call is necessary."""
    desk = Desk(width=1)
    granted: list[str] = []

    def queue(name: str) -> QueuedRequest:
        def grant(_permit: Permit) -> bool:
            granted.append(name)
            return True

        request = QueuedRequest("a", "conversions", Urgency.CONVERSION, grant, lane="v")
        assert desk.scheduler.submit(request, 0.0) is None
        return request

    requests = [queue(name) for name in ("first", "second", "third")]
    at_once = list(granted)
    desk.scheduler.cancel(requests[1], 0.0)
    desk.scheduler.release(requests[0], Permit(1, 1, 0.0), Cause.OK, NO_RATE_LIMITS, 0.0)

    assert ["first"] == at_once
    assert ["first", "third"] == granted


def test_it_says_when_to_be_woken() -> None:
    """When a closed gate opens; never while nothing waits for a time."""
    desk = Desk(width=1)
    desk.submit("a0")
    never = desk.wakes_at
    desk.limiters["a", "conversions"].closed = Wait(Gate.QUOTA, 50.0)
    desk.wake()

    assert (inf, 50.0) == (never, desk.wakes_at)


def test_accounts_take_turns_whatever_their_load() -> None:
    """One at a hundred times the load gets every other turn, not the first hundred."""
    desk = Desk(width=1000, total=1)
    for number in range(100):
        desk.submit(f"a{number}")
    desk.submit("b0")
    desk.submit("b1")
    desk.wake()
    desk.finish_all()

    assert desk.granted[:5] == ["a0", "b0", "a1", "b1", "a2"]
    assert len(desk.granted) == 102


def test_money_goes_first() -> None:
    """Conversions before modifications before page loads, in the order they came within each."""
    desk = Desk(width=1, total=1)
    desk.submit("a-busy")
    desk.wake()
    desk.submit("a-page", Urgency.PAGE_LOAD)
    desk.submit("a-change", Urgency.MODIFICATION)
    desk.submit("a-order-1")
    desk.submit("a-order-2")
    desk.finish_all()

    assert desk.granted == ["a-busy", "a-order-1", "a-order-2", "a-change", "a-page"]


def test_an_old_page_load_is_not_starved() -> None:
    """After a minute it goes before orders that came later."""
    desk = Desk(width=1, total=1)
    desk.submit("a-busy")
    desk.wake()
    desk.submit("a-page", Urgency.PAGE_LOAD)
    desk.now = AGING_SECONDS + 1
    desk.submit("a-order")
    desk.finish_all()

    assert desk.granted == ["a-busy", "a-page", "a-order"]


def test_a_closed_account_is_not_in_the_way_and_not_asked_in_vain() -> None:
    """It is asked once, leaves the ring, and is back at its time."""
    desk = Desk(width=1)
    desk.submit("a0")
    desk.limiters["a", "conversions"].closed = Wait(Gate.QUOTA, 50.0)
    wakes_at = desk.wake()
    for number in range(20):
        desk.now += 1
        desk.submit(f"b{number}")
        desk.wake()
        desk.finish_all()
    asked = desk.limiters["a", "conversions"].asked
    desk.now = 50.0
    desk.wake()

    assert (wakes_at, asked) == (50.0, 1)
    assert desk.granted == [*(f"b{number}" for number in range(20)), "a0"]


def test_one_endpoint_of_an_account_does_not_hold_the_other() -> None:
    """Conversions out of quota leave the account's page loads alone."""
    desk = Desk(width=1)
    desk.submit("a-order")
    desk.limiters["a", "conversions"].closed = Wait(Gate.QUOTA, 3600.0)
    desk.submit("a-page", Urgency.PAGE_LOAD)
    desk.wake()

    assert desk.granted == ["a-page"]


def test_retries_without_budget_let_new_requests_by() -> None:
    """And go when there is budget again."""
    desk = Desk(width=1)
    desk.submit("a-again", retry=True)
    desk.submit("a-new")
    desk.limiters["a", "conversions"].no_retries = True
    wakes_at = desk.wake()
    desk.finish_all()
    desk.limiters["a", "conversions"].no_retries = False
    desk.now = 1.0
    desk.wake()

    assert wakes_at in {1.0, inf}
    assert desk.granted == ["a-new", "a-again"]


def test_other_credentials_are_asked_for_at_once() -> None:
    """An account closed for a wrong token opens with the right one, not minutes later."""
    desk = Desk(width=1)
    old = desk.submit("a-old")
    desk.limiters["a", "conversions"].closed = Wait(Gate.CREDENTIALS, 300.0)
    desk.wake()
    desk.scheduler.cancel(old, 0.0)
    desk.submit("a-new", credentials=7)
    desk.wake()

    assert desk.granted == ["a-new"]


def test_when_slots_run_out_nobody_loses_their_place() -> None:
    """All wait for a slot; the account that was next stays next."""
    desk = Desk(width=10, total=2)
    for name in ("a0", "b0", "c0", "d0"):
        desk.submit(name)
    desk.wake()
    before = list(desk.granted)
    desk.finish("a0")
    desk.finish("b0")

    assert before == ["a0", "b0"]
    assert desk.granted == ["a0", "b0", "c0", "d0"]


def test_a_visitors_requests_go_one_at_a_time_and_in_order() -> None:
    """The landing before the order, though both could go; other visitors are not held."""
    desk = Desk(width=10)
    desk.submit("a-landing", Urgency.PAGE_LOAD, lane="v1")
    desk.submit("a-order", lane="v1")
    desk.submit("a-other", lane="v2")
    desk.wake()
    before = list(desk.granted)
    desk.finish("a-landing")

    assert sorted(before) == ["a-landing", "a-other"]
    assert desk.granted[-1] == "a-order"


@pytest.mark.parametrize("cause", [Cause.REFUSED, Cause.TRANSIENT, Cause.AMBIGUOUS])
def test_a_poison_event_never_stalls_its_visitor(cause: Cause) -> None:
    """However the first ends, the next one goes at once."""
    desk = Desk(width=10)
    desk.submit("a0", lane="v")
    desk.submit("a1", lane="v")
    desk.wake()
    desk.finish("a0", cause)

    assert desk.granted == ["a0", "a1"]


def test_one_that_left_frees_its_lane() -> None:
    """The next request of its visitor need not wait for it."""
    desk = Desk(width=1)
    desk.submit("a-busy")
    desk.wake()
    first = desk.submit("a0", lane="v")
    desk.submit("a1", lane="v")
    desk.scheduler.cancel(first, 0.0)
    desk.finish_all()

    assert desk.granted == ["a-busy", "a1"]
    assert desk.scheduler.waiting == 0


def test_one_that_left_the_middle_of_a_lane_is_skipped() -> None:
    """The order of the others stays."""
    desk = Desk(width=9)
    for number in range(3):
        request = desk.submit(f"a{number}", lane="v")
        if number == 1:
            middle = request
    desk.scheduler.cancel(middle, 0.0)
    desk.wake()
    desk.finish_all()

    assert desk.granted == ["a0", "a2"]


def test_too_long_a_lane_is_unordered_and_counted() -> None:
    """A robot with a thousand events must not wait for itself."""
    desk = Desk(width=1000)
    for number in range(MAX_LANE_LENGTH + 2):
        desk.submit(f"a{number}", lane="v")
    desk.wake()

    assert desk.unordered == 1
    assert len(desk.granted) == MAX_LANE_LENGTH + 2


def test_a_head_that_is_stuck_for_long_gives_the_order_up() -> None:
    """After a quarter of an hour the visitor's others go without it."""
    desk = Desk(width=1000)
    desk.submit("a0", lane="v")
    desk.submit("a1", lane="v")
    desk.wake()
    desk.now = MAX_LANE_SECONDS + 1
    desk.submit("a2", lane="v")
    desk.wake()

    assert desk.unordered == 1
    assert desk.granted == ["a0", "a1", "a2"]


def test_without_order_a_visitors_requests_go_together() -> None:
    """``delivery.ordering`` none."""
    desk = Desk(width=10, ordered=False)
    desk.submit("a0", lane="v")
    desk.submit("a1", lane="v")
    desk.wake()

    assert desk.granted == ["a0", "a1"]


def test_what_waits_is_bounded_and_no_account_takes_all_of_it() -> None:
    """A quarter for one account; the others still find room, until all of it is taken."""
    desk = Desk(width=0, max_waiting=40)
    refused: dict[str, int] = defaultdict(int)
    for account in "abcdef":
        for number in range(15):
            desk.submit(f"{account}{number}")
            refused[account] += desk.refusal is not None

    assert dict(refused) == {"a": 5, "b": 5, "c": 5, "d": 5, "e": 15, "f": 15}
    assert desk.scheduler.waiting == 40
    assert ACCOUNT_SHARE_DIVISOR == 4


def test_a_permit_that_nobody_needs_goes_to_the_next() -> None:
    """It does not occupy a place in flight."""
    desk = Desk(width=1)
    unwanted = QueuedRequest("a", "conversions", Urgency.CONVERSION, lambda _: False)
    desk.scheduler.submit(unwanted, 0.0)
    desk.submit("a1")
    desk.wake()

    assert desk.granted == ["a1"]
    assert desk.limiters["a", "conversions"].in_flight == 1


def test_idle_accounts_are_forgotten() -> None:
    """Memory depends on the accounts in use, not on all that were ever used."""
    desk = Desk(width=1)
    for name in ("a0", "b0"):
        desk.submit(name)
    desk.wake()
    desk.finish("a0")
    desk.scheduler.forget_idle(0.0)

    assert [one.account for one in desk.scheduler.report(0.0)] == ["b"]


steps = st.lists(
    st.tuples(
        st.sampled_from(["submit", "wake", "finish", "cancel", "wait"]),
        st.integers(0, 3),
        st.sampled_from(list(Urgency)),
        st.sampled_from([None, "v", "w"]),
    ),
    max_size=60,
)


@tried(200)
@given(steps, st.integers(1, 3), st.integers(1, 4))
def test_everybody_goes_once_and_in_their_visitors_order(
    todo: list[tuple[str, int, Urgency, str | None]], width: int, total: int
) -> None:
    """Whatever happens in whatever order: nobody is lost, nobody goes twice, and lanes keep their order."""
    desk = Desk(width=width, total=total)
    requests: dict[str, QueuedRequest] = {}
    lanes: dict[str, list[str]] = defaultdict(list)
    cancelled: set[str] = set()
    for number, (step, which, urgency, lane) in enumerate(todo):
        name = f"{'abcd'[which]}{number}"
        if step == "submit":
            requests[name] = desk.submit(name, urgency, lane=lane)
            lanes[f"{name[0]}{lane}"].append(name)
        elif step == "finish" and desk.in_flight:
            desk.finish(list(desk.in_flight)[which % len(desk.in_flight)])
        elif step == "cancel" and requests:
            chosen = list(requests)[which % len(requests)]
            if chosen not in desk.granted:
                cancelled.add(chosen)
                desk.scheduler.cancel(requests[chosen], desk.now)
        elif step == "wait":
            desk.now += 10.0
        desk.wake()
    desk.finish_all()

    assert sorted(desk.granted) == sorted(requests.keys() - cancelled)
    assert desk.scheduler.waiting == 0
    for name, members in lanes.items():
        if not name.endswith("None"):
            assert [one for one in desk.granted if one in members] == [one for one in members if one not in cancelled]
