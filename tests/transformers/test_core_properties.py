"""What holds for every event there can be: no surprise, one outcome, and nothing sent that impact.com refuses."""

import json
import math
from functools import cache
from typing import Any, Final
from urllib.parse import unquote

from hypothesis import event, given
from hypothesis import strategies as st

from impact_plugin.testing.impact_rules import check_conversion, check_page_load
from impact_transformers import (
    AnyDestination,
    Explanation,
    Outcome,
    Reason,
    Reject,
    Send,
    Skip,
    UndecodableEventError,
    decode_event,
    decode_object,
    explain,
    fields,
    transform,
)
from tests.builders import compiled
from tests.properties import tried

ADDRESS: Final = "buyer@example.com"
CONFIGS: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "stock": {"eventTypeId": "2000", "impactAppId": "31415", "actionEventNames": [{"eventName": "Signed Up"}]},
    "kinds": {
        "eventTypes": {"Signed Up": {"code": "SIGNUP", "kind": "lead"}, "Product Viewed": {"kind": "install"}},
        "emailAsCustomerId": "hash",
        "defaultCurrency": "EUR",
        "defaultCategory": "Other",
        "unmappedTrack": "skip",
    },
    "mapped": {
        "rudderToImpactProperty": [
            {"from": "properties.note", "to": "Text1"},
            {"from": "properties.url", "to": "Text2"},
            {"from": "properties.total", "to": "Money1"},
            {"from": "properties.tax", "to": "Numeric1"},
            {"from": "timestamp", "to": "Date1"},
            {"from": "properties.note", "to": "Note"},
            {"from": "context.campaign.name", "to": "SubId1"},
            {"from": "properties.coupon", "to": "OrderPromoCode"},
            {"from": "context.page.url", "to": "UniqueUrl"},
            {"from": "properties.gift", "to": "GiftPurchase"},
        ],
        "productsMapping": [
            {"from": "name", "to": "ItemText{i}_1"},
            {"from": "price", "to": "ItemMoney{i}_1"},
            {"from": "subtotal", "to": "ItemSubTotal"},
            {"from": "category", "to": "ItemSubCategory"},
        ],
        "consentPaths": ["context.consent.ads", "properties.gift"],
        "parameterSources": {
            "CustomerStatus": ["properties.status"],
            "OrderId": ["properties.order_id", "properties.note"],
        },
    },
    "gated": {"consentPaths": ["context.consent.ads"], "consentGate": "required"},
    "dynamic": {"campaignId": '{{ event.properties.campaign || "1000" }}', "eventTypeId": "{{ event.properties.tax }}"},
}
TRIED: Final = tried(250)


@cache
def destination(name: str) -> AnyDestination:
    """Compile one of the configurations."""
    return compiled(**CONFIGS[name])


def encoded(value: Any) -> bytes:
    """Write JSON as a careless sender does: integers of any size, text as it comes."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def outcome_of(raw: bytes, name: str) -> Outcome:
    """Do what the service does with the bytes."""
    try:
        message = decode_object(raw)
        return transform(decode_event(raw), destination(name), message)
    except UndecodableEventError as error:
        return Reject(Reason.UNDECODABLE_EVENT, str(error))


def explained(raw: bytes, name: str) -> Explanation:
    """Explain a readable event."""
    return explain(decode_event(raw), destination(name), decode_object(raw))


PRINTED: Final = ("<nil>", "map[", "[object ")
"""How a printed object begins. The rules take such a value for a fault of ours, so no sender may bring one."""


def text(most: int) -> st.SearchStrategy[str]:
    """Any text but one that looks like a printed object: hypothesis draws those that it finds in our own code."""
    return st.text(max_size=most).filter(lambda drawn: not drawn.strip().startswith(PRINTED))


finite: Final = st.floats(allow_nan=False, allow_infinity=False)
scalars: Final = st.none() | st.booleans() | st.integers() | finite | text(30)
anything: Final = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text(10), inner, max_size=4),
    max_leaves=12,
)
names: Final = st.sampled_from(sorted(CONFIGS))
calls: Final = st.sampled_from(["track", "page", "screen", "identify", "TRACK", " Page ", "group", "", "alias"])
junk: Final = (
    scalars
    | anything
    | st.sampled_from(
        [
            ADDRESS,
            "Buyer%40example.com",
            "buyer%2540Example.com",
            f"<{ADDRESS}>",
            "o'hara'@example.com",
            "жена@пример.рф",
            "x" * 300,
            "y" * 65,
            "  ",
            "\x00",
            "null",
            "1e999",
            "NaN",
            "-0",
            "0",
            "1,234.5",
            "12,5",
            "£5",
            10**14,
            10**19,
            10**400,
            -1,
            1e300,
            -0.0,
            5e-324,
            99999999999999.99,
            "99999999999999.995",
        ]
    )
)


def mostly(plausible: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Take the plausible value three times out of four, else junk."""
    return st.one_of(plausible, plausible, plausible, junk)


def some(**entries: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Make an object of some of the entries."""
    return st.fixed_dictionaries({}, optional=entries)


urls: Final = st.sampled_from(
    [
        "https://shop.example.com/",
        "https://shop.example.com/?im_ref=AbC%253A1",
        "https://shop.example.com/?irclickid=" + "c" * 70,
        f"https://shop.example.com/?mail={ADDRESS}&im_ref=C1",
        "https://shop.example.com/a%25%34%30example.com?x=a%25%34%30example.com",
        "https://shop.example.com/red shoes",
        "shopapp://open?x=buyer%40example.com",
        "/relative",
        "?IRCLICKID=C2",
    ]
)
ids: Final = st.sampled_from(
    ["a-1", "019mr8mf4r", 7, 9217374917471, 1e6, ADDRESS, "buyer%40example.com", "i" * 71, " "]
)
times: Final = st.sampled_from(
    [
        "2026-03-01T12:00:00.000Z",
        "2026-03-01 12:00:00",
        "2026-03-01",
        1772366400,
        1772366400123,
        "yesterday",
        "2026-W09-7T12:00:00Z",
    ]
) | st.datetimes().map(lambda moment: moment.isoformat())
amounts: Final = (
    st.integers(-10, 10**7)
    | st.floats(0, 1e15)
    | st.decimals(0, 10**6, places=3).map(str)
    | st.sampled_from([19, 3, "19.90", "1,250.00", 22.5, 2.675])
)
texts: Final = st.sampled_from(["SPRING", "Games", "Straße 7", 53111, True, ADDRESS, "n" * 300]) | text(20)
addresses: Final = st.sampled_from(
    ["8.8.4.4", "10.0.0.1", "2001:4860:4860::8888", "::ffff:10.0.0.1", "fe80::1%eth0", "x"]
) | st.ip_addresses().map(str)
places: Final = some(
    city=mostly(texts),
    state=mostly(texts),
    region=mostly(texts),
    postalCode=mostly(texts),
    zip=mostly(texts),
    country=mostly(texts),
)
traits: Final = some(
    email=mostly(st.sampled_from([ADDRESS, " Buyer@Example.COM", "x", "a" * 40])),
    id=mostly(ids),
    userId=mostly(ids),
    address=mostly(places),
    city=mostly(texts),
    zip=mostly(texts),
)
products: Final = some(
    sku=mostly(texts),
    product_id=mostly(texts),
    name=mostly(texts),
    category=mostly(texts),
    brand=mostly(texts),
    price=mostly(amounts),
    quantity=mostly(st.integers(0, 5)),
    coupon=mostly(texts),
    subtotal=mostly(amounts),
)
full_products: Final = st.fixed_dictionaries(
    {"sku": st.sampled_from(["S1", "S2", 3]), "price": st.sampled_from([1, 2.5, "3.99", 1000000])},
    optional={"quantity": st.integers(1, 5), "name": texts, "category": texts, "subtotal": amounts},
)
properties: Final = some(
    order_id=mostly(st.sampled_from(["o-1", 9217374917471, 1e6, "o" * 65])),
    orderId=mostly(ids),
    checkout_id=mostly(ids),
    currency=mostly(st.sampled_from(["EUR", "usd", "EURO", " CHF "])),
    coupon=mostly(texts),
    subtotal=mostly(amounts),
    total=mostly(amounts),
    revenue=mostly(amounts),
    value=mostly(amounts),
    discount=mostly(amounts),
    shipping=mostly(amounts),
    tax=mostly(amounts),
    margin=mostly(amounts),
    products=mostly(st.lists(mostly(products), max_size=4) | st.lists(full_products, max_size=4)),
    clickId=mostly(ids),
    email=mostly(st.just(ADDRESS)),
    url=mostly(urls),
    referrer=mostly(urls),
    note=mostly(texts),
    gift=mostly(st.booleans()),
    status=mostly(texts),
    campaign=mostly(st.integers(1, 9999)),
)
contexts: Final = some(
    ip=mostly(addresses),
    userAgent=mostly(st.sampled_from(["Mozilla/5.0", f"Bot ({ADDRESS})", "?a%25%34%30example.com", "x" * 500])),
    page=mostly(some(url=mostly(urls), search=mostly(urls), referrer=mostly(urls))),
    app=mostly(some(name=mostly(texts), version=mostly(texts), namespace=mostly(texts))),
    device=mostly(
        some(
            id=mostly(ids),
            advertisingId=mostly(st.sampled_from(["6D92078A-8246-4BA4", "00000000-0000", 0])),
            manufacturer=mostly(texts),
            model=mostly(texts),
            type=mostly(st.sampled_from(["ios", "android"])),
        )
    ),
    os=mostly(some(name=mostly(st.sampled_from(["iOS", "Android", "iPadOS", "Windows"])))),
    library=mostly(some(name=mostly(st.sampled_from(["analytics.js", "analytics-python"])))),
    referrer=mostly(some(type=mostly(st.just("impactRadius")), id=mostly(ids), url=mostly(urls))),
    traits=mostly(traits),
    consent=mostly(some(ads=mostly(st.sampled_from([True, "denied", "granted"])))),
    campaign=mostly(some(name=mostly(texts))),
)
events: Final = st.fixed_dictionaries(
    {"type": st.sampled_from(["track", "track", "track", "page", "screen", "identify", "Track"])},
    optional={
        "event": mostly(
            st.sampled_from(["Order Completed", "Application Installed", "Signed Up", "Product Viewed", "n" * 80])
        ),
        "messageId": mostly(ids),
        "anonymousId": mostly(ids),
        "userId": mostly(ids),
        "timestamp": mostly(times),
        "originalTimestamp": mostly(times),
        "request_ip": mostly(addresses),
        "requestIp": mostly(addresses),
        "channel": mostly(st.sampled_from(["web", "server"])),
        "traits": mostly(traits),
        "properties": mostly(properties),
        "context": mostly(contexts),
    },
)
orders: Final = st.builds(
    lambda base, more, context: {
        **base,
        "properties": {**more, "order_id": "o-1", "currency": "EUR"},
        "context": context,
    },
    st.just({"type": "track", "event": "Order Completed", "anonymousId": "a-1", "timestamp": "2026-03-01T12:00:00Z"}),
    properties,
    contexts,
)
plausible: Final = events | orders


def assert_one_outcome(outcome: Outcome) -> None:
    """An outcome is exactly one of three, with a reason from the list where there is one."""
    assert type(outcome) in (Send, Skip, Reject)
    assert isinstance(outcome, Send) or (outcome.reason in Reason and outcome.detail)


@given(st.binary(max_size=200), names)
@TRIED
def test_bytes_never_surprise(raw: bytes, name: str) -> None:
    """Arbitrary bytes end in one outcome; the only fault is the documented one."""
    assert_one_outcome(outcome_of(raw, name))


@given(st.dictionaries(st.text(max_size=10), anything, max_size=6), calls, names, st.binary(max_size=4))
@TRIED
def test_json_never_surprises(message: dict[str, Any], call: str, name: str, cut: bytes) -> None:
    """Arbitrary objects, whole and damaged, end in one outcome."""
    raw = encoded({**message, "type": call})

    assert_one_outcome(outcome_of(raw, name))
    assert_one_outcome(outcome_of(raw[: len(raw) // 2] + cut + raw[len(raw) // 2 :], name))


@given(
    st.lists(st.sampled_from(["context", "properties", "traits", "products"]), max_size=3), plausible, anything, names
)
@TRIED
def test_wrong_shapes_never_surprise(keys: list[str], message: dict[str, Any], odd: Any, name: str) -> None:
    """Any value in the place of any object ends in one outcome."""
    for key in keys:
        if key == "products" and isinstance(message.get("properties"), dict):
            message = {**message, "properties": {**message["properties"], "products": odd}}
        elif key != "products":
            message = {**message, key: odd}

    assert_one_outcome(outcome_of(encoded(message), name))


@given(plausible, names)
@TRIED
def test_one_outcome(message: dict[str, Any], name: str) -> None:
    """Plausible events with junk in them end in one outcome."""
    outcome = outcome_of(encoded(message), name)
    event(f"{type(outcome).__name__} {getattr(outcome, 'reason', '')}")

    assert_one_outcome(outcome)


@given(plausible, names)
@TRIED
def test_whatever_is_sent_keeps_the_rules_of_impact(message: dict[str, Any], name: str) -> None:
    """No request is made that impact.com's documents say it refuses."""
    outcome = outcome_of(encoded(message), name)
    if not isinstance(outcome, Send):
        return
    check = check_conversion if outcome.request.endpoint_path == "conversions" else check_page_load

    assert () == check(outcome.request.form).errors


@given(orders, names)
@TRIED
def test_orders_keep_the_rules_of_impact(message: dict[str, Any], name: str) -> None:
    """Orders with everything an order can have are sent as impact.com takes them, or not at all."""
    outcome = outcome_of(encoded(message), name)

    if isinstance(outcome, Send):
        assert () == check_conversion(outcome.request.form).errors


@given(plausible, names)
@TRIED
def test_deterministic(message: dict[str, Any], name: str) -> None:
    """The same event gives the same outcome, also from a destination compiled anew."""
    raw = encoded(message)
    anew = compiled(**CONFIGS[name])

    assert outcome_of(raw, name) == outcome_of(raw, name)
    assert as_comparable(outcome_of(raw, name)) == as_comparable(transform(decode_event(raw), anew, decode_object(raw)))


def as_comparable(outcome: Outcome) -> object:
    """Leave out what is compared by identity."""
    return outcome.request if isinstance(outcome, Send) else outcome


@given(plausible, names)
@TRIED
def test_the_event_is_not_changed(message: dict[str, Any], name: str) -> None:
    """The decoded event is the same after as before."""
    raw = encoded(message)
    decoded = decode_object(raw)
    typed = decode_event(raw)
    transform(typed, destination(name), decoded)

    assert decode_object(raw) == decoded
    assert decode_event(raw) == typed


MADE_LATER: Final = {"EventDate", "OrderId", "CustomerEmail"}
EITHER_OR: Final = {row.param for row in fields.ORDER.rows}


@given(plausible, names)
@TRIED
def test_the_compiled_tables_do_what_the_trace_says(message: dict[str, Any], name: str) -> None:
    """The values of the steps are the form's, but for defaults and what items and amount exclude."""
    raw = encoded(message)
    found = explained(raw, name)

    assert as_comparable(outcome_of(raw, name)) == as_comparable(found.outcome)
    if not isinstance(found.outcome, Send):
        return
    shown = {step.parameter: step.value for step in found.steps if step.value is not None}
    changed = {step.parameter for step in found.steps if step.note is not None and step.rule != "decided"}
    decided = {step.parameter for step in found.steps if step.rule == "decided"}

    assert found.outcome.request.form == shown
    assert {name for name in decided if not name.startswith("EventType")} == set()
    assert {name for name in changed if name not in MADE_LATER | EITHER_OR and not name.startswith("Item")} == set()


@given(plausible, names)
@TRIED
def test_no_address_leaves(message: dict[str, Any], name: str) -> None:
    """The buyer's address, however it is encoded and wherever it stood, is in no value that is sent."""
    outcome = outcome_of(encoded(message), name)
    if isinstance(outcome, Send):
        values = " ".join(outcome.request.form.values())
        for _ in range(3):
            values = unquote(values)

        assert ADDRESS not in values.lower()


@given(plausible, names)
@TRIED
def test_no_address_in_a_reject(message: dict[str, Any], name: str) -> None:
    """Skips and rejects are logged and counted: no address stands in their words."""
    outcome = outcome_of(encoded(message), name)
    if not isinstance(outcome, Send):
        assert "@example.co" not in outcome.detail.lower()


@given(plausible, names)
@TRIED
def test_values_are_text(message: dict[str, Any], name: str) -> None:
    """Each value is a text of something: never empty, never with space around it, never with an exponent."""
    outcome = outcome_of(encoded(message), name)
    if isinstance(outcome, Send):
        form = outcome.request.form

        assert [] == [key for key, value in form.items() if type(value) is not str or not value]
        assert [] == [key for key, value in form.items() if value != value.strip()]


@given(st.one_of(st.integers(0, 10**14 - 1), st.floats(0, 1e13)))
@TRIED
def test_amounts_are_plain_decimals(amount: float) -> None:
    """Any amount is written with two decimals, within half a cent, without an exponent."""
    raw = encoded(
        {
            "type": "track",
            "event": "Order Completed",
            "anonymousId": "a",
            "properties": {"order_id": "o", "tax": amount},
        }
    )
    outcome = outcome_of(raw, "plain")
    assert isinstance(outcome, Send)
    text = outcome.request.form["OrderTax"]

    assert "." == text[-3]
    assert text.replace(".", "").isdecimal()
    assert math.isclose(float(text), amount, abs_tol=0.005000001)


VALUE_FIELDS: Final = ("total", "subtotal", "revenue", "value", "total_price", "subtotal_price", "grand_total")
readable: Final = st.integers(0, 10**9) | st.sampled_from([19.9, "19,90", "1.234,50 €", "$5", {"amount": "3"}, "1e3"])
rubbish: Final = st.dictionaries(
    st.sampled_from(
        [
            *VALUE_FIELDS,
            *("tax", "shipping", "discount", "products", "items", "line_items", "currency", "currency_code", "coupon"),
            *("sku", "price", "quantity", "clickId", "click_id", "checkout_id", "url", "margin", "total_discounts"),
        ]
    ),
    junk | mostly(amounts) | st.lists(mostly(products), max_size=3),
    max_size=12,
)


@given(
    rubbish,
    contexts | anything,
    traits | anything,
    st.sampled_from(VALUE_FIELDS),
    readable,
    st.sampled_from(["o-1", 17, "o" * 200, "buyer@example.com-7", "Ünïcode 1"]),
    names,
)
@TRIED
def test_no_order_is_refused_for_a_detail(
    properties: dict[str, Any], context: Any, person: Any, field: str, amount: Any, order_id: Any, name: str
) -> None:
    """An order with an id, an attribution key, an event type and a readable amount goes out, whatever else is in it."""
    if name in ("gated", "dynamic"):
        return
    event = {
        "type": "track",
        "event": "Order Completed",
        "anonymousId": "a-1",
        "timestamp": "2026-03-01T12:00:00Z",
        "traits": person,
        "context": context,
        "properties": {**properties, field: amount, "order_id": order_id},
    }
    outcome = outcome_of(encoded(event), name)

    assert isinstance(outcome, Send), outcome
    assert () == check_conversion(outcome.request.form).errors
