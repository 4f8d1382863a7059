"""How many requests of one account may be under way: as many as impact.com proves to take.

Pure; times are monotonic seconds. A *round* is as many answers as the limit allows requests, and only of requests sent
after the last decision: what was sent before knows nothing of it.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Final

from impact_plugin.delivery.limits.gates import LimitChange, Permit

FIRST_LIMIT: Final = 4
SLOWER: Final = 1.1
"""The limit is doubled only while answers take less than so many times as long as they first did."""

CUT: Final = 0.7
FIRST_HOLD: Final = 1.0
LONGEST_HOLD: Final = 8.0
"""Seconds at a limit that is known, before one more is tried; doubled each time that one more is refused."""

OVERDUE_ROUNDS: Final = 4
"""The limit does not grow while a request has been under way for so many rounds, or for one whole round when it is to
be doubled: it may be one of those that were too many, and time out long after the harm is done."""

LATER: Final = 1.3
DEVIATIONS: Final = 2.5
"""Answers that take so many times as long as they did, and so many standard errors of the mean longer, may be late
because of us."""

LATE_ROUNDS: Final = 2
"""One round in a row with late answers is chance often enough."""

LEAST_RESULTS: Final = 8
SETTLING_ROUNDS: Final = 2
"""Fewer answers tell nothing about time, nor do the rounds after the limit was lowered, whose first answers are the
quickest ones."""

TRIAL: Final = 0.75
FELL: Final = 0.94
"""Then so much of the limit is tried for a round; where answers do not get that much quicker, it was not us."""

COLLAPSE_SECONDS: Final = 10.0
COLLAPSE: Final = 4


class Concurrency:
    """The limit, between 1 and ``most``.

    It grows only while it is used up. A 503 tells how many were too many, and that is the ceiling until one more is
    taken; a time-out tells only that it was too much.
    """

    def __init__(self, most: int, tell: Callable[[LimitChange], None]) -> None:
        self._most = most
        self._tell = tell
        self.limit = min(FIRST_LIMIT, most)
        self.rtt: float | None = None
        self._base = math.inf
        self._starting = True
        self._ceiling = most
        self._hold = FIRST_HOLD
        self._hold_until = 0.0
        self._step = 1
        self._probing = False
        self._proved = 0
        self._clean = True
        self._decided = self._cut_at = 0
        self._marks: deque[int] = deque([0] * OVERDUE_ROUNDS, OVERDUE_ROUNDS)
        self._results = 0
        self._seconds = self._squares = 0.0
        self._saturated = False
        self._trial: tuple[int, float] | None = None
        self._late: list[float] = []
        self._unsettled = 0
        self._high, self._high_at = self.limit, 0.0

    def restart(self, issued: int) -> None:
        """Learn anew, after an outage."""
        self.limit = min(FIRST_LIMIT, self._most)
        self._starting = self._clean = True
        self._ceiling = self._most
        self._hold = FIRST_HOLD
        self._step = 1
        self._probing = False
        self._proved = 0
        self._trial = None
        self._begin_round(issued)

    def answered(self, permit: Permit, now: float, issued: int, oldest: int) -> None:
        """A request was answered; ``issued`` is the number of the latest permit, ``oldest`` of those under way."""
        if permit.number <= self._decided:
            return
        self._results += 1
        seconds = now - permit.sent_at
        self._seconds += seconds
        self._squares += seconds * seconds
        if permit.rank >= self.limit:
            self._saturated = True
        if self._results >= self.limit:
            self._finish_round(now, issued, oldest)

    def refused(self, permit: Permit, now: float, issued: int) -> None:
        """A 503. One burst of them is one cut: those sent before it are not counted again."""
        if permit.number <= self._decided:
            return
        known = self.limit
        if not self._clean:
            # The limit before it grew was good; only when that is refused too, impact.com takes less than it did.
            known = max(int(known * CUT), min(self._proved, known - 1))
            self._proved = 0
        self._cut(min(permit.rank - 1, known), now, issued)

    def lost(self, permit: Permit, now: float, issued: int) -> None:
        """A time-out, or a connection that broke: known so late that other decisions were made since it was sent."""
        if permit.number > self._cut_at:
            self._cut(int(self.limit * CUT), now, issued)

    def _cut(self, limit: int, now: float, issued: int) -> None:
        self._watch_collapse(max(1, limit), now)
        self.limit = self._ceiling = max(1, limit)
        self._hold = min(LONGEST_HOLD, self._hold * 2) if self._probing else FIRST_HOLD
        self._hold_until = now + self._hold
        self._starting = self._probing = self._clean = False
        self._trial = None
        self._unsettled = SETTLING_ROUNDS
        self._step = 1
        self._cut_at = issued
        self._begin_round(issued)

    def _finish_round(self, now: float, issued: int, oldest: int) -> None:
        mean = self._seconds / self._results
        self.rtt = mean
        self._clean = True
        self._unsettled -= 1
        told = self._unsettled < 0 and self._results >= LEAST_RESULTS
        doubt = self._doubt(mean)
        if told or self._base == math.inf:
            # A few quick answers by chance must not make all later ones look slow.
            self._base = min(self._base, mean + doubt)
        if self._trial is not None:
            if told:
                self._judge_trial(self._trial, mean, now)
        elif self._is_late(mean, doubt, told=told):
            if len(self._late) == LATE_ROUNDS:
                self._try_less(min(self._late))
        elif self._saturated and oldest > (self._decided if self._starting else self._marks[0]):
            self._grow(mean, now)
        self._marks.append(self._decided)
        self._begin_round(issued)

    def _doubt(self, mean: float) -> float:
        """How far the mean of the round may be off by chance, in seconds."""
        variance = max(0.0, self._squares / self._results - mean * mean)
        return DEVIATIONS * math.sqrt(variance / self._results)

    def _is_late(self, mean: float, doubt: float, *, told: bool) -> bool:
        """Whether answers are late, with all that may be under way; notes for how many rounds, one after the other."""
        if not (told and self._saturated and mean > LATER * self._base + doubt):
            self._late.clear()
            return False
        self._late.append(mean)
        return True

    def _try_less(self, mean: float) -> None:
        """See whether fewer at once are answered sooner."""
        self._late.clear()
        self._trial = (self.limit, mean)
        self._unsettled = SETTLING_ROUNDS
        self._starting = False
        self.limit = max(LEAST_RESULTS, int(self.limit * TRIAL))

    def _judge_trial(self, trial: tuple[int, float], mean: float, now: float) -> None:
        """Keep what was tried where it helped; else impact.com has become slower, and that is how it is now."""
        limit, before = trial
        self._trial = None
        self._unsettled = SETTLING_ROUNDS
        if mean > FELL * before:
            self.limit = limit
            self._base = mean
            return
        self._ceiling = self.limit
        self._hold = min(LONGEST_HOLD, self._hold * 2)
        self._hold_until = now + self._hold
        self._step = 1
        self._probing = False

    def _grow(self, mean: float, now: float) -> None:
        if self.limit >= self._most:
            return
        proved = self.limit
        if self._starting and mean < SLOWER * self._base:
            self.limit = min(self._most, self.limit * 2)
            self._proved = proved
            return
        self._starting = False
        if self.limit < self._ceiling:
            self._probing = self._hold > FIRST_HOLD
        elif now >= self._hold_until:
            self._probing = True
            self._ceiling = self._most
        else:
            return
        self.limit = min(self._most, self.limit + self._step)
        self._proved = proved
        self._step *= 2

    def _begin_round(self, issued: int) -> None:
        self._decided = issued
        self._results = 0
        self._seconds = self._squares = 0.0
        self._saturated = False

    def _watch_collapse(self, limit: int, now: float) -> None:
        """Tell when the limit falls to a quarter within ten seconds."""
        if now - self._high_at > COLLAPSE_SECONDS or self.limit > self._high:
            self._high, self._high_at = self.limit, now
        if limit * COLLAPSE <= self._high:
            self._tell(LimitChange("limit_collapsed", f"from {self._high} to {limit} requests at once"))
            self._high, self._high_at = limit, now
