"""What impact.com documents about the parameters of a page load and of a conversion, as data and pure checks.

Nothing here does I/O: a body goes in, a list of problems comes out. ``FakeImpact`` answers with them, and a test may
call these functions directly.

Sources (read in 2026, API version 14):

- https://integrations.impact.com/impact-brand/reference/create-a-pageload
- https://integrations.impact.com/impact-brand/reference/submit-a-conversion
- https://integrations.impact.com/impact-brand/reference/the-conversion-object
- https://integrations.impact.com/brand-api-reference/readme/requests (sizes that hold unless a parameter has its own)
"""

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, unquote

import msgspec

from impact_transformers.currencies import CURRENCIES


class RuleViolation(msgspec.Struct, frozen=True):
    """One entry of impact.com's ``errors`` or ``warnings``. The message never repeats the value: it may be personal."""

    field: str
    level: Literal["ERROR", "WARNING"]
    message: str


class Report(msgspec.Struct, frozen=True):
    """The verdict on one request: any error means HTTP 400, warnings alone mean HTTP 200."""

    errors: tuple[RuleViolation, ...] = ()
    warnings: tuple[RuleViolation, ...] = ()


class Form(msgspec.Struct, frozen=True):
    """A decoded request body: its parameters as text, and what kept it from being read."""

    fields: dict[str, str]
    problems: tuple[RuleViolation, ...] = ()


class Kind(enum.Enum):
    """How a parameter's text is to be read."""

    TEXT = enum.auto()
    URI = enum.auto()
    INTEGER = enum.auto()
    DECIMAL = enum.auto()
    BOOLEAN = enum.auto()
    EVENT_DATE = enum.auto()
    DATE = enum.auto()
    CURRENCY = enum.auto()
    EMAIL_HASH = enum.auto()


class Parameter(msgspec.Struct, frozen=True):
    """One documented parameter.

    ``size`` is the greatest number of characters (text) or of digits before the point (numbers); None where no size is
    published and the general 255 is known to be exceeded in practice. ``decimals`` is the greatest number of digits
    after the point.
    """

    kind: Kind = Kind.TEXT
    size: int | None = 255
    decimals: int = 2


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _texts(names: str, size: int | None = 255) -> dict[str, Parameter]:
    return dict.fromkeys(names.split(), Parameter(Kind.TEXT, size))


# Most amounts have no published size of their own. The generic rule (8 digits) would refuse ordinary prices in rupiah
# or dong, and no document says that impact.com does: the largest published size stands for them.
UNPUBLISHED_DIGITS: Final = 14


def _decimals(names: str, digits: int = UNPUBLISHED_DIGITS) -> dict[str, Parameter]:
    return dict.fromkeys(names.split(), Parameter(Kind.DECIMAL, digits))


def _integers(names: str, digits: int = 16) -> dict[str, Parameter]:
    return dict.fromkeys(names.split(), Parameter(Kind.INTEGER, digits))


def _family(name: str, last: int, parameter: Parameter) -> dict[str, Parameter]:
    return {f"{name}{number}": parameter for number in range(1, last + 1)}


_SHARED: Final[dict[str, Parameter]] = {
    **_integers("CampaignId", 10),
    **_integers("PropertyId"),
    "EventDate": Parameter(Kind.EVENT_DATE),
    "CustomerEmail": Parameter(Kind.EMAIL_HASH),
    "TrackingConsent": Parameter(Kind.BOOLEAN),
    **_texts("ClickId", 64),
    **_texts("CustomProfileId", 70),
    **_texts("CustomerId IpAddress GoogAId AndroidId AppleIfa AppleIfv AppPackage AppVer DeviceMfr DeviceModel"),
    **_texts("UserAgent", None),
}

LEGACY: Final[frozenset[str]] = _names("ImpactAppId DeviceOs DeviceOsVer DeviceCarrier DeviceLocale")
"""Mobile parameters of earlier versions: integrators still send them, version 14 does not list them. No effect."""

PAGE_LOAD_PARAMETERS: Final[Mapping[str, Parameter]] = MappingProxyType(
    {
        **_SHARED,
        **dict.fromkeys(("PageUrl", "ReferringUrl"), Parameter(Kind.URI, None)),
        **_texts("AppName"),
        **dict.fromkeys(LEGACY, Parameter()),
    }
)
"""Every parameter of ``POST /PageLoad``: https://integrations.impact.com/impact-brand/reference/create-a-pageload"""

CONVERSION_PARAMETERS: Final[Mapping[str, Parameter]] = MappingProxyType(
    {
        **_SHARED,
        **_integers("EventTypeId ActionTrackerId MediaId MediaPartnerId", 10),
        # Two pages of the vendor disagree on the size of EventTypeCode (64 and 128): the smaller one is safe for both.
        **_texts("EventTypeCode OrderId Oid DispositionCode", 64),
        **_texts("EventCode", 128),
        **_texts("PaymentType", 32),
        **_texts("CountryCode", 2),
        **_texts("Note CustomClickId PromoCode OrderPromoCode SubId1 SubId2 SubId3 SharedId CallerId PhoneNumber"),
        **_texts("CustomerStatus"),
        **_texts("CustomerCity CustomerRegion CustomerPostCode CustomerCountry LocationId LocationName LocationType"),
        **_texts("AppName AppInstallRef IpAddressCarrier IpAddressWifi AppleAdTrack Latitude Longitude"),
        "UniqueUrl": Parameter(Kind.URI, None),
        "GiftPurchase": Parameter(Kind.BOOLEAN),
        **dict.fromkeys(("CurrencyCode", "Currency"), Parameter(Kind.CURRENCY)),
        **_decimals("Amount OrderSubTotalPostDiscount OrderSubTotalPreDiscount OrderSubtotal"),
        **_decimals("OrderDiscountRate OrderMargin OrderRebate"),
        **_decimals("OrderDiscount", 12),
        **_decimals("OrderShipping OrderTax", 14),
        **_family("Text", 50, Parameter(Kind.TEXT, 64)),
        **_family("Numeric", 10, Parameter(Kind.DECIMAL, UNPUBLISHED_DIGITS)),
        **_family("Money", 3, Parameter(Kind.DECIMAL, UNPUBLISHED_DIGITS)),
        **_family("Date", 10, Parameter(Kind.DATE)),
        **dict.fromkeys(LEGACY, Parameter()),
    }
)
"""Every order-level parameter of a conversion: https://integrations.impact.com/impact-brand/reference/the-conversion-object"""

ITEM_PARAMETERS: Final[Mapping[str, Parameter]] = MappingProxyType(
    {
        **_texts("ItemSku ItemCategory ItemName ItemSubCategory ItemBrand ItemPromoCode ItemDeliveryType"),
        **_texts("ItemMpn", 64),
        **_integers("ItemQuantity"),
        **_decimals("ItemPrice ItemDiscount ItemDiscountRate ItemTotalDiscount"),
        **_decimals("ItemSubTotal", 14),
    }
)
"""Parameters of one line, written with the line's index: ``ItemSku1``."""

ITEM_FAMILIES: Final[Mapping[str, tuple[int, Parameter]]] = MappingProxyType(
    {
        "ItemText": (50, Parameter(Kind.TEXT, 64)),
        "ItemNumeric": (10, Parameter(Kind.DECIMAL, UNPUBLISHED_DIGITS)),
        "ItemDate": (10, Parameter(Kind.DATE)),
        "ItemMoney": (3, Parameter(Kind.DECIMAL, UNPUBLISHED_DIGITS)),
    }
)
"""Custom parameters of one line and how many of each: ``ItemText1_50`` is the fiftieth text of the first line."""

EVENT_TYPES: Final = ("EventTypeId", "ActionTrackerId", "EventTypeCode")
"""A conversion names its event type by exactly one of these."""

ATTRIBUTION_KEYS: Final[frozenset[str]] = _names(
    "ClickId CustomerId CustomProfileId CustomClickId PromoCode OrderPromoCode MediaId MediaPartnerId UniqueUrl "
    "CallerId GoogAId AndroidId AppleIfa AppleIfv"
)
"""A conversion carries at least one: https://integrations.impact.com/impact-brand/reference/submit-a-conversion"""

VISITOR_KEYS: Final[frozenset[str]] = _names("CustomProfileId CustomerId ClickId GoogAId AndroidId AppleIfa AppleIfv")
"""A page load carries ``CustomProfileId`` or, failing that, one of the others."""

ALIASES: Final[Mapping[str, str]] = MappingProxyType({"OrderId": "Oid", "CurrencyCode": "Currency"})
"""Second spellings that impact.com takes for the same parameter."""

_EXCLUSIVE: Final = (
    ("OrderSubTotalPostDiscount", "OrderDiscount"),
    ("MediaId", "MediaPartnerId"),
    *ALIASES.items(),
)
_ITEM_REQUIRED: Final = ("ItemSku", "ItemCategory", "ItemQuantity")
_ITEM_PRICES: Final = ("ItemPrice", "ItemSubTotal")
_NOT_WITH_ITEMS: Final = ("OrderSubTotalPostDiscount", "Amount")
# How Go and JavaScript print a value that was never meant to become text; no shop sells under these names.
_PRINTED_OBJECTS: Final = ("<nil>", "map[", "[object ")
_MOST_ENCODINGS: Final = 3
_FORM_TYPE: Final = "application/x-www-form-urlencoded"
_JSON_TYPE: Final = "application/json"

_DECIMAL: Final = re.compile(r"-?([0-9]+)(?:\.([0-9]+))?")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:[^\s]+")
_HASH: Final = re.compile(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}")
_ITEM: Final = re.compile(r"(Item[A-Za-z]+)(0|[1-9][0-9]{0,4})(?:_([1-9][0-9]?))?")
_MAIL_DOMAIN: Final = re.compile(r"(?:[\w\-]+\.)+[^\W\d_]{2,}")
_MAIL_LOCAL_MARKS: Final = frozenset("!#$%&'*+-/=?^_`{|}~.\"")
_URL_MARKS: Final = frozenset("/?&=#")


def check_conversion(fields: Mapping[str, str]) -> Report:
    """Judge the decoded parameters of one conversion by the documented rules.

    https://integrations.impact.com/impact-brand/reference/submit-a-conversion
    """
    problems = [*_check_values(fields, _conversion_parameter)]
    problems += _check_required(fields, ("CampaignId", "EventDate", "OrderId"))
    named = [name for name in EVENT_TYPES if name in fields]
    if len(named) != 1:
        problems.append(
            _error(named[-1] if named else EVENT_TYPES[0], f"exactly one of {', '.join(EVENT_TYPES)} is required")
        )
    if ATTRIBUTION_KEYS.isdisjoint(fields):
        problems.append(_error("ClickId", f"at least one of {', '.join(sorted(ATTRIBUTION_KEYS))} is required"))
    problems += [
        _error(second, f"not together with {first}")
        for first, second in _EXCLUSIVE
        if first in fields and second in fields
    ]
    problems += _check_items(fields)
    return Report(tuple(problems))


def check_page_load(fields: Mapping[str, str], *, strict: bool = True) -> Report:
    """Judge the decoded parameters of one page load.

    impact.com takes a ``CustomerEmail`` in clear here; with ``strict`` it is an error, because this product always
    hashes. https://integrations.impact.com/impact-brand/reference/create-a-pageload
    """
    lenient = not strict and find_clear_email(fields.get("CustomerEmail", ""))
    judged = {name: value for name, value in fields.items() if name != "CustomerEmail"} if lenient else fields
    problems = [*_check_values(judged, PAGE_LOAD_PARAMETERS.get)]
    problems += _check_required(fields, ("CampaignId", "EventDate"))
    if VISITOR_KEYS.isdisjoint(fields):
        problems.append(_error("CustomProfileId", f"required, or else one of {', '.join(sorted(VISITOR_KEYS))}"))
    return Report(tuple(problems), tuple(_page_load_warnings(fields)))


def parse_body(content_type: str | None, body: bytes) -> Form:
    """Decode a form or JSON body into text parameters; what cannot be read is a problem, never an exception.

    https://integrations.impact.com/brand-api-reference/readme/requests
    """
    if content_type is None:
        return _unreadable("Content-Type", f"missing; send {_FORM_TYPE}")
    media_type, _, options = content_type.lower().partition(";")
    if "charset" in options and "utf-8" not in options:
        return _unreadable("Content-Type", "the charset must be UTF-8")
    match media_type.strip():
        case "application/x-www-form-urlencoded":
            return _parse_form(body)
        case "application/json":
            return _parse_json(body)
        case _:
            return _unreadable("Content-Type", f"must be {_FORM_TYPE} or {_JSON_TYPE}")


def find_clear_email(value: str) -> bool:
    """Tell whether the text holds an e-mail address, also one percent-encoded up to three times inside a URL."""
    for _ in range(_MOST_ENCODINGS):
        if "@" in value and _has_address(value):
            return True
        if "%" not in value:
            return False
        value = unquote(value)
    return _has_address(value)


def canonical(fields: Mapping[str, str], name: str) -> str | None:
    """Return a parameter's value under its own name or its alias, None when the request has neither."""
    found = fields.get(name)
    return fields.get(ALIASES[name]) if found is None and name in ALIASES else found


def _error(field: str, message: str) -> RuleViolation:
    return RuleViolation(field, "ERROR", message)


def _unreadable(field: str, message: str) -> Form:
    return Form({}, (_error(field, message),))


def _parse_form(body: bytes) -> Form:
    try:
        text = body.decode("utf-8")
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict") if text else []
    except ValueError:
        return _unreadable("body", "is not a UTF-8 form")
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return Form(fields)
    names = [name for name, _ in pairs]
    return Form(fields, tuple(_error(name, "sent more than once") for name in fields if names.count(name) > 1))


def _parse_json(body: bytes) -> Form:
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _unreadable("body", "is not JSON")
    if not isinstance(content, dict):
        return _unreadable("body", "must be a JSON object")
    nested = tuple(
        _error(name, "must be text, a number or a boolean")
        for name, value in content.items()
        if isinstance(value, dict | list)
    )
    return Form({name: _as_text(value) for name, value in content.items()}, nested)


def _as_text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return format(Decimal(repr(value)), "f")
        case _:
            return str(value)


def _check_values(fields: Mapping[str, str], known: Callable[[str], Parameter | None]) -> Iterator[RuleViolation]:
    for name, value in fields.items():
        parameter = known(name)
        if parameter is None:
            yield _error(name, "is not a parameter of this endpoint")
        elif message := _refusal(value, parameter):
            yield _error(name, message)


def _refusal(value: str, parameter: Parameter) -> str | None:
    if not value or value.isspace():
        return "must not be empty; leave the parameter out"
    if value.startswith(_PRINTED_OBJECTS):
        return "is a printed object, not a value"
    if ("@" in value or "%" in value) and find_clear_email(value):
        return "holds an e-mail address in clear"
    return _KIND_CHECKS[parameter.kind](value, parameter)


def _refuse_text(value: str, parameter: Parameter) -> str | None:
    if parameter.size is not None and len(value) > parameter.size:
        return f"may have at most {parameter.size} characters"
    return None


def _refuse_uri(value: str, parameter: Parameter) -> str | None:
    return _refuse_text(value, parameter) if _SCHEME.fullmatch(value) else "must be a URI with its scheme"


def _refuse_integer(value: str, parameter: Parameter) -> str | None:
    if not (value.isascii() and value.isdigit()):
        return "must be an integer"
    return (
        f"may have at most {parameter.size} digits"
        if parameter.size is not None and len(value) > parameter.size
        else None
    )


def _refuse_decimal(value: str, parameter: Parameter) -> str | None:
    number = _DECIMAL.fullmatch(value)
    if number is None:
        return "must be a plain decimal number"
    if parameter.size is not None and len(number[1]) > parameter.size:
        return f"may have at most {parameter.size} digits before the point"
    return f"may have at most {parameter.decimals} decimals" if len(number[2] or "") > parameter.decimals else None


def _refuse_boolean(value: str, _: Parameter) -> str | None:
    return None if value in ("true", "false") else "must be true or false"


def _refuse_event_date(value: str, _: Parameter) -> str | None:
    if value == "NOW":
        return None
    moment = _moment(value) if value[10:11] == "T" else None
    return "must be ISO 8601 with a time and an offset, or NOW" if moment is None or moment.tzinfo is None else None


def _refuse_date(value: str, _: Parameter) -> str | None:
    return "must be ISO 8601" if _moment(value) is None else None


def _refuse_currency(value: str, _: Parameter) -> str | None:
    return None if value in CURRENCIES else "must be an ISO 4217 code in upper case"


def _refuse_email(value: str, _: Parameter) -> str | None:
    return None if _HASH.fullmatch(value) else "must be a SHA-1 or SHA-256 in hexadecimal"


def _moment(value: str) -> datetime | None:
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


_KIND_CHECKS: Final[Mapping[Kind, Callable[[str, Parameter], str | None]]] = MappingProxyType(
    {
        Kind.TEXT: _refuse_text,
        Kind.URI: _refuse_uri,
        Kind.INTEGER: _refuse_integer,
        Kind.DECIMAL: _refuse_decimal,
        Kind.BOOLEAN: _refuse_boolean,
        Kind.EVENT_DATE: _refuse_event_date,
        Kind.DATE: _refuse_date,
        Kind.CURRENCY: _refuse_currency,
        Kind.EMAIL_HASH: _refuse_email,
    }
)


def _has_address(value: str) -> bool:
    # Looks only around each "@": one expression over a whole URL would be quadratic in its length.
    at = value.find("@")
    while at != -1:
        before = value[at - 1 : at]
        is_local = before.isalnum() or (before in _MAIL_LOCAL_MARKS and before not in _URL_MARKS)
        if before and is_local and _MAIL_DOMAIN.match(value, at + 1):
            return True
        at = value.find("@", at + 1)
    return False


def _check_required(fields: Mapping[str, str], names: Iterable[str]) -> list[RuleViolation]:
    return [_error(name, "is required") for name in names if canonical(fields, name) is None]


def _page_load_warnings(fields: Mapping[str, str]) -> Iterator[RuleViolation]:
    if "PageUrl" not in fields:
        yield RuleViolation("PageUrl", "WARNING", "missing; only an app that was opened directly has none")
    if len(fields.get("CustomerEmail", "")) == 64:
        yield RuleViolation("CustomerEmail", "WARNING", "only SHA-1 is documented for page loads")
    for name in fields:
        if name in LEGACY:
            yield RuleViolation(name, "WARNING", "is not a parameter of version 14; ignored")


class _ItemPart(msgspec.Struct, frozen=True):
    base: str
    index: int
    parameter: Parameter


# The same names come with every conversion; the bound keeps hostile names from filling the memory.
@lru_cache(maxsize=16_384)
def _item_part(name: str) -> _ItemPart | None:
    found = _ITEM.fullmatch(name)
    if found is None:
        return None
    base, index, number = found[1], int(found[2]), found[3]
    if number is None:
        parameter = ITEM_PARAMETERS.get(base)
        return _ItemPart(base, index, parameter) if parameter else None
    last, parameter = ITEM_FAMILIES.get(base, (0, None))
    return _ItemPart(base, index, parameter) if parameter and int(number) <= last else None


def _conversion_parameter(name: str) -> Parameter | None:
    parameter = CONVERSION_PARAMETERS.get(name)
    if parameter is None and name.startswith("Item") and (part := _item_part(name)):
        return part.parameter
    return parameter


def _check_items(fields: Mapping[str, str]) -> Iterator[RuleViolation]:
    """Judge the lines of an order: https://integrations.impact.com/impact-brand/docs/item-level-data ."""
    lines: dict[int, set[str]] = {}
    for name in fields:
        if name.startswith("Item") and (part := _item_part(name)):
            lines.setdefault(part.index, set()).add(part.base)
    if not lines:
        return
    missing = next((index for index in range(1, len(lines) + 1) if index not in lines), None)
    if missing is not None:
        yield _error(f"ItemSku{missing}", "items are numbered from 1 without gaps")
    for name in _NOT_WITH_ITEMS:
        if name in fields:
            yield _error(name, "not together with items")
    for index, bases in lines.items():
        yield from (
            _error(f"{base}{index}", "is required for every item") for base in _ITEM_REQUIRED if base not in bases
        )
        if len(bases.intersection(_ITEM_PRICES)) != 1:
            yield _error(f"ItemPrice{index}", f"exactly one of ItemPrice{index}, ItemSubTotal{index} is required")
