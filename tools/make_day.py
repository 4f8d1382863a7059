"""Make one believable recorded day of a web shop, in the Segment event spec as rudder-server hands it on.

The shop (shop.example.com, its two apps and its back office), its customers and its partners are invented. The output
is ``day.ndjson.gz``, one event per line in the order of ``receivedAt``, and is the same bytes on every run::

    python tools/make_day.py            # writes tools/day.ndjson.gz and prints the counts below
    python tools/make_day.py other.gz   # writes elsewhere

A journey is one function: it takes a fresh ``Visit`` and lets that person act. ``PLAN`` says how often each happens. At
the end some events are spoilt on purpose (``SPOILERS``), each in one way only. Mail addresses and hosts are below
example.com, .org and .net; network addresses are from the ranges reserved for documentation.

What is in the file (``census`` counts it again, and a test holds this table to the file)::

    channel mobile                             697
    channel server                              54
    channel web                              2,973
    events                                   3,724
    orders                                     181
    orders after a partner landing              82
    orders from channel mobile                  22
    orders from channel server                  36
    orders from channel web                    123
    orders of GA4                                5
    orders of Magento                            4
    orders of Shopify Littledata                 4
    orders of Shopify pixel                      6
    orders of Shopify webhook                    3
    orders of WooCommerce                        4
    orders with numbers as strings              15
    orders without products                     18
    partner landings                           274
    spoilt                                      60
    spoilt: anonymous id of 80 characters        5
    spoilt: context null                         5
    spoilt: currency EURO                        5
    spoilt: e-mail as user id                    6
    spoilt: e-mail in page URL                   7
    spoilt: garbled time                         5
    spoilt: no ids at all                        5
    spoilt: no type                              5
    spoilt: numeric ids                          6
    spoilt: order without order id               6
    spoilt: products an object                   5
    track Application Installed                 20
    track Deep Link Opened                      14
    track Newsletter Subscribed                 12
    track Signed Up                             16
    type alias                                   4
    type group                                   8
    type identify                              101
    type in odd case                            18
    type missing                                 5
    type page                                1,946
    type screen                                503
    type track                               1,157
    zeroed advertising id                      245
"""

from __future__ import annotations

import gzip
import io
import random
import re
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from day_orders import (
    Basket,
    Sold,
    dialect_of,
    ga4,
    magento,
    shopify_littledata,
    shopify_pixel,
    shopify_webhook,
    woocommerce,
)

Event: TypeAlias = dict[str, Any]

SEED: Final = "shop.example.com 2026-09-10"
DAY: Final = datetime(2026, 9, 10, tzinfo=UTC)
DAY_PATH: Final = Path(__file__).with_name("day.ndjson.gz")
SECOND: Final = 1_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
MIDNIGHT: Final = 24 * HOUR

ORDER_NAMES: Final = frozenset({"Order Completed", "Order Created", "purchase"})
"""What the systems call an order."""

DESTINATION_CONFIG: Final[dict[str, Any]] = {
    "accountSID": "IRdemoAccount",
    "apiKey": "demo-token",
    "campaignId": "23224",
    "impactAppId": "2323",
    "eventTypeId": "56446",
    "enableEmailHashing": True,
    "enableIdentifyEvents": True,
    "enablePageEvents": True,
    "enableScreenEvents": True,
    "actionEventNames": [{"eventName": "Order Completed"}, {"eventName": "Order Created"}, {"eventName": "purchase"}],
    "installEventNames": [{"eventName": "Application Installed"}],
    "eventTypes": {"Signed Up": {"code": "SIGNUP", "kind": "lead"}},
    "rudderToImpactProperty": [
        {"from": "properties.increment_id", "to": "OrderId"},
        {"from": "properties.id", "to": "OrderId"},
    ],
}
"""The IMPACT destination that goes with this day: it names the orders of the other systems, and where their id is."""

# ---------------------------------------------------------------------------------------------------------------------
# The shop and its people
# ---------------------------------------------------------------------------------------------------------------------

SHOP: Final = "https://shop.example.com"
HOUR_WEIGHTS: Final = (6, 3, 2, 2, 3, 8, 16, 26, 32, 36, 40, 46, 44, 40, 38, 40, 44, 52, 62, 70, 66, 50, 30, 14)


class Product(NamedTuple):
    """One article of the shop; the price is in cents."""

    number: str
    name: str
    cents: int
    category: str
    brand: str


PRODUCTS: Final = (
    Product("1001", "Linen Shirt", 5990, "Shirts", "Nordhafen"),
    Product("1002", "Oxford Shirt", 6990, "Shirts", "Nordhafen"),
    Product("1104", "Rain Jacket", 14900, "Jackets", "Regenwerk"),
    Product("1106", "Field Jacket", 18900, "Jackets", "Holt & Vale"),
    Product("1207", "Trail Shoe", 12995, "Shoes", "Kammweg"),
    Product("1208", "Canvas Sneaker", 7995, "Shoes", "Kammweg"),
    Product("1310", "Wool Beanie", 2490, "Accessories", "Nordhafen"),
    Product("1311", "Leather Belt", 3990, "Accessories", "Holt & Vale"),
    Product("1312", "Merino Socks, 3 pairs", 2750, "Accessories", "Kammweg"),
    Product("1413", "Weekender Bag", 9900, "Bags", "Regenwerk"),
    Product("1515", "Gift Card 50", 5000, "Gift Cards", "Shop"),
    Product("1616", "Café Mug “Morgen”", 1650, "Home", "Nordhafen"),
)
COUPONS: Final = ("AUTUMN10", "WELCOME5", "PARTNER15", "FREUNDE10")
FIRST_NAMES: Final = ("Jane", "Lukas", "Marie", "Tom", "Aylin", "Noah", "Sofia", "Ben", "Clara", "Emil", "Ines", "Omar")
LAST_NAMES: Final = ("Doe", "Weber", "Novak", "Smith", "Kaya", "Brandt", "Rossi", "Lang", "Moreau", "Berg", "Costa")
MAIL_HOSTS: Final = ("example.com", "example.com", "example.com", "example.org", "example.net")
PARTNER_SITES: Final = (
    "https://coupons.example.org/",
    "https://deals.example.net/",
    "https://style-blog.example.org/best-jackets",
    "https://cashback.example.net/out",
)
SEARCH_SITES: Final = ("https://search.example.net/", "https://find.example.org/", "")
PAID_QUERIES: Final = (
    "utm_source=search&utm_medium=cpc&utm_campaign=autumn-jackets",
    "utm_source=search&utm_medium=cpc&utm_campaign=brand",
    "utm_source=social&utm_medium=paid&utm_campaign=lookbook",
    "utm_source=newsletter&utm_medium=email&utm_campaign=week-37",
)


class Browser(NamedTuple):
    """One make of browser: what it calls itself and the size of its window."""

    user_agent: str
    width: int
    height: int
    density: int


MOZILLA: Final = "Mozilla/5.0"
CHROME: Final = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0"
BROWSERS: Final = (
    Browser(f"{MOZILLA} (Windows NT 10.0; Win64; x64) {CHROME} Safari/537.36", 1920, 1080, 1),
    Browser(f"{MOZILLA} (Windows NT 10.0; Win64; x64; rv:142.0) Gecko/20100101 Firefox/142.0", 1920, 1080, 1),
    Browser(
        f"{MOZILLA} (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)"
        " Version/18.6 Safari/605.1.15",
        1512,
        982,
        2,
    ),
    Browser(
        f"{MOZILLA} (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
        " Version/18.6 Mobile/15E148 Safari/604.1",
        393,
        852,
        3,
    ),
    Browser(f"{MOZILLA} (Linux; Android 10; K) {CHROME} Mobile Safari/537.36", 412, 915, 3),
)


class Phone(NamedTuple):
    """One make of telephone, with the system it runs."""

    system: str
    version: str
    manufacturer: str
    model: str
    width: int
    height: int


PHONES: Final = (
    Phone("Android", "15", "Google", "Pixel 8", 1080, 2400),
    Phone("Android", "14", "samsung", "SM-S921B", 1080, 2340),
    Phone("iOS", "18.6", "Apple", "iPhone15,4", 393, 852),
    Phone("iOS", "17.7", "Apple", "iPhone13,2", 390, 844),
)
QUEUED: Final = (0,) * 14 + (2, 7)
SKEWS: Final = (0,) * 18 + (1_200, -41_000)
NO_ADVERTISING_ID: Final = "00000000-0000-0000-0000-000000000000"
LOCALES: Final = (("de-DE", "GMT+0200", "EUR"), ("de-AT", "GMT+0200", "EUR"), ("fr-FR", "GMT+0200", "EUR"))
US_LOCALE: Final = ("en-US", "GMT-0400", "USD")
SERVERS: Final = (("analytics-python", "2.3.4"), ("analytics-python", "2.3.4"), ("analytics-node", "2.2.1"))

# ---------------------------------------------------------------------------------------------------------------------
# Small makers
# ---------------------------------------------------------------------------------------------------------------------


def make_uuid(rng: random.Random) -> str:
    """Make a random-looking version 4 UUID."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def make_click_id(rng: random.Random) -> str:
    """Make a click id as impact.com does: opaque, case matters, one in eight holding an escaped colon."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-"
    letters = "".join(rng.choices(alphabet, k=22))
    return letters[:8] + "%3A" + letters[8:] if rng.random() < 0.125 else letters


def make_address(rng: random.Random) -> str:
    """Make a visitor's network address, one in seven of them IPv6."""
    if rng.random() < 1 / 7:
        return f"2001:db8:{rng.randrange(1, 0xFFFF):x}::{rng.randrange(1, 0xFFFF):x}"
    return f"{rng.choice(('192.0.2', '198.51.100'))}.{rng.randrange(1, 255)}"


def make_traits(rng: random.Random) -> Event:
    """Make a customer's traits; people type their mail address with capitals and blanks now and then."""
    first, last = rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
    email = f"{first}.{last}{rng.randrange(10, 1000)}@{rng.choice(MAIL_HOSTS)}"
    manner = rng.random()
    if manner < 0.7:
        email = email.lower()
    elif manner < 0.8:
        email = f" {email} "
    elif manner < 0.85:
        email = email.upper()
    return {"email": email, "firstName": first, "lastName": last}


def make_locale(rng: random.Random) -> tuple[str, str, str]:
    """Choose where somebody lives: locale, time zone, currency."""
    return US_LOCALE if rng.random() < 0.25 else rng.choice(LOCALES)


def stamp(milliseconds: int) -> str:
    """Write a moment of the day as RFC 3339 with milliseconds, as rudder-server does."""
    moment = DAY + timedelta(milliseconds=milliseconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def money(cents: int) -> float:
    """Turn cents into the number an SDK would send."""
    return cents / 100


# ---------------------------------------------------------------------------------------------------------------------
# A visit: one person on one device
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Visit:
    """One person on one device; ``clock`` is their moment of the day and ``events`` what they did, times in ms."""

    rng: random.Random
    clock: int
    channel: str
    context: Event
    request_ip: str
    anonymous_id: str | None
    user_id: str | None
    currency: str
    identity: str
    skew: int = 0
    offline_until: int = 0
    url: str = ""
    events: list[tuple[int, Event]] = field(default_factory=list)

    def wait(self, shortest: float, longest: float) -> None:
        """Let some seconds pass."""
        self.clock += self.rng.randint(int(shortest * SECOND), int(longest * SECOND))

    def times(self) -> tuple[int, Event]:
        """Say when the event is received, with its four stamps: a device's clock may be wrong, the server's is not."""
        queued = max(self.offline_until - self.clock, 0) + self.rng.choice(QUEUED)
        received = self.clock + queued + self.rng.randint(20, 180)
        return received, {
            "originalTimestamp": stamp(self.clock + self.skew),
            "sentAt": stamp(self.clock + self.skew + queued),
            "receivedAt": stamp(received),
            "timestamp": stamp(received - queued),
        }

    def message_id(self) -> str:
        """Make an id in the shape of a UUID: the visit's own with a counter at the end, which compresses well."""
        return f"{self.identity[:33]}{len(self.events):03x}"

    def send(self, call: str, **fields: Any) -> None:
        """Record one call with everything an SDK and the server add to it."""
        received, stamps = self.times()
        event: Event = {
            "anonymousId": self.anonymous_id,
            "userId": self.user_id,
            "rudderId": self.identity,
            "request_ip": self.request_ip,
            "channel": self.channel,
            "integrations": {"All": True},
            "messageId": self.message_id(),
            **stamps,
            "type": call,
            **fields,
            "context": self.context,
        }
        self.events.append((received, event))

    def track(self, event: str, properties: Event) -> None:
        """Record a track call."""
        self.send("track", event=event, properties=properties)

    def page(self, path: str, title: str, query: str = "", referrer: str | None = None) -> None:
        """Open a page of the shop; without a referrer it is the page before."""
        came_from = self.url if referrer is None else referrer
        search = f"?{query}" if query else ""
        self.url = f"{SHOP}{path}{search}"
        page = {"path": path, "referrer": came_from or "$direct", "search": search, "title": title, "url": self.url}
        self.context = self.context | {"page": page}
        if "utm_" in query:
            self.context = self.context | {"campaign": campaign_of(query)}
        self.send("page", name=title, properties=page | {"name": title})

    def screen(self, name: str, **properties: Any) -> None:
        """Show a screen of the app."""
        self.send("screen", name=name, properties={"name": name, **properties})

    def identify(self) -> None:
        """Log in: the SDKs of a device put the traits into the context, and keep them there."""
        self.user_id = f"cust-{self.rng.randrange(10_000, 99_999)}"
        self.context = self.context | {"traits": make_traits(self.rng)}
        self.send("identify")


def campaign_of(query: str) -> dict[str, str]:
    """Collect the utm parameters of a landing as the SDK does."""
    pairs = (part.partition("=") for part in query.split("&"))
    names = {"utm_source": "source", "utm_medium": "medium", "utm_campaign": "name"}
    return {names[key]: value for key, _, value in pairs if key in names}


def at_the_desk(rng: random.Random, clock: int) -> Visit:
    """Start a visit in a browser."""
    browser, address, (locale, timezone, currency) = rng.choice(BROWSERS), make_address(rng), make_locale(rng)
    context: Event = {
        "library": {"name": "RudderLabs JavaScript SDK", "version": "3.11.15"},
        "userAgent": browser.user_agent,
        "screen": {"width": browser.width, "height": browser.height, "density": browser.density},
        "locale": locale,
        "timezone": timezone,
        "ip": address,
        "sessionId": int(DAY.timestamp()) + clock // SECOND,
        "campaign": {},
        "traits": {},
    }
    identity = make_uuid(rng)
    return Visit(rng, clock, "web", context, address, identity, "", currency, identity, rng.choice(SKEWS))


def phone_device(rng: random.Random, phone: Phone) -> Event:
    """Describe a telephone; on iOS most people refuse tracking and the advertising id is zeros."""
    android = phone.system == "Android"
    allowed = rng.random() < (0.9 if android else 0.4)
    device: Event = {
        "manufacturer": phone.manufacturer,
        "model": phone.model,
        "name": phone.model,
        "type": phone.system,
        "adTrackingEnabled": allowed,
        "id": f"{rng.getrandbits(64):016x}" if android else make_uuid(rng).upper(),
    }
    if allowed:
        device["advertisingId"] = make_uuid(rng) if android else make_uuid(rng).upper()
    elif not android:
        device |= {"advertisingId": NO_ADVERTISING_ID, "attTrackingStatus": 2}
    return device


def in_the_app(rng: random.Random, clock: int) -> Visit:
    """Start a visit in one of the two apps."""
    phone, address, (locale, _, currency) = rng.choice(PHONES), make_address(rng), make_locale(rng)
    android = phone.system == "Android"
    context: Event = {
        "app": {"name": "Shop", "version": "5.4.1", "build": "50401", "namespace": "com.example.shop"},
        "library": {"name": f"rudder-{phone.system.lower()}-library", "version": "1.27.0" if android else "1.31.1"},
        "os": {"name": phone.system, "version": phone.version},
        "screen": {"width": phone.width, "height": phone.height, "density": 3},
        "userAgent": f"Dalvik/2.1.0 (Linux; U; Android {phone.version}; {phone.model})" if android else "unknown",
        "device": phone_device(rng, phone),
        "locale": locale,
        "timezone": "America/New_York" if currency == "USD" else "Europe/Berlin",
        "network": {"carrier": "Example Mobile", "bluetooth": False, "cellular": True, "wifi": rng.random() < 0.6},
        "ip": address,
        "traits": {},
    }
    identity = make_uuid(rng)
    return Visit(rng, clock, "mobile", context, address, identity, "", currency, identity)


def in_the_back_office(rng: random.Random, clock: int) -> Visit:
    """Start a run of a server's SDK: no anonymous id, and a request address that is the server's own."""
    name, version = rng.choice(SERVERS)
    context: Event = {"library": {"name": name, "version": version}}
    if rng.random() < 0.4:
        context |= {"ip": make_address(rng), "userAgent": rng.choice(BROWSERS).user_agent}
    if rng.random() < 0.5:
        context["traits"] = make_traits(rng)
    user_id = f"cust-{rng.randrange(10_000, 99_999)}"
    address = f"203.0.113.{rng.randrange(10, 14)}"
    return Visit(rng, clock, "server", context, address, None, user_id, "EUR", make_uuid(rng))


# ---------------------------------------------------------------------------------------------------------------------
# What people do: steps
# ---------------------------------------------------------------------------------------------------------------------


def line_of(product: Product, quantity: int, coupon: str) -> Event:
    """Write one line of a cart in the V2 ecommerce spec."""
    line: Event = {
        "product_id": product.number,
        "sku": f"SKU-{product.number}",
        "name": product.name,
        "price": money(product.cents),
        "quantity": quantity,
        "category": product.category,
        "brand": product.brand,
    }
    return line | {"coupon": coupon} if coupon else line


def as_text(value: Any) -> Any:
    """Write every number inside a value as a string, as some shops do."""
    if isinstance(value, dict):
        return {key: as_text(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [as_text(inner) for inner in value]
    return value if isinstance(value, str) else f"{value:.2f}" if isinstance(value, float) else str(value)


def order_of(visit: Visit) -> Event:
    """Write an order as in Segment's own example: revenue is the goods, subtotal is after the discount."""
    rng = visit.rng
    cart = [(product, rng.choice((1, 1, 1, 2, 3))) for product in rng.sample(PRODUCTS, rng.choice((1, 1, 2, 2, 3, 5)))]
    coupon = rng.choice(COUPONS) if rng.random() < 0.3 else ""
    goods = sum(product.cents * quantity for product, quantity in cart)
    discount = goods // 10 if coupon else 0
    shipping, tax = (0 if goods > 10_000 else 490), (goods - discount) * 19 // 100
    order: Event = {
        "order_id": f"S26-{visit.clock:08d}",
        "total": money(goods - discount + shipping + tax),
        "subtotal": money(goods - discount),
        "revenue": money(goods),
        "shipping": money(shipping),
        "tax": money(tax),
        "discount": money(discount),
        "currency": visit.currency,
    }
    if coupon:
        order["coupon"] = coupon
    if rng.random() > 0.12:
        order["products"] = [line_of(product, quantity, coupon) for product, quantity in cart]
    return {key: as_text(value) for key, value in order.items()} if rng.random() < 0.12 else order


def land(visit: Visit, query: str = "", referrer: str = "") -> None:
    """Arrive at the shop on the home page, a category or a product."""
    product = visit.rng.choice(PRODUCTS)
    path, title = visit.rng.choice(
        (("/", "Shop"), (f"/c/{product.category.lower()}", product.category), (f"/p/{product.number}", product.name)),
    )
    visit.page(path, title, query, referrer)
    visit.wait(4, 60)


def partner_query(rng: random.Random, click_id: str) -> str:
    """Write what impact.com's gateway adds to a landing page; older programs use the older name."""
    if rng.random() < 0.2:
        return f"irclickid={click_id}&irgwc=1"
    tail = "&utm_source=impact&utm_medium=affiliate" if rng.random() < 0.3 else ""
    return f"im_ref={click_id}&irgwc=1{tail}"


def land_from_partner(visit: Visit) -> None:
    """Arrive from a partner's site with a click id of its own."""
    rng = visit.rng
    land(visit, partner_query(rng, make_click_id(rng)), rng.choice(PARTNER_SITES))


def view_product(visit: Visit) -> Product:
    """Open a product's page, which also tracks the view."""
    product = visit.rng.choice(PRODUCTS)
    visit.page(f"/p/{product.number}", product.name)
    visit.clock += visit.rng.randint(5, 60)
    visit.track("Product Viewed", line_of(product, 1, "") | {"url": visit.url, "currency": visit.currency})
    visit.wait(5, 90)
    return product


def look_around(visit: Visit, fewest: int, most: int) -> None:
    """Open some pages: categories, products, the help pages."""
    for _ in range(visit.rng.randint(fewest, most)):
        if visit.rng.random() < 0.55:
            view_product(visit)
            continue
        category = visit.rng.choice(PRODUCTS).category
        path, title = visit.rng.choice(((f"/c/{category.lower()}", category), ("/help/shipping", "Shipping")))
        visit.page(path, title)
        visit.wait(5, 75)


def fill_cart(visit: Visit) -> None:
    """Look at a product and put it into the cart."""
    product = view_product(visit)
    visit.track("Product Added", line_of(product, 1, "") | {"cart_id": f"cart-{visit.clock:x}"})
    visit.wait(3, 30)


def check_out(visit: Visit) -> Event:
    """Go to the cart and buy; one in three logs in on the way."""
    visit.page("/checkout", "Checkout")
    visit.wait(20, 120)
    if not visit.user_id and visit.rng.random() < 0.35:
        visit.identify()
        visit.wait(5, 30)
    order = order_of(visit)
    visit.page("/checkout/thanks", "Thank you")
    visit.clock += visit.rng.randint(50, 400)
    visit.track("Order Completed", order)
    return order


# ---------------------------------------------------------------------------------------------------------------------
# Journeys in the browser
# ---------------------------------------------------------------------------------------------------------------------


def browse_organic(visit: Visit) -> None:
    """Come from a search engine or by typing the address, look, leave."""
    land(visit, referrer=visit.rng.choice(SEARCH_SITES))
    look_around(visit, 4, 14)


def browse_paid(visit: Visit) -> None:
    """Come by an advertisement, look, leave."""
    land(visit, visit.rng.choice(PAID_QUERIES), "https://search.example.net/")
    look_around(visit, 3, 12)


def browse_partner(visit: Visit) -> None:
    """Come from a partner, look, perhaps fill a cart, leave."""
    land_from_partner(visit)
    look_around(visit, 3, 10)
    if visit.rng.random() < 0.3:
        fill_cart(visit)


def order_organic(visit: Visit) -> None:
    """Buy without any partner."""
    land(visit, referrer=visit.rng.choice(SEARCH_SITES))
    look_around(visit, 0, 4)
    fill_cart(visit)
    check_out(visit)


def order_paid(visit: Visit) -> None:
    """Buy after an advertisement."""
    land(visit, visit.rng.choice(PAID_QUERIES), "https://search.example.net/")
    fill_cart(visit)
    check_out(visit)


def order_partner(visit: Visit) -> None:
    """Buy in the visit that a partner sent."""
    land_from_partner(visit)
    look_around(visit, 0, 4)
    fill_cart(visit)
    check_out(visit)


def order_partner_hours_later(visit: Visit) -> None:
    """Come from a partner, return hours later by hand and buy: no event of the order carries the click id."""
    land_from_partner(visit)
    look_around(visit, 1, 3)
    visit.wait(2 * 3600, 7 * 3600)
    land(visit)
    fill_cart(visit)
    check_out(visit)


def order_second_partner(visit: Visit) -> None:
    """Come from one partner, later the same day from another, and buy: the last click counts."""
    land_from_partner(visit)
    look_around(visit, 1, 3)
    visit.wait(3600, 6 * 3600)
    land_from_partner(visit)
    fill_cart(visit)
    check_out(visit)


def order_customer(visit: Visit) -> None:
    """Log in first, then buy: every event after the identify carries user id and traits."""
    land(visit, referrer="")
    visit.identify()
    visit.wait(3, 20)
    look_around(visit, 0, 3)
    fill_cart(visit)
    check_out(visit)


def order_reported_twice(visit: Visit) -> None:
    """Buy in the browser, and the shop's server reports the same order again half a minute later."""
    land_from_partner(visit)
    visit.identify()
    fill_cart(visit)
    order = check_out(visit)
    visit.wait(20, 40)
    server = in_the_back_office(visit.rng, visit.clock)
    server.user_id = visit.user_id
    server.track("Order Completed", order)
    visit.events += server.events


def reload_storm(visit: Visit) -> None:
    """Reload one page again and again, half of the time a partner's landing with its click id."""
    rng = visit.rng
    query = partner_query(rng, make_click_id(rng)) if rng.random() < 0.5 else ""
    for _ in range(rng.randint(8, 20)):
        visit.page("/c/jackets", "Jackets", query, "https://deals.example.net/" if query else "")
        visit.wait(0.4, 3)


def two_tabs(visit: Visit) -> None:
    """Open a partner's link in two tabs and use both in turn."""
    rng = visit.rng
    query, site = partner_query(rng, make_click_id(rng)), rng.choice(PARTNER_SITES)
    for path in ("/c/shoes", "/c/bags"):
        visit.page(path, path[3:].title(), query, site)
        visit.clock += rng.randint(700, 4_000)
    for _ in range(rng.randint(2, 4)):
        first, second = rng.sample(PRODUCTS, 2)
        for product, tab in ((first, "/c/shoes"), (second, "/c/bags")):
            visit.page(f"/p/{product.number}", product.name, referrer=f"{SHOP}{tab}?{query}")
            visit.wait(1, 12)


def land_again(visit: Visit, *gaps: int) -> None:
    """Open the same partner link again after so many minutes each, to the millisecond, with other pages between."""
    rng = visit.rng
    query, site = partner_query(rng, make_click_id(rng)), rng.choice(PARTNER_SITES)
    due = visit.clock
    for gap in (0, *gaps):
        due += gap * MINUTE
        visit.clock = due
        visit.page("/c/jackets", "Jackets", query, site)
        visit.wait(10, 60)
        look_around(visit, 1, 2)


def land_again_after_29(visit: Visit) -> None:
    """Repeat a landing inside the window of thirty minutes: not a unique click."""
    visit.skew = 0
    land_again(visit, 29)
    if visit.rng.random() < 0.3:
        check_out(visit)


def land_again_after_31(visit: Visit) -> None:
    """Repeat a landing just after the window: a unique click again."""
    visit.skew = 0
    land_again(visit, 31)
    if visit.rng.random() < 0.3:
        check_out(visit)


def land_three_times(visit: Visit) -> None:
    """Repeat a landing twice, each time inside the window that the one before has prolonged."""
    visit.skew = 0
    land_again(visit, 29, 29)


def sign_up(visit: Visit) -> None:
    """Open an account: an identify and the track of a lead."""
    (land_from_partner if visit.rng.random() < 0.5 else land)(visit)
    look_around(visit, 0, 2)
    visit.page("/account/new", "New account")
    visit.wait(20, 90)
    visit.identify()
    visit.clock += visit.rng.randint(50, 300)
    visit.track("Signed Up", {"method": "email", "plan": "free"})


def newsletter(visit: Visit) -> None:
    """Leave a mail address for the newsletter without an account."""
    (land_from_partner if visit.rng.random() < 0.3 else land)(visit)
    visit.track("Newsletter Subscribed", {"email": make_traits(visit.rng)["email"], "list": "week", "form": "footer"})
    visit.wait(3, 40)
    look_around(visit, 0, 2)


def company_customer(visit: Visit) -> None:
    """Log in as somebody of a company: identify, group, and an alias that joins the old id."""
    land(visit)
    visit.identify()
    visit.wait(1, 4)
    visit.send("group", groupId=f"company-{visit.rng.randrange(100, 999)}", traits={"name": "Example Outfitters Ltd"})
    if visit.rng.random() < 0.5:
        visit.send("alias", previousId=visit.anonymous_id)
    look_around(visit, 0, 2)


# ---------------------------------------------------------------------------------------------------------------------
# Journeys in the apps
# ---------------------------------------------------------------------------------------------------------------------


def open_app(visit: Visit, *, from_background: bool = False) -> None:
    """Open the app, which tracks itself."""
    visit.track("Application Opened", {"from_background": from_background, "version": "5.4.1", "build": "50401"})
    visit.clock += visit.rng.randint(200, 900)


def open_deep_link(visit: Visit) -> None:
    """Follow a partner's link into the app: the click id is in the link of a track."""
    product = visit.rng.choice(PRODUCTS)
    query = partner_query(visit.rng, make_click_id(visit.rng))
    visit.track("Deep Link Opened", {"provider": "impact", "url": f"{SHOP}/p/{product.number}?{query}"})
    visit.clock += visit.rng.randint(100, 600)
    visit.screen("Product", product_id=product.number)
    visit.wait(5, 60)


def tap_around(visit: Visit) -> None:
    """Show some screens and look at a product."""
    for name in visit.rng.choices(("Home", "Category", "Search", "Wishlist"), k=visit.rng.randint(3, 9)):
        visit.screen(name)
        visit.wait(3, 40)
    product = visit.rng.choice(PRODUCTS)
    visit.screen("Product", product_id=product.number)
    visit.track("Product Viewed", line_of(product, 1, "") | {"currency": visit.currency})
    visit.wait(5, 60)


def order_in_app(visit: Visit) -> None:
    """Buy in the app."""
    visit.screen("Checkout")
    visit.wait(15, 90)
    order = order_of(visit)
    visit.track("Order Completed", order)
    visit.screen("Thank you", order_id=order["order_id"])


def install_app(visit: Visit) -> None:
    """Install the app, open it for the first time, perhaps log in."""
    visit.track("Application Installed", {"version": "5.4.1", "build": "50401"})
    visit.clock += visit.rng.randint(100, 500)
    open_app(visit)
    tap_around(visit)
    if visit.rng.random() < 0.4:
        visit.identify()


def install_from_partner(visit: Visit) -> None:
    """Install the app behind a partner's link, then buy."""
    visit.track("Application Installed", {"version": "5.4.1", "build": "50401"})
    visit.clock += visit.rng.randint(100, 500)
    open_app(visit)
    open_deep_link(visit)
    tap_around(visit)
    order_in_app(visit)


def browse_app(visit: Visit) -> None:
    """Open the app, look, leave."""
    open_app(visit, from_background=visit.rng.random() < 0.6)
    tap_around(visit)


def browse_app_offline(visit: Visit) -> None:
    """Use the app without a network: everything arrives together, up to an hour and a half later."""
    visit.offline_until = visit.clock + visit.rng.randint(20 * MINUTE, 90 * MINUTE)
    open_app(visit, from_background=True)
    tap_around(visit)


def order_app(visit: Visit) -> None:
    """Open the app, log in, buy."""
    open_app(visit)
    visit.identify()
    tap_around(visit)
    order_in_app(visit)


def order_app_deep_link(visit: Visit) -> None:
    """Follow a partner's link into the app and buy."""
    open_app(visit, from_background=True)
    open_deep_link(visit)
    tap_around(visit)
    order_in_app(visit)


# ---------------------------------------------------------------------------------------------------------------------
# Journeys in the back office
# ---------------------------------------------------------------------------------------------------------------------


def order_server(visit: Visit) -> None:
    """Report an order from the server, one in three with a click id the shop itself has kept."""
    order, kept = order_of(visit), visit.rng.random()
    if kept < 0.2:
        referrer = {"type": "impactRadius", "id": make_click_id(visit.rng)}
        visit.context = visit.context | {"referrer": referrer}
    elif kept < 0.33:
        order["clickId"] = make_click_id(visit.rng)
    visit.track("Order Completed", order)


def identify_server(visit: Visit) -> None:
    """Update a customer from the server: there the traits are at the top of the message."""
    traits = make_traits(visit.rng)
    visit.send("identify", traits=traits | {"plan": visit.rng.choice(("free", "plus"))})


# ---------------------------------------------------------------------------------------------------------------------
# Orders on other shop systems
# ---------------------------------------------------------------------------------------------------------------------


def basket_of(visit: Visit, number: str) -> Basket:
    """Fill a basket; one in two has a coupon, and small ones are charged for shipping."""
    rng = visit.rng
    sold = tuple(
        Sold(one.number, one.name, one.cents, one.brand, one.category, rng.choice((1, 1, 2)))
        for one in rng.sample(PRODUCTS, rng.choice((1, 2, 2, 3)))
    )
    goods = sum(line.cents * line.pieces for line in sold)
    coupon = rng.choice(COUPONS) if rng.random() < 0.5 else ""
    discount = goods // 10 if coupon else 0
    shipping, tax = (0 if goods > 10_000 else 490), (goods - discount) * 19 // 100
    return Basket(number, sold, discount, shipping, tax, visit.currency, coupon)


def order_on_shopify(visit: Visit) -> None:
    """Buy in the outlet, a Shopify shop with RudderStack's pixel, half of the time behind a partner's link."""
    (land_from_partner if visit.rng.random() < 0.5 else land)(visit)
    view_product(visit)
    visit.track("Order Completed", shopify_pixel(basket_of(visit, f"55348{visit.clock % 100_000:05d}")))


def order_by_shopify_webhook(visit: Visit) -> None:
    """Report an order of the outlet's till, which only the webhook knows."""
    visit.track("Order Created", shopify_webhook(basket_of(visit, f"66123{visit.clock % 100_000:05d}")))


def order_by_littledata(visit: Visit) -> None:
    """Report an order of the outlet abroad, a Shopify shop with Littledata."""
    visit.track("Order Completed", shopify_littledata(basket_of(visit, f"#L{visit.clock % 100_000:05d}")))


def order_on_woocommerce(visit: Visit) -> None:
    """Report an order of the studio's shop, a WooCommerce that knows its own number only."""
    visit.track("Order Completed", woocommerce(basket_of(visit, f"7{visit.clock % 10_000:04d}")))


def order_on_magento(visit: Visit) -> None:
    """Report an order of the wholesale shop, a Magento."""
    visit.track("Order Completed", magento(basket_of(visit, f"000{visit.clock % 1_000_000:06d}")))


def order_by_ga4(visit: Visit) -> None:
    """Buy in the gift shop, whose data layer is written for GA4, half of the time behind a partner's link."""
    (land_from_partner if visit.rng.random() < 0.5 else land)(visit)
    view_product(visit)
    visit.track("purchase", ga4(basket_of(visit, f"T-{visit.clock % 1_000_000:06d}")))


# ---------------------------------------------------------------------------------------------------------------------
# The plan of the day
# ---------------------------------------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """How often a journey happens, on what device, and how long before midnight it starts at the latest."""

    start: Callable[[random.Random, int], Visit]
    journey: Callable[[Visit], None]
    times: int
    hours_needed: float = 0.25


PLAN: Final = (
    Plan(at_the_desk, browse_organic, 49),
    Plan(at_the_desk, browse_paid, 20),
    Plan(at_the_desk, browse_partner, 32),
    Plan(at_the_desk, order_organic, 28),
    Plan(at_the_desk, order_paid, 12),
    Plan(at_the_desk, order_partner, 30),
    Plan(at_the_desk, order_partner_hours_later, 10, 8.5),
    Plan(at_the_desk, order_second_partner, 10, 7.5),
    Plan(at_the_desk, order_customer, 12),
    Plan(at_the_desk, order_reported_twice, 5),
    Plan(at_the_desk, reload_storm, 10),
    Plan(at_the_desk, two_tabs, 14),
    Plan(at_the_desk, land_again_after_29, 8, 1.0),
    Plan(at_the_desk, land_again_after_31, 8, 1.0),
    Plan(at_the_desk, land_three_times, 4, 1.5),
    Plan(at_the_desk, sign_up, 16),
    Plan(at_the_desk, newsletter, 12),
    Plan(at_the_desk, company_customer, 8),
    Plan(in_the_app, install_app, 14),
    Plan(in_the_app, install_from_partner, 6),
    Plan(in_the_app, browse_app, 20),
    Plan(in_the_app, browse_app_offline, 6, 2.0),
    Plan(in_the_app, order_app, 8),
    Plan(in_the_app, order_app_deep_link, 8),
    Plan(in_the_back_office, order_server, 16),
    Plan(in_the_back_office, identify_server, 18),
    Plan(at_the_desk, order_on_shopify, 6),
    Plan(in_the_back_office, order_by_shopify_webhook, 3),
    Plan(in_the_back_office, order_by_littledata, 4),
    Plan(in_the_back_office, order_on_woocommerce, 4),
    Plan(in_the_back_office, order_on_magento, 4),
    Plan(at_the_desk, order_by_ga4, 5),
)


def start_time(rng: random.Random, hours_needed: float) -> int:
    """Draw a start from the curve of the day, early enough to end before midnight."""
    while True:
        clock = rng.choices(range(24), HOUR_WEIGHTS)[0] * HOUR + rng.randrange(HOUR)
        if clock < MIDNIGHT - hours_needed * HOUR:
            return clock


def live(plan: Plan) -> Iterator[tuple[int, Event]]:
    """Let one kind of journey happen as often as planned; each has its own source of chance."""
    for number in range(plan.times):
        rng = random.Random(f"{SEED}/{plan.journey.__name__}/{number}")
        visit = plan.start(rng, start_time(rng, plan.hours_needed))
        plan.journey(visit)
        yield from visit.events


# ---------------------------------------------------------------------------------------------------------------------
# What is spoilt on purpose
# ---------------------------------------------------------------------------------------------------------------------


def is_order(event: Event) -> bool:
    """Whether the event is an order, of whichever system."""
    return event.get("event") in ORDER_NAMES


def is_own_order(event: Event) -> bool:
    """Whether the event is an order of the shop itself, which writes Segment's spec."""
    return is_order(event) and not dialect_of(event["properties"])


def has_cart(event: Event) -> bool:
    """Whether the event is an order of the shop itself that lists its products."""
    return is_own_order(event) and isinstance(event["properties"].get("products"), list)


def is_web_page(event: Event) -> bool:
    """Whether the event is a page without a query of its own."""
    return event.get("type") == "page" and event["properties"]["search"] == ""


def is_from_browser(event: Event) -> bool:
    """Whether the event is a page or a track of the web shop, orders left out."""
    return event["channel"] == "web" and event["type"] in {"page", "track"} and not is_order(event)


def is_customers(event: Event) -> bool:
    """Whether the event names a customer, orders left out."""
    return event["channel"] == "web" and event["userId"] != "" and event["type"] in {"page", "track", "identify"}


def lose_order_id(event: Event) -> None:
    """Leave the order without its id."""
    event["properties"] = {key: value for key, value in event["properties"].items() if key != "order_id"}


def misname_currency(event: Event) -> None:
    """Write the currency as a word."""
    event["properties"] = event["properties"] | {"currency": "EURO"}


def put_email_as_user_id(event: Event) -> None:
    """Use the mail address as the user id."""
    event["userId"] = event["context"]["traits"]["email"].strip()


def lose_ids(event: Event) -> None:
    """Send neither an anonymous id nor a user id."""
    del event["anonymousId"], event["userId"]


def lose_type(event: Event) -> None:
    """Leave the message without a type."""
    del event["type"]


def make_products_an_object(event: Event) -> None:
    """Send the products as an object keyed by position, as PHP does with a list that has a hole."""
    products = event["properties"]["products"]
    event["properties"] = event["properties"] | {"products": {str(at): line for at, line in enumerate(products, 1)}}


def stretch_anonymous_id(event: Event) -> None:
    """Send an anonymous id of eighty characters."""
    event["anonymousId"] = (event["anonymousId"] * 3)[:80]


def make_ids_numbers(event: Event) -> None:
    """Send the ids as numbers."""
    event["userId"] = int(event["messageId"][:6], 16)
    event["anonymousId"] = int(event["messageId"][-12:], 16)


def lose_context(event: Event) -> None:
    """Send null for the context."""
    event["context"] = None


def garble_time(event: Event) -> None:
    """Send times that are none."""
    event["timestamp"] = "2026-13-45T99:99:99Z"
    event["originalTimestamp"] = "last Thursday"


def put_email_into_url(event: Event) -> None:
    """Show a mail address in the address of the page."""
    search = "?email=jane%40example.com"
    shown = {"search": search, "url": event["properties"]["url"] + search}
    event["properties"] = event["properties"] | shown
    event["context"] = event["context"] | {"page": event["context"]["page"] | shown}


def shows_no_order_id(event: Event) -> bool:
    """Whether the event is an order of the shop itself without an id."""
    return is_own_order(event) and "order_id" not in event["properties"]


class Spoiler(NamedTuple):
    """One way to spoil events: how many, which ones it suits, what it does, and how to recognise it afterwards."""

    name: str
    times: int
    suits: Callable[[Event], bool]
    spoil: Callable[[Event], None]
    shows: Callable[[Event], bool]


SPOILERS: Final = (
    Spoiler("order without order id", 6, is_own_order, lose_order_id, shows_no_order_id),
    Spoiler("currency EURO", 5, is_own_order, misname_currency, lambda e: e["properties"].get("currency") == "EURO"),
    Spoiler("e-mail as user id", 6, is_customers, put_email_as_user_id, lambda e: "@" in str(e.get("userId"))),
    Spoiler("no ids at all", 5, is_from_browser, lose_ids, lambda e: not e.get("userId") and not e.get("anonymousId")),
    Spoiler("no type", 5, is_from_browser, lose_type, lambda e: "type" not in e),
    Spoiler(
        "products an object",
        5,
        has_cart,
        make_products_an_object,
        lambda e: isinstance(e["properties"].get("products"), dict),
    ),
    Spoiler(
        "anonymous id of 80 characters",
        5,
        is_from_browser,
        stretch_anonymous_id,
        lambda e: len(str(e.get("anonymousId"))) == 80,
    ),
    Spoiler("numeric ids", 6, is_from_browser, make_ids_numbers, lambda e: isinstance(e.get("userId"), int)),
    Spoiler("context null", 5, is_from_browser, lose_context, lambda e: e["context"] is None),
    Spoiler("garbled time", 5, is_from_browser, garble_time, lambda e: e["timestamp"][-4:] == ":99Z"),
    Spoiler("e-mail in page URL", 7, is_web_page, put_email_into_url, lambda e: "?email=" in str(e["properties"])),
)
ODD_SPELLINGS: Final = ("Page", "TRACK", "Identify", "PAGE", "Screen", "Track")


def spoil(events: list[Event]) -> None:
    """Spoil the planned number of events, no event twice, spread over the whole day."""
    rng = random.Random(f"{SEED}/spoil")
    whole = set(range(len(events)))
    for spoiler in SPOILERS:
        suited = [at for at in sorted(whole) if spoiler.suits(events[at])]
        for at in rng.sample(suited, spoiler.times):
            spoiler.spoil(events[at])
            whole.remove(at)
    respell(rng, [events[at] for at in sorted(whole)])


def respell(rng: random.Random, events: list[Event]) -> None:
    """Write the type of some events in an odd case; nothing else is wrong with them."""
    for spelling in ODD_SPELLINGS:
        suited = [event for event in events if event["type"] == spelling.lower()]
        for event in rng.sample(suited, 3):
            event["type"] = spelling


# ---------------------------------------------------------------------------------------------------------------------
# Making, reading, counting
# ---------------------------------------------------------------------------------------------------------------------


def make_day() -> list[Event]:
    """Make all events of the day in the order the server received them."""
    arrivals = [arrival for plan in PLAN for arrival in live(plan) if arrival[0] < MIDNIGHT]
    arrivals.sort(key=lambda arrival: (arrival[0], arrival[1]["messageId"]))
    events = [event for _, event in arrivals]
    spoil(events)
    return events


def encode_day(events: Iterable[Event]) -> bytes:
    """Write events as JSON lines; the keys stand in the order that compresses well, changing ones together."""
    return b"".join(msgspec.json.encode(event) + b"\n" for event in events)


def write_day(path: Path, lines: bytes) -> None:
    """Compress the lines so that the same lines give the same file: no name, no date."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as stream:
        stream.write(lines)
    path.write_bytes(packed.getvalue())


def read_day(path: Path = DAY_PATH) -> list[Event]:
    """Read a day that was written with ``write_day``."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    return [decoder.decode(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


CLICK_PARAMETER: Final = re.compile(r"[?&](?:im_ref|irclickid)=([^&]+)")


def click_of(event: Event) -> str | None:
    """Find the click id in the landing of a page, or in the link of a deep link."""
    links_a_click = str(event.get("type")).lower() == "page" or event.get("event") == "Deep Link Opened"
    found = CLICK_PARAMETER.search(str(event["properties"].get("url"))) if links_a_click else None
    return found[1] if found else None


def count_orders(events: list[Event]) -> Iterator[str]:
    """Name what each order is; a visitor who landed from a partner before it is known by the anonymous id."""
    landed: set[Any] = set()
    for event in events:
        if click_of(event) and event.get("anonymousId"):
            landed.add(event["anonymousId"])
        if is_order(event):
            properties = event["properties"]
            yield "orders"
            yield f"orders from channel {event['channel']}"
            if event.get("anonymousId") in landed:
                yield "orders after a partner landing"
            dialect = dialect_of(properties)
            if dialect:
                yield f"orders of {dialect}"
                continue
            if "products" not in properties:
                yield "orders without products"
            if isinstance(properties["total"], str):
                yield "orders with numbers as strings"


def count_event(event: Event) -> Iterator[str]:
    """Name everything the table counts about one event."""
    written = event.get("type", "")
    yield "events"
    yield f"channel {event['channel']}"
    yield f"type {written.lower() or 'missing'}"
    if written != written.lower():
        yield "type in odd case"
    if "properties" in event and click_of(event):
        yield "partner landings"
    if event.get("event") in {"Application Installed", "Deep Link Opened", "Signed Up", "Newsletter Subscribed"}:
        yield f"track {event['event']}"
    if (event["context"] or {}).get("device") and event["context"]["device"].get("advertisingId") == NO_ADVERTISING_ID:
        yield "zeroed advertising id"


def count_spoilt(event: Event) -> Iterator[str]:
    """Name what is wrong with one event."""
    event = {"properties": {}, **event}
    wrong = [spoiler.name for spoiler in SPOILERS if spoiler.shows(event)]
    yield from (f"spoilt: {name}" for name in wrong)
    if wrong:
        yield "spoilt"


def census(events: list[Event]) -> dict[str, int]:
    """Count what the table at the top of this file claims."""
    counts = Counter(name for event in events for count in (count_event, count_spoilt) for name in count(event))
    counts.update(count_orders([{"properties": {}, **event} for event in events]))
    return dict(sorted(counts.items()))


def claims() -> dict[str, int]:
    """Read the table at the top of this file."""
    rows = re.findall(r"^    ([\w:. -]+?)\s{2,}([\d,]+)$", __doc__ or "", re.MULTILINE)
    return {name: int(count.replace(",", "")) for name, count in rows}


def main(path: Path) -> None:
    """Write the day and print its counts."""
    events = make_day()
    write_day(path, encode_day(events))
    for name, count in census(events).items():
        print(f"    {name:<40}{count:>6,}")
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DAY_PATH)
