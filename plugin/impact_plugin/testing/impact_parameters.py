"""The parameters of page loads and conversions, as impact.com documents them.

Sources (read in 2026, API version 14):

- https://integrations.impact.com/impact-brand/reference/create-a-pageload
- https://integrations.impact.com/impact-brand/reference/the-conversion-object
- https://integrations.impact.com/brand-api-reference/readme/requests (sizes, unless a parameter has its own)
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec


class Kind(enum.Enum):
    """The kind of a parameter's value."""

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
    """A documented parameter.

    ``size`` is the maximum number of characters (texts) or of digits before the point (numbers); None if no size is
    published and values are known to exceed the general 255. ``decimals`` is the maximum number of digits after the
    point.
    """

    kind: Kind = Kind.TEXT
    size: int | None = 255
    decimals: int = 2


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _texts(names: str, size: int | None = 255) -> dict[str, Parameter]:
    return dict.fromkeys(names.split(), Parameter(Kind.TEXT, size))


# Most amounts have no published size. The general rule (8 digits) would refuse ordinary prices in rupiah or dong, which
# no document says of impact.com, so these amounts get the largest published size.
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
"""Mobile parameters of earlier versions, without effect: integrators still send them, version 14 does not list them."""

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
        # Two pages of impact.com give different sizes for EventTypeCode, 64 and 128: the smaller one satisfies both.
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
"""Parameters of an item, written with the item's index: ``ItemSku1``."""

ITEM_FAMILIES: Final[Mapping[str, tuple[int, Parameter]]] = MappingProxyType(
    {
        "ItemText": (50, Parameter(Kind.TEXT, 64)),
        "ItemNumeric": (10, Parameter(Kind.DECIMAL, UNPUBLISHED_DIGITS)),
        "ItemDate": (10, Parameter(Kind.DATE)),
        "ItemMoney": (3, Parameter(Kind.DECIMAL, UNPUBLISHED_DIGITS)),
    }
)
"""Custom parameters of an item, and how many of each: ``ItemText1_50`` is the fiftieth text of the first item."""

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
"""Second spellings that impact.com accepts for the same parameter."""


def canonical(fields: Mapping[str, str], name: str) -> str | None:
    """Return a parameter's value under its name or its alias; None if the request has neither."""
    found = fields.get(name)
    return fields.get(ALIASES[name]) if found is None and name in ALIASES else found
