"""What an order is worth: what was paid for the goods, after discounts, before tax and shipping.

Shops disagree about what their fields mean. Where the operator said so (``orderAmount``), that is it; else four steps,
of which the first that applies decides. Each tells what it went by, and whether that leaves a doubt.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Final, Literal, TypeAlias

import msgspec

from impact_transformers.amounts import rounded
from impact_transformers.conventions import AUTO, amount_by
from impact_transformers.order import Order

StepName: TypeAlias = Literal["orderAmount", "stated", "step 1", "step 2", "step 3", "step 4"]

_ZERO: Final = Decimal(0)
_ABOVE: Final = Decimal("1.01")
"""A revenue this much above the lines contains more than them."""


class NetAmount(msgspec.Struct, frozen=True):
    """The amount in whole units of the currency, never negative; what decided about it, and on what evidence.

    ``doubt`` tells that the fields leave room for another amount, ``negative`` that the amount came out below zero.
    """

    amount: Decimal
    step: StepName
    evidence: str
    doubt: bool = False
    negative: bool = False

    def __str__(self) -> str:
        return f"{self.step}: {self.evidence}"


class _Found(msgspec.Struct, frozen=True):
    amount: Decimal
    evidence: str
    doubt: bool = False


def net_amount(order: Order, convention: str = AUTO) -> NetAmount | None:
    """Decide what the order is worth; None when no field tells."""
    if order.stated is not None:
        return _finish(order, "stated", _Found(order.stated, "the path that the destination names"))
    amount = None if convention == AUTO else amount_by(convention, order)
    if amount is not None:
        return _finish(order, "orderAmount", _Found(amount, convention))
    steps: tuple[tuple[StepName, _Found | None], ...] = (("step 1", _from_total(order)),)
    if steps[0][1] is None:
        steps = (("step 2", _from_field(order)), ("step 3", _from_lines(order)), ("step 4", _from_total_alone(order)))
    for step, found in steps:
        if found is not None:
            # A shop that states its convention has orders that it does not fit, which is worth a look.
            doubt = found.doubt or convention != AUTO
            return _finish(order, step, msgspec.structs.replace(found, doubt=doubt))
    return None


def _finish(order: Order, step: StepName, found: _Found) -> NetAmount:
    amount = rounded(max(found.amount, _ZERO), order.unit)
    return NetAmount(amount, step, found.evidence, found.doubt, found.amount < 0)


def _from_total(order: Order) -> _Found | None:
    """Step 1: total and tax are there."""
    if order.total is None or order.tax is None:
        return None
    left = order.total - order.tax - (order.shipping or _ZERO)
    found = _field_near(order, left) or _field_beside_taxed_shipping(order, left) or _shipping_not_charged(order)
    if found is not None or order.shipping is None:
        return found
    return _agreed_elsewhere(order, left) or _what_is_left(order, left)


def _field_near(order: Order, left: Decimal) -> _Found | None:
    near = [(name, field) for name, field in _fields(order) if order.near(field, left)]
    if not near:
        return None
    name, field = min(near, key=lambda one: abs(one[1] - left))
    return _Found(field, f"{name} {_shown(field)} is total - tax - shipping")


def _field_beside_taxed_shipping(order: Order, left: Decimal) -> _Found | None:
    """Where shipping contains its tax, that was subtracted twice: a field that is so much more is the amount."""
    if not order.shipping or not order.total or not order.tax:
        return None
    share = order.tax * order.shipping / order.total
    for name, field in _fields(order):
        if order.near(field, left + share):
            return _Found(field, f"{name} {_shown(field)} is total - tax - shipping without its share of the tax")
    return None


def _shipping_not_charged(order: Order) -> _Found | None:
    """Shipping is not told, or was taken off by a discount, and a field says that only the tax is on top."""
    given = order.shipping
    if order.total is None or order.tax is None or given == 0:
        return None
    if given is not None and given > (order.discount or _ZERO):
        return None
    fields = [*_fields(order)]
    if given is None and order.net_lines is not None:
        fields.append(("net lines", order.net_lines))
    for name, field in fields:
        for what, amount in (("total", order.total), ("total - tax", order.total - order.tax)):
            if order.equal(field, amount):
                told = f"shipping was not charged, {name} {_shown(field)} is {what}: total - tax"
                return _Found(order.total - order.tax, told, doubt=given is not None)
    return None


def _agreed_elsewhere(order: Order, left: Decimal) -> _Found | None:
    """Two fields agree on an amount that tax cannot explain: the total has a gift card or a fee in it."""
    told = [*_candidates(order)]
    if any(order.equal(amount, left) for _, amounts in told for amount in amounts):
        return None
    highest = left + (order.tax or _ZERO)
    for at, (one, amounts) in enumerate(told):
        for other, others in told[at + 1 :]:
            for amount in amounts:
                outside = amount <= left - order.unit or amount >= highest + order.unit
                if outside and any(order.equal(amount, agreeing) for agreeing in others):
                    why = f"{one} and {other} agree on {_shown(amount)}; total - tax - shipping is {_shown(left)}"
                    return _Found(amount, why, doubt=True)
    return None


def _what_is_left(order: Order, left: Decimal) -> _Found:
    amounts = [amount for _, told in _candidates(order) for amount in told]
    amounts += [] if order.lines is None else [order.lines]
    highest = left + (order.tax or _ZERO) + order.unit
    fits = not amounts or any(left - order.unit <= amount <= highest for amount in amounts)
    return _Found(left, "total - tax - shipping", doubt=not fits)


def _from_field(order: Order) -> _Found | None:
    """Step 2: the first there of subtotal, revenue and value, as written unless the others say otherwise."""
    told = (("subtotal", order.subtotal), ("revenue", order.revenue), ("value", order.value))
    name, field = next(((name, field) for name, field in told if field is not None), ("", None))
    if field is None:
        return None
    found = _less_the_discount(order, name, field) or _less_tax_and_shipping(order, name, field)
    if found is None:
        found = _Found(field, f"{name} {_shown(field)} as written", doubt=not _confirmed(order, name, field))
    return found


def _less_the_discount(order: Order, name: str, field: Decimal) -> _Found | None:
    if not order.discount:
        return None
    net, told = field - order.discount, f"{name} {_shown(field)} - discount {_shown(order.discount)}"
    if order.total is None:
        equal = order.equal(field, order.lines_before)
        return _Found(net, f"{told}: {name} is the lines before it", doubt=True) if equal else None
    if order.near(net, order.total - (order.shipping or _ZERO)):
        return _Found(net, f"{told} is total - shipping")
    return None


def _less_tax_and_shipping(order: Order, name: str, field: Decimal) -> _Found | None:
    if name == "subtotal" or order.lines is None or order.net_lines is None or order.equal(field, order.net_lines):
        return None
    tax = order.tax or _ZERO
    net = field - tax - (order.shipping or _ZERO)
    if order.equal(net, order.net_lines) or order.equal(net, order.net_lines - tax):
        return _Found(net, f"{name} {_shown(field)} - tax - shipping is the net lines")
    if field > order.lines * _ABOVE:
        return _Found(
            net, f"{name} {_shown(field)} - tax - shipping: it is above the lines {_shown(order.lines)}", doubt=True
        )
    return None


def _confirmed(order: Order, name: str, field: Decimal) -> bool:
    """Whether no other field is there, or one is the same or differs by just the discount or the tax."""
    ties = order.equal(order.total, field + (order.tax or _ZERO) + (order.shipping or _ZERO))
    if ties or (order.discount and order.equal(field, order.lines_before) and not order.taken_twice):
        # Before the discount or after it, the lines are the same: only a total could tell.
        return ties
    fields = {"subtotal": order.subtotal, "revenue": order.revenue, "value": order.value, "total": order.total}
    others = [amount for key, amount in fields.items() if key != name and amount is not None]
    others += [amount for amount in (order.net_lines, order.lines) if amount is not None]
    explained = [_ZERO, order.discount or _ZERO, order.tax or _ZERO]
    return not others or any(
        order.equal(abs(other - field), difference) for other in others for difference in explained
    )


def _from_lines(order: Order) -> _Found | None:
    """Step 3: the lines less the discount."""
    net = order.net_lines
    if net is None:
        return None
    highest = net + (order.tax or _ZERO) + (order.shipping or _ZERO) + order.unit
    fits = order.total is None or (net - order.unit < order.total - (order.tax or _ZERO) and order.total < highest)
    return _Found(net, f"net lines {_shown(net)}", doubt=not fits)


def _from_total_alone(order: Order) -> _Found | None:
    """Step 4: the total less what is there of tax and shipping; it may contain more of them."""
    if order.total is None:
        return None
    left = order.total - (order.tax or _ZERO) - (order.shipping or _ZERO)
    return _Found(left, f"total {_shown(order.total)} less the tax and shipping that are told", doubt=True)


def _fields(order: Order) -> Iterator[tuple[str, Decimal]]:
    """Subtotal and revenue, as written, where they are there."""
    for name, field in (("subtotal", order.subtotal), ("revenue", order.revenue)):
        if field is not None:
            yield name, field


def _candidates(order: Order) -> Iterator[tuple[str, tuple[Decimal, ...]]]:
    """Fields with the amounts they may stand for: subtotal and revenue also less the discount."""
    if order.net_lines is not None:
        yield "net lines", (order.net_lines,)
    for name, field in _fields(order):
        yield name, (field, field - order.discount) if order.discount else (field,)


def _shown(amount: Decimal) -> str:
    return f"{amount:.2f}"


def told(order: Order) -> str:
    """The order's fields in words, for whoever is told that they disagree."""
    fields = {
        "total": order.total,
        "subtotal": order.subtotal,
        "revenue": order.revenue,
        "value": order.value,
        "tax": order.tax,
        "shipping": order.shipping,
        "discount": order.discount,
        "lines": order.lines,
    }
    return ", ".join(f"{name} {_shown(amount)}" for name, amount in fields.items() if amount is not None)
