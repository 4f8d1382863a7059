"""The recorded day's orders of other shop systems: booked for what was sold, or told where nothing can say it."""

from collections.abc import Callable
from random import Random
from typing import Any, Final

import msgspec
import pytest

import day_orders
from day_orders import Basket, Sold
from impact_plugin.config.manifest import load_manifest
from impact_plugin.traffic.replay import cents_of
from impact_transformers import NoticeReason, Send, compile_destination, decode_event, transform
from make_day import DESTINATION_CONFIG, read_day

DESTINATION: Final = compile_destination(DESTINATION_CONFIG, load_manifest().configuration)


def basket(number: int) -> Basket:
    """Something sold at random, the same for the same number."""
    chance = Random(number)  # noqa: S311 - baskets, not secrets
    sold = tuple(
        Sold(str(1000 + at), f"Article {at}", chance.randint(100, 20_000), "Brand", "Shoes", chance.randint(1, 3))
        for at in range(chance.randint(1, 4))
    )
    goods = sum(line.cents * line.pieces for line in sold)
    discount = goods // 10 if chance.random() < 0.5 else 0
    shipping, tax = chance.choice((0, 490)), (goods - discount) * 19 // 100
    return Basket(str(7_000 + number), sold, discount, shipping, tax, "EUR", "AUTUMN10" if discount else "")


def sent(name: str, properties: dict[str, Any]) -> Send:
    """The request for an order with these properties."""
    event = {"type": "track", "event": name, "messageId": "m", "anonymousId": "a", "properties": properties}
    outcome = transform(decode_event(msgspec.json.encode(event)), DESTINATION, event)
    assert isinstance(outcome, Send)
    return outcome


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("Order Completed", day_orders.shopify_pixel),
        ("Order Completed", day_orders.shopify_littledata),
        ("Order Completed", day_orders.woocommerce),
        ("Order Completed", day_orders.magento),
    ],
)
def test_what_was_sold_is_booked(name: str, write: Callable[[Basket], dict[str, Any]]) -> None:
    """To the cent, under the number that the system gave the order."""
    for one in map(basket, range(100)):
        form = sent(name, write(one)).request.form
        assert (one.net, one.number) == (cents_of(form), form["OrderId"])


def test_a_purchase_is_booked_at_the_prices_of_its_items() -> None:
    """They are after the discount; what of it does not divide by the pieces stays with the shop."""
    for one in map(basket, range(100)):
        booked = cents_of(sent("purchase", day_orders.ga4(one)).request.form)
        assert booked is not None
        assert 0 <= booked - one.net < 20


def test_a_webhook_that_tells_no_shipping_is_noticed() -> None:
    """Nothing in it says whether the rest is shipping or goods."""
    for one in map(basket, range(100)):
        outcome = sent("Order Created", day_orders.shopify_webhook(one))
        noticed = NoticeReason.AMOUNTS_DISAGREE in {notice.reason for notice in outcome.notices}
        assert noticed or cents_of(outcome.request.form) == one.net


def test_the_day_has_orders_of_every_system() -> None:
    """Each becomes a conversion with an amount."""
    orders: dict[str, list[int | None]] = {}
    for event in read_day():
        properties = event.get("properties") or {}
        if event.get("event") in {"Order Completed", "Order Created", "purchase"} and day_orders.dialect_of(properties):
            form = sent(event["event"], properties).request.form
            orders.setdefault(day_orders.dialect_of(properties), []).append(cents_of(form))

    assert {name for name, _ in day_orders.SIGNATURES} == set(orders)
    assert all(amount for amounts in orders.values() for amount in amounts)
