"""Places that need logic to read: the mapping tables name these functions as ``@name``."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from impact_transformers.click_ids import click_id_finder
from impact_transformers.configuration import CLICK_ID_PARAMETERS
from impact_transformers.events import (
    Device,
    KnownEvent,
    Library,
    OperatingSystem,
    Page,
    Referrer,
    Screen,
)

Properties: TypeAlias = Mapping[str, Any]
FindAppId: TypeAlias = Callable[[OperatingSystem, Device], str | None]

_SERVER_LIBRARIES: Final = re.compile(
    r"python|ruby|php|java$|java\b(?!.?script)|golang|go$|node|dotnet|\.net|rust|server|http", re.IGNORECASE
)
_APPLE: Final = ("ios", "ipados", "iphone", "ipad", "tvos", "watchos", "visionos", "mac")


def impact_referrer_id(referrer: Referrer) -> Any:
    """``context.referrer.id`` where its type says impact (``impactRadius``), as Segment's libraries set it."""
    kind = referrer.type
    return referrer.id if isinstance(kind, str) and kind.lower().startswith("impact") else None


def request_ip(event: KnownEvent, library: Library) -> Any:
    """The address the router saw, unless a server made the call: then it is the shop's own."""
    if is_server_call(event, library):
        return None
    return event.request_ip_rudder or event.request_ip


def is_server_call(event: KnownEvent, library: Library) -> bool:
    """Whether a server library, not the visitor's browser or app, sent the event."""
    if isinstance(event.channel, str) and event.channel.lower() in ("server", "sources", "s2s"):
        return True
    return isinstance(library.name, str) and _SERVER_LIBRARIES.search(library.name) is not None


def is_apple(system: OperatingSystem, device: Device) -> bool:
    """Whether the device runs one of Apple's systems."""
    return _platform(system, device).startswith(_APPLE)


def is_android(system: OperatingSystem, device: Device) -> bool:
    """Whether the device runs Android."""
    return "android" in _platform(system, device)


def _platform(system: OperatingSystem, device: Device) -> str:
    return str(system.name or device.type or "").lower()


def app_id_finder(ids: Mapping[str, str]) -> FindAppId:
    """Make the function that gives the System App ID of the device's platform."""

    def property_id(system: OperatingSystem, device: Device) -> str | None:
        """The System App ID of the app on the platform of the device."""
        if is_apple(system, device):
            return ids.get("ios")
        return ids.get("android") if is_android(system, device) else None

    return property_id


def apple_ifv(system: OperatingSystem, device: Device) -> Any:
    """IDFV: the device id on Apple's systems."""
    return device.id if is_apple(system, device) else None


def apple_ifa(system: OperatingSystem, device: Device) -> Any:
    """IDFA: the advertising id on Apple's systems."""
    return device.advertising_id if is_apple(system, device) else None


def android_id(system: OperatingSystem, device: Device) -> Any:
    """The device id on Android."""
    return device.id if is_android(system, device) else None


def google_advertising_id(system: OperatingSystem, device: Device) -> Any:
    """GAID: the advertising id on Android."""
    return device.advertising_id if is_android(system, device) else None


def called_url(event: KnownEvent, properties: Properties) -> Any:
    """``properties.url`` of a page or screen call, or the deep link; in other calls that is a product's URL."""
    if not isinstance(event, Page | Screen):
        return None
    return properties.get("url") or properties.get("deep_link_url")


def single_product(properties: Properties) -> Any:
    """The properties themselves, where they are those of one product: ``sku`` or ``product_id``, and ``price``."""
    named = properties.get("sku") or properties.get("product_id")
    return [properties] if named and properties.get("price") is not None else None


def products_currency(properties: Properties) -> Any:
    """The currency that all products name, where the order itself names none."""
    for place in ("products", "items", "line_items"):
        products = properties.get(place)
        if isinstance(products, list) and products:
            named = {_currency_of(product) for product in products}
            return named.pop() if len(named) == 1 else None
    return None


def _currency_of(product: Any) -> str | None:
    if not isinstance(product, dict):
        return None
    places = (product.get(key) for key in ("currency", "currency_code", "currencyCode"))
    return next((place.strip().upper() for place in places if isinstance(place, str) and place.strip()), None)


class NamedSource(msgspec.Struct, frozen=True):
    """A function, and the locals of the generated code that it is called with."""

    function: Callable[..., Any]
    arguments: tuple[str, ...]


NAMED: Final[dict[str, NamedSource]] = {
    "android_id": NamedSource(android_id, ("os", "device")),
    "apple_ifa": NamedSource(apple_ifa, ("os", "device")),
    "apple_ifv": NamedSource(apple_ifv, ("os", "device")),
    "called_url": NamedSource(called_url, ("event", "properties")),
    "click_id": NamedSource(click_id_finder(CLICK_ID_PARAMETERS).carried, ("page", "properties")),
    "google_advertising_id": NamedSource(google_advertising_id, ("os", "device")),
    "impact_referrer_id": NamedSource(impact_referrer_id, ("referrer",)),
    "products_currency": NamedSource(products_currency, ("properties",)),
    "property_id": NamedSource(app_id_finder({}), ("os", "device")),
    "request_ip": NamedSource(request_ip, ("event", "library")),
    "single_product": NamedSource(single_product, ("properties",)),
}
