"""Scheduler: grants permits to waiting requests, fair over accounts, urgent ones first, each visitor's in order.

Pure; times are monotonic seconds. Every method that may free a permit grants it at once, to whatever request is next.
An account whose limiter has a closed gate is not asked again until that gate opens or one of its requests ends, and so
delays no other account.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from enum import IntEnum
from math import inf
from typing import Final

import msgspec

from impact_plugin.delivery.limits.limiter import Limiter
from impact_plugin.delivery.limits.permits import EndpointName, Gate, LimiterStatistics, Permit, Wait
from impact_plugin.delivery.limits.rate_limits import RateLimits
from impact_plugin.delivery.policy import Cause

AGING_SECONDS: Final = 60.0
"""A request that has waited this long is as urgent as a conversion: a flood of orders must not starve page loads."""

MAX_LANE_LENGTH: Final = 200
MAX_LANE_SECONDS: Final = 900.0
"""A lane with more requests waiting, or a head older than this, loses its order: no visitor may hold up a shop."""

MAX_ACCOUNTS: Final = 4096
ACCOUNT_SHARE_DIVISOR: Final = 4
"""One account may have a quarter of all waiting requests."""

RESPONSE_SECONDS_WEIGHT: Final = 0.1
"""Weight of the latest response in the moving mean."""


class Urgency(IntEnum):
    """The order of requests within an account: conversions first."""

    CONVERSION = 0
    MODIFICATION = 1
    PAGE_LOAD = 2


class QueuedRequest:
    """A request that waits for a permit, or has one.

    The scheduler calls ``grant`` with the permit; it returns False if nobody needs it any more, and must not call the
    scheduler. ``lane`` identifies the visitor; None for a request without one. ``credentials`` is a hash of those in
    the request.
    """

    __slots__ = ("account", "credentials", "endpoint", "grant", "is_waiting", "lane", "queued_at", "retry", "urgency")

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
        self.is_waiting = False


class LimitReport(msgspec.Struct, frozen=True):
    """One line of ``/debug/limits``: an account's endpoint, its number of waiting requests, and its limiter's state."""

    account: str
    endpoint_path: EndpointName
    waiting: int
    statistics: LimiterStatistics


class _Lane:
    """A visitor's requests: one is ready or in flight, the others wait for it."""

    __slots__ = ("head_since", "waiting")

    def __init__(self, head_since: float) -> None:
        self.head_since = head_since
        self.waiting: deque[QueuedRequest] = deque()


class _Queue:
    """The requests to one endpoint of an account that are ready: only the limiter may still delay them."""

    __slots__ = ("closed_gate", "credentials", "limiter", "ready", "response_seconds", "waiting")

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        self.waiting = 0
        self.closed_gate: Wait | None = None
        self.credentials = 0
        self.response_seconds = 0.0
        # By urgency, new requests and retries in lines of their own: the retry budget stops only retries.
        self.ready: tuple[tuple[deque[QueuedRequest], deque[QueuedRequest]], ...] = tuple(
            (deque(), deque()) for _ in Urgency
        )

    def put(self, request: QueuedRequest) -> None:
        """Add a request that is ready; other credentials may open a gate that refused ones have closed."""
        if request.credentials != self.credentials:
            self.credentials, self.closed_gate = request.credentials, None
        self.ready[request.urgency][request.retry].append(request)

    def lines(self) -> list[deque[QueuedRequest]]:
        """The lines that have a waiting request at their head; removes cancelled requests from the heads."""
        found = []
        for pair in self.ready:
            for line in pair:
                while line and not line[0].is_waiting:
                    line.popleft()
                if line:
                    found.append(line)
        return found

    def measure(self, seconds: float) -> None:
        """Add a response time to the moving mean."""
        weight = RESPONSE_SECONDS_WEIGHT if self.response_seconds else 1.0
        self.response_seconds += (seconds - self.response_seconds) * weight


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
    """All requests of a process that wait for a permit.

    It calls ``wake_at`` with the time at which you must call :meth:`wake` at the latest, whenever that time may have
    changed; infinity stands for never. It calls ``notify_unordered`` when a lane loses its order.
    """

    def __init__(
        self,
        make_limiter: Callable[[str, EndpointName], Limiter],
        *,
        max_waiting: int,
        ordered: bool,
        wake_at: Callable[[float], None],
        notify_unordered: Callable[[], None] = lambda: None,
    ) -> None:
        self._make_limiter = make_limiter
        self._max_waiting = max_waiting
        self._ordered = ordered
        self._wake_at = wake_at
        self._notify_unordered = notify_unordered
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._ring: deque[_Account] = deque()
        self._alarms: list[tuple[float, int, _Account]] = []
        self._alarms_set = 0
        self.waiting = 0

    def submit(self, request: QueuedRequest, now: float) -> str | None:
        """Queue a request, and grant it a permit if it is next; returns why not, if too many requests wait."""
        account = self._account(request.account, now)
        if account is None or self.waiting >= self._max_waiting:
            return f"{self.waiting} requests wait already"
        if account.waiting >= max(1, self._max_waiting // ACCOUNT_SHARE_DIVISOR):
            return f"{account.waiting} requests of this account wait already"
        queue = self._queue(account, request.endpoint)
        request.queued_at = now
        request.is_waiting = True
        self._count(account, queue, 1)
        self._put(account, queue, request, now)
        self._activate(account)
        self.wake(now)
        return None

    def release(self, request: QueuedRequest, permit: Permit, cause: Cause, limits: RateLimits, now: float) -> None:
        """Give back the permit of a request whose attempt has ended; see :meth:`Limiter.release`."""
        account = self._accounts[request.account]
        queue = account.queues[request.endpoint]
        queue.limiter.release(permit, cause, limits, now)
        if cause is Cause.OK:
            queue.measure(now - permit.sent_at)
        self._end(account, queue, request, now)

    def release_unused(self, request: QueuedRequest, permit: Permit, now: float) -> None:
        """Give back the permit of a request that was not sent."""
        account = self._accounts[request.account]
        queue = account.queues[request.endpoint]
        queue.limiter.release_unused(permit)
        self._end(account, queue, request, now)

    def cancel(self, request: QueuedRequest, now: float) -> None:
        """Remove a request that still waits; the next one of its lane becomes ready."""
        if not request.is_waiting:
            return
        request.is_waiting = False
        account = self._accounts[request.account]
        queue = account.queues[request.endpoint]
        self._count(account, queue, -1)
        lane = account.lanes.get(request.lane) if request.lane is not None else None
        if lane is not None and request in lane.waiting:
            lane.waiting.remove(request)
        else:
            queue.lines()
            self._leave_lane(account, request, now)
        self.wake(now)

    def wake(self, now: float) -> None:
        """Grant permits to all requests that can have one now."""
        alarms = self._alarms
        while alarms and alarms[0][0] <= now:
            account = heapq.heappop(alarms)[2]
            account.wakes_at = inf
            self._activate(account)
        ring = self._ring
        while ring:
            account = ring.popleft()
            account.in_ring = False
            wait = self._grant_one(account, now)
            if wait is None:
                continue
            if wait.gate is Gate.SLOTS:
                # All accounts wait for a slot; this one stays the first.
                account.in_ring = True
                ring.appendleft(account)
                break
            self._set_alarm(account, wait.until)
        self._wake_at(alarms[0][0] if alarms else inf)

    def closed_gate(self, request: QueuedRequest) -> Wait | None:
        """The closed gate that all requests to this account's endpoint wait for, as last checked; None if open."""
        return self._accounts[request.account].queues[request.endpoint].closed_gate

    def response_seconds(self, request: QueuedRequest) -> float:
        """The mean response time of this account's endpoint, in seconds; 0 before the first response."""
        return self._accounts[request.account].queues[request.endpoint].response_seconds

    def report(self, now: float) -> Iterator[LimitReport]:
        """The state of every account's endpoints, for the operator."""
        for account in self._accounts.values():
            for endpoint, queue in account.queues.items():
                yield LimitReport(account.name, endpoint, queue.waiting, queue.limiter.statistics(now))

    def forget_idle(self, now: float) -> None:
        """Forget accounts that have no requests, and learned nothing that is still of use."""
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

    def _put(self, account: _Account, queue: _Queue, request: QueuedRequest, now: float) -> None:
        """Make a request ready, or let it wait in its lane."""
        if request.lane is None or not self._ordered:
            request.lane = None
            queue.put(request)
        elif (lane := account.lanes.get(request.lane)) is None:
            account.lanes[request.lane] = _Lane(now)
            queue.put(request)
        else:
            lane.waiting.append(request)
            if len(lane.waiting) > MAX_LANE_LENGTH or now - lane.head_since > MAX_LANE_SECONDS:
                self._give_up_order(account, request.lane)

    def _grant_one(self, account: _Account, now: float) -> Wait | None:
        """Grant one permit and put the account at the end of the ring; returns what to wait for if there is none."""
        until = inf
        for queue, line in self._candidates(account, now):
            if queue.closed_gate is not None and queue.closed_gate.until > now:
                until = min(until, queue.closed_gate.until)
                continue
            request = line[0]
            acquired = queue.limiter.try_acquire(now, retry=request.retry, credentials=request.credentials)
            if isinstance(acquired, Permit):
                queue.closed_gate = None
                line.popleft()
                self._hand_over(account, queue, request, acquired, now)
                self._activate(account)
                return None
            if acquired.gate is Gate.SLOTS:
                return acquired
            until = min(until, acquired.until)
            # The retry budget does not stop new requests.
            queue.closed_gate = acquired if acquired.gate is not Gate.RETRY_BUDGET else None
        return Wait(Gate.CONCURRENCY, until)

    def _candidates(self, account: _Account, now: float) -> list[tuple[_Queue, deque[QueuedRequest]]]:
        """The lines of an account, the most urgent first, and then the one whose head has waited the longest."""
        found = [(queue, line) for queue in account.queues.values() if queue.waiting for line in queue.lines()]
        if len(found) > 1:
            found.sort(key=lambda one: (_urgency(one[1][0], now), one[1][0].queued_at))
        return found

    def _hand_over(self, account: _Account, queue: _Queue, request: QueuedRequest, permit: Permit, now: float) -> None:
        self._count(account, queue, -1)
        request.is_waiting = False
        if not request.grant(permit):
            queue.limiter.release_unused(permit)
            self._leave_lane(account, request, now)

    def _end(self, account: _Account, queue: _Queue, request: QueuedRequest, now: float) -> None:
        queue.closed_gate = None
        self._leave_lane(account, request, now)
        self._activate(account)
        self.wake(now)

    def _leave_lane(self, account: _Account, request: QueuedRequest, now: float) -> None:
        """Make the next request of the lane ready."""
        if request.lane is None or (lane := account.lanes.get(request.lane)) is None:
            return
        if lane.waiting:
            following = lane.waiting.popleft()
            lane.head_since = now
            account.queues[following.endpoint].put(following)
            self._activate(account)
        else:
            del account.lanes[request.lane]

    def _give_up_order(self, account: _Account, lane: str) -> None:
        """Make all requests of a lane ready at once."""
        self._notify_unordered()
        for request in account.lanes.pop(lane).waiting:
            request.lane = None
            account.queues[request.endpoint].put(request)

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


def _urgency(request: QueuedRequest, now: float) -> int:
    return Urgency.CONVERSION if now - request.queued_at > AGING_SECONDS else request.urgency
