"""One reader for every amount of an order: numbers, and the ways in which shops and countries write them as text.

What a separator means is not always in the text: ``1.234`` is a thousand and more in Madrid and a little over one in
Boston. A :class:`Reading` holds both values then, :func:`decimal_mark` decides by the other texts of the order, the
currency and what agrees with the other fields, and :meth:`Reading.amount` gives the number.

How numbers are written: https://cldr.unicode.org/translation/number-currency-formats/number-and-currency-patterns
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final, Literal, TypeAlias

import msgspec

from impact_transformers.currencies import CURRENCIES, decimals_of

Mark: TypeAlias = Literal[".", ","]
"""A decimal mark; the other one of the two groups thousands."""

MOST_DIGITS: Final = 14
"""Digits an amount may have before the point: more are a mistake, not money.

https://integrations.impact.com/impact-brand/docs/order-level-data
"""

_LARGEST: Final = Decimal(10) ** MOST_DIGITS - Decimal("0.01")
_FINEST: Final = Decimal("1e-10")
_ZERO: Final = Decimal(0)
_HUNDRED: Final = Decimal(100)
_OTHER: Final[dict[Mark, Mark]] = {".": ",", ",": "."}

_BLANKS: Final = re.compile(r"[\s\u200b-\u200f\u2060\ufeff]+")
_APOSTROPHES: Final = re.compile(r"(?<=\d)['\u2018\u2019\u02bc`\u00b4](?=\d)")
_PARTS: Final = re.compile(r"([^0-9.,]*)((?:[0-9]|[.,](?=[0-9]))(?:[0-9.,]*[0-9])?(?:[eE][+-]?[0-9]{1,3})?)([^0-9]*)")
_NO_CENTS: Final = re.compile(r"[.,](?:[-\u2010-\u2015\u2212]{1,2})?")
_SIGNS: Final = {"": False, "+": False, "-": True, "\u2212": True, "\u2013": True}
_GROUPED: Final = {mark: re.compile(rf"[0-9]{{1,3}}(?:\{mark}[0-9]{{2,3}})*\{mark}[0-9]{{3}}") for mark in _OTHER}
_LETTERS: Final = re.compile(r"[A-Za-z]{0,3}")
_SYMBOLS: Final = "kr kr. zł kč ft fr fr. sfr. lei leu лв лв. руб руб. грн rs rs. rm rp rp. r s/ s/. tl"
_LOCAL_SYMBOLS: Final = frozenset(_SYMBOLS.split())
"""Symbols of currencies that are written in letters, in lower case."""

_PERCENT_KEYS: Final = ("value_type", "type", "unit", "kind")


class Reading(msgspec.Struct, frozen=True):
    """One amount as it was written.

    ``number`` is the value, with the separator of an ambiguous text (``separator``) read as the decimal mark;
    ``thousands`` is the value when it groups. ``shows`` is the decimal mark that an unambiguous text gives away.
    ``parts`` are the entries of a list, whose sum is meant.
    """

    number: Decimal = _ZERO
    thousands: Decimal = _ZERO
    separator: Mark | None = None
    shows: Mark | None = None
    percent: bool = False
    parts: tuple["Reading", ...] = ()

    @property
    def leaves(self) -> tuple["Reading", ...]:
        """The texts or numbers it was made of."""
        return self.parts or (self,)

    @property
    def relative(self) -> bool:
        """Whether a percentage is in it, so that it needs to know of what."""
        return any(part.percent for part in self.leaves)

    def amount(self, mark: Mark = ".", whole: Decimal | None = None) -> Decimal:
        """The number, with ``mark`` as the decimal one; percentages are of ``whole``."""
        total = _ZERO
        for part in self.leaves:
            number = part.thousands if part.separator == _OTHER[mark] else part.number
            total += number * (whole or _ZERO) / _HUNDRED if part.percent else number
        return total


def read_amount(value: Any) -> Reading | str | None:
    """Read one amount: None where there is none, and what is wrong with it, as text, where it cannot be read."""
    found = _read(value)
    return "is a percentage" if isinstance(found, Reading) and found.percent else found


def read_discount(value: Any) -> Reading | str | None:
    """As :func:`read_amount`; a discount may also be a percentage, or a list of discounts, and has no sign."""
    if not isinstance(value, list):
        return _unsigned(_read(value))
    parts = [_unsigned(_read(entry)) for entry in value]
    unreadable = next((part for part in parts if isinstance(part, str)), None)
    if unreadable is not None:
        return unreadable
    known = tuple(part for part in parts if isinstance(part, Reading))
    return Reading(parts=known) if known else None


def decimal_mark(readings: Iterable[Reading], currency: str | None) -> Mark | None:
    """The decimal mark that the texts of one order have in common; None where nothing tells.

    Texts that show it decide; else a currency without decimals groups, and one with three decimals does not. None also
    stands for an order in which no text leaves a doubt.
    """
    leaves = [leaf for reading in readings for leaf in reading.leaves]
    doubtful = {leaf.separator for leaf in leaves if leaf.separator is not None}
    shown = {leaf.shows for leaf in leaves if leaf.shows is not None}
    if len(shown) == 1:
        return shown.pop()
    decimals = decimals_of(currency)
    if len(doubtful) != 1 or decimals not in (0, 3):
        return None
    separator = doubtful.pop()
    return separator if decimals == 3 else _OTHER[separator]


def is_too_large(amount: Decimal) -> bool:
    """Whether the amount, rounded to what can be sent, has more digits than an amount may have."""
    return abs(amount) > _LARGEST


def rounded(amount: Decimal, unit: Decimal) -> Decimal:
    """The amount in whole units, halves away from zero."""
    return amount.quantize(unit, ROUND_HALF_UP)


def _read(value: Any) -> Reading | str | None:
    if isinstance(value, str):
        return _read_text(value)
    if isinstance(value, bool):
        return "is true or false, not an amount"
    if isinstance(value, int | float | Decimal):
        return _read_number(value)
    if isinstance(value, Mapping):
        return _read_object(value)
    return None if value is None else "is a list, not an amount"


def _unsigned(found: Reading | str | None) -> Reading | str | None:
    if not isinstance(found, Reading):
        return found
    return msgspec.structs.replace(found, number=abs(found.number), thousands=abs(found.thousands))


def _read_number(value: float | Decimal) -> Reading | str:
    if isinstance(value, float) and not math.isfinite(value):
        return "is not a finite number"
    number = value if isinstance(value, Decimal) else Decimal(repr(value) if isinstance(value, float) else value)
    return _bounded(number) or Reading(_fine(number))


def _read_object(value: Mapping[str, Any]) -> Reading | str | None:
    """``{"amount": 3}``, or ``{"value": 10, "value_type": "percentage"}``."""
    if value.get("amount") is not None:
        found = value["amount"]
        return "is an object within an object" if isinstance(found, Mapping) else _read(found)
    if "value" not in value or isinstance(value["value"], Mapping):
        return "is an object without an amount or value"
    found = _read(value["value"])
    kinds = [str(value[key]).lower() for key in _PERCENT_KEYS if value.get(key) is not None]
    if isinstance(found, Reading) and any("percent" in kind or kind == "%" for kind in kinds):
        return msgspec.structs.replace(found, percent=True)
    return found


def _read_text(text: str) -> Reading | str | None:
    bare = _APOSTROPHES.sub("", _BLANKS.sub("", text))
    if not bare:
        return None
    found = _PARTS.fullmatch(bare)
    if found is None:
        return "is text in which no number can be read"
    head, number, tail = found.groups()
    negative = _sign_of(head)
    percent = tail == "%"
    if negative is None or not (percent or _is_tail(tail)):
        return "is text with more than a number and a currency in it"
    reading = _read_digits(number)
    if isinstance(reading, str):
        return reading
    factor = -1 if negative else 1
    return msgspec.structs.replace(
        reading, number=reading.number * factor, thousands=reading.thousands * factor, percent=percent
    )


def _sign_of(head: str) -> bool | None:
    """Whether what stands before the digits makes them negative; None when it is no sign and no currency."""
    for sign, negative in _SIGNS.items():
        if sign and head.startswith(sign):
            return negative if _is_currency(head[1:]) else None
        if sign and head.endswith(sign):
            return negative if _is_currency(head[:-1]) else None
    return False if _is_currency(head) else None


def _is_tail(tail: str) -> bool:
    """Whether what stands behind the digits is nothing, a currency, or the dash for no cents (``19.-``)."""
    no_cents = _NO_CENTS.match(tail)
    return _is_currency(tail) or (no_cents is not None and _is_currency(tail[no_cents.end() :]))


def _is_currency(text: str) -> bool:
    if not text or text.upper() in CURRENCIES or text.lower() in _LOCAL_SYMBOLS:
        return True
    # US$, R$, $US: letters of a country on one side of a symbol.
    at = next((at for at, sign in enumerate(text) if unicodedata.category(sign) == "Sc"), None)
    if at is None:
        return False
    before, behind = text[:at], text[at + 1 :]
    return not (before and behind) and _LETTERS.fullmatch(before + behind) is not None


def _read_digits(text: str) -> Reading | str:
    """Digits with separators, as ``_PARTS`` cuts them out."""
    marks: list[Mark] = [mark for mark in _OTHER if mark in text]
    if len(marks) == 2:
        return _read_two_kinds(text, "." if text.rindex(".") > text.rindex(",") else ",")
    if not marks:
        return _plain(text)
    mark = marks[0]
    if text.count(mark) > 1:
        grouped = _GROUPED[mark].fullmatch(text) is not None
        return _plain(text.replace(mark, ""), shows=_OTHER[mark]) if grouped else "has separators in odd places"
    before, behind = text.split(mark)
    groups = len(behind) == 3 and behind.isdecimal() and 0 < len(before) <= 3 and not before.startswith("0")
    if not groups:
        return _plain(text.replace(",", "."), shows=mark)
    return Reading(Decimal(f"{before}.{behind}"), Decimal(before + behind), separator=mark)


def _read_two_kinds(text: str, last: Mark) -> Reading | str:
    """Both separators: the last one is the decimal mark."""
    whole, fraction = text.rsplit(last, 1)
    if not _GROUPED[_OTHER[last]].fullmatch(whole) or not fraction.isdecimal():
        return "has separators in odd places"
    return _plain(whole.replace(_OTHER[last], "") + "." + fraction, shows=last)


def _plain(text: str, *, shows: Mark | None = None) -> Reading | str:
    number = Decimal(text)
    return _bounded(number) or Reading(_fine(number), shows=shows)


def _bounded(number: Decimal) -> str | None:
    return f"has more than {MOST_DIGITS} digits before the point" if is_too_large(number) else None


def _fine(number: Decimal) -> Decimal:
    """The number with at most ten decimals: arithmetic on hostile exponents would take for ever."""
    if number.adjusted() < -10:
        return _ZERO
    exponent = number.as_tuple().exponent
    return number.quantize(_FINEST) if isinstance(exponent, int) and exponent < -10 else number
