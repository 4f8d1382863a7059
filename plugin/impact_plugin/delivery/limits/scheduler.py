"""Whose request goes next: fair over accounts, urgent ones first inside an account, each visitor's in their order.

Pure: it is told the time in monotonic seconds and answers through the turns' callbacks. An account whose limiter says
wait leaves the ring and comes back by its time or when one of its requests has come back, so that nobody is asked in
vain and no account stands in another's way.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from enum import IntEnum
from math import inf
from typing import Final

import msgspec

from impact_plugin.delivery.limits.gates import EndpointName, Gate, LimiterStatistics, Permit, Wait
from impact_plugin.delivery.limits.limiter import Limiter
from impact_plugin.delivery.limits.rate_limits import RateLimits
from impact_plugin.delivery.policy import Cause

AGED_SECONDS: Final = 60.0
"""After so long a Page Load goes before younger conversions: a flood of orders must not starve it."""

LANE_LENGTH: Final = 200
LANE_SECONDS: Final = 900.0
"""More waiting, or a head older than that, and the visitor's order is given up: one visitor must not hold a shop up."""

MAX_ACCOUNTS: Final = 4096
SHARE: Final = 4
"""One account may have a quarter of all that wait."""


class Urgency(IntEnum):
    """Within an account: money first."""

    CONVERSION = 0
    MODIFICATION = 1
    PAGE_LOAD = 2


class SchedulerTurn:
    """One request that waits for leave, or has it.

    ``grant`` is called with the permit when its turn comes; it returns False when nobody wants it any more. ``lane``
    stands for the visitor, None for a request without one. ``credentials`` is a hash of what it authenticates with.
    """

    __slots__ = ("account", "credentials", "dropped", "endpoint", "grant", "lane", "queued_at", "retry", "urgency")

    def __init__(
        self,
        account: str,
        endpoint: EndpointName,
        urgency: Urgency,
        grant: Callable[[Permit], bool],
        *,
        lane: str | None = None,
        retry: bool = False,
        credentials: int = 0,
    ) -> None:
        self.account = account
        self.endpoint: EndpointName = endpoint
        self.urgency = urgency
        self.grant = grant
        self.lane = lane
        self.retry = retry
        self.credentials = credentials
        self.queued_at = 0.0
        self.dropped = False


class Refusal(msgspec.Struct, frozen=True):
    """No room for another one to wait: ``busy`` tells whose limit it is."""

    busy: str


class LimitReport(msgspec.Struct, frozen=True):
    """One line of ``/debug/limits``: an account's endpoint, how many wait, and what its limiter says."""

    account: str
    endpoint_path: EndpointName
    waiting: int
    statistics: LimiterStatistics


class _Lane:
    """A visitor's requests: one is ready or under way, the others wait for it."""

    __slots__ = ("since", "waiting")

    def __init__(self, since: float) -> None:
        self.since = since
        self.waiting: deque[SchedulerTurn] = deque()


class _Queue:
    """The requests to one endpoint of an account that could go if its limiter let them."""

    __slots__ = ("asleep", "credentials", "limiter", "ready", "seconds", "waiting")

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        self.waiting = 0
        self.asleep: Wait | None = None
        self.credentials = 0
        self.seconds = 0.0
        # New ones and retries stand apart, because the retry budget stops only the latter.
        self.ready: tuple[tuple[deque[SchedulerTurn], deque[SchedulerTurn]], ...] = tuple(
            (deque(), deque()) for _ in Urgency
        )

    def put(self, turn: SchedulerTurn) -> None:
        """Let it be ready; other credentials may open what refused ones have closed."""
        if turn.credentials != self.credentials:
            self.credentials, self.asleep = turn.credentials, None
        self.ready[turn.urgency][turn.retry].append(turn)

    def heads(self) -> list[deque[SchedulerTurn]]:
        """The lines that have somebody at their head, those who left taken out."""
        found = []
        for pair in self.ready:
            for line in pair:
                while line and line[0].dropped:
                    line.popleft()
                if line:
                    found.append(line)
        return found

    def measured(self, seconds: float) -> None:
        """Note how long an answer took; a moving mean."""
        self.seconds += (seconds - self.seconds) * 0.1 if self.seconds else seconds


class _Account:
    """One account: its two queues and its visitors' lanes."""

    __slots__ = ("in_ring", "lanes", "name", "queues", "waiting", "wakes_at")

    def __init__(self, name: str) -> None:
        self.name = name
        self.queues: dict[EndpointName, _Queue] = {}
        self.lanes: dict[str, _Lane] = {}
        self.waiting = 0
        self.in_ring = False
        self.wakes_at = inf


class Scheduler:
    """All waiting requests of a process; see the module."""

    def __init__(
        self,
        make_limiter: Callable[[str, EndpointName], Limiter],
        *,
        max_waiting: int,
        ordered: bool,
        unordered: Callable[[], None] = lambda: None,
    ) -> None:
        self._make_limiter = make_limiter
        self._max_waiting = max_waiting
        self._ordered = ordered
        self._unordered = unordered
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._ring: deque[_Account] = deque()
        self._alarms: list[tuple[float, int, _Account]] = []
        self._alarms_set = 0
        self.waiting = 0

    def submit(self, turn: SchedulerTurn, now: float) -> Refusal | None:
        """Let it wait for its turn; a refusal when too many wait. Call :meth:`pump` afterwards."""
        account = self._account(turn.account, now)
        if account is None or self.waiting >= self._max_waiting:
            return Refusal(f"{self.waiting} requests wait already")
        if account.waiting >= max(1, self._max_waiting // SHARE):
            return Refusal(f"{account.waiting} requests of this account wait already")
        queue = self._queue(account, turn.endpoint)
        turn.queued_at = now
        self._count(account, queue, 1)
        if turn.lane is None or not self._ordered:
            turn.lane = None
            queue.put(turn)
        elif (lane := account.lanes.get(turn.lane)) is None:
            account.lanes[turn.lane] = _Lane(now)
            queue.put(turn)
        else:
            lane.waiting.append(turn)
            if len(lane.waiting) > LANE_LENGTH or now - lane.since > LANE_SECONDS:
                self._give_up_order(account, turn.lane)
        self._activate(account)
        return None

    def pump(self, now: float) -> float:
        """Give leave to all who can have it now; returns when to call again at the latest (infinity: not by time)."""
        alarms = self._alarms
        while alarms and alarms[0][0] <= now:
            account = heapq.heappop(alarms)[2]
            account.wakes_at = inf
            self._activate(account)
        ring = self._ring
        while ring:
            account = ring.popleft()
            account.in_ring = False
            wait = self._serve_one(account, now)
            if wait is None:
                continue
            if wait.gate is Gate.SLOTS:
                # Everybody would hear the same; this one asks first when a slot is free.
                account.in_ring = True
                ring.appendleft(account)
                break
            self._set_alarm(account, wait.until)
        return alarms[0][0] if alarms else inf

    def done(self, turn: SchedulerTurn, permit: Permit, cause: Cause, limits: RateLimits, now: float) -> None:
        """Its attempt has ended. Call :meth:`pump` afterwards."""
        account = self._accounts[turn.account]
        queue = account.queues[turn.endpoint]
        queue.limiter.release(permit, cause, limits, now)
        if cause is Cause.OK:
            queue.measured(now - permit.sent_at)
        self._came_back(account, queue, turn, now)

    def withdraw(self, turn: SchedulerTurn, permit: Permit, now: float) -> None:
        """It had leave and was not sent. Call :meth:`pump` afterwards."""
        account = self._accounts[turn.account]
        queue = account.queues[turn.endpoint]
        queue.limiter.release_unused(permit)
        self._came_back(account, queue, turn, now)

    def drop(self, turn: SchedulerTurn, now: float) -> None:
        """Nobody waits for it any more. Call :meth:`pump` afterwards: the next of its visitor may go."""
        if turn.dropped:
            return
        turn.dropped = True
        account = self._accounts[turn.account]
        queue = account.queues[turn.endpoint]
        self._count(account, queue, -1)
        lane = account.lanes.get(turn.lane) if turn.lane is not None else None
        if lane is not None and turn in lane.waiting:
            lane.waiting.remove(turn)
            return
        queue.heads()
        self._leave_lane(account, turn, now)

    def asleep(self, turn: SchedulerTurn) -> Wait | None:
        """Why the account's endpoint lets nobody go now, and until when; None while it does."""
        return self._accounts[turn.account].queues[turn.endpoint].asleep

    def answer_seconds(self, turn: SchedulerTurn) -> float:
        """How long impact.com takes to answer this account's endpoint, a moving mean; 0 before the first answer."""
        return self._accounts[turn.account].queues[turn.endpoint].seconds

    def report(self, now: float) -> Iterator[LimitReport]:
        """Every account's endpoints, for people."""
        for account in self._accounts.values():
            for endpoint, queue in account.queues.items():
                yield LimitReport(account.name, endpoint, queue.waiting, queue.limiter.statistics(now))

    def forget_idle(self, now: float) -> None:
        """Let go of accounts that have nothing under way and nothing learned worth keeping."""
        for account in [one for one in self._accounts.values() if self._is_idle(one, now)]:
            del self._accounts[account.name]

    def _account(self, name: str, now: float) -> _Account | None:
        account = self._accounts.get(name)
        if account is None:
            if len(self._accounts) >= MAX_ACCOUNTS:
                self.forget_idle(now)
            if len(self._accounts) >= MAX_ACCOUNTS:
                return None
            account = self._accounts[name] = _Account(name)
        return account

    def _queue(self, account: _Account, endpoint: EndpointName) -> _Queue:
        queue = account.queues.get(endpoint)
        if queue is None:
            queue = account.queues[endpoint] = _Queue(self._make_limiter(account.name, endpoint))
        return queue

    def _serve_one(self, account: _Account, now: float) -> Wait | None:
        """Give leave to one request and put the account back at the end of the ring (None), or tell why none can go."""
        until = inf
        for queue, line in self._candidates(account, now):
            if queue.asleep is not None and queue.asleep.until > now:
                until = min(until, queue.asleep.until)
                continue
            turn = line[0]
            leave = queue.limiter.try_acquire(now, retry=turn.retry, credentials=turn.credentials)
            if isinstance(leave, Permit):
                queue.asleep = None
                line.popleft()
                self._hand_over(account, queue, turn, leave, now)
                self._activate(account)
                return None
            if leave.gate is Gate.SLOTS:
                return leave
            until = min(until, leave.until)
            # A budget for retries does not stop new requests.
            queue.asleep = leave if leave.gate is not Gate.RETRY_BUDGET else None
        return Wait(Gate.CONCURRENCY, until)

    def _candidates(self, account: _Account, now: float) -> list[tuple[_Queue, deque[SchedulerTurn]]]:
        """The lines of an account, the most urgent first; those who have waited for long count as urgent."""
        found = [(queue, line) for queue in account.queues.values() if queue.waiting for line in queue.heads()]
        if len(found) > 1:
            found.sort(key=lambda one: (_rank(one[1][0], now), one[1][0].queued_at))
        return found

    def _hand_over(self, account: _Account, queue: _Queue, turn: SchedulerTurn, permit: Permit, now: float) -> None:
        self._count(account, queue, -1)
        turn.dropped = True
        if not turn.grant(permit):
            queue.limiter.release_unused(permit)
            self._leave_lane(account, turn, now)

    def _came_back(self, account: _Account, queue: _Queue, turn: SchedulerTurn, now: float) -> None:
        queue.asleep = None
        self._leave_lane(account, turn, now)
        if account.waiting:
            self._activate(account)

    def _leave_lane(self, account: _Account, turn: SchedulerTurn, now: float) -> None:
        """Let the visitor's next request be ready."""
        if turn.lane is None or (lane := account.lanes.get(turn.lane)) is None:
            return
        if lane.waiting:
            following = lane.waiting.popleft()
            lane.since = now
            account.queues[following.endpoint].put(following)
            self._activate(account)
        else:
            del account.lanes[turn.lane]

    def _give_up_order(self, account: _Account, name: str) -> None:
        """Let all requests of a visitor be ready at once."""
        self._unordered()
        for turn in account.lanes.pop(name).waiting:
            turn.lane = None
            account.queues[turn.endpoint].put(turn)

    def _activate(self, account: _Account) -> None:
        if not account.in_ring and account.waiting:
            account.in_ring = True
            self._ring.append(account)

    def _set_alarm(self, account: _Account, until: float) -> None:
        if until < account.wakes_at:
            account.wakes_at = until
            self._alarms_set += 1
            heapq.heappush(self._alarms, (until, self._alarms_set, account))

    def _count(self, account: _Account, queue: _Queue, change: int) -> None:
        self.waiting += change
        account.waiting += change
        queue.waiting += change

    @staticmethod
    def _is_idle(account: _Account, now: float) -> bool:
        return not account.waiting and all(queue.limiter.is_idle(now) for queue in account.queues.values())


def _rank(turn: SchedulerTurn, now: float) -> int:
    return Urgency.CONVERSION if now - turn.queued_at > AGED_SECONDS else turn.urgency
