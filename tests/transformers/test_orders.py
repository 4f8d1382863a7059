"""What shops send and what it is worth: every order of ``tests/orders`` is booked as the table says."""

import json
import tomllib
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from impact_plugin.testing.impact_rules import check_conversion
from impact_transformers import Explanation, Reject, Send, decode_event, decode_object, explain
from tests.builders import compiled

ORDERS: Final = Path(__file__).resolve().parents[1] / "orders"


class OrderRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One order of the table; README.md beside it says what the fields mean."""

    name: str
    why: str
    sent: str
    worth: str = ""
    truly: str = ""
    refused: str = ""
    currency: str = ""
    step: str = ""
    evidence: str = ""
    lines: list[str] = []
    discount: str = ""
    notices: list[str] = []
    event: str = "Order Completed"
    settings: str = "{}"
    source: str = ""


class OrderFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the table: a dialect, the page it was read from, and its orders."""

    dialect: str
    source: str
    order: list[OrderRow]


@cache
def files() -> dict[str, OrderFile]:
    """Read the table."""
    return {
        path.stem: msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), OrderFile)
        for path in sorted(ORDERS.glob("*.toml"))
    }


ROWS: Final = {f"{stem}: {row.name}": row for stem, file in files().items() for row in file.order}


@cache
def explained(key: str) -> Explanation:
    """Send one order of the table through the mapping."""
    row = ROWS[key]
    raw = json.dumps(
        {
            "type": "track",
            "event": row.event,
            "messageId": "m-1",
            "anonymousId": "507f191e-810c-4972-9de8-60ea00000001",
            "timestamp": "2026-03-01T12:00:00.000Z",
            "properties": json.loads(row.sent),
        }
    ).encode()
    destination = compiled(**json.loads(row.settings))
    return explain(decode_event(raw), destination, decode_object(raw))


def lines_of(form: dict[str, str]) -> list[str]:
    """Write the items of a form as the table does."""
    lines = []
    for number in range(1, sum(name.startswith("ItemSku") for name in form) + 1):
        sku, price = form[f"ItemSku{number}"], form.get(f"ItemPrice{number}")
        money = f"{price} x {form[f'ItemQuantity{number}']}" if price else form[f"ItemSubTotal{number}"]
        lines.append(f"{sku}: {money}")
    return lines


def booked(form: dict[str, str]) -> str:
    """Add up what impact.com adds up: the items less the order's discount, or the order's amount."""
    numbers = range(1, sum(name.startswith("ItemSku") for name in form) + 1)
    if not numbers:
        return form.get("OrderSubTotalPostDiscount", "none")
    items = [
        Decimal(form[f"ItemPrice{number}"]) * int(form[f"ItemQuantity{number}"])
        if f"ItemPrice{number}" in form
        else Decimal(form[f"ItemSubTotal{number}"])
        for number in numbers
    ]
    return f"{sum(items) - Decimal(form.get('OrderDiscount', 0)):.2f}"


@pytest.mark.parametrize("key", ROWS)
def test_order(key: str) -> None:
    """The order is booked for what it is worth, in its currency, with the lines and notices that the table names."""
    row, outcome = ROWS[key], explained(key).outcome
    if row.refused:
        assert isinstance(outcome, Reject)
        assert row.refused == outcome.reason
        return
    assert isinstance(outcome, Send)
    form = outcome.request.form

    assert row.worth == booked(form)
    assert row.currency == form.get("CurrencyCode", "")
    assert row.lines == lines_of(form)
    assert row.discount == form.get("OrderDiscount", "")
    assert sorted(row.notices) == sorted(notice.reason for notice in outcome.notices)
    assert () == check_conversion(form).errors


@pytest.mark.parametrize("key", [key for key, row in ROWS.items() if row.step])
def test_the_step_is_told(key: str) -> None:
    """``explain`` says by which step the amount was found, and on what evidence."""
    row, amount = ROWS[key], explained(key).amount
    step = row.step if row.step == "orderAmount" else f"step {row.step}"

    assert amount is not None
    assert amount.startswith(f"{step}: ")
    assert row.evidence in amount


def test_the_table_is_large_enough() -> None:
    """The table keeps its promise: at least 120 orders, each with a reason and a source."""
    rows: list[Any] = [(file, row) for file in files().values() for row in file.order]

    assert len(rows) >= 120
    assert [] == [
        row.name for file, row in rows if not row.why or not (row.source or file.source).startswith("https://")
    ]
    assert [] == [row.name for _, row in rows if bool(row.worth) == bool(row.refused)]
