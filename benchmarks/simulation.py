"""A closed loop without sockets and without waiting: a controller, a sink, and as many requests as the one lets go."""

import heapq
import math
from collections.abc import Callable
from random import Random
from typing import Any, Final, Protocol

import msgspec

from benchmarks.scenarios import Scenario
from impact_plugin.delivery.limits.limiter import Limiter, Slots
from impact_plugin.delivery.limits.permits import Gate, Permit, Wait
from impact_plugin.delivery.limits.rate_limits import NO_RATE_LIMITS, RateLimits
from impact_plugin.delivery.policy import Cause
from impact_plugin.testing.capacity import Arrival, Sink
from impact_plugin.testing.rate_limit_headers import Allowance

PATIENCE: Final = 10.0
"""Seconds until a request without an answer is given up."""

MAX_IN_FLIGHT: Final = 512
OVER: Final = 1.1
NEARLY: Final = 0.95
CAUSES: Final = {200: Cause.OK, 429: Cause.QUOTA, 503: Cause.OVERLOAD, 0: Cause.AMBIGUOUS}
TELLING: Final = frozenset({"x-ratelimit", "x-ratelimit-epoch", "x-ratelimit-hour", "ratelimit-draft"})


class Controller(Protocol):
    """Decides when a request may be sent; the methods are those of the limiter."""

    def try_acquire(self, now: float) -> Permit | Wait:
        """A permit, or when to try again."""

    def release(self, permit: Permit, cause: Cause, limits: RateLimits, now: float) -> None:
        """Give a permit back."""


class Fixed:
    """A fixed limit."""

    def __init__(self, limit: int) -> None:
        self.limit = float(limit)
        self.in_flight = self.number = 0

    def try_acquire(self, now: float) -> Permit | Wait:
        """See the protocol."""
        if self.in_flight >= int(self.limit):
            return Wait(Gate.CONCURRENCY, math.inf)
        self.in_flight += 1
        self.number += 1
        return Permit(self.number, self.in_flight, now)

    def release(self, _permit: Permit, _cause: Cause, _limits: RateLimits, _now: float) -> None:
        """See the protocol."""
        self.in_flight -= 1


class Aimd(Fixed):
    """One more for each round that went well, half for each that did not: the textbook."""

    def __init__(self) -> None:
        super().__init__(4)
        self._cut_at = 0

    def release(self, permit: Permit, cause: Cause, limits: RateLimits, now: float) -> None:
        """See the protocol."""
        super().release(permit, cause, limits, now)
        if cause is Cause.OK:
            self.limit = min(MAX_IN_FLIGHT, self.limit + 1 / self.limit)
        elif permit.number > self._cut_at:
            self.limit, self._cut_at = max(1.0, self.limit / 2), self.number


def ours(seed: int) -> Controller:
    """The limiter, with room for the widest scenario."""
    return Limiter(Slots(MAX_IN_FLIGHT), MAX_IN_FLIGHT, Random(seed), lambda _: None)


CONTROLLERS: Final[dict[str, Callable[[int], Controller]]] = {
    "ours": ours,
    "fixed 32": lambda _: Fixed(32),
    "AIMD": lambda _: Aimd(),
}


class Course(msgspec.Struct, frozen=True):
    """What one run has shown.

    Shares are of 1. ``first`` is the start of the first second with 95 % of what the sink could take, ``again`` the
    same after its last recovery, from then; infinity where there is none. ``rtt`` is the mean answer time of what was
    accepted over the sink's own.
    """

    throughput: float
    refused: float
    refusals: int
    first: float
    again: float
    over: float
    rtt: float
    accepted: tuple[int, ...]


class Run:
    """One scenario with one controller and one seed."""

    def __init__(self, scenario: Scenario, controller: Controller, seed: int) -> None:
        self._scenario = scenario
        self._controller = controller
        self._sink = Sink(scenario.phases[0].capacity, Random(seed))
        self._events: list[tuple[float, int, Any]] = []
        self._pushed = 0
        self._now = 0.0
        self._asks_at = -1.0
        self._accepted = [0] * (int(scenario.seconds) + 1)
        self._over = self._rtt = self._base = 0.0

    def course(self) -> Course:
        """Play it to its end."""
        for phase in self._scenario.phases[1:]:
            self._push(phase.at, phase)
        self._send()
        events, end = self._events, self._scenario.seconds
        while events and events[0][0] < end:
            now, _, event = heapq.heappop(events)
            self._pass_time(now)
            if isinstance(event, tuple):
                self._come_back(*event)
            elif event is not None:
                self._sink.capacity = event.capacity
            self._send()
        return self._result()

    def _push(self, at: float, event: Any) -> None:
        self._pushed += 1
        heapq.heappush(self._events, (at, self._pushed, event))

    def _pass_time(self, now: float) -> None:
        cap = self._sink.capacity.concurrent
        if cap is not None and self._sink.at_once > OVER * cap:
            self._over += now - self._now
        self._now = now

    def _send(self) -> None:
        """Send while the controller grants permits, and try again when it says."""
        now = self._now
        while isinstance(acquired := self._controller.try_acquire(now), Permit):
            arrival = self._sink.arrive(now)
            seconds = min(arrival.seconds, PATIENCE) if arrival.status else PATIENCE
            self._push(now + seconds, (acquired, arrival, seconds))
        if acquired.until < math.inf and (self._asks_at <= now or acquired.until < self._asks_at):
            self._asks_at = acquired.until
            self._push(acquired.until, None)

    def _come_back(self, permit: Permit, arrival: Arrival, seconds: float) -> None:
        self._sink.leave(arrival)
        late = arrival.seconds > PATIENCE
        cause = Cause.AMBIGUOUS if late else CAUSES[arrival.status]
        if cause is Cause.OK:
            self._accepted[int(self._now)] += 1
            self._rtt += seconds
            self._base += self._sink.capacity.latency
        self._controller.release(permit, cause, self._limits_of(arrival), self._now)

    def _limits_of(self, arrival: Arrival) -> RateLimits:
        """What the headers of the family would say; they are read by a reader with tests of its own."""
        announced, allowance = self._sink.capacity.announced, arrival.allowance
        if announced is None or not isinstance(allowance, Allowance):
            return NO_RATE_LIMITS
        if announced in TELLING:
            return RateLimits(allowance.limit, allowance.remaining, float(math.ceil(allowance.reset_after)))
        return RateLimits(retry_after=allowance.reset_after) if arrival.status == 429 else NO_RATE_LIMITS

    def _result(self) -> Course:
        scenario, tally = self._scenario, self._sink.tally
        accepted = sum(self._accepted)
        return Course(
            accepted / scenario.best(),
            tally.refused / max(1, tally.offered),
            tally.refused,
            self._reached(0.0),
            self._reached(scenario.recovery_from),
            self._over / scenario.seconds,
            self._rtt / self._base if self._base else math.inf,
            tuple(self._accepted),
        )

    def _reached(self, since: float) -> float:
        """Seconds from ``since`` to the first whole second with nearly all that could be taken in it."""
        phases = self._scenario.phases
        for second in range(math.ceil(since), int(self._scenario.seconds)):
            optimum = next(phase.optimum for phase in reversed(phases) if phase.at <= second)
            if optimum and self._accepted[second] >= NEARLY * optimum - 1:
                return second - since
        return math.inf


def play(scenario: Scenario, controller: str, seed: int) -> Course:
    """One run."""
    return Run(scenario, CONTROLLERS[controller](seed), seed).course()
