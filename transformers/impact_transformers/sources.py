"""Places that need logic to read: the mapping tables name these functions as ``@name``."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

import msgspec

from impact_transformers import normalize
from impact_transformers.configuration import CLICK_ID_PARAMETERS
from impact_transformers.events import (
    Device,
    KnownEvent,
    Library,
    OperatingSystem,
    Page,
    PageInfo,
    Referrer,
    Screen,
)

Properties: TypeAlias = Mapping[str, Any]
FindClickId: TypeAlias = Callable[[PageInfo, Properties], str | None]

_SERVER_LIBRARIES: Final = re.compile(
    r"python|ruby|php|java$|java\b(?!.?script)|golang|go$|node|dotnet|\.net|rust|server|http", re.IGNORECASE
)
_APPLE: Final = ("ios", "ipados", "iphone", "ipad", "tvos", "watchos", "visionos", "mac")


@lru_cache(maxsize=256)
def click_id_finder(parameters: tuple[str, ...]) -> FindClickId:
    """Make the function that finds the click id in a URL of an event, under any of these names in any letter case."""
    names = tuple(name.lower() for name in parameters)
    pattern = re.compile(rf"(?:^|[?&#;])(?:{'|'.join(map(re.escape, names))})=([^&#;]+)", re.IGNORECASE)

    def click_id(page: PageInfo, properties: Properties) -> str | None:
        """The click id in a URL of the event, decoded once; ids are opaque and case-sensitive."""
        get = properties.get
        for place in (page.url, page.search, get("url"), get("search"), get("deep_link_url")):
            if isinstance(place, str) and "=" in place:
                # A case-insensitive search of an ordinary URL costs a microsecond, a look for the names a tenth of it.
                lowered = place.lower()
                found = any(name in lowered for name in names) and pattern.search(place)
                if found:
                    return unquote(found.group(1))
        return None

    return click_id


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


def order_subtotal(properties: Properties) -> Any:
    """What the order comes to after its discount, without shipping and tax.

    In Segment's example ``subtotal`` is net of the discount already (22.50 + 3 shipping + 2 tax = 27.50 total), so it
    comes first; else total - tax - shipping, else revenue - discount, else value.
    https://segment.com/docs/connections/spec/ecommerce/v2/#order-completed
    """
    subtotal = normalize.decimal(properties.get("subtotal"))
    if subtotal is not None:
        return subtotal
    total = _less(properties, "total", "tax", "shipping")
    if total is not None:
        return total
    net = _less(properties, "revenue", "discount")
    return properties.get("value") if net is None else net


def _less(properties: Properties, name: str, *deductions: str) -> Decimal | None:
    """The amount under ``name`` less the deductions, never below zero; None where there is no such amount."""
    amount = normalize.decimal(properties.get(name))
    if amount is None:
        return None
    for deduction in deductions:
        amount -= abs(normalize.decimal(properties.get(deduction)) or Decimal(0))
    return max(amount, Decimal(0))


class NamedSource(msgspec.Struct, frozen=True):
    """A function, and the locals of the generated code that it is called with."""

    function: Callable[..., Any]
    arguments: tuple[str, ...]


NAMED: Final[dict[str, NamedSource]] = {
    "android_id": NamedSource(android_id, ("os", "device")),
    "apple_ifa": NamedSource(apple_ifa, ("os", "device")),
    "apple_ifv": NamedSource(apple_ifv, ("os", "device")),
    "called_url": NamedSource(called_url, ("event", "properties")),
    "click_id": NamedSource(click_id_finder(CLICK_ID_PARAMETERS), ("page", "properties")),
    "google_advertising_id": NamedSource(google_advertising_id, ("os", "device")),
    "impact_referrer_id": NamedSource(impact_referrer_id, ("referrer",)),
    "order_subtotal": NamedSource(order_subtotal, ("properties",)),
    "request_ip": NamedSource(request_ip, ("event", "library")),
}
