"""Orders of the recorded day in the dialects of shop systems and connectors, each as its vendor documents it.

The house of the day sells in its own shop, which writes Segment's spec, and on other systems. A :class:`Basket` is what
was really sold; each function writes it as one system does. ``tests/orders`` has the same dialects with what they are
worth.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

Properties = dict[str, Any]

CENTS: Final = 100


class Sold(NamedTuple):
    """One line; the price of a piece is in cents, before tax."""

    number: str
    name: str
    cents: int
    brand: str
    category: str
    pieces: int


class Basket(NamedTuple):
    """What was sold, in cents: goods before the discount, shipping and tax on top."""

    number: str
    sold: Sequence[Sold]
    discount: int
    shipping: int
    tax: int
    currency: str
    coupon: str

    @property
    def goods(self) -> int:
        """The lines before the discount."""
        return sum(line.cents * line.pieces for line in self.sold)

    @property
    def net(self) -> int:
        """What was paid for the goods: what impact.com wants."""
        return self.goods - self.discount

    @property
    def total(self) -> int:
        """What the customer paid."""
        return self.net + self.shipping + self.tax


def shopify_pixel(basket: Basket) -> Properties:
    """Write an order as RudderStack's Shopify source does for the pixel: ``revenue`` is Shopify's subtotal.

    https://www.rudderstack.com/docs/sources/event-streams/cloud-apps/shopify/shopify-source-solution/mappings/
    """
    products = [
        {
            "product_id": line.number,
            "sku": f"SKU-{line.number}",
            "name": line.name,
            "price": _units(line.cents),
            "quantity": line.pieces,
            "brand": line.brand,
        }
        for line in basket.sold
    ]
    return {
        "order_id": basket.number,
        "checkout_id": f"checkout-{basket.number}",
        "total": _units(basket.total),
        "value": _units(basket.total),
        "revenue": _units(basket.net),
        "tax": _units(basket.tax),
        "shipping": _units(basket.shipping),
        "discount": _units(basket.discount),
        "currency": basket.currency,
        "products": products,
    }


def shopify_webhook(basket: Basket) -> Properties:
    """Write an order as RudderStack's Shopify source does for a webhook: the total price and the tax, no shipping.

    https://www.rudderstack.com/docs/sources/event-streams/cloud-apps/shopify/shopify-source-solution/mappings/
    """
    products = [
        {
            "product_id": line.number,
            "sku": f"SKU-{line.number}",
            "title": line.name,
            "price": _units(line.cents),
            "quantity": line.pieces,
            "brand": line.brand,
        }
        for line in basket.sold
    ]
    value, tax = _units(basket.total), _units(basket.tax)
    return {
        "order_id": basket.number,
        "value": value,
        "tax": tax,
        "currency": basket.currency,
        "products": products,
    }


def shopify_littledata(basket: Basket) -> Properties:
    """Write an order as Littledata does for Segment: ``revenue`` before the discount, ``subtotal`` after it.

    https://segment.com/docs/connections/sources/catalog/libraries/website/shopify-littledata/
    """
    products = [
        {
            "product_id": line.number,
            "sku": f"SKU-{line.number}",
            "name": line.name,
            "price": _units(line.cents),
            "quantity": line.pieces,
            "brand": line.brand,
            "category": line.category,
        }
        for line in basket.sold
    ]
    return {
        "order_id": basket.number,
        "affiliation": "Shopify",
        "total": _units(basket.total),
        "subtotal": _units(basket.net),
        "revenue": _units(basket.goods),
        "tax": _units(basket.tax),
        "shipping": _units(basket.shipping),
        "discount": _units(basket.discount),
        "coupon": basket.coupon,
        "currency": basket.currency,
        "products": products,
    }


def woocommerce(basket: Basket) -> Properties:
    """Write an order as WooCommerce's webhook does: amounts are texts, prices after the coupon.

    https://woocommerce.github.io/woocommerce-rest-api-docs/#order-properties
    """
    off = _shares(basket)
    lines = [
        {
            "id": 300 + at,
            "name": line.name,
            "product_id": int(line.number),
            "sku": f"SKU-{line.number}",
            "quantity": line.pieces,
            "price": round((line.cents * line.pieces - off[at]) / CENTS / line.pieces, 6),
            "subtotal": _text(line.cents * line.pieces),
            "total": _text(line.cents * line.pieces - off[at]),
        }
        for at, line in enumerate(basket.sold)
    ]
    return {
        "id": int(basket.number),
        "currency": basket.currency,
        "prices_include_tax": False,
        "discount_total": _text(basket.discount),
        "shipping_total": _text(basket.shipping),
        "total_tax": _text(basket.tax),
        "total": _text(basket.total),
        "line_items": lines,
    }


def magento(basket: Basket) -> Properties:
    """Write an order as Magento's interface does: the discount is negative, and told again by the lines.

    https://developer.adobe.com/commerce/webapi/rest/quick-reference/
    """
    off = _shares(basket)
    items = [
        {
            "sku": f"SKU-{line.number}",
            "name": line.name,
            "price": _units(line.cents),
            "qty_ordered": line.pieces,
            "row_total": _units(line.cents * line.pieces),
            "discount_amount": _units(off[at]),
        }
        for at, line in enumerate(basket.sold)
    ]
    return {
        "increment_id": basket.number,
        "order_currency_code": basket.currency,
        "currency": basket.currency,
        "grand_total": _units(basket.total),
        "subtotal": _units(basket.goods),
        "tax_amount": _units(basket.tax),
        "shipping_amount": _units(basket.shipping),
        "discount_amount": -_units(basket.discount),
        "items": items,
    }


def ga4(basket: Basket) -> Properties:
    """Write a purchase as a data layer for GA4 does: ``value`` is the items, whose prices are after the discount.

    https://developers.google.com/analytics/devguides/collection/ga4/reference/events#purchase
    """
    off = _shares(basket)
    items = []
    value = 0
    for at, line in enumerate(basket.sold):
        each = off[at] // line.pieces
        value += (line.cents - each) * line.pieces
        items.append(
            {
                "item_id": f"SKU-{line.number}",
                "item_name": line.name,
                "item_brand": line.brand,
                "item_category": line.category,
                "price": _units(line.cents - each),
                "discount": _units(each),
                "quantity": line.pieces,
            }
        )
    return {
        "transaction_id": basket.number,
        "value": _units(value),
        "tax": _units(basket.tax),
        "shipping": _units(basket.shipping),
        "currency": basket.currency,
        "coupon": basket.coupon,
        "items": items,
    }


SIGNATURES: Final = (
    ("GA4", "transaction_id"),
    ("WooCommerce", "line_items"),
    ("Magento", "increment_id"),
    ("Shopify pixel", "checkout_id"),
    ("Shopify Littledata", "affiliation"),
    ("Shopify webhook", "value"),
)
"""By which field an order of the day is recognised; the shop's own have none of them."""


def dialect_of(properties: Properties) -> str:
    """Name the system that wrote an order; "" for the shop's own."""
    return next((name for name, field in SIGNATURES if field in properties), "")


def _shares(basket: Basket) -> list[int]:
    """The discount by line, in cents; what is left over is the last one's."""
    shares = [basket.discount * line.cents * line.pieces // basket.goods for line in basket.sold]
    return [*shares[:-1], basket.discount - sum(shares[:-1])]


def _units(cents: int) -> float:
    return cents / CENTS


def _text(cents: int) -> str:
    return f"{Decimal(cents) / CENTS:.2f}"
