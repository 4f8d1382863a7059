"""The order behind an event that did not become a Conversion: its identity and its worth, if they can be read."""

from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec

from impact_plugin.config.destinations import DEMONSTRATION
from impact_plugin.config.manifest import load_manifest
from impact_plugin.delivery.identity import order_identity
from impact_plugin.delivery.pipeline import OrderIdentity
from impact_transformers import (
    AnyDestination,
    AnyEvent,
    ConfigurationError,
    Destination,
    Event,
    KnownEvent,
    NoticeReason,
    Outcome,
    Reason,
    Send,
    Track,
    compile_destination,
    decode_leniently,
)
from impact_transformers.amounts import rounded
from impact_transformers.configuration import EventType
from impact_transformers.currencies import cent_of
from impact_transformers.event_names import ORDER_COMPLETED
from impact_transformers.normalize import as_text
from impact_transformers.order_value import value_order
from impact_transformers.outcome import RefusalError
from impact_transformers.requests import EVENT_IDENTIFIERS
from impact_transformers.transform import ORDER_IDS, conversion_kind, looks_like_order

NO_ORDERS = frozenset({Reason.AFTER_SALE, Reason.REPEATED_CLICK})
"""Reasons for which an event is filtered that is no order, even with an order id and an amount."""


class UnsentOrder(msgspec.Struct, frozen=True):
    """An order, lead or install that no Conversion reports.

    ``identity`` is None if no usable order id was found, ``amount`` if nothing says what the order is worth. ``amount``
    is net, in units of ``currency``, which is empty if the order names none.
    """

    identity: OrderIdentity | None
    order_id: str
    amount: Decimal | None
    currency: str


def is_missing(outcome: Outcome) -> bool:
    """Whether an event with this outcome may hide an order: it has no request, or became a visit and looks like one."""
    if isinstance(outcome, Send):
        return any(notice.reason is NoticeReason.LOOKS_LIKE_ORDER for notice in outcome.notices)
    return outcome.reason not in NO_ORDERS


def find_order(
    event: AnyEvent | None, destination: AnyDestination | None, message: Mapping[str, Any] | None
) -> UnsentOrder | None:
    """Read the order; None if the event reports none.

    ``message`` is the generically decoded event, if it is there. Of a destination whose configuration cannot be used,
    nothing is known: the event is read as a destination without settings reads it.
    """
    known = event if isinstance(event, Event) else _without_type(event, message)
    if known is None:
        return None
    static = _static(destination, message)
    kind = conversion_kind(known, static)
    if kind is None and isinstance(known, Track) and looks_like_order(known, static):
        kind = static.routes[ORDER_COMPLETED.casefold()]
    return None if kind is None else _read(known, kind, static, message)


def _without_type(event: AnyEvent | None, message: Mapping[str, Any] | None) -> KnownEvent | None:
    """An event that lost its type and has the name of a track, read as one."""
    if event is None or message is None or getattr(event, "type", "") is not None or not message.get("event"):
        return None
    found = decode_leniently({**message, "type": "track"})
    return found if isinstance(found, Event) else None


def _static(destination: AnyDestination | None, message: Mapping[str, Any] | None) -> Destination:
    try:
        return _without_settings() if destination is None else destination.for_event(message)
    except ConfigurationError:
        return _without_settings()


@cache
def _without_settings() -> Destination:
    return compile_destination(DEMONSTRATION, load_manifest().configuration).for_event(None)


def _read(event: KnownEvent, kind: EventType, static: Destination, message: Mapping[str, Any] | None) -> UnsentOrder:
    form: dict[str, str] = {}
    static.conversion.fill(event, message, form, "", [])
    if not any(name in form for name in EVENT_IDENTIFIERS):
        form["EventTypeId" if kind.id else "EventTypeCode"] = kind.id or kind.code or kind.name
    get = (event.properties or {}).get
    written = next((found for key in ORDER_IDS if (found := as_text(get(key)))), "")
    currency = form.get("CurrencyCode")
    return UnsentOrder(
        order_identity(static.config.account_sid, form),
        form.get("OrderId") or written,
        _worth(event, kind, static, message, currency),
        currency or "",
    )


def _worth(
    event: KnownEvent, kind: EventType, static: Destination, message: Mapping[str, Any] | None, currency: str | None
) -> Decimal | None:
    try:
        net = value_order(event, kind, static, message, currency).net
    except RefusalError:
        return None
    return None if net is None else rounded(net.amount, cent_of(currency))
