"""The Segment HTTP API: paths, keys, batches and sizes."""

import base64
import gzip
from typing import Any, Final

import msgspec
import pytest

from impact_plugin.errors import EnvelopeError
from impact_plugin.ingest.intake import Item, Unusable
from impact_plugin.protocols.segment_api import BATCH, body_key, presented_key, read_items
from tests.plugin.ingest.ingest_shop import BASIC, KEY, Shop

OTHER: Final = "another-key-9876543210"


def decoded(body: Any, call: str = BATCH, limit: int = 10_000) -> list[Any]:
    """The events of a body, decoded, and why others cannot be used."""
    items = read_items(msgspec.json.encode(body), call, limit)
    return [msgspec.json.decode(item.payload) if isinstance(item, Item) else item.detail for item in items]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Authorization": "Basic " + base64.b64encode(b"k:").decode()}, "k"),
        ({"Authorization": "basic  " + base64.b64encode(b"k").decode()}, "k"),
        ({"Authorization": "Basic " + base64.b64encode(b"k:p:q").decode()}, "k"),
        ({"Authorization": "Basic %%%"}, ""),
        ({"Authorization": "Basic é"}, ""),
        ({"Authorization": "Bearer  k "}, "k"),
        ({"X-Write-Key": "k"}, "k"),
        ({"X-Write-Key": "k", "Authorization": "Bearer other"}, "k"),
        ({"Authorization": "Digest k"}, None),
        ({}, None),
    ],
)
def test_a_key_is_read_from_the_headers(headers: dict[str, str], expected: str | None) -> None:
    """Basic with or without its colon, X-Write-Key, or Bearer."""
    assert expected == presented_key(headers)


@pytest.mark.parametrize(
    ("body", "expected"), [(b'{"writeKey":"k"}', "k"), (b'{"writeKey":7}', None), (b"{}", None), (b"[", None)]
)
def test_a_key_is_read_from_the_body(body: bytes, expected: str | None) -> None:
    """As a text only."""
    assert expected == body_key(body)


def test_an_items_words_go_before_the_batchs() -> None:
    """Objects within are merged, nulls of whole objects hide nothing, and other items stay as they are."""
    batch = {
        "batch": [{"context": {"app": {"name": "own"}, "ip": None}}, {"context": None}, 7, "x"],
        "context": {"app": {"name": "shared", "build": "1"}, "ip": "203.0.113.9"},
        "integrations": {"All": False},
    }
    first, second, *others = decoded(batch)

    assert {"app": {"name": "own", "build": "1"}, "ip": None} == first["context"]
    assert batch["context"] == second["context"]
    assert [{"All": False}] * 2 == [first["integrations"], second["integrations"]]
    assert [7, "x"] == others


@pytest.mark.parametrize("own", ["timestamp", "sentAt", "originalTimestamp"])
def test_the_batchs_time_is_for_items_without_one(own: str) -> None:
    """An item's own time stays alone."""
    with_time, without = decoded({"batch": [{own: "t"}, {}], "sentAt": "2026-09-10T10:00:00Z"})

    assert {own: "t"} == with_time
    assert {"sentAt": "2026-09-10T10:00:00Z"} == without


def test_an_item_that_is_too_large_costs_no_other() -> None:
    """It is told by its size and the setting."""
    found = decoded({"batch": [{"a": "x" * 100}, {"a": 1}]}, limit=50)

    assert ["the event has 108 bytes; at most 50 are taken (max_event_kb)", {"a": 1}] == found


@pytest.mark.parametrize("body", [b"", b"7", b"[]", b"{", b"{}", b'{"batch":{}}', b'{"batch":[1}', b'{"batch":null}'])
def test_what_is_no_batch_is_refused(body: bytes) -> None:
    """With the error of a body."""
    with pytest.raises(EnvelopeError):
        read_items(body, BATCH, 1000)


@pytest.mark.parametrize("body", [b"", b"7", b"[]", b"{", b"\xff", b"{}{}"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    """With the error of a body."""
    with pytest.raises(EnvelopeError):
        read_items(body, "track", 1000)


def test_a_single_call_keeps_its_bytes() -> None:
    """And knows the path's type."""
    assert [Item(b'{"type":"x"}', "page")] == list(read_items(b'{"type":"x"}', "page", 1000))
    assert isinstance(read_items(b'{"batch":["%b"]}' % (b"x" * 99), BATCH, 9)[0], Unusable)


@pytest.mark.parametrize("path", ["/v1/track", "/v1/T", "//V1//track/", "/v1/t?a=b"])
async def test_the_paths_type_wins(running: Shop, order: dict[str, Any], path: str) -> None:
    """Whatever the body says, and however the path is written."""
    status, _ = await running.post(path, {**order, "type": "page"})
    await running.delivered(1)

    assert 200 == status
    assert 1 == len(running.impact.conversions)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "x", "multipart/mixed"])
async def test_any_content_type_is_taken(running: Shop, page: dict[str, Any], content_type: str) -> None:
    """Beacons of browsers are text."""
    status, _ = await running.post("/v1/page", page, {**BASIC, "Content-Type": content_type})

    assert 200 == status


@pytest.mark.parametrize(
    ("headers", "key", "expected"),
    [
        (BASIC, OTHER, 200),
        ({"X-Write-Key": KEY}, None, 200),
        ({"Authorization": f"Bearer {KEY}"}, None, 200),
        ({}, KEY, 200),
        ({"X-Write-Key": OTHER}, KEY, 401),
        ({}, OTHER, 401),
        ({}, None, 401),
    ],
)
async def test_a_key_of_a_header_wins(
    running: Shop, page: dict[str, Any], headers: dict[str, str], key: str | None, expected: int
) -> None:
    """Jitsu leaves its own key in the body."""
    single, _ = await running.post("/v1/page", {**page, "writeKey": key}, headers)
    batch, _ = await running.post("/v1/batch", {"batch": [page], "writeKey": key}, headers)

    assert (expected, expected) == (single, batch)


async def test_compressed_bodies_are_inflated(running: Shop, page: dict[str, Any]) -> None:
    """Of one member or several; and what is beyond the limit is 413."""
    text = msgspec.json.encode(page)
    packed = {**BASIC, "Content-Encoding": "gzip"}
    bodies = [
        gzip.compress(text),
        gzip.compress(text[:9]) + gzip.compress(text[9:]),
        gzip.compress(b" " * 300_000 + text),
        gzip.compress(text)[:-9],
        text,
    ]

    assert [200, 200, 413, 400, 400] == [(await running.post("/v1/page", body, packed))[0] for body in bodies]
