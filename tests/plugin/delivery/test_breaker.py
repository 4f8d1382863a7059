"""The breaker: when an account is closed, how it is tried again, and what may not close it."""

import math
from random import Random

import pytest

from impact_plugin.delivery.limits.breaker import (
    CREDENTIALS_PROBE_SECONDS,
    MAX_PROBE_SECONDS,
    PROBE_PATIENCE_SECONDS,
    Breaker,
)
from impact_plugin.delivery.limits.permits import Gate, LimitChange, Permit, Wait
from impact_plugin.delivery.policy import Cause


class Tried:
    """A breaker with the numbers of its permits, and its notifications."""

    def __init__(self) -> None:
        self.notified: list[LimitChange] = []
        self.breaker = Breaker(Random(1), self.notified.append)  # noqa: S311 - jitter, not a secret
        self.issued = 0

    def send(self, now: float) -> Permit:
        """Send one request."""
        self.issued += 1
        return Permit(self.issued, 1, now, probe=self.breaker.record_sent(now))

    def end(self, permit: Permit, cause: Cause, now: float) -> None:
        """One request ends."""
        self.breaker.record_result(permit, cause, now, self.issued)

    def do(self, cause: Cause, count: int, now: float) -> None:
        """Send requests one after the other, which take no time."""
        for _ in range(count):
            self.end(self.send(now), cause, now)

    @property
    def changes(self) -> list[str]:
        """The notified changes, without details."""
        return [one.change for one in self.notified]


@pytest.mark.parametrize("cause", [Cause.NOT_SENT, Cause.AMBIGUOUS, Cause.TRANSIENT, Cause.UNEXPECTED, Cause.OVERLOAD])
def test_failures_in_a_row_close_it(cause: Cause) -> None:
    """Ten of requests that were sent one after the other, of any kind of failure, and not nine."""
    tried = Tried()
    tried.do(cause, 9, 0.0)
    before = tried.breaker.state
    tried.do(cause, 1, 0.0)

    assert ("open", "closed") == (before, tried.breaker.state)
    assert ["breaker_opened"] == tried.changes


@pytest.mark.parametrize("cause", [Cause.OK, Cause.BODY_ERROR, Cause.REFUSED, Cause.UNCLEAR, Cause.QUOTA])
def test_answers_do_not_close_it(cause: Cause) -> None:
    """A request that impact.com refuses has been answered."""
    tried = Tried()
    tried.do(cause, 100, 0.0)

    assert "open" == tried.breaker.state


def test_seventy_per_cent_of_thirty_seconds_close_it() -> None:
    """Also when some are answered; older results do not count."""
    tried = Tried()
    tried.do(Cause.OK, 1000, 0.0)
    for second in range(40, 43):
        tried.do(Cause.OK, 1, second)
        tried.do(Cause.TRANSIENT, 3, second)

    assert "closed" == tried.breaker.state


def test_half_of_them_do_not() -> None:
    """A host that fails now and then is used."""
    tried = Tried()
    for second in range(100):
        tried.do(Cause.TRANSIENT, 3, second)
        tried.do(Cause.OK, 3, second)

    assert "open" == tried.breaker.state


def test_one_restart_of_the_host_does_not_close_it() -> None:
    """Sixty connections break at once, and the next requests are answered."""
    tried = Tried()
    tried.do(Cause.OK, 100, 0.0)
    permits = [tried.send(0.0) for _ in range(60)]
    for permit in permits:
        tried.end(permit, Cause.AMBIGUOUS, 0.1)
    tried.do(Cause.OK, 60, 0.2)

    assert "open" == tried.breaker.state


def test_a_host_that_hangs_closes_it_with_the_first_time_outs() -> None:
    """They were sent ten seconds ago: nothing has been answered since."""
    tried = Tried()
    tried.do(Cause.OK, 100, 0.0)
    permits = [tried.send(0.0) for _ in range(10)]
    for permit in permits:
        tried.end(permit, Cause.AMBIGUOUS, 10.0)

    assert "closed" == tried.breaker.state


def test_refusals_that_a_cap_explains_do_not_close_it() -> None:
    """Nine of ten are refused with 503, but others are taken at the same time."""
    tried = Tried()
    for tenth in range(1000):
        tried.do(Cause.OVERLOAD, 9, tenth / 10)
        tried.do(Cause.OK, 1, tenth / 10)

    assert "open" == tried.breaker.state


def test_one_then_three_then_all() -> None:
    """After about a second; each stage needs all its probes."""
    tried = Tried()
    tried.do(Cause.NOT_SENT, 10, 0.0)
    closed = tried.breaker.check(0.0)
    assert closed is not None
    now = closed.until
    assert 0.5 <= now <= 1.0

    assert tried.breaker.check(now) is None
    first = tried.send(now)
    assert Wait(Gate.BREAKER, now + PROBE_PATIENCE_SECONDS) == tried.breaker.check(now)
    tried.end(first, Cause.OK, now)
    three = [tried.send(now) for _ in range(3) if tried.breaker.check(now) is None]
    assert tried.breaker.check(now) is not None
    for probe in three:
        tried.end(probe, Cause.OK, now)

    assert [True] * 4 == [probe.probe for probe in (first, *three)]
    assert "open" == tried.breaker.state
    assert ["breaker_opened", "breaker_closed"] == tried.changes


def test_probes_that_fail_come_at_most_five_seconds_apart() -> None:
    """One request in that time costs nothing, and a recovered host is noticed soon."""
    tried = Tried()
    tried.do(Cause.NOT_SENT, 10, 0.0)
    now, pauses = 0.0, []
    for _ in range(10):
        wait = tried.breaker.check(now)
        assert wait is not None
        pauses.append(wait.until - now)
        now = wait.until
        assert tried.breaker.check(now) is None
        tried.do(Cause.NOT_SENT, 1, now)

    assert pauses[0] < pauses[2]
    assert MAX_PROBE_SECONDS >= max(pauses)
    assert ["breaker_opened"] == tried.changes


def test_a_probe_that_hangs_is_not_waited_for() -> None:
    """Another one is sent and opens the gate; the timeout of the first one is then ignored."""
    tried = Tried()
    tried.do(Cause.NOT_SENT, 10, 0.0)
    tried.breaker.check(1.0)
    hanging = tried.send(1.0)
    assert tried.breaker.check(1.0 + PROBE_PATIENCE_SECONDS) is None
    tried.do(Cause.OK, 4, 1.0 + PROBE_PATIENCE_SECONDS)
    tried.end(hanging, Cause.AMBIGUOUS, 15.0)

    assert "open" == tried.breaker.state


def test_a_withdrawn_probe_lets_another_go() -> None:
    """Nothing was sent, so nothing is waited for."""
    tried = Tried()
    tried.do(Cause.NOT_SENT, 10, 0.0)
    tried.breaker.check(1.0)
    tried.breaker.undo_sent(tried.send(1.0))

    assert tried.breaker.check(1.0) is None


def test_results_from_before_it_closed_are_ignored() -> None:
    """Sixty time-outs of one hang are one reason to close, not sixty."""
    tried = Tried()
    late = [tried.send(0.0) for _ in range(60)]
    tried.do(Cause.NOT_SENT, 10, 0.0)
    first = tried.breaker.until
    for permit in late:
        tried.end(permit, Cause.AMBIGUOUS, 0.4)

    assert first == tried.breaker.until


def test_three_refusals_of_the_credentials_close_it() -> None:
    """In a row; a probe every five minutes tries them again."""
    tried = Tried()
    tried.do(Cause.CREDENTIALS, 2, 0.0)
    tried.do(Cause.OK, 1, 0.0)
    tried.do(Cause.CREDENTIALS, 2, 0.0)
    assert "open" == tried.breaker.state
    tried.do(Cause.CREDENTIALS, 1, 0.0)
    assert Wait(Gate.CREDENTIALS, CREDENTIALS_PROBE_SECONDS) == tried.breaker.check(0.0)

    now = CREDENTIALS_PROBE_SECONDS
    assert tried.breaker.check(now) is None
    tried.do(Cause.CREDENTIALS, 1, now)
    assert Wait(Gate.CREDENTIALS, 2 * CREDENTIALS_PROBE_SECONDS) == tried.breaker.check(now)
    assert tried.breaker.check(2 * now) is None
    tried.do(Cause.OK, 1, 2 * now)

    assert "open" == tried.breaker.state
    assert ["credentials_refused", "credentials_accepted"] == tried.changes


def test_other_credentials_open_it_at_once() -> None:
    """The operator need not wait; requests in flight with the old ones do not close it again."""
    tried = Tried()
    late = [tried.send(0.0) for _ in range(5)]
    tried.do(Cause.CREDENTIALS, 3, 0.0)
    tried.breaker.use_credentials(7, tried.issued)
    assert "open" == tried.breaker.state
    for permit in late:
        tried.end(permit, Cause.CREDENTIALS, 1.0)

    assert "open" == tried.breaker.state


def test_a_host_that_fails_beside_refused_credentials_is_tried_soon() -> None:
    """Only a refusal of the credentials is worth five minutes."""
    tried = Tried()
    tried.do(Cause.CREDENTIALS, 3, 0.0)
    tried.breaker.check(CREDENTIALS_PROBE_SECONDS)
    tried.do(Cause.NOT_SENT, 1, CREDENTIALS_PROBE_SECONDS)

    wait = tried.breaker.check(CREDENTIALS_PROBE_SECONDS)

    assert wait is not None
    assert CREDENTIALS_PROBE_SECONDS + MAX_PROBE_SECONDS >= wait.until


def test_retry_after_closes_it_for_as_long() -> None:
    """And a shorter one later does not shorten that."""
    tried = Tried()
    tried.breaker.close_for(120.0, 0.0, tried.issued)
    tried.breaker.close_for(1.0, 1.0, tried.issued)

    assert Wait(Gate.BREAKER, 120.0) == tried.breaker.check(1.0)
    assert tried.breaker.check(120.0) is None
    assert math.isfinite(tried.breaker.until)
