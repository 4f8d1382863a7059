"""Which ``orderAmount`` fits the orders that a shop has sent, as far as those orders tell."""

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from itertools import product
from typing import Final

import msgspec

from impact_transformers.conventions import amount_by
from impact_transformers.net_amount import net_amount
from impact_transformers.order import Order

BASES: Final = ("subtotal", "revenue", "value", "total", "lines")
"""Fields to start from, the plainest first."""

CONVENTIONS: Final = tuple(
    base + "".join(parts)
    for parts in sorted(product(("", "-discount"), ("", "-tax"), ("", "-shipping")), key="".join)
    for base in BASES
)
"""What can be told from orders. That everything is in cents, or a gift card called a discount, cannot."""


class Fit(msgspec.Struct, frozen=True):
    """A convention, and how many of the orders that tell it fits."""

    convention: str
    orders: int


class Advice(msgspec.Struct, frozen=True):
    """What a number of orders tell about their shop.

    ``telling`` are those whose fields tie together in a way that leaves no doubt; only they count. ``discounted``,
    ``taxed`` and ``shipped`` of them have a discount, tax or shipping: without any, nothing is known about that part.
    ``fits`` are the conventions that fit at least one, the best and plainest first.
    """

    orders: int
    telling: int
    discounted: int
    taxed: int
    shipped: int
    fits: tuple[Fit, ...]


def advise(orders: Iterable[Order]) -> Advice:
    """Compare every convention with every order that tells what it is worth."""
    counts: Counter[str] = Counter()
    fits: Counter[str] = Counter()
    for order in orders:
        counts["orders"] += 1
        amount, fitting = _evidence(order)
        if amount is None:
            continue
        counts["telling"] += 1
        counts["discounted"] += bool(order.discount)
        counts["taxed"] += bool(order.tax)
        counts["shipped"] += bool(order.shipping)
        fits.update(fitting)
    ranked = sorted(fits, key=lambda name: (-fits[name], name.count("-"), CONVENTIONS.index(name)))
    return Advice(
        counts["orders"],
        counts["telling"],
        counts["discounted"],
        counts["taxed"],
        counts["shipped"],
        tuple(Fit(name, fits[name]) for name in ranked),
    )


def _evidence(order: Order) -> tuple[Decimal | None, list[str]]:
    """What the order is worth, when two fields of their own say so, and the conventions that give it."""
    found = net_amount(order)
    # Tax that no total ties together may be in every price, and all fields agree on the wrong amount.
    if found is None or found.doubt or (order.tax and order.total is None):
        return None, []
    fitting = [name for name in CONVENTIONS if order.equal(amount_by(name, order), found.amount)]
    bases = {name.partition("-")[0] for name in fitting}
    return (found.amount, fitting) if len(bases) > 1 else (None, [])
