"""Nobody can be found in what is written down, and every rule decides as before."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impact_plugin.recording.pseudonyms import MAX_ID_LENGTH, Pseudonyms, truncated

PSEUDONYMS = Pseudonyms(b"the key of the tests")
EVENT = {
    "type": "track",
    "event": "Order Completed",
    "messageId": "m-1",
    "userId": "user-4711",
    "anonymousId": "d3f20242-e97d-43ce-abd8-d30bc38ee2c1",
    "rudderId": "r-1",
    "request_ip": "14.5.67.21",
    "properties": {"order_id": "o-1", "total": 25.0, "email": "ada@shop.example", "url": "https://a.b/?irclickid=c-1"},
    "context": {
        "ip": "2001:db8:2223::679a",
        "userAgent": "Mozilla/5.0",
        "device": {"id": "device-1", "advertisingId": "00000000-0000-0000-0000-000000000000", "type": "ios"},
        "traits": {
            "id": 4711,
            "firstName": "Ada",
            "phone": "+49 30 123456",
            "address": {"street": "Unter den Linden 1", "city": "Berlin", "country": "DE", "postalCode": "10117"},
            "plan": "gold",
        },
        "campaign": {"name": "summer"},
    },
}


def test_who_it_is_about_is_gone() -> None:
    """Names, numbers, identifiers and addresses, wherever they stand."""
    text = str(PSEUDONYMS.event(EVENT))

    for told in ("user-4711", "4711", "d3f20242", "14.5.67.21", "679a", "ada@", "device-1", "Ada", "123456", "Linden"):
        assert told not in text


def test_what_decides_stays() -> None:
    """Ids of clicks, orders and messages, amounts, pages, towns, and devices that name nobody."""
    event = PSEUDONYMS.event(EVENT)

    assert event["messageId"] == "m-1"
    assert event["properties"] == {
        **EVENT["properties"],  # type: ignore[dict-item]
        "email": "a4dd8aa74a6cbe0a2a1ce0c1d4ed23e0a84a36f7@sha1.invalid",
    } or event["properties"]["email"].endswith("@sha1.invalid")
    assert event["properties"]["url"] == "https://a.b/?irclickid=c-1"
    assert event["context"]["traits"]["address"] == {
        "street": event["context"]["traits"]["address"]["street"],
        "city": "Berlin",
        "country": "DE",
        "postalCode": "10117",
    }
    assert event["context"]["traits"]["plan"] == "gold"
    assert event["context"]["campaign"] == {"name": "summer"}
    assert event["context"]["device"]["advertisingId"] == "00000000-0000-0000-0000-000000000000"
    assert (event["request_ip"], event["context"]["ip"]) == ("14.5.67.0", "2001:db8:2223::")


@pytest.mark.parametrize(
    "event",
    [
        {"properties": {"phone": "+49 30 123456", "first_name": "Ada", "total": 5}},
        {"properties": {"customer": {"name": "Ada Lovelace", "id": 4711}}},
        {"properties": {"shipping_address": {"name": "Ada", "address1": "Unter den Linden 1", "city": "Berlin"}}},
        {"context": {"traits": {"address": "Unter den Linden 1, Berlin"}}},
        {"context": {"traits": {"company": {"name": "Ada & Sons", "contact": {"name": "Ada"}}}}},
        {"context": {"externalId": [{"type": "brazeExternalId", "id": "user-4711"}]}},
        {"userProperties": {"fullName": "Ada Lovelace", "date_of_birth": "1815-12-10"}},
    ],
    ids=str,
)
def test_a_person_is_replaced_wherever_a_sender_puts_one(event: dict[str, Any]) -> None:
    """Not only in traits: also in an order's customer and addresses, and in ids of other systems."""
    text = str(PSEUDONYMS.event(event))

    for personal in ("Ada", "4711", "123456", "Linden", "1815"):
        assert personal not in text


def test_names_of_things_stay() -> None:
    """A product, a page, a campaign and an event are no persons."""
    event = {
        "event": "Order Completed",
        "name": "Checkout",
        "properties": {"name": "Hat", "id": "p-1", "products": [{"name": "Hat", "id": "p-1"}], "shipping": 4.9},
        "context": {"app": {"name": "Shop"}, "campaign": {"name": "summer"}, "library": {"name": "web"}},
    }

    assert PSEUDONYMS.event(event) == event


@given(st.text(max_size=200), st.text(max_size=200))
def test_equal_stays_equal_and_different_stays_different(one: str, other: str) -> None:
    """The visitor of a landing is the visitor of its order."""
    assert PSEUDONYMS.of(one) == Pseudonyms(b"the key of the tests").of(one)
    assert (PSEUDONYMS.of(one) == PSEUDONYMS.of(other)) == (one == other)


@given(st.text(min_size=1, max_size=200))
def test_what_is_too_long_stays_too_long(value: str) -> None:
    """A rule that refuses an identifier for its length refuses its pseudonym."""
    assert (len(PSEUDONYMS.of(value)) > MAX_ID_LENGTH) == (len(value) > MAX_ID_LENGTH)
    assert bool(PSEUDONYMS.of(value).strip()) == bool(value.strip())


def test_another_key_gives_other_pseudonyms() -> None:
    """Two recordings of two services cannot be joined."""
    assert Pseudonyms(b"another").of("user") != PSEUDONYMS.of("user")


@pytest.mark.parametrize(
    ("address", "kept"),
    [("192.0.2.77", "192.0.2.0"), (" 10.1.2.3", "10.1.2.0"), ("::1", "::"), ("unknown", "concealed"), ("", "")],
)
def test_addresses_lose_their_last_part(address: str, kept: str) -> None:
    """Private ones stay private, so that the rules pass them over as before."""
    assert truncated(address) == kept


def test_a_uuid_stays_one() -> None:
    """Rules on the form of an identifier hold."""
    pseudonym = PSEUDONYMS.of("d3f20242-e97d-43ce-abd8-d30bc38ee2c1")

    assert len(pseudonym) == 36
    assert [len(part) for part in pseudonym.split("-")] == [8, 4, 4, 4, 12]
