"""``POST /v0/destinations/impact`` on a real port, judged by StrictRudder's rules."""

import asyncio
import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from impact_plugin.app import Service
from impact_plugin.rudder.bodies import QueuedEvent, Route, processor_body
from impact_plugin.rudder.replies import TransformerReply, check_processor_reply

SAMPLES = Path(__file__).parents[2] / "samples" / "rudderstack"
COMPACTED = {"X-Content-Format": "json+compactedv1"}
STAT_TAGS = {
    "destType": "IMPACT",
    "module": "destination",
    "implementation": "native",
    "feature": "processor",
    "destinationId": "d-1",
    "workspaceId": "ws-1",
}

Item = Callable[..., dict[str, Any]]


async def post(
    http: aiohttp.ClientSession, service: Service, body: Any, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send a batch; what is not bytes yet is encoded."""
    data = io.BytesIO(body if isinstance(body, bytes) else msgspec.json.encode(body))
    async with http.post(f"{service.url}/v0/destinations/impact", data=data, headers=headers) as response:
        return response.status, dict(response.headers), await response.read()


async def entries(http: aiohttp.ClientSession, service: Service, body: Any, **headers: str) -> list[dict[str, Any]]:
    """Send a batch and decode its reply, which must be a 200 of the right version."""
    status, got, raw = await post(http, service, body, headers)
    assert (status, got.get("apiVersion")) == (200, "2"), raw
    decoded: list[dict[str, Any]] = msgspec.json.decode(raw)
    return decoded


async def checked(
    http: aiohttp.ClientSession, service: Service, events: Sequence[dict[str, Any]], route: Route, *, compacted: bool
) -> TransformerReply:
    """Send events as rudder-server writes them and judge the reply as it does."""
    queued = [QueuedEvent(number, event) for number, event in enumerate(events, 1)]
    built = processor_body(queued, route, now=1767323045.0, compacted=compacted)
    status, headers, raw = await post(http, service, built.body, COMPACTED if compacted else {})
    return check_processor_reply(built.jobs, status, headers, raw)


@pytest.mark.parametrize("name", ["plain", "compacted"])
async def test_the_routers_own_sample_becomes_a_conversion(
    http: aiohttp.ClientSession, service: Service, name: str
) -> None:
    """A body marshalled from the router's own structs becomes the request object the router's delivery reads."""
    body = (SAMPLES / f"processor_request_{name}.json").read_bytes()
    status, headers, raw = await post(http, service, body, COMPACTED if name == "compacted" else {})
    (entry,) = msgspec.json.decode(raw)
    output = entry["output"]

    assert (status, headers["apiVersion"], headers["Content-Type"].partition(";")[0]) == (200, "2", "application/json")
    assert entry["statusCode"] == 200
    assert output["body"]["FORM"]["OrderId"] == "o-1"
    assert output["endpoint"].endswith("/Advertisers/IRlocalSID/Conversions")
    assert {key: value for key, value in output.items() if key not in {"endpoint", "headers", "body"}} == {
        "version": "1", "type": "REST", "method": "POST", "endpointPath": "conversions", "params": {}, "files": {},
        "userId": "",
    }  # fmt: skip
    assert {key: value for key, value in output["body"].items() if key != "FORM"} == {
        "JSON": {}, "JSON_ARRAY": {}, "XML": {},
    }  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 49, 50, 51, 200, 1000])
@pytest.mark.parametrize("compacted", [False, True])
async def test_batches_of_any_size_have_an_entry_an_event(
    http: aiohttp.ClientSession,
    service: Service,
    page: dict[str, Any],
    config: dict[str, Any],
    size: int,
    compacted: bool,
) -> None:
    """No event is left out and none is doubled, however large the batch."""
    reply = await checked(http, service, [page] * size, Route(config), compacted=compacted)

    assert [(job.job_id, job.status) for job in reply.jobs] == [(number, 200) for number in range(1, size + 1)]


async def test_chunks_in_parallel_keep_apart(
    http: aiohttp.ClientSession, service: Service, page: dict[str, Any], config: dict[str, Any]
) -> None:
    """Chunks asked for at the same time get their own events back, of their own destinations."""

    async def chunk(number: int) -> TransformerReply:
        events = [{**page, "anonymousId": f"a-{number}-{index}"} for index in range(100)]
        route = Route({**config, "campaignId": str(number)}, destination_id=f"d-{number}")
        return await checked(http, service, events, route, compacted=number % 2 == 0)

    replies = await asyncio.gather(*map(chunk, range(1, 9)))
    seen = {
        (number, job.request["body"]["FORM"]["CampaignId"], job.request["body"]["FORM"]["CustomProfileId"])
        for number, reply in enumerate(replies, 1)
        for job in reply.jobs
        if job.request
    }

    assert seen == {(number, str(number), f"a-{number}-{index}") for number in range(1, 9) for index in range(100)}


ODD_METADATA = [
    b'{"jobId":9223372036854775807,"x":-9223372036854775808}',
    b'{"jobId":1,"rudderId":"\\u003c\\u003c\\u003e\\u003ea\\u003c\\u003c\\u003e\\u003e\\u0026"}',
    b'{"jobId":1,"future":{"a":[1.0,1e5,1E+5,0.10,-0.0,12345678901234567890123],"b":null}}',
    b'{ "jobId" : 1 ,\n\t"sourceId": "caf\\u00e9 \\ud83d\\ude00 \xc3\xa9" }',
    b'{"jobId":1,"jobId":2,"":"","destinationId":5}',
    b"{}",
    b"null",
    b"[]",
]


@pytest.mark.parametrize("metadata", ODD_METADATA)
@pytest.mark.parametrize("message", [b'{"type":"page","anonymousId":"a"}', b'{"type":"alias"}', b"7"])
async def test_metadata_comes_back_byte_for_byte(
    http: aiohttp.ClientSession, service: Service, config: dict[str, Any], metadata: bytes, message: bytes
) -> None:
    """The router builds its jobs from the echo: numbers, escapes, spaces and unknown keys stay as they were."""
    destination = msgspec.json.encode({"ID": "d-1", "Config": config})
    body = b'[{"message":' + message + b',"metadata":' + metadata + b',"destination":' + destination + b"}]"
    status, _, raw = await post(http, service, body)

    assert status == 200
    assert b'"metadata":' + metadata in raw


DEEP = b'{"type":"page","anonymousId":"a","properties":' + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"}"
BAD_EVENTS: dict[str, tuple[bytes, int]] = {
    "null": (b"null", 400),
    "a list": (b"[]", 400),
    "text": (b'"page"', 400),
    "a number": (b"7", 400),
    "true": (b"true", 400),
    "empty": (b"{}", 400),
    "no type": (b'{"anonymousId":"a"}', 400),
    "type a number": (b'{"type":7}', 400),
    "type null": (b'{"type":null}', 400),
    "type blank": (b'{"type":" "}', 400),
    "unsupported": (b'{"type":"group","anonymousId":"a"}', 298),
    "no identity": (b'{"type":"page"}', 400),
    "context text": (b'{"type":"page","anonymousId":"a","context":"x"}', 200),
    "context list": (b'{"type":"page","anonymousId":"a","context":[]}', 200),
    "properties text": (b'{"type":"page","anonymousId":"a","properties":"x"}', 200),
    "ids are objects": (b'{"type":"page","anonymousId":{"a":1},"userId":"u"}', 200),
    "huge integer": (b'{"type":"page","anonymousId":"a","properties":{"x":' + b"9" * 100 + b"}}", 200),
    "huge integer as id": (b'{"type":"page","anonymousId":' + b"9" * 100 + b"}", 400),
}
"""By name: an event, and its status when it comes in a batch with good ones."""

UNREADABLE_EVENTS: dict[str, bytes] = {
    "deep nesting": DEEP,
    "deep nesting where nothing is read": DEEP.replace(b"properties", b"unread"),
    "an integer of 5000 digits": b'{"type":"page","anonymousId":"a","properties":{"x":' + b"9" * 5000 + b"}}",
    "a number out of range": b'{"type":"page","anonymousId":"a","properties":{"x":1e999}}',
    "a lone surrogate": b'{"type":"page","anonymousId":"a","properties":{"x":"\\ud800"}}',
    "a lone surrogate at the end": b'{"type":"page","anonymousId":"\\ud800"}',
    "bytes that are not UTF-8": b'{"type":"page","anonymousId":"\xff\xfe"}',
    "bytes that are not UTF-8 where nothing is read": b'{"type":"page","anonymousId":"a","x":"\xff"}',
}
"""By name: events that JSON decoders stumble over, each in its own way."""


def batch_with(bad: bytes, item: Item, page: dict[str, Any]) -> bytes:
    """A plain batch: good, bad, good."""
    good = [msgspec.json.encode(item(page, job)) for job in (1, 3)]
    middle = msgspec.json.encode(item("BAD", 2)).replace(b'"BAD"', bad)
    return b"[" + b",".join((good[0], middle, good[1])) + b"]"


@pytest.mark.parametrize("name", BAD_EVENTS)
async def test_a_bad_event_spoils_no_other(
    http: aiohttp.ClientSession, service: Service, item: Item, page: dict[str, Any], name: str
) -> None:
    """Whatever one event is made of, its neighbours are transformed, and it has its own entry."""
    bad, expected = BAD_EVENTS[name]
    found = await entries(http, service, batch_with(bad, item, page))

    assert [(one["metadata"]["jobId"], one["statusCode"]) for one in found] == [(1, 200), (2, expected), (3, 200)]


@pytest.mark.parametrize("name", UNREADABLE_EVENTS)
async def test_an_unreadable_event_spoils_no_other(
    http: aiohttp.ClientSession, service: Service, item: Item, page: dict[str, Any], name: str
) -> None:
    """What a decoder stumbles over is one event's fault; a 503 would stall the batch for ever."""
    found = await entries(http, service, batch_with(UNREADABLE_EVENTS[name], item, page))

    assert [(one["metadata"]["jobId"], one["statusCode"]) for one in found[::2]] == [(1, 200), (3, 200)]
    assert found[1]["metadata"]["jobId"] == 2
    assert found[1]["statusCode"] in {200, 400}


async def test_a_bad_event_spoils_no_other_in_a_compacted_body(
    http: aiohttp.ClientSession, service: Service, page: dict[str, Any], config: dict[str, Any]
) -> None:
    """The same holds where destinations are told once."""
    messages: list[Any] = [
        page,
        None,
        [],
        {"type": "page", "context": {"page": {"url": {"a": 1}}}, "userId": "u"},
        page,
    ]
    body = {
        "input": [{"message": one, "metadata": {"jobId": n}} for n, one in enumerate(messages)],
        "destinations": {"d-1": {"ID": "d-1", "Config": config}},
    }
    found = await entries(http, service, body, **COMPACTED)

    assert [one["statusCode"] for one in found] == [200, 400, 400, 200, 200]


async def test_a_defect_of_ours_is_one_events_500(
    http: aiohttp.ClientSession,
    service: Service,
    item: Item,
    page: dict[str, Any],
    spoil: Callable[..., None],
) -> None:
    """An exception in the transformation is told as such, without quoting the event; the others succeed."""
    spoil(ZeroDivisionError("about jane@example.com"))
    found = await entries(http, service, [item(page, 1), item({**page, "messageId": "m-bad"}, 2), item(page, 3)])

    assert [one["statusCode"] for one in found] == [200, 500, 200]
    assert found[1]["statTags"] == {**STAT_TAGS, "errorCategory": "transformation"}
    assert "ZeroDivisionError" in found[1]["error"]
    assert "jane" not in found[1]["error"]


@pytest.mark.parametrize(
    ("message", "tags", "error"),
    [
        (
            {"type": "page"},
            {"errorCategory": "dataValidation", "errorType": "instrumentation"},
            "(missing_identity). Let the SDK send anonymousId or userId.",
        ),
        (
            {"type": "track", "event": "Order Completed", "anonymousId": "a"},
            {"errorCategory": "dataValidation", "errorType": "instrumentation"},
            "(missing_order_id). Send properties.order_id",
        ),
        ({"type": ""}, {"errorCategory": "dataValidation", "errorType": "instrumentation"}, "Event type is required"),
        ([], {"errorCategory": "dataValidation", "errorType": "instrumentation"}, "(undecodable_event)."),
        ({"type": "group"}, {}, "Event type group is not supported (unsupported_type)"),
    ],
)
async def test_failures_say_what_to_do_and_how_to_count_them(
    http: aiohttp.ClientSession, service: Service, item: Item, message: Any, tags: dict[str, str], error: str
) -> None:
    """The error is a sentence with the reason and its fix; the tags are the stock transformer's vocabulary."""
    (entry,) = await entries(http, service, [item(message)])

    assert error in entry["error"]
    assert entry["statTags"] == {**STAT_TAGS, **tags}
    assert all(isinstance(value, str) for value in entry["statTags"].values())
    assert "output" not in entry


async def test_a_refused_value_names_parameter_and_path(
    http: aiohttp.ClientSession, service: Service, item: Item, order: dict[str, Any]
) -> None:
    """An operator reads which field of the event is wrong, and for which parameter."""
    order["properties"] = {"order_id": "o-1", "total": "on request"}
    (entry,) = await entries(http, service, [item(order)])

    assert entry["statusCode"] == 400
    assert entry["error"].startswith("total from properties.total: ")


async def test_switched_off_calls_are_filtered(
    http: aiohttp.ClientSession, service: Service, item: Item, page: dict[str, Any], config: dict[str, Any]
) -> None:
    """298 is not a failure: the router counts it as filtered and keeps quiet."""
    (entry,) = await entries(http, service, [item(page, config={**config, "enablePageEvents": False})])

    assert entry["statusCode"] == 298
    assert entry["error"] == "page events are disabled from Config (page_disabled)"


async def test_missing_metadata_and_destination_are_the_events_own_trouble(
    http: aiohttp.ClientSession, service: Service, item: Item, page: dict[str, Any]
) -> None:
    """A batch with half of an item gone is still answered item by item."""
    whole = item(page, 1)
    bodies = [
        {"message": page, "destination": whole["destination"]},
        {"message": page, "metadata": {"jobId": 3}},
        {"metadata": {"jobId": 4}, "destination": whole["destination"]},
        {},
    ]
    found = await entries(http, service, [whole, *bodies, whole])

    assert [one["statusCode"] for one in found] == [200, 200, 400, 400, 400, 200]
    assert [one["metadata"].get("jobId") for one in found] == [1, None, 3, 4, None, 1]
    assert found[2]["statTags"]["errorType"] == "configuration"


async def test_a_bad_configuration_names_every_key(
    http: aiohttp.ClientSession, service: Service, item: Item, page: dict[str, Any]
) -> None:
    """Every event of the destination gets a 400 that lists all mistakes; other destinations are not touched."""
    bad = {"apiKey": "test-token-secret", "campaignId": "abc", "unmappedTrack": "maybe"}
    found = await entries(http, service, [item(page, 1, bad, "d-2"), item(page, 2), item(page, 3, bad, "d-2")])

    assert [one["statusCode"] for one in found] == [400, 200, 400]
    assert all(key in found[0]["error"] for key in ("accountSID: ", "campaignId: ", "unmappedTrack: "))
    assert "test-token-secret" not in found[0]["error"]
    assert found[0]["statTags"] == {
        **STAT_TAGS, "destinationId": "d-2", "errorCategory": "dataValidation", "errorType": "configuration",
    }  # fmt: skip


async def test_an_unreadable_destination_is_its_events_trouble(
    http: aiohttp.ClientSession, service: Service, item: Item, page: dict[str, Any]
) -> None:
    """A destination object that no decoder reads spoils no other destination of the batch."""
    deep = b'{"ID":"d-2","Config":' + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"}"
    good = msgspec.json.encode(item(page, 1))
    bad = b'{"message":{"type":"page","anonymousId":"a"},"metadata":{"jobId":2},"destination":' + deep + b"}"
    found = await entries(http, service, b"[" + good + b"," + bad + b"]")

    assert [one["statusCode"] for one in found] == [200, 400]


async def test_dynamic_configuration_is_resolved_for_each_event(
    http: aiohttp.ClientSession, service: Service, item: Item, page: dict[str, Any], config: dict[str, Any]
) -> None:
    """A template takes its value from each event, else its default; a value that does not fit is that event's 400."""
    dynamic = {**config, "campaignId": '{{ event.properties.program || "11" }}'}
    messages = [
        {**page, "properties": {**page["properties"], **extra}} for extra in ({"program": "22"}, {}, {"program": "x"})
    ]
    found = await entries(http, service, [item(one, n, dynamic) for n, one in enumerate(messages)])

    assert [one["statusCode"] for one in found] == [200, 200, 400]
    assert [one["output"]["body"]["FORM"]["CampaignId"] for one in found[:2]] == ["22", "11"]
    assert found[2]["statTags"]["errorType"] == "configuration"


async def test_variables_come_from_the_services_environment(
    http: aiohttp.ClientSession, start: Any, item: Item, order: dict[str, Any], config: dict[str, Any]
) -> None:
    """``env.IMPACT_VAR_TOKEN`` is the service's own variable; no other variable can be read."""
    service = await start({"IMPACT_VAR_TOKEN": "of-the-service", "HOME": "/root"})
    found = await entries(
        http,
        service,
        [
            item(order, 1, {**config, "apiKey": "env.IMPACT_VAR_TOKEN"}),
            item(order, 2, {**config, "apiKey": "env.HOME"}),
            item(order, 3, {**config, "apiKey": "env.IMPACT_VAR_OTHER"}),
        ],
    )
    authorization = base64.b64decode(found[0]["output"]["headers"]["Authorization"].removeprefix("Basic "))

    assert [one["statusCode"] for one in found] == [200, 400, 400]
    assert authorization == b"IRtest:of-the-service"
    assert "IMPACT_VAR_OTHER is not set" in found[2]["error"]


async def test_an_email_never_leaves_in_clear(
    http: aiohttp.ClientSession, service: Service, item: Item, page: dict[str, Any]
) -> None:
    """Wherever a visitor's address stands in an event, the request carries its digest or nothing."""
    page |= {"userId": "jane@example.com", "traits": {"email": " Jane@Example.com "}}
    page["context"] = {
        "traits": {"email": "jane@example.com"},
        "page": {"url": "https://x.example.com/?e=jane%40example.com"},
    }
    _, _, raw = await post(http, service, [item(page)])

    assert msgspec.json.decode(raw)[0]["statusCode"] == 200
    assert b"jane" not in raw.lower()


@pytest.mark.parametrize("header", ["json+compactedv1", "JSON+CompactedV1", "application/json+compactedv1; q=1"])
async def test_the_header_tells_compacted_from_plain(
    http: aiohttp.ClientSession, service: Service, page: dict[str, Any], config: dict[str, Any], header: str
) -> None:
    """The form is decided for each request by its header: the router's flag may change under way."""
    body = {
        "input": [{"message": page, "metadata": {"jobId": 1, "destinationId": "d-1"}}],
        "destinations": {"d-1": {"ID": "d-1", "Config": config}, "d-2": {"ID": "d-2", "Config": {}}},
        "connections": {"s:d-1": {"future": True}},
    }
    (entry,) = await entries(http, service, body, **{"X-Content-Format": header})

    assert entry["statusCode"] == 200


async def test_several_destinations_in_one_compacted_body(
    http: aiohttp.ClientSession, service: Service, page: dict[str, Any], config: dict[str, Any]
) -> None:
    """Each event finds its destination by the id in its metadata; one without gets a 400 of its own."""
    body = {
        "input": [{"message": page, "metadata": {"jobId": n, "destinationId": f"d-{n}"}} for n in (1, 2, 3)],
        "destinations": {f"d-{n}": {"ID": f"d-{n}", "Config": {**config, "campaignId": str(n)}} for n in (1, 2)},
    }
    found = await entries(http, service, body, **COMPACTED)

    assert [one["statusCode"] for one in found] == [200, 200, 400]
    assert [one["output"]["body"]["FORM"]["CampaignId"] for one in found[:2]] == ["1", "2"]
