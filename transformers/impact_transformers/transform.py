"""One event and one destination in, exactly one outcome out. Pure: no clock, no I/O, no randomness.

It goes in two steps, because sessions are looked up for a whole batch at once: :func:`prepare` makes the request and
the question that the event has for the sessions, :func:`conclude` takes the answer and says what becomes of it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from impact_transformers.clicks import click_key, counted_time, landing_click_id, message_facts
from impact_transformers.compile import locate, trace
from impact_transformers.configuration import ConfigurationError, EventType
from impact_transformers.conversion import assemble_conversion, check_attribution
from impact_transformers.destination import AnyDestination, Destination, consent_of
from impact_transformers.events import (
    Alias,
    AnyEvent,
    Event,
    Group,
    Identify,
    KnownEvent,
    Page,
    Screen,
    Track,
    Unsupported,
)
from impact_transformers.normalize import as_text, is_old, redact_emails
from impact_transformers.outcome import Notice, Outcome, Reason, RefusalError, Reject, Send, Skip
from impact_transformers.page_load import assemble_page_load, check_identity
from impact_transformers.requests import Conversion, PageLoad, Request
from impact_transformers.trail import Step
from impact_transformers.visit import NO_VISIT, Decision, Question, Visit


class Draft(msgspec.Struct, frozen=True, gc=False):
    """What becomes of an event as far as it is known without its visit, and the question that would tell the rest."""

    outcome: Outcome
    event: KnownEvent | None = None
    destination: Destination | None = None

    @property
    def question(self) -> Question | None:
        """What the event has to ask or tell the sessions; None for nothing at all. Worked out at each look."""
        if self.event is None or self.destination is None:
            return None
        if isinstance(self.outcome, Send):
            return _question(self.event, self.outcome.request, self.destination)
        return _bare_question(self.event, self.destination)


def transform(
    event: AnyEvent,
    destination: AnyDestination,
    message: Mapping[str, Any] | None = None,
    visit: Visit = NO_VISIT,
) -> Outcome:
    """Decide what the event becomes.

    ``message`` is the same event decoded without types; it is needed only when ``destination.reads_message``.
    ``visit`` is the answer to the question that :func:`prepare` gives for the event.
    """
    return conclude(prepare(event, destination, message), visit)


def prepare(event: AnyEvent, destination: AnyDestination, message: Mapping[str, Any] | None = None) -> Draft:
    """Make the request, or find the reason why there is none, and the question for the sessions."""
    if not isinstance(event, Event):
        return Draft(_unsupported(event))
    try:
        static = destination.for_event(message)
    except ConfigurationError as error:
        return Draft(Reject(Reason.CONFIGURATION, redact_emails(str(error))))
    kind = conversion_kind(event, static) if isinstance(event, Track) else None
    skip = None if static.lets_all_pass else _gate(event, kind, static, message)
    if skip is not None:
        return Draft(skip) if skip.reason is Reason.CONSENT_DENIED else Draft(skip, event, static)
    try:
        if kind is not None and isinstance(event, Track):
            request: Request = assemble_conversion(event, kind, static, message)
        else:
            request = assemble_page_load(event, static, message)
    except RefusalError as refusal:
        if refusal.parameter is None:
            refusal = locate(refusal, trace_event(event, kind, static, message))
        return Draft(refusal.as_reject(), event, static)
    return Draft(Send(request, static.config, _notices(event, request)), event, static)


def conclude(draft: Draft, visit: Visit = NO_VISIT) -> Outcome:
    """Put what is known about the visit into the request: the label of a unique click, the remembered click id."""
    outcome = draft.outcome
    if not isinstance(outcome, Send):
        return outcome
    request, config, notices = outcome.request, outcome.config, outcome.notices
    if visit is not NO_VISIT:
        repeated = visit.decision is Decision.REPEAT
        # A repeat that only this process knows of may be somebody's unique click: it is not dropped.
        if repeated and config.repeated_clicks == "drop" and not visit.undecided:
            return Skip(Reason.REPEATED_CLICK, "the same click came before, within its window")
        if visit.decision is Decision.NEW or visit.click_id is not None:
            request = _with_visit(request, visit)
            outcome = Send(request, config, notices)
        if visit.undecided:
            outcome = Send(request, config, (*notices, Notice.UNDECIDED))
    try:
        (check_attribution if type(request) is Conversion else check_identity)(request.form)
    except RefusalError as refusal:
        return refusal.as_reject()
    return outcome


def _with_visit(request: Request, visit: Visit) -> Request:
    form = request.form
    if visit.click_id is not None and "ClickId" not in form:
        form = {**form, "ClickId": visit.click_id}
    if isinstance(request, Conversion):
        return Conversion(form)
    return PageLoad(form, "clicks" if visit.decision is Decision.NEW else "pageload")


def _question(event: KnownEvent, request: Request, destination: Destination) -> Question | None:
    """The question of an event that is sent."""
    rules, form = destination.clicks, request.form
    order, identifies = type(request) is Conversion, type(event) is Identify
    key = None if order or identifies else click_key(event, form, rules)
    click_id = form.get("ClickId") if rules.remembers else None
    anonymous_id, user_id = as_text(event.anonymous_id), as_text(event.user_id)
    known = anonymous_id is not None or user_id is not None
    asks = rules.remembers and known and click_id is None
    joins = rules.remembers and identifies and anonymous_id is not None and user_id is not None
    if key is None and not order and not asks and not joins and (click_id is None or not known):
        return None
    ids = anonymous_id, user_id
    return _make_question(event, form, destination, (key, click_id), ids, asks=asks, joins=joins, order=order)


def _bare_question(event: KnownEvent, destination: Destination) -> Question | None:
    """The click id of an event that is not sent: the visitor clicked all the same, and an order may follow."""
    ids = as_text(event.anonymous_id), as_text(event.user_id)
    if ids == (None, None) or not destination.clicks.remembers:
        return None
    click_id = landing_click_id(event, destination.clicks)
    if click_id is None:
        return None
    return _make_question(event, {}, destination, (None, click_id), ids, asks=False, joins=False, order=False)


def _make_question(
    event: KnownEvent,
    form: Mapping[str, str],
    destination: Destination,
    click: tuple[str | None, str | None],
    ids: tuple[str | None, str | None],
    *,
    asks: bool,
    joins: bool,
    order: bool,
) -> Question:
    """Put the question together: the key of a candidate and the click id it carries, the anonymous and the user id."""
    rules = destination.clicks
    time, received = counted_time(event, form.get("EventDate"))
    return Question(
        rules.program,
        message_facts(event, form),
        time,
        received,
        *click,
        *ids,
        asks,
        joins,
        order,
        rules.window_ms,
        rules.referral_ms,
        rules.first,
    )


def conversion_kind(event: KnownEvent, destination: Destination) -> EventType | None:
    """What the event is to the destination; None for everything that becomes a Page Load, if anything."""
    if not isinstance(event, Track):
        return None
    name = as_text(event.event)
    kind = destination.routes.get(name.casefold()) if name else None
    return None if kind is None or kind.kind == "page_load" else kind


def trace_event(
    event: KnownEvent, kind: EventType | None, destination: Destination, message: Mapping[str, Any] | None
) -> Iterator[Step]:
    """How each parameter that the tables know came about, in the order the request is built."""
    find = destination.clicks.find
    if kind is None:
        yield from trace(destination.page_load.rows, event, message, find)
        return
    yield from trace(destination.conversion.rows, event, message, find)
    products = (event.properties or {}).get("products")
    for number, product in enumerate(products if isinstance(products, list) else (), 1):
        if isinstance(product, dict):
            yield from trace(destination.item.rows, product, None, find, str(number), item=True)
    yield from trace(destination.with_items.rows, event, message, find)
    yield from trace(destination.without_items.rows, event, message, find)


def _notices(event: KnownEvent, request: Request) -> tuple[Notice, ...]:
    """What to tell about the request."""
    found: tuple[Notice, ...] = ()
    date, received = request.form["EventDate"], event.received_at
    if date == "NOW":
        found = (Notice.EVENT_DATE_MISSING,)
    # Events of the month they were received in, nearly all, are spared the arithmetic.
    elif type(received) is str and not received.startswith(date[:7]) and is_old(date, received):
        found = (Notice.OLD_EVENT,)
    if type(request) is Conversion and (event.properties or {}).get("products") and "ItemSku1" not in request.form:
        found += (Notice.ITEMS_INCOMPLETE,)
    return found


def _unsupported(event: Group | Alias | Unsupported) -> Outcome:
    if event.type is None:
        return Reject(Reason.MISSING_TYPE, "Event type is required", path="type")
    return Skip(Reason.UNSUPPORTED_TYPE, f"Event type {event.type[:32]} is not supported")


def _gate(
    event: KnownEvent, kind: EventType | None, destination: Destination, message: Mapping[str, Any] | None
) -> Skip | None:
    """Whatever the operator switched off, and the visitor's refusal."""
    config = destination.config
    if isinstance(event, Page) and not config.enable_page_events:
        return Skip(Reason.PAGE_DISABLED, "page events are disabled from Config")
    if isinstance(event, Identify) and not config.enable_identify_events:
        return Skip(Reason.IDENTIFY_DISABLED, "identify events are disabled from Config")
    if isinstance(event, Screen) and not config.enable_screen_events:
        return Skip(Reason.SCREEN_DISABLED, "screen events are disabled from Config")
    if isinstance(event, Track) and kind is None and config.unmapped_track == "skip" and not _named(event, destination):
        return Skip(Reason.UNMAPPED_TRACK, "the event is named in no list of the destination")
    if config.consent_gate != "off":
        consent = consent_of(destination, message or {})
        if consent == "false" or (consent is None and config.consent_gate == "required"):
            return Skip(
                Reason.CONSENT_DENIED, "the visitor's consent is " + ("unknown" if consent is None else "denied")
            )
    return None


def _named(event: Track, destination: Destination) -> bool:
    """Whether ``eventTypes`` asks for a Page Load for this event by name."""
    return (as_text(event.event) or "").casefold() in destination.routes
