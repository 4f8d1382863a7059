"""Pages of the reference about orders: what each example is worth, and how well the amount is found by itself."""

import json
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from shop_books import ONLY_SETTING, RESULTS, STYLES, Measured, measure

ORDERS: Final = Path(__file__).parents[1] / "tests" / "orders"
LONGEST: Final = 420
"""Characters of an order that are shown; the rest is in the file."""

AMOUNTS_TEXT: Final = """# What an order is worth

impact.com wants what was paid for the goods: after discounts, before tax and shipping. Shops disagree about what their
fields mean, and only the shop knows its own convention. State it in
[`orderAmount`](configuration.md#orderamount); `explain` shows how the amount of one order was found.

## Without the setting

`orderAmount` is `auto`: four steps, of which the first that applies decides. The *lines* are price x quantity less the
discounts of the lines; the *net lines* are those less the order's discount, which is taken once where it equals the
discounts of the lines. Prices of GA4 are after their discounts already. Two amounts are equal when they are the same to
the smallest unit of the currency.

1. With a total and a tax, the rest is the total less tax and shipping. Subtotal or revenue that is the rest, to one
   unit, is the amount; so is one that is the rest without the tax that is contained in shipping. Where shipping is
   missing, or a discount at least as high took it off, and subtotal or revenue equals the total or the total less the
   tax, nothing was charged for shipping. Two fields that agree on an amount which tax cannot explain overrule the rest:
   the total has a gift card or a fee in it. Where shipping is missing otherwise, step 2 decides.
2. Else the first of subtotal, revenue and value, as written. The discount comes off where the field is the lines before
   it, or where total and shipping say so. Tax and shipping come off revenue and value where that gives the net lines.
3. Else the net lines.
4. Else the total, less the tax and shipping that are told.

Where the fields leave room for another amount, the order is sent with the notice `amounts_disagree`, which names them.

## What only the setting can tell

"""

TABLE_TEXT: Final = """
## How often it is right

Orders made from the books of a shop (lines, discounts, tax inside or outside the prices, shipping with and without tax,
currencies with no, two and three decimals) and written down in {styles} ways, {orders} each. With the shop's own
`orderAmount` the amount is that of the books to the cent in every order of every way. The table shows `auto`, in
percent of the orders; on average {right} % are right and {silent} % are wrong without a notice. No other way than those
of the list above is ever wrong without a notice.

"""


def order_amounts() -> str:
    """How the amount is found, and how often it is right."""
    measured = [measure(style) for style in STYLES]
    count = len(measured)
    text = TABLE_TEXT.format(
        styles=count,
        orders=measured[0].results.total(),
        right=round(sum(one.share("right") + one.share("right, noticed") for one in measured) / count),
        silent=round(sum(one.share("silently wrong") for one in measured) / count),
    )
    head = ("the shop writes", "its orderAmount", *RESULTS)
    return (
        AMOUNTS_TEXT
        + "\n".join(f"- {one}" for one in ONLY_SETTING.values())
        + "\n"
        + text
        + _table(head, _rows(measured))
    )


def _rows(measured: Iterable[Measured]) -> Iterator[tuple[str, ...]]:
    for one in measured:
        shares = (f"{one.share(result):.0f}" if one.results[result] else "" for result in RESULTS)
        yield f"**{one.style.name}**: {one.style.what}", f"`{one.style.setting}`", *shares


def orders() -> str:
    """Every order of the table: what the shop sent, what it is worth, and why."""
    lines = ["# Orders of shops", ""]
    lines += ["What shops send, what is booked for it, and why. A test sends every one of these orders.", ""]
    for path in sorted(ORDERS.glob("*.toml")):
        file = tomllib.loads(path.read_text(encoding="utf-8"))
        lines += [f"## {file['dialect']}", "", f"Source: <{file['source']}>", ""]
        lines += [_table(("order", "the shop sent", "booked", "why"), map(_order, file["order"])), ""]
    return "\n".join(lines)


def _order(row: dict[str, Any]) -> tuple[str, str, str, str]:
    sent = json.dumps(json.loads(row["sent"]), ensure_ascii=False)
    shown = sent if len(sent) <= LONGEST else f"{sent[:LONGEST]} …"
    settings = f"<br>with `{row['settings']}`" if "settings" in row else ""
    worth = f"rejected: `{row['refused']}`" if "refused" in row else f"{row['worth']} {row['currency']}".rstrip()
    truly = f" (really {row['truly']})" if "truly" in row else ""
    notices = "".join(f"<br>`{notice}`" for notice in row.get("notices", ()))
    return row["name"], f"`{shown}`{' '.join(settings.split())}", worth + truly + notices, row["why"]


def _table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (head, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return "\n".join([lines[0], "|" + "---|" * len(escaped[0]), *lines[1:]])
