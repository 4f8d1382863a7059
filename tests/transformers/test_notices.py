"""What an operator is told about a request that is sent all the same."""

from typing import Any

import msgspec
import pytest

from impact_transformers import NOTICES, Notice, NoticeReason, Send, decode_event, transform
from tests.builders import compiled


def notices(**event: Any) -> tuple[Notice, ...]:
    """Send the event and return the notices."""
    raw = msgspec.json.encode({"type": "page", "anonymousId": "a", **event})
    outcome = transform(decode_event(raw), compiled())
    assert isinstance(outcome, Send)
    return outcome.notices


def reasons(**event: Any) -> list[NoticeReason]:
    """Send the event and return the reasons of the notices."""
    return [notice.reason for notice in notices(**event)]


def order(**properties: Any) -> list[NoticeReason]:
    """Send an order with these properties and return the reasons of the notices."""
    properties = {"order_id": "o-1", "currency": "EUR", **properties}
    return reasons(type="track", event="Order Completed", timestamp="2026-03-01T12:00:00Z", properties=properties)


def test_every_notice_is_explained() -> None:
    """Each notice has its sentence for the docs."""
    assert set(NoticeReason) == set(NOTICES)


@pytest.mark.parametrize(
    ("happened", "received", "expected"),
    [
        ("2026-03-01T12:00:00Z", "2026-03-01T12:00:05Z", []),
        ("2026-03-01T12:00:00Z", "2026-05-28T12:00:00Z", []),
        ("2026-03-01T12:00:00Z", "2026-05-28T12:00:01Z", [NoticeReason.OLD_EVENT]),
        ("2025-03-01T12:00:00+02:00", "2026-03-01T12:00:00Z", [NoticeReason.OLD_EVENT]),
        ("2025-03-01", "yesterday", []),
        ("2025-03-01T12:00:00", "2026-03-01", [NoticeReason.OLD_EVENT]),
        ("2027-03-01T12:00:00Z", "2026-03-01T12:00:00Z", []),
    ],
)
def test_old_event(happened: Any, received: Any, expected: list[NoticeReason]) -> None:
    """An event received over 88 days after it happened is sent with a notice; without a receipt nothing is said."""
    assert expected == reasons(timestamp=happened, receivedAt=received)


def test_event_date_missing() -> None:
    """An event without any usable time is sent with NOW and a notice."""
    assert [NoticeReason.EVENT_DATE_MISSING] == reasons(timestamp="yesterday")


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"subtotal": 5, "products": [{"sku": "S", "price": 5}]}, []),
        ({"subtotal": 5, "products": []}, []),
        ({"subtotal": 5, "products": 3}, []),
        ({"subtotal": 5}, []),
        ({"subtotal": 5, "products": [{"sku": "S"}]}, [NoticeReason.ITEMS_ADJUSTED]),
        ({"subtotal": 5, "products": {"sku": "S"}}, [NoticeReason.ITEMS_INCOMPLETE]),
    ],
)
def test_items(properties: dict[str, Any], expected: list[NoticeReason]) -> None:
    """Items that were adjusted, or are none, are told."""
    assert expected == order(**properties)


def test_a_notice_names_parameter_path_and_reason() -> None:
    """What was left out can be found: the parameter, the place in the event, and why."""
    (found,) = notices(timestamp="2026-03-01T12:00:00Z", userId="u" * 256)

    assert ("CustomerId", "userId") == (found.parameter, found.path)
    assert "parameter_dropped: CustomerId from userId: has 256 characters; at most 255 are allowed" == str(found)


def test_a_notice_without_a_detail_says_what_it_means() -> None:
    """A notice that is the same for every event has the sentence of the docs."""
    (found,) = notices(timestamp="yesterday")

    assert f"event_date_missing: EventDate from timestamp: {NOTICES[NoticeReason.EVENT_DATE_MISSING]}" == str(found)


def test_the_places_of_products_are_named() -> None:
    """Of many products without a name three are named."""
    event = {"type": "track", "event": "Order Completed", "timestamp": "2026-03-01T12:00:00Z"}
    products = [{"price": 1, "category": "C"} for _ in range(5)]
    (found,) = notices(**event, properties={"order_id": "o-1", "currency": "EUR", "products": products})

    assert NoticeReason.ITEMS_INCOMPLETE == found.reason
    assert "products[0], products[1], products[2] and others: neither sku, product id nor name" == found.detail


def test_notices_about_products_are_bounded() -> None:
    """A hostile order of thousands of products has a few notices, not thousands."""
    products = [{"sku": "S", "price": "x", "quantity": "y", "coupon": ["a", "b"]} for _ in range(1000)]

    assert len(order(subtotal=5, products=products)) < 40


@pytest.mark.parametrize(
    ("name", "properties", "expected"),
    [
        ("Order Placed", {"order_id": "1", "total": 5}, True),
        ("order_paid", {"transactionId": "1", "revenue": "5"}, True),
        ("Order Placed", {"order_id": "1"}, False),
        ("Order Placed", {"total": 5}, False),
        ("Checkout Started", {"order_id": "1", "value": 5}, False),
        ("Viewed", {"order_id": "1", "total": 5}, False),
        (None, {"order_id": "1", "total": 5}, True),
    ],
)
def test_what_looks_like_an_order(name: str | None, properties: dict[str, Any], expected: bool) -> None:
    """A track that is named nowhere and has an order id and an amount is told; events before the order are not."""
    event = {"type": "track", "event": name, "anonymousId": "a", "timestamp": "2026-03-01T12:00:00Z"}
    raw = msgspec.json.encode({**event, "properties": properties})
    outcome = transform(decode_event(raw), compiled(eventTypes={"Viewed": {"kind": "page_load"}}))

    assert isinstance(outcome, Send)
    assert expected == (NoticeReason.LOOKS_LIKE_ORDER in [notice.reason for notice in outcome.notices])
