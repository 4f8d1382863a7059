"""Which ``orderAmount`` fits the orders of a shop."""

from decimal import Decimal
from typing import Final

import msgspec
import pytest

from impact_transformers import Destination, Track, decode_event
from impact_transformers.advice import CONVENTIONS, Advice, Fit, advise
from impact_transformers.order import Order
from impact_transformers.order_value import order_of
from shop_books import STYLES, books_of, measure
from tests.builders import compiled

DESTINATION: Final = compiled()
CENT: Final = Decimal("0.01")
TELLING: Final = [style for style in STYLES if not style.unknowable]


def advice_about(name: str) -> Advice:
    """Read the orders of a style, and ask which setting fits them."""
    assert isinstance(DESTINATION, Destination)
    (style,) = [style for style in STYLES if style.name == name]
    orders = []
    for book in books_of(style, 60):
        properties = {"order_id": "o-1", "currency": book.currency, **style.write(book)}
        event = decode_event(
            msgspec.json.encode({"type": "track", "event": "Order Completed", "properties": properties})
        )
        assert isinstance(event, Track)
        orders.append(order_of(event, DESTINATION, None))
    return advise(orders)


@pytest.mark.parametrize("name", [style.name for style in TELLING])
def test_the_advice_is_right(name: str) -> None:
    """Where a shop's orders tell anything, the setting that fits them best books every one of them right."""
    found = advice_about(name)
    if not found.fits or found.telling < found.orders / 4:
        return
    (style,) = [style for style in STYLES if style.name == name]

    assert [] == measure(style, found.fits[0].convention, 60).examples


def test_orders_that_tell_nothing() -> None:
    """A single field, fields that disagree, and tax that no total ties together are no evidence."""
    alone = Order(CENT, value=Decimal(5))
    apart = Order(CENT, subtotal=Decimal(5), revenue=Decimal(9))
    inside = Order(CENT, subtotal=Decimal(119), lines=Decimal(119), tax=Decimal(19))

    assert Advice(4, 0, 0, 0, 0, ()) == advise([alone, apart, inside, Order(CENT)])


def test_the_plainest_of_those_that_fit() -> None:
    """Of conventions that fit as many orders the one with the fewest parts comes first; what orders lack is told."""
    order = Order(CENT, total=Decimal(126), subtotal=Decimal(100), tax=Decimal(20), shipping=Decimal(6))
    other = Order(CENT, total=Decimal(6), subtotal=Decimal(5), tax=Decimal(1))
    found = advise([order, other])

    assert (2, 2, 0, 2, 1) == (found.orders, found.telling, found.discounted, found.taxed, found.shipped)
    assert (Fit("subtotal", 2), Fit("subtotal-discount", 2)) == found.fits[:2]
    assert Fit("total-tax", 1) in found.fits


def test_there_are_conventions_for_every_part() -> None:
    """Five fields, and any of discount, tax and shipping off them."""
    assert len(set(CONVENTIONS)) == 40
