"""Accepts events from senders: conceals e-mail addresses, determines each outcome, and stores the events durably.

The outcome is needed here for the response and the session state. The drain transforms the event again when it sends
it, with the configuration of that moment and the visit that was decided here.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Final, Literal, TypeAlias

import msgspec
from anyio.lowlevel import checkpoint

from impact_plugin.config.destinations import KnownDestination
from impact_plugin.config.sources import Routing, Source
from impact_plugin.errors import StateUnavailableError
from impact_plugin.ingest.adapters import content_id, switched_off
from impact_plugin.ingest.drain import Drain
from impact_plugin.recording.recorder import RecordedJob, Recorder
from impact_plugin.sessions.sessions import Digests, Sessions
from impact_plugin.spool.base import DeadLetterCause, NewEvent, NewRow, Spool
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.ingest import EventsIngested
from impact_plugin.transformation.step import PreparedEvent, TransformStep, faults_to
from impact_transformers import (
    AnyEvent,
    Conversion,
    Draft,
    Event,
    Outcome,
    Reason,
    Reject,
    Send,
    Skip,
    UndecodableEventError,
    Visit,
    conceal,
    decode_object,
    may_hold_email,
)
from impact_transformers.clicks import SEPARATOR
from impact_transformers.events import UNREADABLE
from impact_transformers.normalize import as_text, redact_emails

Status: TypeAlias = Literal["stored", "duplicate", "filtered", "rejected"]

SWITCHED_OFF: Final = "integrations_disabled"
"""The reason of an event whose ``integrations`` disable us. https://segment.com/docs/connections/spec/common/"""

PAUSE_AFTER_SECONDS: Final = 0.005
CLOCK_INTERVAL: Final = 32
KEPT_BYTES: Final = 4096
"""How much of an undecodable event its dead letter keeps."""


class Item(msgspec.Struct, frozen=True, gc=False):
    """One event as the sender wrote it: a JSON object. ``type`` is the path's and overrides the body's."""

    payload: bytes | msgspec.Raw
    type: str | None = None


class Unusable(msgspec.Struct, frozen=True, gc=False):
    """An item that cannot be an event, and why."""

    detail: str
    payload: bytes = b""


class ItemResult(msgspec.Struct, frozen=True, gc=False):
    """The result of one item. ``reason`` is set if it was filtered or rejected."""

    message_id: str | None
    status: Status
    reason: str = ""
    detail: str = ""


class _Envelope(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The fields that we read of an event before decoding it in full."""

    type: Any = None
    message_id: Any = None
    event: Any = None
    received_at: Any = None
    integrations: Any = None


class _Prepared(msgspec.Struct, frozen=True, gc=False):
    """An event prepared for each of its destinations; ``seen`` is the digest that detects duplicates."""

    message_id: str
    seen: bytes
    payload: bytes
    event: AnyEvent | None
    parts: tuple[PreparedEvent, ...]


_envelopes: Final = msgspec.json.Decoder(_Envelope)
_visits: Final = msgspec.msgpack.Encoder()


class Intake:
    """Accepts the events of all sources."""

    def __init__(
        self,
        routing: Callable[[], Routing],
        sessions: Sessions,
        spool: Spool,
        digests: Digests,
        telemetry: Telemetry,
        clock: Callable[[], float],
        drain: Drain,
        recorder: Recorder,
    ) -> None:
        self._routing = routing
        self._sessions = sessions
        self._spool = spool
        self._digests = digests
        self._telemetry = telemetry
        self._step = TransformStep(faults_to(telemetry))
        self._clock = clock
        self._drain = drain
        self._recorder = recorder

    async def take(self, source: Source, items: Sequence[Item | Unusable]) -> list[ItemResult]:
        """Store the items durably; returns the result of each, in order.

        Raises :class:`impact_plugin.spool.base.SpoolFullError` or :class:`StateUnavailableError` if nothing was stored
        and the sender must retry.
        """
        started = perf_counter()
        now = self._clock()
        destinations = self._routing().destinations_of(source)
        prepared = await self._prepare_all(source, items, destinations, now)
        questions = [part.question for one in prepared if isinstance(one, _Prepared) for part in one.parts]
        visits = iter(await self._sessions.visits(questions))
        results: list[ItemResult] = []
        events: list[NewEvent] = []
        places: list[int] = []
        for place, one in enumerate(prepared):
            if isinstance(one, ItemResult):
                results.append(one)
                continue
            rows, result = self._conclude(one, [next(visits) for _ in one.parts])
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
        """Hand the events to the recorder while a recording is in progress."""
        if not self._recorder.listening:
            return
        jobs = [
            RecordedJob(one.payload, tuple((part.known.id, msgspec.Raw(part.known.written)) for part in one.parts))
            for one in prepared
            if isinstance(one, _Prepared)
        ]
        self._recorder.take(source.name, jobs)

    async def _store(self, events: Sequence[NewEvent], places: Sequence[int], results: list[ItemResult]) -> None:
        """Store the events, and mark those that were stored before as duplicates."""
        if not events:
            return
        try:
            stored = await self._spool.put(events)
        except StateUnavailableError as error:
            self._drain.report(error)
            raise
        for place, new in zip(places, stored, strict=True):
            # A retry of a rejected event gets the same result, and there is still one dead letter.
            if not new and results[place].status != "rejected":
                results[place] = ItemResult(results[place].message_id, "duplicate")
        self._drain.wake()

    async def _prepare_all(
        self, source: Source, items: Sequence[Item | Unusable], destinations: Sequence[KnownDestination], now: float
    ) -> list[_Prepared | ItemResult]:
        """Prepare all items, yielding to other requests periodically."""
        received = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        prepared: list[_Prepared | ItemResult] = []
        turn = perf_counter()
        for number, item in enumerate(items, 1):
            prepared.append(self._prepare_one(source, item, destinations, received))
            if number % CLOCK_INTERVAL == 0 and perf_counter() - turn > PAUSE_AFTER_SECONDS:
                await checkpoint()
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
        except (UndecodableEventError, *UNREADABLE) as error:
            return self._unreadable(source, bytes(item.payload), str(error), destinations)
        event = self._step.decode(payload)
        if isinstance(event, Reject):
            return self._unreadable(source, bytes(item.payload), event.detail, destinations)
        parts = tuple(self._step.prepare(event, known, payload) for known in destinations)
        name = (type(event).__name__, as_text(envelope.event) or "", message_id)
        return _Prepared(message_id, self._seen(source, *name), payload, event, parts)

    def _unreadable(
        self, source: Source, payload: bytes, detail: str, destinations: Sequence[KnownDestination]
    ) -> _Prepared:
        """Return a dead letter for an undecodable event, so that the operator can see what was sent."""
        kept = conceal_bytes(payload[:KEPT_BYTES])
        draft = Draft(Reject(Reason.UNDECODABLE_EVENT, redact_emails(detail)))
        seen = self._seen(source, "", "", hashlib.sha256(payload).hexdigest())
        return _Prepared("", seen, kept, None, tuple(PreparedEvent(known, None, draft) for known in destinations[:1]))

    def _conclude(self, one: _Prepared, visits: Sequence[Visit]) -> tuple[tuple[NewRow, ...], ItemResult]:
        """Return the rows of an event, and the result for its sender: the best one of all destinations."""
        rows: list[NewRow] = []
        found: list[ItemResult] = []
        for part, visit in zip(one.parts, visits, strict=True):
            outcome = self._step.conclude(part, visit)
            found.append(_result(one.message_id, outcome))
            if not isinstance(outcome, Skip):
                rows.append(self._row(one, part, visit, outcome))
        order: tuple[Status, ...] = ("stored", "rejected", "filtered")
        return tuple(rows), min(found, key=lambda result: order.index(result.status))

    def _row(self, one: _Prepared, part: PreparedEvent, visit: Visit, outcome: Outcome) -> NewRow:
        people = self._people(one.event, part.draft)
        if isinstance(outcome, Reject):
            death = DeadLetterCause(str(outcome.reason), redact_emails(outcome.detail))
            order_id = next(iter(part.order_ids), None)
            return NewRow(part.known.id, one.payload, people=people, order_id=order_id, death=death)
        request = outcome.request if isinstance(outcome, Send) else None
        decided = _visits.encode(visit) if part.question is not None else b""
        urgent = isinstance(request, Conversion)
        order_id = request.form.get("OrderId") if isinstance(request, Conversion) else None
        return NewRow(part.known.id, one.payload, decided, urgent, people[0] if people else None, people, order_id)

    def _people(self, event: AnyEvent | None, draft: Draft) -> tuple[bytes, ...]:
        """Return digests of the event's identities, the visitor first; without a program if the event reached none."""
        if not isinstance(event, Event):
            return ()
        program = "" if draft.destination is None else draft.destination.clicks.program
        ids = self._digests.identities(program, as_text(event.anonymous_id), as_text(event.user_id))
        return tuple(one for one in ids if one is not None)

    def _seen(self, source: Source, call: str, name: str, message_id: str) -> bytes:
        return self._digests.of(SEPARATOR.join(("seen", source.name, call, name, message_id)))


def settle_payload(payload: bytes, call: str | None, envelope: _Envelope, received: str) -> tuple[str, bytes]:
    """Return the message id, and the event to store: with the path's call and a time, without e-mail addresses.

    An event without an id gets one derived from its content, which identifies a retry as the same event.
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
    """Append entries to the object; JSON decoders use the last of two entries with the same name."""
    entries = msgspec.json.encode(added)[1:]
    head = payload.rstrip()[:-1].rstrip()
    return head + (b"" if head.endswith(b"{") else b",") + entries


def conceal_bytes(payload: bytes) -> bytes:
    """Return bytes, which may not be JSON, without e-mail addresses."""
    return redact_emails(payload.decode("utf-8", "replace")).encode() if may_hold_email(payload) else payload


def _result(message_id: str, outcome: Outcome) -> ItemResult:
    if isinstance(outcome, Send):
        return ItemResult(message_id, "stored")
    status: Status = "filtered" if isinstance(outcome, Skip) else "rejected"
    return ItemResult(message_id or None, status, str(outcome.reason), redact_emails(outcome.detail))
