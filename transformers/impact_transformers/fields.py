"""The mapping tables: one :class:`MappingRow` is one impact.com parameter, where it comes from and its rule."""

import re
import tomllib
from importlib.resources import files
from typing import Final, Literal, TypeAlias

import msgspec

from impact_transformers import normalize
from impact_transformers.normalize import Overlong, Rule

Condition: TypeAlias = Literal["always", "device", "items", "no_items"]
RuleName: TypeAlias = Literal[
    "advertising_id",
    "currency",
    "customer_status",
    "date",
    "email",
    "identifier",
    "integer",
    "ip_address",
    "money",
    "positive_money",
    "quantity",
    "readable",
    "text",
    "truth",
    "url",
    "visitor_id",
]


class MappingRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"sources": "from", "rule": "as"}):
    """One parameter. ``max`` counts characters, ``digits`` those before the decimal point.

    ``when`` limits the row to events with a device, or to conversions with or without items.
    """

    param: str
    sources: tuple[str, ...]
    rule: RuleName
    why: str
    max: int = 255
    digits: int = 14
    overlong: Overlong = "refuse"
    required: bool = False
    when: Condition = "always"


class MappingTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"rows": "parameter"}):
    """One mapping file: the vendor's page it was read from, and its rows."""

    source: str
    rows: tuple[MappingRow, ...]

    def names(self) -> frozenset[str]:
        """The parameters the table knows."""
        return frozenset(row.param for row in self.rows)


def _load(name: str) -> MappingTable:
    text = files("impact_transformers").joinpath("mappings", name).read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), MappingTable)


PAGE_LOAD: Final = _load("page_load.toml")
CONVERSION: Final = _load("conversion.toml")
ITEM: Final = _load("item.toml")

_FAMILIES: Final[tuple[tuple[re.Pattern[str], RuleName, int], ...]] = (
    (re.compile(r"Text([1-9]|[1-4]\d|50)"), "text", 64),
    (re.compile(r"Numeric([1-9]|10)"), "money", 14),
    (re.compile(r"Money[1-3]"), "money", 14),
    (re.compile(r"Date([1-9]|10)"), "date", 0),
    (re.compile(r"ItemText\{i\}_([1-9]|[1-4]\d|50)"), "text", 64),
    (re.compile(r"ItemNumeric\{i\}_([1-9]|10)"), "money", 14),
    (re.compile(r"ItemMoney\{i\}_[1-3]"), "money", 14),
    (re.compile(r"ItemDate\{i\}_([1-9]|10)"), "date", 0),
    (re.compile(r"ItemSubTotal\{i\}|ItemDiscount\{i\}|ItemTotalDiscount\{i\}|ItemDiscountRate\{i\}"), "money", 14),
    (
        re.compile(
            r"Amount|OrderSubTotalPostDiscount|OrderSubTotalPreDiscount|OrderSubtotal|OrderRebate|OrderDiscountRate"
        ),
        "money",
        14,
    ),
    (re.compile(r"ItemMpn\{i\}|DispositionCode"), "text", 64),
    (re.compile(r"MediaId|MediaPartnerId|EventTypeId|ActionTrackerId"), "integer", 10),
    (re.compile(r"CustomClickId|CallerId|EventCode"), "identifier", 128),
    (re.compile(r"EventTypeCode"), "identifier", 64),
    (re.compile(r"PaymentType"), "text", 32),
    (re.compile(r"CountryCode"), "text", 2),
    (re.compile(r"TrackingConsent|GiftPurchase"), "truth", 0),
    (re.compile(r"UniqueUrl"), "url", 0),
)
"""Parameters an operator may map to, beside those of the tables; anything else is sent as text of up to 255 characters.

https://integrations.impact.com/impact-brand/reference/the-conversion-object
"""


def custom_row(param: str, source: str) -> MappingRow:
    """The row for a parameter that no table lists, with the rule of its family."""
    why = "Mapped by the operator."
    for pattern, rule, size in _FAMILIES:
        if pattern.fullmatch(param):
            return MappingRow(
                param, (source,), rule, why, max=size, digits=size, overlong="cut" if rule == "text" else "refuse"
            )
    return MappingRow(param, (source,), "text", why, max=255, overlong="cut")


_PLAIN: Final[dict[str, Rule]] = {
    "currency": normalize.currency,
    "customer_status": normalize.customer_status,
    "date": normalize.date,
    "email": normalize.email,
    "ip_address": normalize.ip_address,
    "quantity": normalize.quantity,
    "readable": normalize.readable,
    "truth": normalize.truth,
    "url": normalize.url,
}


def rule_of(row: MappingRow, *, hash_emails: bool = False) -> Rule:
    """The function that turns a value into the row's text."""
    limited: dict[str, Rule] = {
        "text": normalize.text_of(row.max, row.overlong),
        "identifier": normalize.identifier_of(row.max, row.overlong),
        "visitor_id": normalize.visitor_id_of(row.max, hash_emails=hash_emails),
        "advertising_id": normalize.advertising_id_of(row.max),
        "integer": normalize.integer_of(row.digits),
        "money": normalize.money_of(row.digits),
        "positive_money": normalize.positive_money_of(row.digits),
    }
    return limited.get(row.rule) or _PLAIN[row.rule]
