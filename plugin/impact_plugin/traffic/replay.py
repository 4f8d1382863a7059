"""Replay recorded events through the service's own transformation, with sessions of their own, and count the outcomes.

Nothing is sent, and no clock is read: times are the events' own, or those at which a recording received them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from itertools import groupby
from typing import Final, TypeAlias

import msgspec

from impact_plugin.config.destinations import KnownDestination
from impact_plugin.delivery.identity import order_identity
from impact_plugin.sessions.click_history import NOT_ASKED, ClickExplanation
from impact_plugin.sessions.offline import AskingEvent, OfflineAnswer, OfflineSessions
from impact_plugin.sessions.sessions import click_id_origin, decision_label, visit_of
from impact_plugin.traffic.destinations import TrafficDestinations
from impact_plugin.traffic.orders import FlaggedOrder, OrderTally
from impact_plugin.traffic.reading import RecordedDestination, Traffic, TrafficEvent
from impact_plugin.transformation.reported_order import may_be_missing
from impact_plugin.transformation.step import PreparedEvent, ReportFault, TransformStep, outcome_word
from impact_transformers import NO_VISIT, Conversion, Event, Explanation, NoticeReason, Outcome, Question, Send, Visit
from impact_transformers.clicks import MINUTE_MS, counted_time
from impact_transformers.normalize import as_text, redact_emails

HOUR_MS: Final = 60 * MINUTE_MS
EXAMPLES: Final = 3
"""Example events for each reason and each change."""

STATED_AMOUNTS: Final = ("OrderSubTotalPostDiscount", "Amount")
"""Parameters that state the amount of an order without items."""

Request: TypeAlias = "tuple[int, list[TrafficEvent]]"
"""The number of a request's first event, from 1, and its events."""


class ReplayedEvent(msgspec.Struct, frozen=True, gc=False):
    """One event at one destination, and what became of it."""

    number: int
    source: TrafficEvent
    prepared: PreparedEvent
    outcome: Outcome
    visit: Visit = NO_VISIT
    clicks: ClickExplanation = NOT_ASKED

    @property
    def label(self) -> str:
        """The outcome in a word or two: the endpoint path, or filtered or rejected with the reason."""
        if isinstance(self.outcome, Send):
            return self.outcome.request.endpoint_path
        return f"{outcome_word(self.outcome)} {self.outcome.reason}"

    @property
    def form(self) -> dict[str, str]:
        """The parameters of the request; empty without one."""
        return self.outcome.request.form if isinstance(self.outcome, Send) else {}

    def is_order(self, order_id: str) -> bool:
        """Whether the event is about this order, by its properties or by its request."""
        return order_id in (*self.prepared.order_ids, self.form.get("OrderId"))

    @property
    def time(self) -> int | None:
        """When the event happened, in milliseconds since 1970; None if unknown."""
        if self.source.at is not None:
            return self.source.at
        question, event = self.prepared.question, self.prepared.event
        if question is not None:
            return question.time
        return counted_time(event)[0] if isinstance(event, Event) else None


class Sums(msgspec.Struct):
    """The counts of a replay."""

    received: int = 0
    outcomes: Counter[tuple[str, str, str]] = msgspec.field(default_factory=Counter)
    notices: Counter[str] = msgspec.field(default_factory=Counter)
    decisions: Counter[str] = msgspec.field(default_factory=Counter)
    orders: Counter[str] = msgspec.field(default_factory=Counter)
    tally: OrderTally = msgspec.field(default_factory=OrderTally)
    hours: Counter[tuple[int, str]] = msgspec.field(default_factory=Counter)
    examples: dict[str, list[str]] = {}

    def total_of(self, outcome: str) -> int:
        """How many events have this outcome: an endpoint path, filtered or rejected."""
        return sum(count for (_, found, _), count in self.outcomes.items() if found == outcome)

    @property
    def sent(self) -> int:
        """How many requests were made."""
        return sum(count for (_, outcome, _), count in self.outcomes.items() if outcome not in ("filtered", "rejected"))


class ReplayRun:
    """One set of destinations with sessions of its own, fed request by request.

    With ``ages`` the sessions forget by the times of the events; with ``explains`` every event names the earlier ones
    that decided about its click. ``report_fault`` gets the exceptions that are defects of ours.
    """

    def __init__(
        self,
        destinations: TrafficDestinations,
        report_fault: ReportFault,
        *,
        ages: bool = True,
        explains: bool = False,
    ) -> None:
        self.sums = Sums()
        self.destinations = destinations
        self.sessions = OfflineSessions(ages=ages, explains=explains)
        self._step = TransformStep(report_fault)

    def feed(self, first: int, events: Sequence[TrafficEvent]) -> list[ReplayedEvent]:
        """Give the events of one request their outcomes, and count them; ``first`` is the number of the first."""
        prepared = [
            (number, event, self._prepare(event, known))
            for number, event in enumerate(events, first)
            for known in self.destinations.of(event)
        ]
        asking = [
            AskingEvent(question, number, _message_id(one), event.at)
            for number, event, one in prepared
            if (question := one.question) is not None
        ]
        answers = iter(self.sessions.answer(asking))
        replayed: list[ReplayedEvent] = []
        for number, event, one in prepared:
            answer = None if one.question is None else next(answers)
            visit = NO_VISIT if answer is None else visit_of(answer.answer)
            explanation = NOT_ASKED if answer is None else answer.explanation
            found = ReplayedEvent(number, event, one, self._step.conclude(one, visit), visit, explanation)
            self._count(found, answer)
            replayed.append(found)
        self.sums.received += len(events)
        return replayed

    def explanation_of(self, one: ReplayedEvent) -> Explanation:
        """How each parameter of an event's request was determined; needs traffic that was read ``whole``."""
        return self._step.explain(one.prepared, one.outcome, one.source.message)

    def _prepare(self, event: TrafficEvent, known: KnownDestination) -> PreparedEvent:
        if event.event is None:
            return self._step.read(event.message, known)
        return self._step.prepare(event.event, known, event.message)

    def _count(self, one: ReplayedEvent, answer: OfflineAnswer | None) -> None:
        sums, outcome = self.sums, one.outcome
        if isinstance(outcome, Send):
            path: str = outcome.request.endpoint_path
            sums.outcomes[one.prepared.call, path, ""] += 1
            if outcome.notices:
                sums.notices.update(notice.reason for notice in outcome.notices)
        else:
            path = outcome_word(outcome)
            sums.outcomes[one.prepared.call, path, outcome.reason] += 1
            self._keep_example(one, outcome.reason, outcome.detail)
        self._count_order(one)
        if answer is not None and one.prepared.question is not None:
            self._count_answer(one.prepared.question, answer)
        at = one.time
        if at is not None:
            sums.hours[at // HOUR_MS, path] += 1

    def _count_answer(self, question: Question, answer: OfflineAnswer) -> None:
        if answer.answer.decision is not None:
            self.sums.decisions[decision_label(answer.answer)] += 1
        if question.order and not answer.answer.replayed:
            self.sums.orders[click_id_origin(question, answer.answer)] += 1

    def _keep_example(self, one: ReplayedEvent, reason: str, detail: str) -> None:
        kept = self.sums.examples.setdefault(str(reason), [])
        if len(kept) < EXAMPLES:
            kept.append(f"event {one.number}: {detail}")

    def _count_order(self, one: ReplayedEvent) -> None:
        outcome = one.outcome
        if isinstance(outcome, Send) and isinstance(outcome.request, Conversion):
            identity = order_identity(outcome.config.account_sid, one.form)
            order = _flagged(one, one.form.get("OrderId", ""), cents_of(one.form), one.form.get("CurrencyCode", ""))
            self.sums.tally.add_sent(identity, order, outcome.notices)
            return
        found = self._step.order_of(one.prepared, one.source.message) if may_be_missing(outcome) else None
        if found is not None:
            cents = None if found.amount is None else int(found.amount * 100)
            self.sums.tally.add_missing(found.identity, _flagged(one, found.order_id, cents, found.currency))


def _flagged(one: ReplayedEvent, order_id: str, cents: int | None, currency: str) -> FlaggedOrder:
    outcome = one.outcome
    reason, detail = (
        (NoticeReason.LOOKS_LIKE_ORDER, "") if isinstance(outcome, Send) else (outcome.reason, outcome.detail)
    )
    word = outcome.request.endpoint_path if isinstance(outcome, Send) else outcome_word(outcome)
    message_id = redact_emails(as_text(_message_id(one.prepared)) or "")
    destination, shown = one.prepared.known.id, redact_emails(order_id)
    return FlaggedOrder(
        one.number, message_id, destination, shown, cents, currency, word, str(reason), redact_emails(detail)
    )


def requests_of(traffic: Traffic, destinations: Sequence[TrafficDestinations]) -> Iterator[Request]:
    """The events of each request together, as the service decides about them together.

    What a recording says about destinations is passed on to ``destinations``.
    """
    traffic.whole |= any(one.read_messages for one in destinations)
    numbered = enumerate(_without_destinations(traffic, destinations), 1)
    for _, group in groupby(numbered, key=lambda pair: pair[0] if pair[1].request is None else -1 - pair[1].request):
        request = list(group)
        yield request[0][0], [event for _, event in request]


def _without_destinations(traffic: Traffic, destinations: Sequence[TrafficDestinations]) -> Iterator[TrafficEvent]:
    for one in traffic:
        if isinstance(one, RecordedDestination):
            for each in destinations:
                traffic.whole |= each.configure(one.id, one.config).reads_message
        else:
            yield one


def cents_of(form: Mapping[str, str]) -> int | None:
    """What impact.com books for a conversion, in hundredths: the order's amount, else its items less its discount.

    None if the conversion states no amount.
    """
    try:
        stated = next((form[name] for name in STATED_AMOUNTS if name in form), None)
        if stated is not None:
            return round(Decimal(stated) * 100)
        items = [*_item_amounts(form)]
        return round((sum(items) - Decimal(form.get("OrderDiscount", "0"))) * 100) if items else None
    except InvalidOperation:
        return None


def _item_amounts(form: Mapping[str, str]) -> Iterator[Decimal]:
    for name, value in form.items():
        if name.startswith("ItemSubTotal"):
            yield Decimal(value)
        elif name.startswith("ItemPrice"):
            yield Decimal(value) * Decimal(form.get(f"ItemQuantity{name[len('ItemPrice') :]}", "1"))


def _message_id(prepared: PreparedEvent) -> str | int | float | bool | None:
    return prepared.event.message_id if isinstance(prepared.event, Event) else None
