"""Paths as operators write them, and what they find."""

from typing import Any, Final

import pytest

from impact_transformers import Send, decode_event, decode_object, transform
from impact_transformers.paths import PathError, dig, event_access, item_access, parse_path
from tests.builders import compiled

TREE: Final = {"properties": {"a": {"b": [{"c": 1}, {"c": 2}]}, "n": None, "0": "zero"}, "list": ["x"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("properties.order_id", ("properties", "order_id")),
        (" properties.order_id ", ("properties", "order_id")),
        ("$.properties.order_id", ("properties", "order_id")),
        ("properties.products[0].sku", ("properties", "products", 0, "sku")),
        ("products[10]", ("products", 10)),
        ("properties.Order ID", ("properties", "Order ID")),
        ("properties.größe", ("properties", "größe")),
        ("event", ("event",)),
    ],
)
def test_parse_path(text: str, expected: tuple[str | int, ...]) -> None:
    """Dots separate keys, brackets hold indices, spaces inside a key belong to it."""
    assert expected == parse_path(text)


@pytest.mark.parametrize("text", ["", " ", ".", "..", "a[b]", "a[", "a]", "a[-1]", "a[]", "@click_id"])
def test_parse_path_refuses(text: str) -> None:
    """Text that is no path is refused with the text in the message."""
    with pytest.raises(PathError) as caught:
        parse_path(text)

    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (("properties", "a", "b", 0, "c"), 1),
        (("properties", "a", "b", "1", "c"), 2),
        (("properties", "a", "b", 2), None),
        (("properties", "0"), "zero"),
        (("properties", 0), "zero"),
        (("properties", "n"), None),
        (("properties", "n", "deeper"), None),
        (("list", "x"), None),
        (("list", "²"), None),
        (("list", 0, "deeper"), None),
        ((), TREE),
    ],
)
def test_dig(keys: tuple[str | int, ...], expected: Any) -> None:
    """Keys and indices are followed; where the way ends there is nothing, never an error."""
    assert expected == dig(TREE, keys)


@pytest.mark.parametrize(
    ("path", "wide"),
    [
        ("properties.order_id", False),
        ("properties.products[0].sku", False),
        ("traits.address.city", False),
        ("context.traits.address.city", False),
        ("context.page.url", False),
        ("context.ip", False),
        ("timestamp", False),
        ("request_ip", False),
        ("requestIp", False),
        ("context.consent.ads", True),
        ("context.page", True),
        ("context.page.path", True),
        ("context.device.x.y", True),
        ("properties", True),
        ("event", True),
        ("integrations.All", True),
    ],
)
def test_event_access_is_wide_only_where_needed(path: str, wide: bool) -> None:
    """Only paths outside the typed event need the event decoded a second time."""
    assert wide == event_access(path).wide


@pytest.mark.parametrize("path", ["sku", "products.sku", "properties.products.sku", "properties.products[].sku"])
def test_item_access_understands_the_stock_spellings(path: str) -> None:
    """The ways in which RudderStack's form names a product's field mean the same."""
    assert item_access("sku") == item_access(path)


BASE: Final = {"accountSID": "IRexample", "apiKey": "t", "campaignId": "1"}
EVENT: Final = b"""{"type": "track", "event": "Bought", "anonymousId": "a", "timestamp": "2026-03-01T12:00:00Z",
  "context": {"page": {"path": "/p", "title": "T"}, "campaign": {"name": "spring"}, "traits": {"plan": {"id": "gold"}}},
  "properties": {"order_id": "o-1", "list": ["x", "y"],
  "deep": {"er": {"est": "z"}}, "products": [{"sku": "S", "price": 1}]}}"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("properties.list[1]", "y"),
        ("properties.list.1", "y"),
        ("properties.deep.er.est", "z"),
        ("properties.products[0].sku", "S"),
        ("$.properties.order_id", "o-1"),
        ("context.page.path", "/p"),
        ("context.campaign.name", "spring"),
        ("context.traits.plan.id", "gold"),
        ("event", "Bought"),
        ("type", "track"),
        ("properties.list", None),
        ("properties.deep", None),
        ("properties.list[7]", None),
        ("properties.order_id.deeper", None),
        ("nowhere.at.all", None),
    ],
)
def test_path_in_a_mapping(path: str, expected: str | None) -> None:
    """A path written in the configuration finds the same place whichever way it is compiled."""
    config = {**BASE, "actionEventNames": ["Bought"], "rudderToImpactProperty": [{"from": path, "to": "Text1"}]}
    destination = compiled(config)
    event, message = decode_event(EVENT), decode_object(EVENT)
    outcome = transform(event, destination, message)

    assert isinstance(outcome, Send)
    assert expected == outcome.request.form.get("Text1")
