"""One reader for every amount: each way to write a number, and what a separator means in an order."""

import math
from decimal import Decimal
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impact_transformers.amounts import Mark, Reading, decimal_mark, read_amount, read_discount

NARROW: Final = "\u202f"


def number(value: Any, mark: Mark = ".") -> str | None:
    """Read an amount and write it plainly; None for one that cannot be read."""
    found = read_amount(value)
    return f"{found.amount(mark):f}" if isinstance(found, Reading) else None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (19, "19"),
        (19.9, "19.9"),
        (Decimal("19.90"), "19.90"),
        (0.1 + 0.2, "0.3000000000"),
        (1e3, "1000.0"),
        ("19.90", "19.90"),
        ("19,90", "19.90"),
        ("+5", "5"),
        ("-5", "-5"),
        ("\u22125,00", "-5.00"),
        ("\u20135", "-5"),
        ("-€5", "-5"),
        ("€-5", "-5"),
        ("1.234,56", "1234.56"),
        ("1,234.56", "1234.56"),
        ("1,23,45,678.90", "12345678.90"),
        ("1.234.567,8", "1234567.8"),
        ("1 234,56", "1234.56"),
        (f"1{NARROW}234,56", "1234.56"),
        ("1'234.50", "1234.50"),
        ("1`234", "1234"),
        ("1.234.567", "1234567"),
        ("1,234,567", "1234567"),
        ("0.125", "0.125"),
        ("0,125", "0.125"),
        ("1234.567", "1234.567"),
        (".5", "0.5"),
        (",5", "0.5"),
        ("5.", "5"),
        ("1e3", "1000"),
        ("1.5e2", "150"),
        ("1E-2", "0.01"),
        ("€ 19,90", "19.90"),
        ("19,90€", "19.90"),
        ("$19.90 USD", "19.90"),
        ("eur 19.90", "19.90"),
        ("US$ 5", "5"),
        ("R$5,50", "5.50"),
        ("5 $CA", "5"),
        ("Kč 5", "5"),
        ("199,-", "199"),
        ("19.–", "19"),
        ("19.-- CHF", "19"),
        ("19,90\u200f", "19.90"),
        ({"amount": "19.90", "currency": "EUR"}, "19.90"),
        ({"value": 5}, "5"),
        ({"amount": None, "value": 5}, "5"),
        (99999999999999.99, "99999999999999.98"),
        ("1e-30", "0"),
        ("0.12345678901", "0.1234567890"),
    ],
)
def test_what_can_be_read(value: Any, expected: str) -> None:
    """Numbers, texts with separators, currencies and signs, and objects with an amount."""
    assert expected == number(value)


@pytest.mark.parametrize("value", [None, "", "  ", f"{NARROW}", {"amount": ""}])
def test_what_is_missing(value: Any) -> None:
    """Nothing and blank text are no amount, and no mistake."""
    assert read_amount(value) is None


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        "on request",
        "27.50 incl. VAT",
        "19 to 20",
        "2 x 5.00",
        "12.34.56",
        "1.23.4",
        "1.2345,6",
        "1,234.567.8",
        "1,2.3,4",
        "--5",
        "5-",
        "#5",
        "x5",
        "€x$5",
        "EUROS 5",
        "10%",
        "٣",
        math.inf,
        math.nan,
        1e14,
        10**400,
        "1e14",
        "123456789012345",
        "1,234e2,5",
        [],
        [5],
        {},
        {"amount": {"amount": 5}},
        {"value": {"amount": 5}},
        {"amount": [5]},
        {"value": 10, "value_type": "percentage"},
    ],
)
def test_what_cannot_be_read(value: Any) -> None:
    """Everything else says why, and never what it holds."""
    found = read_amount(value)

    assert isinstance(found, str)
    assert found


@pytest.mark.parametrize(
    ("value", "whole", "expected"),
    [
        (-3, None, "3"),
        ("-3,00", None, "3.00"),
        ("10%", Decimal(30), "3"),
        ("-10 %", Decimal(30), "3"),
        ({"value": "10.0", "value_type": "percentage"}, Decimal(30), "3"),
        ({"value": 10, "type": "percent"}, Decimal(30), "3"),
        ({"value": 10, "unit": "%"}, Decimal(30), "3"),
        ({"amount": 3, "type": "percentage"}, Decimal(30), "3"),
        ([1, "-0,50", {"amount": 1}], None, "2.50"),
        ([1, "5%"], Decimal(30), "2.5"),
        ([None, "", 1], None, "1"),
    ],
)
def test_a_discount(value: Any, whole: Decimal | None, expected: str) -> None:
    """A discount has no sign, may be a percentage of the lines, or a list."""
    found = read_discount(value)

    assert isinstance(found, Reading)
    assert Decimal(expected) == found.amount(".", whole)
    assert found.relative == (whole is not None and "amount" not in str(value))


@pytest.mark.parametrize("value", [None, "", [], [None, ""]])
def test_no_discount(value: Any) -> None:
    """Nothing, also in a list, is no discount."""
    assert read_discount(value) is None


@pytest.mark.parametrize(
    "value", ["SPRING", ["SPRING"], [1, [2]], {"code": "SPRING"}, True, {"value": "x", "type": "%"}]
)
def test_a_discount_that_cannot_be_read(value: Any) -> None:
    """One part that cannot be read makes the whole unreadable: half a discount is another amount."""
    assert isinstance(read_discount(value), str)


@pytest.mark.parametrize(
    ("texts", "currency", "expected"),
    [
        (["1.234", "19,90"], "EUR", ","),
        (["1.234", "19.90"], "EUR", "."),
        (["1,234", "1.234.567"], "EUR", ","),
        (["1.234", "1,234,567"], "EUR", "."),
        (["1.234", "19,90", "5.50"], "EUR", None),
        (["1.234"], "JPY", ","),
        (["1,234"], "KRW", "."),
        (["1.234"], "KWD", "."),
        (["1,234"], "KWD", ","),
        (["1,234", "1.234"], "JPY", None),
        (["1.234"], "EUR", None),
        (["1.234"], None, None),
        (["12"], "JPY", None),
        ([12.5], "EUR", None),
    ],
)
def test_the_decimal_mark_of_an_order(texts: list[Any], currency: str | None, expected: Mark | None) -> None:
    """Texts that show it decide, else the decimals of the currency, else nothing."""
    readings = [found for text in texts if isinstance(found := read_amount(text), Reading)]

    assert expected == decimal_mark(readings, currency)


@pytest.mark.parametrize(
    ("text", "dot", "comma"), [("1.234", "1.234", "1234"), ("1,234", "1234", "1.234"), ("-1.234", "-1.234", "-1234")]
)
def test_three_digits_behind_a_separator(text: str, dot: str, comma: str) -> None:
    """The same text is two numbers, by what the decimal mark is."""
    assert (dot, comma) == (number(text, "."), number(text, ","))


amounts: Final = st.decimals(min_value=-(10**12), max_value=10**12, places=2, allow_nan=False)
styles: Final = st.tuples(
    st.sampled_from(
        [("", "."), ("", ","), (".", ","), (",", "."), (" ", ","), ("'", "."), ("\u2019", "."), (NARROW, ",")]
    ),
    st.sampled_from(["{}", "€{}", "€ {}", "{} €", "EUR {}", "{}EUR", "{}\u00a0kr", " {} "]),
)


@given(amounts, styles)
def test_whatever_is_written_with_two_decimals_is_read_exactly(amount: Decimal, style: Any) -> None:
    """In every style of grouping, decimal mark and currency."""
    (group, mark), frame = style
    text = f"{amount:,.2f}".replace(",", "\x00").replace(".", mark).replace("\x00", group)

    assert Decimal(number(frame.format(text)) or "x") == amount


@given(st.text(), st.text("0123456789.,'-+eE%$€ \u00a0", max_size=20))
def test_no_text_is_too_strange(text: str, digits: str) -> None:
    """Reading never raises, and what it reads is bounded."""
    for value in (text, digits):
        found = read_discount(value)

        assert found is None or isinstance(found, str) or abs(found.number) < 10**14
