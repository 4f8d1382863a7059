"""The money of a conversion: what the order is worth, as items where there are any, and what is told about it."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from impact_transformers.amounts import Reading, rounded
from impact_transformers.configuration import EventType
from impact_transformers.conventions import in_cents
from impact_transformers.currencies import cent_of
from impact_transformers.destination import Destination
from impact_transformers.events import KnownEvent
from impact_transformers.items import Items, SentItem, share
from impact_transformers.net_amount import NetAmount, net_amount, told
from impact_transformers.order import Order, read_order
from impact_transformers.outcome import Notice, NoticeReason, Reason, RefusalError

ORDER_AMOUNT: Final = "OrderSubTotalPostDiscount"
UNNAMED: Final = "unknown"
"""The sku of a product that has nothing to be called by: its category still decides about the payout."""

MOST_NOTICES: Final = 16
"""Notices about single products that one order may have; hostile ones could have thousands."""

_TELLING: Final = frozenset({"total", "subtotal", "revenue", "value", "Amount", ORDER_AMOUNT})
_HUNDRED: Final = Decimal(100)
_CENT: Final = Decimal("0.01")


class ReadProduct(msgspec.Struct, frozen=True):
    """One element of the order's list: its place, itself, and what the table of lines read of it."""

    at: int
    product: dict[str, Any]
    readings: dict[str, Any]


class OrderValue(msgspec.Struct, frozen=True):
    """What is sent of an order's money, and how that was found.

    ``sent`` are the products that go out, in the order of their numbers.
    """

    form: dict[str, str]
    notices: tuple[Notice, ...]
    net: NetAmount | None
    sent: tuple[ReadProduct, ...] = ()


def value_order(
    event: KnownEvent,
    kind: EventType,
    destination: Destination,
    message: Mapping[str, Any] | None,
    currency: str | None,
) -> OrderValue:
    """Read the order, decide what it is worth, and write it down; raises :class:`RefusalError` when nobody can tell."""
    notices: list[Notice] = []
    order, products, fields = _read(event, destination, message, currency, notices)
    net = net_amount(order, destination.config.order_amount)
    notices += _reading_notices(order, fields)
    form = _reported(order, cents=in_cents(destination.config.order_amount))
    if net is None:
        notices += _without_amount(kind, order, products, notices)
        return OrderValue(form, tuple(notices), None)
    cent = cent_of(currency)
    amount = rounded(net.amount, cent)
    sent: tuple[ReadProduct, ...] = ()
    if order.items:
        items = share(order, amount, cent)
        sent = tuple(products[item.line.at] for item in items.items)
        _write_items(items, sent, destination, form, notices)
    else:
        form["Amount" if "Amount" in fields else ORDER_AMOUNT] = f"{amount:.2f}"
    notices += _net_notices(order, net)
    if currency is None:
        notices.append(Notice(NoticeReason.CURRENCY_MISSING, parameter="CurrencyCode", path="properties.currency"))
    return OrderValue(form, tuple(notices), net, sent)


def order_of(event: KnownEvent, destination: Destination, message: Mapping[str, Any] | None) -> Order:
    """What the fields of the event say about an order, as numbers."""
    form: dict[str, str] = {}
    destination.conversion.fill(event, message, form, "", [])
    return _read(event, destination, message, form.get("CurrencyCode"), [])[0]


def _read(
    event: KnownEvent,
    destination: Destination,
    message: Mapping[str, Any] | None,
    currency: str | None,
    notices: list[Notice],
) -> tuple[Order, list[ReadProduct], dict[str, Any]]:
    """The order, its products, and what was read of its fields."""
    fields: dict[str, Any] = {}
    destination.order.fill(event, message, fields, "", notices)
    products = [*_read_products(fields.pop("products", ()), destination, notices)]
    return read_order(fields, [one.readings for one in products], currency), products, fields


def _read_products(products: Any, destination: Destination, notices: list[Notice]) -> Iterator[ReadProduct]:
    """The products that are objects, read; what cannot be read of them is told, up to a number."""
    odd = [at for at, product in enumerate(products) if not isinstance(product, dict)]
    if odd:
        notices.append(_incomplete(odd, "no object"))
    found: list[Notice] = []
    for at, product in enumerate(products):
        if not isinstance(product, dict):
            continue
        readings: dict[str, Any] = {}
        before = len(found)
        destination.line.fill(product, None, readings, "", found)
        found[before:] = [_placed(notice, at) for notice in found[before:]]
        if "item_id" in product or "item_name" in product:
            # Prices of GA4 are after their discount, which is only told.
            readings.pop("ItemTotalDiscount", None)
        yield ReadProduct(at, product, readings)
    notices += found[:MOST_NOTICES]


def _placed(notice: Notice, at: int) -> Notice:
    """The notice of a product's table, with the product's place."""
    return msgspec.structs.replace(notice, path=f"products[{at}].{notice.path}")


def _incomplete(places: list[int], what: str) -> Notice:
    listed = ", ".join(f"products[{at}]" for at in places[:3]) + (" and others" if len(places) > 3 else "")
    return Notice(NoticeReason.ITEMS_INCOMPLETE, f"{listed}: {what}", "ItemSku", "properties.products")


def _reading_notices(order: Order, fields: Mapping[str, Any]) -> Iterator[Notice]:
    if order.doubtful is not None:
        detail = f"a separator in {order.doubtful} may mean thousands or decimals, and nothing in the order tells which"
        yield Notice(NoticeReason.AMOUNT_AMBIGUOUS, detail, order.doubtful)
    discount = fields.get("OrderDiscount")
    if isinstance(discount, Reading) and order.discount is None:
        yield Notice(NoticeReason.AMOUNT_UNREADABLE, "is a percentage of lines that are not known", "OrderDiscount")
    for name, part in (("OrderTax", order.tax), ("OrderShipping", order.shipping)):
        if name in fields and part is None:
            yield Notice(NoticeReason.PARAMETER_DROPPED, "is negative", name)


def _without_amount(
    kind: EventType, order: Order, products: list[ReadProduct], notices: list[Notice]
) -> Iterator[Notice]:
    """No field tells: refused when one would have told if it could be read, else sent without an amount."""
    if kind.kind != "action":
        return
    for notice in notices:
        of_line = notice.parameter in ("ItemPrice", "ItemSubTotal")
        if notice.reason is NoticeReason.AMOUNT_UNREADABLE and (of_line or notice.parameter in _TELLING):
            raise RefusalError(
                Reason.INVALID_AMOUNT,
                f"{notice.detail}, and no other field tells what the order is worth",
                parameter=notice.parameter or ORDER_AMOUNT,
                path=notice.path or "properties",
            )
    if order.items and all(line.amount is not None for line in order.items):
        detail = "the products sum to more than any amount can be"
        raise RefusalError(Reason.INVALID_AMOUNT, detail, parameter="ItemPrice1", path="properties.products")
    yield Notice(NoticeReason.AMOUNT_MISSING, parameter=ORDER_AMOUNT)
    if products:
        yield _incomplete([one.at for one in products], "no price")


def _reported(order: Order, *, cents: bool) -> dict[str, str]:
    """Tax and shipping, which are only reported."""
    parts = (("OrderTax", order.tax), ("OrderShipping", order.shipping))
    return {
        name: str(rounded(amount / _HUNDRED if cents else amount, _CENT))
        for name, amount in parts
        if amount is not None
    }


def _write_items(
    items: Items,
    products: tuple[ReadProduct, ...],
    destination: Destination,
    form: dict[str, str],
    notices: list[Notice],
) -> None:
    found: list[Notice] = []
    unnamed: list[int] = []
    for number, (item, one) in enumerate(zip(items.items, products, strict=True), 1):
        index = str(number)
        before = len(found)
        destination.item.fill(one.product, None, form, index, found)
        if f"ItemSku{index}" not in form:
            form[f"ItemSku{index}"] = UNNAMED
            unnamed.append(one.at)
        found += _write_line(item, form, index)
        found[before:] = [_placed(notice, one.at) for notice in found[before:]]
    notices += found[:MOST_NOTICES]
    if unnamed:
        notices.append(_incomplete(unnamed, "neither sku, product id nor name"))
    if items.discount:
        form["OrderDiscount"] = f"{items.discount:.2f}"
    if items.adjusted is not None:
        notices.append(Notice(NoticeReason.ITEMS_ADJUSTED, items.adjusted, "ItemSubTotal"))


def _write_line(item: SentItem, form: dict[str, str], index: str) -> Iterator[Notice]:
    pieces = item.line.pieces
    whole = pieces > 0 and pieces == pieces.to_integral_value()
    form[f"ItemQuantity{index}"] = str(int(pieces)) if whole else "1"
    form[("ItemPrice" if item.sent == "price" else "ItemSubTotal") + index] = f"{item.money:.2f}"
    if not whole:
        detail = f"{pieces.normalize():f} is no number of pieces; one was sent"
        yield Notice(NoticeReason.PARAMETER_DROPPED, detail, f"ItemQuantity{index}", "quantity")


def _net_notices(order: Order, net: NetAmount) -> Iterator[Notice]:
    if net.negative:
        yield Notice(NoticeReason.AMOUNT_NEGATIVE, f"{net}; 0.00 was sent", ORDER_AMOUNT)
    if net.doubt:
        detail = f"{told(order)}; {net.amount:.2f} was taken ({net})"
        yield Notice(NoticeReason.AMOUNTS_DISAGREE, detail, ORDER_AMOUNT)
    left_out = [line.at for line in order.items if line.amount is None]
    if left_out and any(line.amount for line in order.items):
        yield _incomplete(left_out, "no readable price, left out")
