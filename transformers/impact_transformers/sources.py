"""Places that need logic to read: the mapping tables name these functions as ``@name``."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final
from urllib.parse import unquote

from impact_transformers import normalize
from impact_transformers.events import (
    NO_CONTEXT,
    NO_DEVICE,
    NO_LIBRARY,
    NO_OS,
    NO_PAGE,
    NO_REFERRER,
    KnownEvent,
    Page,
    Screen,
)

CLICK_ID_PARAMETERS: Final = ("im_ref", "irclickid", "clickid")
"""Names under which a landing URL carries the click id.

https://integrations.impact.com/integration-guides/for-brands/tracking-integrations/api-online-sale/introduction
"""

_CLICK_ID: Final = re.compile(rf"(?:^|[?&#;])(?:{'|'.join(CLICK_ID_PARAMETERS)})=([^&#;]+)", re.IGNORECASE)
_SERVER_LIBRARIES: Final = re.compile(
    r"python|ruby|php|java$|java\b(?!.?script)|golang|go$|node|dotnet|\.net|rust|server|http", re.IGNORECASE
)
_APPLE: Final = ("ios", "ipados", "iphone", "ipad", "tvos", "watchos", "visionos", "mac")


def click_id(event: KnownEvent) -> str | None:
    """The click id in a URL of the event, decoded once; ids are opaque and case-sensitive."""
    page = (event.context or NO_CONTEXT).page or NO_PAGE
    properties = event.properties or {}
    for place in (page.url, page.search, properties.get("url"), properties.get("search")):
        if isinstance(place, str) and "=" in place:
            # A case-insensitive search costs a microsecond on an ordinary URL; looking for the names first, a tenth.
            lowered = place.lower()
            found = any(name in lowered for name in CLICK_ID_PARAMETERS) and _CLICK_ID.search(place)
            if found:
                return unquote(found.group(1))
    return None


def impact_referrer_id(event: KnownEvent) -> Any:
    """``context.referrer.id`` where its type says impact (``impactRadius``), as Segment's libraries set it."""
    referrer = (event.context or NO_CONTEXT).referrer or NO_REFERRER
    kind = referrer.type
    return referrer.id if isinstance(kind, str) and kind.lower().startswith("impact") else None


def request_ip(event: KnownEvent) -> Any:
    """The address the router saw, unless a server made the call: then it is the shop's own."""
    if is_server_call(event):
        return None
    return event.request_ip_rudder or event.request_ip


def is_server_call(event: KnownEvent) -> bool:
    """Whether a server library, not the visitor's browser or app, sent the event."""
    if isinstance(event.channel, str) and event.channel.lower() in ("server", "sources", "s2s"):
        return True
    name = ((event.context or NO_CONTEXT).library or NO_LIBRARY).name
    return isinstance(name, str) and _SERVER_LIBRARIES.search(name) is not None


def is_apple(event: KnownEvent) -> bool:
    """Whether the device runs one of Apple's systems."""
    return _platform(event).startswith(_APPLE)


def is_android(event: KnownEvent) -> bool:
    """Whether the device runs Android."""
    return "android" in _platform(event)


def _platform(event: KnownEvent) -> str:
    context = event.context or NO_CONTEXT
    device, system = context.device or NO_DEVICE, context.os or NO_OS
    return next((str(name).lower() for name in (system.name, device.type) if name), "")


def apple_ifv(event: KnownEvent) -> Any:
    """IDFV: the device id on Apple's systems."""
    return _device_id(event) if is_apple(event) else None


def apple_ifa(event: KnownEvent) -> Any:
    """IDFA: the advertising id on Apple's systems."""
    return _advertising_id(event) if is_apple(event) else None


def android_id(event: KnownEvent) -> Any:
    """The device id on Android."""
    return _device_id(event) if is_android(event) else None


def google_advertising_id(event: KnownEvent) -> Any:
    """GAID: the advertising id on Android."""
    return _advertising_id(event) if is_android(event) else None


def _device_id(event: KnownEvent) -> Any:
    return ((event.context or NO_CONTEXT).device or NO_DEVICE).id


def _advertising_id(event: KnownEvent) -> Any:
    return ((event.context or NO_CONTEXT).device or NO_DEVICE).advertising_id


def called_url(event: KnownEvent) -> Any:
    """``properties.url`` of a page or screen call, or the deep link; in other calls that is a product's URL."""
    if not isinstance(event, Page | Screen):
        return None
    properties = event.properties or {}
    return properties.get("url") or properties.get("deep_link_url")


def order_subtotal(event: KnownEvent) -> Any:
    """What the order comes to after its discount, without shipping and tax.

    In Segment's example ``subtotal`` is net of the discount already (22.50 + 3 shipping + 2 tax = 27.50 total), so it
    comes first; else total - tax - shipping, else revenue - discount, else value.
    https://segment.com/docs/connections/spec/ecommerce/v2/#order-completed
    """
    properties: Mapping[str, Any] = event.properties or {}
    subtotal = normalize.decimal(properties.get("subtotal"))
    if subtotal is not None:
        return subtotal
    total = _less(properties, "total", "tax", "shipping")
    if total is not None:
        return total
    net = _less(properties, "revenue", "discount")
    return properties.get("value") if net is None else net


def _less(properties: Mapping[str, Any], name: str, *deductions: str) -> Decimal | None:
    """The amount under ``name`` less the deductions, never below zero; None where there is no such amount."""
    amount = normalize.decimal(properties.get(name))
    if amount is None:
        return None
    for deduction in deductions:
        amount -= abs(normalize.decimal(properties.get(deduction)) or Decimal(0))
    return max(amount, Decimal(0))


NAMED: Final[dict[str, Callable[[KnownEvent], Any]]] = {
    function.__name__: function
    for function in (
        android_id,
        apple_ifa,
        apple_ifv,
        called_url,
        click_id,
        google_advertising_id,
        impact_referrer_id,
        order_subtotal,
        request_ip,
    )
}
