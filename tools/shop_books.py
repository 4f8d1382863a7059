"""Orders made from a shop's books, and written down as shops of many kinds write them.

A book says what was really sold: lines, discounts, tax inside or outside the prices, shipping with or without tax. A
style writes it as an event; ``measure`` sends the events through the mapping and compares what is booked with what was
sold.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from random import Random
from typing import Any, Final, Literal, TypeAlias

import msgspec

from impact_plugin.config.manifest import load_manifest
from impact_transformers import NoticeReason, Send, compile_destination, decode_event, transform

ORDERS: Final = 120
"""Orders a style is measured with."""

DECIMALS: Final = {"EUR": 2, "USD": 2, "JPY": 0, "KWD": 3}
RATES: Final = (Decimal(0), Decimal("0.07"), Decimal("0.0825"), Decimal("0.19"), Decimal("0.20"), Decimal("0.25"))
ZERO: Final = Decimal(0)
CENT: Final = Decimal("0.01")

Result: TypeAlias = Literal["right", "right, noticed", "wrong, noticed", "silently wrong"]
RESULTS: Final[tuple[Result, ...]] = ("right", "right, noticed", "wrong, noticed", "silently wrong")
DOUBTS: Final = {NoticeReason.AMOUNTS_DISAGREE, NoticeReason.AMOUNT_AMBIGUOUS, NoticeReason.AMOUNT_MISSING}


class Sold(msgspec.Struct, frozen=True):
    """One line: the price of a piece as the shop shows it, pieces, the discount of the line, and its rate of tax."""

    sku: str
    price: Decimal
    pieces: int
    discount: Decimal
    rate: Decimal


class Book(msgspec.Struct, frozen=True):
    """What was really sold. Amounts are as the shop shows them: with tax where it is ``inside``.

    ``goods`` is the sum of the lines after their own discounts, ``net`` what was paid for the goods: after all
    discounts, before tax and shipping. That is what impact.com wants.
    """

    currency: str
    inside: bool
    sold: tuple[Sold, ...]
    discount: Decimal
    shipping: Decimal
    shipping_tax: Decimal
    goods: Decimal
    goods_tax: Decimal
    net: Decimal

    @property
    def unit(self) -> Decimal:
        """The smallest amount of the currency."""
        return Decimal(1).scaleb(-DECIMALS[self.currency])

    @property
    def tax(self) -> Decimal:
        """All tax, that on shipping included."""
        return self.goods_tax + self.shipping_tax

    @property
    def shipping_net(self) -> Decimal:
        """Shipping without its tax."""
        return self.shipping - self.shipping_tax if self.inside else self.shipping

    @property
    def shipping_gross(self) -> Decimal:
        """Shipping with its tax."""
        return self.shipping_net + self.shipping_tax

    @property
    def total(self) -> Decimal:
        """What the customer paid."""
        return self.net + self.tax + self.shipping_net

    @property
    def line_discounts(self) -> Decimal:
        """The discounts of the lines."""
        return sum((line.discount for line in self.sold), ZERO)


class Kind(msgspec.Struct, frozen=True):
    """Which books a style is for; None: either."""

    inside: bool | None = None
    taxed_shipping: bool | None = None
    charged_shipping: bool | None = None
    one_rate: bool = False
    discounts: bool | None = None
    line_discounts: bool | None = None
    sub_cent: bool | None = None
    tax: bool = False
    one_line: bool = False


Properties: TypeAlias = dict[str, Any]


class Style(msgspec.Struct, frozen=True):
    """A way to write an order. ``setting`` is the shop's own ``orderAmount``.

    ``unknowable`` says why the event alone cannot tell what the order is worth.
    """

    name: str
    what: str
    setting: str
    write: Callable[[Book], Properties]
    kind: Kind = Kind()
    unknowable: str = ""


def make_book(chance: Random, kind: Kind) -> Book:
    """Sell something at random, in a shop of this kind."""
    currency = chance.choice(["EUR", "EUR", "USD", "USD", "JPY", "KWD"])
    decimals = DECIMALS[currency]
    unit = Decimal(1).scaleb(-decimals)
    inside = chance.random() < 0.5 if kind.inside is None else kind.inside
    rates = [rate for rate in RATES if rate or not kind.tax]
    rates = chance.sample(rates, 1 if kind.one_rate or chance.random() < 0.7 else 2)
    sold = tuple(_sell(chance, at, decimals, rates, kind) for at in range(1 if kind.one_line else chance.randint(1, 5)))
    goods = sum((_rounded(line.price * line.pieces, unit) - line.discount for line in sold), ZERO)
    discount = _discount(chance, goods, unit, kind)
    net, tax = _tax_of(sold, goods, discount, unit, inside=inside)
    charged = chance.random() < 0.7 if kind.charged_shipping is None else kind.charged_shipping
    shipping = _rounded(Decimal(chance.randint(200, 1500)) / 100, unit) if charged else ZERO
    taxed = chance.random() < 0.5 if kind.taxed_shipping is None else kind.taxed_shipping
    rate = rates[0] if taxed else ZERO
    shipping_tax = _rounded(shipping * rate / (1 + rate) if inside else shipping * rate, unit)
    return Book(currency, inside, sold, discount, shipping, shipping_tax, goods, tax, net)


def _sell(chance: Random, at: int, decimals: int, rates: Sequence[Decimal], kind: Kind) -> Sold:
    sub_cent = chance.random() < 0.1 if kind.sub_cent is None else kind.sub_cent
    if sub_cent:
        price, pieces = Decimal(chance.randint(10, 9999)).scaleb(-decimals - 2), chance.randint(20, 300)
    else:
        price, pieces = Decimal(chance.randint(100, 20000)).scaleb(-decimals), chance.choice([1, 1, 1, 2, 3, 4])
    discount, whole = ZERO, price * pieces
    discounted = chance.random() < 0.25 if kind.line_discounts is None else kind.line_discounts
    if discounted:
        discount = _rounded(whole * chance.randint(5, 40) / 100, Decimal(1).scaleb(-decimals))
    return Sold(f"S{at + 1}", price, pieces, discount, chance.choice(rates))


def _discount(chance: Random, goods: Decimal, unit: Decimal, kind: Kind) -> Decimal:
    given = chance.random() < 0.5 if kind.discounts is None else kind.discounts
    return _rounded(goods * chance.choice([5, 10, 15, 20, 25]) / 100, unit) if given else ZERO


def _tax_of(
    sold: Sequence[Sold], goods: Decimal, discount: Decimal, unit: Decimal, *, inside: bool
) -> tuple[Decimal, Decimal]:
    """The net amount of the goods and the tax on them; the discount is spread over the rates."""
    paid = goods - discount
    tax = ZERO
    for rate in sorted({line.rate for line in sold}):
        of_rate = sum((line.price * line.pieces - line.discount for line in sold if line.rate == rate), ZERO)
        part = of_rate * paid / goods if goods else ZERO
        tax += _rounded(part * rate / (1 + rate) if inside else part * rate, unit)
    return (paid - tax if inside else paid), tax


def _rounded(amount: Decimal, unit: Decimal) -> Decimal:
    return amount.quantize(unit, ROUND_HALF_UP)


def _numbers(**fields: Decimal | None) -> Properties:
    return {name: float(amount) for name, amount in fields.items() if amount is not None}


def _products(book: Book, *, price: Callable[[Sold], Decimal] = lambda line: line.price) -> list[Properties]:
    """The lines as the specification has them, with their own discounts."""
    lines = []
    for line in book.sold:
        product: Properties = {"sku": line.sku, "price": float(price(line)), "quantity": line.pieces}
        if line.discount:
            product["discount"] = float(line.discount)
        lines.append(product)
    return lines


def _after_all(book: Book) -> list[Properties]:
    """The lines at prices after every discount, as many shops have them: one line may carry what rounding leaves."""
    paid = book.goods - book.discount
    lines, rest = [], paid
    for line in book.sold[:-1]:
        share = _rounded(
            (line.price * line.pieces - line.discount) * paid / book.goods if book.goods else ZERO, book.unit
        )
        lines.append({"sku": line.sku, "price": float(share), "quantity": 1})
        rest -= share
    return [*lines, {"sku": book.sold[-1].sku, "price": float(rest), "quantity": 1}]


def _without_tax(book: Book) -> list[Properties]:
    """The lines after every discount and without tax."""
    paid = book.goods - book.discount
    lines, rest = [], book.net
    for line in book.sold[:-1]:
        share = _rounded(
            (line.price * line.pieces - line.discount) * book.net / book.goods if book.goods and paid else ZERO,
            book.unit,
        )
        lines.append({"sku": line.sku, "price": float(share), "quantity": 1})
        rest -= share
    return [*lines, {"sku": book.sold[-1].sku, "price": float(rest), "quantity": 1}]


def _told(discount: Decimal) -> Decimal | None:
    return discount or None


def _spec(book: Book, **changed: Decimal | None) -> Properties:
    """The specification's order, with net subtotal and revenue; shipping without its tax."""
    fields = {
        "total": book.total,
        "subtotal": book.net,
        "revenue": book.net,
        "shipping": book.shipping_net,
        "tax": book.tax,
        "discount": _told(book.discount),
    }
    return {**_numbers(**{**fields, **changed}), "products": _products(book)}


def _in_words(properties: Properties, write: Callable[[float], str]) -> Properties:
    """The same order with its amounts as text."""

    def text(value: Any) -> Any:
        return write(value) if isinstance(value, float) else value

    as_text = {name: text(value) for name, value in properties.items()}
    if "products" in as_text:
        as_text["products"] = [{name: text(value) for name, value in one.items()} for one in as_text["products"]]
    return as_text


def _plain(value: float) -> str:
    return f"{Decimal(repr(value)):f}"


def _comma(value: float) -> str:
    """``1.234,50``."""
    whole, _, fraction = f"{Decimal(repr(value)):,f}".partition(".")
    return whole.replace(",", ".") + "," + fraction.ljust(2, "0")


def _dollars(value: float) -> str:
    """``$1,234.50``."""
    whole, _, fraction = f"{Decimal(repr(value)):,f}".partition(".")
    return f"${whole}.{fraction.ljust(2, '0')}"


def _cents(book: Book) -> Properties:
    def cents(value: Any) -> Any:
        return round(value * 100, 4) if isinstance(value, float) else value

    found = {name: cents(value) for name, value in _spec(book).items() if name != "products"}
    return {**found, "products": [{name: cents(value) for name, value in one.items()} for one in _products(book)]}


def _woocommerce(book: Book) -> Properties:
    return {
        "total": _plain(float(book.total)),
        "total_tax": _plain(float(book.tax)),
        "shipping_total": _plain(float(book.shipping_net)),
        "discount_total": _plain(float(book.discount)),
        "line_items": [{**one, "product_id": one["sku"], "name": one["sku"]} for one in _without_tax(book)],
    }


def _magento(book: Book) -> Properties:
    discount = _numbers(discount_amount=-book.discount) if book.discount else {}
    items = [
        {
            "sku": line.sku,
            "price": float(line.price),
            "qty_ordered": line.pieces,
            "row_total": float(line.price * line.pieces),
        }
        for line in book.sold
    ]
    return {
        **_numbers(grand_total=book.total, subtotal=book.goods, tax_amount=book.tax, shipping_amount=book.shipping_net),
        **discount,
        "items": items,
    }


def _bigcommerce(book: Book) -> Properties:
    fields = {
        "total_inc_tax": book.total,
        "subtotal_ex_tax": book.net + book.discount,
        "total_tax": book.tax,
        "shipping_cost_ex_tax": book.shipping_net,
        "discount_amount": book.discount,
    }
    return {name: f"{amount:.4f}" for name, amount in fields.items()}


def _shopify(book: Book) -> Properties:
    return {
        "total_price": _plain(float(book.total)),
        "subtotal_price": _plain(float(book.goods - book.discount)),
        "total_tax": _plain(float(book.tax)),
        "total_discounts": _plain(float(book.discount + book.line_discounts)),
        "total_shipping_price_set": {"shop_money": {"amount": _plain(float(book.shipping))}},
        "line_items": [
            {
                "sku": line.sku,
                "price": _plain(float(line.price)),
                "quantity": line.pieces,
                "total_discount": _plain(float(line.discount)),
            }
            for line in book.sold
        ],
    }


def _pixel(book: Book) -> Properties:
    return {
        **_numbers(
            total=book.total,
            value=book.total,
            revenue=book.goods - book.discount,
            shipping=book.shipping,
            tax=book.tax,
            discount=book.discount,
        ),
        "products": _products(book),
    }


def _commercetools(book: Book) -> Properties:
    return {
        **_numbers(
            total=book.total,
            subtotal=book.net,
            revenue=book.net,
            discount=book.discount + book.line_discounts,
            shipping=book.shipping,
            tax=book.tax,
        ),
        "products": [{"sku": line.sku, "price": float(line.price), "quantity": line.pieces} for line in book.sold],
    }


def _ga4(book: Book, value: Decimal) -> Properties:
    items = [
        {
            "item_id": one["sku"],
            "item_name": one["sku"],
            "price": one["price"],
            "quantity": one["quantity"],
            "discount": 1.5,
        }
        for one in _after_all(book)
    ]
    return {**_numbers(value=value, tax=book.tax, shipping=book.shipping), "transaction_id": "o-1", "items": items}


def _in_full_lines(book: Book) -> list[Properties]:
    """Totals of lines written as prices, beside their pieces."""
    return [
        {"sku": line.sku, "price": float(line.price * line.pieces - line.discount), "quantity": line.pieces}
        for line in book.sold
    ]


def _bundle(book: Book) -> list[Properties]:
    """The whole order as one bundle, and its parts beside it."""
    return [{"sku": "BUNDLE", "price": float(book.goods), "quantity": 1}, *_products(book)]


ONLY_SETTING: Final = {
    "discount": "gross or net subtotal beside a discount, without a total",
    "inside": "tax inside prices that no total ties together",
    "gift card": "a gift card reported as discount",
    "shipping": "tax on shipping",
    "cents": "everything in cents",
}
"""What an event cannot tell at all, and only the setting can."""

NET_PRICES: Final = Kind(inside=False)
STYLES: Final[tuple[Style, ...]] = (
    Style("segment", "Segment's specification as it reads since 2024-04-16", "subtotal", _spec),
    Style(
        "segment, old revenue",
        "revenue before the discount",
        "subtotal",
        lambda book: _spec(book, revenue=book.goods),
        NET_PRICES,
    ),
    Style("segment, no subtotal", "total, revenue, shipping, tax", "revenue", lambda book: _spec(book, subtotal=None)),
    Style(
        "segment, old revenue, no subtotal",
        "total, revenue before the discount",
        "revenue-discount",
        lambda book: _spec(book, subtotal=None, revenue=book.goods),
        NET_PRICES,
    ),
    Style(
        "segment, no products",
        "subtotal, total, shipping, tax",
        "subtotal",
        lambda book: {name: value for name, value in _spec(book).items() if name != "products"},
    ),
    Style(
        "total, tax and shipping",
        "nothing but those",
        "total-tax-shipping",
        lambda book: _numbers(total=book.total, tax=book.tax, shipping=book.shipping_net),
    ),
    Style(
        "total and tax, free shipping",
        "a shop that never charges shipping and tells none",
        "total-tax",
        lambda book: _spec(book, subtotal=None, revenue=None, shipping=None),
        Kind(charged_shipping=False),
    ),
    Style(
        "subtotal before the discount, with a total",
        "subtotal is the lines",
        "subtotal-discount",
        lambda book: _spec(book, subtotal=book.goods, revenue=None),
        NET_PRICES,
    ),
    Style(
        "subtotal before the discount, no total",
        "subtotal is the lines",
        "subtotal-discount",
        lambda book: _spec(book, subtotal=book.goods, revenue=None, total=None, tax=None, shipping=None),
        NET_PRICES,
        ONLY_SETTING["discount"],
    ),
    Style(
        "subtotal after the discount, no total",
        "subtotal is the lines less the discount",
        "subtotal",
        lambda book: _spec(book, revenue=None, total=None, tax=None, shipping=None),
        NET_PRICES,
    ),
    Style(
        "lines and subtotal after the discount, no total",
        "the discount is told for information",
        "subtotal",
        lambda book: {**_spec(book, revenue=None, total=None, tax=None, shipping=None), "products": _after_all(book)},
        NET_PRICES,
        ONLY_SETTING["discount"],
    ),
    Style(
        "revenue alone, as it reads today",
        "after the discount, beside tax and shipping",
        "revenue",
        lambda book: _spec(book, subtotal=None, total=None),
        NET_PRICES,
    ),
    Style(
        "revenue alone, as it read before",
        "before the discount",
        "revenue-discount",
        lambda book: _spec(book, subtotal=None, total=None, revenue=book.goods),
        NET_PRICES,
        ONLY_SETTING["discount"],
    ),
    Style(
        "revenue with tax and shipping",
        "as Universal Analytics had it",
        "revenue-tax-shipping",
        lambda book: _spec(book, subtotal=None, total=None, revenue=book.total),
        NET_PRICES,
    ),
    Style(
        "revenue with tax and shipping, prices with tax",
        "as Universal Analytics had it, in Europe",
        "revenue-tax-shipping",
        lambda book: _spec(book, subtotal=None, total=None, revenue=book.total),
        Kind(inside=True),
        ONLY_SETTING["inside"],
    ),
    Style("shopify pixel", "RudderStack's pixel source, prices without tax", "revenue", _pixel, NET_PRICES),
    Style(
        "shopify pixel, prices with tax",
        "RudderStack's pixel source, shipping without tax",
        "total-tax-shipping",
        _pixel,
        Kind(inside=True, taxed_shipping=False),
    ),
    Style(
        "shopify pixel, prices and shipping with tax, free shipping",
        "RudderStack's pixel source",
        "revenue-tax",
        _pixel,
        Kind(inside=True, charged_shipping=False),
    ),
    Style(
        "shopify webhook of RudderStack",
        "value is the total, tax, products",
        "lines",
        lambda book: {**_numbers(value=book.total, tax=book.tax), "products": _products(book)},
        Kind(inside=False, discounts=False, taxed_shipping=False),
    ),
    Style("shopify order", "Shopify's own webhook, prices without tax", "subtotal", _shopify, NET_PRICES),
    Style(
        "littledata",
        "Shopify by Littledata: revenue before discounts",
        "subtotal",
        lambda book: _spec(book, revenue=book.goods),
        NET_PRICES,
    ),
    Style(
        "commercetools",
        "prices as in the catalogue, subtotal net",
        "subtotal",
        _commercetools,
        Kind(taxed_shipping=False),
    ),
    Style(
        "commercetools, shipping with tax",
        "shipping contains its tax",
        "subtotal",
        _commercetools,
        Kind(inside=True, taxed_shipping=True, one_rate=True),
    ),
    Style("woocommerce", "WooCommerce's order", "total-tax-shipping", _woocommerce),
    Style("magento", "Magento's order", "total-tax-shipping", _magento, Kind(inside=False, line_discounts=False)),
    Style("bigcommerce", "BigCommerce's order", "subtotal-discount", _bigcommerce),
    Style("ga4", "value is the sum of the items", "value", lambda book: _ga4(book, book.net), NET_PRICES),
    Style(
        "ga4, value is the total",
        "with tax and shipping",
        "value-tax-shipping",
        lambda book: _ga4(book, book.total),
        NET_PRICES,
    ),
    Style(
        "ga4, prices with tax",
        "value and items contain the tax",
        "value-tax",
        lambda book: _ga4(book, book.goods - book.discount),
        Kind(inside=True, taxed_shipping=False, tax=True),
        ONLY_SETTING["inside"],
    ),
    Style(
        "ga4, prices with tax, value is the total",
        "value contains tax and shipping",
        "value-tax-shipping",
        lambda book: _ga4(book, book.total),
        Kind(inside=True, taxed_shipping=False),
        ONLY_SETTING["inside"],
    ),
    Style(
        "prices with tax, subtotal with tax",
        "total, subtotal and lines contain the tax",
        "total-tax-shipping",
        lambda book: _spec(book, subtotal=book.goods - book.discount, revenue=None),
        Kind(inside=True, taxed_shipping=False),
    ),
    Style(
        "prices with tax, subtotal without",
        "the lines contain the tax",
        "subtotal",
        lambda book: _spec(book, revenue=None),
        Kind(inside=True),
    ),
    Style(
        "prices with tax, subtotal with tax, no total",
        "nothing ties the tax to the prices",
        "subtotal-tax",
        lambda book: _spec(book, subtotal=book.goods - book.discount, revenue=None, total=None, shipping=None),
        Kind(inside=True, taxed_shipping=False, tax=True),
        ONLY_SETTING["inside"],
    ),
    Style(
        "shipping with tax, told with it",
        "the tax on shipping is in both shipping and tax",
        "subtotal",
        lambda book: _spec(book, shipping=book.shipping_gross),
        Kind(taxed_shipping=True, charged_shipping=True),
        ONLY_SETTING["shipping"],
    ),
    Style(
        "lines alone",
        "products and the order's discount",
        "lines-discount",
        lambda book: {**_numbers(discount=_told(book.discount)), "products": _products(book)},
        NET_PRICES,
    ),
    Style(
        "lines alone, with tax",
        "products with tax, and the tax",
        "lines-discount-tax",
        lambda book: {**_numbers(discount=_told(book.discount), tax=book.tax), "products": _products(book)},
        Kind(inside=True, taxed_shipping=False, tax=True),
        ONLY_SETTING["inside"],
    ),
    Style(
        "discounts of lines, told for the order again",
        "the order's discount is the sum of the lines'",
        "lines-discount",
        lambda book: {**_numbers(discount=_told(book.line_discounts)), "products": _products(book)},
        Kind(inside=False, discounts=False, line_discounts=True),
    ),
    Style(
        "one product",
        "a track whose properties are those of one product",
        "lines",
        lambda book: _products(book)[0],
        Kind(inside=False, discounts=False, one_line=True),
    ),
    Style(
        "gift card",
        "the total is what was paid after a gift card",
        "subtotal",
        lambda book: _spec(book, total=max(ZERO, book.total - book.tax - _rounded(book.net / 2, book.unit))),
        NET_PRICES,
    ),
    Style(
        "gift card told as discount",
        "it cannot be told from a discount",
        "subtotal",
        lambda book: _spec(
            book, total=book.total - _rounded(book.net / 4, book.unit), discount=_rounded(book.net / 4, book.unit)
        ),
        Kind(inside=False, discounts=False),
        ONLY_SETTING["gift card"],
    ),
    Style(
        "fee in the total",
        "cash on delivery, nowhere told",
        "subtotal",
        lambda book: _spec(book, total=book.total + 4),
        NET_PRICES,
    ),
    Style(
        "free shipping by discount",
        "shipping is told, and taken off again",
        "subtotal",
        lambda book: _spec(book, shipping=Decimal(5), discount=Decimal(5)),
        Kind(inside=False, charged_shipping=False, discounts=False),
    ),
    Style("texts", "numbers as text", "subtotal", lambda book: _in_words(_spec(book), _plain)),
    Style("texts with a decimal comma", "1.234,50", "subtotal", lambda book: _in_words(_spec(book), _comma)),
    Style("texts with dollars", "$1,234.50", "subtotal", lambda book: _in_words(_spec(book), _dollars)),
    Style("cents", "everything in cents", "subtotal/100", _cents, Kind(), ONLY_SETTING["cents"]),
    Style(
        "prices in cents",
        "only those of the lines",
        "subtotal",
        lambda book: {**_spec(book), "products": _products(book, price=lambda line: line.price * 100)},
    ),
    Style(
        "negative discount",
        "what is taken off has a minus",
        "subtotal",
        lambda book: _spec(book, discount=-book.discount),
    ),
    Style(
        "discounts in a list",
        "two codes with their amounts",
        "subtotal",
        lambda book: {
            **_spec(book, discount=None),
            "discount": [{"code": "A", "amount": _plain(float(book.discount))}, {"code": "B", "amount": "0.00"}],
        },
    ),
    Style(
        "totals of lines as prices",
        "beside their pieces",
        "subtotal",
        lambda book: {**_spec(book), "products": _in_full_lines(book)},
    ),
    Style("bundle and its parts", "both priced", "subtotal", lambda book: {**_spec(book), "products": _bundle(book)}),
    Style(
        "products as JSON text",
        "as tag managers write lists",
        "subtotal",
        lambda book: {**_spec(book), "products": json.dumps(_products(book))},
    ),
)


class Measured(msgspec.Struct, frozen=True):
    """How the orders of a style came out."""

    style: Style
    results: Counter[Result]
    examples: list[str]

    def share(self, result: Result) -> float:
        """The share of a result, in percent."""
        return 100 * self.results[result] / self.results.total()


def books_of(style: Style, count: int = ORDERS) -> Iterator[Book]:
    """The same books for the same style, always."""
    chance = Random(style.name)
    return (make_book(chance, style.kind) for _ in range(count))


def measure(style: Style, convention: str = "auto", count: int = ORDERS) -> Measured:
    """Write the books in the style, send them, and compare what is booked with the books."""
    config = {"accountSID": "IRbooks", "apiKey": "token", "campaignId": "1", "orderAmount": convention}
    destination = compile_destination(config, load_manifest().configuration)
    results: Counter[Result] = Counter()
    examples: list[str] = []
    for book in books_of(style, count):
        properties = {"order_id": "o-1", "currency": book.currency, **style.write(book)}
        event = {"type": "track", "event": "Order Completed", "anonymousId": "a", "timestamp": "2026-03-01T12:00:00Z"}
        outcome = transform(decode_event(msgspec.json.encode({**event, "properties": properties})), destination)
        assert isinstance(outcome, Send), outcome  # noqa: S101 - no order of a book is ever refused
        told = DOUBTS & {notice.reason for notice in outcome.notices}
        right = booked(outcome.request.form) == _rounded(book.net, CENT)
        result = RESULTS[bool(told) if right else 2 if told else 3]
        results[result] += 1
        if not right:
            examples.append(f"{style.name}: booked {booked(outcome.request.form)} for {book.net}: {properties}")
    return Measured(style, results, examples)


def booked(form: Mapping[str, str]) -> Decimal:
    """What impact.com adds up: the items less the order's discount, or the order's amount."""
    numbers = range(1, sum(name.startswith("ItemSku") for name in form) + 1)
    if not numbers:
        return Decimal(form.get("OrderSubTotalPostDiscount", "NaN"))
    whole = (Decimal(form.get(f"ItemPrice{number}", 0)) * int(form[f"ItemQuantity{number}"]) for number in numbers)
    shares = (Decimal(form.get(f"ItemSubTotal{number}", 0)) for number in numbers)
    return sum(whole, ZERO) + sum(shares, ZERO) - Decimal(form.get("OrderDiscount", 0))
