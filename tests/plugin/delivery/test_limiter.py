"""The gates together: their order, what they consume, and that no sequence of events blocks them for ever."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impact_plugin.delivery.limits.limiter import IDLE_SECONDS, Limiter, Slots
from impact_plugin.delivery.limits.permits import Gate, LimitChange, Permit, Wait
from impact_plugin.delivery.limits.rate_limits import NO_RATE_LIMITS, RateLimits
from impact_plugin.delivery.policy import Cause
from tests.properties import tried

ENDS = (
    Cause.OK,
    Cause.BODY_ERROR,
    Cause.REFUSED,
    Cause.CREDENTIALS,
    Cause.UNCLEAR,
    Cause.TRANSIENT,
    Cause.QUOTA,
    Cause.OVERLOAD,
    Cause.UNEXPECTED,
    Cause.NOT_SENT,
    Cause.AMBIGUOUS,
)
"""How an attempt can end."""

MAX_CONCURRENCY = 8


def _limiter(
    slots: Slots | None = None, max_concurrency: int = 64, changes: list[LimitChange] | None = None
) -> Limiter:
    """A limiter by itself."""
    notify = (changes if changes is not None else []).append
    jitter = Random(1)  # noqa: S311 - jitter, not a secret
    return Limiter(slots or Slots(), max_concurrency, jitter, notify)


def _permit(limiter: Limiter, now: float, *, retry: bool = False) -> Permit:
    """Ask for a permit and get it."""
    acquired = limiter.try_acquire(now, retry=retry)
    assert isinstance(acquired, Permit)
    return acquired


def _wait(limiter: Limiter, now: float, *, retry: bool = False, credentials: int = 0) -> Wait:
    """Ask for a permit and get none."""
    acquired = limiter.try_acquire(now, retry=retry, credentials=credentials)
    assert isinstance(acquired, Wait)
    return acquired


def _do(limiter: Limiter, cause: Cause, count: int, now: float, limits: RateLimits = NO_RATE_LIMITS) -> None:
    """Send requests one after the other, which take no time."""
    for _ in range(count):
        limiter.release(_permit(limiter, now), cause, limits, now)


def test_permits_are_numbered_and_ranked() -> None:
    """The rank counts the requests in flight, this one included."""
    limiter = _limiter()
    first, second = _permit(limiter, 0.0), _permit(limiter, 0.0)
    limiter.release(first, Cause.OK, NO_RATE_LIMITS, 0.1)
    third = _permit(limiter, 0.1)

    assert [(1, 1), (2, 2), (3, 2)] == [(one.number, one.rank) for one in (first, second, third)]


def test_beyond_the_limit_requests_wait_for_one_to_come_back() -> None:
    """Four at the start."""
    limiter = _limiter()
    for _ in range(4):
        _permit(limiter, 0.0)

    assert Wait(Gate.CONCURRENCY, math.inf) == _wait(limiter, 0.0)


def test_slots_are_shared_by_all_accounts() -> None:
    """And given back by ``release`` and ``release_unused``, once each."""
    slots = Slots(2)
    one, other = _limiter(slots), _limiter(slots)
    first, second = _permit(one, 0.0), _permit(one, 0.0)
    assert Wait(Gate.SLOTS, math.inf) == _wait(other, 0.0)
    for _ in range(2):
        one.release(first, Cause.OK, NO_RATE_LIMITS, 0.1)
        one.release_unused(second)
        one.release_unused(first)

    assert 0 == slots.taken
    _permit(other, 0.1)


def test_the_gates_are_asked_in_their_order() -> None:
    """Refused credentials hide a quota that is used up, and so on; one gate after the other is opened."""
    limiter = _limiter(max_concurrency=2)
    _do(limiter, Cause.CREDENTIALS, 2, 0.0)
    limiter.release(_permit(limiter, 0.0), Cause.CREDENTIALS, RateLimits(100, 0, 50.0), 0.0)
    found = [_wait(limiter, 0.0).gate, _wait(limiter, 0.0, credentials=1).gate]
    now = 60.0
    scout = limiter.try_acquire(now, credentials=1)
    assert isinstance(scout, Permit)
    limiter.release(scout, Cause.OK, RateLimits(100, 100, 1000.0), now)
    while isinstance(limiter.try_acquire(now, credentials=1), Permit):
        pass
    found.append(_wait(limiter, now + 100.0, credentials=1).gate)

    assert [Gate.CREDENTIALS, Gate.QUOTA, Gate.CONCURRENCY] == found


def test_a_rest_of_the_quota_is_paced() -> None:
    """One more at once, then one every ten seconds, looked at every second."""
    limiter = _limiter()
    _do(limiter, Cause.OK, 1, 0.0, RateLimits(100, 100, 1001.0))
    _do(limiter, Cause.OK, 1, 0.0)

    assert Wait(Gate.PACE, 1.0) == _wait(limiter, 0.0)
    assert isinstance(limiter.try_acquire(10.5), Permit)


def test_retries_wait_for_their_budget_and_new_requests_do_not() -> None:
    """Ten retries that failed, then new ones only until a second has passed."""
    limiter = _limiter()
    _do(limiter, Cause.OK, 100, 0.0)
    for _ in range(9):
        limiter.release(_permit(limiter, 0.0, retry=True), Cause.TRANSIENT, NO_RATE_LIMITS, 0.0)
    _permit(limiter, 0.0, retry=True)

    assert Wait(Gate.RETRY_BUDGET, 1.0) == _wait(limiter, 0.0, retry=True)
    _permit(limiter, 0.0)
    _permit(limiter, 1.0, retry=True)


def test_a_closed_gate_consumes_nothing() -> None:
    """A thousand attempts to acquire a permit change neither the pace nor the budget nor the slots."""
    slots = Slots()
    limiter = _limiter(slots)
    _do(limiter, Cause.OK, 1, 0.0, RateLimits(1000, 500, 100.0))
    while isinstance(limiter.try_acquire(0.0), Permit):
        pass
    before = (slots.taken, limiter.statistics(0.0))
    for _ in range(1000):
        _wait(limiter, 0.0, retry=True)

    assert before == (slots.taken, limiter.statistics(0.0))


def test_retries_do_not_inflate_the_measured_time() -> None:
    """Ten attempts with a minute between them took a tenth of a second each."""
    limiter, now = _limiter(), 0.0
    for attempt in range(40):
        permit = _permit(limiter, now, retry=attempt > 0)
        limiter.release(permit, Cause.TRANSIENT if attempt % 4 == 0 else Cause.OK, NO_RATE_LIMITS, now + 0.1)
        now += 60.0

    rtt = limiter.statistics(now).rtt
    assert 0.1 == pytest.approx(rtt)


def test_a_503_with_retry_after_closes() -> None:
    """For as long as impact.com asks."""
    limiter = _limiter()
    limiter.release(_permit(limiter, 0.0), Cause.OVERLOAD, RateLimits(retry_after=30.0), 0.0)

    assert Wait(Gate.BREAKER, 30.0) == _wait(limiter, 1.0)


def test_it_starts_slowly_after_an_outage() -> None:
    """A host that has just recovered does not get all requests at once."""
    limiter = _limiter()
    now = 0.0
    for _ in range(6):
        permits = [_permit(limiter, now) for _ in range(limiter.statistics(now).limit)]
        now += 0.1
        for permit in permits:
            limiter.release(permit, Cause.OK, NO_RATE_LIMITS, now)
    before = limiter.statistics(now).limit
    now += 60.0
    _do(limiter, Cause.NOT_SENT, 10, now)

    assert (64, 4) == (before, limiter.statistics(now).limit)


def test_statistics_say_why() -> None:
    """In words, so that an operator knows why nothing is sent."""
    limiter = _limiter()
    _do(limiter, Cause.OK, 1, 0.0)
    assert ("open", None, "Nothing waits.") == _state(limiter, 0.0)
    _do(limiter, Cause.OK, 1, 0.0, RateLimits(1000, 0, 60.0))
    state, gate, why = _state(limiter, 0.0)

    assert ("closed", Gate.QUOTA) == (state, gate)
    assert "until it is reset" in why
    statistics = limiter.statistics(10.0)
    assert (0, 50.0) == (statistics.quota_left, statistics.reset_in)


def _state(limiter: Limiter, now: float) -> tuple[str, Gate | None, str]:
    statistics = limiter.statistics(now)
    return statistics.state, statistics.gate, statistics.why


def test_an_account_is_forgotten_when_nothing_is_worth_keeping() -> None:
    """Not while something is in flight, nor before a quota's reset, nor while it is closed."""
    limiter = _limiter()
    assert limiter.is_idle(0.0)
    permit = _permit(limiter, 0.0)
    assert not limiter.is_idle(IDLE_SECONDS)
    limiter.release(permit, Cause.OK, RateLimits(1000, 900, 3600.0), 0.0)
    assert not limiter.is_idle(IDLE_SECONDS)
    assert limiter.is_idle(3600.0)
    closed = _limiter()
    _do(closed, Cause.CREDENTIALS, 3, 0.0)

    assert not closed.is_idle(1e6)


LIMITS = st.builds(
    RateLimits,
    st.none() | st.integers(0, 1000),
    st.none() | st.integers(0, 1000),
    st.none() | st.floats(0, 86_400),
    st.none() | st.floats(0, 3600),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "retry", "done", "withdraw"]),
        st.integers(0, MAX_CONCURRENCY),
        st.sampled_from(ENDS),
        st.just(NO_RATE_LIMITS) | LIMITS,
        st.floats(0, 100) | st.just(0.0),
        st.integers(0, 1),
    ),
    max_size=120,
)


class Checked:
    """Two limiters that share slots, every result of which is checked."""

    def __init__(self) -> None:
        self.slots = Slots(6)
        self.limiters = [_limiter(self.slots, max_concurrency=MAX_CONCURRENCY) for _ in range(2)]
        self.in_flight: list[list[Permit]] = [[], []]
        self.now = 1e6

    def ask(self, which: int, *, retry: bool) -> Wait | None:
        """Ask for a permit, and check what comes."""
        acquired = self.limiters[which].try_acquire(self.now, retry=retry, credentials=which)
        if isinstance(acquired, Permit):
            self.in_flight[which].append(acquired)
            return None
        assert acquired.until > self.now
        assert acquired.until < math.inf or (self.slots.taken if acquired.gate is Gate.SLOTS else self.in_flight[which])
        return acquired

    def check(self) -> None:
        """What holds at any time."""
        assert sum(map(len, self.in_flight)) == self.slots.taken
        for limiter, permits in zip(self.limiters, self.in_flight, strict=True):
            statistics = limiter.statistics(self.now)
            assert len(permits) == statistics.in_flight
            assert 1 <= statistics.limit <= MAX_CONCURRENCY

    def succeed_all(self) -> None:
        """Every request in flight succeeds."""
        for limiter, permits in zip(self.limiters, self.in_flight, strict=True):
            while permits:
                limiter.release(permits.pop(), Cause.OK, NO_RATE_LIMITS, self.now)

    def recover(self, which: int) -> float:
        """Let every request succeed from now on; how long it takes until requests flow."""
        started, free = self.now, 0
        while free < 100:
            wait = self.ask(which, retry=True)
            if wait is None or wait.until == math.inf:
                free += wait is None
                self.succeed_all()
            else:
                self.now = wait.until
        return self.now - started


@given(STEPS)
@tried(200)
def test_no_sequence_of_events_blocks_it(steps: list[tuple[str, int, Cause, RateLimits, float, int]]) -> None:
    """Counts stay right, no wait is without end or in the past, and after recovery requests flow again."""
    checked = Checked()
    for action, place, cause, limits, passed, which in steps:
        checked.now += passed
        permits = checked.in_flight[which]
        if action in {"ask", "retry"}:
            checked.ask(which, retry=action == "retry")
        elif permits:
            permit = permits.pop(place % len(permits))
            limiter = checked.limiters[which]
            limiter.release(permit, cause, limits, checked.now) if action == "done" else limiter.release_unused(permit)
        checked.check()
    checked.succeed_all()

    # A day is the longest reset, an hour the longest Retry-After; the rest is a hundred requests at the slowest pace.
    assert 86_400 + 3600 + 7200 >= max(checked.recover(0), checked.recover(1))
