"""The order that an event reports, whether or not it becomes a Conversion: its identity, and what it is worth."""

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
    DestinationConfig,
    Event,
    KnownEvent,
    NoticeReason,
    Outcome,
    Send,
    Track,
    compile_destination,
    decode_leniently,
)
from impact_transformers.amounts import rounded
from impact_transformers.configuration import EventType
from impact_transformers.currencies import cent_of
from impact_transformers.event_names import AFTER_SALE, ORDER_COMPLETED
from impact_transformers.net_amount import NetAmount, net_amount
from impact_transformers.normalize import as_text
from impact_transformers.order import Order
from impact_transformers.order_value import order_of
from impact_transformers.requests import EVENT_IDENTIFIERS
from impact_transformers.transform import ORDER_IDS, conversion_kind, looks_like_order


class ReportedOrder(msgspec.Struct, frozen=True):
    """An order, lead or install that an event reports.

    ``identity`` is None if no usable order id was found, ``net`` if nothing says what the order is worth; ``currency``
    is empty if the order names none. ``named`` is False for a track without an entry that looks like an order.
    """

    config: DestinationConfig
    kind: EventType
    named: bool
    identity: OrderIdentity | None
    order_id: str
    currency: str
    order: Order
    net: NetAmount | None

    @property
    def amount(self) -> Decimal | None:
        """What the order is worth, as impact.com would book it, in units of the currency."""
        return None if self.net is None else rounded(self.net.amount, cent_of(self.currency))


def may_be_missing(outcome: Outcome) -> bool:
    """Whether an event with this outcome may hide an order: it has no request, or became a visit and looks like one."""
    return not isinstance(outcome, Send) or any(one.reason is NoticeReason.LOOKS_LIKE_ORDER for one in outcome.notices)


def find_order(
    event: AnyEvent, destination: AnyDestination | None, message: Mapping[str, Any] | None
) -> ReportedOrder | None:
    """Read the order; None if the event reports none.

    ``message`` is the generically decoded event, if it is there. If the configuration of the destination cannot be
    used, the event is read as a destination without settings reads it.
    """
    known = event if isinstance(event, Event) else _without_type(event, message)
    if known is None:
        return None
    static = _static(destination, message)
    kind = conversion_kind(known, static)
    if kind is not None:
        return _read(known, kind, static, message, named=True)
    if isinstance(known, Track) and _looks_like_order(known, static):
        return _read(known, static.routes[ORDER_COMPLETED.casefold()], static, message, named=False)
    return None


def _looks_like_order(event: Track, static: Destination) -> bool:
    # What became of an order later has its id and an amount, too.
    return looks_like_order(event, static) and (as_text(event.event) or "").casefold() not in AFTER_SALE


def _without_type(event: AnyEvent, message: Mapping[str, Any] | None) -> KnownEvent | None:
    """An event that lost its type and has the name of a track, read as one."""
    if message is None or getattr(event, "type", "") is not None or not message.get("event"):
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


def _read(
    event: KnownEvent, kind: EventType, static: Destination, message: Mapping[str, Any] | None, *, named: bool
) -> ReportedOrder:
    form: dict[str, str] = {}
    static.conversion.fill(event, message, form, "", [])
    if not any(name in form for name in EVENT_IDENTIFIERS):
        form["EventTypeId" if kind.id else "EventTypeCode"] = kind.id or kind.code or kind.name
    get = (event.properties or {}).get
    written = next((found for key in ORDER_IDS if (found := as_text(get(key)))), "")
    order = order_of(event, static, message)
    return ReportedOrder(
        static.config,
        kind,
        named,
        order_identity(static.config.account_sid, form),
        form.get("OrderId") or written,
        form.get("CurrencyCode", ""),
        order,
        net_amount(order, static.config.order_amount),
    )
