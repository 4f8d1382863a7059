"""From a track that means money to a Conversion: identity of the order, items or amount, and what must not meet."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Final

from impact_transformers.configuration import EventType
from impact_transformers.destination import Destination
from impact_transformers.events import Track
from impact_transformers.normalize import as_text
from impact_transformers.outcome import Reason, RefusalError
from impact_transformers.requests import ATTRIBUTION_KEYS, ORDER_AMOUNTS, Conversion

EVENT_IDENTIFIERS: Final = ("EventTypeId", "ActionTrackerId", "EventTypeCode")
LONGEST_CODE: Final = 64
ORDER_ID_PREFIX: Final = "ip-"


def assemble_conversion(
    event: Track, kind: EventType, destination: Destination, message: Mapping[str, Any] | None
) -> Conversion:
    """Fill the form; raises :class:`RefusalError` for whatever impact.com would refuse or count twice."""
    form: dict[str, str] = {}
    destination.conversion.fill(event, message, form, "")
    _add_event_type(kind, form)
    if "OrderId" not in form:
        form["OrderId"] = _derived_order_id(event, kind, destination)
    if "EventDate" not in form:
        form["EventDate"] = "NOW"
    _add_value(event, destination, message, form)
    _check_money(form)
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
    if len(code) > LONGEST_CODE:
        detail = f"the event's name has {len(code)} characters, a code at most {LONGEST_CODE}; give it an id or code"
        raise RefusalError(Reason.TOO_LONG, detail, parameter="EventTypeCode", path="event")
    form["EventTypeCode"] = code


def _derived_order_id(event: Track, kind: EventType, destination: Destination) -> str:
    """The same id for the same message for ever: leads and installs have no order, yet a repeat must be recognised.

    Only facts of the message and the account enter, so a corrected mapping does not make another order of it.
    """
    message_id = as_text(event.message_id)
    if kind.kind == "action" or message_id is None:
        missing = "no order id was found" if kind.kind == "action" else "no messageId to derive an order id from"
        raise RefusalError(Reason.MISSING_ORDER_ID, missing, parameter="OrderId", path="properties.order_id")
    config = destination.config
    name = as_text(event.event) or ""
    facts = (config.account_sid, config.campaign_id, kind.kind, name, message_id)
    digest = hashlib.blake2b("\x1f".join(facts).encode(), digest_size=25).digest()
    return ORDER_ID_PREFIX + base64.b32encode(digest).decode().lower()


def _add_value(event: Track, destination: Destination, message: Mapping[str, Any] | None, form: dict[str, str]) -> None:
    """Report the items, or the order's amount where there are none or they cannot be reported in full."""
    products = (event.properties or {}).get("products")
    items = _items(products, destination) if isinstance(products, list) and products else None
    if items:
        form.update(items)
        destination.with_items.fill(event, message, form, "")
        return
    destination.without_items.fill(event, message, form, "")
    if products and not any(name in form for name in ORDER_AMOUNTS):
        raise RefusalError(
            Reason.INCOMPLETE_ITEM,
            "a product lacks sku, price or a whole quantity, and there is no subtotal, total, revenue or value",
            parameter="ItemSku1",
            path="properties.products",
        )


def _items(products: list[Any], destination: Destination) -> dict[str, str] | None:
    """The form of all items, or None when one of them is incomplete: half an order would be paid as a whole one."""
    items: dict[str, str] = {}
    fill = destination.item.fill
    for number, product in enumerate(products, 1):
        if not isinstance(product, dict):
            return None
        index = str(number)
        fill(product, None, items, index)
        if "quantity" not in product or product["quantity"] is None:
            items.setdefault("ItemQuantity" + index, "1")
        if "ItemSku" + index not in items or "ItemQuantity" + index not in items:
            return None
        has_price, has_subtotal = "ItemPrice" + index in items, "ItemSubTotal" + index in items
        if has_price and has_subtotal:
            raise _conflict("ItemSubTotal" + index, "ItemPrice and ItemSubTotal report the same money twice")
        if not has_price and not has_subtotal:
            return None
    return items


def check_attribution(form: Mapping[str, str]) -> None:
    """Raise :class:`RefusalError` when impact.com could credit the order to nobody."""
    if "CustomProfileId" not in form and not any(name in form for name in ATTRIBUTION_KEYS):
        raise RefusalError(
            Reason.MISSING_ATTRIBUTION_KEY,
            "a Conversion needs one of ClickId, CustomProfileId, CustomerId, OrderPromoCode or a device id",
            parameter="CustomProfileId",
            path="anonymousId",
        )


def _check_money(form: Mapping[str, str]) -> None:
    if "ItemSku1" in form:
        for name in ORDER_AMOUNTS:
            if name in form:
                raise _conflict(name, f"{name} and items report the same money twice")


def _conflict(parameter: str, detail: str) -> RefusalError:
    return RefusalError(Reason.AMOUNT_CONFLICT, detail, parameter=parameter, path="productsMapping")
