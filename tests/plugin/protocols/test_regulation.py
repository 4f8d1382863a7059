"""``POST /deleteUsers``: the router's deletions are carried out, or asked for again; none is given up or claimed.

rudder-server takes 200 for done, gives a deletion up on 404 and 405, and comes again after anything else.
https://github.com/rudderlabs/rudder-server/blob/master/regulation-worker/internal/delete/api/api.go
"""

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from impact_plugin.app import Service
from impact_plugin.errors import StateUnavailableError
from impact_plugin.store.embedded import EmbeddedStore
from tests import builders

Start = Callable[..., Awaitable[Service]]
Item = Callable[..., dict[str, Any]]


def job(config: Any, *users: dict[str, Any], type_: str = "IMPACT") -> dict[str, Any]:
    """A job as the regulation worker writes it."""
    return {"jobId": "7", "destType": type_, "config": config, "userAttributes": list(users)}


async def ask(http: aiohttp.ClientSession, service: Service, body: Any, path: str = "/deleteUsers") -> tuple[int, Any]:
    """Status and decoded body of the worker's request."""
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    async with http.post(service.url + path, data=data, headers={"Content-Type": "application/json"}) as response:
        return response.status, msgspec.json.decode(await response.read())


async def remember(http: aiohttp.ClientSession, service: Service, item: Item, *events: dict[str, Any]) -> None:
    """Let events pass through, so that the sessions know somebody."""
    batch = [item(event, number) for number, event in enumerate(events, 1)]
    async with http.post(f"{service.url}/v0/destinations/impact", json=batch) as response:
        await response.read()
        assert response.status == 200


def landing(number: int = 1, **more: Any) -> dict[str, Any]:
    """A page with a click id."""
    return builders.landing(f"landing-{number}", click_id=f"CLICK-{number}", **more)


def remembered(folder: Path) -> int:
    """How many identities are on disk."""
    with sqlite3.connect(folder / "var" / "sessions.db") as connection:
        count = connection.execute("SELECT count(*) FROM identities").fetchone()[0]
    connection.close()
    assert isinstance(count, int)
    return count


@pytest.mark.parametrize("type_", ["IMPACT", "impact", "Impact"])
async def test_a_user_is_forgotten(
    http: aiohttp.ClientSession, service: Service, item: Item, config: dict[str, Any], tmp_path: Path, type_: str
) -> None:
    """With the visitors who were joined to them; the type may be in any case."""
    identify = {**landing(2), "type": "identify", "messageId": "i", "userId": "u-1", "properties": {}}
    await remember(http, service, item, landing(), identify, landing(3, anonymousId="a-other"))
    before = remembered(tmp_path)
    status, reply = await ask(http, service, [job(config, {"userId": "u-1", "phone": "123"}, type_=type_)])

    assert 200 == status
    assert [{"statusCode": 200, "status": "successful", "error": "", "authErrorCategory": ""}] == reply
    assert (3, 1) == (before, remembered(tmp_path))


async def test_user_ids_may_be_numbers(
    http: aiohttp.ClientSession, service: Service, item: Item, config: dict[str, Any], tmp_path: Path
) -> None:
    """As events may have them; what is no id is passed over."""
    await remember(http, service, item, landing(userId=5))
    users: list[dict[str, Any]] = [
        {"userId": 5, "anonymousId": None},
        {"userId": ""},
        {},
        {"userId": {"a": 1}},
        {"anonymousId": "a-1"},
    ]
    status, _ = await ask(http, service, [job(config, *users)])

    assert (200, 0) == (status, remembered(tmp_path))


async def test_several_jobs_have_an_answer_each(
    http: aiohttp.ClientSession, service: Service, config: dict[str, Any], item: Item, tmp_path: Path
) -> None:
    """In order; the HTTP status is the worst of them, so that the worker asks again."""
    await remember(http, service, item, landing(1), landing(2, anonymousId="a-2"))
    jobs = [job(config, {"userId": "a-1"}), job({"accountSID": "x"}, {"userId": "u"}), job(config, {"userId": "a-2"})]
    status, reply = await ask(http, service, jobs)

    assert 400 == status
    assert [200, 400, 200] == [one["statusCode"] for one in reply]
    assert 0 == remembered(tmp_path)


async def test_thousands_of_users(
    http: aiohttp.ClientSession, service: Service, item: Item, config: dict[str, Any], tmp_path: Path
) -> None:
    """Whatever the worker sends at a time; the last is forgotten as the first is."""
    await remember(http, service, item, *(landing(n, anonymousId=f"a-{n}") for n in (0, 999, 1000, 2499)))
    users = [{"userId": f"u-{number}", "anonymousId": f"a-{number}"} for number in range(2500)]
    status, _ = await ask(http, service, [job(config, *users)])

    assert (200, 0) == (status, remembered(tmp_path))


@pytest.mark.parametrize("type_", ["BRAZE", "", "IMPACT_OTHER"])
async def test_anothers_deletion_goes_to_the_stock_transformer(
    http: aiohttp.ClientSession, start: Start, upstream: Any, type_: str
) -> None:
    """As it is, and its answer back, whatever that is."""

    async def reply(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=404, body=b'[{"status":"not supported"}]')

    upstream.reply = reply
    service = await start(rudder={"upstream": upstream.url})
    body = msgspec.json.encode([job({}, {"userId": "u-1"}, type_=type_)])
    status, answer = await ask(http, service, body)

    assert (404, [{"status": "not supported"}]) == (status, answer)
    assert [("POST", "/deleteUsers", body)] == [(seen.method, seen.target, seen.body) for seen in upstream.seen]


async def test_a_body_that_cannot_be_read_goes_to_the_stock_transformer(
    http: aiohttp.ClientSession, start: Start, upstream: Any
) -> None:
    """It may be in a form of another destination; ours are in the form that is read."""
    service = await start(rudder={"upstream": upstream.url})
    await ask(http, service, b'{"a":1}')

    assert [b'{"a":1}'] == [seen.body for seen in upstream.seen]


async def test_a_spoilt_job_of_ours_stays_here(http: aiohttp.ClientSession, start: Start, upstream: Any) -> None:
    """The stock transformer would answer 404, and the router give the deletion up."""
    service = await start(rudder={"upstream": upstream.url})
    status, _ = await ask(http, service, [{"destType": "IMPACT", "userAttributes": "u"}])

    assert (503, []) == (status, upstream.seen)


@pytest.mark.parametrize(
    "body", [[job({}, type_="BRAZE")], [], b"{", b"", b"null", [1], [{"destType": 5}], [{"userAttributes": "u"}]]
)
async def test_what_is_not_ours_is_asked_for_again(http: aiohttp.ClientSession, service: Service, body: Any) -> None:
    """Without a stock transformer, and for what cannot be read: 503, never the 404 or 405 that give it up."""
    status, _ = await ask(http, service, body)

    assert 503 == status


@pytest.mark.parametrize(
    "config",
    [{}, None, {"accountSID": "IRtest"}, {"accountSID": "{{ event.account || IRtest }}", "apiKey": "token-of-a-test",
     "campaignId": "1"}],
    ids=["empty", "none", "half", "template"],
)  # fmt: skip
async def test_a_configuration_that_names_no_program(
    http: aiohttp.ClientSession, service: Service, config: Any
) -> None:
    """400 with the reason: clicks are kept by account and campaign, and nobody is to believe that they are gone."""
    status, (reply,) = await ask(http, service, [job(config, {"userId": "u-1"})])

    assert (400, 400, "failed") == (status, reply["statusCode"], reply["status"])
    assert reply["error"].startswith("the destination's configuration does not name one program: ")
    assert "token-of-a-test" not in reply["error"]


@pytest.mark.parametrize("method", ["joined", "forget"])
async def test_a_state_out_of_reach_is_asked_again(
    http: aiohttp.ClientSession,
    service: Service,
    item: Item,
    config: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    """500 at first; the same request later finds all of the person, those who were joined too."""
    identify = {**landing(2), "type": "identify", "messageId": "i", "userId": "u-1", "properties": {}}
    await remember(http, service, item, landing(), identify)

    async def unreachable(_store: EmbeddedStore, _identities: Sequence[bytes]) -> list[bytes]:
        raise StateUnavailableError("the disk is full")

    with monkeypatch.context() as outage:
        outage.setattr(EmbeddedStore, method, unreachable)
        status, (reply,) = await ask(http, service, [job(config, {"userId": "u-1"})])
    again, _ = await ask(http, service, [job(config, {"userId": "u-1"})])

    assert (500, "failed", "state_unavailable: the disk is full") == (status, reply["status"], reply["error"])
    assert (200, 0) == (again, remembered(tmp_path))


async def test_a_deletion_of_nobody_is_done(
    http: aiohttp.ClientSession, service: Service, config: dict[str, Any]
) -> None:
    """And again and again; the path in any case, as the router's URL setting leads to."""
    for path in ("/deleteUsers", "/deleteusers/", "//deleteUsers"):
        status, (reply,) = await ask(http, service, [job(config)], path)

        assert (200, "successful") == (status, reply["status"])


@pytest.mark.parametrize(("setting", "types"), [(True, ["IMPACT"]), (False, [])])
async def test_the_router_is_told_by_features(
    http: aiohttp.ClientSession, start: Start, setting: bool, types: list[str]
) -> None:
    """Only with rudder.delete_users does the router send deletions here."""
    service = await start(rudder={"delete_users": setting})
    async with http.get(f"{service.url}/features") as response:
        body = msgspec.json.decode(await response.read())

    assert types == body["regulations"]
