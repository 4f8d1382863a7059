"""The account's request quota: what is left of it by impact.com's headers, over time; or a rate learned from refusals.

Pure; times are monotonic seconds. A reset becomes one as soon as it is read, so that no clock's jump moves it.
"""

import math
from collections.abc import Callable, Iterable
from random import Random
from typing import Final

from impact_plugin.delivery.limits.gates import Gate, LimitChange, Permit, Wait
from impact_plugin.delivery.limits.rate_limits import RateLimits, backoff
from impact_plugin.delivery.policy import Cause

SOONEST: Final = 0.001
"""A wait is at least so many seconds, so that a rounding error never makes a busy loop."""

LONGEST_PACED: Final = 1.0
"""Seconds after which a slow pace is looked at again: meanwhile it may have been raised."""

SAME_RESET: Final = 2.0
"""Resets told in whole seconds differ by a second or so; within so many seconds they are one, and the latest holds."""

AIM: Final = 1.0
"""The last request of a window goes so many seconds before its end, or a twentieth of what is left of it."""

LEAST_BURST: Final = 2.0
BURST_SHARE: Final = 0.1
SAVED_SECONDS: Final = 300.0
"""Requests that may go at once when none went for a while: what the pace allowed in five minutes, after which a router
tries again at the latest, but no more than a tenth of what is left. Without that a slow quota could not be used up,
because jobs that were told to come again come all at once."""

FIRST_CLOSED: Final = 1.0
LONGEST_CLOSED: Final = 60.0
"""Seconds closed after a refusal that does not say until when."""

MEASURE: Final = 1.0
"""Seconds over which the accepted rate is measured, at least."""

SOON: Final = 3.0
"""Seconds after a refusal within which another one is of the same burst, or of what went before it."""

SLOWER: Final = 0.7
SLOWEST_STEP: Final = 0.35
"""A refusal takes at most so much off the pace: three tenths, or, when it is the third in a row, two thirds."""

BELOW: Final = 0.97
"""A learned pace starts at so much of what was accepted."""

FIRST_HOLD: Final = 4.0
LONGEST_HOLD: Final = 30.0
"""Seconds before a learned pace is raised again: doubled each time that this ends in a refusal."""

GROWTH: Final = 0.02
MOST_GROWTH: Final = 0.2
"""By which share a learned pace is raised a second; doubled for each second, once it is above what it was."""

SLOWEST: Final = 1 / 60
BURST_SECONDS: Final = 0.02
ANSWERED: Final = frozenset({Cause.OK, Cause.BODY_ERROR, Cause.REFUSED, Cause.UNCLEAR})


class LearnedPace:
    """The rate at which requests are accepted where a refusal does not say what the quota is."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self._count = self._last = self._in_a_row = 0
        self._refused_at = -math.inf
        self._span = 0.0
        self._start = -math.inf
        self._hold = FIRST_HOLD / 2
        self._hold_until = self._grown_at = self._ceiling = 0.0
        self._growth = GROWTH

    def accepted(self, now: float) -> None:
        """A request was accepted."""
        if now - self._start >= MEASURE:
            self._turn(now)
        self._count += 1

    def refused(self, now: float) -> None:
        """A request was refused, the first one after a while."""
        measured = (self._last + self._count) / max(MEASURE, self._span + min(now - self._start, MEASURE))
        soon = now - self._refused_at <= SOON
        self._in_a_row = self._in_a_row + 1 if soon else 1
        if self.rate is None:
            rate = measured
        elif self._in_a_row == 1:
            rate = min(max(measured, self.rate * SLOWER), self.rate)
        elif self._in_a_row == 2:
            # What was sent before the first refusal may still count against us.
            rate = self.rate
        else:
            rate = min(self.rate * SLOWER, max(measured, self.rate * SLOWEST_STEP))
        self._refused_at = now
        self.rate = max(SLOWEST, rate * BELOW if self._in_a_row == 1 else rate)
        self._ceiling = self.rate / BELOW
        self._hold = min(self._hold * 2, LONGEST_HOLD)
        self._hold_until = now + self._hold
        self._growth = GROWTH
        self._last, self._count, self._span, self._start = 0, 0, 0.0, -math.inf

    def wanted(self, now: float) -> None:
        """A request waits for the pace: only then it is raised, little by little."""
        if self.rate is None or now < self._hold_until:
            self._grown_at = now
            return
        passed = min(now - self._grown_at, MEASURE)
        self._grown_at = now
        if self.rate > self._ceiling / BELOW:
            self._hold = FIRST_HOLD / 2
            self._growth = min(MOST_GROWTH, self._growth * 2**passed)
        self.rate *= 1 + self._growth * passed

    def _turn(self, now: float) -> None:
        """Begin to count anew; what is older than one span before that is forgotten, and a pause is not measured."""
        span = now - self._start
        self._last, self._span = (self._count, span) if span <= 2 * MEASURE else (0, 0.0)
        self._count = 0
        self._start = now


class Quota:
    """Closed until a reset, paced, or without any limit as long as impact.com names none.

    After a reset one request goes first and tells how much there is.
    """

    def __init__(self, chance: Random, tell: Callable[[LimitChange], None]) -> None:
        self._chance = chance
        self._tell = tell
        self.learned = LearnedPace()
        self.left: int | None = None
        self.reset_at: float | None = None
        self.closed_until = -math.inf
        self._aim_at = 0.0
        self._told = self._told_number = 0
        self._tokens = LEAST_BURST
        self._tokens_at = 0.0
        self._refusals = 0
        self._episode = 0
        self._exhausted = False

    def wait(self, now: float, in_flight: int) -> Wait | None:
        """Why and until when nothing may be sent; None when something may."""
        if now < self.closed_until:
            return Wait(Gate.QUOTA, max(self.closed_until, now + SOONEST))
        if self.left is not None:
            if self.reset_at is not None and now >= self.reset_at:
                self._reset()
            if self.left <= 0:
                return self._wait_for_reset(now, in_flight)
        rate = self.pace(now)
        if rate is None:
            self._tokens = LEAST_BURST
            return None
        self._save_tokens(now, rate)
        if self._tokens >= 1.0:
            return None
        self.learned.wanted(now)
        return Wait(Gate.PACE, now + min(LONGEST_PACED, max(SOONEST, (1.0 - self._tokens) / rate)))

    def pace(self, now: float) -> float | None:
        """Requests a second, of what is left or as learned; None without either."""
        rate = self.learned.rate
        if self.left is None or self.reset_at is None:
            return rate
        spread = max(self.left, 1) / max(self._aim_at - now, BURST_SECONDS)
        return spread if rate is None else min(rate, spread)

    def sent(self) -> None:
        """One request goes out."""
        if self.left is not None:
            self.left -= 1
        self._tokens = max(0.0, self._tokens - 1.0)

    def withdrawn(self) -> None:
        """It did not go out after all."""
        if self.left is not None:
            self.left += 1
        self._tokens += 1.0

    def done(
        self, permit: Permit, cause: Cause, limits: RateLimits, now: float, issued: int, in_flight: Iterable[int]
    ) -> None:
        """One request came back. ``in_flight`` are the numbers of the others, in order, ``issued`` the latest."""
        if limits.remaining is not None:
            self._told_by(permit, limits.remaining, limits.reset, now, issued, in_flight)
        elif cause in ANSWERED and self.left is not None and self.reset_at is None:
            self.left = None
        if cause is Cause.QUOTA:
            self._refused(permit, limits, now, issued)
        elif cause in ANSWERED:
            self.learned.accepted(now)
            if self._exhausted and now >= self.closed_until:
                self._exhausted = False
                self._tell(LimitChange("quota_reset", "requests are accepted again"))

    def _told_by(
        self, permit: Permit, remaining: int, reset: float | None, now: float, issued: int, in_flight: Iterable[int]
    ) -> None:
        """Take over what an answer says, less all that was sent after it or is still under way.

        An answer older than the one already taken over never raises that; it only tells on which side of it impact.com
        counted its request, which until then was deducted to be safe.
        """
        if permit.number < self._told_number:
            if remaining > self._told and self.left is not None and (self.reset_at is None or now < self.reset_at):
                self.left += 1
            return
        self._told, self._told_number = remaining, permit.number
        self.left = remaining - (issued - permit.number) - _older(in_flight, permit.number)
        self._see_reset(reset, now)
        if self.left <= 0 and remaining <= 0 and self.reset_at is not None:
            self._close(self.reset_at, now, "used up")

    def _see_reset(self, reset: float | None, now: float) -> None:
        """A reset that is absent or over tells nothing; then requests go one at a time once nothing is left."""
        if not reset:
            self.reset_at = None
            return
        until = now + reset
        if self.reset_at is not None and now < self.reset_at and abs(until - self.reset_at) <= SAME_RESET:
            self._aim_at += max(0.0, until - self.reset_at)
            self.reset_at = max(self.reset_at, until)
            return
        self.reset_at = until
        self._aim_at = until - min(AIM, reset / 20)

    def _reset(self) -> None:
        """A new window began: one request finds out."""
        self.left = 1
        self.reset_at = None

    def _wait_for_reset(self, now: float, in_flight: int) -> Wait | None:
        if self.reset_at is not None:
            return Wait(Gate.QUOTA, max(self.reset_at, now + SOONEST))
        if in_flight:
            return Wait(Gate.QUOTA, math.inf)
        self.left = 1
        return None

    def _refused(self, permit: Permit, limits: RateLimits, now: float, issued: int) -> None:
        if limits.reset and not limits.remaining:
            self.reset_at, self.left = now + limits.reset, 0
            self._close(self.reset_at, now, "refused")
            return
        if permit.number <= self._episode:
            return
        self._episode = issued
        if now - self.closed_until > max(FIRST_HOLD, self._last_pause()):
            self._refusals = 0
        self._refusals += 1
        pause = backoff(self._refusals, first=FIRST_CLOSED, longest=LONGEST_CLOSED, chance=self._chance.random())
        self.learned.refused(now)
        self._close(now + max(pause, limits.retry_after or 0.0), now, "refused without a reset")

    def _last_pause(self) -> float:
        return min(LONGEST_CLOSED, FIRST_CLOSED * 2.0 ** min(self._refusals - 1, 10))

    def _close(self, until: float, now: float, why: str) -> None:
        """Close, a little longer than said, so that replicas do not come back together."""
        until += self._chance.random() * min(1.0, (until - now) / 20)
        self.closed_until = max(self.closed_until, until)
        if not self._exhausted:
            self._exhausted = True
            self._tell(LimitChange("quota_exhausted", f"{why}; closed for {until - now:.1f} s"))

    def _save_tokens(self, now: float, rate: float) -> None:
        burst = max(LEAST_BURST, min((self.left or 0) * BURST_SHARE, rate * SAVED_SECONDS))
        if self.learned.rate is not None:
            burst = max(1.0, min(burst, self.learned.rate * BURST_SECONDS))
        self._tokens = min(burst, self._tokens + max(0.0, now - self._tokens_at) * rate)
        self._tokens_at = now


def _older(numbers: Iterable[int], number: int) -> int:
    """How many of ascending numbers are below one."""
    count = 0
    for one in numbers:
        if one >= number:
            break
        count += 1
    return count
