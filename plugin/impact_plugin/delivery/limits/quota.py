"""The account's request quota: what is left of it by the headers, spread over time, or a rate learned from refusals.

Pure; times are monotonic seconds. A reset is converted to one as soon as it is read, so that a jump of the wall clock
does not move it. Permits are numbered, and ``latest`` is the number of the latest one.
"""

import math
from collections.abc import Callable, Iterable
from itertools import takewhile
from random import Random
from typing import Final

from impact_plugin.delivery.limits.permits import Gate, LimitChange, Permit, Wait
from impact_plugin.delivery.limits.rate_limits import RateLimits, backoff
from impact_plugin.delivery.policy import PROCESSED, Cause

MIN_WAIT_SECONDS: Final = 0.001
"""Lower bound of a wait, so that a rounding error never causes a busy loop."""

MAX_PACED_WAIT_SECONDS: Final = 1.0
"""Upper bound of a wait for the pace, which may be raised in the meantime."""

SAME_RESET_SECONDS: Final = 2.0
"""Resets in whole seconds vary by about a second. Those that differ by less than this are one, and the latest holds."""

MAX_RESET_MARGIN_SECONDS: Final = 1.0
RESET_MARGIN_RATIO: Final = 0.05
"""The last request of a window is planned this share of the window before its end, but no more than a second."""

MIN_BURST: Final = 2.0
BURST_SHARE: Final = 0.1
MAX_SAVED_SECONDS: Final = 300.0
"""Requests that may be sent in a burst after a pause: what the pace allowed in five minutes, which is the longest time
until a router retries, but no more than a tenth of the quota that is left. Otherwise a slow quota could not be used up,
because retries arrive in bursts."""

MIN_PACED_SECONDS: Final = 0.02
"""The rest of a quota is spread over at least this time, and a learned pace allows bursts of no more than this time."""

FIRST_CLOSED_SECONDS: Final = 1.0
MAX_CLOSED_SECONDS: Final = 60.0
"""Back-off after a refusal that does not say when the quota is reset."""

MEASURED_SECONDS: Final = 1.0
"""Shortest time over which the accepted rate is measured."""

SAME_BURST_SECONDS: Final = 3.0
"""A refusal this soon after another one belongs to the same burst, or is due to what was sent before that."""

CUT_RATIO: Final = 0.7
MIN_CUT_RATIO: Final = 0.35
"""A refusal leaves at least this share of the learned pace; the third in a row may leave less, down to the minimum."""

SAFETY_RATIO: Final = 0.97
"""A learned pace starts at this share of the rate that was accepted."""

FIRST_HOLD_SECONDS: Final = 4.0
MAX_HOLD_SECONDS: Final = 30.0
"""How long a learned pace stays before it is raised; doubled each time that this ends in a refusal."""

GROWTH_PER_SECOND: Final = 0.02
MAX_GROWTH_PER_SECOND: Final = 0.2
"""Share by which a learned pace is raised; doubles every second once the pace exceeds its earlier ceiling."""

MIN_REQUESTS_PER_SECOND: Final = 1 / 60


class LearnedPace:
    """The rate at which impact.com accepts requests when its refusals do not say what the quota is."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self._count = self._count_before = self._refusals_in_a_row = 0
        self._refused_at = -math.inf
        self._seconds_before = 0.0
        self._counting_since = -math.inf
        self._hold_seconds = FIRST_HOLD_SECONDS / 2
        self._hold_until = self._raised_at = self._ceiling = 0.0
        self._growth = GROWTH_PER_SECOND

    def record_accepted(self, now: float) -> None:
        """Record an accepted request."""
        if now - self._counting_since >= MEASURED_SECONDS:
            self._begin_count(now)
        self._count += 1

    def record_refused(self, now: float) -> None:
        """Record a refusal, the first of a burst: lower the rate."""
        measured = self._measured_rate(now)
        same_burst = now - self._refused_at <= SAME_BURST_SECONDS
        self._refusals_in_a_row = self._refusals_in_a_row + 1 if same_burst else 1
        self._refused_at = now
        rate = self._lowered(self.rate, measured)
        self.rate = max(MIN_REQUESTS_PER_SECOND, rate * SAFETY_RATIO if self._refusals_in_a_row == 1 else rate)
        self._ceiling = self.rate / SAFETY_RATIO
        self._hold_seconds = min(self._hold_seconds * 2, MAX_HOLD_SECONDS)
        self._hold_until = now + self._hold_seconds
        self._growth = GROWTH_PER_SECOND
        self._count_before, self._count, self._seconds_before, self._counting_since = 0, 0, 0.0, -math.inf

    def record_wait(self, now: float) -> None:
        """Record that a request waits for the pace: only then is it raised, little by little."""
        if self.rate is None or now < self._hold_until:
            self._raised_at = now
            return
        seconds = min(now - self._raised_at, MEASURED_SECONDS)
        self._raised_at = now
        if self.rate > self._ceiling / SAFETY_RATIO:
            self._hold_seconds = FIRST_HOLD_SECONDS / 2
            self._growth = min(MAX_GROWTH_PER_SECOND, self._growth * 2**seconds)
        self.rate *= 1 + self._growth * seconds

    def _measured_rate(self, now: float) -> float:
        seconds = self._seconds_before + min(now - self._counting_since, MEASURED_SECONDS)
        return (self._count_before + self._count) / max(MEASURED_SECONDS, seconds)

    def _lowered(self, rate: float | None, measured: float) -> float:
        if rate is None:
            return measured
        if self._refusals_in_a_row == 1:
            return min(max(measured, rate * CUT_RATIO), rate)
        if self._refusals_in_a_row == 2:
            # What was sent before the first refusal may still count towards the quota.
            return rate
        return min(rate * CUT_RATIO, max(measured, rate * MIN_CUT_RATIO))

    def _begin_count(self, now: float) -> None:
        """Start a new count and keep the last one, unless a pause makes it too old to measure a rate."""
        seconds = now - self._counting_since
        recent = seconds <= 2 * MEASURED_SECONDS
        self._count_before, self._seconds_before = (self._count, seconds) if recent else (0, 0.0)
        self._count = 0
        self._counting_since = now


class Quota:
    """Closed until a reset, paced, or unlimited as long as impact.com reports no quota.

    After a reset a single request goes first; its response says what the new quota is.
    """

    def __init__(self, jitter: Random, notify: Callable[[LimitChange], None]) -> None:
        self._jitter = jitter
        self._notify = notify
        self.learned = LearnedPace()
        self.left: int | None = None
        self.reset_at: float | None = None
        self.closed_until = -math.inf
        self._spread_until = 0.0
        self._reported_left = self._reported_by = 0
        self._tokens = MIN_BURST
        self._tokens_at = 0.0
        self._refusals = 0
        self._refused_up_to = 0
        self._exhausted = False

    def check(self, now: float, in_flight: int) -> Wait | None:
        """Which gate is closed and until when; None if a request may be sent."""
        if now < self.closed_until:
            return Wait(Gate.QUOTA, max(self.closed_until, now + MIN_WAIT_SECONDS))
        if self.left is not None:
            if self.reset_at is not None and now >= self.reset_at:
                self._begin_window()
            if self.left <= 0:
                return self._wait_for_reset(now, in_flight)
        rate = self.pace(now)
        if rate is None:
            self._tokens = MIN_BURST
            return None
        self._add_tokens(now, rate)
        if self._tokens >= 1.0:
            return None
        self.learned.record_wait(now)
        seconds = min(MAX_PACED_WAIT_SECONDS, max(MIN_WAIT_SECONDS, (1.0 - self._tokens) / rate))
        return Wait(Gate.PACE, now + seconds)

    def pace(self, now: float) -> float | None:
        """Requests per second: the rest of the quota, spread over time, or the learned rate; None without either."""
        rate = self.learned.rate
        if self.left is None or self.reset_at is None:
            return rate
        spread = max(self.left, 1) / max(self._spread_until - now, MIN_PACED_SECONDS)
        return spread if rate is None else min(rate, spread)

    def record_sent(self) -> None:
        """Record that a request was sent."""
        if self.left is not None:
            self.left -= 1
        self._tokens = max(0.0, self._tokens - 1.0)

    def undo_sent(self) -> None:
        """Take back one :meth:`record_sent`: the request was not sent after all."""
        if self.left is not None:
            self.left += 1
        self._tokens += 1.0

    def record_result(
        self, permit: Permit, cause: Cause, limits: RateLimits, now: float, latest: int, in_flight: Iterable[int]
    ) -> None:
        """Record the result of a request; ``in_flight`` are the numbers of the other permits, in ascending order."""
        if limits.remaining is not None:
            self._apply_headers(permit, limits.remaining, limits.reset, now, latest, in_flight)
        elif cause in PROCESSED and self.left is not None and self.reset_at is None:
            self.left = None
        if cause is Cause.QUOTA:
            self._record_refusal(permit, limits, now, latest)
        elif cause in PROCESSED:
            self.learned.record_accepted(now)
            if self._exhausted and now >= self.closed_until:
                self._exhausted = False
                self._notify(LimitChange("quota_reset", "requests are accepted again"))

    def _apply_headers(
        self, permit: Permit, remaining: int, reset: float | None, now: float, latest: int, in_flight: Iterable[int]
    ) -> None:
        """Apply what a response says is left, less the requests sent after it or still in flight.

        Responses may arrive out of order. That to an earlier request than the last one applied never raises what is
        left, except by the request itself, which was deducted twice if impact.com had counted it before the later one.
        """
        if permit.number < self._reported_by:
            in_window = self.reset_at is None or now < self.reset_at
            if remaining > self._reported_left and self.left is not None and in_window:
                self.left += 1
            return
        self._reported_left, self._reported_by = remaining, permit.number
        older = sum(1 for _ in takewhile(lambda number: number < permit.number, in_flight))
        self.left = remaining - (latest - permit.number) - older
        self._apply_reset(reset, now)
        if self.left <= 0 and remaining <= 0 and self.reset_at is not None:
            self._close(self.reset_at, now, "used up")

    def _apply_reset(self, reset: float | None, now: float) -> None:
        """Apply a reset; without one, or with one in the past, requests go one at a time once nothing is left."""
        if not reset:
            self.reset_at = None
            return
        until = now + reset
        if self.reset_at is not None and now < self.reset_at and abs(until - self.reset_at) <= SAME_RESET_SECONDS:
            self._spread_until += max(0.0, until - self.reset_at)
            self.reset_at = max(self.reset_at, until)
            return
        self.reset_at = until
        self._spread_until = until - min(MAX_RESET_MARGIN_SECONDS, reset * RESET_MARGIN_RATIO)

    def _begin_window(self) -> None:
        """Let a single request go, whose response says what is left."""
        self.left = 1
        self.reset_at = None

    def _wait_for_reset(self, now: float, in_flight: int) -> Wait | None:
        if self.reset_at is not None:
            return Wait(Gate.QUOTA, max(self.reset_at, now + MIN_WAIT_SECONDS))
        if in_flight:
            return Wait(Gate.QUOTA, math.inf)
        self._begin_window()
        return None

    def _record_refusal(self, permit: Permit, limits: RateLimits, now: float, latest: int) -> None:
        if limits.reset and not limits.remaining:
            self.reset_at, self.left = now + limits.reset, 0
            self._close(self.reset_at, now, "refused")
            return
        if permit.number <= self._refused_up_to:
            return
        self._refused_up_to = latest
        if now - self.closed_until > max(FIRST_HOLD_SECONDS, self._last_backoff_seconds()):
            self._refusals = 0
        self._refusals += 1
        seconds = backoff(
            self._refusals, initial=FIRST_CLOSED_SECONDS, maximum=MAX_CLOSED_SECONDS, jitter=self._jitter.random()
        )
        self.learned.record_refused(now)
        self._close(now + max(seconds, limits.retry_after or 0.0), now, "refused without a reset")

    def _last_backoff_seconds(self) -> float:
        return min(MAX_CLOSED_SECONDS, FIRST_CLOSED_SECONDS * 2.0 ** min(self._refusals - 1, 10))

    def _close(self, until: float, now: float, reason: str) -> None:
        """Close for a little longer than necessary, so that replicas do not resume at the same moment."""
        until += self._jitter.random() * min(1.0, (until - now) / 20)
        self.closed_until = max(self.closed_until, until)
        if not self._exhausted:
            self._exhausted = True
            self._notify(LimitChange("quota_exhausted", f"{reason}; closed for {until - now:.1f} s"))

    def _add_tokens(self, now: float, rate: float) -> None:
        burst = max(MIN_BURST, min((self.left or 0) * BURST_SHARE, rate * MAX_SAVED_SECONDS))
        if self.learned.rate is not None:
            burst = max(1.0, min(burst, self.learned.rate * MIN_PACED_SECONDS))
        self._tokens = min(burst, self._tokens + max(0.0, now - self._tokens_at) * rate)
        self._tokens_at = now
