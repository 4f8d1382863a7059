"""How many requests a stand-in for impact.com accepts, and how fast: caps, rates, outages and latencies.

Pure: the caller passes time and randomness in, so that a real server and a simulation use the same model. impact.com
publishes little more than a quota per hour, so these are the forms that limits of HTTP services have in practice.
"""

import heapq
from collections import deque
from math import inf
from random import Random
from typing import Annotated, Literal

import msgspec

from impact_plugin.testing.rate_limit_headers import Allowance, RateLimit

Positive = Annotated[float, msgspec.Meta(gt=0)]


class Capacity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many requests are accepted, and how fast.

    ``concurrent``: how many are processed at the same time; one more is refused with a 503 or, with ``over`` at
    ``silence``, never answered, and does not count. ``rate``: how many are accepted in ``window`` seconds; one more is
    refused with a 429. The window is any span of that length, or, if ``announced`` names the family of headers that
    announce it, one fixed window after the other. ``down``: an outage. ``latency``: seconds until an answer, spread by
    ``jitter`` (0.5: from half to one and a half of it), plus ``knee_latency`` for each request above ``knee`` at the
    same time. ``workers``: how many are processed at the same time while the others wait in line. ``exponential`` draws
    the latency from an exponential distribution instead.
    """

    concurrent: Annotated[int, msgspec.Meta(ge=1)] | None = None
    over: Literal["503", "silence"] = "503"
    rate: Annotated[int, msgspec.Meta(ge=1)] | None = None
    window: Positive = 1.0
    announced: RateLimit | None = None
    down: Literal["503", "silence"] | None = None
    latency: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.0
    jitter: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    knee: Annotated[int, msgspec.Meta(ge=1)] | None = None
    knee_latency: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.0
    workers: Annotated[int, msgspec.Meta(ge=1)] | None = None
    exponential: bool = False


class Arrival(msgspec.Struct, frozen=True):
    """What becomes of a request: its status (0: never answered), after how many seconds, and what headers announce."""

    status: int
    seconds: float
    allowance: Allowance | None = None


class CapacityTally(msgspec.Struct):
    """What a sink has counted: ``most`` at the same time, ``over_cap`` arrivals above 110 % of ``concurrent``."""

    offered: int = 0
    accepted: int = 0
    refused: int = 0
    most: int = 0
    over_cap: int = 0


class Sink:
    """Accepts requests as its ``capacity`` allows, which you may replace at any time."""

    def __init__(self, capacity: Capacity, chance: Random) -> None:
        self.capacity = capacity
        self.tally = CapacityTally()
        self._chance = chance
        self._at_once = self._busy = 0
        self._recent: deque[float] = deque()
        self._window_ends = -inf
        self._taken = 0
        self._free_at: list[float] = []

    @property
    def at_once(self) -> int:
        """How many requests have no answer yet."""
        return self._at_once

    def arrive(self, now: float) -> Arrival:
        """Judge a request that arrives; call :meth:`leave` once it has its answer. ``now`` is in seconds."""
        capacity, tally = self.capacity, self.tally
        self._at_once += 1
        tally.offered += 1
        tally.most = max(tally.most, self._at_once)
        if capacity.concurrent is not None and self._at_once > 1.1 * capacity.concurrent:
            tally.over_cap += 1
        arrival = self._judge(now)
        tally.accepted += arrival.status == 200
        tally.refused += arrival.status != 200
        self._busy += arrival.status == 200
        return arrival

    def leave(self, arrival: Arrival) -> None:
        """Note that a request has its answer, or that its sender hung up."""
        self._at_once -= 1
        self._busy -= arrival.status == 200

    def _judge(self, now: float) -> Arrival:
        capacity = self.capacity
        seconds = self._seconds()
        if capacity.workers is not None and capacity.down is None:
            seconds += self._wait_in_line(now, capacity.workers, seconds)
        if capacity.down is not None:
            return Arrival(503 if capacity.down == "503" else 0, seconds)
        if capacity.concurrent is not None and self._busy >= capacity.concurrent:
            return Arrival(503 if capacity.over == "503" else 0, seconds)
        if capacity.rate is None:
            return Arrival(200, seconds)
        if capacity.announced is None:
            return Arrival(200 if self._within_any_span(now, capacity.rate) else 429, seconds)
        return self._within_window(now, capacity.rate, seconds)

    def _seconds(self) -> float:
        capacity = self.capacity
        latency = capacity.latency
        if capacity.knee is not None:
            latency += capacity.knee_latency * max(0, self._at_once - capacity.knee)
        if capacity.exponential and latency:
            return self._chance.expovariate(1 / latency)
        return latency * (1 + capacity.jitter * self._chance.uniform(-1, 1)) if capacity.jitter else latency

    def _wait_in_line(self, now: float, workers: int, seconds: float) -> float:
        """Return how long a request waits for a worker, which is then busy for ``seconds``."""
        free_at = self._free_at
        while free_at and free_at[0] <= now:
            heapq.heappop(free_at)
        begins = now
        while len(free_at) >= workers:
            begins = heapq.heappop(free_at)
        heapq.heappush(free_at, begins + seconds)
        return begins - now

    def _within_any_span(self, now: float, rate: int) -> bool:
        recent = self._recent
        while recent and recent[0] <= now - self.capacity.window:
            recent.popleft()
        if len(recent) >= rate:
            return False
        recent.append(now)
        return True

    def _within_window(self, now: float, rate: int, seconds: float) -> Arrival:
        if now >= self._window_ends:
            begun = now if self._window_ends == -inf else now - (now - self._window_ends) % self.capacity.window
            self._window_ends, self._taken = begun + self.capacity.window, 0
        taken = self._taken < rate
        self._taken += taken
        allowance = Allowance(rate, rate - self._taken, self._window_ends - now)
        return Arrival(200 if taken else 429, seconds, allowance)
