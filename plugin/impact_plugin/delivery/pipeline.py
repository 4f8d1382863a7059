"""One request from its turn to its verdict: wait, look in the ledger, send, judge, tell everybody who must know.

An attempt that has begun is never given up because somebody stopped waiting for it: it runs to its own end as a task,
and the ledger learns its outcome. Who asks for the same order meanwhile waits for that attempt, and nothing is sent.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from math import inf
from typing import Final

import msgspec
from anyio import CancelScope, Event, get_cancelled_exc_class, move_on_after

from impact_plugin.config.settings import DeliverySettings
from impact_plugin.delivery.client import DeliveryClient
from impact_plugin.delivery.limits.limiter import Limiter, Slots
from impact_plugin.delivery.limits.permits import GATES, EndpointName, LimitChange, Permit, Wait
from impact_plugin.delivery.limits.rate_limits import NO_RATE_LIMITS, read_rate_limits
from impact_plugin.delivery.limits.scheduler import LimitReport, QueuedRequest, Scheduler, Urgency
from impact_plugin.delivery.policy import NOT_RECORDED, Cause, ImpactResponse, Verdict, held_back, judge
from impact_plugin.errors import StateUnavailableError
from impact_plugin.orders.ledger import Ledger, OrderOutcome, Standing
from impact_plugin.process.background import repeat
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.delivery import DeliveryMeasured, LaneUnordered, LimitChanged, RequestSent
from impact_plugin.telemetry.events.orders import LedgerFailed, LedgerMeasured, LedgerRestored

MEASURE_SECONDS: Final = 1.0
SPARED_RESPONSES: Final = 4
"""An attempt begins only if this many mean response times are left until the router's deadline."""

SEPARATOR: Final = "\x1f"


class OrderIdentity(msgspec.Struct, frozen=True):
    """What makes two conversions the same one for impact.com: an order id is unique per event type.

    https://integrations.impact.com/impact-brand/reference/submit-a-conversion
    """

    account: str
    campaign: str
    event_type: str
    order_id: str


class Parcel(msgspec.Struct, frozen=True):
    """One request to send. ``lane`` stands for the visitor; ``order`` is None for a Page Load.

    ``attempt`` counts the earlier tries of whoever sends it; ``again`` sends an order that impact.com has already.
    """

    account: str
    endpoint: EndpointName
    url: str
    headers: Mapping[str, str]
    body: bytes
    lane: str | None = None
    order: OrderIdentity | None = None
    attempt: int = 0
    again: bool = False


class _Attempt:
    """One request on its way to its verdict, for which several callers may wait.

    A task of asyncio rather than of anyio's task group, which costs five times as much to start: with it the engine
    takes 1.4 times as much CPU time for a delivery, and a delivery with its HTTP a tenth more.
    """

    def __init__(self, task: asyncio.Task[Verdict]) -> None:
        self.task = task
        self._ended = Event()
        task.add_done_callback(self._end)

    async def verdict(self, seconds: float) -> Verdict:
        """The verdict within ``seconds``; raises what the attempt met instead."""
        with move_on_after(seconds):
            await self._ended.wait()
        if not self.task.done():
            return held_back(Cause.AMBIGUOUS, "no answer in time; the attempt goes on and its outcome is noted")
        if self.task.cancelled():
            return held_back(Cause.AMBIGUOUS, "the service stopped before the answer came")
        return self.task.result()

    def _end(self, _task: asyncio.Task[Verdict]) -> None:
        self._ended.set()


class _PermitWaiter:
    """Waits for a permit, or for the verdict that there will be none."""

    def __init__(self) -> None:
        self.decision: Permit | Verdict | None = None
        self._decided: Event | None = None

    def decide(self, decision: Permit | Verdict) -> bool:
        """Decide; False, and nothing changes, when it was decided before."""
        if self.decision is not None:
            return False
        self.decision = decision
        if self._decided is not None:
            self._decided.set()
        return True

    async def wait(self, seconds: float) -> None:
        """Wait for the decision, which most requests need not, for up to ``seconds``."""
        self._decided = Event()
        with move_on_after(seconds):
            await self._decided.wait()


class Deliveries:
    """Delivers parcels for all accounts. Attempts are tasks that end with :meth:`run`."""

    def __init__(
        self,
        settings: DeliverySettings,
        client: DeliveryClient,
        ledger: Ledger,
        digest: Callable[[str], bytes],
        telemetry: Telemetry,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._client = client
        self._ledger = ledger
        self._digest = digest
        self._telemetry = telemetry
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._slots = Slots(settings.connections)
        self._scheduler = Scheduler(
            self._make_limiter,
            max_waiting=settings.max_waiting,
            ordered=settings.ordering == "lane",
            wake_at=self._wake_at,
            notify_unordered=lambda: telemetry.emit(LaneUnordered()),
        )
        self._alarm: asyncio.TimerHandle | None = None
        self._waiting: set[_PermitWaiter] = set()
        self._orders: dict[bytes, _Attempt] = {}
        self._attempts: set[_Attempt] = set()
        self._ledger_down = False
        self._stopping = False

    async def deliver(
        self, parcel: Parcel, *, seconds: float, is_abandoned: Callable[[], bool] = lambda: False
    ) -> Verdict:
        """The verdict on one parcel within ``seconds``.

        ``is_abandoned`` tells that nobody waits for it any more: then it is not sent, unless that has happened already.
        """
        if self._stopping:
            return _STOPPING
        identity = None if parcel.order is None else self._identity(parcel.order)
        attempt = self._orders.get(identity) if identity is not None else None
        if attempt is None:
            attempt = self._start(parcel, identity, self._loop.time() + seconds, is_abandoned)
        return await attempt.verdict(seconds)

    def report(self) -> list[LimitReport]:
        """Every account's endpoints: state, limit, what waits and why."""
        return list(self._scheduler.report(self._loop.time()))

    def stop(self) -> None:
        """Take nothing new and send nothing that waits; what is under way goes on."""
        self._stopping = True
        for waiter in list(self._waiting):
            waiter.decide(_STOPPING)

    async def drain(self, seconds: float) -> None:
        """Stop, and wait for what is under way, ``seconds`` at most."""
        self.stop()
        await self._wait_for_attempts(seconds)

    async def run(self) -> None:
        """Measure, forget accounts that are idle, and see whether the ledger is back; runs until cancelled.

        Attempts that are under way then are cancelled, and stay unknown in the ledger.
        """
        try:
            await repeat(self._telemetry, "delivery", self._measure, MEASURE_SECONDS)
        finally:
            self.stop()
            for attempt in self._attempts:
                attempt.task.cancel()
            with CancelScope(shield=True):
                await self._wait_for_attempts(None)

    async def _wait_for_attempts(self, seconds: float | None) -> None:
        if self._attempts:
            await asyncio.wait([attempt.task for attempt in self._attempts], timeout=seconds)

    async def _measure(self) -> None:
        self._scheduler.forget_idle(self._loop.time())
        self._telemetry.emit(_measured(self.report()))
        await self._check_ledger()

    def _start(
        self, parcel: Parcel, identity: bytes | None, deadline: float, is_abandoned: Callable[[], bool]
    ) -> _Attempt:
        attempt = _Attempt(self._loop.create_task(self._attempt(parcel, identity, deadline, is_abandoned)))
        self._attempts.add(attempt)
        if identity is not None:
            self._orders[identity] = attempt
        attempt.task.add_done_callback(lambda _: self._forget(attempt, identity))
        return attempt

    def _forget(self, attempt: _Attempt, identity: bytes | None) -> None:
        self._attempts.discard(attempt)
        if identity is not None:
            del self._orders[identity]

    async def _attempt(
        self, parcel: Parcel, identity: bytes | None, deadline: float, is_abandoned: Callable[[], bool]
    ) -> Verdict:
        waiter = _PermitWaiter()
        request = _queued_request(parcel, waiter.decide)
        permit = await self._wait_for_permit(request, waiter, deadline)
        if isinstance(permit, Verdict):
            return permit
        return await self._with_permit(request, permit, parcel, identity, is_abandoned)

    async def _wait_for_permit(
        self, request: QueuedRequest, waiter: _PermitWaiter, deadline: float
    ) -> Permit | Verdict:
        """Wait for a permit for as long as an attempt could still end in time."""
        now = self._loop.time()
        refusal = self._scheduler.submit(request, now)
        if refusal is not None:
            return held_back(Cause.BUSY, refusal)
        if waiter.decision is not None:
            return waiter.decision
        patience = deadline - now
        expires = deadline - min(SPARED_RESPONSES * self._scheduler.response_seconds(request), patience / 2)
        closed = self._scheduler.closed_gate(request)
        if closed is None or closed.until == inf or closed.until <= expires:
            self._waiting.add(waiter)
            try:
                await waiter.wait(expires - now)
            except get_cancelled_exc_class():
                # A permit that is granted from now on is given back at once.
                waiter.decide(_STOPPING)
                raise
            finally:
                self._waiting.discard(waiter)
        return self._end_wait(request, waiter)

    def _end_wait(self, request: QueuedRequest, waiter: _PermitWaiter) -> Permit | Verdict:
        """The permit or the verdict; a request that still waits is cancelled."""
        if isinstance(waiter.decision, Permit):
            return waiter.decision
        closed = self._scheduler.closed_gate(request)
        now = self._loop.time()
        self._scheduler.cancel(request, now)
        if waiter.decision is not None:
            return waiter.decision
        verdict = held_back(Cause.WAITING, _explain(closed, now))
        waiter.decide(verdict)
        return verdict

    async def _with_permit(
        self,
        request: QueuedRequest,
        permit: Permit,
        parcel: Parcel,
        identity: bytes | None,
        is_abandoned: Callable[[], bool],
    ) -> Verdict:
        """Everything from the permit on: whatever happens, the permit is given back."""
        cause: Cause | None = None
        limits = NO_RATE_LIMITS
        try:
            refused = await self._begin(parcel, identity, is_abandoned)
            if refused is not None:
                return refused
            # The time of the ledger's commit is not impact.com's response time.
            permit = msgspec.structs.replace(permit, sent_at=self._loop.time())
            cause = Cause.AMBIGUOUS
            response = await self._client.post(
                parcel.url, parcel.headers, parcel.body, seconds=self._settings.timeout_seconds
            )
            verdict = judge(response, attempt=parcel.attempt)
            cause = verdict.cause
            status = 0
            if isinstance(response, ImpactResponse):
                status = response.status
                limits = read_rate_limits(response.headers, self._clock())
            self._telemetry.emit(RequestSent(parcel.endpoint, cause, status, self._loop.time() - permit.sent_at))
            if identity is not None:
                await self._ledger.settle(identity, _outcome(cause))
            return verdict
        finally:
            now = self._loop.time()
            if cause is None:
                self._scheduler.release_unused(request, permit, now)
            else:
                self._scheduler.release(request, permit, cause, limits, now)

    async def _begin(self, parcel: Parcel, identity: bytes | None, is_abandoned: Callable[[], bool]) -> Verdict | None:
        """The verdict on a parcel that must not be sent; None, and the intent on disk, for one that may."""
        if is_abandoned():
            return held_back(Cause.WAITING, "the router hung up before its turn came")
        if identity is None:
            return None
        try:
            standing = await self._ledger.begin(identity, again=parcel.again)
        except StateUnavailableError as error:
            self._ledger_failed(error)
            return held_back(Cause.STATE_UNAVAILABLE, str(error))
        return _STANDINGS.get(standing)

    def _ledger_failed(self, error: StateUnavailableError) -> None:
        if not self._ledger_down:
            self._ledger_down = True
            self._telemetry.emit(LedgerFailed(str(error)))

    async def _check_ledger(self) -> None:
        """Whether it is back, and what it holds."""
        try:
            if self._ledger_down:
                await self._ledger.check()
            tally = await self._ledger.tally()
        except StateUnavailableError as error:
            self._ledger_failed(error)
            return
        if self._ledger_down:
            self._ledger_down = False
            self._telemetry.emit(LedgerRestored())
        self._telemetry.emit(LedgerMeasured(tally.size, tally.unsettled, tally.capacity, tally.evicted))

    def _identity(self, order: OrderIdentity) -> bytes:
        return self._digest(SEPARATOR.join(("order", order.account, order.campaign, order.event_type, order.order_id)))

    def _make_limiter(self, account: str, endpoint: EndpointName) -> Limiter:
        def notify(change: LimitChange) -> None:
            self._telemetry.emit(LimitChanged(account, endpoint, change.change, change.detail))

        jitter = random.Random()  # noqa: S311 - not a secret
        return Limiter(self._slots, self._settings.account_connections, jitter, notify)

    def _wake_at(self, when: float) -> None:
        """Set the timer that wakes the scheduler, unless it is set for an earlier time.

        A timer of the event loop rather than a task that sleeps: it is set anew for nearly every request.
        """
        alarm = self._alarm
        if alarm is not None and not alarm.cancelled():
            if alarm.when() <= when and alarm.when() > self._loop.time():
                return
            alarm.cancel()
        self._alarm = self._loop.call_at(when, self._wake) if when < inf else None

    def _wake(self) -> None:
        self._scheduler.wake(self._loop.time())


_STOPPING: Final = held_back(Cause.STOPPING, "the service is stopping")

_STANDINGS: Final[dict[Standing, Verdict]] = {
    Standing.DELIVERED: Verdict(
        "delivered",
        Cause.DUPLICATE_ORDER,
        f"{Cause.DUPLICATE_ORDER}: impact.com has this order already; not sent again",
    ),
    Standing.EXPIRED: held_back(
        Cause.AMBIGUOUS_EXPIRED, "whether impact.com has this order is unknown, and it is too late to send it again"
    ),
    Standing.BUSY: held_back(Cause.ORDER_UNDER_WAY, "another process is sending this order"),
}
"""What the ledger forbids; of the others an intent is on disk."""


def _queued_request(parcel: Parcel, grant: Callable[[Permit], bool]) -> QueuedRequest:
    return QueuedRequest(
        parcel.account,
        parcel.endpoint,
        Urgency.CONVERSION if parcel.endpoint == "conversions" else Urgency.PAGE_LOAD,
        grant,
        lane=parcel.lane,
        retry=parcel.attempt > 0,
        credentials=hash(parcel.headers.get("Authorization", "")),
    )


def _outcome(cause: Cause) -> OrderOutcome:
    """What the ledger is to know of an attempt."""
    if cause is Cause.OK:
        return OrderOutcome.DELIVERED
    return OrderOutcome.NOTHING if cause in NOT_RECORDED else OrderOutcome.UNKNOWN


def _explain(closed: Wait | None, now: float) -> str:
    """The gate that a request waited for, and how long it stays closed."""
    if closed is None:
        return "its turn did not come before the router's deadline"
    left = "" if closed.until == inf else f" ({max(0.0, closed.until - now):.1f} s more)"
    return f"{closed.gate}{left}: {GATES[closed.gate]}"


def _measured(reports: list[LimitReport]) -> DeliveryMeasured:
    """The sums over all accounts, by endpoint: what waits, what is under way, and accounts by state."""
    waiting: dict[str, int] = {"conversions": 0, "pageload": 0}
    in_flight = dict(waiting)
    states = {(endpoint, state): 0 for endpoint in waiting for state in ("open", "probing", "closed")}
    for one in reports:
        waiting[one.endpoint_path] += one.waiting
        in_flight[one.endpoint_path] += one.statistics.in_flight
        states[one.endpoint_path, one.statistics.state] += 1
    return DeliveryMeasured(waiting, in_flight, states)
