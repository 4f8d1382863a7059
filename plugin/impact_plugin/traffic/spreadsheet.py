"""Rows as CSV (RFC 4180) that is safe to open in a spreadsheet.

A spreadsheet takes a cell that begins with ``=`` and the like for a formula, and order ids come from the web: such a
cell gets an apostrophe in front. Numbers stay numbers. https://owasp.org/www-community/attacks/CSV_Injection
"""

import csv
import io
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final, TypeAlias

from impact_plugin.traffic.orders import FlaggedOrder

Cell: TypeAlias = str | int | Decimal | None
"""Text, a number, or nothing."""

FORMULAS: Final = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""How a cell begins that a spreadsheet may take for a formula; the last four are full-width forms."""

ORDER_COLUMNS: Final = (
    "order_id",
    "amount",
    "currency",
    "outcome",
    "reason",
    "detail",
    "event",
    "message_id",
    "destination",
)


def orders_as_csv(orders: Iterable[FlaggedOrder]) -> str:
    """Write one line for each order."""
    return as_csv(ORDER_COLUMNS, ([getattr(one, name) for name in ORDER_COLUMNS] for one in orders))


def as_csv(heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Write the heads and the rows."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(heads)
    writer.writerows([_safe(cell) for cell in row] for row in rows)
    return text.getvalue()


def _safe(cell: Cell) -> Cell:
    # Some programs look behind leading blanks.
    harmful = isinstance(cell, str) and (cell.startswith(FORMULAS) or cell.lstrip().startswith(FORMULAS))
    return f"'{cell}" if harmful else cell
