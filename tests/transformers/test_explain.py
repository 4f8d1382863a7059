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

    assert Step("OrderId", "identifier", tries, "o-1") == found
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


def test_a_refusal_is_where_it_happened() -> None:
    """The reject names the parameter and the path, and so do the steps."""
    found = explained(order(order_id="o" * 65))
    refused = step(found, "OrderId").tries[-1]

    assert isinstance(found.outcome, Reject)
    assert (Reason.TOO_LONG, "OrderId", "properties.order_id") == (
        found.outcome.reason,
        found.outcome.parameter,
        found.outcome.path,
    )
    assert "properties.order_id" == refused.path
    assert found.outcome.detail == refused.refused
    assert found.outcome.fix


@pytest.mark.parametrize(
    ("settings", "properties", "parameter", "path"),
    [
        ({}, {"order_id": "o-1", "currency": "EURO"}, "CurrencyCode", "properties.currency"),
        ({}, {"order_id": "o-1", "tax": 1e15}, "OrderTax", "properties.tax"),
        ({}, {"order_id": "o-1", "products": [{"sku": "S", "price": 1e15}]}, "ItemPrice1", "price"),
        ({}, {"order_id": "o-1", "products": [{"sku": "S"}]}, "ItemSku1", "properties.products"),
        ({}, {"subtotal": 1}, "OrderId", "properties.order_id"),
    ],
)
def test_a_reject_names_parameter_and_path(
    settings: dict[str, Any], properties: dict[str, Any], parameter: str, path: str
) -> None:
    """Whoever reads the reject knows which parameter and which place in the event to look at."""
    outcome = explained(order(**properties), **settings).outcome

    assert isinstance(outcome, Reject)
    assert (parameter, path) == (outcome.parameter, outcome.path)


def test_a_reject_for_an_email_names_the_path() -> None:
    """The fix says that the error names the path of the address; so it must."""
    rows = [{"from": "properties.note", "to": "Text1"}]
    outcome = explained(order(order_id="o-1", note="buyer@example.com"), rudderToImpactProperty=rows).outcome

    assert isinstance(outcome, Reject)
    assert ("Text1", "properties.note") == (outcome.parameter, outcome.path)


@pytest.mark.parametrize(
    "properties",
    [
        {"order_id": "buyer@example.com"},
        {"order_id": "o-1", "currency": "buyer@example.com"},
        {"order_id": "o-1", "note": "buyer@example.com"},
    ],
)
def test_a_reject_never_repeats_an_email(properties: dict[str, Any]) -> None:
    """Rejects are logged: no address stands in their detail."""
    rows = [{"from": "properties.note", "to": "Text1"}]
    outcome = explained(order(**properties), rudderToImpactProperty=rows).outcome

    assert isinstance(outcome, Reject)
    assert "@" not in outcome.detail


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


def test_what_was_left_out_on_purpose() -> None:
    """Items and an order amount are never sent together, and the steps say which was left out."""
    with_items = explained(order(order_id="o-1", subtotal=5, discount=1, products=[{"sku": "S", "price": 5}]))
    fallen_back = explained(order(order_id="o-1", subtotal=5, discount=1, products=[{"sku": "S"}]))

    assert step(with_items, "OrderSubTotalPostDiscount").value is None
    assert "never sent together" in (step(with_items, "OrderSubTotalPostDiscount").note or "")
    assert "1.00" == step(with_items, "OrderDiscount").value
    assert "5.00" == step(fallen_back, "OrderSubTotalPostDiscount").value
    assert step(fallen_back, "OrderDiscount").value is None
    assert step(fallen_back, "ItemSku1").value is None


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
