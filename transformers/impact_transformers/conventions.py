"""How a shop writes its orders, in the setting ``orderAmount``: the field to start from, and what is to come off it.

``total-tax-shipping``: the total less tax and shipping. ``lines-discount-tax``: the lines less the order's discount and
the tax in their prices. ``subtotal/100``: the subtotal, in cents. ``total+discount-tax-shipping``: what the shop calls
a discount is a gift card.
"""

import re
from decimal import Decimal
from typing import Final

from impact_transformers.amounts import is_too_large
from impact_transformers.order import Order

AUTO: Final = "auto"

PATTERN: Final = r"auto|(?:subtotal|revenue|value|total|lines)(?:[+-]discount)?(?:-tax)?(?:-shipping)?(?:/100)?"

_PARTS: Final = re.compile(r"([+-])(discount|tax|shipping)")
_CENTS: Final = Decimal(100)
_ZERO: Final = Decimal(0)


def in_cents(convention: str) -> bool:
    """Whether the shop writes every amount in hundredths."""
    return convention.endswith("/100")


def amount_by(convention: str, order: Order) -> Decimal | None:
    """What the order is worth by a convention other than ``auto``; None where the field it starts from is missing.

    A discount, tax or shipping that the order does not tell is none; a discount of the lines is not taken twice.
    """
    base = re.split(r"[-+/]", convention, maxsplit=1)[0]
    amount: Decimal | None = order.lines if base == "lines" else getattr(order, base)
    if amount is None:
        return None
    for sign, name in _PARTS.findall(convention):
        part: Decimal = getattr(order, name) or _ZERO
        if base == "lines" and name == "discount" and order.taken_twice:
            continue
        amount += part if sign == "+" else -part
    if in_cents(convention):
        amount /= _CENTS
    return None if is_too_large(amount) else amount
