"""Delivers one request: waits for a permit, records the intent in the ledger, sends, judges the response, reports it.

An attempt continues as a task of its own even if its caller stops waiting, and the ledger gets its outcome. A second
caller with the same order waits for that attempt, and nothing is sent.
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
    """What makes two conversions the same for impact.com: an order id is unique per event type.

    https://integrations.impact.com/impact-brand/reference/submit-a-conversion
    """

    account: str
    campaign: str
    event_type: str
    order_id: str


class DeliveryRequest(msgspec.Struct, frozen=True):
    """A request to deliver. ``lane`` identifies the visitor; ``order`` is None for a Page Load.

    ``attempt`` is the number of earlier attempts of the caller; ``resend`` sends an order that impact.com already has.
    """

    account: str
    endpoint: EndpointName
    url: str
    headers: Mapping[str, str]
    body: bytes
    lane: str | None = None
    order: OrderIdentity | None = None
    attempt: int = 0
    resend: bool = False


class _Attempt:
    """One attempt to deliver a request, for which several callers may wait.

    A task of asyncio rather than of anyio's task group, which costs five times as much to start: with it the engine
    takes 1.4 times as much CPU time for a delivery, and a delivery with its HTTP a tenth more.
    """

    def __init__(self, task: asyncio.Task[Verdict]) -> None:
        self.task = task
        self._ended = Event()
        task.add_done_callback(self._end)

    async def verdict(self, seconds: float) -> Verdict:
        """The verdict within ``seconds``; raises the exception of the attempt, if any."""
        with move_on_after(seconds):
            await self._ended.wait()
        if not self.task.done():
            return held_back(Cause.AMBIGUOUS, "no response in time; the attempt continues, and its outcome is recorded")
        if self.task.cancelled():
            return held_back(Cause.AMBIGUOUS, "the service stopped before there was a response")
        return self.task.result()

    def _end(self, _task: asyncio.Task[Verdict]) -> None:
        self._ended.set()


class _PermitWaiter:
    """Waits for a permit, or for the verdict that there will be none."""

    def __init__(self) -> None:
        self.decision: Permit | Verdict | None = None
        self._decided: Event | None = None

    def decide(self, decision: Permit | Verdict) -> bool:
        """Decide; returns False, and changes nothing, if it was decided before."""
        if self.decision is not None:
            return False
        self.decision = decision
        if self._decided is not None:
            self._decided.set()
        return True

    async def wait(self, seconds: float) -> None:
        """Wait for the decision for up to ``seconds``; most requests need not wait."""
        self._decided = Event()
        with move_on_after(seconds):
            await self._decided.wait()


class Deliveries:
    """Delivers requests of all accounts. Attempts are tasks that end with :meth:`run`."""

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
        self, request: DeliveryRequest, *, seconds: float, is_abandoned: Callable[[], bool] = lambda: False
    ) -> Verdict:
        """Deliver a request, and return its verdict within ``seconds``.

        It is not sent if ``is_abandoned`` says, before that, that nobody waits for it any more.
        """
        if self._stopping:
            return _STOPPING
        identity = None if request.order is None else self._identity(request.order)
        attempt = self._orders.get(identity) if identity is not None else None
        if attempt is None:
            attempt = self._start(request, identity, self._loop.time() + seconds, is_abandoned)
        return await attempt.verdict(seconds)

    def report(self) -> list[LimitReport]:
        """The state of every account's endpoints: limits, how many requests wait, and why."""
        return list(self._scheduler.report(self._loop.time()))

    def stop(self) -> None:
        """Accept no new requests and send no waiting ones; attempts in flight continue."""
        self._stopping = True
        for waiter in list(self._waiting):
            waiter.decide(_STOPPING)

    async def drain(self, seconds: float) -> None:
        """Stop, and wait up to ``seconds`` for the attempts in flight."""
        self.stop()
        await self._wait_for_attempts(seconds)

    async def run(self) -> None:
        """Measure, forget idle accounts, and check the ledger, until cancelled.

        Then the attempts in flight are cancelled, and their outcome stays unknown in the ledger.
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
        self, request: DeliveryRequest, identity: bytes | None, deadline: float, is_abandoned: Callable[[], bool]
    ) -> _Attempt:
        attempt = _Attempt(self._loop.create_task(self._attempt(request, identity, deadline, is_abandoned)))
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
        self, request: DeliveryRequest, identity: bytes | None, deadline: float, is_abandoned: Callable[[], bool]
    ) -> Verdict:
        waiter = _PermitWaiter()
        queued = _queued_request(request, waiter.decide)
        permit = await self._wait_for_permit(queued, waiter, deadline)
        if isinstance(permit, Verdict):
            return permit
        return await self._with_permit(queued, permit, request, identity, is_abandoned)

    async def _wait_for_permit(self, queued: QueuedRequest, waiter: _PermitWaiter, deadline: float) -> Permit | Verdict:
        """Wait for a permit for as long as an attempt could still end in time."""
        now = self._loop.time()
        refusal = self._scheduler.submit(queued, now)
        if refusal is not None:
            return held_back(Cause.BUSY, refusal)
        if waiter.decision is not None:
            return waiter.decision
        patience = deadline - now
        expires = deadline - min(SPARED_RESPONSES * self._scheduler.response_seconds(queued), patience / 2)
        closed = self._scheduler.closed_gate(queued)
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
        return self._end_wait(queued, waiter)

    def _end_wait(self, queued: QueuedRequest, waiter: _PermitWaiter) -> Permit | Verdict:
        """The permit or the verdict; a request that still waits is cancelled."""
        if isinstance(waiter.decision, Permit):
            return waiter.decision
        closed = self._scheduler.closed_gate(queued)
        now = self._loop.time()
        self._scheduler.cancel(queued, now)
        if waiter.decision is not None:
            return waiter.decision
        verdict = held_back(Cause.WAITING, _explain(closed, now))
        waiter.decide(verdict)
        return verdict

    async def _with_permit(
        self,
        queued: QueuedRequest,
        permit: Permit,
        request: DeliveryRequest,
        identity: bytes | None,
        is_abandoned: Callable[[], bool],
    ) -> Verdict:
        """Use the permit for one attempt, and give it back whatever happens."""
        cause: Cause | None = None
        limits = NO_RATE_LIMITS
        try:
            refused = await self._begin(request, identity, is_abandoned)
            if refused is not None:
                return refused
            # The time of the ledger's commit is not impact.com's response time.
            permit = msgspec.structs.replace(permit, sent_at=self._loop.time())
            cause = Cause.AMBIGUOUS
            response = await self._client.post(
                request.url, request.headers, request.body, seconds=self._settings.timeout_seconds
            )
            verdict = judge(response, attempt=request.attempt)
            cause = verdict.cause
            status = 0
            if isinstance(response, ImpactResponse):
                status = response.status
                limits = read_rate_limits(response.headers, self._clock())
            self._telemetry.emit(RequestSent(request.endpoint, cause, status, self._loop.time() - permit.sent_at))
            if identity is not None:
                await self._ledger.settle(identity, _outcome(cause))
            return verdict
        finally:
            now = self._loop.time()
            if cause is None:
                self._scheduler.release_unused(queued, permit, now)
            else:
                self._scheduler.release(queued, permit, cause, limits, now)

    async def _begin(
        self, request: DeliveryRequest, identity: bytes | None, is_abandoned: Callable[[], bool]
    ) -> Verdict | None:
        """Record the intent on disk; returns the verdict on a request that must not be sent, otherwise None."""
        if is_abandoned():
            return held_back(Cause.WAITING, "the router hung up before there was a permit")
        if identity is None:
            return None
        try:
            standing = await self._ledger.begin(identity, again=request.resend)
        except StateUnavailableError as error:
            self._ledger_failed(error)
            return held_back(Cause.STATE_UNAVAILABLE, str(error))
        return _STANDINGS.get(standing)

    def _ledger_failed(self, error: StateUnavailableError) -> None:
        if not self._ledger_down:
            self._ledger_down = True
            self._telemetry.emit(LedgerFailed(str(error)))

    async def _check_ledger(self) -> None:
        """Measure the ledger, and report when it is available again."""
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

        A timer of the event loop rather than a task that sleeps: it is reset for nearly every request.
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
"""Verdicts on the orders that the ledger forbids to send; the intent of all others is on disk."""


def _queued_request(request: DeliveryRequest, grant: Callable[[Permit], bool]) -> QueuedRequest:
    return QueuedRequest(
        request.account,
        request.endpoint,
        Urgency.CONVERSION if request.endpoint == "conversions" else Urgency.PAGE_LOAD,
        grant,
        lane=request.lane,
        retry=request.attempt > 0,
        credentials=hash(request.headers.get("Authorization", "")),
    )


def _outcome(cause: Cause) -> OrderOutcome:
    """The outcome of an attempt for the ledger."""
    if cause is Cause.OK:
        return OrderOutcome.DELIVERED
    return OrderOutcome.NOTHING if cause in NOT_RECORDED else OrderOutcome.UNKNOWN


def _explain(closed: Wait | None, now: float) -> str:
    """The gate that a request waited for, and how long it stays closed."""
    if closed is None:
        return "there was no permit before the router's deadline"
    left = "" if closed.until == inf else f" ({max(0.0, closed.until - now):.1f} s more)"
    return f"{closed.gate}{left}: {GATES[closed.gate]}"


def _measured(reports: list[LimitReport]) -> DeliveryMeasured:
    """Sums over all accounts by endpoint: requests waiting and in flight, and accounts by state."""
    waiting: dict[str, int] = {"conversions": 0, "pageload": 0}
    in_flight = dict(waiting)
    states = {(endpoint, state): 0 for endpoint in waiting for state in ("open", "probing", "closed")}
    for one in reports:
        waiting[one.endpoint_path] += one.waiting
        in_flight[one.endpoint_path] += one.statistics.in_flight
        states[one.endpoint_path, one.statistics.state] += 1
    return DeliveryMeasured(waiting, in_flight, states)
