"""Where this differs from RudderStack's built-in IMPACT destination on purpose: one test a difference.

docs/migrating-from-rudderstack.md cites these tests by name.
"""

import hashlib
from typing import Any, Final

import msgspec
import pytest

from impact_transformers import (
    Outcome,
    Reject,
    Send,
    Skip,
    decode_event,
    decode_object,
    transform,
)
from tests.builders import compiled

STOCK: Final[dict[str, Any]] = {
    "accountSID": "IRexample",
    "apiKey": "token-of-tests",
    "campaignId": "1000",
    "impactAppId": "31415",
    "eventTypeId": "2000",
    "enableEmailHashing": False,
    "enableIdentifyEvents": True,
    "enablePageEvents": True,
    "enableScreenEvents": True,
    "rudderToImpactProperty": [{"from": "", "to": ""}],
    "productsMapping": [{"from": "", "to": ""}],
    "actionEventNames": [{"eventName": "Subscribed"}],
    "installEventNames": [{"eventName": ""}],
    "connectionMode": {"web": "cloud"},
    "consentManagement": {"web": []},
}
"""A configuration as RudderStack's form saves it for its own destination."""

BUYER: Final = hashlib.sha1(b"buyer@example.com", usedforsecurity=False).hexdigest()
BUYER_SHA256: Final = hashlib.sha256(b"buyer@example.com").hexdigest()


def outcome_of(event: dict[str, Any], **settings: Any) -> Outcome:
    """Do with the event what the configuration of the built-in destination asks for."""
    raw = msgspec.json.encode({"anonymousId": "a", "messageId": "m-1", "timestamp": "2026-03-01T12:00:00Z", **event})
    destination = compiled(STOCK, **settings)
    return transform(decode_event(raw), destination, decode_object(raw))


def sent(event: dict[str, Any], **settings: Any) -> dict[str, str]:
    """Return the form that the event becomes."""
    outcome = outcome_of(event, **settings)
    assert isinstance(outcome, Send)
    return outcome.request.form


def order(**properties: Any) -> dict[str, Any]:
    """Make an order with these properties."""
    return {"type": "track", "event": "Order Completed", "properties": {"order_id": "o-1", **properties}}


def page(**more: Any) -> dict[str, Any]:
    """Make a page call."""
    return {"type": "page", **more}


def test_the_built_in_configuration_is_accepted_whole() -> None:
    """An operator switches by changing one URL: the stock configuration works as it was saved."""
    assert "2000" == sent(order())["EventTypeId"]


@pytest.mark.parametrize("event", [page(), order(), {"type": "track", "event": "Product Viewed"}, {"type": "identify"}])
@pytest.mark.parametrize(
    ("email", "expected"),
    [
        ("buyer@example.com", BUYER),
        (" Buyer@Example.COM ", BUYER),
        (BUYER, BUYER),
        (BUYER.upper(), BUYER),
    ],
)
def test_emails_are_always_hashed(event: dict[str, Any], email: str, expected: str) -> None:
    """Stripped, lower-cased, SHA-1, in every call and whatever the toggle says; hashed values pass unhashed."""
    assert expected == sent({**event, "traits": {"email": email}})["CustomerEmail"]


def test_a_sha256_is_sent_where_it_is_documented() -> None:
    """impact.com takes SHA-256 in Conversions; for Page Loads only SHA-1 is documented."""
    traits = {"email": BUYER_SHA256}

    assert sent({**order(), "traits": traits})["CustomerEmail"] == BUYER_SHA256
    assert "CustomerEmail" not in sent({**page(), "traits": traits})


@pytest.mark.parametrize("email", [7, True, ["buyer@example.com"], {"a": "b"}, None])
def test_an_email_that_is_no_text_harms_nothing(email: Any) -> None:
    """The built-in calls trim() on it and fails the order; here the order goes out without it."""
    assert "CustomerEmail" not in sent({**order(), "traits": {"email": email}})


def test_application_installed_is_spelled_right() -> None:
    """The built-in looks for 'Applcation Installed'; here the event of the specification is an install."""
    installed = sent({"type": "track", "event": "Application Installed"})

    assert "Application Installed" == installed["EventTypeCode"]
    assert "OrderId" not in sent({"type": "track", "event": "Applcation Installed"})


def test_the_event_type_of_actions_is_not_that_of_installs() -> None:
    """The built-in sends installs to the event type of orders; here they have an entry, or their name as code."""
    event = {"type": "track", "event": "Application Installed"}

    assert "3000" == sent(event, eventTypes={"Application Installed": {"id": "3000", "kind": "install"}})["EventTypeId"]
    assert "EventTypeId" not in sent(event, eventTypeId="2000")


@pytest.mark.parametrize("name", ["Completed Order", "order_completed", "OrderCompleted", "COMPLETED_ORDER"])
def test_order_completed_by_any_name(name: str) -> None:
    """Libraries write the event of the specification in many ways; the built-in knows one."""
    assert "2000" == sent({**order(), "event": name})["EventTypeId"]


@pytest.mark.parametrize("name", ["Order Refunded", "order_cancelled", "Updated Order", "Order Canceled"])
def test_what_happens_after_the_sale_is_no_visit(name: str) -> None:
    """The built-in sends a refund as a visit of the customer, or as another order."""
    outcome = outcome_of({**order(), "event": name})

    assert isinstance(outcome, Skip)
    assert "after_sale" == outcome.reason


def test_several_event_types_a_destination() -> None:
    """Each event may have an event type of its own; the destination's id serves the others."""
    types = {"Subscribed": {"code": "SUB"}, "Renewed": "3000"}
    event = {"type": "track", "properties": {"order_id": "o-1"}}

    assert "SUB" == sent({**event, "event": "Subscribed"}, eventTypes=types)["EventTypeCode"]
    assert "3000" == sent({**event, "event": "Renewed"}, eventTypes=types)["EventTypeId"]
    assert "2000" == sent({**event, "event": "Order Completed"}, eventTypes=types)["EventTypeId"]


@pytest.mark.parametrize(("event_type_id", "expected"), [("2000", {"EventTypeId"}), ("", {"EventTypeCode"})])
def test_exactly_one_of_id_and_code_is_sent(event_type_id: str, expected: set[str]) -> None:
    """The built-in sends both, and an empty id as empty; here it is one of the two."""
    assert expected == {"EventTypeId", "EventTypeCode"} & set(sent(order(), eventTypeId=event_type_id))


@pytest.mark.parametrize("event", ["Application Installed", "First Launch", "Signed Up"])
def test_installs_and_leads_get_a_deterministic_order_id(event: str) -> None:
    """Without an order id the built-in rejects them; here a repeat of the message has the same id."""
    settings = {"installEventNames": [{"eventName": "First Launch"}], "eventTypes": {"Signed Up": {"kind": "lead"}}}
    call = {"type": "track", "event": event, "messageId": "m-7"}

    assert sent(call, **settings)["OrderId"] == sent({**call, "sentAt": "2026-03-02T12:00:00Z"}, **settings)["OrderId"]
    assert sent(call, **settings)["OrderId"] != sent({**call, "messageId": "m-8"}, **settings)["OrderId"]


PRODUCT: Final = {"sku": "S", "name": "N", "category": "C", "brand": "B", "price": 5, "quantity": 2, "colour": "red"}
DEFAULTS: Final = {
    "ItemSku1": "S",
    "ItemName1": "N",
    "ItemCategory1": "C",
    "ItemBrand1": "B",
    "ItemPrice1": "5.00",
    "ItemQuantity1": "2",
}


def items(**settings: Any) -> dict[str, str]:
    """Return the item parameters of an order of one product."""
    form = sent(order(products=[PRODUCT]), **settings)
    return {name: value for name, value in form.items() if name.startswith("Item")}


@pytest.mark.parametrize("rows", [[], [{"from": "", "to": ""}], None])
def test_an_empty_products_mapping_keeps_the_defaults(rows: Any) -> None:
    """The built-in sends no item at all then."""
    assert items(productsMapping=rows) == DEFAULTS


@pytest.mark.parametrize("backwards", [False, True])
def test_products_mapping_adds_to_the_defaults_in_any_order(backwards: bool) -> None:
    """Rows add to the defaults instead of erasing them, and their order does not matter."""
    rows = [{"from": "colour", "to": "ItemText{i}_1"}, {"from": "sku", "to": "ItemMpn"}]
    expected = {**DEFAULTS, "ItemText1_1": "red", "ItemMpn1": "S"}

    assert expected == items(productsMapping=rows[::-1] if backwards else rows)


def test_a_products_mapping_without_a_value_keeps_the_default() -> None:
    """The built-in erases ItemSku when the mapped field is missing."""
    assert items(productsMapping=[{"from": "variant", "to": "ItemSku"}]) == DEFAULTS


def test_item_texts_are_expressible() -> None:
    """The built-in appends the number to the end, which makes ItemText_11 of ItemText1_1."""
    assert "red" == items(productsMapping=[{"from": "colour", "to": "ItemText{i}_1"}])["ItemText1_1"]


def test_sku_falls_back_to_product_id() -> None:
    """Segment's products have a product_id always and a sku sometimes."""
    assert "P-1" == sent(order(products=[{"product_id": "P-1", "price": 1}]))["ItemSku1"]


def test_order_amounts_without_products() -> None:
    """The built-in maps no amount; without products the order's own is reported, net of the discount."""
    form = sent(order(subtotal=22.5, total=27.5, tax=2, shipping=3, discount=2.5))

    assert "22.50" == form["OrderSubTotalPostDiscount"]
    assert "OrderDiscount" not in form


def test_click_id_on_page_loads() -> None:
    """A landing page carries its click id as ClickId, which the built-in sends with actions only."""
    assert "CLICK-1" == sent(page(properties={"url": "https://shop.example.com/?im_ref=CLICK-1"}))["ClickId"]


def test_app_package_is_the_namespace() -> None:
    """The built-in sends the build number."""
    app = {"namespace": "com.example.shop", "build": "545"}
    form = sent({"type": "screen", "context": {"app": app, "device": {"id": "d"}, "os": {"name": "Android"}}})

    assert "com.example.shop" == form["AppPackage"]


def test_page_url_is_never_the_referrer() -> None:
    """A referrer as landing page would make false clicks."""
    context = {
        "page": {"referrer": "https://blog.example.com/?im_ref=no"},
        "referrer": {"url": "https://x.example.com/"},
    }
    form = sent(page(context=context))

    assert "PageUrl" not in form
    assert "ClickId" not in form


@pytest.mark.parametrize("event", [page(), order()])
@pytest.mark.parametrize("place", [{"context": {"ip": "8.8.4.4"}}, {"request_ip": "8.8.4.4"}, {"requestIp": "8.8.4.4"}])
def test_ip_address_from_every_place(event: dict[str, Any], place: dict[str, Any]) -> None:
    """Wherever the router puts the visitor's address, both requests carry it."""
    assert "8.8.4.4" == sent({**event, **place})["IpAddress"]


@pytest.mark.parametrize("place", ["request_ip", "requestIp"])
@pytest.mark.parametrize(
    "server", [{"channel": "server"}, {"channel": "sources"}, {"context": {"library": {"name": "analytics-node"}}}]
)
def test_ip_address_is_never_a_servers_own(place: str, server: dict[str, Any]) -> None:
    """The address a server library called from is the shop's, and a data centre's looks like fraud."""
    assert "IpAddress" not in sent({**order(), **server, place: "8.8.4.4"})


@pytest.mark.parametrize("event", [page(), order(subtotal=1000000, products=[PRODUCT]), {"type": "identify"}])
def test_form_values_are_text(event: dict[str, Any]) -> None:
    """The router prints JSON numbers in forms as floats, 1000000 as 1e+06."""
    assert {str} == {type(value) for value in sent({**event, "userId": 1000000}).values()}


def test_a_disabled_type_is_filtered() -> None:
    """The built-in answers 400 for each; here it is a skip, which the router counts as filtered."""
    off = {"enablePageEvents": False, "enableScreenEvents": False, "enableIdentifyEvents": False}

    assert [Skip] * 3 == [type(outcome_of({"type": kind}, **off)) for kind in ("page", "screen", "identify")]


def test_a_disabled_type_in_capitals_is_filtered() -> None:
    """The built-in compares the type as sent, so that Page passes the switch of page."""
    assert isinstance(outcome_of({"type": "Page"}, enablePageEvents=False), Skip)


@pytest.mark.parametrize("kind", ["group", "alias", "checkout"])
def test_an_unsupported_type_is_filtered(kind: str) -> None:
    """The built-in answers 400."""
    assert isinstance(outcome_of({"type": kind}), Skip)


@pytest.mark.parametrize("missing", [None, ""])
def test_a_missing_enable_flag_means_enabled(missing: Any) -> None:
    """The built-in takes a missing flag for switched off."""
    flags = dict.fromkeys(("enablePageEvents", "enableScreenEvents", "enableIdentifyEvents"), missing)

    assert [Send] * 3 == [type(outcome_of({"type": kind}, **flags)) for kind in ("page", "screen", "identify")]


def test_an_event_named_both_install_and_action_is_one_conversion() -> None:
    """The built-in sends two with one order id; here it is one, the action, and needs an order id of its own."""
    names = {"actionEventNames": [{"eventName": "Subscribed"}], "installEventNames": [{"eventName": "Subscribed"}]}
    event = {"type": "track", "event": "Subscribed"}

    assert "o-1" == sent({**event, "properties": {"order_id": "o-1"}}, **names)["OrderId"]
    assert isinstance(outcome_of(event, **names), Reject)


def test_no_credentials_in_any_request() -> None:
    """The tracking host needs no credentials: what the core hands over carries the token nowhere."""
    for event in (page(), order()):
        outcome = outcome_of(event)

        assert isinstance(outcome, Send)
        assert "token-of-tests" not in str(outcome)
        assert b"token-of-tests" not in msgspec.json.encode(outcome.request)
