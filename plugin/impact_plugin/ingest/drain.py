"""Delivers the spool to impact.com: turns every due row into a request with the current configuration, and settles it.

Each destination has its own feed, so that a slow one never blocks another. A feed keeps at most ``WINDOW`` rows in
memory, half of them conversions and half others, so that orders never wait behind a backlog of page loads, nor page
loads forever behind orders. A visitor's rows are sent in sequence; while one waits for its retry, the rows behind it
wait in the spool.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final, Literal
from urllib.parse import urlencode

import msgspec
from anyio import Event, current_time, get_cancelled_exc_class, move_on_after
from anyio.abc import TaskGroup

from impact_plugin.config.destinations import KnownDestination
from impact_plugin.config.sources import Routing
from impact_plugin.delivery.endpoints import Endpoints
from impact_plugin.delivery.identity import order_identity, visitor_lane
from impact_plugin.delivery.pipeline import Deliveries, DeliveryRequest
from impact_plugin.delivery.policy import Cause, Verdict
from impact_plugin.errors import StateUnavailableError
from impact_plugin.process.background import repeat, run_guarded
from impact_plugin.sessions.sessions import Sessions
from impact_plugin.spool.base import MAX_DETAIL, DeadLetterCause, Spool, SpoolRow
from impact_plugin.spool.reasons import DeadLetterReason
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.faults import RequestFault
from impact_plugin.telemetry.events.ingest import SpoolAttemptEnded, SpoolFailed, SpoolMeasured, SpoolRestored
from impact_plugin.transformation.step import TransformStep, faults_to
from impact_transformers import NO_VISIT, Conversion, Outcome, Reason, Reject, Send, Skip, Visit
from impact_transformers.normalize import redact_emails

WINDOW: Final = 128
"""Rows of a destination in memory; twice as many as its account may have in flight."""

PATIENCE_SECONDS: Final = 30.0
"""How long a row may wait for a permit before it returns to the spool."""

PAUSE_SECONDS: Final = 2.0
"""How long a kind of rows pauses after one got no permit; with jitter."""

POLL_SECONDS: Final = 1.0
"""How often a feed reads the spool without being woken: commands change the spool, and rows become due."""

MAX_BACK_OFF_SECONDS: Final = 300.0
MAX_FAULTS: Final = 5
"""How many attempts of a row may fail because of our defects before the row becomes a dead letter."""

HELD: Final = frozenset({Cause.WAITING, Cause.BUSY, Cause.STOPPING, Cause.STATE_UNAVAILABLE})
"""Not sent, for a reason outside the row: it returns to the spool untried, and its kind pauses."""

UNTRIED: Final = frozenset({Cause.QUOTA, Cause.CREDENTIALS, Cause.OVERLOAD, Cause.ORDER_UNDER_WAY})
"""The row is not at fault, whether it was sent or not: the attempt does not count."""

_visits: Final = msgspec.msgpack.Decoder(Visit)


def back_off(attempt: int, random: Random) -> float:
    """Return the seconds to the next attempt after ``attempt`` failures: random, at most 2 ** attempt and 300."""
    return random.uniform(0.1, min(MAX_BACK_OFF_SECONDS, 2.0 ** min(attempt, 10)))


class DrainedRow(msgspec.Struct, frozen=True):
    """The result of an attempt: a verdict, or an outcome without a request; and the request that was sent."""

    result: Verdict | Outcome
    request: bytes = b""


class Drain:
    """Delivers the rows of the spool while :meth:`run` runs."""

    def __init__(
        self,
        routing: Callable[[], Routing],
        spool: Spool,
        deliveries: Deliveries,
        sessions: Sessions,
        endpoints: Endpoints,
        telemetry: Telemetry,
        clock: Callable[[], float],
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._routing = routing
        self.spool = spool
        self._deliveries = deliveries
        self._sessions = sessions
        self._endpoints = endpoints
        self.telemetry = telemetry
        self._step = TransformStep(faults_to(telemetry))
        self.clock = clock
        self._patience = patience
        self.random = Random()  # noqa: S311 - jitter, not a secret
        self._feeds: dict[str, _Feed] = {}
        self.stopping = False
        self._down = ""

    def trouble(self) -> str:
        """Return what is wrong with the spool, for the operator; "" if nothing is."""
        return f"senders get 503 and must retry: {self._down}" if self._down else ""

    def wake(self) -> None:
        """Make all feeds read the spool, after an event was stored or the configuration changed."""
        for feed in self._feeds.values():
            feed.wanted.set()

    async def run(self, tasks: TaskGroup) -> None:
        """Run a feed for each destination, and measure, until cancelled; feeds and rows are tasks of the group."""

        async def turn() -> None:
            for name in self._routing().destinations:
                if name not in self._feeds:
                    self._feeds[name] = _Feed(self, name, tasks)
                    tasks.start_soon(self._feeds[name].run)
            await self._measure()

        await run_guarded(self.telemetry, "spool", turn)
        await repeat(self.telemetry, "spool", turn, POLL_SECONDS)

    def stop(self) -> None:
        """Start no more deliveries."""
        self.stopping = True
        self.wake()

    async def finish(self, seconds: float) -> None:
        """After :meth:`stop`, wait up to ``seconds`` for rows in flight, then flush the spool.

        Rows still in flight are cancelled with the task group, and stay in the spool.
        """
        with move_on_after(seconds):
            for feed in list(self._feeds.values()):
                await feed.idle.wait()
        try:
            await self.spool.flush()
        except StateUnavailableError as error:
            self._failed(error)

    def report(self, error: StateUnavailableError) -> None:
        """Report that the spool could not be read or written; emits telemetry once."""
        self._failed(error)

    def known(self, name: str) -> KnownDestination | None:
        """Return the destination as currently configured, None if it no longer is."""
        return self._routing().destinations.get(name)

    async def deliver(self, row: SpoolRow, known: KnownDestination) -> "DrainedRow":
        """Transform and send the row; returns the result."""
        outcome = await self._transform(row, known)
        if not isinstance(outcome, Send):
            return DrainedRow(outcome)
        request = self._request(outcome, row)
        # While it waits for a permit, a deletion request may remove it.
        verdict = await self._deliveries.deliver(
            request, seconds=self._patience, is_abandoned=lambda: not self.spool.holds(row)
        )
        return DrainedRow(verdict, f"POST {request.url}\n\n".encode() + request.body)

    async def _transform(self, row: SpoolRow, known: KnownDestination) -> Outcome:
        """Transform the row, with the visit that was decided when the event was accepted."""
        prepared = self._step.read(row.payload, known)
        if row.visit:
            return self._step.conclude(prepared, _visits.decode(row.visit))
        # It had no question when it was accepted, or no usable configuration: ask the question it has now.
        question = prepared.question
        visit = NO_VISIT if question is None else (await self._sessions.visits([question]))[0]
        return self._step.conclude(prepared, visit)

    def _request(self, outcome: Send, row: SpoolRow) -> DeliveryRequest:
        request, config = outcome.request, outcome.config
        endpoint = self._endpoints.of(request, config)
        conversion = isinstance(request, Conversion)
        return DeliveryRequest(
            config.account_sid,
            "conversions" if conversion else "pageload",
            endpoint.url,
            {name: value.reveal() for name, value in endpoint.headers.items()},
            urlencode(request.form).encode(),
            visitor_lane(request.form),
            order_identity(config.account_sid, request.form) if conversion else None,
            row.attempt,
            resend=config.duplicate_orders == "send",
        )

    async def _measure(self) -> None:
        try:
            if self._down:
                await self.spool.check()
                self._down = ""
                self.telemetry.emit(SpoolRestored())
            self.telemetry.emit(await self._measured())
        except StateUnavailableError as error:
            self._failed(error)

    async def _measured(self) -> SpoolMeasured:
        tally = await self.spool.tally()
        # Report every destination: the gauge of an empty one would keep its last value.
        waiting = dict.fromkeys(self._feeds, 0) | dict(tally.waiting)
        age = 0.0 if tally.oldest is None else max(0.0, self.clock() - tally.oldest / 1000)
        capacity = tally.capacity_rows, tally.capacity_bytes
        return SpoolMeasured(
            waiting, tally.dead, tally.bytes, *capacity, age, tally.expired, tally.unordered, tally.evicted
        )

    def _failed(self, error: StateUnavailableError) -> None:
        if not self._down:
            self._down = str(error)
            self.telemetry.emit(SpoolFailed(str(error)))


class _Feed:
    """One destination's rows in memory."""

    def __init__(self, drain: Drain, name: str, tasks: TaskGroup) -> None:
        self._drain = drain
        self._name = name
        self._row_tasks = tasks
        self._lanes: dict[bytes, deque[SpoolRow]] = {}
        self._held = {True: 0, False: 0}
        self._paused = {True: 0.0, False: 0.0}
        self.wanted = Event()
        self.idle = Event()
        self.idle.set()

    async def run(self) -> None:
        """Take due rows whenever there is room, until the drain stops."""
        while not self._drain.stopping:
            self.wanted = Event()
            taken = 0
            try:
                for urgent in (True, False):
                    taken += await self._take(urgent=urgent)
            except StateUnavailableError as error:
                self._drain.report(error)
            except Exception as error:  # noqa: BLE001 - the boundary of one read: a defect must not end the feed
                self._drain.telemetry.emit(RequestFault("spool", type(error).__name__, error))
            if not taken:
                await self._wait()

    async def _wait(self) -> None:
        """Wait until the feed is woken, or for a moment."""
        with move_on_after(POLL_SECONDS):
            await self.wanted.wait()

    async def _take(self, *, urgent: bool) -> int:
        """Take as many rows of one kind as there is room for; returns how many."""
        room = WINDOW // 2 - self._held[urgent]
        now = current_time()
        # Every call reads the spool: wait until there is room for several rows.
        if room < WINDOW // 8 or now < self._paused[urgent] or self._drain.known(self._name) is None:
            return 0
        rows = await self._drain.spool.take(self._name, urgent=urgent, limit=room)
        for row in rows:
            self._admit(row)
        return len(rows)

    def _admit(self, row: SpoolRow) -> None:
        """Start the row, or queue it behind the rows of its visitor."""
        if self.idle.is_set():
            self.idle = Event()
        self._held[row.urgent] += 1
        if row.lane is None:
            self._start(row)
        elif (lane := self._lanes.get(row.lane)) is not None:
            lane.append(row)
        else:
            self._lanes[row.lane] = deque()
            self._start(row)

    def _start(self, row: SpoolRow) -> None:
        self._row_tasks.start_soon(run_guarded, self._drain.telemetry, "drain", partial(self._work, row))

    async def _work(self, row: SpoolRow) -> None:
        """Settle the row, or return it to the spool."""
        blocked = True
        try:
            blocked = await self._try(row)
        except get_cancelled_exc_class():
            self._drain.spool.release([row])
            raise
        finally:
            self._held[row.urgent] -= 1
            self._next(row, blocked=blocked)
            if not any(self._held.values()):
                self.idle.set()
            self.wanted.set()

    async def _try(self, row: SpoolRow) -> bool:
        """Deliver and settle the row; returns whether the rows behind it must wait."""
        drain = self._drain
        known = drain.known(self._name)
        if drain.stopping or known is None:
            return self._put_back(row)
        try:
            drained = await drain.deliver(row, known)
        except StateUnavailableError:
            return self._put_back(row)
        except Exception as error:  # noqa: BLE001 - the boundary of one row: a defect affects this row only
            drain.telemetry.emit(RequestFault("drain", type(error).__name__, error))
            return self._fault(row, type(error).__name__)
        return self._settle(row, drained)

    def _settle(self, row: SpoolRow, drained: DrainedRow) -> bool:
        match drained.result:
            case Verdict():
                return self._settle_verdict(row, drained.result, drained.request)
            case Skip():
                self._report("filtered", str(drained.result.reason))
                self._drain.spool.done(row)
            case Reject(reason=Reason.TRANSFORM_FAULT):
                return self._fault(row, drained.result.detail)
            case Reject():
                self._reject(row, str(drained.result.reason), redact_emails(drained.result.detail))
            case Send():
                pass
        return False

    def _settle_verdict(self, row: SpoolRow, verdict: Verdict, request: bytes) -> bool:
        cause = verdict.cause
        if verdict.result == "delivered":
            self._report("sent", cause)
            self._drain.spool.done(row)
            return False
        if verdict.result == "rejected" or cause is Cause.AMBIGUOUS_EXPIRED:
            self._reject(row, str(cause), verdict.text, request)
            return False
        if cause in HELD:
            return self._put_back(row)
        self._report("held", cause)
        return self._retry_later(row, failed=cause not in UNTRIED)

    def _fault(self, row: SpoolRow, detail: str) -> bool:
        if row.attempt + 1 >= MAX_FAULTS:
            self._reject(row, str(DeadLetterReason.FAULT), detail)
            return False
        self._report("held", Cause.FAULT)
        return self._retry_later(row, failed=True)

    def _retry_later(self, row: SpoolRow, *, failed: bool) -> bool:
        """Schedule the next attempt; one that did not fail keeps its row's count, and backs off least."""
        seconds = back_off(row.attempt + 1 if failed else 1, self._drain.random)
        self._drain.spool.later(row, int((self._drain.clock() + seconds) * 1000), failed=failed)
        return True

    def _reject(self, row: SpoolRow, reason: str, detail: str, request: bytes = b"") -> None:
        self._report("rejected", reason)
        self._drain.spool.bury(row, DeadLetterCause(reason, detail[:MAX_DETAIL], request))

    def _put_back(self, row: SpoolRow) -> bool:
        """Return the row untried; its kind pauses, because the next row would get no permit either."""
        pause = PAUSE_SECONDS * self._drain.random.uniform(0.5, 1.0)
        self._paused[row.urgent] = current_time() + pause
        self._drain.spool.release([row])
        return True

    def _next(self, row: SpoolRow, *, blocked: bool) -> None:
        """Start the visitor's next row, or return all of them to the spool."""
        if row.lane is None:
            return
        lane = self._lanes[row.lane]
        if lane and not blocked:
            self._start(lane.popleft())
            return
        del self._lanes[row.lane]
        for waiting in lane:
            self._held[waiting.urgent] -= 1
        if lane:
            self._drain.spool.release(lane)

    def _report(self, result: Literal["sent", "filtered", "held", "rejected"], reason: str) -> None:
        self._drain.telemetry.emit(SpoolAttemptEnded(result, str(reason)))
