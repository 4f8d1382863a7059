"""Events that a sender hands over, up to the moment they are safe: concealed, decided about, written down.

What an event becomes is worked out here once, for the answer and for the session state; it is sent by the drain, which
works it out again with the configuration of that moment and the visit that was decided here.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Final, Literal, TypeAlias

import msgspec

from impact_plugin.config.destinations import KnownDestination
from impact_plugin.config.sources import Routing, Source
from impact_plugin.errors import StateUnavailableError
from impact_plugin.ingest.adapters import content_id, switched_off
from impact_plugin.recording.recorder import RecordedJob, Recorder
from impact_plugin.sessions.sessions import Digests, Sessions
from impact_plugin.spool.base import DeadLetterCause, NewEvent, NewRow, Spool
from impact_plugin.store.base import StoreUnavailableError
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.faults import TransformFault
from impact_plugin.telemetry.events.ingest import EventsIngested
from impact_transformers import (
    AnyEvent,
    Conversion,
    Draft,
    Event,
    Outcome,
    Question,
    Reason,
    Reject,
    Send,
    Skip,
    UndecodableEventError,
    Visit,
    conceal,
    conclude,
    decode_event,
    decode_object,
    may_hold_email,
    prepare,
)
from impact_transformers.clicks import SEPARATOR
from impact_transformers.events import UNREADABLE
from impact_transformers.normalize import as_text, redact_emails

Status: TypeAlias = Literal["stored", "duplicate", "filtered", "rejected"]

SWITCHED_OFF: Final = "integrations_disabled"
"""The reason of an event whose ``integrations`` switch us off. https://segment.com/docs/connections/spec/common/"""

TURN_SECONDS: Final = 0.005
LOOK_EVERY: Final = 32
KEPT_BYTES: Final = 4096
"""How much of something that is no event is kept with its dead letter."""


class Item(msgspec.Struct, frozen=True, gc=False):
    """One event as it came: a JSON object. ``type`` is the path's, which wins over the body's."""

    payload: bytes | msgspec.Raw
    type: str | None = None


class Unusable(msgspec.Struct, frozen=True, gc=False):
    """Something in an event's place that cannot be one, and why."""

    detail: str
    payload: bytes = b""


class ItemResult(msgspec.Struct, frozen=True, gc=False):
    """What became of one item. ``reason`` is set for what was filtered or rejected."""

    message_id: str | None
    status: Status
    reason: str = ""
    detail: str = ""


class _Envelope(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """What is read of an event before it is decoded in full."""

    type: Any = None
    message_id: Any = None
    event: Any = None
    received_at: Any = None
    integrations: Any = None


class _Way(msgspec.Struct, frozen=True, gc=False):
    """An event on its way to one destination."""

    known: KnownDestination
    draft: Draft
    question: Question | None


class _Prepared(msgspec.Struct, frozen=True, gc=False):
    """An event that waits for what the sessions know."""

    message_id: str
    seen: bytes
    payload: bytes
    event: AnyEvent | None
    ways: tuple[_Way, ...]


_envelopes: Final = msgspec.json.Decoder(_Envelope)
_visits: Final = msgspec.msgpack.Encoder()


class Intake:
    """Takes events of all sources."""

    def __init__(
        self,
        routing: Callable[[], Routing],
        sessions: Sessions,
        spool: Spool,
        digests: Digests,
        telemetry: Telemetry,
        clock: Callable[[], float],
        stored: Callable[[], None],
        failed: Callable[[StoreUnavailableError], None],
    ) -> None:
        self._routing = routing
        self._sessions = sessions
        self._spool = spool
        self._digests = digests
        self._telemetry = telemetry
        self._clock = clock
        self._stored = stored
        self._failed = failed
        self.recorder: Recorder | None = None

    async def take(self, source: Source, items: Sequence[Item | Unusable]) -> list[ItemResult]:
        """Make the items durable and say what became of each, in order.

        Raises :class:`impact_plugin.spool.base.SpoolFullError` and :class:`StateUnavailableError`; then nothing counts
        as taken, and the sender is to come again.
        """
        started = perf_counter()
        now = self._clock()
        destinations = self._routing().feeds(source)
        prepared = await self._prepare_all(source, items, destinations, now)
        questions = [way.question for one in prepared if isinstance(one, _Prepared) for way in one.ways]
        visits = iter(await self._sessions.visits(questions))
        results: list[ItemResult] = []
        events: list[NewEvent] = []
        places: list[int] = []
        for place, one in enumerate(prepared):
            if isinstance(one, ItemResult):
                results.append(one)
                continue
            rows, result = self._conclude(one, [next(visits) for _ in one.ways])
            results.append(result)
            if rows:
                events.append(NewEvent(source.name, one.seen, int(now * 1000), rows))
                places.append(place)
        await self._store(events, places, results)
        self._record(source, prepared)
        counts: Counter[tuple[str, str]] = Counter((result.status, result.reason) for result in results)
        self._telemetry.emit(EventsIngested(source.name, counts, perf_counter() - started))
        return results

    def _record(self, source: Source, prepared: Sequence[_Prepared | ItemResult]) -> None:
        """Hand the events over to whoever records."""
        if self.recorder is None or not self.recorder.listening:
            return
        jobs = [
            RecordedJob(one.payload, tuple((way.known.id, msgspec.Raw(way.known.written)) for way in one.ways))
            for one in prepared
            if isinstance(one, _Prepared)
        ]
        self.recorder.take(source.name, jobs)

    async def _store(self, events: Sequence[NewEvent], places: Sequence[int], results: list[ItemResult]) -> None:
        """Write the events down, and note which of them were there already."""
        if not events:
            return
        try:
            stored = await self._spool.put(events)
        except StoreUnavailableError as error:
            self._failed(error)
            raise StateUnavailableError(str(error)) from error
        for place, new in zip(places, stored, strict=True):
            # What is refused again is told again, and is one dead letter all the same.
            if not new and results[place].status != "rejected":
                results[place] = ItemResult(results[place].message_id, "duplicate")
        self._stored()

    async def _prepare_all(
        self, source: Source, items: Sequence[Item | Unusable], destinations: Sequence[KnownDestination], now: float
    ) -> list[_Prepared | ItemResult]:
        """Everything but the sessions, letting others have the event loop now and then."""
        received = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        prepared: list[_Prepared | ItemResult] = []
        turn = perf_counter()
        for number, item in enumerate(items, 1):
            prepared.append(self._prepare_one(source, item, destinations, received))
            if number % LOOK_EVERY == 0 and perf_counter() - turn > TURN_SECONDS:
                await asyncio.sleep(0)
                turn = perf_counter()
        return prepared

    def _prepare_one(
        self, source: Source, item: Item | Unusable, destinations: Sequence[KnownDestination], received: str
    ) -> _Prepared | ItemResult:
        if isinstance(item, Unusable):
            return self._unreadable(source, item.payload, item.detail, destinations)
        try:
            envelope = _envelopes.decode(item.payload)
            switches = envelope.integrations
            if switches and switched_off(switches if isinstance(switches, dict) else None, source.integrations):
                return ItemResult(as_text(envelope.message_id), "filtered", SWITCHED_OFF)
            message_id, payload = settle_payload(bytes(item.payload), item.type, envelope, received)
            event = decode_event(payload)
        except (UndecodableEventError, *UNREADABLE) as error:
            return self._unreadable(source, bytes(item.payload), str(error), destinations)
        ways = tuple(self._way(event, payload, known) for known in destinations)
        name = (type(event).__name__, as_text(envelope.event) or "", message_id)
        return _Prepared(message_id, self._seen(source, *name), payload, event, ways)

    def _unreadable(
        self, source: Source, payload: bytes, detail: str, destinations: Sequence[KnownDestination]
    ) -> _Prepared:
        """Something that is no event: a dead letter, so that whoever looks can see what came."""
        kept = conceal_bytes(payload[:KEPT_BYTES])
        reject = Draft(Reject(Reason.UNDECODABLE_EVENT, redact_emails(detail)))
        seen = self._seen(source, "", "", hashlib.sha256(payload).hexdigest())
        return _Prepared("", seen, kept, None, tuple(_Way(known, reject, None) for known in destinations[:1]))

    def _way(self, event: AnyEvent, payload: bytes, known: KnownDestination) -> _Way:
        try:
            if known.destination is None:
                return _Way(known, Draft(Reject(Reason.CONFIGURATION, known.problem or "")), None)
            message = decode_object(payload) if known.reads_message else None
            draft = prepare(event, known.destination, message)
            return _Way(known, draft, draft.question)
        except Exception as error:  # noqa: BLE001 - the border of one event: a defect of ours is this event's error only
            self._telemetry.emit(TransformFault(type(error).__name__, error))
            return _Way(known, Draft(Reject(Reason.TRANSFORM_FAULT, type(error).__name__)), None)

    def _conclude(self, one: _Prepared, visits: Sequence[Visit]) -> tuple[tuple[NewRow, ...], ItemResult]:
        """The rows of an event, and what its sender is told: the best of what becomes of it at the destinations."""
        rows: list[NewRow] = []
        found: list[ItemResult] = []
        for way, visit in zip(one.ways, visits, strict=True):
            outcome = conclude(way.draft, visit)
            found.append(_result(one.message_id, outcome))
            if not isinstance(outcome, Skip):
                rows.append(self._row(one, way, visit, outcome))
        order: tuple[Status, ...] = ("stored", "rejected", "filtered")
        return tuple(rows), min(found, key=lambda result: order.index(result.status))

    def _row(self, one: _Prepared, way: _Way, visit: Visit, outcome: Outcome) -> NewRow:
        people = self._people(one.event, way.draft)
        if isinstance(outcome, Reject):
            death = DeadLetterCause(str(outcome.reason), redact_emails(outcome.detail))
            return NewRow(way.known.id, one.payload, people=people, order_id=_order_id(one.event), death=death)
        request = outcome.request if isinstance(outcome, Send) else None
        asked = _visits.encode(visit) if way.question is not None else b""
        urgent = isinstance(request, Conversion)
        order_id = request.form.get("OrderId") if isinstance(request, Conversion) else None
        return NewRow(way.known.id, one.payload, asked, urgent, people[0] if people else None, people, order_id)

    def _people(self, event: AnyEvent | None, draft: Draft) -> tuple[bytes, ...]:
        """Digests of whom the event is about, the visitor first; of no program where the event reached none."""
        if not isinstance(event, Event):
            return ()
        program = "" if draft.destination is None else draft.destination.clicks.program
        ids = self._digests.identities(program, as_text(event.anonymous_id), as_text(event.user_id))
        return tuple(one for one in ids if one is not None)

    def _seen(self, source: Source, call: str, name: str, message_id: str) -> bytes:
        return self._digests.of(SEPARATOR.join(("seen", source.name, call, name, message_id)))


def settle_payload(payload: bytes, call: str | None, envelope: _Envelope, received: str) -> tuple[str, bytes]:
    """The event as it is written down, and its message id: of the path's call, without addresses, with a time.

    An event without an id gets one made of what it says, so that it is the same event when it comes again.
    """
    message_id = as_text(envelope.message_id)
    if may_hold_email(payload) or (call is not None and call != envelope.type):
        message = conceal(decode_object(payload))
        payload = msgspec.json.encode(message if call is None else {**message, "type": call})
        message_id = as_text(message.get("messageId"))
    added: dict[str, str] = {}
    if message_id is None:
        message_id = added["messageId"] = content_id(decode_object(payload))
    if envelope.received_at is None:
        added["receivedAt"] = received
    return message_id, with_entries(payload, added) if added else payload


def with_entries(payload: bytes, added: Mapping[str, Any]) -> bytes:
    """The object with more entries; of two with one name a reader takes the last."""
    entries = msgspec.json.encode(added)[1:]
    head = payload.rstrip()[:-1].rstrip()
    return head + (b"" if head.endswith(b"{") else b",") + entries


def conceal_bytes(payload: bytes) -> bytes:
    """Bytes that may be no JSON, without addresses."""
    return redact_emails(payload.decode("utf-8", "replace")).encode() if may_hold_email(payload) else payload


def _order_id(event: AnyEvent | None) -> str | None:
    """The order id that somebody would look an event up by, where the event came to no request."""
    properties = event.properties if isinstance(event, Event) else None
    found = (as_text((properties or {}).get(name)) for name in ("order_id", "orderId"))
    return next((one for one in found if one), None)


def _result(message_id: str, outcome: Outcome) -> ItemResult:
    if isinstance(outcome, Send):
        return ItemResult(message_id, "stored")
    status: Status = "filtered" if isinstance(outcome, Skip) else "rejected"
    return ItemResult(message_id or None, status, str(outcome.reason), redact_emails(outcome.detail))
