"""The order id of installs and leads: the same for the same message for ever, whatever is changed later."""

import base64
import hashlib
from typing import Any, Final

import msgspec
import pytest

from impact_transformers import Reject, Send, decode_event, transform
from tests.builders import compiled

BASE: Final = {
    "accountSID": "IRexample",
    "apiKey": "t",
    "campaignId": "1000",
    "eventTypes": {"Signed Up": {"kind": "lead"}},
}


def documented(account: str, campaign: str, kind: str, name: str, message_id: str) -> str:
    """Work the id out by hand: prefix and base32 of a 25-byte BLAKE2b of the five facts, joined by U+001F."""
    facts = f"{account}\x1f{campaign}\x1f{kind}\x1f{name}\x1f{message_id}".encode()
    return "ip-" + base64.b32encode(hashlib.blake2b(facts, digest_size=25).digest()).decode().lower()


def order_id(event: str = "Signed Up", message_id: Any = "m-1", *, settings: dict[str, Any] | None = None) -> str:
    """Send the event and return the OrderId of its conversion."""
    raw = msgspec.json.encode({"type": "track", "event": event, "messageId": message_id, "anonymousId": "a"})
    config = {**BASE, **(settings or {})}
    outcome = transform(decode_event(raw), compiled(config))
    assert isinstance(outcome, Send)
    return outcome.request.form["OrderId"]


@pytest.mark.parametrize(("event", "kind"), [("Signed Up", "lead"), ("Application Installed", "install")])
def test_by_the_documented_formula(event: str, kind: str) -> None:
    """The id is what the documented formula gives, so it can be worked out again elsewhere."""
    assert documented("IRexample", "1000", kind, event, "m-1") == order_id(event)


def test_written_down() -> None:
    """Ids given out once must not change with a release: this one is from the first."""
    assert "ip-tpwctny323rjpwjuoih7zw34qgk67jxho74kltsu" == order_id("Application Installed")


def test_fits() -> None:
    """The id has at most 64 characters however long the message's own is."""
    assert len(order_id(message_id="m" * 1000)) <= 64


def test_a_number_is_an_id_as_well() -> None:
    """A message id that is a number gives the id of the same digits as text."""
    assert order_id(message_id=7) == order_id(message_id="7")


@pytest.mark.parametrize(
    "settings",
    [
        {"eventTypes": {"Signed Up": {"kind": "lead", "id": "4711"}}},
        {"eventTypes": {"Signed Up": {"kind": "lead", "code": "SIGNUP"}}, "eventTypeId": "5"},
        {"apiKey": "another token", "defaultCurrency": "EUR", "impactAppId": "7"},
        {"rudderToImpactProperty": [{"from": "properties.a", "to": "Text1"}]},
    ],
)
def test_a_corrected_configuration_makes_no_other_order(settings: dict[str, Any]) -> None:
    """Only facts of the message and the account enter: a re-send after a correction is recognised."""
    assert order_id() == order_id(settings=settings)


@pytest.mark.parametrize(
    ("event", "message_id", "settings"),
    [
        ("Signed Up", "m-2", {}),
        ("Signed Up", "m-1", {"accountSID": "IRother"}),
        ("Signed Up", "m-1", {"campaignId": "1001"}),
        ("Signed Up", "m-1", {"eventTypes": {"Signed Up": {"kind": "install"}}}),
        ("Application Installed", "m-1", {}),
    ],
)
def test_another_message_is_another_order(event: str, message_id: str, settings: dict[str, Any]) -> None:
    """Another message, account, campaign, kind or name gives another id."""
    assert order_id() != order_id(event, message_id, settings=settings)


@pytest.mark.parametrize("message_id", [None, "", "  ", [], {}])
def test_no_message_id(message_id: Any) -> None:
    """Without a message id there is nothing to derive one from, and nothing is made up."""
    raw = msgspec.json.encode({"type": "track", "event": "Signed Up", "messageId": message_id, "anonymousId": "a"})
    outcome = transform(decode_event(raw), compiled(BASE))

    assert isinstance(outcome, Reject)
    assert "missing_order_id" == outcome.reason
