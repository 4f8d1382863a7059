"""Transforms one event for one destination: decode, prepare with a question to the sessions, conclude with the visit.

All transformations go through :class:`TransformStep`: the router's batches, the intake and drain of the ingest port,
``replay`` and ``explain``. It is also the only place that isolates defects: an unexpected exception is reported and
rejects its event, and affects no other.
"""

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import msgspec

from impact_plugin.config.destinations import KnownDestination
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.faults import TransformFault
from impact_plugin.transformation.reported_order import ReportedOrder, find_order
from impact_transformers import (
    AnyEvent,
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
    conclude,
    decode_event,
    decode_object,
    prepare,
)
from impact_transformers.explain import Explanation, explain_outcome
from impact_transformers.normalize import as_text

RawEvent: TypeAlias = bytes | msgspec.Raw
ReportFault: TypeAlias = Callable[[Exception], None]
OutcomeWord: TypeAlias = Literal["sent", "filtered", "rejected"]

ORDER_ID_KEYS: Final = ("order_id", "orderId")
"""The property names of an order id. https://segment.com/docs/connections/spec/ecommerce/v2/"""


class PreparedEvent(msgspec.Struct, frozen=True, gc=False):
    """One event for one destination, waiting for its visit.

    ``event`` is None if it could not be decoded. ``question`` is None if the event needs nothing from the sessions.
    """

    known: KnownDestination
    event: AnyEvent | None
    draft: Draft
    question: Question | None = None

    @property
    def call(self) -> str:
        """The event's call as a metric label, bounded for any type that a sender writes."""
        return type(self.event).__name__ if isinstance(self.event, Event) else "Other"

    @property
    def order_ids(self) -> list[str]:
        """The order ids in the event, so that operators can find it even if it became no request."""
        properties = self.event.properties if isinstance(self.event, Event) else None
        found = (as_text((properties or {}).get(key)) for key in ORDER_ID_KEYS)
        return [order_id for order_id in found if order_id]


class TransformStep(msgspec.Struct, frozen=True):
    """Decodes, prepares and concludes events; calls ``report_fault`` with every unexpected exception.

    Without ``asks`` no event gets a question, for when there are no sessions to answer it.
    """

    report_fault: ReportFault
    asks: bool = True

    def decode(self, raw: RawEvent) -> AnyEvent | Reject:
        """Decode an event; returns a rejection if that fails."""
        try:
            return decode_event(raw)
        except UndecodableEventError as error:
            return _undecodable(error)
        except Exception as error:  # noqa: BLE001 - the boundary of one event: a defect affects this event only
            return self._reject(error)

    def prepare(self, event: AnyEvent, known: KnownDestination, raw: RawEvent | None = None) -> PreparedEvent:
        """Transform a decoded event for the destination as far as possible without the visit.

        ``raw`` is the same event in bytes, for destinations whose mapping reads the whole message.
        """
        destination = known.destination
        if destination is None:
            return PreparedEvent(known, event, Draft(Reject(Reason.CONFIGURATION, known.problem or "")))
        try:
            message = decode_object(raw) if raw is not None and destination.reads_message else None
            draft = prepare(event, destination, message)
        except UndecodableEventError as error:
            return PreparedEvent(known, event, Draft(_undecodable(error)))
        except Exception as error:  # noqa: BLE001 - the boundary of one event, as above
            return PreparedEvent(known, event, Draft(self._reject(error)))
        return PreparedEvent(known, event, draft, self._question(draft) if self.asks else None)

    def read(self, raw: RawEvent, known: KnownDestination) -> PreparedEvent:
        """Decode the event and prepare it for the destination."""
        event = self.decode(raw)
        if isinstance(event, Reject):
            return PreparedEvent(known, None, Draft(event))
        return self.prepare(event, known, raw)

    def conclude(self, prepared: PreparedEvent, visit: Visit) -> Outcome:
        """Return the outcome of the event with its visit."""
        try:
            return conclude(prepared.draft, visit)
        except Exception as error:  # noqa: BLE001 - the boundary of one event, as above
            return self._reject(error)

    def explain(self, prepared: PreparedEvent, outcome: Outcome, raw: RawEvent) -> Explanation:
        """Return how each parameter of the outcome was determined; without steps if no mapping was evaluated."""
        event, destination = prepared.event, prepared.known.destination
        if event is None or destination is None:
            return Explanation(outcome)
        if isinstance(outcome, Reject) and outcome.reason is Reason.TRANSFORM_FAULT:
            return Explanation(outcome)
        try:
            return explain_outcome(outcome, event, destination, decode_object(raw))
        except Exception as error:  # noqa: BLE001 - the boundary of one event, as above; shown without its steps
            self.report_fault(error)
            return Explanation(outcome)

    def order_of(self, prepared: PreparedEvent, raw: RawEvent) -> ReportedOrder | None:
        """The order, lead or install that the event reports, whatever becomes of it; ``raw`` may be empty."""
        event, destination = prepared.event, prepared.known.destination
        if event is None:
            return None
        try:
            needs_all = not isinstance(event, Event) or (destination is not None and destination.reads_message)
            return find_order(event, destination, decode_object(raw) if needs_all and raw else None)
        except Exception as error:  # noqa: BLE001 - the border of one event, as above; nothing is known of its order
            self.report_fault(error)
            return None

    def _question(self, draft: Draft) -> Question | None:
        try:
            return draft.question
        except Exception as error:  # noqa: BLE001 - the boundary of one event, as above; sent without its visit
            self.report_fault(error)
            return None

    def _reject(self, error: Exception) -> Reject:
        self.report_fault(error)
        return Reject(Reason.TRANSFORM_FAULT, f"{type(error).__name__} in the transformation")


def faults_to(telemetry: Telemetry) -> ReportFault:
    """Return a function that emits exceptions as telemetry events."""
    return lambda error: telemetry.emit(TransformFault(type(error).__name__, error))


def outcome_word(outcome: Outcome) -> OutcomeWord:
    """Return the word for an outcome, as in responses, metrics, reports and the glossary."""
    if isinstance(outcome, Send):
        return "sent"
    return "filtered" if isinstance(outcome, Skip) else "rejected"


def _undecodable(error: UndecodableEventError) -> Reject:
    return Reject(Reason.UNDECODABLE_EVENT, str(error))
