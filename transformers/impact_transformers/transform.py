"""One event and one destination in, exactly one outcome out. Pure: no clock, no I/O, no randomness.

It goes in two steps, because sessions are looked up for a whole batch at once: :func:`prepare` makes the request and
the question that the event has for the sessions, :func:`conclude` takes the answer and says what becomes of it.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec

from impact_transformers.clicks import carried_click_id, click_key, counted_time, is_rewarded, message_facts
from impact_transformers.configuration import ConfigurationError, EventType
from impact_transformers.conversion import assemble_conversion, call_name, check_attribution
from impact_transformers.destination import AnyDestination, Destination, consent_of
from impact_transformers.event_names import AFTER_SALE, NOT_ORDERS
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
from impact_transformers.outcome import Notice, NoticeReason, Outcome, Reason, RefusalError, Reject, Send, Skip
from impact_transformers.page_load import assemble_page_load, check_identity
from impact_transformers.requests import Conversion, PageLoad, Request
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
        return _bare_question(self.event, self.destination, self.outcome)


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
    track = type(event) is Track
    kind = conversion_kind(event, static) if track or static.calls else None
    # Most events are pages of destinations that switch nothing off.
    skip = _skip(event, kind, static, message) if track or not static.lets_all_pass else None
    if skip is not None:
        return skip
    notices: list[Notice] = []
    try:
        if kind is None:
            request: Request = assemble_page_load(event, static, message, notices)
        else:
            request = assemble_conversion(event, kind, static, message, notices)
    except RefusalError as refusal:
        return Draft(refusal.reject, event, static)
    _add_notices(event, request, static, notices)
    return Draft(Send(request, static.config, tuple(notices) if notices else ()), event, static)


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
            outcome = Send(request, config, (*notices, _UNDECIDED))
    try:
        (check_attribution if type(request) is Conversion else check_identity)(request.form)
    except RefusalError as refusal:
        return refusal.reject
    return outcome


def _with_visit(request: Request, visit: Visit) -> Request:
    form = request.form
    if visit.click_id is not None and "ClickId" not in form and form.get("TrackingConsent") != "false":
        form = {**form, "ClickId": visit.click_id}
    if isinstance(request, Conversion):
        return Conversion(form)
    return PageLoad(form, "clicks" if visit.decision is Decision.NEW else "pageload")


def _question(event: KnownEvent, request: Request, destination: Destination) -> Question | None:
    """The question of an event that is sent."""
    rules, form = destination.clicks, request.form
    order, identifies = type(request) is Conversion, type(event) is Identify
    key = None if order or identifies else click_key(event, form, rules)
    ids = as_text(event.anonymous_id), as_text(event.user_id)
    known = ids != (None, None)
    # A visitor who denied consent is neither remembered nor asked about; what was remembered goes.
    denied = form.get("TrackingConsent") == "false"
    remembers = rules.remembers and not denied
    click_id = form.get("ClickId") if remembers else None
    asks = remembers and known and click_id is None
    names_both = remembers and None not in ids
    forgets = denied and known and rules.remembers
    if key is None and not (order or asks or forgets) and (click_id is None or not known):
        return None
    flags = (asks, names_both and identifies, order, forgets, names_both)
    return _make_question(event, form, destination, (key, click_id), ids, flags)


def _bare_question(event: KnownEvent, destination: Destination, skip: Outcome) -> Question | None:
    """What an event that is not sent tells all the same: a click, after which an order may follow; or a denial."""
    ids = as_text(event.anonymous_id), as_text(event.user_id)
    if ids == (None, None) or not destination.clicks.remembers:
        return None
    forgets = isinstance(skip, Skip) and skip.reason is Reason.CONSENT_DENIED
    click_id = None if forgets else carried_click_id(event, destination.clicks)
    if click_id is None and not forgets:
        return None
    return _make_question(event, {}, destination, (None, click_id), ids, (False, False, False, forgets, False))


Flags: TypeAlias = tuple[bool, bool, bool, bool, bool]
"""A question's ``asks``, ``joins``, ``order``, ``forgets`` and ``names_both``."""


def _make_question(
    event: KnownEvent,
    form: Mapping[str, str],
    destination: Destination,
    click: tuple[str | None, str | None],
    ids: tuple[str | None, str | None],
    flags: Flags,
) -> Question:
    """Put the question together: the key of a candidate and the click id it carries, the anonymous and the user id."""
    rules = destination.clicks
    time, received = counted_time(event, form.get("EventDate"))
    asks, joins, order, forgets, names_both = flags
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
        rules.fixed,
        forgets,
        names_both,
    )


def conversion_kind(event: KnownEvent, destination: Destination) -> EventType | None:
    """What the event is to the destination; None for everything that becomes a Page Load, if anything."""
    kind = _route(event, destination)
    return None if kind is None or kind.kind == "page_load" else kind


def _route(event: KnownEvent, destination: Destination) -> EventType | None:
    """The entry that names the event: of a track, or of a page, screen or identify call."""
    if type(event) is Track:
        name = as_text(event.event)
        return destination.routes.get(name.casefold()) if name else None
    return destination.calls.get(call_name(event).casefold()) if destination.calls else None


_UNDECIDED: Final = Notice(NoticeReason.UNDECIDED)
_NO_DATE: Final = Notice(NoticeReason.EVENT_DATE_MISSING, parameter="EventDate", path="timestamp")
_OLD: Final = Notice(NoticeReason.OLD_EVENT, parameter="EventDate", path="timestamp")


def _add_notices(event: KnownEvent, request: Request, destination: Destination, notices: list[Notice]) -> None:
    """What to tell about the request beside what its parameters had to tell."""
    date, received = request.form["EventDate"], event.received_at
    if date == "NOW":
        notices.append(_NO_DATE)
    # Events of the month they were received in, nearly all, are spared the arithmetic.
    elif type(received) is str and not received.startswith(date[:7]) and is_old(date, received):
        notices.append(_OLD)
    if type(event) is Track and type(request) is PageLoad and looks_like_order(event, destination):
        notices.append(Notice(NoticeReason.LOOKS_LIKE_ORDER, path="event"))


ORDER_IDS: Final = ("order_id", "orderId", "transaction_id", "transactionId")
ORDER_AMOUNTS: Final = ("total", "revenue", "subtotal", "value", "total_price")


def looks_like_order(event: Track, destination: Destination) -> bool:
    """Whether a track that is named nowhere has an order id and an amount, so that it may be an order all the same."""
    get = (event.properties or {}).get
    if not any(get(key) for key in ORDER_IDS) or not any(get(key) for key in ORDER_AMOUNTS):
        return False
    name = (as_text(event.event) or "").casefold()
    return name not in NOT_ORDERS and name not in destination.routes


def _unsupported(event: Group | Alias | Unsupported) -> Outcome:
    if event.type is None:
        return Reject(Reason.MISSING_TYPE, "Event type is required", path="type")
    return Skip(Reason.UNSUPPORTED_TYPE, f"Event type {event.type[:32]} is not supported")


def _skip(
    event: KnownEvent, kind: EventType | None, destination: Destination, message: Mapping[str, Any] | None
) -> Draft | None:
    """The draft of an event that needs no request."""
    if kind is None and type(event) is Track and (as_text(event.event) or "").casefold() in AFTER_SALE:
        return Draft(
            Skip(Reason.AFTER_SALE, "reports what became of an order: no visit, no new order"), event, destination
        )
    if destination.lets_all_pass:
        return None
    switched_off = _switched_off(event, kind, destination)
    if switched_off is not None:
        return Draft(switched_off, event, destination)
    consent = consent_of(destination, message or {}) if destination.config.consent_gate != "off" else "true"
    if not _holds_back(consent, destination.config.consent_gate, event):
        return None
    told = "unknown" if consent is None else "denied"
    skip = Skip(Reason.CONSENT_DENIED, f"the visitor's consent is {told}")
    return Draft(skip) if consent is None else Draft(skip, event, destination)


def _switched_off(event: KnownEvent, kind: EventType | None, destination: Destination) -> Skip | None:
    """Calls that the operator does not want as Page Loads."""
    config = destination.config
    if kind is not None:
        return None
    if isinstance(event, Page) and not config.enable_page_events:
        return Skip(Reason.PAGE_DISABLED, "page events are disabled from Config")
    if isinstance(event, Identify) and not config.enable_identify_events:
        return Skip(Reason.IDENTIFY_DISABLED, "identify events are disabled from Config")
    if isinstance(event, Screen) and not config.enable_screen_events:
        return Skip(Reason.SCREEN_DISABLED, "screen events are disabled from Config")
    if isinstance(event, Track) and config.unmapped_track == "skip" and _route(event, destination) is None:
        hint = "; it has an order id and an amount" if looks_like_order(event, destination) else ""
        return Skip(Reason.UNMAPPED_TRACK, f"the event is named in no list of the destination{hint}")
    return None


def _holds_back(consent: str | None, gate: str, event: KnownEvent) -> bool:
    """Whether the visitor's answer keeps the event here."""
    if gate == "required":
        return consent != "true"
    return consent == "false" and not (gate == "rewards" and is_rewarded(event))
