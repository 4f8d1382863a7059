"""``GET /features``: always something the router can start with, merged with what the stock transformer says."""

import asyncio
import shutil
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from impact_plugin.app import Service
from impact_plugin.rudder.feature_checks import check_features

Start = Callable[..., Awaitable[Service]]

STOCK: dict[str, Any] = {
    "routerTransform": {"MARKETO": True, "HS": True},
    "regulations": ["BRAZE", "AM"],
    "supportSourceTransformV1": True,
    "upgradedToSourceTransformV2": True,
    "supportTransformerProxyV1": True,
    "supportDestTransformCompactedPayloadV1": True,
    "aKeyOfTheFuture": {"nested": [1, 2.5, None]},
}


def answers(body: Any, status: int = 200) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """A reply of the stock transformer; what is not bytes yet is encoded."""

    async def reply(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, body=body if isinstance(body, bytes) else msgspec.json.encode(body))

    return reply


async def features(http: aiohttp.ClientSession, service: Service, path: str = "/features") -> dict[str, Any]:
    """Fetch the features and judge them as rudder-server does."""
    async with http.get(service.url + path) as response:
        body = await response.read()
    check_features(response.status, body)
    decoded: dict[str, Any] = msgspec.json.decode(body)
    return decoded


async def test_alone_the_service_offers_all_it_can(http: aiohttp.ClientSession, service: Service) -> None:
    """Without an upstream: compaction, proxy v1, router transform of our type, and the two source flags."""
    assert await features(http, service) == {
        "routerTransform": {"IMPACT": True},
        "regulations": [],
        "supportSourceTransformV1": True,
        "upgradedToSourceTransformV2": True,
        "supportTransformerProxyV1": True,
        "supportDestTransformCompactedPayloadV1": True,
    }


async def test_router_transform_can_be_switched_off(
    http: aiohttp.ClientSession, start: Start, upstream: Any, tmp_path: Path
) -> None:
    """``rudder.router_transform = false`` keeps our type out, even if an upstream offers it."""
    upstream.reply = answers({**STOCK, "routerTransform": {"IMPACT": True, "HS": True}})
    alone = await start(rudder={"router_transform": False})
    merged = await start(
        rudder={"router_transform": False, "upstream": upstream.url}, state={"dir": str(tmp_path / "other")}
    )

    assert (await features(http, alone))["routerTransform"] == {}
    assert (await features(http, merged))["routerTransform"] == {"HS": True}


async def test_deletions_are_asked_for_where_the_setting_says_so(
    http: aiohttp.ClientSession, start: Start, upstream: Any, tmp_path: Path
) -> None:
    """``rudder.delete_users = true`` adds our type to those whose users the router deletes; others stay."""
    upstream.reply = answers({**STOCK, "regulations": ["AM"]})
    silent = await start(rudder={"upstream": upstream.url})
    asking = await start(
        rudder={"upstream": upstream.url, "delete_users": True}, state={"dir": str(tmp_path / "other")}
    )

    assert ["AM"] == (await features(http, silent))["regulations"]
    assert ["AM", "IMPACT"] == (await features(http, asking))["regulations"]


async def test_all_our_types_are_offered(http: aiohttp.ClientSession, start: Start) -> None:
    """Several definitions may be ours, in the spelling of the definitions."""
    service = await start(rudder={"destination_types": ["IMPACT", "Impact_EU"]})

    assert (await features(http, service))["routerTransform"] == {"IMPACT": True, "Impact_EU": True}


async def test_the_upstreams_answer_is_kept_and_ours_added(
    http: aiohttp.ClientSession, start: Start, upstream: Any
) -> None:
    """Every key of the stock transformer stays as it is, the unknown ones too."""
    upstream.reply = answers(STOCK)
    service = await start(rudder={"upstream": upstream.url})
    expected = {**STOCK, "routerTransform": {"MARKETO": True, "HS": True, "IMPACT": True}}

    assert await features(http, service) == expected
    assert await features(http, service, "//features/") == expected


async def test_the_last_good_answer_outlives_the_upstream(
    http: aiohttp.ClientSession, start: Start, upstream: Any
) -> None:
    """A router that boots while the stock transformer restarts gets what it said before."""
    upstream.reply = answers({**STOCK, "regulations": ["X"]})
    service = await start(rudder={"upstream": upstream.url})
    before = await features(http, service)
    await upstream.stop()

    assert await features(http, service) == before
    assert before["regulations"] == ["X"]


async def test_a_newer_answer_replaces_the_last(
    http: aiohttp.ClientSession, start: Start, upstream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade of the stock transformer shows without a restart of ours, and without anybody asking us."""
    monkeypatch.setattr("impact_plugin.http.features.REFRESH_SECONDS", 0.02)
    upstream.reply = answers(STOCK)
    service = await start(rudder={"upstream": upstream.url})
    await features(http, service)
    upstream.reply = answers({**STOCK, "regulations": ["NEW"]})
    for _ in range(500):
        await asyncio.sleep(0.01)
        if (await features(http, service))["regulations"] == ["NEW"]:
            break

    assert (await features(http, service))["regulations"] == ["NEW"]


async def test_the_router_never_waits_for_the_upstream_that_answered_once(
    http: aiohttp.ClientSession, start: Start, upstream: Any
) -> None:
    """A stock transformer that hangs keeps no router from starting: the answer comes from memory."""
    upstream.reply = answers(STOCK)
    service = await start(rudder={"upstream": upstream.url})
    before = await features(http, service)
    never = asyncio.Event()

    async def hang(_request: web.BaseRequest) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    upstream.reply = hang
    asked = upstream.features_asked
    try:
        async with asyncio.timeout(2):
            assert await features(http, service) == before
        assert upstream.features_asked == asked
    finally:
        never.set()


async def test_what_the_upstream_said_is_known_after_a_start_without_it(
    http: aiohttp.ClientSession, start: Start, upstream: Any, tmp_path: Path
) -> None:
    """The router latches compaction at its own start: all three restarting at once must not switch it off."""
    upstream.reply = answers(STOCK)
    before = await features(http, await start(rudder={"upstream": upstream.url}))
    await upstream.stop()
    (tmp_path / "later").mkdir()
    shutil.copy(tmp_path / "var" / "features.json", tmp_path / "later")

    again = await start(rudder={"upstream": upstream.url}, state={"dir": str(tmp_path / "later")})

    assert await features(http, again) == before


async def test_of_an_upstream_never_heard_nothing_is_promised_that_it_may_not_do(
    http: aiohttp.ClientSession, start: Start
) -> None:
    """Until it answers, bodies come plain and deliveries by the older protocol, which every version reads."""
    told = await features(http, await start(rudder={"upstream": "http://127.0.0.1:9"}))

    assert told == {
        "routerTransform": {"IMPACT": True},
        "regulations": [],
        "supportSourceTransformV1": True,
        "upgradedToSourceTransformV2": True,
    }


async def test_nobody_waits_for_the_disk_that_keeps_the_answer(
    http: aiohttp.ClientSession, start: Start, upstream: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is written the service answers, with what was just said."""
    writing, answered = threading.Event(), threading.Event()
    meanwhile: list[bool] = []

    def write_slowly(_path: Path, _content: bytes) -> None:
        writing.set()
        meanwhile.append(answered.wait(30))

    upstream.reply = answers(STOCK)
    service = await start(rudder={"upstream": upstream.url})
    before = await features(http, service)
    monkeypatch.setattr("impact_plugin.http.features.write_whole", write_slowly)
    later = await start(rudder={"upstream": upstream.url}, state={"dir": str(tmp_path / "later")})
    try:
        first = asyncio.create_task(features(http, later))
        assert await asyncio.to_thread(writing.wait, 30)
        async with asyncio.timeout(10):
            assert await features(http, later) == before
    finally:
        answered.set()

    assert await first == before
    assert [True] == meanwhile


@pytest.mark.parametrize("spoilt", [b"", b"{", b"[]", b"\xff"])
async def test_a_spoilt_copy_is_as_good_as_none(
    http: aiohttp.ClientSession, start: Start, tmp_path: Path, spoilt: bytes
) -> None:
    """A file cut off by a full disk keeps nobody from starting."""
    folder = tmp_path / "spoilt"
    folder.mkdir()
    (folder / "features.json").write_bytes(spoilt)
    service = await start(rudder={"upstream": "http://127.0.0.1:9"}, state={"dir": str(folder)})

    assert (await features(http, service))["routerTransform"] == {"IMPACT": True}


async def test_an_endless_answer_is_given_up(http: aiohttp.ClientSession, start: Start, upstream: Any) -> None:
    """What is longer than any answer could be does not fill the memory."""
    upstream.reply = answers(b"[" + b" " * (2 * 1024 * 1024) + b"]")
    service = await start(rudder={"upstream": upstream.url})

    assert (await features(http, service))["routerTransform"] == {"IMPACT": True}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 200),
        (b"null", 200),
        (b"[]", 200),
        (b'"x"', 200),
        (b"<html>", 200),
        (b"{", 200),
        (b"[" * 5000, 200),
        (b'"\xff"', 200),
        (STOCK, 500),
        (b"Not Found", 404),
        ({"routerTransform": ["MARKETO"], "upgradedToSourceTransformV2": True}, 200),
        ({"routerTransform": None, "upgradedToSourceTransformV2": True}, 200),
        ({"supportSourceTransformV1": False, "upgradedToSourceTransformV2": False}, 200),
        ({}, 200),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_whatever_the_upstream_says_the_router_can_start(
    http: aiohttp.ClientSession, start: Start, upstream: Any, body: Any, status: int
) -> None:
    """A 503 here, or an answer without the source flags, keeps the router from booting or crashes it."""
    upstream.reply = answers(body, status)
    service = await start(rudder={"upstream": upstream.url})

    assert (await features(http, service))["routerTransform"]["IMPACT"] is True


@pytest.mark.parametrize(
    "missing", ["upgradedToSourceTransformV2", "supportTransformerProxyV1", "supportDestTransformCompactedPayloadV1"]
)
async def test_an_old_upstream_is_not_said_to_do_what_it_cannot(
    http: aiohttp.ClientSession, start: Start, upstream: Any, missing: str
) -> None:
    """The flags hold for every destination and source: the router would send the upstream what it cannot read."""
    upstream.reply = answers({key: value for key, value in STOCK.items() if key != missing})
    service = await start(rudder={"upstream": upstream.url})

    assert not (await features(http, service)).get(missing)
