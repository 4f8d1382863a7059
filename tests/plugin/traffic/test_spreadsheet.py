"""CSV for spreadsheets: what looks like a formula stays text, numbers stay numbers, and everything can be read back."""

import csv
import io
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impact_plugin.traffic.orders import FlaggedOrder
from impact_plugin.traffic.spreadsheet import ORDER_COLUMNS, as_csv, orders_as_csv


@pytest.mark.parametrize(
    "cell",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\uff1d1", '=HYPERLINK("http://example.com","x")'],
)
def test_what_a_spreadsheet_takes_for_a_formula_gets_an_apostrophe(cell: str) -> None:
    """The order ids of a shop come from the web."""
    rows = [*csv.reader(io.StringIO(as_csv(("id",), [(cell,)]), newline=""))]

    assert [["id"], [f"'{cell}"]] == rows


@pytest.mark.parametrize("cell", ["o-1", "S26=1", "a+b", "jane@example.com", "", "0042"])
def test_other_text_stays_as_it_is(cell: str) -> None:
    """A sign within is harmless."""
    assert [["id", "n"], [cell, "1"]] == [*csv.reader(io.StringIO(as_csv(("id", "n"), [(cell, 1)])))]


def test_numbers_stay_numbers() -> None:
    """Also negative ones; what is not known is an empty cell."""
    assert "a,b,c,d\r\n-5.00,3,0.10,\r\n" == as_csv(
        ("a", "b", "c", "d"), [(Decimal("-5.00"), 3, Decimal("0.10"), None)]
    )


@given(st.text())
def test_no_cell_of_text_begins_like_a_formula(text: str) -> None:
    """Whatever it holds, and nothing of it is lost."""
    (_, (cell,)) = csv.reader(io.StringIO(as_csv(("id",), [(f"x{text}",)]), newline=""))
    (_, (first, _)) = csv.reader(io.StringIO(as_csv(("id", "n"), [(text, 1)]), newline=""))

    assert f"x{text}" == cell
    assert first.removeprefix("'").endswith(text.removeprefix("'"))
    assert not first.lstrip(" ").startswith(tuple("=+-@\t"))


def test_an_order_is_one_line() -> None:
    """With its columns in the order of the heads."""
    order = FlaggedOrder(7, "m-7", "eu", "=o-1", 1250, "EUR", "rejected", "missing_order_id", "no id, no order")

    assert [
        [*ORDER_COLUMNS],
        ["'=o-1", "12.50", "EUR", "rejected", "missing_order_id", "no id, no order", "7", "m-7", "eu"],
    ] == [*csv.reader(io.StringIO(orders_as_csv([order])))]
