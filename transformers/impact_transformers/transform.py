"""One event and one destination in, exactly one outcome out. Pure: no clock, no I/O, no randomness."""

from collections.abc import Iterator, Mapping
from typing import Any

from impact_transformers.compile import locate, trace
from impact_transformers.configuration import ConfigurationError, EventType
from impact_transformers.conversion import assemble_conversion
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
from impact_transformers.page_load import assemble_page_load
from impact_transformers.requests import Conversion, Request
from impact_transformers.trail import Step


def transform(event: AnyEvent, destination: AnyDestination, message: Mapping[str, Any] | None = None) -> Outcome:
    """Decide what the event becomes.

    ``message`` is the same event decoded without types; it is needed only when ``destination.reads_message``.
    """
    if not isinstance(event, Event):
        return _unsupported(event)
    try:
        static = destination.for_event(message)
    except ConfigurationError as error:
        return Reject(Reason.CONFIGURATION, redact_emails(str(error)))
    kind = conversion_kind(event, static) if isinstance(event, Track) else None
    skip = None if static.lets_all_pass else _gate(event, kind, static, message)
    if skip is not None:
        return skip
    try:
        if kind is not None and isinstance(event, Track):
            request: Request = assemble_conversion(event, kind, static, message)
        else:
            request = assemble_page_load(event, static, message)
    except RefusalError as refusal:
        if refusal.parameter is None:
            refusal = locate(refusal, trace_event(event, kind, static, message))
        return refusal.as_reject()
    return Send(request, static.config, _notices(event, request))


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
    if kind is None:
        yield from trace(destination.page_load.rows, event, message)
        return
    yield from trace(destination.conversion.rows, event, message)
    products = (event.properties or {}).get("products")
    for number, product in enumerate(products if isinstance(products, list) else (), 1):
        if isinstance(product, dict):
            yield from trace(destination.item.rows, product, None, str(number), item=True)
    yield from trace(destination.with_items.rows, event, message)
    yield from trace(destination.without_items.rows, event, message)


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
