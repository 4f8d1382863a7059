"""The items of a conversion: the order's fields say how much, the lines say in which proportion.

Lines that sum to the order's amount go out as they are, price and quantity; all others with their share of it, so that
what impact.com adds up is always the amount. https://integrations.impact.com/impact-brand/docs/item-level-data
"""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Final, Literal, TypeAlias

import msgspec

from impact_transformers.order import Line, Order

Sent: TypeAlias = Literal["price", "amount"]

MOST_DISCOUNT_DIGITS: Final = 12
"""https://integrations.impact.com/impact-brand/docs/order-level-data"""

_ZERO: Final = Decimal(0)


class SentItem(msgspec.Struct, frozen=True):
    """One line as it is sent: its price for each piece, or its amount as a whole."""

    line: Line
    sent: Sent
    money: Decimal


class Items(msgspec.Struct, frozen=True):
    """All lines that are sent. ``adjusted`` tells how they were made to sum to the amount; None when nothing was."""

    items: tuple[SentItem, ...]
    discount: Decimal = _ZERO
    adjusted: str | None = None


def share(order: Order, amount: Decimal, cent: Decimal) -> Items:
    """Make the lines sum to ``amount``, which is in whole cents; at least one line is there."""
    return _as_they_are(order, amount, cent) or _in_proportion(order, amount, cent)


def _as_they_are(order: Order, amount: Decimal, cent: Decimal) -> Items | None:
    """The lines with their own prices, if they sum to the amount, by themselves or less the order's discount."""
    if order.lines is None or not all(_is_exact(line, cent) for line in order.items):
        return None
    items = tuple(_as_it_is(line) for line in order.items)
    if order.lines == amount:
        return Items(items)
    discount = order.lines - amount
    told = order.discount is not None and abs(order.discount - discount) < cent
    if not told or discount <= 0 or discount.adjusted() >= MOST_DISCOUNT_DIGITS:
        return None
    return Items(items, discount)


def _is_exact(line: Line, cent: Decimal) -> bool:
    """Whether the line can be sent as it is: nothing negative, nothing finer than a cent."""
    told = (line.amount, line.price)
    return all(one is None or (one >= 0 and one % cent == 0) for one in told) and line.pieces > 0


def _as_it_is(line: Line) -> SentItem:
    whole = line.pieces == line.pieces.to_integral_value()
    if line.price is not None and whole and not line.discount:
        return SentItem(line, "price", line.price)
    return SentItem(line, "amount", line.amount or _ZERO)


def _in_proportion(order: Order, amount: Decimal, cent: Decimal) -> Items:
    """Each line with a positive amount, or each line by its pieces where none has one, with its share."""
    lines = [line for line in order.items if line.amount is not None and line.amount > 0]
    weights = [line.amount or _ZERO for line in lines]
    if not lines:
        lines = list(order.items)
        weights = [abs(line.pieces) for line in lines]
    shares = _largest_remainder(amount, weights, cent)
    total = sum(weights, _ZERO)
    told = f"the lines' {total.normalize():f} became {amount:f}: factor {amount / total:.6f}"
    return Items(tuple(SentItem(line, "amount", one) for line, one in zip(lines, shares, strict=True)), adjusted=told)


def _largest_remainder(amount: Decimal, weights: Sequence[Decimal], cent: Decimal) -> list[Decimal]:
    """Whole cents in proportion to the weights that sum to the amount; what is left over goes to the largest rests."""
    cents = int(amount / cent)
    total = sum(map(Fraction, weights))
    quotas = [cents * Fraction(weight) / total for weight in weights]
    whole = [int(quota) for quota in quotas]
    by_rest = sorted(range(len(quotas)), key=lambda at: (whole[at] - quotas[at], at))
    for at in by_rest[: cents - sum(whole)]:
        whole[at] += 1
    return [one * cent for one in whole]
