"""The quota: read from headers, spread over time, and learned if there are no headers."""

import math
from random import Random

import pytest

from impact_plugin.delivery.limits.permits import Gate, LimitChange, Permit, Wait
from impact_plugin.delivery.limits.quota import MAX_CLOSED_SECONDS, Quota
from impact_plugin.delivery.limits.rate_limits import MIN_EPOCH_SECONDS, NO_RATE_LIMITS, RateLimits, read_rate_limits
from impact_plugin.delivery.policy import Cause


class Account:
    """A quota with the numbers of its permits, and its notifications."""

    def __init__(self) -> None:
        self.notified: list[LimitChange] = []
        self.quota = Quota(Random(1), self.notified.append)  # noqa: S311 - jitter, not a secret
        self.issued = 0
        self.in_flight: dict[int, None] = {}

    def wait(self, now: float) -> Wait | None:
        """Ask."""
        return self.quota.check(now, len(self.in_flight))

    def send(self, now: float) -> Permit:
        """Send one request, whatever the gate says."""
        self.quota.record_sent()
        self.issued += 1
        self.in_flight[self.issued] = None
        return Permit(self.issued, len(self.in_flight), now)

    def end(self, permit: Permit, limits: RateLimits, now: float, cause: Cause = Cause.OK) -> None:
        """One request ends."""
        del self.in_flight[permit.number]
        self.quota.record_result(permit, cause, limits, now, self.issued, self.in_flight)

    def do(self, limits: RateLimits, now: float, cause: Cause = Cause.OK) -> None:
        """Send one request, which takes no time."""
        self.end(self.send(now), limits, now, cause)

    def sent_until(self, now: float, until: float) -> int:
        """How many requests go, as fast as the gate allows, when answers say nothing."""
        count = 0
        while now < until:
            wait = self.wait(now)
            if wait is None:
                self.send(now)
                self.in_flight.clear()
                count += 1
            else:
                now = min(wait.until, until)
        return count

    @property
    def changes(self) -> list[str]:
        """The notified changes, without details."""
        return [one.change for one in self.notified]


def test_without_headers_nothing_waits() -> None:
    """impact.com need not send any."""
    account = Account()

    for _ in range(1000):
        assert account.wait(0.0) is None
        account.do(NO_RATE_LIMITS, 0.0)


def test_what_is_left_is_spread_until_the_reset() -> None:
    """Evenly, and nearly all of it."""
    account = Account()
    account.do(RateLimits(1000, 900, 3600.0), 0.0)

    assert 450 == pytest.approx(account.sent_until(0.0, 1800.0), abs=12)
    assert 450 == pytest.approx(account.sent_until(1800.0, 3599.5), abs=12)
    assert 0 == account.quota.left


def test_requests_in_flight_are_deducted() -> None:
    """What was sent after an answer's request is not in its count, nor perhaps what was sent before and is late."""
    account = Account()
    early, asked, later = account.send(0.0), account.send(0.0), account.send(0.0)
    account.end(asked, RateLimits(1000, 990, 60.0), 0.1)
    assert 988 == account.quota.left
    account.end(early, RateLimits(1000, 991, 60.0), 0.2)
    assert 989 == account.quota.left
    account.end(later, RateLimits(1000, 989, 60.0), 0.3)

    assert 989 == account.quota.left


def test_answers_out_of_order_do_not_raise_it() -> None:
    """An early answer that comes late says more is left, and is wrong."""
    account = Account()
    permits = [account.send(0.0) for _ in range(10)]
    account.end(permits[9], RateLimits(1000, 5, 60.0), 0.1)
    for left, permit in enumerate(permits[:9]):
        account.end(permit, RateLimits(1000, 900 - left, 60.0), 0.2)
        assert account.quota.left is not None
        assert account.quota.left <= 5


def test_nothing_left_closes_until_the_reset() -> None:
    """And a little longer; then a single request finds out what the new quota is."""
    account = Account()
    account.do(RateLimits(1000, 0, 100.0), 0.0)
    wait = account.wait(1.0)
    assert wait is not None
    assert wait.gate is Gate.QUOTA
    assert 100.0 <= wait.until <= 101.0
    assert account.wait(wait.until) is None
    scout = account.send(wait.until)
    assert Wait(Gate.QUOTA, math.inf) == account.wait(wait.until)
    account.end(scout, RateLimits(1000, 999, 3600.0), wait.until)

    assert account.wait(wait.until) is None
    assert ["quota_exhausted", "quota_reset"] == account.changes


def test_a_scout_that_is_lost_is_followed_by_another() -> None:
    """The gate is not stuck for want of an answer, nor of headers in it."""
    account = Account()
    account.do(RateLimits(1000, 0, 100.0), 0.0)
    now = account.quota.closed_until
    for _ in range(3):
        assert account.wait(now) is None
        account.do(NO_RATE_LIMITS, now, Cause.AMBIGUOUS)
    account.wait(now)
    account.do(NO_RATE_LIMITS, now)

    assert account.quota.left is None


def test_a_refusal_with_a_reset_closes_until_then() -> None:
    """Whatever was thought to be left."""
    account = Account()
    account.do(RateLimits(1000, 900, 60.0), 0.0)
    account.do(RateLimits(1000, None, 30.0), 1.0, Cause.QUOTA)

    wait = account.wait(1.0)

    assert wait is not None
    assert 31.0 <= wait.until <= 32.0


def test_a_jump_of_the_clock_does_not_move_a_reset() -> None:
    """An epoch is a delay once it is read; what the wall clock does later is not asked."""
    account = Account()
    read_at = MIN_EPOCH_SECONDS * 20
    headers = {"X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(read_at) + 60)}
    account.do(read_rate_limits(headers, read_at), 500.0)

    assert 560.0 <= account.quota.closed_until <= 561.0


@pytest.mark.parametrize("reset", [None, 0.0])
def test_a_reset_that_is_over_or_absent_neither_sticks_nor_spins(reset: float | None) -> None:
    """With nothing left and no word until when, requests go one at a time."""
    account = Account()
    account.do(RateLimits(1000, 0, reset), 0.0)
    assert account.wait(0.0) is None
    permit = account.send(0.0)

    assert Wait(Gate.QUOTA, math.inf) == account.wait(0.0)
    account.end(permit, RateLimits(1000, 0, reset), 0.1)
    assert account.wait(0.1) is None


def test_headers_that_contradict_a_refusal_are_not_believed() -> None:
    """429 although 900 are left: the pace is learned from what was accepted."""
    account = Account()
    for tenth in range(20):
        for _ in range(10):
            account.do(RateLimits(1000, 900, 3600.0), tenth / 10)
    account.do(RateLimits(1000, 900, 3600.0), 2.0, Cause.QUOTA)
    account.quota.left = None

    wait = account.wait(2.0)
    pace = account.quota.pace(2.0)

    assert wait is not None
    assert 2.5 <= wait.until <= 3.1
    assert pace is not None
    assert 97.0 == pytest.approx(pace, rel=0.1)


def test_refusals_without_headers_close_for_ever_longer() -> None:
    """1, 2, 4 .. 60 seconds, less up to a half by chance; a burst of them counts once."""
    account, now, pauses = Account(), 0.0, []
    for _ in range(9):
        burst = [account.send(now) for _ in range(5)]
        for permit in burst:
            account.end(permit, NO_RATE_LIMITS, now, Cause.QUOTA)
        pauses.append(account.quota.closed_until - now)
        now = account.quota.closed_until

    expected = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert all(longest / 2 <= pause <= longest + 1 for pause, longest in zip(pauses, expected, strict=True))
    assert MAX_CLOSED_SECONDS + 1 >= max(pauses)
    assert ["quota_exhausted"] == account.changes


def test_retry_after_is_honoured_on_a_refusal() -> None:
    """Where it is longer than the back-off."""
    account = Account()
    account.do(RateLimits(retry_after=90.0), 0.0, Cause.QUOTA)

    assert 90.0 <= account.quota.closed_until <= 91.0


def test_a_learned_pace_is_raised_only_while_requests_wait_for_it() -> None:
    """Little by little, and faster once it is above what it was."""
    account = Account()
    for tenth in range(20):
        for _ in range(10):
            account.do(NO_RATE_LIMITS, tenth / 10)
    account.do(NO_RATE_LIMITS, 2.0, Cause.QUOTA)
    learned = account.quota.pace(2.0)
    assert learned == account.quota.pace(1000.0)
    assert learned is not None
    account.sent_until(3.0, 60.0)
    raised = account.quota.pace(60.0)

    assert raised is not None
    assert raised > learned * 2


def test_a_withdrawn_request_is_not_counted() -> None:
    """Nothing was sent."""
    account = Account()
    account.do(RateLimits(1000, 10, 60.0), 0.0)
    account.send(0.0)
    account.quota.undo_sent()

    assert 10 == account.quota.left
