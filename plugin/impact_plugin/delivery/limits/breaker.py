"""Circuit breaker: stops an account whose host fails or whose credentials are refused, and probes until it recovers.

Pure; times are monotonic seconds. States are those of a gate, not of an electric circuit: *open* lets requests pass,
*closed* stops them. Permits are numbered, and ``latest`` is the number of the latest one.
"""

import math
from collections.abc import Callable
from random import Random
from typing import Final, Literal

from impact_plugin.delivery.limits.permits import Gate, LimitChange, Permit, Wait
from impact_plugin.delivery.limits.rate_limits import backoff
from impact_plugin.delivery.policy import PROCESSED, Cause

MIN_RESULTS: Final = 10
MAX_FAILED_SHARE: Final = 0.7
"""The breaker closes when this share of the results of the last thirty seconds failed, out of at least this many."""

STREAK_SECONDS: Final = 1.0
"""Ten failures in a row close it whatever the share is, if they took at least this long (see :class:`ResultWindow`)."""

BUCKETS: Final = 10
BUCKET_SECONDS: Final = 3.0

FIRST_PROBE_SECONDS: Final = 1.0
MAX_PROBE_SECONDS: Final = 5.0
"""Pause before a failing host is probed. Short, because a probe costs one request and a late one delays a backlog."""

CREDENTIALS_REFUSALS: Final = 3
"""Refusals of the credentials in a row that close the breaker."""

CREDENTIALS_PROBE_SECONDS: Final = 300.0

PROBE_STAGES: Final = (1, 3)
"""How many probes in parallel must succeed in each stage before all traffic flows again."""

PROBE_PATIENCE_SECONDS: Final = 5.0
"""When a probe hangs for this long, another one is sent: a recovered host must not wait for the first one's timeout."""

FAILED: Final = frozenset({Cause.TRANSIENT, Cause.UNEXPECTED, Cause.NOT_SENT, Cause.AMBIGUOUS, Cause.OVERLOAD})


class ResultWindow:
    """Counts failures among the results of the last thirty seconds, in ten buckets, and failures in a row.

    A 503 counts only as a failure in a row, and a success ends the row: while impact.com processes other requests, a
    503 means that too many were in flight, which the concurrency limit handles, and not that the host is down.
    """

    __slots__ = (
        "_bucket",
        "_failures",
        "_latest_at_start",
        "_processed",
        "_results",
        "_sent_since",
        "_start",
        "_streak",
    )

    def __init__(self) -> None:
        self._processed = 0
        self.clear()

    def clear(self) -> None:
        """Forget all results."""
        self._results = [0] * BUCKETS
        self._failures = [0] * BUCKETS
        self._bucket = 0
        self._streak = 0
        self._sent_since = 0
        self._start = math.inf
        self._latest_at_start = 0

    def record_success(self, permit: Permit, now: float) -> None:
        """Record a request that impact.com processed."""
        self._results[self._bucket_at(now)] += 1
        self._streak = 0
        self._processed = max(self._processed, permit.number)

    def record_failure(self, permit: Permit, cause: Cause, now: float, latest: int) -> bool:
        """Record a failed request; returns whether there are too many failures now."""
        bucket = self._bucket_at(now)
        if cause is not Cause.OVERLOAD:
            self._results[bucket] += 1
            self._failures[bucket] += 1
        # If a request sent later was processed, the host is up, whatever this one met.
        if permit.number > self._processed:
            # A 503 says something about this moment; a timeout, that nobody answered since the request was sent.
            self._extend_streak(permit, now if cause is Cause.OVERLOAD else permit.sent_at, latest)
        return self._streak_is_too_long(now) or self._share_is_too_large()

    def _extend_streak(self, permit: Permit, start: float, latest: int) -> None:
        if not self._streak:
            self._latest_at_start, self._sent_since, self._start = latest, 0, start
        self._streak += 1
        self._sent_since += permit.number > self._latest_at_start
        self._start = min(self._start, start)

    def _streak_is_too_long(self, now: float) -> bool:
        """Whether ten failed in a row, and not just because one broken connection or restart took them all with it."""
        if self._streak < MIN_RESULTS:
            return False
        return self._sent_since >= MIN_RESULTS - 1 or now - self._start >= STREAK_SECONDS

    def _share_is_too_large(self) -> bool:
        results = sum(self._results)
        return results >= MIN_RESULTS and sum(self._failures) >= MAX_FAILED_SHARE * results

    def _bucket_at(self, now: float) -> int:
        """The index of the bucket for this time; clears buckets that are older than the window."""
        bucket = int(now / BUCKET_SECONDS)
        if bucket != self._bucket:
            for passed in range(max(self._bucket + 1, bucket - BUCKETS + 1), bucket + 1):
                self._results[passed % BUCKETS] = self._failures[passed % BUCKETS] = 0
            self._bucket = bucket
        return bucket % BUCKETS


class Breaker:
    """Open, closed until some time, or probing: first one request, then three in parallel, then all.

    Results of requests that were sent before it closed say nothing new and are ignored.
    """

    def __init__(self, jitter: Random, notify: Callable[[LimitChange], None]) -> None:
        self._jitter = jitter
        self._notify = notify
        self._window = ResultWindow()
        self.state: Literal["open", "probing", "closed"] = "open"
        self.gate = Gate.BREAKER
        self.until = 0.0
        self._failed_probes = 0
        self._credentials_refusals = 0
        self.credentials = 0
        self._old_credentials_up_to = 0
        self._ignored_up_to = 0
        self._stage = 0
        self._succeeded = 0
        self._probes_in_flight = 0
        self._probed_at = -math.inf

    def check(self, now: float) -> Wait | None:
        """Which gate is closed and until when; None if a request, perhaps a probe, may be sent."""
        if self.state == "open":
            return None
        if self.state == "closed":
            if now < self.until:
                return Wait(self.gate, self.until)
            self._start_probing()
        if self._succeeded + self._probes_in_flight < self._stages()[self._stage]:
            return None
        patience_ends = self._probed_at + PROBE_PATIENCE_SECONDS
        return None if now >= patience_ends else Wait(self.gate, patience_ends)

    def use_credentials(self, credentials: int, latest: int) -> None:
        """Note the credentials of the requests from now on; new ones open a gate that refused ones have closed."""
        self.credentials = credentials
        self._credentials_refusals = 0
        self._old_credentials_up_to = latest
        if self.state != "open" and self.gate is Gate.CREDENTIALS:
            self._ignored_up_to = latest
            self._open("other credentials")

    def record_sent(self, now: float) -> bool:
        """Record that a request was sent; returns whether it is a probe."""
        if self.state == "open":
            return False
        self._probes_in_flight += 1
        self._probed_at = now
        return True

    def undo_sent(self, permit: Permit) -> None:
        """Take back one :meth:`record_sent`: the request was not sent after all."""
        if permit.probe and permit.number > self._ignored_up_to:
            self._probes_in_flight -= 1

    def record_result(self, permit: Permit, cause: Cause, now: float, latest: int) -> bool:
        """Record the result of a request; returns whether the host failed so often that limits must be forgotten."""
        if cause in PROCESSED:
            self._credentials_refusals = 0
        if permit.number <= self._ignored_up_to:
            return False
        if cause is Cause.CREDENTIALS and self._close_for_credentials(permit, now, latest):
            return False
        if self.state != "open":
            self._record_probe(permit, cause, now, latest)
        elif cause in FAILED:
            if self._window.record_failure(permit, cause, now, latest):
                self._close_for_host(now, latest)
                return True
        elif cause is not Cause.QUOTA:
            self._window.record_success(permit, now)
        return False

    def close_for(self, seconds: float, now: float, latest: int) -> None:
        """Close for as long as impact.com asked in a ``Retry-After``."""
        until = now + seconds
        if self.state == "open":
            self._notify(LimitChange("breaker_opened", f"a 503 asked us to wait for {seconds:.0f} s"))
        elif self.gate is Gate.CREDENTIALS or (self.state == "closed" and until <= self.until):
            return
        self._close(Gate.BREAKER, until, latest)

    def _stages(self) -> tuple[int, ...]:
        return PROBE_STAGES if self.gate is Gate.BREAKER else (1,)

    def _start_probing(self) -> None:
        self.state = "probing"
        self._stage = self._succeeded = self._probes_in_flight = 0
        self._probed_at = -math.inf

    def _record_probe(self, permit: Permit, cause: Cause, now: float, latest: int) -> None:
        if not permit.probe:
            return
        self._probes_in_flight -= 1
        if cause in FAILED:
            # Also of refused credentials: a failing host says nothing about them, so they are probed again soon.
            self._close(self.gate, now + self._next_probe_seconds(), latest)
            return
        self._succeeded += 1
        if self._succeeded >= self._stages()[self._stage]:
            self._stage += 1
            self._succeeded = 0
            if self._stage == len(self._stages()):
                self._open("requests are answered again")

    def _close_for_credentials(self, permit: Permit, now: float, latest: int) -> bool:
        """Count a refusal of the current credentials, not of earlier ones; returns whether it closed the gate."""
        if permit.number <= self._old_credentials_up_to:
            return False
        self._credentials_refusals += 1
        known = self.state != "open" and self.gate is Gate.CREDENTIALS
        if not known and self._credentials_refusals < CREDENTIALS_REFUSALS:
            return False
        if not known:
            detail = f"{self._credentials_refusals} requests in a row were refused"
            self._notify(LimitChange("credentials_refused", detail))
        self._close(Gate.CREDENTIALS, now + CREDENTIALS_PROBE_SECONDS, latest)
        return True

    def _close_for_host(self, now: float, latest: int) -> None:
        seconds = self._next_probe_seconds()
        self._notify(LimitChange("breaker_opened", f"most requests failed; the first probe is sent in {seconds:.1f} s"))
        self._close(Gate.BREAKER, now + seconds, latest)

    def _next_probe_seconds(self) -> float:
        self._failed_probes += 1
        return backoff(
            self._failed_probes, initial=FIRST_PROBE_SECONDS, maximum=MAX_PROBE_SECONDS, jitter=self._jitter.random()
        )

    def _close(self, gate: Gate, until: float, latest: int) -> None:
        self.state = "closed"
        self.gate = gate
        self.until = until
        self._ignored_up_to = latest

    def _open(self, detail: str) -> None:
        change: Literal["breaker_closed", "credentials_accepted"] = (
            "breaker_closed" if self.gate is Gate.BREAKER else "credentials_accepted"
        )
        self.state = "open"
        self._failed_probes = self._credentials_refusals = 0
        self._window.clear()
        self._notify(LimitChange(change, detail))
