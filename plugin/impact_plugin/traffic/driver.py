"""Open-loop load: requests begin when the schedule says, whether or not earlier ones were answered.

Latency counts from the intended start, so that a service that falls behind shows it. A closed loop would wait for it,
and hide what its users feel (https://www.scylladb.com/2021/04/22/on-coordinated-omission/).
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter, process_time
from typing import Final

import msgspec

from impact_plugin.tasks import beside
from impact_plugin.traffic.client import Connection, HttpAnswer, connect

TICK_SECONDS: Final = 0.001
MOST_WAITING: Final = 200_000
"""Requests that are due and find no connection; beyond that the run ends: the schedule is far out of reach."""

LOOK_SECONDS: Final = 0.1
RESOLUTION: Final = 100_000
"""Steps of a second that latencies are told apart by."""

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)


class LoadStep(msgspec.Struct, frozen=True):
    """So many requests a second at its beginning and its end, for so many seconds."""

    start: float
    end: float
    seconds: float


class Histogram:
    """Latencies, to ten microseconds; what it holds is bounded by the longest of them."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.total = 0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[int(seconds * RESOLUTION)] += 1
        self.total += 1

    def percentile(self, share: float) -> float:
        """The latency that so many percent do not exceed; 0 where there is none."""
        left = self.total * share / 100
        for step in sorted(self.counts):
            left -= self.counts[step]
            if left <= 0:
                return step / RESOLUTION
        return 0.0


class Second(msgspec.Struct):
    """One second of a run, by intended start."""

    intended: int = 0
    answered: int = 0
    failed: int = 0
    latencies: Histogram = msgspec.field(default_factory=Histogram)


class LoadOutcome(msgspec.Struct):
    """What a run came to. ``late`` is how long after its time a request left that had a connection: our own delay."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    intended: int = 0
    unsent: int = 0
    by_kind: dict[str, Histogram] = {}
    late: Histogram = msgspec.field(default_factory=Histogram)
    timeline: list[Second] = msgspec.field(default_factory=list)

    @property
    def kinds(self) -> Counter[str]:
        """How many answers of each kind: a status, or what happened instead."""
        return Counter({kind: histogram.total for kind, histogram in self.by_kind.items()})

    @property
    def good(self) -> int:
        """Answers with a status below 300."""
        return sum(count for kind, count in self.kinds.items() if kind.startswith("2"))

    @property
    def latencies(self) -> Histogram:
        """Of good answers, from the intended start."""
        found = Histogram()
        for kind, histogram in self.by_kind.items():
            if kind.startswith("2"):
                found.counts.update(histogram.counts)
                found.total += histogram.total
        return found

    @property
    def share_failed(self) -> float:
        """Of what was intended, how much was not answered well."""
        return 1 - self.good / self.intended if self.intended else 0.0

    @property
    def core_share(self) -> float:
        """How much of a core this side of the connections took."""
        return self.cpu_seconds / self.seconds if self.seconds else 0.0


class Driver:
    """Sends what ``following`` gives, on at most so many connections."""

    def __init__(
        self,
        host: str,
        port: int,
        following: Iterator[bytes],
        *,
        connections: int = 100,
        timeout: float = 30.0,
        judge: Callable[[HttpAnswer], str] | None = None,
    ) -> None:
        self._host, self._port = host, port
        self._following = following
        self._most = connections
        self._timeout = timeout
        self._judge = judge or _kind
        self._idle: deque[Connection] = deque()
        self._busy: dict[Connection, float] = {}
        self._opening = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: deque[float] = deque()
        self._outcome = LoadOutcome()
        self._began = 0.0
        self._moved = asyncio.Event()

    async def run(self, steps: Sequence[LoadStep], told: Callable[[LoadOutcome], None] = lambda _: None) -> LoadOutcome:
        """Follow the schedule, then wait for what is under way."""
        self._outcome = outcome = LoadOutcome()
        self._began, cpu = perf_counter(), process_time()
        due = _schedule(steps)
        upcoming = next(due, None)
        look = 0.0
        while upcoming is not None or self._busy or self._waiting:
            now = perf_counter() - self._began
            while upcoming is not None and upcoming <= now and len(self._waiting) < MOST_WAITING:
                self._intend(upcoming)
                upcoming = next(due, None)
            if len(self._waiting) >= MOST_WAITING:
                upcoming = None
            self._send_waiting()
            if now >= look:
                look = now + LOOK_SECONDS
                self._give_up_late()
                told(outcome)
            await asyncio.sleep(TICK_SECONDS)
        outcome.seconds, outcome.cpu_seconds = perf_counter() - self._began, process_time() - cpu
        return outcome

    async def run_closed(self, number: int, concurrency: int) -> LoadOutcome:
        """So many requests, each connection sending its next one when the last was answered."""
        self._outcome = outcome = LoadOutcome()
        self._most = concurrency
        self._began, cpu = perf_counter(), process_time()
        left = number
        async with beside(self._keep_looking()):
            while left or self._busy or self._waiting or self._opening:
                self._moved.clear()
                # No more is due than there are connections that are free or may be opened.
                free = concurrency - len(self._busy) - len(self._waiting)
                for _ in range(min(left, free)):
                    self._intend(perf_counter() - self._began)
                    left -= 1
                self._send_waiting()
                await self._moved.wait()
        outcome.seconds, outcome.cpu_seconds = perf_counter() - self._began, process_time() - cpu
        return outcome

    async def aclose(self) -> None:
        """Let go of all connections."""
        for connection in (*self._idle, *self._busy):
            connection.close()
        await asyncio.sleep(0)

    def _intend(self, at: float) -> None:
        self._outcome.intended += 1
        self._second(at).intended += 1
        self._waiting.append(at)

    def _send_waiting(self) -> None:
        now = perf_counter() - self._began
        while self._waiting:
            connection = self._free()
            if connection is None:
                return
            at = self._waiting.popleft()
            self._send(connection, at, now)

    def _free(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        if len(self._busy) + self._opening < self._most and self._opening < len(self._waiting):
            self._opening += 1
            task = asyncio.get_running_loop().create_task(self._open())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return None

    async def _open(self) -> None:
        try:
            found = await connect(self._host, self._port)
        finally:
            self._opening -= 1
            self._moved.set()
        if isinstance(found, Connection):
            self._idle.append(found)
        elif self._waiting:
            self._ended(self._waiting.popleft(), found)

    def _send(self, connection: Connection, at: float, now: float) -> None:
        self._busy[connection] = now
        if now - at < LOOK_SECONDS:
            self._outcome.late.add(max(0.0, now - at))

        def done(answer: HttpAnswer) -> None:
            self._busy.pop(connection, None)
            if not connection.closed:
                self._idle.append(connection)
            self._ended(at, self._judge(answer))

        connection.ask(next(self._following), done, keep_body=False)

    def _ended(self, at: float, kind: str) -> None:
        self._moved.set()
        seconds = perf_counter() - self._began - at
        if kind not in self._outcome.by_kind:
            self._outcome.by_kind[kind] = Histogram()
        self._outcome.by_kind[kind].add(seconds)
        second = self._second(at)
        if kind.startswith("2"):
            second.latencies.add(seconds)
            second.answered += 1
        else:
            second.failed += 1

    def _second(self, at: float) -> Second:
        timeline = self._outcome.timeline
        while len(timeline) <= int(at):
            timeline.append(Second())
        return timeline[int(at)]

    async def _keep_looking(self) -> None:
        """Give up what is late; and have the closed loop look, should nothing else move it."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._give_up_late()
            self._moved.set()

    def _give_up_late(self) -> None:
        now = perf_counter() - self._began
        for connection in [one for one, since in self._busy.items() if now - since > self._timeout]:
            connection.give_up("timeout")
        while self._waiting and now - self._waiting[0] > self._timeout:
            self._outcome.unsent += 1
            self._ended(self._waiting.popleft(), "no connection in time")


def _kind(answer: HttpAnswer) -> str:
    return str(answer.status) if answer.status else answer.trouble


def _schedule(steps: Sequence[LoadStep]) -> Iterator[float]:
    """Intended starts, in seconds from the beginning; within a ramp they come closer and closer."""
    begins = 0.0
    for step in steps:
        at = 0.0
        while at < step.seconds:
            yield begins + at
            rate = step.start + (step.end - step.start) * at / step.seconds
            at += 1 / max(rate, 0.1)
        begins += step.seconds
