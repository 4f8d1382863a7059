"""What an operator is told about a request that is sent all the same."""

from typing import Any

import msgspec
import pytest

from impact_transformers import NOTICES, Notice, Send, decode_event, transform
from tests.builders import compiled


def notices(**event: Any) -> tuple[Notice, ...]:
    """Send the event and return what was noticed."""
    raw = msgspec.json.encode({"type": "page", "anonymousId": "a", **event})
    outcome = transform(decode_event(raw), compiled())
    assert isinstance(outcome, Send)
    return outcome.notices


def order(**properties: Any) -> tuple[Notice, ...]:
    """Send an order with these properties and return what was noticed."""
    properties = {"order_id": "o-1", **properties}
    return notices(type="track", event="Order Completed", timestamp="2026-03-01T12:00:00Z", properties=properties)


def test_every_notice_is_explained() -> None:
    """Each notice has its sentence for the docs."""
    assert set(Notice) == set(NOTICES)


@pytest.mark.parametrize(
    ("happened", "received", "expected"),
    [
        ("2026-03-01T12:00:00Z", "2026-03-01T12:00:05Z", ()),
        ("2026-03-01T12:00:00Z", "2026-05-28T12:00:00Z", ()),
        ("2026-03-01T12:00:00Z", "2026-05-28T12:00:01Z", (Notice.OLD_EVENT,)),
        ("2025-03-01T12:00:00+02:00", "2026-03-01T12:00:00Z", (Notice.OLD_EVENT,)),
        ("2025-03-01", "yesterday", ()),
        ("2025-03-01T12:00:00", "2026-03-01", (Notice.OLD_EVENT,)),
        ("2027-03-01T12:00:00Z", "2026-03-01T12:00:00Z", ()),
    ],
)
def test_old_event(happened: Any, received: Any, expected: tuple[Notice, ...]) -> None:
    """An event received over 88 days after it happened is sent with a notice; without a receipt nothing is said."""
    assert expected == notices(timestamp=happened, receivedAt=received)


def test_event_date_missing() -> None:
    """An event without any usable time is sent with NOW and a notice."""
    assert (Notice.EVENT_DATE_MISSING,) == notices(timestamp="yesterday")


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"subtotal": 5, "products": [{"sku": "S", "price": 5}]}, ()),
        ({"subtotal": 5, "products": []}, ()),
        ({"subtotal": 5}, ()),
        ({"subtotal": 5, "products": [{"sku": "S"}]}, (Notice.ITEMS_INCOMPLETE,)),
        ({"subtotal": 5, "products": {"sku": "S"}}, (Notice.ITEMS_INCOMPLETE,)),
    ],
)
def test_items_incomplete(properties: dict[str, Any], expected: tuple[Notice, ...]) -> None:
    """An order that fell back from its items to its amount is sent with a notice."""
    assert expected == order(**properties)
