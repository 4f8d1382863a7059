"""Events are decoded once, strictly where they are well-formed and leniently where they are not."""

from typing import Any, Final

import msgspec
import pytest

from impact_transformers import (
    Event,
    Identify,
    Page,
    Screen,
    Track,
    UndecodableEventError,
    Unsupported,
    decode_event,
    decode_leniently,
    decode_object,
)
from impact_transformers.events import NO_CONTEXT, NO_DEVICE, App, Context, Device, PageInfo

DEEP: Final = 100_000


@pytest.mark.parametrize(
    ("text", "expected"), [("track", Track), ("page", Page), ("screen", Screen), ("identify", Identify)]
)
def test_calls(text: str, expected: type) -> None:
    """Each call has a type of its own, whatever the case and spaces of its name."""
    for spelling in (text, text.upper(), text.title(), f" {text}\t"):
        assert type(decode_event(msgspec.json.encode({"type": spelling}))) is expected


@pytest.mark.parametrize("name", ["group", "alias", "Group", "checkout"])
def test_unsupported(name: str) -> None:
    """Other calls are told apart by their name."""
    event = decode_event(msgspec.json.encode({"type": name}))

    assert not isinstance(event, Event)
    assert name == event.type


@pytest.mark.parametrize("message", [{}, {"type": None}, {"type": ""}, {"type": " "}, {"type": 7}, {"type": ["track"]}])
def test_no_usable_type(message: dict[str, Any]) -> None:
    """An event without a type is an outcome, not a fault."""
    assert Unsupported(None) == decode_event(msgspec.json.encode(message))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"page"',
        b"7",
        b"{",
        b'{"type":"page"',
        b'{"type":"page"} x',
        b'{"type":"page"}{"type":"page"}',
        b"\xff\xfe",
        b'{"type":"page","userId":1e999}',
        b'{"type":"page","userId":"\\ud800"}',
        b'{"type":"page","userId":NaN}',
        b'{"type":"page","userId":"\xff"}',
        b'{"type":"page","userId":"\xed\xa0\x80"}',
        b'{"type":"page","\xff":1}',
        b'{"type":"\xff"}',
        b'{"type":"page","properties":{"a":"\xff"}}',
    ],
)
def test_undecodable(raw: bytes) -> None:
    """Anything but one JSON object in UTF-8 raises the one documented fault, or is read without what is ignored."""
    try:
        event = decode_event(raw)
    except UndecodableEventError as error:
        assert str(error)  # noqa: PT017 - one of two right answers
        return

    assert b"\xff" in raw
    assert isinstance(event, Page)


@pytest.mark.parametrize("raw", [b"\xff", b'{"a":"\xff"}', b"[]", b"", b"{" * 10])
def test_decode_object_refuses(raw: bytes) -> None:
    """The generic decoder has the same one fault."""
    with pytest.raises(UndecodableEventError):
        decode_object(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"type":"track","properties":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
        b'{"type":"track","ignored":' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"type":"TRACK","properties":' + b"[" * DEEP + b"]" * DEEP + b"}",
        b"[" * DEEP + b"]" * DEEP,
    ],
)
def test_nested_without_end(raw: bytes) -> None:
    """An event nested a hundred thousand levels deep is refused or read, never a RecursionError."""
    try:
        decode_event(raw)
    except UndecodableEventError as error:
        assert str(error)  # noqa: PT017 - one of two right answers


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, msgspec.Raw])
def test_buffers(kind: Any) -> None:
    """Whatever buffer the event came in, no copy is needed first."""
    assert Page(anonymous_id="a") == decode_event(kind(b'{"type":"page","anonymousId":"a"}'))


def test_the_wire_names() -> None:
    """Segment's camel case and RudderStack's request_ip are read beside each other."""
    raw = b"""{"type":"track","event":"E","messageId":"m","anonymousId":"a","userId":"u","timestamp":"t",
      "originalTimestamp":"o","sentAt":"s","receivedAt":"r","request_ip":"1.1.1.1","requestIp":"2.2.2.2","channel":"web","properties":{"p":1},
      "traits":{"t":1},"context":{"ip":"3.3.3.3","userAgent":"ua","traits":{"c":1},"page":{"url":"pu","referrer":"pr","search":"ps"},
      "app":{"name":"an","version":"av","namespace":"as"},"device":{"id":"di","advertisingId":"da","type":"dt"}}}"""
    context = Context(
        ip="3.3.3.3",
        user_agent="ua",
        traits={"c": 1},
        page=PageInfo(url="pu", referrer="pr", search="ps"),
        app=App(name="an", version="av", namespace="as"),
        device=Device(id="di", advertising_id="da", type="dt"),
    )
    expected = Track(
        event="E",
        message_id="m",
        anonymous_id="a",
        user_id="u",
        timestamp="t",
        original_timestamp="o",
        sent_at="s",
        received_at="r",
        request_ip_rudder="1.1.1.1",
        request_ip="2.2.2.2",
        channel="web",
        properties={"p": 1},
        traits={"t": 1},
        context=context,
    )

    assert expected == decode_event(raw)


@pytest.mark.parametrize(
    "odd",
    [
        {"context": "web"},
        {"context": None},
        {"context": []},
        {"context": {"device": "iPhone"}},
        {"context": {"device": ["iPhone"]}},
        {"context": {"page": 7, "app": "x", "os": [], "library": False, "referrer": "x"}},
        {"context": {"traits": "x", "ip": {}, "userAgent": []}},
        {"properties": "x"},
        {"properties": []},
        {"traits": 7},
        {"messageId": {}, "userId": [], "timestamp": {}},
    ],
)
def test_what_does_not_fit_is_left_out(odd: dict[str, Any]) -> None:
    """One strange field costs that field, never the order."""
    event = decode_event(msgspec.json.encode({"type": "page", "anonymousId": "a", **odd}))
    context = event.context or NO_CONTEXT if isinstance(event, Page) else None

    assert isinstance(event, Page)
    assert context is not None
    assert "a" == event.anonymous_id
    assert (context.device or NO_DEVICE) == NO_DEVICE
    assert not event.properties
    assert not event.traits
    assert event.message_id is None


def test_the_rest_of_a_strange_context_is_kept() -> None:
    """Beside the strange field everything else is read as usual, also inside the objects of context."""
    message = {
        "type": "Track",
        "event": "E",
        "context": {"device": "iPhone", "ip": "8.8.4.4", "page": {"url": "u", "search": {}}, "app": {"version": 7}},
    }
    expected = Track(event="E", context=Context(ip="8.8.4.4", page=PageInfo(url="u"), app=App(version=7)))

    assert expected == decode_leniently(message)


@pytest.mark.parametrize(
    "message",
    [
        {
            "type": "track",
            "event": "E",
            "userId": 7,
            "context": {"ip": "8.8.4.4", "device": {"id": 1}},
            "properties": {"a": [1]},
        },
        {"type": "page", "context": None, "traits": None, "properties": None, "userId": None},
        {"type": "identify", "traits": {"email": "x"}, "context": {"traits": {"y": {}}, "page": None}},
        {"type": "screen", "name": True, "channel": 1.5, "context": {"os": {"name": None}}},
    ],
)
def test_both_decoders_agree(message: dict[str, Any]) -> None:
    """For well-formed events the lenient way gives what the fast way gives, up to a null and an absent object."""
    fast, lenient = decode_event(msgspec.json.encode(message)), decode_leniently(message)

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if plain(v) not in (None, {})}
        return value

    assert type(fast) is type(lenient)
    assert plain(msgspec.to_builtins(fast)) == plain(msgspec.to_builtins(lenient))
