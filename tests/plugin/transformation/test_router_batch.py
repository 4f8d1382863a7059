"""``POST /batch``: jobs of ours are answered one by one, those of others passed on, and none is lost."""

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec
import pytest

from impact_plugin.app import Service

Item = Callable[..., dict[str, Any]]
Start = Callable[..., Awaitable[Service]]


def jobs(*inputs: Any, to: str = "impact", **more: Any) -> dict[str, Any]:
    """A request of the router."""
    return {"input": list(inputs), "destType": to, **more}


async def ask(http: aiohttp.ClientSession, service: Service, body: Any) -> tuple[int, Any]:
    """Send jobs; the status and the decoded reply, whose version the router insists on."""
    async with http.post(f"{service.url}/batch", data=msgspec.json.encode(body)) as response:
        assert response.headers["apiVersion"] == "2"
        return response.status, msgspec.json.decode(await response.read())


async def test_events_become_requests(
    http: aiohttp.ClientSession, service: Service, item: Item, page: dict[str, Any], order: dict[str, Any]
) -> None:
    """The reply is the bare list of what router transform would answer."""
    body = jobs(item(page, 1), item(order, 2), item({"type": "unheard-of"}, 3))
    async with http.post(f"{service.url}/routerTransform", json=body) as response:
        output = (await response.json())["output"]

    assert await ask(http, service, body) == (200, output)
    assert [one["statusCode"] for one in output] == [200, 200, 298]


@pytest.mark.parametrize("apart", [False, True])
async def test_what_the_processor_transformed_stays_as_it_is(
    http: aiohttp.ClientSession, service: Service, item: Item, order: dict[str, Any], apart: bool
) -> None:
    """The router batches what is ready to be sent: each comes back by itself, byte for byte what it was."""
    async with http.post(f"{service.url}/v0/destinations/impact", json=[item(order)]) as response:
        ready = (await response.json())[0]["output"]
    sent = [item(ready, number) for number in (1, 2)]
    destination = sent[0]["destination"]
    body = jobs(*sent)
    if apart:
        for one in sent:
            del one["destination"]
        body["destinations"] = {"d-1": destination}
    status, entries = await ask(http, service, body)

    assert status == 200
    assert entries == [
        {
            "batchedRequest": ready,
            "metadata": [one["metadata"]],
            "destination": destination,
            "statusCode": 200,
            "batched": False,
        }
        for one in sent
    ]


async def test_ready_jobs_beside_events_lose_neither(
    http: aiohttp.ClientSession, service: Service, item: Item, order: dict[str, Any]
) -> None:
    """No router mixes them; if one did, every job still has its entry."""
    async with http.post(f"{service.url}/v0/destinations/impact", json=[item(order)]) as response:
        ready = (await response.json())[0]["output"]
    _, entries = await ask(http, service, jobs(item(ready, 1), item(order, 2)))

    assert sorted(entry["metadata"][0]["jobId"] for entry in entries) == [1, 2]


async def test_jobs_of_others_are_passed_on(http: aiohttp.ClientSession, start: Start, upstream: Any) -> None:
    """The stock transformer's answer comes back as it is."""
    service = await start(rudder={"upstream": upstream.url})

    assert await ask(http, service, jobs(to="am")) == (200, {"from": "upstream"})
    assert upstream.seen[0].target == "/batch"


@pytest.mark.parametrize("rudder", [{}, {"upstream": "http://127.0.0.1:9"}])
@pytest.mark.parametrize("path", ["/batch", "/routerTransform"])
async def test_jobs_nobody_can_take_now_come_again(
    http: aiohttp.ClientSession, start: Start, item: Item, page: dict[str, Any], rudder: dict[str, Any], path: str
) -> None:
    """A status per job, without a limit of tries: 404 would abort them, and 5xx may after three hours."""
    service = await start(rudder=rudder)
    async with http.post(service.url + path, json=jobs(item(page, 7), item(page, 8), to="am")) as response:
        told = await response.json(content_type=None)
        assert (response.status, response.headers["apiVersion"]) == (200, "2")
    entries = told["output"] if path == "/routerTransform" else told

    assert [(entry["statusCode"], entry["metadata"][0]["jobId"]) for entry in entries] == [(429, 7), (429, 8)]
    assert all("upstream" in entry["error"] for entry in entries)
