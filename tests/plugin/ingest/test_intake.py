"""What an event is when it is written down: its id, its type and its time."""

from typing import Any, Final

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from impact_plugin.ingest.intake import conceal_bytes, settle_payload, with_entries

RECEIVED: Final = "2026-09-10T10:00:00.000Z"


class Envelope(msgspec.Struct, rename="camel"):
    """What the intake reads of an event first."""

    type: Any = None
    message_id: Any = None
    event: Any = None
    received_at: Any = None
    integrations: Any = None


def settled(payload: bytes, call: str | None = None) -> tuple[str, dict[str, Any]]:
    """The id of an event and what is written down."""
    message_id, kept = settle_payload(payload, call, msgspec.json.decode(payload, type=Envelope), RECEIVED)  # type: ignore[arg-type]
    return message_id, msgspec.json.decode(kept)


TEXTS: Final = st.text(st.characters(codec="ascii", exclude_characters="@"), min_size=1, max_size=9)
VALUES: Final = st.dictionaries(TEXTS, st.none() | st.booleans() | st.integers(-99, 99) | TEXTS, max_size=5)


@given(VALUES, st.randoms(use_true_random=False), TEXTS)
def test_an_event_without_an_id_is_known_by_what_it_says(properties: dict[str, Any], random: Any, sent_at: str) -> None:
    """Whatever the order of its names and the time of its sending."""
    message = {"type": "track", "event": "x", "properties": properties}
    names = list(message)
    random.shuffle(names)
    again = {"sentAt": sent_at, **{name: message[name] for name in names}}
    first, second = settled(msgspec.json.encode(message))[0], settled(msgspec.json.encode(again))[0]

    assert first == second
    assert first.startswith("content-")
    assert first != settled(msgspec.json.encode({**message, "event": "y"}))[0]


def test_an_id_is_kept_and_a_time_is_added() -> None:
    """The bytes stay as they came but for that."""
    message_id, kept = settled(b'{"type":"page","messageId":"m-1"}')

    assert "m-1" == message_id
    assert {"type": "page", "messageId": "m-1", "receivedAt": RECEIVED} == kept


def test_a_time_that_is_there_stays() -> None:
    """A router knows better when it got the event."""
    assert "t" == settled(b'{"messageId":"m","receivedAt":"t"}')[1]["receivedAt"]


def test_the_paths_call_is_the_type() -> None:
    """Whatever the body says."""
    assert "page" == settled(b'{"messageId":"m","type":"track"}', "page")[1]["type"]


def test_of_two_ids_the_last_counts() -> None:
    """As a reader takes it, so null after an id is no id."""
    assert settled(b'{"messageId":"m","messageId":null}')[0].startswith("content-")


def test_an_escaped_address_is_concealed() -> None:
    """In an id too, which is what is remembered."""
    message_id, kept = settled(rb'{"messageId":"jo\u0040example.com","userId":"jo\u0040example.com"}')

    assert "example.com" not in message_id
    assert "example.com" not in str(kept)


def test_what_is_no_event_is_kept_without_addresses() -> None:
    """Bytes that are no text are replaced where there may be one."""
    assert b"\xff" == conceal_bytes(b"\xff")
    assert b"example.com" not in conceal_bytes(b"\xff jo@example.com")


def test_entries_are_added_to_any_object() -> None:
    """To an empty one, and to one with white space at its end."""
    found = [msgspec.json.decode(with_entries(payload, {"b": 2})) for payload in (b"{}", b"{ } \n", b'{"a":1 }\n')]

    assert [{"b": 2}, {"b": 2}, {"a": 1, "b": 2}] == found
