"""Concurrency limit: how many requests of one account may be in flight, learned from what impact.com accepts.

Pure; times are monotonic seconds. Permits are numbered, and ``latest`` is the number of the latest one. A *round* ends
with as many responses as the limit allows requests; only requests sent after the last decision count, because earlier
ones say nothing about it.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Final

from impact_plugin.delivery.limits.permits import LimitChange, Permit

INITIAL_LIMIT: Final = 4
SLOW_START_RTT_RATIO: Final = 1.1
"""The limit doubles only while responses take less than this multiple of the time that they took at first."""

CUT_RATIO: Final = 0.7
"""What remains of the limit after a timeout, or after a second refusal in a row."""

MIN_HOLD_SECONDS: Final = 1.0
MAX_HOLD_SECONDS: Final = 8.0
"""How long the limit stays at a known ceiling before a higher one is tried; doubled each time that this is refused."""

OVERDUE_ROUNDS: Final = 4
"""The limit does not grow while a request is in flight for this many rounds, or, before it doubles, for one round: the
request may be one of too many, and time out long after the harm is done."""

LATE_RTT_RATIO: Final = 1.3
LATE_STANDARD_ERRORS: Final = 2.5
"""Responses are late when their mean exceeds the base time by this ratio and by this many standard errors."""

LATE_ROUNDS: Final = 2
"""Late rounds in a row that count; a single one is often chance."""

MIN_RESULTS: Final = 8
SETTLING_ROUNDS: Final = 2
"""Times of a round count only with this many responses, and only this many rounds after the limit was lowered: the
first responses after that are the fastest ones."""

TRIAL_LIMIT_RATIO: Final = 0.75
TRIAL_RTT_RATIO: Final = 0.94
"""When responses are late, this share of the limit is tried for a round. If it does not bring the mean time below this
share of what it was, our requests were not the reason."""

COLLAPSE_SECONDS: Final = 10.0
COLLAPSE_RATIO: Final = 4


class Concurrency:
    """The limit, between 1 and ``max_limit``.

    It grows only while it is used up. A 503 shows how many requests were too many, and that becomes the ceiling until
    a higher limit works again; a timeout shows only that there were too many.
    """

    def __init__(self, max_limit: int, notify: Callable[[LimitChange], None]) -> None:
        self._max_limit = max_limit
        self._notify = notify
        self.limit = min(INITIAL_LIMIT, max_limit)
        self.rtt: float | None = None
        self._base_rtt = math.inf
        self._slow_start = True
        self._ceiling = max_limit
        self._hold_seconds = MIN_HOLD_SECONDS
        self._hold_until = 0.0
        self._increment = 1
        self._above_ceiling = False
        self._proved_limit = 0
        self._clean = True
        self._decided_at = self._cut_at = 0
        self._round_starts: deque[int] = deque([0] * OVERDUE_ROUNDS, OVERDUE_ROUNDS)
        self._results = 0
        self._seconds = self._squares = 0.0
        self._saturated = False
        self._trial: tuple[int, float] | None = None
        self._late_means: list[float] = []
        self._unsettled_rounds = 0
        self._peak, self._peak_at = self.limit, 0.0

    def restart(self, latest: int) -> None:
        """Forget what was learned, after an outage."""
        self.limit = min(INITIAL_LIMIT, self._max_limit)
        self._slow_start = self._clean = True
        self._ceiling = self._max_limit
        self._hold_seconds = MIN_HOLD_SECONDS
        self._increment = 1
        self._above_ceiling = False
        self._proved_limit = 0
        self._trial = None
        self._begin_round(latest)

    def record_response(self, permit: Permit, now: float, latest: int, oldest: int) -> None:
        """Record an accepted request; ``oldest`` is the lowest number of the permits in flight."""
        if permit.number <= self._decided_at:
            return
        self._results += 1
        seconds = now - permit.sent_at
        self._seconds += seconds
        self._squares += seconds * seconds
        if permit.rank >= self.limit:
            self._saturated = True
        if self._results >= self.limit:
            self._end_round(now, latest, oldest)

    def record_refusal(self, permit: Permit, now: float, latest: int) -> None:
        """Record a 503. A burst of them lowers the limit once: requests sent before that do not count."""
        if permit.number <= self._decided_at:
            return
        known = self.limit
        if not self._clean:
            # The limit before the last growth worked. Only if that is refused too, impact.com takes less than before.
            known = max(int(known * CUT_RATIO), min(self._proved_limit, known - 1))
            self._proved_limit = 0
        self._cut(min(permit.rank - 1, known), now, latest)

    def record_timeout(self, permit: Permit, now: float, latest: int) -> None:
        """Record a timeout or a broken connection, known so late that the limit may have grown since it was sent."""
        if permit.number > self._cut_at:
            self._cut(int(self.limit * CUT_RATIO), now, latest)

    def _cut(self, limit: int, now: float, latest: int) -> None:
        limit = max(1, limit)
        self._notify_collapse(limit, now)
        self._hold_at(limit, now, self._hold_seconds * 2 if self._above_ceiling else MIN_HOLD_SECONDS)
        self.limit = limit
        self._slow_start = self._clean = False
        self._trial = None
        self._unsettled_rounds = SETTLING_ROUNDS
        self._cut_at = latest
        self._begin_round(latest)

    def _hold_at(self, ceiling: int, now: float, seconds: float) -> None:
        """Stay at this ceiling for a while before a higher limit is tried."""
        self._ceiling = ceiling
        self._hold_seconds = min(MAX_HOLD_SECONDS, seconds)
        self._hold_until = now + self._hold_seconds
        self._increment = 1
        self._above_ceiling = False

    def _end_round(self, now: float, latest: int, oldest: int) -> None:
        mean = self._seconds / self._results
        self.rtt = mean
        self._clean = True
        self._unsettled_rounds -= 1
        conclusive = self._unsettled_rounds < 0 and self._results >= MIN_RESULTS
        margin = self._margin(mean)
        if conclusive or self._base_rtt == math.inf:
            # A few responses that happen to be fast must not make all later ones look slow.
            self._base_rtt = min(self._base_rtt, mean + margin)
        if self._trial is not None:
            if conclusive:
                self._end_trial(self._trial, mean, now)
        elif conclusive and self._saturated and mean > LATE_RTT_RATIO * self._base_rtt + margin:
            self._late_means.append(mean)
            if len(self._late_means) == LATE_ROUNDS:
                self._begin_trial(min(self._late_means))
        else:
            self._late_means.clear()
            if self._saturated and oldest > (self._decided_at if self._slow_start else self._round_starts[0]):
                self._grow(mean, now)
        self._round_starts.append(self._decided_at)
        self._begin_round(latest)

    def _margin(self, mean: float) -> float:
        """How far the mean of the round may be off by chance, in seconds."""
        variance = max(0.0, self._squares / self._results - mean * mean)
        return LATE_STANDARD_ERRORS * math.sqrt(variance / self._results)

    def _begin_trial(self, mean: float) -> None:
        """Try whether fewer requests in flight are answered sooner."""
        self._late_means.clear()
        self._trial = (self.limit, mean)
        self._unsettled_rounds = SETTLING_ROUNDS
        self._slow_start = False
        self.limit = max(MIN_RESULTS, int(self.limit * TRIAL_LIMIT_RATIO))

    def _end_trial(self, trial: tuple[int, float], mean: float, now: float) -> None:
        """Keep the lower limit if it helped; otherwise impact.com itself became slower, which is the new base time."""
        limit, mean_before = trial
        self._trial = None
        self._unsettled_rounds = SETTLING_ROUNDS
        if mean > TRIAL_RTT_RATIO * mean_before:
            self.limit = limit
            self._base_rtt = mean
            return
        self._hold_at(self.limit, now, self._hold_seconds * 2)

    def _grow(self, mean: float, now: float) -> None:
        if self.limit >= self._max_limit:
            return
        if self._slow_start and mean < SLOW_START_RTT_RATIO * self._base_rtt:
            self._raise_to(self.limit * 2)
            return
        self._slow_start = False
        if self.limit < self._ceiling:
            self._above_ceiling = self._hold_seconds > MIN_HOLD_SECONDS
        elif now >= self._hold_until:
            self._above_ceiling = True
            self._ceiling = self._max_limit
        else:
            return
        self._raise_to(self.limit + self._increment)
        self._increment *= 2

    def _raise_to(self, limit: int) -> None:
        self._proved_limit = self.limit
        self.limit = min(self._max_limit, limit)

    def _begin_round(self, latest: int) -> None:
        self._decided_at = latest
        self._results = 0
        self._seconds = self._squares = 0.0
        self._saturated = False

    def _notify_collapse(self, limit: int, now: float) -> None:
        """Notify when the limit falls to a quarter within ten seconds."""
        if now - self._peak_at > COLLAPSE_SECONDS or self.limit > self._peak:
            self._peak, self._peak_at = self.limit, now
        if limit * COLLAPSE_RATIO <= self._peak:
            self._notify(LimitChange("limit_collapsed", f"from {self._peak} to {limit} requests at once"))
            self._peak, self._peak_at = limit, now
