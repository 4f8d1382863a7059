"""One request from its turn to its verdict: wait, look in the ledger, send, judge, tell everybody who must know.

An attempt that has begun is never given up because somebody stopped waiting for it: it runs to its own end as a task,
and the ledger learns its outcome. Who asks for the same order meanwhile waits for that attempt, and nothing is sent.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import Final

import msgspec

from impact_plugin.config.settings import DeliverySettings
from impact_plugin.delivery.client import DeliveryClient
from impact_plugin.delivery.limits.gates import GATES, EndpointName, LimitChange, Permit, Wait
from impact_plugin.delivery.limits.limiter import Limiter, LimiterSettings, Slots
from impact_plugin.delivery.limits.rate_limits import UNSAID, read_rate_limits
from impact_plugin.delivery.limits.scheduler import LimitReport, Refusal, Scheduler, SchedulerTurn, Urgency
from impact_plugin.delivery.policy import NOT_TAKEN, Cause, ImpactAnswer, Verdict, held_back, judge
from impact_plugin.errors import StateUnavailableError
from impact_plugin.orders.ledger import Ledger, OrderOutcome, Standing
from impact_plugin.tasks import finish
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.delivery import DeliveryMeasured, LaneUnordered, LimitChanged, RequestSent
from impact_plugin.telemetry.events.faults import RequestFault
from impact_plugin.telemetry.events.orders import LedgerFailed, LedgerMeasured, LedgerRestored

MEASURE_SECONDS: Final = 1.0
ANSWERS_SPARED: Final = 4
"""So many mean answer times must be left of the router's patience for an attempt to begin."""

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


class Deliveries:
    """Delivers parcels for all accounts; made by :func:`open_deliveries`."""

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
            unordered=lambda: telemetry.emit(LaneUnordered()),
        )
        self._alarm: asyncio.TimerHandle | None = None
        self._waiting: set[asyncio.Future[Permit | Verdict]] = set()
        self._orders: dict[bytes, asyncio.Task[Verdict]] = {}
        self._tasks: set[asyncio.Task[Verdict]] = set()
        self._ledger_down = False
        self._stopping = False

    async def deliver(self, parcel: Parcel, *, seconds: float, gone: Callable[[], bool] = lambda: False) -> Verdict:
        """The verdict on one parcel within ``seconds``.

        ``gone`` tells that nobody waits for it any more: then it is not sent, unless that has happened already.
        """
        if self._stopping:
            return held_back(Cause.STOPPING, "the service is stopping")
        deadline = self._loop.time() + seconds
        identity = None if parcel.order is None else self._identity(parcel.order)
        task = self._orders.get(identity) if identity is not None else None
        if task is None:
            task = self._start(parcel, identity, deadline, gone)
        told: asyncio.Future[Verdict] = self._loop.create_future()
        late = self._loop.call_at(deadline, _tell_late, told)
        task.add_done_callback(partial(_tell, told))
        try:
            return await told
        finally:
            late.cancel()

    def report(self) -> list[LimitReport]:
        """Every account's endpoints: state, limit, what waits and why."""
        return list(self._scheduler.report(self._loop.time()))

    def stop(self) -> None:
        """Take nothing new and send nothing that waits; what is under way goes on."""
        self._stopping = True
        for future in list(self._waiting):
            if not future.done():
                future.set_result(held_back(Cause.STOPPING, "the service is stopping"))

    async def drain(self, seconds: float) -> None:
        """Wait for what is under way, ``seconds`` at most; what then has no answer stays unknown in the ledger."""
        self.stop()
        await finish(self._tasks, seconds)

    async def watch(self) -> None:
        """Measure, forget accounts that are idle, and see whether the ledger is back; runs until cancelled."""
        while True:
            await asyncio.sleep(MEASURE_SECONDS)
            try:
                self._scheduler.forget_idle(self._loop.time())
                self._telemetry.emit(_measured(self.report()))
                await self._look_at_ledger()
            except Exception as error:  # noqa: BLE001 - the border of the watch: a defect in one look must not end it
                self._telemetry.emit(RequestFault("delivery", type(error).__name__, error))

    def _start(
        self, parcel: Parcel, identity: bytes | None, deadline: float, gone: Callable[[], bool]
    ) -> asyncio.Task[Verdict]:
        task = asyncio.create_task(self._run(parcel, identity, deadline, gone))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if identity is not None:
            self._orders[identity] = task
            task.add_done_callback(lambda _: self._orders.pop(identity, None))
        return task

    async def _run(self, parcel: Parcel, identity: bytes | None, deadline: float, gone: Callable[[], bool]) -> Verdict:
        future: asyncio.Future[Permit | Verdict] = self._loop.create_future()

        def grant(permit: Permit) -> bool:
            if future.done():
                return False
            future.set_result(permit)
            return True

        turn = _turn(parcel, grant)
        permit = await self._leave(turn, future, deadline)
        if isinstance(permit, Verdict):
            return permit
        return await self._with_leave(turn, permit, parcel, identity, gone)

    async def _leave(
        self, turn: SchedulerTurn, future: "asyncio.Future[Permit | Verdict]", deadline: float
    ) -> Permit | Verdict:
        """Wait for the turn, as long as an attempt could still end in time."""
        now = self._loop.time()
        refusal = self._scheduler.submit(turn, now)
        if isinstance(refusal, Refusal):
            return held_back(Cause.BUSY, refusal.busy)
        self._pump()
        if future.done():
            return future.result()
        patience = deadline - now
        expires = deadline - min(ANSWERS_SPARED * self._scheduler.answer_seconds(turn), patience / 2)
        asleep = self._scheduler.asleep(turn)
        if asleep is None or asleep.until == inf or asleep.until <= expires:
            self._waiting.add(future)
            try:
                await asyncio.wait((future,), timeout=expires - now)
            except asyncio.CancelledError:
                # A turn that comes now finds nobody, and the leave goes back.
                future.cancel()
                raise
            finally:
                self._waiting.discard(future)
        return self._left(turn, future)

    def _left(self, turn: SchedulerTurn, future: "asyncio.Future[Permit | Verdict]") -> Permit | Verdict:
        """What the wait has brought; a turn that did not come is taken back."""
        if future.done() and isinstance(future.result(), Permit):
            return future.result()
        asleep = self._scheduler.asleep(turn)
        now = self._loop.time()
        self._scheduler.drop(turn, now)
        self._pump()
        if future.done():
            return future.result()
        future.cancel()
        return held_back(Cause.WAITING, _why(asleep, now))

    async def _with_leave(
        self, turn: SchedulerTurn, permit: Permit, parcel: Parcel, identity: bytes | None, gone: Callable[[], bool]
    ) -> Verdict:
        """Everything from the leave on: whatever happens, the leave is given back."""
        cause: Cause | None = None
        limits = UNSAID
        try:
            refused = await self._begin(parcel, identity, gone)
            if refused is not None:
                return refused
            # The ledger's disk is not impact.com's answer time.
            permit = msgspec.structs.replace(permit, sent_at=self._loop.time())
            cause = Cause.AMBIGUOUS
            answer = await self._client.post(
                parcel.url, parcel.headers, parcel.body, seconds=self._settings.timeout_seconds
            )
            verdict = judge(answer, attempt=parcel.attempt)
            cause = verdict.cause
            if isinstance(answer, ImpactAnswer):
                limits = read_rate_limits(answer.headers, self._clock())
            status = answer.status if isinstance(answer, ImpactAnswer) else 0
            self._telemetry.emit(RequestSent(parcel.endpoint, cause, status, self._loop.time() - permit.sent_at))
            if identity is not None:
                await self._ledger.settle(identity, _outcome(cause))
            return verdict
        finally:
            now = self._loop.time()
            if cause is None:
                self._scheduler.withdraw(turn, permit, now)
            else:
                self._scheduler.done(turn, permit, cause, limits, now)
            self._pump()

    async def _begin(self, parcel: Parcel, identity: bytes | None, gone: Callable[[], bool]) -> Verdict | None:
        """The verdict on a parcel that must not be sent; None, and the intent on disk, for one that may."""
        if gone():
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

    async def _look_at_ledger(self) -> None:
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
        def tell(change: LimitChange) -> None:
            self._telemetry.emit(LimitChanged(account, endpoint, change.change, change.detail))

        settings = LimiterSettings(max_concurrency=self._settings.account_connections)
        return Limiter(self._slots, settings, random.Random(), tell)  # noqa: S311 - jitter, not a secret

    def _pump(self) -> None:
        """Give leave to all who can have it, and come back when the scheduler says so."""
        wakes_at = self._scheduler.pump(self._loop.time())
        alarm = self._alarm
        if alarm is not None and not alarm.cancelled():
            if alarm.when() <= wakes_at and alarm.when() > self._loop.time():
                return
            alarm.cancel()
        self._alarm = self._loop.call_at(wakes_at, self._pump) if wakes_at < inf else None


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


def _tell(told: "asyncio.Future[Verdict]", task: "asyncio.Task[Verdict]") -> None:
    """Pass the verdict of an attempt on to who waits for it; several may."""
    if told.done():
        return
    if task.cancelled():
        told.set_result(held_back(Cause.AMBIGUOUS, "the service stopped before the answer came"))
    elif (error := task.exception()) is not None:
        told.set_exception(error)
    else:
        told.set_result(task.result())


def _tell_late(told: "asyncio.Future[Verdict]") -> None:
    if not told.done():
        told.set_result(held_back(Cause.AMBIGUOUS, "no answer in time; the attempt goes on and its outcome is noted"))


def _turn(parcel: Parcel, grant: Callable[[Permit], bool]) -> SchedulerTurn:
    return SchedulerTurn(
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
    return OrderOutcome.NOTHING if cause in NOT_TAKEN else OrderOutcome.UNKNOWN


def _why(asleep: Wait | None, now: float) -> str:
    """The gate that kept a request, and for how long still."""
    if asleep is None:
        return "its turn did not come before the router's deadline"
    left = "" if asleep.until == inf else f" ({max(0.0, asleep.until - now):.1f} s more)"
    return f"{asleep.gate}{left}: {GATES[asleep.gate]}"


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


@asynccontextmanager
async def open_deliveries(deliveries: Deliveries, grace: float) -> AsyncIterator[Deliveries]:
    """Watch over the deliveries until the block ends, then let what is under way finish within the grace period."""
    # A task rather than a task group: the block may be entered and left by different tasks.
    watching = asyncio.create_task(deliveries.watch())
    try:
        yield deliveries
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await deliveries.drain(grace)
