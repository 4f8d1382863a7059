"""A thousand bad bodies against the running service: an answer of the contract for each, and nothing is left over."""

import asyncio
import gzip
import io
import json
import random
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest

from tests.plugin.ingest.ingest_shop import BASIC, KEY, SECONDS, Shop

pytestmark = pytest.mark.slow

SEED: Final = 20_260_910
BODIES: Final = 1000
PATHS: Final = ("/v1/track", "/v1/page", "/v1/batch", "/webhook/shop", "/webhook/signed")
CONTRACT: Final = {200, 400, 401, 404, 413, 429, 503}
KEPT_BYTES: Final = 8 * 1024 * 1024
"""The service's, its spool's and the client's own, after bodies of up to 10 MB and bombs of 100 MB."""

HELD_BYTES: Final = 128 * 1024 * 1024
"""At any moment; the largest body that is taken may have 32 MiB, and is held a few times."""

SIGNED: Final = """
[sources.signed]
authentication = "none"
[sources.signed.signature]
scheme = "segment_sha1"
secrets = ["a-shared-secret-0123456789"]
"""
EVENT: Final[dict[str, Any]] = {
    "type": "track",
    "event": "Order Completed",
    "messageId": "bad",
    "anonymousId": "a-bad",
    "properties": {"order_id": "o-bad", "total": 25.0, "currency": "EUR"},
}
LARGE: Final = b'{"type":"track","event":"' + b"x" * 10_000_000 + b'"}'
BOMB: Final = gzip.compress(b'{"a":"' + b"0" * 100_000_000 + b'"}', 6)
Sent = tuple[bytes, dict[str, str]]


def _packed(body: bytes, encoding: str = "gzip") -> Sent:
    return body, {"Content-Encoding": encoding}


def _cut(rng: random.Random) -> Sent:
    text = msgspec.json.encode(EVENT)
    return text[: rng.randrange(len(text))], {}


def _deep(rng: random.Random) -> Sent:
    opened, closed = rng.choice([(b"[", b"]"), (b'{"a":', b"}")])
    depth = 10_000
    body = opened * depth + b"1" + closed * depth
    return rng.choice([body, b'{"type":"track","properties":' + body + b"}", b'{"batch":[' + body + b"]}"]), {}


def _number(rng: random.Random) -> Sent:
    number = rng.choice([b"9" * 5000, b"1e999", b"-1e-999", b"1" + b"0" * 400 + b".5", b"NaN", b"-Infinity", b"0x1f"])
    name = rng.choice([b"total", b"order_id"])
    return b'{"type":"track","event":"Order Completed","properties":{"' + name + b'":' + number + b"}}", {}


def _charset(rng: random.Random) -> Sent:
    text = json.dumps({**EVENT, "event": "Größe ☃"}, ensure_ascii=False)
    encoding = rng.choice(["utf-16", "utf-32", "utf-8-sig", "cp1252", "utf-7"])
    return text.encode(encoding, "replace"), {
        "Content-Type": f"application/json; charset={rng.choice(['x', encoding])}"
    }


def _encoding(rng: random.Random) -> Sent:
    text = msgspec.json.encode(EVENT)
    packed = gzip.compress(text)
    body = rng.choice(
        [text, packed[: rng.randrange(len(packed))], packed[:-8] + b"\0" * 8, packed + b"junk", packed * 70, b""]
    )
    return _packed(body, rng.choice(["gzip", "x-gzip", "deflate", "br", "gzip, gzip", "é"]))


def _bomb(rng: random.Random) -> Sent:
    return _packed(rng.choice([BOMB, BOMB, gzip.compress(BOMB)]))


def _large(_rng: random.Random) -> Sent:
    return LARGE, {}


def _twice(rng: random.Random) -> Sent:
    key = rng.choice(["type", "event", "messageId", "properties", "batch", "context"])
    return f'{{"type":"track","{key}":{{}},"{key}":"x","{key}":null}}'.encode(), {}


def _bytes(rng: random.Random) -> Sent:
    text = bytearray(msgspec.json.encode(EVENT))
    for _ in range(rng.randrange(1, 4)):
        text[rng.randrange(len(text))] = rng.choice([0, 0xFF, 0xC0, 0x80, 0x0A, 0x22, 0x5C])
    return bytes(text), {}


def _surrogate(rng: random.Random) -> Sent:
    escape = rng.choice([b"\\ud800", b"\\udfff\\ud800", b"\\u0000", b"\\uD83D", b"a@b.example\\ud800"])
    name = rng.choice([b"event", b"messageId", b"userId", b"writeKey"])
    body = b'{"type":"track","properties":{"email":"x@example.com"},"' + name + b'":"' + escape + b'"}'
    return rng.choice([body, b'{"context":{"a":1},"batch":[' + body + b"]}", b"[" + body + b"]"]), {}


def _shape(rng: random.Random) -> Sent:
    values: list[Any] = [None, True, 7, "x", [], {}, [[]], [None], {"batch": 7}, {"batch": [None, 7, "x", [], {}]}]
    body = {name: rng.choice(values) for name in rng.sample([*EVENT, "context", "integrations", "userId", "batch"], 5)}
    return msgspec.json.encode(rng.choice([body, *values])), {}


def _signature(rng: random.Random) -> Sent:
    return msgspec.json.encode(EVENT), {"X-Signature": rng.choice(["", "0" * 40, "é", "x" * 5000])}


def _noise(rng: random.Random) -> Sent:
    return rng.randbytes(rng.randrange(2000)), rng.choice([{}, {"Content-Encoding": "gzip"}])


MAKERS: Final[tuple[Callable[[random.Random], Sent], ...]] = (
    _cut, _deep, _number, _charset, _encoding, _twice, _bytes, _surrogate, _shape, _signature, _noise
)  # fmt: skip
HEAVY: Final = (_bomb, _large)


def bad_bodies() -> list[tuple[str, Sent]]:
    """The same ones at each run; few of the heavy ones, which take long."""
    rng = random.Random(SEED)  # noqa: S311 - the same bodies at each run
    makers = [HEAVY[number % 50 // 25] if number % 25 == 0 else rng.choice(MAKERS) for number in range(BODIES)]
    return [(rng.choice(PATHS), maker(rng)) for maker in makers]


async def post(shop: Shop, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    """Status and decoded answer; the body goes as a stream, since the client warns of large ones."""
    url = f"{shop.service.ingest_url}{path}"
    async with shop.http.post(url, data=io.BytesIO(body), headers=headers) as response:
        return response.status, msgspec.json.decode(await response.read())


async def arrival(shop: Shop, order_id: str) -> None:
    """Wait until impact.com has the order."""
    deadline = time.monotonic() + SECONDS
    while order_id not in [call.form["OrderId"] for call in shop.impact.conversions]:
        assert time.monotonic() < deadline, f"{order_id} did not arrive"
        await asyncio.sleep(0.02)


async def test_bad_bodies_get_the_status_of_the_contract(shop: Shop, order: dict[str, Any]) -> None:
    """None is a defect of ours, memory stays bounded, and a good event is delivered afterwards."""
    shop.write(destination='eventTypeId = "1"', more=SIGNED)
    await shop.start()
    bodies = bad_bodies()
    statuses: Counter[int] = Counter()
    await shop.post("/v1/track", b"{}")
    tracemalloc.start()
    try:
        for path, (body, headers) in bodies:
            given = headers if path == "/webhook/signed" else {**BASIC, **headers}
            status, reply = await post(shop, path, body, given)
            statuses[status] += 1
            assert isinstance(reply["success"], bool), (path, body[:200])
        kept, held = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    good, _ = await shop.post("/v1/track", {**order, "properties": {**order["properties"], "order_id": "o-good"}})
    await arrival(shop, "o-good")
    lines = shop.service.telemetry.metrics.render().decode().splitlines()
    faults = [line for line in lines if line.startswith("impact_plugin_faults_total") and not line.endswith(" 0.0")]

    assert BODIES == sum(statuses.values())
    assert set(statuses) <= CONTRACT, statuses
    assert {200, 400, 401, 413} <= set(statuses), statuses
    assert kept < KEPT_BYTES
    assert held < HELD_BYTES
    assert 200 == good
    assert [] == faults


async def test_a_bomb_is_not_inflated(running: Shop) -> None:
    """What it would be is never held: no more than the limit of the surface."""
    bomb = zlib.compress(b"0" * 300_000_000)
    tracemalloc.start()
    try:
        status, _ = await running.post("/v1/batch", bomb, {**BASIC, "Content-Encoding": "deflate"})
        _, held = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 413 == status
    assert held < 24 * 1024 * 1024


async def test_a_key_in_the_body_is_not_looked_for_in_garbage(running: Shop) -> None:
    """Without a readable key there is no source: 401, whatever the body is."""
    found = [
        (await running.post("/v1/batch", body, {}))[0]
        for body in (b"", b"\xff", b'{"writeKey":7}', b'{"writeKey":"\\ud800"}', b"[" * 10_000, KEY.encode())
    ]

    assert [401] * 6 == found
