"""``POST /routerTransform`` on a real port: every job in exactly one entry, whatever the jobs are."""

import asyncio
import io
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from impact_plugin.app import Service
from impact_plugin.rudder.bodies import QueuedEvent, Route, router_body
from impact_plugin.rudder.jobs import RequestJob
from impact_plugin.rudder.replies import TransformerReply, check_router_reply

SAMPLES = Path(__file__).parents[2] / "samples" / "rudderstack"
STAT_TAGS = {
    "destType": "IMPACT",
    "module": "destination",
    "implementation": "native",
    "feature": "router",
    "destinationId": "d-1",
    "workspaceId": "ws-1",
}

Item = Callable[..., dict[str, Any]]


async def post(http: aiohttp.ClientSession, service: Service, body: Any) -> tuple[int, dict[str, str], bytes]:
    """Send jobs; what is not bytes yet is encoded."""
    data = io.BytesIO(body if isinstance(body, bytes) else msgspec.json.encode(body))
    async with http.post(f"{service.url}/routerTransform", data=data) as response:
        return response.status, dict(response.headers), await response.read()


async def outputs(http: aiohttp.ClientSession, service: Service, body: Any) -> list[dict[str, Any]]:
    """Send jobs and decode the entries of the reply, which must be a 200 of the right version."""
    status, headers, raw = await post(http, service, body)
    assert (status, headers.get("apiVersion")) == (200, "2"), raw
    decoded: list[dict[str, Any]] = msgspec.json.decode(raw)["output"]
    return decoded


async def checked(
    http: aiohttp.ClientSession, service: Service, events: Sequence[dict[str, Any]], route: Route, *, compacted: bool
) -> TransformerReply:
    """Send jobs as rudder-server writes them and judge the reply as it does."""
    queued = [QueuedEvent(number, event, 2, "2026-01-02T03:04:05.678Z") for number, event in enumerate(events, 1)]
    built = router_body(queued, route, now=1767323045.0, compacted=compacted)
    status, headers, raw = await post(http, service, built.body)
    return check_router_reply(built.jobs, status, headers, raw)


@pytest.mark.parametrize("name", ["plain", "compacted"])
async def test_the_routers_own_sample_becomes_a_conversion(
    http: aiohttp.ClientSession, service: Service, name: str
) -> None:
    """A body marshalled from the router's own structs gets an entry with the keys the router reads, and no others."""
    (entry,) = await outputs(http, service, (SAMPLES / f"router_request_{name}.json").read_bytes())
    expected = set(msgspec.json.decode((SAMPLES / "router_response_type.json").read_bytes()))

    assert set(entry) <= expected
    assert set(entry) >= {"batchedRequest", "metadata", "destination", "batched", "statusCode"}
    assert (entry["statusCode"], entry["batched"]) == (200, False)
    assert entry["batchedRequest"]["body"]["FORM"]["OrderId"] == "o-1"
    assert entry["destination"]["ID"] == "dst-impact-1"


@pytest.mark.parametrize("size", [0, 1, 20, 200, 1000])
@pytest.mark.parametrize("compacted", [False, True])
async def test_every_job_is_in_exactly_one_entry(
    http: aiohttp.ClientSession,
    service: Service,
    page: dict[str, Any],
    order: dict[str, Any],
    config: dict[str, Any],
    size: int,
    compacted: bool,
) -> None:
    """Pages, orders, filtered and refused events: each is answered once, with its attempt count as it came."""
    kinds = [page, order, {"type": "group"}, {"type": "page"}]
    events = [kinds[number % 4] for number in range(size)]
    reply = await checked(http, service, events, Route(config), compacted=compacted)

    assert [job.status for job in reply.jobs] == [(200, 200, 298, 400)[number % 4] for number in range(size)]


@pytest.mark.parametrize("compacted", [False, True])
async def test_several_destinations_in_one_call(
    http: aiohttp.ClientSession, service: Service, page: dict[str, Any], config: dict[str, Any], compacted: bool
) -> None:
    """A router without isolation mixes destinations: each job is transformed, and echoed, with its own."""
    queued = [QueuedEvent(number, page) for number in range(1, 7)]
    bodies = [
        router_body(
            queued[number::3],
            Route({**config, "campaignId": str(number + 1)}, destination_id=f"d-{number}"),
            now=1767323045.0,
            compacted=compacted,
        )
        for number in range(3)
    ]
    decoded = [msgspec.json.decode(one.body, type=dict[str, msgspec.Raw]) for one in bodies]
    merged: dict[str, Any] = {
        "input": [job for one in decoded for job in msgspec.json.decode(one["input"], type=list[msgspec.Raw])],
        "destType": "impact",
    }
    if compacted:
        for key in ("destinations", "connections"):
            merged[key] = {
                name: raw
                for one in decoded
                for name, raw in msgspec.json.decode(one[key], type=dict[str, msgspec.Raw]).items()
            }
    status, headers, raw = await post(http, service, merged)
    jobs: list[RequestJob] = [job for one in bodies for job in one.jobs]
    reply = check_router_reply(jobs, status, headers, raw)
    campaigns = {job.job_id: job.request["body"]["FORM"]["CampaignId"] for job in reply.jobs if job.request}

    assert campaigns == {number: str((number - 1) % 3 + 1) for number in range(1, 7)}


async def test_calls_in_parallel_keep_apart(
    http: aiohttp.ClientSession, service: Service, page: dict[str, Any], config: dict[str, Any]
) -> None:
    """Workers ask at the same time; none gets another's jobs."""
    replies = await asyncio.gather(
        *(
            checked(http, service, [{**page, "anonymousId": f"a-{n}"}] * 20, Route(config), compacted=n % 2 == 0)
            for n in range(30)
        )
    )

    assert [
        {job.request["body"]["FORM"]["CustomProfileId"] for job in reply.jobs if job.request} for reply in replies
    ] == [{f"a-{n}"} for n in range(30)]


async def test_metadata_and_destination_come_back_byte_for_byte(
    http: aiohttp.ClientSession, service: Service, config: dict[str, Any]
) -> None:
    """What the router reads from the echo is what it sent: attempts, times, escapes, keys of the future."""
    metadata = b'{ "jobId":9223372036854775807,"attemptNum":1e0,"userId":"\\u003c\\u003e","x":{"y":[0.10,null]} }'
    destination = b'{"ID":"d-1","revision":1.50,"Name":"\\u003cb\\u003e","Config":' + msgspec.json.encode(config) + b"}"
    body = (
        b'{"input":[{"message":{"type":"page","anonymousId":"a"},"metadata":' + metadata
        + b',"destination":' + destination + b'}],"destType":"impact"}'
    )  # fmt: skip
    status, _, raw = await post(http, service, body)

    assert status == 200
    assert b'"metadata":[' + metadata + b"]" in raw
    assert b'"destination":' + destination in raw


async def test_the_destination_of_a_compacted_job_comes_back(
    http: aiohttp.ClientSession, service: Service, page: dict[str, Any], config: dict[str, Any]
) -> None:
    """Delivery throttles by the echoed destination, so it is echoed also where it was told once; the failed too."""
    body = {
        "input": [{"message": one, "metadata": {"jobId": n}} for n, one in enumerate((page, {"type": "group"}, None))],
        "destType": "impact",
        "destinations": {"d-1": {"ID": "d-1", "Config": config}},
    }
    found = await outputs(http, service, body)

    assert [one["statusCode"] for one in found] == [200, 298, 400]
    assert [one["destination"] for one in found] == [{"ID": "d-1", "Config": config}] * 3


BAD_EVENTS: dict[str, bytes] = {
    "null": b"null",
    "a list": b"[]",
    "no identity": b'{"type":"page"}',
    "deep nesting": b'{"type":"page","userId":"u","properties":' + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"}",
    "an integer of 5000 digits": b'{"type":"page","userId":"u","properties":{"x":' + b"9" * 5000 + b"}}",
    "a lone surrogate": b'{"type":"page","userId":"u","properties":{"x":"\\ud800"}}',
    "bytes that are not UTF-8": b'{"type":"page","userId":"\xff"}',
}


@pytest.mark.parametrize("name", BAD_EVENTS)
async def test_a_bad_job_spoils_no_other(
    http: aiohttp.ClientSession, service: Service, item: Item, page: dict[str, Any], name: str
) -> None:
    """A job nobody can read is answered for itself; a 503 here is a 500 for all, tried again in vain."""
    good = [msgspec.json.encode(item(page, job)) for job in (1, 3)]
    middle = msgspec.json.encode(item("BAD", 2)).replace(b'"BAD"', BAD_EVENTS[name])
    body = b'{"input":[' + b",".join((good[0], middle, good[1])) + b'],"destType":"impact"}'
    found = await outputs(http, service, body)

    assert [one["metadata"][0]["jobId"] for one in found] == [1, 2, 3]
    assert [one["statusCode"] for one in found[::2]] == [200, 200]
    assert found[1]["statusCode"] in {200, 400}


async def test_a_defect_of_ours_is_one_jobs_500(
    http: aiohttp.ClientSession, service: Service, item: Item, page: dict[str, Any], spoil: Callable[..., None]
) -> None:
    """500 lets the router try that job again; the others succeed."""
    spoil(ZeroDivisionError())
    jobs = [item(page, 1), item({**page, "messageId": "m-bad"}, 2), item(page, 3)]
    found = await outputs(http, service, {"input": jobs, "destType": "impact"})

    assert [one["statusCode"] for one in found] == [200, 500, 200]
    assert found[1]["statTags"] == {**STAT_TAGS, "errorCategory": "transformation"}


@pytest.mark.parametrize(
    ("message", "status", "tags"),
    [
        ({"type": "page"}, 400, {"errorCategory": "dataValidation", "errorType": "instrumentation"}),
        ({"type": "alias"}, 298, {}),
        (None, 400, {"errorCategory": "dataValidation", "errorType": "instrumentation"}),
    ],
)
async def test_failures_carry_the_stock_vocabulary(
    http: aiohttp.ClientSession, service: Service, item: Item, message: Any, status: int, tags: dict[str, str]
) -> None:
    """Status, tags and a sentence; ``batchedRequest`` is left out, for a null there would count as sent."""
    (entry,) = await outputs(http, service, {"input": [item(message)], "destType": "impact"})

    assert entry["statusCode"] == status
    assert entry["statTags"] == {**STAT_TAGS, **tags}
    assert isinstance(entry["error"], str)
    assert "batchedRequest" not in entry


@pytest.mark.parametrize("kind", ["impact", "IMPACT", "Impact"])
async def test_the_type_is_read_in_any_letter_case_and_place(
    http: aiohttp.ClientSession, service: Service, item: Item, page: dict[str, Any], kind: str
) -> None:
    """``destType`` stands after the jobs in the router's bodies, and before them in nobody's, but both work."""
    for body in ({"input": [item(page)], "destType": kind}, {"destType": kind, "input": [item(page)]}):
        (entry,) = await outputs(http, service, body)

        assert entry["statusCode"] == 200


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("kind", ["marketo", "other"])
async def test_jobs_of_another_type_come_again_later(
    http: aiohttp.ClientSession, service: Service, page: dict[str, Any], kind: str, compacted: bool
) -> None:
    """Without an upstream each job of another type is a 429, which the router retries without limit."""
    queued = [QueuedEvent(number, page) for number in (1, 2)]
    built = router_body(queued, Route({}, destination_type=kind.upper()), now=1767323045.0, compacted=compacted)
    status, headers, raw = await post(http, service, built.body)
    reply = check_router_reply(built.jobs, status, headers, raw)

    assert [(job.status, job.state) for job in reply.jobs] == [(429, "retry")] * 2
    assert "rudder.upstream" in reply.jobs[0].error
    assert all(isinstance(value, str) for value in reply.jobs[0].stat_tags.values())


async def test_jobs_of_another_type_come_again_when_the_upstream_is_down(
    http: aiohttp.ClientSession, start: Callable[..., Awaitable[Service]], page: dict[str, Any]
) -> None:
    """A dead upstream is told job by job, for a 503 would run into the router's limit of three hours."""
    service = await start(rudder={"upstream": "http://127.0.0.1:9"})
    built = router_body([QueuedEvent(1, page)], Route({}, destination_type="MARKETO"), now=1.0, compacted=True)
    status, headers, raw = await post(http, service, built.body)
    reply = check_router_reply(built.jobs, status, headers, raw)

    assert [(job.status, job.state) for job in reply.jobs] == [(429, "retry")]
    assert "unreachable" in reply.jobs[0].error


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{", b'{"destType":"impact"}', b'{"input":{},"destType":"impact"}', b'{"destType":5}'],
)
async def test_a_body_not_of_the_protocol_is_asked_for_again(
    http: aiohttp.ClientSession, service: Service, body: bytes
) -> None:
    """Where no job can be told from another, 503 keeps them all."""
    status, headers, _ = await post(http, service, body)

    assert (status, headers["X-Rudder-Should-Retry"]) == (503, "true")
    assert headers["X-Rudder-Error-Reason"] == "undecodable_body"
