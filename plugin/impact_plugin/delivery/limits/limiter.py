"""Rate limiter of one account's endpoint: requests are sent as fast as impact.com accepts them, and never faster.

Pure and synchronous; ``now`` is monotonic seconds and never decreases. Give every permit back exactly once, with
``release`` or ``release_unused``. A closed gate consumes nothing of the gates before it.
"""

import math
from collections.abc import Callable
from random import Random
from typing import Final, Literal

from impact_plugin.delivery.limits.breaker import Breaker
from impact_plugin.delivery.limits.concurrency import Concurrency
from impact_plugin.delivery.limits.permits import GATES, Gate, LimitChange, LimiterStatistics, Permit, Wait
from impact_plugin.delivery.limits.quota import MIN_WAIT_SECONDS, Quota
from impact_plugin.delivery.limits.rate_limits import RateLimits
from impact_plugin.delivery.limits.retry_budget import RetryBudget
from impact_plugin.delivery.policy import PROCESSED, Cause

IDLE_SECONDS: Final = 300.0
"""How long a learned limit or pace is kept after the last request."""

_WAIT_FOR_CONCURRENCY: Final = Wait(Gate.CONCURRENCY, math.inf)
_WAIT_FOR_SLOT: Final = Wait(Gate.SLOTS, math.inf)
_TIMED: Final = frozenset({Cause.OK, Cause.BODY_ERROR})
"""Causes whose response time is measured: a refusal takes impact.com less work than an acceptance."""


class Slots:
    """Limits how many requests of all accounts together may be in flight."""

    __slots__ = ("limit", "taken")

    def __init__(self, limit: int = 512) -> None:
        self.limit = limit
        self.taken = 0


class Limiter:
    """The gates of one account and endpoint, checked in the order of :class:`Gate`.

    ``max_concurrency`` bounds the requests in flight; at least 1. ``jitter`` spreads waits, so that replicas do not
    retry at the same moment. ``notify`` is called with changes of state, never for single requests.
    """

    def __init__(
        self, slots: Slots, max_concurrency: int, jitter: Random, notify: Callable[[LimitChange], None]
    ) -> None:
        self._slots = slots
        self._breaker = Breaker(jitter, notify)
        self._quota = Quota(jitter, notify)
        self._concurrency = Concurrency(max_concurrency, notify)
        self._retry_budget = RetryBudget()
        self._in_flight: dict[int, None] = {}
        self._latest = 0
        self._used_at = -math.inf

    def try_acquire(self, now: float, *, retry: bool = False, credentials: int = 0) -> Permit | Wait:
        """Return a permit to send one request now, or the gate that is closed and when to try again.

        ``credentials`` is a hash of those in the request. ``Wait.until`` is later than ``now``, and the latest time to
        try again: the gate may open sooner when a request ends, one of any account if the gate is ``slots``.
        """
        breaker = self._breaker
        if credentials != breaker.credentials:
            breaker.use_credentials(credentials, self._latest)
        wait = self._closed_gate(now)
        if wait is not None:
            return wait
        if retry and (seconds := self._retry_budget.seconds_to_wait(now)) > 0.0:
            return Wait(Gate.RETRY_BUDGET, now + max(seconds, MIN_WAIT_SECONDS))
        slots = self._slots
        if slots.taken >= slots.limit:
            return _WAIT_FOR_SLOT
        slots.taken += 1
        self._latest = number = self._latest + 1
        self._in_flight[number] = None
        self._used_at = now
        self._quota.record_sent()
        self._retry_budget.record_sent(retry=retry)
        return Permit(number, len(self._in_flight), now, retry, breaker.record_sent(now))

    def release(self, permit: Permit, cause: Cause, limits: RateLimits, now: float) -> None:
        """Give back the permit of an attempt that has ended, with its cause and what the headers said about the quota.

        Ignored if the permit was given back before. For requests that were never sent, use :meth:`release_unused`.
        """
        in_flight = self._in_flight
        number = permit.number
        if number not in in_flight:
            return
        del in_flight[number]
        self._slots.taken -= 1
        latest = self._latest
        if cause in PROCESSED:
            self._retry_budget.record_processed(retry=permit.retry)
        self._quota.record_result(permit, cause, limits, now, latest, in_flight)
        concurrency = self._concurrency
        if cause in _TIMED:
            concurrency.record_response(permit, now, latest, next(iter(in_flight), latest + 1))
        elif cause is Cause.OVERLOAD:
            concurrency.record_refusal(permit, now, latest)
        elif cause is Cause.AMBIGUOUS:
            concurrency.record_timeout(permit, now, latest)
        if self._breaker.record_result(permit, cause, now, latest):
            concurrency.restart(latest)
        if limits.retry_after and cause is Cause.OVERLOAD:
            self._breaker.close_for(limits.retry_after, now, latest)

    def release_unused(self, permit: Permit) -> None:
        """Give back a permit with which nothing was sent. Ignored if it was given back before."""
        if permit.number not in self._in_flight:
            return
        del self._in_flight[permit.number]
        self._slots.taken -= 1
        self._quota.undo_sent()
        self._retry_budget.undo_sent(retry=permit.retry)
        self._breaker.undo_sent(permit)

    def statistics(self, now: float) -> LimiterStatistics:
        """The present state, and in words why requests wait."""
        quota = self._quota
        wait = self._closed_gate(now)
        if wait is None and self._slots.taken >= self._slots.limit:
            wait = _WAIT_FOR_SLOT
        state = self._state(wait)
        reset_in = None if quota.reset_at is None else max(0.0, quota.reset_at - now)
        closed_for = wait.until - now if wait is not None and state == "closed" and wait.until < math.inf else None
        return LimiterStatistics(
            state=state,
            limit=self._concurrency.limit,
            in_flight=len(self._in_flight),
            quota_left=None if quota.left is None else max(0, quota.left),
            reset_in=reset_in,
            pace=quota.pace(now),
            rtt=self._concurrency.rtt,
            gate=None if wait is None else wait.gate,
            closed_for=closed_for,
            why=_explain(wait, now),
        )

    def is_idle(self, now: float) -> bool:
        """Whether nothing is in flight and nothing was learned that is still of use: the account may be forgotten."""
        if self._in_flight or now - self._used_at < IDLE_SECONDS or self._breaker.state != "open":
            return False
        quota = self._quota
        return now >= quota.closed_until and (quota.reset_at is None or now >= quota.reset_at)

    def _closed_gate(self, now: float) -> Wait | None:
        """The first gate of the account that is closed to new requests, retries or not."""
        if self._breaker.state != "open" and (wait := self._breaker.check(now)) is not None:
            return wait
        wait = self._quota.check(now, len(self._in_flight))
        if wait is None and len(self._in_flight) >= self._concurrency.limit:
            return _WAIT_FOR_CONCURRENCY
        return wait

    def _state(self, wait: Wait | None) -> Literal["open", "probing", "closed"]:
        if self._breaker.state != "open":
            return self._breaker.state
        return "closed" if wait is not None and wait.gate is Gate.QUOTA else "open"


def _explain(wait: Wait | None, now: float) -> str:
    if wait is None:
        return "Nothing waits."
    if wait.until == math.inf:
        return f"{GATES[wait.gate]} Requests continue when one in flight ends."
    return f"{GATES[wait.gate]} Requests continue in {wait.until - now:.1f} s at the latest."
