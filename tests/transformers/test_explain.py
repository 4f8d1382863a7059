"""``explain`` shows the working of the very transform that runs, not of another one."""

from typing import Any, Final

import msgspec
import pytest

from impact_transformers import (
    Explanation,
    Reason,
    Reject,
    Send,
    Skip,
    decode_event,
    decode_object,
    explain,
    transform,
)
from impact_transformers.trail import Step, Try
from tests import builders
from tests.builders import compiled

TIME: Final = "2026-03-01T12:00:00Z"


def explained(event: dict[str, Any], **settings: Any) -> Explanation:
    """Explain one event under the smallest configuration with these settings added."""
    raw = msgspec.json.encode(event)
    destination = compiled(**settings)
    found = explain(decode_event(raw), destination, decode_object(raw))
    assert transform(decode_event(raw), destination, decode_object(raw)) == found.outcome
    return found


def step(found: Explanation, parameter: str) -> Step:
    """Return the one step of a parameter."""
    (only,) = [one for one in found.steps if one.parameter == parameter]
    return only


def order(**properties: Any) -> dict[str, Any]:
    """Make an order with these properties, and no others."""
    return builders.order(visitor="a", timestamp=TIME, properties=properties)


def test_the_path_that_won_and_those_tried_before() -> None:
    """A step lists the paths in the order tried, what was found there, and which one gave the value."""
    found = step(explained(order(orderId="o-1", order_id="")), "OrderId")
    tries = (Try("properties.order_id", found=False), Try("properties.orderId", found=True, result="o-1"))

    assert Step("OrderId", "order_id", tries, "o-1") == found
    assert "properties.orderId" == found.path


def test_found_but_of_no_use() -> None:
    """A value that the rule cannot use is shown as found, without a result."""
    found = step(explained({**order(order_id="o-1"), "timestamp": "yesterday", "sentAt": TIME}), "EventDate")

    assert Try("timestamp", found=True) == found.tries[0]
    assert "sentAt" == found.path


def test_nothing_found() -> None:
    """A parameter that no path gave a value has a step without one."""
    found = step(explained(order(order_id="o-1")), "OrderPromoCode")

    assert (None, None) == (found.value, found.path)
    assert ["properties.coupon", "properties.promo_code", "properties.coupon_id"] == [one.path for one in found.tries]


def test_what_was_left_out_is_where_it_happened() -> None:
    """A value that must not be sent is shown at its path, with the reason; the next path is tried."""
    found = step(explained(order(order_id="o-1", currency="EURO", currency_code="EUR")), "CurrencyCode")
    refused = Try("properties.currency", found=True, refused="'EURO' is not an ISO-4217 currency code")

    assert (refused, "EUR", "properties.currency_code") == (found.tries[0], found.value, found.path)


def test_what_is_sent_instead_is_shown() -> None:
    """An order id that is too long is sent as its digest, and the step says why."""
    found = explained(order(order_id="o" * 65))
    only = step(found, "OrderId").tries[0]

    assert isinstance(found.outcome, Send)
    assert found.outcome.request.form["OrderId"] == only.result
    assert "has 65 characters, over 64; its digest is sent" == only.refused


@pytest.mark.parametrize(
    ("properties", "parameter", "path"),
    [
        ({"order_id": "o-1", "subtotal": "x"}, "subtotal", "properties.subtotal"),
        ({"order_id": "o-1", "total_price": 1e15}, "total", "properties.total_price"),
        (
            {"order_id": "o-1", "products": [{"sku": "S"}, {"sku": "S", "price": 1e15}]},
            "ItemPrice",
            "products[1].price",
        ),
        (
            {"order_id": "o-1", "products": [{"sku": "S", "price": 9e13, "quantity": 9}]},
            "ItemPrice1",
            "properties.products",
        ),
        ({"subtotal": 1}, "OrderId", "properties.order_id"),
    ],
)
def test_a_reject_names_parameter_and_path(properties: dict[str, Any], parameter: str, path: str) -> None:
    """Whoever reads the reject knows which parameter and which place in the event to look at."""
    outcome = explained(order(**properties)).outcome

    assert isinstance(outcome, Reject)
    assert (parameter, path) == (outcome.parameter, outcome.path)
    assert outcome.detail
    assert outcome.fix


def test_a_reject_has_the_steps() -> None:
    """What was tried for an order that was rejected is shown as far as it went."""
    found = explained(order(order_id="o-1", subtotal="x"))

    assert Reason.INVALID_AMOUNT == getattr(found.outcome, "reason", None)
    assert "is text in which no number can be read" == step(found, "subtotal").tries[0].refused


@pytest.mark.parametrize(
    "properties",
    [
        {"order_id": "buyer@example.com"},
        {"order_id": "o-1", "currency": "buyer@example.com"},
        {"order_id": "o-1", "note": "buyer@example.com"},
        {"order_id": "o-1", "subtotal": "buyer@example.com"},
        {"order_id": "o-1", "coupon": ["buyer@example.com", "X"]},
    ],
)
def test_nothing_that_is_told_repeats_an_email(properties: dict[str, Any]) -> None:
    """Rejects and notices are logged: no address stands in their details."""
    rows = [{"from": "properties.note", "to": "Text1"}]
    outcome = explained(order(**properties), rudderToImpactProperty=rows).outcome
    details = [notice.detail for notice in outcome.notices] if isinstance(outcome, Send) else [str(outcome)]

    assert [] == [detail for detail in details if "@" in detail]


def test_defaults_have_a_note() -> None:
    """What no path gave is marked as decided or default."""
    page = explained({"type": "page", "anonymousId": "a"})
    lead = explained({**order(), "event": "Signed Up"}, eventTypes={"Signed Up": {"code": "SIGNUP", "kind": "lead"}})

    assert ("NOW", "default") == (step(page, "EventDate").value, step(page, "EventDate").note)
    assert ("SIGNUP", "decided") == (step(lead, "EventTypeCode").value, step(lead, "EventTypeCode").rule)
    assert "derived from the messageId" == step(lead, "OrderId").note


def test_a_default_quantity_is_shown() -> None:
    """The quantity of a product that names none is 1, and is shown."""
    found = step(explained(order(order_id="o-1", products=[{"sku": "S", "price": 1}])), "ItemQuantity1")

    assert ("1", "default") == (found.value, found.note)


def test_the_amount_is_explained() -> None:
    """The step and its evidence are told, with the order's amount or with the items that sum to it."""
    amount = "step 1: subtotal 22.50 is total - tax - shipping"
    whole = explained(order(order_id="o-1", subtotal=22.5, total=27.5, tax=2, shipping=3))
    product = {"sku": "S", "price": 25}
    adjusted = explained(order(order_id="o-1", subtotal=22.5, total=27.5, tax=2, shipping=3, products=[product]))

    assert [amount, amount] == [whole.amount, adjusted.amount]
    assert ("22.50", amount) == (
        step(whole, "OrderSubTotalPostDiscount").value,
        step(whole, "OrderSubTotalPostDiscount").note,
    )
    assert ("22.50", amount) == (step(adjusted, "ItemSubTotal1").value, step(adjusted, "ItemSubTotal1").note)
    assert (None, "read, not sent") == (step(adjusted, "ItemPrice1").value, step(adjusted, "ItemPrice1").note)


def test_what_was_left_out_on_purpose() -> None:
    """The order's discount is sent only where the items need it, and the steps say so."""
    needed = explained(order(order_id="o-1", subtotal=4, discount=1, products=[{"sku": "S", "price": 5}]))
    not_needed = explained(order(order_id="o-1", subtotal=4, discount=1))

    assert "1.00" == step(needed, "OrderDiscount").value
    assert step(needed, "OrderSubTotalPostDiscount").value is None
    assert (None, "read, not sent") == (step(not_needed, "OrderDiscount").value, step(not_needed, "OrderDiscount").note)


def test_an_amount_beside_the_items_is_left_out() -> None:
    """An older parameter for the order's amount would be counted beside the items."""
    rows = [{"from": "properties.gross", "to": "OrderSubTotalPreDiscount"}]
    event = order(order_id="o-1", gross=9, currency="EUR", products=[{"sku": "S", "price": 5}])
    found = explained(event, rudderToImpactProperty=rows)

    assert isinstance(found.outcome, Send)
    assert ["OrderSubTotalPreDiscount"] == [notice.parameter for notice in found.outcome.notices]
    assert "must not stand beside" in (step(found, "OrderSubTotalPreDiscount").note or "")


def test_what_denied_consent_leaves_out() -> None:
    """The hash of the e-mail is shown as left out, with the reason."""
    event = {**order(order_id="o-1"), "traits": {"email": "buyer@example.com"}, "context": {"consent": False}}
    found = step(explained(event, consentPaths=["context.consent"]), "CustomerEmail")

    assert (None, "left out: the visitor denied consent") == (found.value, found.note)


def test_a_clock_that_is_ahead() -> None:
    """The time of the receipt stands for one that is later, and the step says so."""
    found = step(explained({**order(order_id="o-1"), "receivedAt": "2026-03-01T11:00:00Z"}), "EventDate")

    assert ("2026-03-01T11:00:00Z", "when it was received, which was before that") == (found.value, found.note)


def test_custom_rows_are_explained() -> None:
    """A parameter of the operator's own has a step with its path."""
    rows = [{"from": "properties.profit", "to": "Money1"}]
    found = step(explained(order(order_id="o-1", profit=3), rudderToImpactProperty=rows), "Money1")

    assert Step("Money1", "money", (Try("properties.profit", found=True, result="3.00"),), "3.00") == found


@pytest.mark.parametrize(
    ("event", "settings", "kind"),
    [
        ({"type": "group"}, {}, Skip),
        ({"type": "page"}, {"enablePageEvents": False}, Skip),
        ({}, {}, Reject),
        ({"type": "page", "anonymousId": "a"}, {"campaignId": "{{ event.nowhere }}"}, Reject),
    ],
)
def test_no_table_no_steps(event: dict[str, Any], settings: dict[str, Any], kind: type) -> None:
    """Where no table was consulted there are no steps."""
    found = explained(event, **settings)

    assert isinstance(found.outcome, kind)
    assert () == found.steps


@pytest.mark.parametrize("path", ["properties.ﬁ.x", "properties.class.x", "properties.größe.x", "traits.__init__.x"])
def test_odd_keys_are_explained_like_others(path: str) -> None:
    """Keys that Python reads in a way of its own are still only keys."""
    _, key, _ = path.split(".")
    event = {**order(order_id="o-1", **{key: {"x": "v"}}), "traits": {key: {"x": "v"}}}
    found = explained(event, rudderToImpactProperty=[{"from": path, "to": "Text1"}])

    assert isinstance(found.outcome, Send)
    assert "v" == found.outcome.request.form["Text1"]
    assert "v" == step(found, "Text1").value
