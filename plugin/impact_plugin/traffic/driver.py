"""Open-loop load: requests start when the schedule says, whether or not earlier ones have their reply.

Latency counts from the intended start, so that a service that falls behind shows it. A closed loop waits for the
service, and hides what users feel (https://www.scylladb.com/2021/04/22/on-coordinated-omission/).
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter, process_time
from typing import Final

import anyio.lowlevel
import msgspec
from anyio import Event, sleep
from anyio.abc import TaskGroup

from impact_plugin.process.background import open_background
from impact_plugin.traffic.client import Connection, HttpReply, connect

TICK_SECONDS: Final = 0.001
MAX_WAITING: Final = 200_000
"""Requests that are due and find no connection; beyond that the schedule is out of reach and the run ends."""

CHECK_SECONDS: Final = 0.1
STEPS_PER_SECOND: Final = 100_000
"""Resolution of latencies."""

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)


class LoadStep(msgspec.Struct, frozen=True):
    """A part of the schedule: requests a second at its start and at its end, and its length."""

    start: float
    end: float
    seconds: float


class Histogram:
    """Latencies to ten microseconds; its size is bounded by the longest of them."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.total = 0

    def add(self, seconds: float) -> None:
        """Count one latency."""
        self.counts[int(seconds * STEPS_PER_SECOND)] += 1
        self.total += 1

    def percentile(self, share: float) -> float:
        """The latency that ``share`` percent of all do not exceed; 0 if there are none."""
        left = self.total * share / 100
        for step in sorted(self.counts):
            left -= self.counts[step]
            if left <= 0:
                return step / STEPS_PER_SECOND
        return 0.0


class Second(msgspec.Struct):
    """The requests that were due in one second of a run."""

    intended: int = 0
    succeeded: int = 0
    failed: int = 0
    latencies: Histogram = msgspec.field(default_factory=Histogram)


class LoadOutcome(msgspec.Struct):
    """The result of a run. ``late`` is our own delay: how long after its time a request left that had a connection."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    intended: int = 0
    unsent: int = 0
    by_kind: dict[str, Histogram] = {}
    late: Histogram = msgspec.field(default_factory=Histogram)
    timeline: list[Second] = msgspec.field(default_factory=list)

    @property
    def kinds(self) -> Counter[str]:
        """How many replies of each kind: a status, or the fault instead."""
        return Counter({kind: histogram.total for kind, histogram in self.by_kind.items()})

    @property
    def good(self) -> int:
        """Requests whose reply has a status of 2xx."""
        return sum(count for kind, count in self.kinds.items() if kind.startswith("2"))

    @property
    def latencies(self) -> Histogram:
        """Latencies of good replies, from the intended start."""
        found = Histogram()
        for kind, histogram in self.by_kind.items():
            if kind.startswith("2"):
                found.counts.update(histogram.counts)
                found.total += histogram.total
        return found

    @property
    def share_failed(self) -> float:
        """The share of intended requests that failed."""
        return 1 - self.good / self.intended if self.intended else 0.0

    @property
    def core_share(self) -> float:
        """The share of a core that this process used."""
        return self.cpu_seconds / self.seconds if self.seconds else 0.0


class Driver:
    """Sends the requests that ``following`` yields, over ``connections`` connections at most."""

    def __init__(
        self,
        host: str,
        port: int,
        following: Iterator[bytes],
        *,
        connections: int = 100,
        timeout: float = 30.0,
        judge: Callable[[HttpReply], str] | None = None,
    ) -> None:
        self._host, self._port = host, port
        self._following = following
        self._most = connections
        self._timeout = timeout
        self._judge = judge or _kind
        self._idle: deque[Connection] = deque()
        self._busy: dict[Connection, float] = {}
        self._opening = 0
        self._waiting: deque[float] = deque()
        self._outcome = LoadOutcome()
        self._began = 0.0
        self._moved = Event()

    async def run(
        self, steps: Sequence[LoadStep], report: Callable[[LoadOutcome], None] = lambda _: None
    ) -> LoadOutcome:
        """Follow the schedule, then wait for the requests under way; ``report`` is called with the state so far."""
        self._outcome = outcome = LoadOutcome()
        self._began, cpu = perf_counter(), process_time()
        async with open_background() as tasks:
            await self._follow(_schedule(steps), report, tasks)
        outcome.seconds, outcome.cpu_seconds = perf_counter() - self._began, process_time() - cpu
        return outcome

    async def _follow(self, due: Iterator[float], report: Callable[[LoadOutcome], None], tasks: TaskGroup) -> None:
        upcoming = next(due, None)
        next_check = 0.0
        while upcoming is not None or self._busy or self._waiting:
            now = perf_counter() - self._began
            while upcoming is not None and upcoming <= now and len(self._waiting) < MAX_WAITING:
                self._intend(upcoming)
                upcoming = next(due, None)
            if len(self._waiting) >= MAX_WAITING:
                upcoming = None
            self._send_waiting(tasks)
            if now >= next_check:
                next_check = now + CHECK_SECONDS
                self._give_up_late()
                report(self._outcome)
            await sleep(TICK_SECONDS)

    async def run_closed(self, number: int, concurrency: int) -> LoadOutcome:
        """Send ``number`` requests, each connection the next one after the reply to its last."""
        self._outcome = outcome = LoadOutcome()
        self._most = concurrency
        self._began, cpu = perf_counter(), process_time()
        left = number
        async with open_background() as tasks:
            tasks.start_soon(self._check_regularly)
            while left or self._busy or self._waiting or self._opening:
                self._moved = Event()
                # No more requests are due than connections are free or may be opened.
                free = concurrency - len(self._busy) - len(self._waiting)
                for _ in range(min(left, free)):
                    self._intend(perf_counter() - self._began)
                    left -= 1
                self._send_waiting(tasks)
                await self._moved.wait()
        outcome.seconds, outcome.cpu_seconds = perf_counter() - self._began, process_time() - cpu
        return outcome

    async def aclose(self) -> None:
        """Close all connections."""
        for connection in (*self._idle, *self._busy):
            connection.close()
        await anyio.lowlevel.checkpoint()

    def _intend(self, at: float) -> None:
        self._outcome.intended += 1
        self._second(at).intended += 1
        self._waiting.append(at)

    def _send_waiting(self, tasks: TaskGroup) -> None:
        now = perf_counter() - self._began
        while self._waiting:
            connection = self._free(tasks)
            if connection is None:
                return
            at = self._waiting.popleft()
            self._send(connection, at, now)

    def _free(self, tasks: TaskGroup) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        if len(self._busy) + self._opening < self._most and self._opening < len(self._waiting):
            self._opening += 1
            tasks.start_soon(self._open)
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
        if now - at < CHECK_SECONDS:
            self._outcome.late.add(max(0.0, now - at))

        def on_reply(reply: HttpReply) -> None:
            self._busy.pop(connection, None)
            if not connection.closed:
                self._idle.append(connection)
            self._ended(at, self._judge(reply))

        connection.send(next(self._following), on_reply, keep_body=False)

    def _ended(self, at: float, kind: str) -> None:
        self._moved.set()
        seconds = perf_counter() - self._began - at
        if kind not in self._outcome.by_kind:
            self._outcome.by_kind[kind] = Histogram()
        self._outcome.by_kind[kind].add(seconds)
        second = self._second(at)
        if kind.startswith("2"):
            second.latencies.add(seconds)
            second.succeeded += 1
        else:
            second.failed += 1

    def _second(self, at: float) -> Second:
        timeline = self._outcome.timeline
        while len(timeline) <= int(at):
            timeline.append(Second())
        return timeline[int(at)]

    async def _check_regularly(self) -> None:
        """Give up late requests; and wake the closed loop, should nothing else do so."""
        while True:
            await sleep(CHECK_SECONDS)
            self._give_up_late()
            self._moved.set()

    def _give_up_late(self) -> None:
        now = perf_counter() - self._began
        for connection in [one for one, since in self._busy.items() if now - since > self._timeout]:
            connection.give_up("timeout")
        while self._waiting and now - self._waiting[0] > self._timeout:
            self._outcome.unsent += 1
            self._ended(self._waiting.popleft(), "no connection in time")


def _kind(reply: HttpReply) -> str:
    return str(reply.status) if reply.status else reply.fault


def _schedule(steps: Sequence[LoadStep]) -> Iterator[float]:
    """Yield the intended starts, in seconds from the beginning; in a ramp their distance changes."""
    begins = 0.0
    for step in steps:
        at = 0.0
        while at < step.seconds:
            yield begins + at
            rate = step.start + (step.end - step.start) * at / step.seconds
            at += 1 / max(rate, 0.1)
        begins += step.seconds
