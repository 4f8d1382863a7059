"""Concealed events: no address is left, and they become the same requests."""

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from impact_transformers import (
    Send,
    conceal,
    conceal_emails,
    decode_leniently,
    hash_email,
    holds_email,
    may_hold_email,
    transform,
)
from tests.builders import SHOP, compiled

DESTINATION = compiled(SHOP)
ADDRESS = "Ada@Shop.example"
CONCEALED = "cf3f2a05f5e4e7d8d0a2a0bb9a1b0e9d5a4a4b8b@sha1.invalid"


def hashed(address: str) -> str:
    """The form that an address is written down in."""
    return f"{hash_email(address)}@sha1.invalid"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no address", "no address"),
        (ADDRESS, hashed(ADDRESS)),
        (f" {ADDRESS} ", f" {hashed(ADDRESS)} "),
        (f"mail {ADDRESS}, please", f"mail {hashed(ADDRESS)}, please"),
        ("https://shop.example/?m=ada%40shop.example&x=1", f"https://shop.example/?m={hashed(ADDRESS)}&x=1"),
        ("https://shop.example/?m=ada%2540shop.example", f"https://shop.example/?m={hashed(ADDRESS)}"),
        (f"{ADDRESS};bob@shop.example", f"{hashed(ADDRESS)};{hashed('bob@shop.example')}"),
        (CONCEALED, CONCEALED),
        (f"@shop.example of {ADDRESS}", f"@shop.example of {hashed(ADDRESS)}"),
    ],
)
def test_an_address_is_replaced_by_its_digest(text: str, expected: str) -> None:
    """Wherever it stands in the text, encoded or not; a concealed one stays."""
    assert expected == conceal_emails(text)


def test_the_address_of_a_person_is_hashed_as_it_would_be_sent() -> None:
    """CustomerEmail is made of a concealed address as of a clear one."""
    assert hash_email(ADDRESS) == hash_email(conceal_emails(ADDRESS))


def test_an_address_without_top_level_domain_is_concealed_where_addresses_belong() -> None:
    """``ada@localhost`` is no address in a text, but it is one under ``email``."""
    found = conceal({"traits": {"email": "ada@localhost"}, "properties": {"note": "ada@localhost"}})

    assert {"traits": {"email": hashed("ada@localhost")}, "properties": {"note": "ada@localhost"}} == found


def test_keys_and_lists_are_searched_too() -> None:
    """Some senders put addresses where nobody expects them."""
    found = conceal({ADDRESS: [1, None, {"deep": [ADDRESS]}]})

    assert {hashed(ADDRESS): [1, None, {"deep": [hashed(ADDRESS)]}]} == found


@pytest.mark.parametrize("text", [ADDRESS, "ada%40shop.example", "ada%2540shop.example", "ada\\u0040shop.example"])
def test_a_suspicion_is_found_in_json(text: str) -> None:
    """In every way that JSON and URLs can write the sign."""
    assert may_hold_email(b'{"a":"' + text.encode() + b'"}')


def test_most_events_are_not_suspected() -> None:
    """Percent-encoding alone does not make an event be decoded."""
    assert not may_hold_email(b'{"url":"https://shop.example/?q=a%20b"}')


LEAVES = st.sampled_from(
    [ADDRESS, "u-1", " ada@shop.example ", "https://shop.example/?m=ada%40shop.example&irclickid=c-1", "x", 12.5, None]
)
PEOPLE = st.fixed_dictionaries(
    {}, optional={"email": st.sampled_from([ADDRESS, " ada@shop.example ", "ada@localhost", "", None]), "name": LEAVES}
)
EVENTS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["page", "track", "identify", "screen"]),
        "event": st.sampled_from(["Order Completed", "Other"]),
        "messageId": st.just("m-1"),
        "timestamp": st.just("2026-09-10T10:00:00Z"),
        "anonymousId": LEAVES,
        "userId": LEAVES,
        "traits": PEOPLE,
        "properties": st.dictionaries(
            st.sampled_from(["order_id", "total", "coupon", "url", "referrer", "search", "currency"]), LEAVES
        ),
        "context": st.fixed_dictionaries(
            {
                "page": st.dictionaries(st.sampled_from(["url", "referrer"]), LEAVES),
                "userAgent": LEAVES,
                "traits": PEOPLE,
            }
        ),
    }
)


@given(EVENTS)
def test_a_concealed_event_becomes_the_same_request(event: dict[str, Any]) -> None:
    """Whatever is written down and transformed later is sent as it would have been at once."""
    concealed = conceal(event)
    now, later = (transform(decode_leniently(one), DESTINATION, one) for one in (event, concealed))

    assert type(now) is type(later)
    if isinstance(now, Send) and isinstance(later, Send):
        assert now.request == later.request
    else:
        assert (now.reason, now.detail) == (later.reason, later.detail)  # type: ignore[union-attr]


@given(st.recursive(st.text() | st.emails(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_no_address_is_left(value: Any) -> None:
    """But for those that are digests."""
    text = json.dumps(conceal(value), ensure_ascii=False)

    for part in _texts(conceal(value)):
        assert not holds_email(_without_digests(part)), text


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for one in pair for text in _texts(one)]
    return [text for one in value for text in _texts(one)]


def _without_digests(text: str) -> str:
    return re.sub(r"[0-9a-f]{40}@sha1\.invalid", "", text)


def test_it_can_be_encoded_again() -> None:
    """What comes out is JSON as it came in."""
    event = {"type": "track", "properties": {"total": 12.5, "items": [1, True, None]}}

    assert event == msgspec.json.decode(msgspec.json.encode(conceal(event)))
