"""An order as it was read: its amounts and lines as numbers, once it is known what a separator means in them."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import combinations, product
from typing import Any, Final

import msgspec

from impact_transformers.amounts import Mark, Reading, decimal_mark, is_too_large, rounded
from impact_transformers.currencies import unit_of

FIELDS: Final = {
    "total": "total",
    "subtotal": "subtotal",
    "revenue": "revenue",
    "value": "value",
    "tax": "OrderTax",
    "shipping": "OrderShipping",
}
"""The amounts of an order, and the rows of the table that read them."""

_ZERO: Final = Decimal(0)
_ONE: Final = Decimal(1)


class Line(msgspec.Struct, frozen=True):
    """One product of an order.

    ``at`` is its place in the list. ``price`` is None where none is known or the line's amount stands for it;
    ``amount`` is the line's after its own discount, None where it cannot be told.
    """

    at: int
    price: Decimal | None
    pieces: Decimal
    discount: Decimal
    amount: Decimal | None


class Order(msgspec.Struct, frozen=True):
    """What the fields of an order say; None: not there, or not readable.

    ``lines`` is the sum of the lines after their own discounts, None when the amount of one of them is not known;
    ``line_discounts`` the sum of those discounts. ``stated`` is the amount that the operator named a path for.
    ``doubtful`` names a field in which a separator was read as it usually is, for want of anything to go by. Negative
    tax or shipping is none.
    """

    unit: Decimal
    total: Decimal | None = None
    subtotal: Decimal | None = None
    revenue: Decimal | None = None
    value: Decimal | None = None
    tax: Decimal | None = None
    shipping: Decimal | None = None
    discount: Decimal | None = None
    stated: Decimal | None = None
    lines: Decimal | None = None
    line_discounts: Decimal = _ZERO
    items: tuple[Line, ...] = ()
    doubtful: str | None = None

    @property
    def taken_twice(self) -> bool:
        """Whether the order's discount is that of its lines, told once more."""
        return (
            bool(self.line_discounts) and self.discount is not None and self.equal(self.discount, self.line_discounts)
        )

    @property
    def net_lines(self) -> Decimal | None:
        """The lines less the order's discount, which is taken once."""
        if self.lines is None or self.discount is None or self.taken_twice:
            return self.lines
        return self.lines - self.discount

    @property
    def lines_before(self) -> Decimal | None:
        """The lines before the order's discount."""
        return self.lines + self.line_discounts if self.lines is not None and self.taken_twice else self.lines

    def equal(self, one: Decimal | None, other: Decimal | None) -> bool:
        """Whether both are there and the same to the currency's smallest unit; negative amounts confirm nothing."""
        return one is not None and other is not None and one >= 0 and abs(one - other) < self.unit

    def near(self, one: Decimal | None, other: Decimal) -> bool:
        """As :meth:`equal`, with one unit of rounding between them."""
        return one is not None and one >= 0 and abs(one - other) <= self.unit


def read_order(fields: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], currency: str | None) -> Order:
    """Turn the readings of the order's fields, and of each of its products, into numbers."""
    mark = decimal_mark(_readings(fields, lines), currency)
    doubtful = None
    if mark is None:
        mark, doubtful = _agreeing_mark(fields, lines, currency)
    order = _with_mark(fields, lines, currency, mark)
    return msgspec.structs.replace(order, doubtful=doubtful) if doubtful else order


def _readings(fields: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> Iterator[Reading]:
    for one in (fields, *lines):
        yield from (reading for reading in one.values() if isinstance(reading, Reading))


def _agreeing_mark(
    fields: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], currency: str | None
) -> tuple[Mark, str | None]:
    """The dot, unless only the comma makes fields agree; the name of a doubtful field where neither or both do."""
    doubtful = next(
        (
            name
            for one in (fields, *lines)
            for name, reading in one.items()
            if isinstance(reading, Reading) and any(leaf.separator for leaf in reading.leaves)
        ),
        None,
    )
    if doubtful is None:
        return ".", None
    agree = {mark: _agrees(_with_mark(fields, lines, currency, mark)) for mark in _MARKS}
    if agree["."] != agree[","]:
        return ("." if agree["."] else ","), None
    return ".", doubtful


_MARKS: Final[tuple[Mark, Mark]] = (".", ",")


def _agrees(order: Order) -> bool:
    """Whether two of the fields are the same, or differ by some of tax, shipping and discount."""
    told = [order.total, order.subtotal, order.revenue, order.value, order.lines]
    worth = [amount for amount in told if amount is not None and amount > 0]
    smaller = [amount or _ZERO for amount in (order.tax, order.shipping, order.discount)]
    differences = {
        sum((sign * amount for sign, amount in zip(signs, smaller, strict=True)), _ZERO)
        for signs in product((-1, 0, 1), repeat=len(smaller))
    }
    return any(
        abs(one - other - difference) < order.unit
        for one, other in combinations(worth, 2)
        for difference in differences
    )


def _with_mark(
    fields: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], currency: str | None, mark: Mark
) -> Order:
    unit = unit_of(currency)
    items = tuple(line for at, one in enumerate(lines) if (line := _line(at, one, mark, unit)).pieces)
    amounts = [line.amount for line in items if line.amount is not None]
    summed = sum(amounts, _ZERO) if items and len(amounts) == len(items) else None
    if summed is not None and is_too_large(summed):
        summed = None
    told = {field: _amount(fields.get(name), mark) for field, name in FIELDS.items()}
    return Order(
        unit,
        total=told["total"],
        subtotal=told["subtotal"],
        revenue=told["revenue"],
        value=told["value"],
        tax=_not_negative(told["tax"]),
        shipping=_not_negative(told["shipping"]),
        discount=_discount(fields.get("OrderDiscount"), summed, mark),
        stated=_amount(fields.get("OrderSubTotalPostDiscount") or fields.get("Amount"), mark),
        lines=summed,
        line_discounts=sum((line.discount for line in items), _ZERO),
        items=items,
    )


def _not_negative(amount: Decimal | None) -> Decimal | None:
    return None if amount is None or amount < 0 else amount


def _amount(reading: Reading | None, mark: Mark) -> Decimal | None:
    return None if reading is None else reading.amount(mark)


def _discount(reading: Reading | None, whole: Decimal | None, mark: Mark) -> Decimal | None:
    """A discount; a percentage of lines that are not known is none."""
    if reading is None or (reading.relative and whole is None):
        return None
    return reading.amount(mark, whole)


def _line(at: int, one: Mapping[str, Any], mark: Mark, unit: Decimal) -> Line:
    """One product as a line; what it comes to is rounded, as on an invoice."""
    pieces = one.get("ItemQuantity", _ONE)
    price = _amount(one.get("ItemPrice"), mark)
    worth = _amount(one.get("ItemSubTotal"), mark)
    whole = price * pieces if price is not None and worth is None else worth
    discount = _discount(one.get("ItemTotalDiscount"), whole, mark) or _ZERO
    each = _discount(one.get("ItemDiscount"), price, mark) or _ZERO
    discount += each * abs(pieces)
    amount = None if whole is None else rounded(whole - discount, unit)
    return Line(at, price if worth is None else None, pieces, discount, amount)
