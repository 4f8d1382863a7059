"""Webhooks: the forms of a body, and the places of a key."""

import base64
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from impact_plugin.config.sources import Adapter, Authentication, Source
from impact_plugin.errors import EnvelopeError
from impact_plugin.ingest.intake import Item, Unusable
from impact_plugin.protocols.webhook import MAX_LINES, presented_keys, read_items
from impact_transformers import Secret
from tests.plugin.ingest.ingest_shop import KEY, Shop

ONE: Final = b'{"type":"page","messageId":"1"}'
TWO: Final = b'{"type":"page","messageId":"2"}'
SEGMENT: Final = Source("shop")


def read(body: bytes, adapter: Adapter = "segment", max_event_kb: int = 256) -> list[bytes | str]:
    """The payloads of a body's events, and why the others cannot be used."""
    items = read_items(body, Source("shop", adapter=adapter, max_event_kb=max_event_kb))
    return [bytes(item.payload) if isinstance(item, Item) else item.detail for item in items]


@pytest.mark.parametrize(
    "body",
    [
        b"[" + ONE + b"," + TWO + b"]",
        b" \n[" + ONE + b" ,\n" + TWO + b"]",
        ONE + b"\n" + TWO,
        ONE + b"\r\n\r\n" + TWO + b"\n",
        *(b'{"%b":[%b,%b]}' % (name, ONE, TWO) for name in (b"batch", b"events", b"records")),
        b'{"batch":null,"events": [%b,%b],"syncId":"s"}' % (ONE, TWO),
        b'{"type":null,"batch":[%b,%b]}' % (ONE, TWO),
    ],
)
def test_every_form_holds_the_same_events(body: bytes) -> None:
    """An array, lines of JSON, or an object that holds them."""
    assert [ONE, TWO] == read(body)


@pytest.mark.parametrize(
    "body", [ONE, b'{"type":"track","records":[1]}', b'{"batch":{}}', b'{"events":7}', b'{"records":null}', b"{}"]
)
def test_an_object_that_holds_no_list_is_the_event(body: bytes) -> None:
    """So is one that has a type, whatever else it has."""
    assert [body] == read(body)


@pytest.mark.parametrize("body", [b"[]", b'{"batch":[]}'])
def test_a_list_may_be_empty(body: bytes) -> None:
    """Senders probe with it."""
    assert [] == read(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"7",
        b'"x"',
        b"null",
        b"{",
        b"[",
        b"[{]",
        b'{"a":}',
        b"\xff",
        b"a=b",
        b"x\n" + ONE,
        b"{\n}x\n{}",
        b"[1",
    ],
)
def test_a_body_in_no_form_is_refused(body: bytes) -> None:
    """With one error only, whatever it is."""
    with pytest.raises(EnvelopeError):
        read(body)


def test_a_bad_line_costs_no_other() -> None:
    """It is an event that cannot be used, which the intake finds."""
    assert [ONE, b"{bad", TWO] == read(ONE + b"\n{bad\n" + TWO)


def test_lines_are_not_split_without_end() -> None:
    """What is beyond is one piece, so that a body of line ends costs no memory."""
    assert MAX_LINES + 1 == len(read(b"{}\n" * (MAX_LINES + 5)))


def test_an_event_that_is_too_large_costs_no_other() -> None:
    """It is told by its size and the setting."""
    large = b'{"a":"%b"}' % (b"x" * 1024)
    found = read(b"[%b,%b]" % (large, ONE), max_event_kb=1)

    assert ["the event has 1,032 bytes; at most 1,024 are taken (max_event_kb)", ONE] == found


@pytest.mark.parametrize("adapter", ["posthog", "tracardi", "jitsu_reverse_etl"])
def test_what_is_not_of_the_dialect_costs_no_other(adapter: Adapter) -> None:
    """Each says what is missing."""
    found = read(b'[{"type":"page"},7,[],{"event":7,"data":7}]', adapter)

    assert 4 == len(found)
    assert all(isinstance(one, str) for one in found)


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:\n 1a\\').map(str.encode))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """Nothing but the error of a body is raised."""
    try:
        items = read_items(body, Source("shop", adapter="posthog"))
    except EnvelopeError:
        return

    assert all(isinstance(item, Item | Unusable) for item in items)


GIVEN: Final = ("in-url", ("user", "password"), "bearer")
HEADERS: Final = {"X-Key": "in-header", "X-Write-Key": "write-key"}


@pytest.mark.parametrize(
    ("authentication", "expected"),
    [
        ("bearer", {"bearer"}),
        ("basic", {"user", "password"}),
        ("header", {"in-header"}),
        ("url_token", {"in-url"}),
        ("key", {"bearer", "user", "password", "write-key", "in-url"}),
        ("none", set()),
    ],
)
def test_keys_are_looked_for_where_the_source_says(authentication: Authentication, expected: set[str]) -> None:
    """And nowhere else."""
    source = Source("s", keys=(Secret(KEY),), authentication=authentication, header="X-Key")
    token, basic, bearer = GIVEN

    assert expected == set(presented_keys(source, HEADERS, token, basic, bearer))


PLACES: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "bearer": ("/webhook/shop", {"Authorization": f"Bearer {KEY}"}),
    "user": ("/webhook/shop", {"Authorization": "Basic " + base64.b64encode(f"{KEY}:".encode()).decode()}),
    "password": ("/webhook/shop", {"authorization": "basic " + base64.b64encode(f"x:{KEY}".encode()).decode()}),
    "write key": ("/webhook/shop", {"X-Write-Key": KEY}),
    "path": (f"/Webhook/Shop/{KEY}", {}),
    "query": (f"/webhook//shop/?token={KEY}", {}),
    "header": ("/webhook/shop", {"X-Shop": f" {KEY}"}),
}
ALLOWED: Final = {
    "key": {"bearer", "user", "password", "write key", "path", "query"},
    "bearer": {"bearer"},
    "basic": {"user", "password"},
    "header": {"header"},
    "url_token": {"path", "query"},
}


@pytest.mark.parametrize("authentication", ALLOWED)
async def test_a_key_lets_in_only_where_it_belongs(shop: Shop, page: dict[str, Any], authentication: str) -> None:
    """Every place of every kind, over a socket."""
    header = '\nheader = "X-Shop"' if authentication == "header" else ""
    shop.write(source=f'authentication = "{authentication}"{header}')
    await shop.start()
    statuses = {place: (await shop.post(path, page, headers))[0] for place, (path, headers) in PLACES.items()}

    assert {place: 200 if place in ALLOWED[authentication] else 401 for place in PLACES} == statuses


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_three_methods_are_the_same(running: Shop, order: dict[str, Any], method: str) -> None:
    """Segment's webhook may be set to any of them."""
    url, data = f"{running.service.ingest_url}/webhook/shop/{KEY}", msgspec.json.encode(order)
    async with running.http.request(method, url, data=data) as response:
        status = response.status
    await running.delivered(1)

    assert 200 == status


SENT: Final[dict[str, tuple[Adapter, Any]]] = {
    "segment batch": ("segment", {"batch": ["ORDER"]}),
    "fluent bit": ("segment", [{"date": 1_790_000_000.5, "EVENT": None}]),
    "tracardi": ("tracardi", {"data": "ORDER", "changes": []}),
    "jitsu reverse etl": (
        "jitsu_reverse_etl",
        {
            "syncId": "s",
            "runId": "r",
            "sentAt": "2026-09-10T10:00:00Z",
            "records": [{"operation": "upsert", "key": "k", "idempotencyKey": "i-1", "data": "ORDER"}],
        },
    ),
}


def with_order(value: Any, order: dict[str, Any]) -> Any:
    """The sender's body with the order in its place."""
    if isinstance(value, list):
        return [with_order(one, order) for one in value]
    if isinstance(value, dict):
        found = {name: with_order(one, order) for name, one in value.items() if name != "EVENT"}
        return {**found, **order} if "EVENT" in value else found
    return order if value == "ORDER" else value


@pytest.mark.parametrize("sender", SENT)
async def test_the_body_of_a_sender_is_delivered_once(shop: Shop, order: dict[str, Any], sender: str) -> None:
    """Sent twice, as senders do; those with a recipe are in ``test_recipes.py``."""
    adapter, body = SENT[sender]
    shop.write(source=f'adapter = "{adapter}"', destination='eventTypeId = "1"')
    await shop.start()
    path, filled = f"/webhook/shop/{KEY}", with_order(body, order)
    first, second = await shop.post(path, filled), await shop.post(path, filled)
    await shop.delivered(1)

    assert [200, 200] == [first[0], second[0]]
    assert "o-1" == shop.impact.conversions[0].form["OrderId"]
