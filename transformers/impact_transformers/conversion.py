"""From an event that means money to a Conversion: identity of the order, its value, and what must not meet."""

from collections.abc import Mapping
from typing import Any, Final

from impact_transformers.configuration import EventType
from impact_transformers.destination import PAGE, SCREEN, Destination
from impact_transformers.event_date import settle_date
from impact_transformers.events import KnownEvent, Page, Screen, Track
from impact_transformers.normalize import as_text, holds_email
from impact_transformers.order_id import made_id
from impact_transformers.order_value import value_order
from impact_transformers.outcome import Notice, NoticeReason, Reason, RefusalError
from impact_transformers.requests import ATTRIBUTION_KEYS, EVENT_IDENTIFIERS, ORDER_AMOUNTS, Conversion

LONGEST_CODE: Final = 64


def assemble_conversion(
    event: KnownEvent,
    kind: EventType,
    destination: Destination,
    message: Mapping[str, Any] | None,
    notices: list[Notice],
) -> Conversion:
    """Fill the form; what must not be sent of the event is told in ``notices``.

    Raises :class:`RefusalError` for an order that impact.com could not take or would count twice.
    """
    form: dict[str, str] = {}
    destination.conversion.fill(event, message, form, "", notices)
    _add_event_type(kind, form)
    if "OrderId" not in form:
        form["OrderId"] = _derived_order_id(event, kind, destination)
    settle_date(form, event.received_at)
    if form.get("TrackingConsent") == "false":
        form.pop("CustomerEmail", None)
    value = value_order(event, kind, destination, message, form.get("CurrencyCode"))
    form.update(value.form)
    notices += value.notices
    _drop_other_amounts(form, notices)
    return Conversion(form)


def _add_event_type(kind: EventType, form: dict[str, str]) -> None:
    """Name the event type exactly once; what the operator mapped goes before what the event type says."""
    mapped = [name for name in EVENT_IDENTIFIERS if name in form]
    for name in mapped[1:]:
        del form[name]
    if mapped:
        return
    if kind.id:
        form["EventTypeId"] = kind.id
        return
    code = kind.code or kind.name
    if len(code) > LONGEST_CODE or holds_email(code):
        detail = f"the event's name cannot be a code, which has at most {LONGEST_CODE} characters and no e-mail address"
        raise RefusalError(Reason.MISSING_EVENT_TYPE, detail, parameter="EventTypeCode", path="event")
    form["EventTypeCode"] = code


def call_name(event: KnownEvent) -> str:
    """The name of a track; that of a page or screen with ``page:`` or ``screen:`` before it; else ``identify``."""
    if isinstance(event, Track):
        return as_text(event.event) or ""
    if isinstance(event, Page | Screen):
        name = as_text(event.name) or as_text((event.properties or {}).get("name")) or ""
        return (PAGE if isinstance(event, Page) else SCREEN) + name
    return "identify"


def _derived_order_id(event: KnownEvent, kind: EventType, destination: Destination) -> str:
    """The same id for the same message for ever: leads and installs have no order, yet a repeat must be recognised.

    Only facts of the message and the account enter, so a corrected mapping does not make another order of it.
    """
    message_id = as_text(event.message_id)
    if kind.kind == "action" or message_id is None:
        missing = "no order id was found" if kind.kind == "action" else "no messageId to derive an order id from"
        raise RefusalError(Reason.MISSING_ORDER_ID, missing, parameter="OrderId", path="properties.order_id")
    config = destination.config
    return made_id(config.account_sid, config.campaign_id, kind.kind, call_name(event), message_id)


def _drop_other_amounts(form: dict[str, str], notices: list[Notice]) -> None:
    """Leave out amounts of the operator's own that would be counted beside the items."""
    if "ItemSku1" not in form:
        return
    beside = [name for name in ORDER_AMOUNTS if name in form]
    for name in beside:
        del form[name]
    told = "the items report the same money"
    notices += [Notice(NoticeReason.PARAMETER_DROPPED, told, name) for name in beside]


def check_attribution(form: Mapping[str, str]) -> None:
    """Raise :class:`RefusalError` when impact.com could credit the order to nobody."""
    if "CustomProfileId" not in form and not any(name in form for name in ATTRIBUTION_KEYS):
        raise RefusalError(
            Reason.MISSING_ATTRIBUTION_KEY,
            "a Conversion needs one of ClickId, CustomProfileId, CustomerId, OrderPromoCode or a device id",
            parameter="CustomProfileId",
            path="anonymousId",
        )
