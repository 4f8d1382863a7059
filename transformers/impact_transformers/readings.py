"""Rules for what is read of an order before it is decided what it is worth: amounts, discounts, pieces, products."""

from contextlib import suppress
from decimal import Decimal
from typing import Any, Final

import msgspec

from impact_transformers.amounts import Reading, read_amount, read_discount
from impact_transformers.outcome import NoticeReason, UnusableValueError

MOST_PIECES: Final = 10**9
"""https://integrations.impact.com/impact-brand/docs/item-level-data"""


def amount(value: Any) -> Reading | None:
    """An amount as it was written."""
    return _readable(read_amount(value))


def discount(value: Any) -> Reading | None:
    """A discount as it was written: a number, a text, a percentage, an object, or a list of those."""
    return _readable(read_discount(value))


def pieces(value: Any) -> Decimal | None:
    """How many of a product, which may be a weight or a length; negative for what was given back."""
    found = read_amount(value)
    if found is None:
        return None
    if isinstance(found, str) or not -MOST_PIECES < found.amount() < MOST_PIECES:
        raise UnusableValueError("is no quantity; one piece is assumed")
    return found.amount()


def products(value: Any) -> list[Any] | None:
    """The products of an order, also from the JSON text that tag managers make of a list; None for an empty one."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(msgspec.DecodeError, RecursionError, UnicodeError):
            value = msgspec.json.decode(value)
    if isinstance(value, list):
        return value or None
    # A number under such a name counts the products.
    if value and isinstance(value, str | dict):
        raise UnusableValueError("is no list of products", NoticeReason.ITEMS_INCOMPLETE)
    return None


def _readable(found: Reading | str | None) -> Reading | None:
    if isinstance(found, str):
        raise UnusableValueError(found, NoticeReason.AMOUNT_UNREADABLE)
    return found
