"""What impact.com might be like: caps, rates, quotas, outages, slow and moving sinks; fixed ones and random ones."""

from random import Random
from typing import Final, Literal

import msgspec

from impact_plugin.testing.capacity import Capacity
from impact_plugin.testing.rate_limit_headers import RateLimit

RTT: Final = 0.1
LENGTH: Final = 120.0
HOUR: Final = 3600.0
QUOTA: Final = 1000
"""Requests an hour, as impact.com documents it:
https://integrations.impact.com/brand-api-reference/brand-api-reference-v13/readme/rate-limits"""

FAMILIES: Final[tuple[RateLimit, ...]] = (
    "x-ratelimit",
    "x-ratelimit-epoch",
    "x-ratelimit-hour",
    "ratelimit-draft",
    "retry-after-seconds",
    "retry-after-float",
    "retry-after-date",
)

Group = Literal["first", "latency", "quota", "random"]


class Phase(msgspec.Struct, frozen=True):
    """From a second on: how the sink is, and how many requests a second it could take at best."""

    at: float
    capacity: Capacity
    optimum: float


class Scenario(msgspec.Struct, frozen=True):
    """One course of a sink. ``group`` says by which bar it is judged."""

    name: str
    group: Group
    phases: tuple[Phase, ...]
    seconds: float = LENGTH

    @property
    def recovery_from(self) -> float:
        """The second from which the last 95 % are looked for: the last time that it could take more than before."""
        rises = [
            later.at
            for earlier, later in zip(self.phases, self.phases[1:], strict=False)
            if later.optimum > earlier.optimum
        ]
        return rises[-1] if rises else 0.0

    def best(self) -> float:
        """Requests it could take in all."""
        ends = [*(phase.at for phase in self.phases[1:]), self.seconds]
        return sum(phase.optimum * (end - phase.at) for phase, end in zip(self.phases, ends, strict=True))


def _capped(concurrent: int, *, rtt: float = RTT, jitter: float = 0.0, at: float = 0.0, **more: object) -> Phase:
    capacity = msgspec.convert({"concurrent": concurrent, "latency": rtt, "jitter": jitter, **more}, Capacity)
    return Phase(at, capacity, concurrent / rtt)


def _steady(name: str, group: Group, *phases: Phase, seconds: float = LENGTH) -> Scenario:
    return Scenario(name, group, phases, seconds)


def fixed() -> list[Scenario]:
    """The named ones, and the documented quota with every family of headers."""
    down = msgspec.structs.replace(_capped(50).capacity, down="503")
    line = Capacity(workers=10, latency=RTT)
    knee = Capacity(knee=10, knee_latency=RTT / 10, latency=RTT)
    found = [
        _steady("A 503 above 200", "first", _capped(200)),
        _steady("B 503 above 5", "first", _capped(5)),
        _steady("C 503 above 50", "first", _capped(50)),
        _steady("D 429 above 100/s", "first", Phase(0.0, Capacity(rate=100, latency=RTT), 100.0)),
        _steady("E silence above 50", "latency", _capped(50, over="silence")),
        _steady("F 503 above 50, jitter 0.5", "latency", _capped(50, jitter=0.5)),
        _steady("G 503 above 50, jitter 1.0", "latency", _capped(50, jitter=1.0)),
        _steady("H knee at 10", "latency", Phase(0.0, knee, 10 / RTT)),
        _steady("I line of 10 workers", "latency", Phase(0.0, line, 10 / RTT)),
        _steady(
            "J the same, exponential",
            "latency",
            Phase(0.0, msgspec.structs.replace(line, exponential=True), 10 / RTT),
        ),
        _steady("K cap 50, 10, 50", "first", _capped(50), _capped(10, at=40.0), _capped(50, at=80.0)),
        _steady("L outage of 20 s", "first", _capped(50), Phase(40.0, down, 0.0), _capped(50, at=60.0)),
        _steady("M RTT 100, 300 ms", "latency", _capped(50), _capped(50, rtt=0.3, at=60.0)),
        _steady("N RTT 300, 100 ms", "latency", _capped(50, rtt=0.3), _capped(50, at=60.0)),
    ]
    for family in FAMILIES:
        capacity = Capacity(rate=QUOTA, window=HOUR, announced=family, latency=RTT)
        found.append(_steady(f"quota, {family}", "quota", Phase(0.0, capacity, QUOTA / HOUR), seconds=4 * HOUR))
    return found


def drawn(seed: int) -> Scenario:
    """A random one: a cap, a rate or workers, any RTT from 20 ms to 2 s, jitter, and perhaps a step or an outage."""
    chance = Random(seed)
    rtt = 0.02 * 100 ** chance.random()
    most = min(300.0, 1500 * rtt)
    size = max(2, round(2 * (most / 2) ** chance.random()))
    kind = chance.choice(["cap", "rate", "workers"])
    jitter = chance.choice([0.0, 0.2, 0.5])
    first = _random_phase(kind, size, rtt, jitter, 0.0)
    phases = [first]
    course = chance.choice(["steady", "down", "up", "outage", "slower"])
    if course in {"down", "up"}:
        phases.append(_random_phase(kind, max(2, round(size * (0.4 if course == "down" else 2))), rtt, jitter, 60.0))
    elif course == "slower":
        phases.append(_random_phase(kind, size, min(4.0, rtt * 2), jitter, 60.0))
    elif course == "outage":
        down = msgspec.structs.replace(first.capacity, down=chance.choice(["503", "silence"]))
        phases += [Phase(50.0, down, 0.0), msgspec.structs.replace(first, at=70.0)]
    told = f"random {seed}: {kind} {size}, {rtt * 1000:.0f} ms, jitter {jitter}, {course}"
    return Scenario(told, "random", tuple(phases))


def _random_phase(kind: str, size: int, rtt: float, jitter: float, at: float) -> Phase:
    if kind == "cap":
        return _capped(size, rtt=rtt, jitter=jitter, at=at)
    if kind == "workers":
        return Phase(at, Capacity(workers=size, latency=rtt, jitter=jitter), size / rtt)
    return Phase(at, Capacity(rate=size, latency=rtt, jitter=jitter), float(size))
