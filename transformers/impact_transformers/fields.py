"""The mapping tables: one :class:`MappingRow` is one impact.com parameter, where it comes from and its rule."""

import re
import tomllib
from collections.abc import Callable
from difflib import get_close_matches
from importlib.resources import files
from typing import Any, Final, Literal, TypeAlias

import msgspec

from impact_transformers import normalize, readings
from impact_transformers.click_ids import click_id
from impact_transformers.configuration import DestinationConfig
from impact_transformers.normalize import Overlong
from impact_transformers.order_id import order_id_of

Condition: TypeAlias = Literal["always", "device"]
RuleName: TypeAlias = Literal[
    "advertising_id",
    "amount",
    "click_id",
    "coupon",
    "currency",
    "customer_status",
    "date",
    "discount",
    "email",
    "email_sha1",
    "first_text",
    "identifier",
    "integer",
    "ip_address",
    "money",
    "order_id",
    "pieces",
    "products",
    "readable",
    "text",
    "truth",
    "url",
    "visitor_id",
]


ValueRule: TypeAlias = Callable[[Any], Any]
"""A rule of :mod:`impact_transformers.normalize`, or one that reads an order: what is made of a value."""


class MappingRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"sources": "from", "rule": "as"}):
    """One parameter. ``max`` counts characters, ``digits`` those before the decimal point.

    ``when`` limits the row to events with a device.
    """

    param: str
    sources: tuple[str, ...]
    rule: RuleName
    why: str
    max: int = 255
    digits: int = 14
    overlong: Overlong = "drop"
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
ORDER: Final = _load("order.toml")
"""What is read of an order before it is decided what it is worth; its names are parameters where they are sent, too."""

LINE: Final = _load("line.toml")
"""As :data:`ORDER`, of one product."""

_FAMILIES: Final[tuple[tuple[re.Pattern[str], RuleName, int], ...]] = (
    (re.compile(r"Text([1-9]|[1-4]\d|50)|ItemText\{i\}_([1-9]|[1-4]\d|50)"), "text", 64),
    (re.compile(r"Numeric([1-9]|10)|Money[1-3]|ItemNumeric\{i\}_([1-9]|10)|ItemMoney\{i\}_[1-3]"), "money", 14),
    (re.compile(r"Date([1-9]|10)|ItemDate\{i\}_([1-9]|10)"), "date", 0),
    (
        re.compile(r"OrderSubTotalPreDiscount|OrderSubtotal|OrderRebate|OrderDiscountRate|ItemDiscountRate\{i\}"),
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
    (
        re.compile(
            r"Note|SubId[1-3]|SharedId|PromoCode|PhoneNumber|Location(Id|Name|Type)|AppName|AppInstallRef|IntegrationSource"
            r"|ImpactAppId|Device(Os|OsVer|Carrier|Locale)|IpAddress(Carrier|Wifi)|AppleAdTrack|Latitude|Longitude"
            r"|Item(SubCategory|DeliveryType)\{i\}"
        ),
        "text",
        255,
    ),
)
"""Parameters an operator may map to, beside those of the tables, with their rules and sizes.

https://integrations.impact.com/impact-brand/reference/the-conversion-object
"""

_NUMBERED: Final = ("ItemText{i}", "ItemNumeric{i}", "ItemDate{i}", "ItemMoney{i}")


def is_known(param: str) -> bool:
    """Whether impact.com has such a parameter; ``{i}`` stands for an item's number."""
    return param in _TABLE_NAMES or any(pattern.fullmatch(param) for pattern, _, _ in _FAMILIES)


def numbered(param: str) -> str:
    """The item's own number goes where ``{i}`` stands; a family's bare name means the first of it."""
    named = param if "{i}" in param else param + "{i}"
    return f"{named}_1" if named in _NUMBERED else named


def suggestions(param: str) -> list[str]:
    """Known parameters whose names look like this one."""
    return get_close_matches(param, _EXAMPLES, n=1, cutoff=0.7)


def custom_row(param: str, source: str) -> MappingRow:
    """The row for a parameter that no table lists, with the rule of its family."""
    why = "Mapped by the operator."
    for pattern, rule, size in _FAMILIES:
        if pattern.fullmatch(param):
            return MappingRow(
                param, (source,), rule, why, max=size, digits=size, overlong="cut" if rule == "text" else "drop"
            )
    return MappingRow(param, (source,), "text", why, max=255, overlong="cut")


_FAMILY_SIZES: Final = {"Text": 50, "Numeric": 10, "Money": 3, "Date": 10, "SubId": 3}
_OTHER_NAMES: Final = """
    OrderSubTotalPreDiscount OrderRebate OrderDiscountRate MediaId MediaPartnerId EventTypeId EventTypeCode Note
    SharedId CustomClickId CallerId PaymentType CountryCode GiftPurchase UniqueUrl PhoneNumber ItemSubCategory{i}
    ItemMpn{i}
"""
_TABLE_NAMES: Final = frozenset(
    {row.param for table in (PAGE_LOAD, CONVERSION, ORDER) for row in table.rows}
    | {row.param + "{i}" for table in (ITEM, LINE) for row in table.rows}
)
_EXAMPLES: Final = sorted(
    {
        *_TABLE_NAMES,
        *(f"{name}_1" for name in _NUMBERED),
        *(f"{name}{at}" for name, last in _FAMILY_SIZES.items() for at in range(1, last + 1)),
        *_OTHER_NAMES.split(),
    }
)
"""Names to think of when another one was meant."""

_PLAIN: Final[dict[str, ValueRule]] = {
    "amount": readings.amount,
    "click_id": click_id,
    "coupon": normalize.coupon,
    "currency": normalize.currency,
    "customer_status": normalize.customer_status,
    "date": normalize.date,
    "discount": readings.discount,
    "email": normalize.email,
    "email_sha1": normalize.email_sha1,
    "first_text": normalize.first_text,
    "ip_address": normalize.ip_address,
    "pieces": readings.pieces,
    "products": readings.products,
    "readable": normalize.readable,
    "truth": normalize.truth,
    "url": normalize.url,
}


def rule_of(row: MappingRow, config: DestinationConfig) -> ValueRule:
    """The function that turns a value into the row's text, or into what is read of an order."""
    limited: dict[str, ValueRule] = {
        "text": normalize.text_of(row.max, row.overlong),
        "identifier": normalize.identifier_of(row.max, row.overlong),
        "visitor_id": normalize.visitor_id_of(row.max, hash_emails=config.email_as_customer_id == "hash"),
        "advertising_id": normalize.advertising_id_of(row.max),
        "integer": normalize.integer_of(row.digits),
        "money": normalize.money_of(row.digits),
        "order_id": order_id_of(row.max, config.account_sid, config.campaign_id),
    }
    return limited.get(row.rule) or _PLAIN[row.rule]
