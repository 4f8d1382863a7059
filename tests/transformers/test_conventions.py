"""The setting ``orderAmount``: each convention, and what it makes of an order."""

import re
from decimal import Decimal
from typing import Final

import pytest

from impact_plugin.config.manifest import load_manifest
from impact_transformers.conventions import PATTERN, amount_by, in_cents
from impact_transformers.order import Order

ORDER: Final = Order(
    Decimal("0.01"),
    total=Decimal("126.00"),
    subtotal=Decimal("110.00"),
    revenue=Decimal("100.00"),
    value=Decimal("127.00"),
    tax=Decimal("20.00"),
    shipping=Decimal("6.00"),
    discount=Decimal("10.00"),
    lines=Decimal("120.00"),
)


@pytest.mark.parametrize(
    ("convention", "expected"),
    [
        ("subtotal", "110"),
        ("subtotal-discount", "100"),
        ("subtotal-tax", "90"),
        ("revenue", "100"),
        ("revenue-discount", "90"),
        ("value-tax-shipping", "101"),
        ("total-tax-shipping", "100"),
        ("total-tax", "106"),
        ("total-shipping", "120"),
        ("total+discount-tax-shipping", "110"),
        ("lines-discount", "110"),
        ("lines-discount-tax", "90"),
        ("total-tax-shipping/100", "1"),
    ],
)
def test_a_convention(convention: str, expected: str) -> None:
    """The field to start from, less what is named."""
    assert Decimal(expected) == amount_by(convention, ORDER)
    assert re.fullmatch(PATTERN, convention)


def test_what_is_not_told_comes_off_as_nothing() -> None:
    """An order without tax or discount has none."""
    assert amount_by("total-tax-shipping", Order(Decimal("0.01"), total=Decimal(5))) == 5


def test_without_the_field_to_start_from() -> None:
    """The convention does not fit the order."""
    assert amount_by("lines", Order(Decimal("0.01"), total=Decimal(5))) is None


def test_a_discount_told_twice_is_taken_once() -> None:
    """The lines are net of the discount that the order tells once more."""
    order = Order(Decimal("0.01"), discount=Decimal(3), lines=Decimal(27), line_discounts=Decimal(3))

    assert amount_by("lines-discount", order) == 27
    assert amount_by("lines+discount", order) == 27


def test_more_than_any_amount() -> None:
    """What comes out beyond all amounts does not fit the order either."""
    order = Order(Decimal("0.01"), total=Decimal(9 * 10**13), discount=Decimal(9 * 10**13))

    assert amount_by("total+discount", order) is None


@pytest.mark.parametrize(("convention", "expected"), [("subtotal/100", True), ("subtotal", False)])
def test_in_cents(convention: str, expected: bool) -> None:
    """Everything is in hundredths where the convention says so."""
    assert expected == in_cents(convention)


def test_the_manifest_knows_the_same_conventions() -> None:
    """The pattern of the setting is that of the conventions."""
    (key,) = [key for key in load_manifest().configuration if key.key == "orderAmount"]

    assert PATTERN.replace("(?:", "(") == key.pattern
