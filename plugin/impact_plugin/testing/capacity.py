"""How much a stand-in for impact.com takes: a cap, a rate, an outage, and how long its answers take.

Pure: time and chance come from outside, so the same model serves the real server and a simulation. impact.com publishes
a quota an hour and little else, so these are the shapes that limits of HTTP services take in practice.
"""

import heapq
from collections import deque
from math import inf
from random import Random
from typing import Annotated, Literal, TypeAlias

import msgspec

RateLimit: TypeAlias = Literal[
    "x-ratelimit",
    "x-ratelimit-epoch",
    "x-ratelimit-hour",
    "ratelimit-draft",
    "retry-after-seconds",
    "retry-after-float",
    "retry-after-date",
]
"""A family of rate-limit headers and the form of its values. impact.com's pages show several of them:
https://integrations.impact.com/brand-api-reference/brand-api-reference-v13/readme/rate-limits"""

Positive = Annotated[float, msgspec.Meta(gt=0)]


class Capacity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is taken, and how fast.

    ``concurrent``: requests that are worked on at once; ``over`` says whether one more is refused with 503 or never
    answered, which takes none of the places. ``rate``:
    requests in ``window`` seconds, one more is refused with 429: over any such span, or, where ``announced`` names the
    family of headers that tell it, in windows one after the other. ``down``: an outage. ``latency``: seconds until an
    answer, spread by ``jitter`` (0.5: between half and one and a half of it), longer by ``knee_latency`` for each
    request above ``knee`` at once. With ``workers`` so many are worked on at the same time and the others wait in line;
    ``exponential`` draws the latency from that distribution instead.
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


class Allowance(msgspec.Struct, frozen=True):
    """What the headers are to announce: requests in a window, requests left of it, seconds until it ends."""

    limit: int
    remaining: int
    reset_after: float


class Arrival(msgspec.Struct, frozen=True):
    """What becomes of one request: its status (0: never answered), after how many seconds, and what headers tell."""

    status: int
    seconds: float
    allowance: Allowance | None = None


class CapacityTally(msgspec.Struct):
    """What a sink has seen; ``over_cap`` counts arrivals that found more than 110 % of the cap at once."""

    offered: int = 0
    accepted: int = 0
    refused: int = 0
    most: int = 0
    over_cap: int = 0


class Sink:
    """Takes requests as its ``capacity`` allows; that may be replaced at any time."""

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
        """Requests that have no answer yet."""
        return self._at_once

    def arrive(self, now: float) -> Arrival:
        """One request comes; :meth:`leave` must follow when it has its answer. ``now`` is in seconds."""
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
        """One request has its answer, or its sender has gone."""
        self._at_once -= 1
        self._busy -= arrival.status == 200

    def _judge(self, now: float) -> Arrival:
        capacity = self.capacity
        seconds = self._seconds()
        if capacity.workers is not None and capacity.down is None:
            seconds += self._line(now, capacity.workers, seconds)
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

    def _line(self, now: float, workers: int, seconds: float) -> float:
        """How long a request waits for a worker, who is then busy for so many seconds."""
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
