"""When a request to one account's endpoint may be sent: as fast as impact.com takes it and never faster.

Pure and synchronous; ``now`` is monotonic seconds that never go back. Every permit comes back exactly once, by ``done``
or ``withdraw``. A closed gate consumes nothing of the gates before it.
"""

import math
from collections.abc import Callable
from random import Random
from typing import Final, Literal

import msgspec

from impact_plugin.delivery.limits.breaker import Breaker
from impact_plugin.delivery.limits.concurrency import Concurrency
from impact_plugin.delivery.limits.gates import GATES, Gate, LimitChange, LimiterStatistics, Permit, Wait
from impact_plugin.delivery.limits.quota import Quota
from impact_plugin.delivery.limits.rate_limits import RateLimits
from impact_plugin.delivery.limits.retry_budget import RetryBudget
from impact_plugin.delivery.policy import Cause

WORTH_KEEPING: Final = 300.0
"""Seconds after the last request for which a learned limit or pace is kept."""

_UNTIL_BACK: Final = Wait(Gate.CONCURRENCY, math.inf)
_UNTIL_SLOT: Final = Wait(Gate.SLOTS, math.inf)
_TAKEN: Final = frozenset({Cause.OK, Cause.BODY_ERROR, Cause.REFUSED, Cause.UNCLEAR})
_TIMED: Final = frozenset({Cause.OK, Cause.BODY_ERROR})
"""Whose time is measured: a refusal is made without the work that an acceptance takes."""


class Slots:
    """How many requests of all accounts together may be under way."""

    __slots__ = ("limit", "taken")

    def __init__(self, limit: int = 512) -> None:
        self.limit = limit
        self.taken = 0


class LimiterSettings(msgspec.Struct, frozen=True):
    """``max_concurrency``: how many requests of one account and endpoint may be under way at most, at least 1."""

    max_concurrency: int = 64


class Limiter:
    """The gates of one account and endpoint, asked in the order of :class:`Gate`.

    ``chance`` spreads waits, so that replicas do not come back together; ``tell`` hears of changes of state, never of
    single requests.
    """

    def __init__(
        self, slots: Slots, settings: LimiterSettings, chance: Random, tell: Callable[[LimitChange], None]
    ) -> None:
        self._slots = slots
        self._breaker = Breaker(chance, tell)
        self._quota = Quota(chance, tell)
        self._concurrency = Concurrency(settings.max_concurrency, tell)
        self._retries = RetryBudget()
        self._under_way: dict[int, None] = {}
        self._issued = 0
        self._used_at = -math.inf

    def ask(self, now: float, *, retry: bool = False, credentials: int = 0) -> Permit | Wait:
        """Leave to send one request now, or why not and when to ask again.

        ``credentials`` is a hash of those the request carries. ``Wait.until`` is later than ``now``, and the latest
        time to ask again: a request that comes back before may open the gate sooner, of any account where the gate is
        ``slots``.
        """
        breaker = self._breaker
        if credentials != breaker.credentials:
            breaker.see_credentials(credentials, self._issued)
        wait = self._closed_gate(now)
        if wait is not None:
            return wait
        if retry and (seconds := self._retries.wait(now)) > 0.0:
            return Wait(Gate.RETRY_BUDGET, now + max(seconds, 0.001))
        slots = self._slots
        if slots.taken >= slots.limit:
            return _UNTIL_SLOT
        slots.taken += 1
        self._issued = number = self._issued + 1
        self._under_way[number] = None
        self._used_at = now
        self._quota.sent()
        self._retries.sent(retry=retry)
        return Permit(number, len(self._under_way), now, retry, breaker.sent(now))

    def done(self, permit: Permit, cause: Cause, limits: RateLimits, now: float) -> None:
        """One attempt is over: what came of it, and what its answer said about the quota.

        One that came back before is ignored. Causes of what was never sent belong to :meth:`withdraw`.
        """
        under_way = self._under_way
        number = permit.number
        if number not in under_way:
            return
        del under_way[number]
        self._slots.taken -= 1
        issued = self._issued
        if cause in _TAKEN:
            self._retries.delivered(retry=permit.retry)
        self._quota.done(permit, cause, limits, now, issued, under_way)
        concurrency = self._concurrency
        if cause in _TIMED:
            concurrency.answered(permit, now, issued, next(iter(under_way), issued + 1))
        elif cause is Cause.OVERLOAD:
            concurrency.refused(permit, now, issued)
        elif cause is Cause.AMBIGUOUS:
            concurrency.lost(permit, now, issued)
        if self._breaker.done(permit, cause, now, issued):
            concurrency.restart(issued)
        if limits.retry_after and cause is Cause.OVERLOAD:
            self._breaker.stay_away(limits.retry_after, now, issued)

    def withdraw(self, permit: Permit) -> None:
        """The permit was not used, nothing was sent. One that came back before is ignored."""
        if permit.number not in self._under_way:
            return
        del self._under_way[permit.number]
        self._slots.taken -= 1
        self._quota.withdrawn()
        self._retries.withdrawn(retry=permit.retry)
        self._breaker.withdrawn(permit)

    def statistics(self, now: float) -> LimiterStatistics:
        """What it does now, and in words why requests wait."""
        quota = self._quota
        wait = self._closed_gate(now)
        if wait is None and self._slots.taken >= self._slots.limit:
            wait = _UNTIL_SLOT
        state = self._state(wait)
        reset_in = None if quota.reset_at is None else max(0.0, quota.reset_at - now)
        closed_for = wait.until - now if wait is not None and state == "closed" and wait.until < math.inf else None
        return LimiterStatistics(
            state=state,
            limit=self._concurrency.limit,
            in_flight=len(self._under_way),
            quota_left=None if quota.left is None else max(0, quota.left),
            reset_in=reset_in,
            pace=quota.pace(now),
            rtt=self._concurrency.rtt,
            gate=None if wait is None else wait.gate,
            closed_for=closed_for,
            why=_why(wait, now),
        )

    def idle(self, now: float) -> bool:
        """Nothing is under way and nothing was learned that is worth keeping: the account may be forgotten."""
        if self._under_way or now - self._used_at < WORTH_KEEPING or self._breaker.state != "open":
            return False
        quota = self._quota
        return now >= quota.closed_until and (quota.reset_at is None or now >= quota.reset_at)

    def _closed_gate(self, now: float) -> Wait | None:
        """The first gate of the account itself that is closed to new requests."""
        if self._breaker.state != "open" and (wait := self._breaker.wait(now)) is not None:
            return wait
        wait = self._quota.wait(now, len(self._under_way))
        if wait is None and len(self._under_way) >= self._concurrency.limit:
            return _UNTIL_BACK
        return wait

    def _state(self, wait: Wait | None) -> Literal["open", "probing", "closed"]:
        if self._breaker.state != "open":
            return self._breaker.state
        return "closed" if wait is not None and wait.gate is Gate.QUOTA else "open"


def _why(wait: Wait | None, now: float) -> str:
    if wait is None:
        return "Nothing waits."
    if wait.until == math.inf:
        return f"{GATES[wait.gate]} It goes on when a request has come back."
    return f"{GATES[wait.gate]} It goes on in {wait.until - now:.1f} s at the latest."
