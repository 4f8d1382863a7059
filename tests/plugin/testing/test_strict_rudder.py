"""StrictRudder against a small transformer on a real port: what it sends, waits for, delivers and refuses."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from impact_plugin.rudder.bodies import Built, QueuedEvent, Route, processor_body, proxy_body, router_body
from impact_plugin.rudder.go import go_json
from impact_plugin.rudder.jobs import JobResult
from impact_plugin.rudder.refusals import (
    BatchAborted,
    EventDropped,
    InvalidReply,
    RouterPanic,
    SilentLoss,
    StalledForever,
)
from impact_plugin.rudder.request_objects import wire_request
from impact_plugin.testing.strict_rudder import StrictRudder, Summary

SAMPLES = Path(__file__).parents[2] / "samples" / "rudderstack"
NOW = 1767323045.999
CONFIG = {"accountSID": "IRlocalSID", "apiKey": "localToken", "campaignId": "23224"}
EVENT = {"type": "track", "event": "Order Completed", "anonymousId": "a-1", "userId": "u-1"}

Handler = Callable[[web.Request], Any]


class Asked(msgspec.Struct, frozen=True):
    """One request as it arrived: path with query, headers, body."""

    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body decoded."""
        return json.loads(self.body)


class Stub:
    """A transformer and destination that answers as its ``script`` says, and soundly when that is exhausted."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.script: list[web.Response | None] = []
        self.delivered_status = 200
        self.together = 0
        self.most_together = 0
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        """Record a request, then answer by script or by path; None in the script cuts the connection."""
        body = await request.read()
        self.asked.append(Asked(request.rel_url.raw_path_qs, dict(request.headers), body))
        self.together += 1
        self.most_together = max(self.most_together, self.together)
        await asyncio.sleep(0.01)
        self.together -= 1
        scripted = self.script.pop(0) if self.script else self.sound(request.path.replace("//", "/"), body)
        if scripted is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return scripted

    def sound(self, path: str, body: bytes) -> web.Response:
        """Return the reply of a transformer without faults."""
        match path:
            case "/features":
                return web.json_response({"upgradedToSourceTransformV2": True, **self.compaction})
            case "/v0/destinations/impact":
                return replied([self.event_entry(one) for one in inputs(body)])
            case "/routerTransform":
                return replied({"output": [self.router_entry(one) for one in inputs(body)]})
            case "/v1/destinations/impact/proxy":
                items = [{"statusCode": self.delivered_status, "metadata": raw} for raw in proxied(body)]
                return replied({"output": {"status": 200, "message": "", "response": items}})
            case "/v0/destinations/impact/proxy":
                status = self.delivered_status
                return web.json_response({"output": {"status": status, "message": "said"}}, status=status)
        return web.json_response({"Message": "said"}, status=self.delivered_status)

    compaction: dict[str, bool] = {"supportDestTransformCompactedPayloadV1": True}  # noqa: RUF012 - replaced, never changed

    def event_entry(self, one: dict[str, msgspec.Raw]) -> dict[str, Any]:
        """Return the processor's element for one input."""
        return {"metadata": one["metadata"], "output": self.request_object(), "statusCode": 200, "statTags": {}}

    def router_entry(self, one: dict[str, msgspec.Raw]) -> dict[str, Any]:
        """Return the router's entry for one input."""
        entry = {"batchedRequest": self.request_object(), "metadata": [one["metadata"]], "statusCode": 200}
        return entry | {"destination": one["destination"], "batched": False}

    def request_object(self) -> dict[str, Any]:
        """Return a request for the destination, which is this very server."""
        return {
            "type": "REST",
            "method": "POST",
            "endpoint": f"{self.url}/Conversions",
            "endpointPath": "conversions",
            "headers": {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
            "params": {"b": "x y", "a": "1"},
            "body": {"FORM": {"OrderId": "o 1", "Amount": "1&2"}},
            "files": {},
        }


class Waits:
    """A sleep that returns at once and remembers; the clock moves on by what was slept."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Remember a wait."""
        self.seconds.append(seconds)

    def clock(self) -> float:
        """Return the time after all waits."""
        return NOW + sum(self.seconds)


def replied(value: Any, status: int = 200) -> web.Response:
    """Return a reply with the version header."""
    return web.Response(body=msgspec.json.encode(value), status=status, headers={"apiVersion": "2"})


def inputs(body: bytes) -> list[dict[str, msgspec.Raw]]:
    """Return the inputs of a transform request of any form, each with its destination."""
    if body.startswith(b"["):
        return msgspec.json.decode(body, type=list[dict[str, msgspec.Raw]])
    parsed = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    events = msgspec.json.decode(parsed["input"], type=list[dict[str, msgspec.Raw]])
    if "destinations" not in parsed:
        return events
    by_id = msgspec.json.decode(parsed["destinations"], type=dict[str, msgspec.Raw])
    return [one | {"destination": next(iter(by_id.values()))} for one in events]


def proxied(body: bytes) -> list[msgspec.Raw]:
    """Return the metadata of a proxy v1 request."""
    return msgspec.json.decode(
        msgspec.json.decode(body, type=dict[str, msgspec.Raw])["metadata"], type=list[msgspec.Raw]
    )


def busy() -> web.Response:
    """Return the 503 that asks for time."""
    return web.Response(status=503, headers={"X-Rudder-Should-Retry": "true"})


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    """Serve a stub on a free port."""
    stub = Stub()
    app = web.Application(client_max_size=200 * 1024 * 1024)
    app.router.add_route("*", "/{rest:.*}", stub.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stub.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield stub
    await runner.cleanup()


@pytest.fixture
def waits() -> Waits:
    """Return a sleep and a clock that never wait."""
    return Waits()


@pytest.fixture
async def rudder(stub: Stub, waits: Waits) -> AsyncIterator[StrictRudder]:
    """Put a StrictRudder in front of the stub."""
    async with StrictRudder(stub.url, destination_config=CONFIG, sleep=waits.sleep, clock=waits.clock) as rudder:
        yield rudder


def events(count: int) -> list[dict[str, Any]]:
    """Return as many events, told apart by messageId."""
    return [EVENT | {"messageId": f"e-{number}"} for number in range(count)]


# --- the bodies against samples that rudder-server's own structs marshalled


def sample(name: str) -> bytes:
    """Return a sample body with the white space between its tokens removed."""
    return msgspec.json.format((SAMPLES / f"{name}.json").read_bytes(), indent=-1)


def sampled(name: str) -> tuple[QueuedEvent, Route]:
    """Return the event and the route that a sample speaks of."""
    parsed = json.loads(sample(name))
    one = (parsed if isinstance(parsed, list) else parsed["input"])[0]
    destination = one.get("destination") or parsed["destinations"]["dst-impact-1"]
    return QueuedEvent(one["metadata"]["jobId"], one["message"]), Route(destination["Config"])


@pytest.mark.parametrize("form", ["plain", "compacted"])
def test_processor_body_is_the_sample(form: str) -> None:
    """Given the sample's event, the processor body is the sample, byte for byte, order and escapes included."""
    name = f"processor_request_{form}"
    queued, route = sampled(name)
    assert sample(name) == processor_body([queued], route, now=NOW, compacted=form == "compacted").body


@pytest.mark.parametrize("form", ["plain", "compacted"])
def test_router_body_is_the_sample(form: str) -> None:
    """Given the sample's event, the router body is the sample but for the nanoseconds of workerAssignedTime."""
    name = f"router_request_{form}"
    queued, route = sampled(name)
    built = router_body([queued], route, now=NOW, compacted=form == "compacted").body
    assigned = b"2026-01-02T03:04:06.123456789Z"
    assert sample(name) == built.replace(b"2026-01-02T03:04:05.999000Z", assigned)


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_proxy_body_has_the_shape_of_the_sample(version: Any) -> None:
    """The proxy body has the members of the sample in their order; free maps are sorted, so they compare by value."""
    expected = json.loads(sample(f"proxy_{version}_request"))
    request = {
        key: expected[key] for key in ("type", "endpoint", "method", "userId", "headers", "params", "body", "files")
    }
    built = proxy_body(request, [7], Route(expected["destinationConfig"]), version=version)
    actual = json.loads(built.body)
    assert (expected, list(expected)) == (actual, list(actual))


def test_bodies_echo_the_bytes_that_replies_are_held_to() -> None:
    """The metadata that a reply must echo stands in the body as the very same bytes."""
    built: Built = router_body([QueuedEvent(5, EVENT)], Route(CONFIG), now=NOW, compacted=False)
    assert all(part in built.body for job in built.jobs for part in (job.metadata, job.destination))


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (12.0, b"12"),
        (12.5, b"12.5"),
        (-0.5, b"-0.5"),
        (1234567.89, b"1234567.89"),
        (0.00001, b"0.00001"),
        (1e-7, b"1e-7"),
        (1e20, b"100000000000000000000"),
        (1.2345678901234568e20, b"123456789012345680000"),
        (1e21, b"1e+21"),
        (2**53 + 1, b"9007199254740992"),
        (10**30, b"1e+30"),
        (True, b"true"),
        ("<a&b>", b'"\\u003ca\\u0026b\\u003e"'),
        ("\u2028\u2029", b'"\\u2028\\u2029"'),
        ({"b": 1, "a": [1.0, None]}, b'{"a":[1,null],"b":1}'),
    ],
)
def test_json_is_written_as_go_writes_it(value: Any, encoded: bytes) -> None:
    """Numbers pass through a float64, keys are sorted, and what HTML might take amiss is escaped."""
    assert encoded == go_json(value)


@pytest.mark.parametrize(("value", "dynamic"), [("{{ event.a || 1 }}", True), ("{{ event.a }}", False), ("x", False)])
def test_dynamic_configuration_is_announced(value: str, dynamic: bool) -> None:
    """A template with a default, at any depth of the configuration, sets hasDynamicConfig."""
    built = router_body([QueuedEvent(1, EVENT)], Route({"a": [{"b": value}]}), now=NOW, compacted=False)
    assert dynamic is json.loads(built.body)["input"][0]["destination"]["hasDynamicConfig"]


# --- features


async def test_features_are_awaited(stub: Stub, rudder: StrictRudder, waits: Waits) -> None:
    """While nobody answers, features are polled every 10 s; the first answer decides on compaction for good."""
    stub.script = [None] * 4  # aiohttp itself repeats a GET that was cut off, once
    assert (await rudder.wait_for_features()).compacted
    assert waits.seconds == [10.0, 10.0]
    await rudder.send_processor(events(1))
    assert stub.asked[-1].headers["X-Content-Format"] == "json+compactedv1"
    assert list(stub.asked[-1].json()) == ["input", "destinations", "connections"]


async def test_features_that_never_come_stall_the_boot(stub: Stub, rudder: StrictRudder) -> None:
    """A transformer that cannot be reached keeps the router from booting."""
    stub.script = [None] * 4
    with pytest.raises(StalledForever, match="features"):
        await rudder.wait_for_features(polls=2)


# --- the processor


async def test_processor_sends_the_routers_headers(stub: Stub, rudder: StrictRudder) -> None:
    """A processor request carries exactly what Go's client sends, and closes its connection."""
    await rudder.send_processor(events(1))
    asked = stub.asked[0]
    assert asked.path == "/v0/destinations/impact"
    assert {key: value for key, value in asked.headers.items() if key != "Host"} == {
        "User-Agent": "Go-http-client/1.1",
        "Accept-Encoding": "gzip",
        "Content-Type": "application/json; charset=utf-8",
        "X-Feature-Gzip-Support": "?1",
        "X-Feature-Filter-Code": "?1",
        "Content-Length": str(len(asked.body)),
        "Connection": "close",
    }


async def test_processor_sends_chunks_at_the_same_time(stub: Stub, rudder: StrictRudder) -> None:
    """A sub-job of 400 goes out as four chunks together, the next one after it; results keep the input's order."""
    results = await rudder.send_processor(events(450))
    assert [len(asked.json()) for asked in stub.asked] == [100, 100, 100, 100, 50]
    assert stub.most_together == 4
    assert [result.job_id for result in results] == list(range(1, 451))
    assert {result.state for result in results} == {"transformed"}
    assert results[0].request == stub.request_object()


async def test_trailing_slash_doubles_it(stub: Stub, waits: Waits) -> None:
    """With a trailing slash in its setting the processor asks for ``//v0`` and ``//features``, the router does not."""
    async with StrictRudder(
        stub.url, destination_config=CONFIG, trailing_slash=True, keep_alive=True, sleep=waits.sleep
    ) as rudder:
        await rudder.wait_for_features()
        await rudder.send_processor(events(1), compacted=False)
        await rudder.send_router(events(1), compacted=False)
    assert [asked.path for asked in stub.asked] == ["//features", "//v0/destinations/impact", "/routerTransform"]
    assert "Connection" not in stub.asked[1].headers


async def test_processor_gives_time_when_asked(stub: Stub, rudder: StrictRudder, waits: Waits) -> None:
    """A 503 with should-retry makes the same chunk come again after 1, 2, 4 s."""
    stub.script = [busy(), busy(), busy()]
    results = await rudder.send_processor(events(2))
    assert [result.state for result in results] == ["transformed", "transformed"]
    assert waits.seconds == [1.0, 2.0, 4.0]
    assert len({asked.body for asked in stub.asked}) == 1


async def test_patience_ends(stub: Stub, waits: Waits) -> None:
    """A transformer that asks for time for ever stalls the pipeline, which is refused after a while."""
    stub.script = [busy(), busy(), busy()]
    async with StrictRudder(stub.url, destination_config=CONFIG, patience=2, sleep=waits.sleep) as rudder:
        with pytest.raises(StalledForever):
            await rudder.send_processor(events(1))


async def test_processor_survives_faults(stub: Stub, rudder: StrictRudder, waits: Waits) -> None:
    """Cut connections and 5xx are retried with growing waits, and forgotten once a reply comes."""
    stub.script = [None, web.Response(status=500), web.Response(status=429)]
    assert [result.status for result in await rudder.send_processor(events(1))] == [200]
    assert waits.seconds == [0.5, 0.75, 1.125]


@pytest.mark.parametrize("fault", [None, 500])
async def test_processor_panics_in_the_end(stub: Stub, rudder: StrictRudder, waits: Waits, fault: int | None) -> None:
    """The 31st fault of a chunk, of transport or HTTP, is a panic, some eleven minutes after the first."""
    stub.script = [None if fault is None else web.Response(status=fault) for _ in range(40)]
    with pytest.raises(RouterPanic):
        await rudder.send_processor(events(1))
    assert len(stub.asked) == 31
    assert 600 < sum(waits.seconds) < 720


async def test_first_refusal_is_raised_bare(stub: Stub, rudder: StrictRudder) -> None:
    """A refusal in one of several chunks reaches the caller as itself, not in a group."""
    stub.script = [web.Response(status=413)] * 2
    with pytest.raises(BatchAborted):
        await rudder.send_processor(events(200))


async def test_processor_names_the_event_left_out(stub: Stub, rudder: StrictRudder) -> None:
    """A reply with fewer elements than inputs is refused."""
    stub.script = [replied([])]
    with pytest.raises(EventDropped):
        await rudder.send_processor(events(1))


async def test_replies_may_be_gzipped(stub: Stub, rudder: StrictRudder) -> None:
    """As in Go, a gzipped reply is inflated on the way."""

    def zipped(path: str, body: bytes) -> web.Response:
        sound = Stub.sound(stub, path, body)
        packed = gzip.compress(bytes(sound.body or b""))  # type: ignore[arg-type]
        return web.Response(body=packed, headers={"apiVersion": "2", "Content-Encoding": "gzip"})

    stub.sound = zipped  # type: ignore[method-assign]
    assert [result.status for result in await rudder.send_processor(events(1))] == [200]


# --- the router


@pytest.mark.parametrize("compacted", [False, True])
async def test_router_sends_batches_of_twenty(stub: Stub, rudder: StrictRudder, compacted: bool) -> None:
    """Router batches hold 20 events, go out together, and say the destination type after the input."""
    results = await rudder.send_router(events(45), compacted=compacted)
    assert sorted(len(asked.json()["input"]) for asked in stub.asked) == [5, 20, 20]
    assert list(stub.asked[0].json())[:2] == ["input", "destType"]
    assert [result.job_id for result in results] == list(range(1, 46))
    assert {result.state for result in results} == {"transformed"}


async def test_router_panics_after_three_seconds(stub: Stub, rudder: StrictRudder, waits: Waits) -> None:
    """31 cut connections 100 ms apart are a panic."""
    stub.script = [None] * 40
    with pytest.raises(RouterPanic):
        await rudder.send_router(events(1))
    assert waits.seconds == [0.1] * 30


async def test_router_refuses_an_array(stub: Stub, rudder: StrictRudder) -> None:
    """A batchedRequest that is an array is refused, for its failures are forgotten by the proxy."""
    whole = stub.request_object
    stub.request_object = lambda: [whole()]  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(SilentLoss):
        await rudder.send_router(events(1))


# --- delivery


async def test_direct_delivery_is_what_go_sends(stub: Stub, rudder: StrictRudder) -> None:
    """The destination gets the object's headers, sorted form and query with plus signs, and RudderLabs as agent."""
    results = await rudder.deliver(await rudder.send_processor(events(1)))
    asked = stub.asked[-1]
    assert asked.path == "/Conversions?a=1&b=x+y"
    assert asked.body == b"Amount=1%262&OrderId=o+1"
    assert {key: value for key, value in asked.headers.items() if key != "Host"} == {
        "Accept-Encoding": "gzip",
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json",
        "User-Agent": "RudderLabs",
        "Content-Length": str(len(asked.body)),
    }
    assert [(result.status, result.state, result.error) for result in results] == [(200, "succeeded", "")]


@pytest.mark.parametrize(("status", "state"), [(400, "aborted"), (429, "retry"), (500, "retry")])
async def test_direct_delivery_keeps_the_destinations_words(
    stub: Stub, rudder: StrictRudder, status: int, state: str
) -> None:
    """A failure carries the text of the destination."""
    stub.delivered_status = status
    result = (await rudder.deliver(await rudder.send_processor(events(1))))[0]
    assert (result.status, result.state, result.error) == (status, state, '{"Message": "said"}')


async def test_unreadable_words_are_redacted(stub: Stub, rudder: StrictRudder) -> None:
    """A response that is neither text nor JSON nor XML is not kept."""
    transformed = await rudder.send_processor(events(1))
    stub.script = [web.Response(status=400, body=b"\x00", content_type="application/octet-stream")]
    assert (await rudder.deliver(transformed))[0].error == "redacted due to unsupported content-type"


async def test_cut_delivery_is_a_gateway_timeout(stub: Stub, rudder: StrictRudder) -> None:
    """A transport error on the way to the destination is a 504, to be tried again."""
    transformed = await rudder.send_processor(events(1))
    stub.script = [None]
    assert [(result.status, result.state) for result in await rudder.deliver(transformed)] == [(504, "retry")]


@pytest.mark.parametrize(
    ("change", "status"), [({"method": "PO ST"}, 400), ({"endpoint": "http://[::1"}, 400), ({"endpoint": "x:y"}, 504)]
)
async def test_impossible_requests_are_not_made(
    stub: Stub, rudder: StrictRudder, change: dict[str, str], status: int
) -> None:
    """What Go cannot make a request of is a 400; a scheme that it cannot speak is a 504."""
    result = JobResult(1, 200, "transformed", stub.request_object() | change)
    assert [status] == [delivered.status for delivered in await rudder.deliver([result])]


async def test_only_transformed_jobs_are_delivered(stub: Stub, rudder: StrictRudder) -> None:
    """Filtered and aborted jobs pass through untouched, and a request shared by two jobs is sent once."""
    shared = stub.request_object()
    results = [
        JobResult(1, 298, "filtered"),
        JobResult(2, 200, "transformed", shared),
        JobResult(3, 200, "transformed", shared),
        JobResult(4, 400, "aborted"),
    ]
    delivered = await rudder.deliver(results)
    assert [result.state for result in delivered] == ["filtered", "succeeded", "succeeded", "aborted"]
    assert len(stub.asked) == 1


async def test_proxy_delivery_is_asked_of_the_plugin(stub: Stub, rudder: StrictRudder) -> None:
    """Proxy v1 gets the request, a list of metadata, the configuration, and the time-out in milliseconds."""
    results = await rudder.deliver(await rudder.send_router(events(1)), via="proxy", attempt=2)
    asked = stub.asked[-1]
    assert asked.path == "/v1/destinations/impact/proxy"
    assert (asked.headers["RdProxy-Timeout"], asked.headers["Content-Type"]) == ("10000", "application/json")
    assert "X-Feature-Filter-Code" not in asked.headers
    assert [
        asked.json()["metadata"][0]["jobId"],
        asked.json()["metadata"][0]["attemptNum"],
        asked.json()["destinationConfig"],
    ] == [1, 2, CONFIG]
    assert [result.state for result in results] == ["succeeded"]


async def test_proxy_v0_takes_the_http_status(stub: Stub, rudder: StrictRudder) -> None:
    """Proxy v0 gets one metadata object, and its HTTP status is the job's."""
    stub.delivered_status = 429
    results = await rudder.deliver(await rudder.send_router(events(1)), via="proxy", proxy_version="v0")
    assert isinstance(stub.asked[-1].json()["metadata"], dict)
    assert [(result.status, result.state, result.error) for result in results] == [(429, "retry", "said")]


async def test_silent_proxy_is_a_server_error(stub: Stub, rudder: StrictRudder) -> None:
    """No answer from the proxy is a 500 for its jobs."""
    transformed = await rudder.send_router(events(1))
    stub.script = [None]
    assert [result.status for result in await rudder.deliver(transformed, via="proxy")] == [500]


async def test_proxy_that_forgets_a_job_is_refused(stub: Stub, rudder: StrictRudder) -> None:
    """A proxy reply without the job is invalid."""
    transformed = await rudder.send_router(events(1))
    stub.script = [replied({"output": {"response": []}})]
    with pytest.raises(InvalidReply):
        await rudder.deliver(transformed, via="proxy")


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        ({"JSON": {"b": 1.0, "a": "<"}}, b'{"a":"\\u003c","b":1}'),
        ({"JSON_ARRAY": {"batch": "[1]"}}, b"[1]"),
        ({"XML": {"payload": "<a/>"}}, b"<a/>"),
        ({"FORM": {}, "GZIP": {"payload": "zipped"}}, b"zipped"),
    ],
)
def test_other_bodies_are_written_as_go_writes_them(body: dict[str, Any], sent: bytes) -> None:
    """JSON is marshalled again, arrays and XML go as the text given, gzip is packed and said so."""
    request = {"endpoint": "https://h/p?z=1", "headers": {}, "params": {"n": 12, "o": {"a": 1}}, "body": body}
    url, headers, actual = wire_request(request)
    assert str(url) == "https://h/p?n=12&o=%7B%22a%22%3A1%7D&z=1"
    assert sent == (gzip.decompress(actual) if headers.get("Content-Encoding") == "gzip" else actual)


# --- runs


@pytest.mark.parametrize("transform", ["processor", "router"])
@pytest.mark.parametrize("delivery", ["direct", "proxy", None])
async def test_run_counts_every_event(rudder: StrictRudder, transform: Any, delivery: Any) -> None:
    """A run transforms, delivers and counts; each count adds up to the number of events, and progress is told."""
    heard: list[int] = []
    summary = await rudder.run(events(45), transform=transform, delivery=delivery, on_progress=heard.append)
    state = "succeeded" if delivery else "transformed"
    assert Summary(45, {state: 45}, {200: 45}) == summary
    assert heard == [45]


@pytest.mark.parametrize("transform", ["processor", "router"])
async def test_run_tries_again(stub: Stub, rudder: StrictRudder, waits: Waits, transform: Any) -> None:
    """A job that failed for now is tried again after 10 and 20 s, and the router's metadata tells of it."""
    stub.delivered_status = 429

    async def slept(seconds: float) -> None:
        waits.seconds.append(seconds)
        stub.delivered_status = 429 if len(waits.seconds) < 2 else 200

    rudder._sleep = slept
    summary = await rudder.run(events(3), transform=transform, delivery="direct", attempts=5)
    assert Summary(3, {"succeeded": 3}, {200: 3}) == summary
    assert waits.seconds == [10.0, 20.0]
    asked = [asked for asked in stub.asked if asked.path != "/Conversions?a=1&b=x+y"]
    tries = [one["metadata"].get("attemptNum", 0) for body in asked for one in inputs_decoded(body)]
    assert tries == ([0] * 3 + [1] * 3 + [2] * 3 if transform == "router" else [0] * 3)


def inputs_decoded(asked: Asked) -> list[Any]:
    """Return the inputs of a plain transform request."""
    parsed = asked.json()
    return list(parsed if isinstance(parsed, list) else parsed["input"])


async def test_run_leaves_what_keeps_failing(stub: Stub, rudder: StrictRudder) -> None:
    """A job that fails on its last attempt stays in state retry."""
    stub.delivered_status = 503
    summary = await rudder.run(events(2), delivery="direct", attempts=3)
    assert Summary(2, {"retry": 2}, {503: 2}) == summary


async def test_run_gives_up_on_old_server_errors(stub: Stub, rudder: StrictRudder) -> None:
    """Past three hours of 5xx a job is aborted."""
    stub.delivered_status = 500
    summary = await rudder.run(events(1), delivery="proxy", attempts=50)
    assert Summary(1, {"aborted": 1}, {500: 1}) == summary
