"""What is read of an order before it is decided what it is worth."""

from decimal import Decimal
from typing import Any

import pytest

from impact_transformers import readings
from impact_transformers.outcome import NoticeReason, UnusableValueError


def refused(rule: Any, value: Any) -> NoticeReason:
    """Return the notice with which the rule leaves the value out."""
    with pytest.raises(UnusableValueError) as caught:
        rule(value)
    return caught.value.reason


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, "1"), ("2", "2"), (2.0, "2"), (0.453, "0.453"), (-1, "-1"), (0, "0"), (None, None), ("", None)],
)
def test_pieces(value: Any, expected: str | None) -> None:
    """Pieces, weights, and what was given back."""
    found = readings.pieces(value)

    assert (None if expected is None else Decimal(expected)) == found


@pytest.mark.parametrize("value", ["two", 10**9, -(10**9), True, [], {}, "50%"])
def test_no_pieces(value: Any) -> None:
    """What is no quantity is told; one piece is assumed."""
    assert NoticeReason.PARAMETER_DROPPED == refused(readings.pieces, value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([{"sku": "A"}], [{"sku": "A"}]),
        (' [{"sku": "A"}]', [{"sku": "A"}]),
        ([], None),
        ("[]", None),
        ("", None),
        (None, None),
        (3, None),
        (0, None),
        ({}, None),
        (True, None),
    ],
)
def test_products(value: Any, expected: Any) -> None:
    """A list, or its JSON text; an empty one is none, and a number under such a name counts the products."""
    assert expected == readings.products(value)


@pytest.mark.parametrize("value", ["A, B", "[broken", "[1", {"sku": "A"}, "[" * 100_000])
def test_no_products(value: Any) -> None:
    """What is no list of products is told."""
    assert NoticeReason.ITEMS_INCOMPLETE == refused(readings.products, value)


def test_amounts_and_discounts() -> None:
    """What cannot be read is told as such."""
    assert NoticeReason.AMOUNT_UNREADABLE == refused(readings.amount, "10%")
    assert NoticeReason.AMOUNT_UNREADABLE == refused(readings.discount, "SPRING")
    assert readings.amount(None) is None
    assert readings.discount([]) is None
