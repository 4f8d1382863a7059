"""Stops an account whose host fails or whose credentials are refused, and tries with a few requests whether it is over.

Pure; times are monotonic seconds. The words are those of gates: *open* lets requests through.
"""

import math
from collections.abc import Callable
from random import Random
from typing import Final, Literal

from impact_plugin.delivery.limits.gates import Gate, LimitChange, Permit, Wait
from impact_plugin.delivery.limits.rate_limits import backoff
from impact_plugin.delivery.policy import Cause

LEAST_RESULTS: Final = 10
MOST_FAILED: Final = 0.7
"""Closed when at least so many results of the last thirty seconds failed, of at least so many."""

STREAK_SECONDS: Final = 1.0
"""Ten failures in a row close it without waiting for the share, when they took at least this long ..."""

BUCKETS: Final = 10
BUCKET_SECONDS: Final = 3.0
FIRST_CLOSED: Final = 1.0
LONGEST_CLOSED: Final = 5.0
"""Seconds between probes of a host. Short: a probe costs one request, a late one a whole backlog."""

REFUSALS: Final = 3
CREDENTIALS_SECONDS: Final = 300.0
STAGES: Final = (1, 3)
"""How many probes must succeed at the same time, before all may go again."""

PATIENCE: Final = 5.0
"""Seconds after which another probe goes beside one that hangs: a recovered host must not wait for its time-out."""

FAILED: Final = frozenset({Cause.TRANSIENT, Cause.UNEXPECTED, Cause.NOT_SENT, Cause.AMBIGUOUS, Cause.OVERLOAD})
TAKEN: Final = frozenset({Cause.OK, Cause.BODY_ERROR, Cause.REFUSED, Cause.UNCLEAR})


class Outcomes:
    """Failures among the results of the last thirty seconds, in ten buckets, and those in a row.

    A 503 counts only in a row, until some other request is taken: then impact.com was at its cap, which is the
    concurrency's business, and not down.
    """

    __slots__ = ("_all", "_answered", "_failed", "_fresh", "_knew", "_since", "_slot", "_streak")

    def __init__(self) -> None:
        self._answered = 0
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._all = [0] * BUCKETS
        self._failed = [0] * BUCKETS
        self._slot = 0
        self._streak = 0
        self._fresh = 0
        self._since = math.inf
        self._knew = 0

    def taken(self, permit: Permit, now: float) -> None:
        """A request was answered."""
        slot = int(now / BUCKET_SECONDS)
        if slot != self._slot:
            self._advance(slot)
        self._all[slot % BUCKETS] += 1
        self._streak = 0
        self._answered = max(self._answered, permit.number)

    def failed(self, permit: Permit, cause: Cause, now: float, issued: int) -> bool:
        """A request failed; true when that is one too many. ``issued`` is the number of the latest permit."""
        slot = int(now / BUCKET_SECONDS)
        if slot != self._slot:
            self._advance(slot)
        if cause is not Cause.OVERLOAD:
            self._all[slot % BUCKETS] += 1
            self._failed[slot % BUCKETS] += 1
        # A later one was answered: whatever this one met, the host is there.
        if permit.number > self._answered:
            # A refusal is news of now; silence tells that nobody was there since the request was sent.
            self._lengthen_streak(permit, now if cause is Cause.OVERLOAD else permit.sent_at, issued)
        return self._too_long(now) or self._too_many()

    def _lengthen_streak(self, permit: Permit, since: float, issued: int) -> None:
        if not self._streak:
            self._knew, self._fresh, self._since = issued, 0, since
        self._streak += 1
        self._fresh += permit.number > self._knew
        self._since = min(self._since, since)

    def _too_long(self, now: float) -> bool:
        """Ten in a row, but not only of requests that a single broken connection or restart took with it."""
        if self._streak < LEAST_RESULTS:
            return False
        return self._fresh >= LEAST_RESULTS - 1 or now - self._since >= STREAK_SECONDS

    def _too_many(self) -> bool:
        results = sum(self._all)
        return results >= LEAST_RESULTS and sum(self._failed) >= MOST_FAILED * results

    def _advance(self, slot: int) -> None:
        for passed in range(max(self._slot + 1, slot - BUCKETS + 1), slot + 1):
            self._all[passed % BUCKETS] = self._failed[passed % BUCKETS] = 0
        self._slot = slot


class Breaker:
    """Open, closed until some time, or probing: one request, then three, then all.

    Results of requests sent before it closed tell nothing new and are ignored.
    """

    def __init__(self, chance: Random, tell: Callable[[LimitChange], None]) -> None:
        self._chance = chance
        self._tell = tell
        self._outcomes = Outcomes()
        self.state: Literal["open", "probing", "closed"] = "open"
        self.gate = Gate.BREAKER
        self.until = 0.0
        self._attempts = 0
        self._refusals = 0
        self.credentials = 0
        self._changed = 0
        self._ignored = 0
        self._stage = 0
        self._succeeded = 0
        self._probes = 0
        self._probed_at = -math.inf

    def wait(self, now: float) -> Wait | None:
        """Why and until when nothing may be sent; None when something may, perhaps as a probe."""
        if self.state == "open":
            return None
        if self.state == "closed":
            if now < self.until:
                return Wait(self.gate, self.until)
            self._start_probing()
        if self._succeeded + self._probes < self._stages()[self._stage] or now >= self._probed_at + PATIENCE:
            return None
        return Wait(self.gate, self._probed_at + PATIENCE)

    def see_credentials(self, credentials: int, issued: int) -> None:
        """Note which credentials requests carry; others than those refused open the gate at once."""
        self.credentials = credentials
        self._refusals = 0
        self._changed = issued
        if self.state != "open" and self.gate is Gate.CREDENTIALS:
            self._ignored = issued
            self._open("other credentials")

    def sent(self, now: float) -> bool:
        """One request goes out; true when it is a probe."""
        if self.state == "open":
            return False
        self._probes += 1
        self._probed_at = now
        return True

    def withdrawn(self, permit: Permit) -> None:
        """It did not go out after all."""
        if permit.probe and permit.number > self._ignored:
            self._probes -= 1

    def done(self, permit: Permit, cause: Cause, now: float, issued: int) -> bool:
        """One request came back; true when the host has failed too often and its limits are to be learned anew."""
        if cause in TAKEN:
            self._refusals = 0
        if permit.number <= self._ignored:
            return False
        if cause is Cause.CREDENTIALS and self._refused(permit, now, issued):
            return False
        if self.state != "open":
            self._probed(permit, cause, now, issued)
        elif cause in FAILED:
            if self._outcomes.failed(permit, cause, now, issued):
                self._close_for_host(now, issued)
                return True
        elif cause is not Cause.QUOTA:
            self._outcomes.taken(permit, now)
        return False

    def stay_away(self, seconds: float, now: float, issued: int) -> None:
        """Close for as long as impact.com asked to."""
        until = now + seconds
        if self.state == "open":
            self._tell(LimitChange("breaker_opened", f"503 asks to stay away for {seconds:.0f} s"))
        elif self.gate is Gate.CREDENTIALS or (self.state == "closed" and until <= self.until):
            return
        self._close(Gate.BREAKER, until, issued)

    def _stages(self) -> tuple[int, ...]:
        return STAGES if self.gate is Gate.BREAKER else (1,)

    def _start_probing(self) -> None:
        self.state = "probing"
        self._stage = self._succeeded = self._probes = 0
        self._probed_at = -math.inf

    def _probed(self, permit: Permit, cause: Cause, now: float, issued: int) -> None:
        """A probe came back. Where credentials were refused and now the host fails, they are tried again soon."""
        if not permit.probe:
            return
        self._probes -= 1
        if cause in FAILED:
            self._close(self.gate, now + self._pause(), issued)
            return
        self._succeeded += 1
        if self._succeeded >= self._stages()[self._stage]:
            self._stage += 1
            self._succeeded = 0
            if self._stage == len(self._stages()):
                self._open("requests are answered again")

    def _refused(self, permit: Permit, now: float, issued: int) -> bool:
        """The credentials were refused, those carried now and not earlier ones; true when that closes the gate."""
        if permit.number <= self._changed:
            return False
        self._refusals += 1
        known = self.state != "open" and self.gate is Gate.CREDENTIALS
        if not known and self._refusals < REFUSALS:
            return False
        if not known:
            self._tell(LimitChange("credentials_refused", f"{self._refusals} requests in a row were refused"))
        self._close(Gate.CREDENTIALS, now + CREDENTIALS_SECONDS, issued)
        return True

    def _close_for_host(self, now: float, issued: int) -> None:
        pause = self._pause()
        self._tell(LimitChange("breaker_opened", f"most requests failed; one is tried in {pause:.1f} s"))
        self._close(Gate.BREAKER, now + pause, issued)

    def _pause(self) -> float:
        self._attempts += 1
        return backoff(self._attempts, first=FIRST_CLOSED, longest=LONGEST_CLOSED, chance=self._chance.random())

    def _close(self, gate: Gate, until: float, issued: int) -> None:
        self.state = "closed"
        self.gate = gate
        self.until = until
        self._ignored = issued

    def _open(self, why: str) -> None:
        change: Literal["breaker_closed", "credentials_accepted"] = (
            "breaker_closed" if self.gate is Gate.BREAKER else "credentials_accepted"
        )
        self.state = "open"
        self._attempts = self._refusals = 0
        self._outcomes.clear()
        self._tell(LimitChange(change, why))
