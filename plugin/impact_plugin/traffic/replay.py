"""Events through the same core as the service's, with sessions of their own: what becomes of them, counted.

Nothing is sent and no clock is asked: times are the events' own, and where a recording says when an event came, that.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from impact_plugin.config.destinations import KnownDestination
from impact_plugin.config.settings import StateSettings
from impact_plugin.sessions.sessions import Digests
from impact_plugin.store.base import SessionAnswer, SessionQuery
from impact_plugin.store.engine import Capacities, Engine
from impact_plugin.traffic.ageing import Ageing
from impact_plugin.traffic.reading import TrafficEvent, decoded
from impact_transformers import (
    NO_VISIT,
    AnyEvent,
    Conversion,
    Draft,
    Event,
    Outcome,
    Question,
    Reason,
    Reject,
    Secret,
    Send,
    UndecodableEventError,
    Visit,
    conclude,
    decode_object,
    prepare,
)
from impact_transformers.clicks import MINUTE_MS, counted_time

RETENTION_MS: Final = int(StateSettings().decision_retention_hours * 60) * MINUTE_MS
CAPACITY: Final = 5_000_000
HOUR_MS: Final = 60 * MINUTE_MS
EXAMPLES: Final = 3
"""Events shown of each reason and of each change."""

MOST_KINDS: Final = 200
"""Kinds of changes that are told apart."""


class ReplayedEvent(msgspec.Struct, frozen=True, gc=False):
    """One event at one destination, and what became of it."""

    number: int
    destination: str
    event: AnyEvent | None
    outcome: Outcome
    question: Question | None
    visit: Visit

    @property
    def label(self) -> str:
        """The outcome in a word or two: the endpoint path, or skip or reject with the reason."""
        if isinstance(self.outcome, Send):
            return self.outcome.request.endpoint_path
        return f"{type(self.outcome).__name__.lower()} {self.outcome.reason}"


class Sums(msgspec.Struct):
    """What is counted."""

    received: int = 0
    outcomes: Counter[tuple[str, str, str]] = msgspec.field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    notices: Counter[str] = msgspec.field(default_factory=Counter)
    decisions: Counter[str] = msgspec.field(default_factory=Counter)
    orders: Counter[str] = msgspec.field(default_factory=Counter)
    money: dict[str, str] = {}
    hours: Counter[tuple[int, str]] = msgspec.field(default_factory=Counter)
    examples: dict[str, list[str]] = {}

    def total_of(self, endpoint_path: str) -> int:
        """How many requests of this endpoint path."""
        return sum(count for (_, outcome, _), count in self.outcomes.items() if outcome == endpoint_path)

    @property
    def sent(self) -> int:
        """How many requests were made."""
        return sum(count for (_, outcome, _), count in self.outcomes.items() if outcome not in ("skip", "reject"))


class ReplayRun:
    """One set of destinations with sessions of its own, fed request by request."""

    def __init__(self, destinations: "Chosen", *, ages: bool = True) -> None:
        self.sums = Sums()
        self._destinations = destinations
        self.engine = Engine(Capacities(CAPACITY, CAPACITY, CAPACITY), RETENTION_MS)
        self._digests = Digests(Secret("replay"))
        self.ageing = Ageing(self.engine, RETENTION_MS, on=ages)
        self.money: Counter[str] = Counter()

    def feed(self, first: int, subjects: Sequence[TrafficEvent]) -> list[ReplayedEvent]:
        """Give the events of one request their outcomes, and count them; ``first`` is the number of the first."""
        ended: list[ReplayedEvent] = []
        prepared: list[tuple[int, TrafficEvent, KnownDestination, AnyEvent | None, Draft, Question | None]] = []
        for number, subject in enumerate(subjects, first):
            for known in self._destinations.of(subject):
                event, draft = _prepared(subject, known)
                prepared.append((number, subject, known, event, draft, draft.question))
        queries = [self._digests.query(one[5], one[1].at) for one in prepared if one[5] is not None]
        answers = iter(self._decide(queries)) if queries else iter(())
        for number, subject, known, event, draft, question in prepared:
            visit = NO_VISIT if question is None else self._visit(question, next(answers))
            one = ReplayedEvent(number, known.id, event, conclude(draft, visit), question, visit)
            self._count(one, subject)
            ended.append(one)
        self.sums.received += len(subjects)
        return ended

    def finish(self) -> Sums:
        """The sums, money put into words."""
        self.sums.money = {currency: f"{cents / 100:.2f}" for currency, cents in sorted(self.money.items())}
        return self.sums

    def _decide(self, queries: Sequence[SessionQuery]) -> list[SessionAnswer]:
        answers = self.engine.write(queries)
        self.engine.read(queries, answers)
        self.engine.take_changes()
        for query in queries:
            self.ageing.note(query.time)
        return answers

    def _visit(self, question: Question, answer: SessionAnswer) -> Visit:
        if answer.decision is not None:
            self.sums.decisions["replayed" if answer.replayed else str(answer.decision)] += 1
        if question.order and not answer.replayed:
            carried = question.click_id is not None
            self.sums.orders["carried" if carried else "without" if answer.click_id is None else "stitched"] += 1
        return Visit(answer.decision, answer.click_id)

    def _count(self, one: ReplayedEvent, subject: TrafficEvent) -> None:
        sums, outcome = self.sums, one.outcome
        call = type(one.event).__name__ if isinstance(one.event, Event) else "Other"
        if isinstance(outcome, Send):
            path: str = outcome.request.endpoint_path
            sums.outcomes[call, path, ""] += 1
            if outcome.notices:
                sums.notices.update(outcome.notices)
            if isinstance(outcome.request, Conversion):
                self._count_money(outcome.request.form)
        else:
            path = type(outcome).__name__.lower()
            sums.outcomes[call, path, outcome.reason] += 1
            self._keep_example(one, outcome.reason, outcome.detail)
        at = _time_of(one, subject)
        if at is not None:
            sums.hours[at // HOUR_MS, path] += 1

    def _keep_example(self, one: ReplayedEvent, reason: str, detail: str) -> None:
        kept = self.sums.examples.setdefault(str(reason), [])
        if len(kept) < EXAMPLES:
            kept.append(f"event {one.number}: {detail}")

    def _count_money(self, form: Mapping[str, str]) -> None:
        cents = cents_of(form)
        if cents is not None:
            self.money[form.get("CurrencyCode", "?")] += cents


class Chosen:
    """Which destinations an event goes to: those that are given, else those it names or brings."""

    def __init__(self, compiled: "Compile", given: Sequence[KnownDestination] = ()) -> None:
        self._compile = compiled
        self._given = tuple(given)
        self._told: dict[str, KnownDestination] = {}
        self._brought: dict[bytes, tuple[KnownDestination, ...]] = {}
        self._demonstration: tuple[KnownDestination, ...] = ()

    def tell(self, id_: str, config: dict[str, Any]) -> KnownDestination:
        """A recording says how a destination is configured from here on."""
        known = self._told[id_] = self._compile(id_, config)
        return known

    def of(self, subject: TrafficEvent) -> tuple[KnownDestination, ...]:
        """The destinations of an event."""
        if self._given:
            if subject.to and len(self._given) > 1:
                named = tuple(known for known in self._given if known.id in subject.to)
                return named or self._given[:1]
            return self._given
        if subject.to:
            return tuple(self._told[id_] for id_ in subject.to if id_ in self._told)
        if subject.config is not None:
            key = msgspec.json.encode(subject.config)
            if key not in self._brought:
                self._brought[key] = (self._compile("", subject.config),)
            return self._brought[key]
        if not self._demonstration:
            self._demonstration = (self._compile("demonstration", DEMONSTRATION),)
        return self._demonstration


class Compile:
    """Compiles configurations, each once; one that cannot be used rejects its events, as in the service."""

    def __init__(self, compile_one: Any) -> None:
        self._compile_one = compile_one
        self._known: dict[tuple[str, bytes], KnownDestination] = {}

    def __call__(self, id_: str, config: dict[str, Any]) -> KnownDestination:
        """The destination of this id and configuration."""
        key = id_, msgspec.json.encode(config)
        if key not in self._known:
            self._known[key] = self._compile_one(id_, config)
        return self._known[key]


DEMONSTRATION: Final[dict[str, Any]] = {"accountSID": "IRdemoAccount", "apiKey": "demo-token", "campaignId": "23224"}
"""The destination for a first look, when none is given."""


class Change(msgspec.Struct):
    """Events that would become something else: how many, and the first few."""

    before: str
    after: str
    parameters: tuple[str, ...]
    count: int = 0
    examples: list[str] = []


class Comparison:
    """What another configuration would change, event by event and in sum."""

    def __init__(self) -> None:
        self.changes: dict[tuple[str, str, tuple[str, ...]], Change] = {}
        self.compared = 0
        self.changed = 0

    def compare(self, before: Sequence[ReplayedEvent], after: Sequence[ReplayedEvent]) -> None:
        """Put the outcomes of one request beside each other; events without a pair count as such."""
        paired = {one.number: one for one in after}
        for one in before:
            other = paired.pop(one.number, None)
            self._note(one, other)
        for one in paired.values():
            self._note(None, one)

    def _note(self, before: ReplayedEvent | None, after: ReplayedEvent | None) -> None:
        self.compared += 1
        labels = tuple("nothing" if one is None else one.label for one in (before, after))
        parameters = _differing(before, after)
        if labels[0] == labels[1] and not parameters:
            return
        self.changed += 1
        key = labels[0], labels[1], parameters
        if key not in self.changes and len(self.changes) >= MOST_KINDS:
            key = "other", "other", ()
        change = self.changes.setdefault(key, Change(*key, 0, []))
        change.count += 1
        number = (before or after or _NOBODY).number
        if len(change.examples) < EXAMPLES:
            change.examples.append(
                f"event {number}" + "".join(f", {told}" for told in _told(before, after, parameters))
            )


def _differing(before: ReplayedEvent | None, after: ReplayedEvent | None) -> tuple[str, ...]:
    one, other = _form(before), _form(after)
    if one is None or other is None or one == other:
        return ()
    return tuple(name for name in sorted({*one, *other}) if one.get(name) != other.get(name))


def _time_of(one: ReplayedEvent, subject: TrafficEvent) -> int | None:
    """When the event happened, in milliseconds; what asks the sessions nothing, as a reject, says it itself."""
    if subject.at is not None:
        return subject.at
    if one.question is not None:
        return one.question.time
    return counted_time(one.event)[0] if isinstance(one.event, Event) else None


def _form(ended: ReplayedEvent | None) -> dict[str, str] | None:
    return ended.outcome.request.form if ended is not None and isinstance(ended.outcome, Send) else None


def _told(before: ReplayedEvent | None, after: ReplayedEvent | None, parameters: Sequence[str]) -> Iterable[str]:
    for name in parameters[:EXAMPLES]:
        values = [(_form(one) or {}).get(name, "nothing") for one in (before, after)]
        yield f"{name} {values[0]} -> {values[1]}"


_NOBODY: Final = ReplayedEvent(0, "", None, Reject(Reason.UNDECODABLE_EVENT, ""), None, NO_VISIT)


def cents_of(form: Mapping[str, str]) -> int | None:
    """What an order is worth in hundredths: its subtotal, else its items less its discount; None where it tells not."""
    try:
        if "OrderSubTotalPostDiscount" in form:
            return round(Decimal(form["OrderSubTotalPostDiscount"]) * 100)
        total = Decimal(0)
        for name, value in form.items():
            if name.startswith("ItemSubTotal"):
                total += Decimal(value)
            elif name.startswith("ItemPrice"):
                total += Decimal(value) * Decimal(form.get(f"ItemQuantity{name[len('ItemPrice') :]}", "1"))
        return round((total - Decimal(form.get("OrderDiscount", "0"))) * 100) if total else None
    except InvalidOperation:
        return None


def _prepared(subject: TrafficEvent, known: KnownDestination) -> tuple[AnyEvent | None, Draft]:
    event = decoded(subject)
    if event is None:
        return None, Draft(Reject(Reason.UNDECODABLE_EVENT, "the event is no JSON object"))
    if known.destination is None:
        return event, Draft(Reject(Reason.CONFIGURATION, known.problem or ""))
    try:
        message = decode_object(subject.message) if known.reads_message else None
    except UndecodableEventError as error:
        return event, Draft(Reject(Reason.UNDECODABLE_EVENT, str(error)))
    return event, prepare(event, known.destination, message)
