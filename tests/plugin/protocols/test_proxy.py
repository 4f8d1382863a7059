"""The delivery proxy: one request out, a status for every job back, and nothing sent that must not be sent."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiohttp
import msgspec
import pytest

from impact_plugin.app import Service
from impact_plugin.rudder.jobs import RequestJob
from impact_plugin.rudder.replies import check_proxy_v0_reply, check_proxy_v1_reply
from impact_plugin.testing.fake_impact import FakeImpact
from tests import builders

METADATA = (
    b'{"jobId":9223372036854775807,"attemptNum":0,"userId":"","destinationId":"d-1","workspaceId":"ws-1","dontBatch":false,'
    b'"secret":null,"future":[1.0,"\\u003c"]}'
)
PAGE_LOAD = builders.page_load()
ORDER = builders.conversion()

Start = Callable[..., Awaitable[Service]]


class Told(msgspec.Struct, frozen=True):
    """One job's fate as the router reads it, and what came with it."""

    status: int
    error: str
    tags: dict[str, str]
    http: int


def request_of(endpoint: str, form: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """What the router wants delivered, without its metadata."""
    chosen = {"destinationConfig": {}, **changes}
    return builders.request(endpoint, PAGE_LOAD if form is None else form, builders.basic(), **chosen)


async def send(
    http: aiohttp.ClientSession,
    service: Service,
    request: dict[str, Any],
    *,
    version: str = "v1",
    metadata: Sequence[bytes] = (METADATA,),
    timeout: str | None = "10000",  # noqa: ASYNC109 - the header's text
) -> Told:
    """Ask for the delivery and judge the reply as rudder-server does."""
    raw = b"[" + b",".join(metadata) + b"]" if version == "v1" else metadata[0]
    body = msgspec.json.encode({**request, "metadata": msgspec.Raw(raw)})
    headers = {"Content-Type": "application/json"} | ({} if timeout is None else {"RdProxy-Timeout": timeout})
    url = f"{service.url}/{version}/destinations/impact/proxy"
    async with http.post(url, data=body, headers=headers) as response:
        got, answered = await response.read(), dict(response.headers)
    jobs = [RequestJob(msgspec.json.decode(one)["jobId"], one) for one in metadata]
    check = check_proxy_v1_reply if version == "v1" else check_proxy_v0_reply
    reply = check(jobs, response.status, answered, got)
    output = msgspec.json.decode(got)["output"]
    assert answered["apiVersion"] == "2"
    assert len({job.status for job in reply.jobs}) == 1
    return Told(reply.jobs[0].status, output["message"], output["statTags"], response.status)


def page_load(impact: FakeImpact, form: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A Page Load for the stand-in."""
    return request_of(f"{impact.url}/PageLoad", form, **changes)


def order(impact: FakeImpact, form: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A Conversion for the stand-in."""
    return request_of(f"{impact.url}/Advertisers/IRtest/Conversions", ORDER if form is None else form, **changes)


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("make", [page_load, order])
async def test_a_request_is_delivered_and_impacts_answer_told(
    http: aiohttp.ClientSession,
    service: Service,
    impact: FakeImpact,
    version: str,
    make: Callable[..., dict[str, Any]],
) -> None:
    """200 with impact.com's own words, and the form arrives as it was."""
    told = await send(http, service, make(impact), version=version)
    (call,) = impact.calls

    assert (told.status, told.http, told.tags) == (200, 200, {})
    assert call.status == 200
    assert call.form == (PAGE_LOAD if make is page_load else ORDER)
    assert ("clickId" if make is page_load else "QUEUED") in told.error


ROWS: list[tuple[dict[str, Any], int, str, int]] = [
    ({"status": 400}, 0, "refused", 400),
    ({"status": 401}, 0, "credentials", 429),
    ({"status": 402}, 0, "unclear", 429),
    ({"status": 402}, 5, "unclear", 400),
    ({"status": 403}, 0, "credentials", 429),
    ({"status": 404}, 0, "credentials", 429),
    ({"status": 405}, 0, "credentials", 429),
    ({"status": 408}, 0, "transient", 429),
    ({"status": 413}, 0, "refused", 400),
    ({"status": 422}, 0, "refused", 400),
    ({"status": 425}, 0, "transient", 429),
    ({"status": 429, "rate_limit": "x-ratelimit"}, 0, "quota", 429),
    ({"status": 429, "rate_limit": "x-ratelimit-epoch"}, 0, "quota", 429),
    ({"status": 429, "rate_limit": "x-ratelimit-hour"}, 0, "quota", 429),
    ({"status": 429, "rate_limit": "ratelimit-draft"}, 0, "quota", 429),
    ({"status": 429, "rate_limit": "retry-after-seconds"}, 0, "quota", 429),
    ({"status": 429, "rate_limit": "retry-after-float"}, 0, "quota", 429),
    ({"status": 429, "rate_limit": "retry-after-date"}, 0, "quota", 429),
    ({"status": 500}, 0, "transient", 429),
    ({"status": 502}, 0, "transient", 429),
    ({"status": 503}, 0, "overload", 429),
    ({"status": 504}, 0, "transient", 429),
    ({"status": 302, "headers": {"Location": "/elsewhere"}}, 0, "unexpected", 429),
    ({"status": 400, "xml": True}, 0, "refused", 400),
    ({"status": 200, "body": {"Status": "ERROR", "Message": "no"}}, 0, "body_error", 400),
    ({"status": 200, "body": {"Status": "ERROR", "Message": "no"}, "xml": True}, 0, "body_error", 400),
    ({"reset": "before"}, 0, "ambiguous", 429),
    ({"reset": "after"}, 0, "ambiguous", 429),
]
"""A scripted answer, the earlier attempts, the cause told, and the status of the job."""


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize(("rule", "attempt", "cause", "status"), ROWS)
async def test_every_row_of_the_outcome_table(
    http: aiohttp.ClientSession,
    service: Service,
    impact: FakeImpact,
    version: str,
    rule: dict[str, Any],
    attempt: int,
    cause: str,
    status: int,
) -> None:
    """What may still succeed is 429, which the router retries without limit; only what is permanent is 400."""
    impact.script([rule])
    metadata = METADATA.replace(b'"attemptNum":0', b'"attemptNum":%d' % attempt)
    told = await send(http, service, order(impact), version=version, metadata=[metadata])

    assert told.status == status
    assert told.error.startswith(f"{cause}: ")
    assert told.tags == {
        "destType": "IMPACT",
        "module": "destination",
        "implementation": "native",
        "feature": "dataDelivery",
        "errorCategory": "network",
        "errorType": "aborted" if status == 400 else "throttled",
        "meta": cause,
        "destinationId": "d-1",
        "workspaceId": "ws-1",
    }
    assert told.http == (200 if version == "v1" else status)
    assert len(impact.calls) == 1


async def test_all_jobs_of_a_request_share_its_fate(
    http: aiohttp.ClientSession, service: Service, impact: FakeImpact
) -> None:
    """v1 may carry several jobs: each is answered, its metadata echoed byte for byte."""
    many = [b'{"jobId":%d,"attemptNum":%d,"x":1.50}' % (number, number) for number in range(1, 7)]
    impact.script([{"status": 402}])
    told = await send(http, service, order(impact), metadata=many)

    assert told.status == 400
    assert len(impact.calls) == 1


@pytest.mark.parametrize("version", ["v0", "v1"])
async def test_a_refused_connection_comes_again(http: aiohttp.ClientSession, start: Start, version: str) -> None:
    """impact.com out of reach is nobody's last word."""
    service = await start(impact={"tracking_url": "http://127.0.0.1:9"})
    told = await send(http, service, request_of("http://127.0.0.1:9/PageLoad"), version=version)

    assert told.status == 429
    assert told.error.startswith("not_sent: ")


@pytest.mark.serial
@pytest.mark.parametrize("milliseconds", [700, 1200])
async def test_the_answer_comes_before_the_routers_deadline(
    http: aiohttp.ClientSession, service: Service, impact: FakeImpact, milliseconds: int
) -> None:
    """A late impact.com is a 429 in time; without an answer the router would count a 500."""
    impact.script([{"delay": 20}])
    loop = asyncio.get_running_loop()
    started = loop.time()
    told = await send(http, service, order(impact), timeout=str(milliseconds))

    assert loop.time() - started < milliseconds / 1000
    assert told.status == 429
    assert told.error.startswith("ambiguous: ")


@pytest.mark.parametrize("milliseconds", ["0", "-5", "1", "100"])
async def test_a_deadline_too_short_to_keep_is_still_answered(
    http: aiohttp.ClientSession, service: Service, impact: FakeImpact, milliseconds: str
) -> None:
    """Whatever deadline is named, the reply is of the protocol and quick."""
    impact.script([{"delay": 120}])
    loop = asyncio.get_running_loop()
    started = loop.time()
    told = await send(http, service, page_load(impact), timeout=milliseconds)

    assert told.status == 429
    assert loop.time() - started < 9


@pytest.mark.parametrize("header", ["", "soon", "10s", "nan", "inf", "1e400", "1e30", "0x10", "1,5"])
async def test_a_garbled_deadline_means_the_setting(
    http: aiohttp.ClientSession, service: Service, impact: FakeImpact, header: str
) -> None:
    """An answer that takes a moment is waited for, as if the router had named no deadline."""
    impact.script([{"delay": 0.2}])
    told = await send(http, service, page_load(impact), timeout=header)

    assert told.status == 200


@pytest.mark.serial
async def test_without_a_deadline_the_setting_bounds_the_delivery(
    http: aiohttp.ClientSession, start: Start, impact: FakeImpact
) -> None:
    """``delivery.timeout_seconds`` counts when the router names no RdProxy-Timeout."""
    service = await start(delivery={"timeout_seconds": 0.6})
    impact.script([{"delay": 5}])
    loop = asyncio.get_running_loop()
    started = loop.time()
    told = await send(http, service, page_load(impact), timeout=None)

    assert told.status == 429
    assert loop.time() - started < 0.6


def forbidden(url: str) -> dict[str, str]:
    """Addresses that look like a configured one and are not, by what is wrong with them."""
    host = url.removeprefix("http://")
    name, _, port = host.partition(":")
    return {
        "another host": f"http://evil.example.com:{port}/PageLoad",
        "the same host by another name": f"http://localhost:{port}/PageLoad",
        "another port": f"http://{name}:{int(port) - 1}/PageLoad",
        "no port": f"http://{name}/PageLoad",
        "another scheme": f"https://{host}/PageLoad",
        "userinfo before an evil host": f"http://{host}@evil.example.com/PageLoad",
        "userinfo before ours": f"http://evil.example.com@{host}/PageLoad",
        "userinfo with a password": f"http://user:word@{host}/PageLoad",
        "a longer host": f"http://{host}.evil.example.com/PageLoad",
        "a backslash": f"http://{host}\\@evil.example.com/PageLoad",
        "a backslash as slash": f"http:\\\\{host}\\PageLoad",
        "no scheme": f"//{host}/PageLoad",
        "a path only": "/PageLoad",
        "nothing": "",
        "no URL": "not a url",
        "a broken IPv6 host": "http://[::1/PageLoad",
        "a broken port": f"http://{name}:port/PageLoad",
        "a file": "file:///etc/passwd",
        "tracking: lower case": f"{url}/pageload",
        "tracking: a slash behind": f"{url}/PageLoad/",
        "tracking: two slashes": f"{url}//PageLoad",
        "tracking: something behind": f"{url}/PageLoad/Conversions",
        "tracking: a suffix": f"{url}/PageLoadX",
        "tracking: a parameter": f"{url}/PageLoad;x=1",
        "tracking: an encoded slash": f"{url}/PageLoad%2F",
        "tracking: a query": f"{url}/PageLoad?x=1",
        "tracking: a fragment": f"{url}/PageLoad#x",
        "tracking: up and back": f"{url}/x/../PageLoad",
        "the root": f"{url}/",
        "a control path": f"{url}/_script",
        "api: up": f"{url}/Advertisers/../_calls",
        "api: encoded up": f"{url}/Advertisers/%2e%2e/_calls",
        "api: half encoded up": f"{url}/Advertisers/.%2E/_calls",
        "api: up to tracking": f"{url}/Advertisers/../PageLoad",
        "api: two slashes": f"{url}//Advertisers/IRtest/Conversions",
        "api: no account": f"{url}/Advertisers//Conversions",
        "api: lower case": f"{url}/advertisers/IRtest/Conversions",
        "api: a query": f"{url}/Advertisers/IRtest/Conversions?x=1",
        "api: a fragment": f"{url}/Advertisers/IRtest/Conversions#x",
        "api: only the beginning": f"{url}/Advertisers",
    }


@pytest.mark.parametrize("name", forbidden("http://127.0.0.1:8080"))
async def test_only_the_configured_addresses_are_called(
    http: aiohttp.ClientSession, service: Service, impact: FakeImpact, name: str
) -> None:
    """Whoever reaches the port cannot use us to reach others, nor hand them credentials: 400 and nothing sent."""
    told = await send(http, service, request_of(forbidden(impact.url)[name]))

    assert told.status == 400
    assert told.error.startswith("endpoint_not_allowed: ")
    assert impact.calls == []


@pytest.mark.parametrize(
    "changes",
    [{"method": "GET"}, {"method": "DELETE"}, {"method": ""}, {"params": {"x": "1"}}],
    ids=["GET", "DELETE", "no method", "a query"],
)
async def test_only_plain_posts_are_sent(
    http: aiohttp.ClientSession, service: Service, impact: FakeImpact, changes: dict[str, Any]
) -> None:
    """Other methods and query parameters are not part of impact.com's two endpoints."""
    told = await send(http, service, order(impact, **changes))

    assert told.status == 400
    assert impact.calls == []


@pytest.mark.parametrize("key", ["Authorization", "authorization", "AUTHORIZATION"])
async def test_credentials_never_reach_the_tracking_host(
    http: aiohttp.ClientSession, service: Service, impact: FakeImpact, key: str
) -> None:
    """Even when the router sends them along; to the conversions host they go."""
    headers = {key: builders.basic(), "X-Other": "1", "Cookie": "a=1", "Host": "evil.example.com"}
    await send(http, service, page_load(impact, headers=headers))
    await send(http, service, order(impact, headers=headers))
    names = [{name.lower() for name in call.headers} for call in impact.calls]

    assert [call.status for call in impact.calls] == [200, 200]
    assert ["authorization" in found for found in names] == [False, True]
    assert all(not found & {"x-other", "cookie"} for found in names)
    assert all("evil" not in str(call.headers) for call in impact.calls)


async def test_the_scheme_of_the_accept_header_is_json(
    http: aiohttp.ClientSession, service: Service, impact: FakeImpact
) -> None:
    """Without it impact.com answers in XML; the router's own headers decide nothing."""
    await send(http, service, page_load(impact, headers=None))

    assert impact.calls[0].headers["Accept"] == "application/json"
    assert impact.calls[0].headers["Content-Type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize("make", [page_load, order])
async def test_a_clear_email_is_hashed_on_both_hosts(
    http: aiohttp.ClientSession, service: Service, impact: FakeImpact, make: Callable[..., dict[str, Any]]
) -> None:
    """Jobs that the stock transformer made before the switch still hold addresses in clear."""
    form = {**(PAGE_LOAD if make is page_load else ORDER), "CustomerEmail": " Jane@Example.com "}
    told = await send(http, service, make(impact, form))

    assert told.status == 200
    assert impact.calls[0].form["CustomerEmail"] == "0850a4cffb73cbc53fd33e8990c2184c915ff041"


async def test_a_hashed_email_passes_and_nonsense_is_left_out(
    http: aiohttp.ClientSession, service: Service, impact: FakeImpact
) -> None:
    """A digest is sent as it is; what is neither address nor digest would only be refused."""
    for value in ("a" * 40, "n/a"):
        await send(http, service, page_load(impact, {**PAGE_LOAD, "CustomerEmail": value}))

    assert [call.form.get("CustomerEmail") for call in impact.calls] == ["a" * 40, None]


@pytest.mark.parametrize(
    "value", ["jane@example.com", "x jane%40example.com", "https://x.example.com/?e=jane%2540example.com"]
)
async def test_an_email_in_another_parameter_is_not_sent(
    http: aiohttp.ClientSession, service: Service, impact: FakeImpact, value: str
) -> None:
    """The refusal names the parameter and does not repeat the address."""
    told = await send(http, service, order(impact, {**ORDER, "CustomerId": value}))

    assert told.status == 400
    assert told.error.startswith("email_in_parameter: CustomerId ")
    assert "jane" not in told.error
    assert impact.calls == []


@pytest.mark.parametrize("value", [12, 1.5, None, True, [], {"a": "1"}])
async def test_a_form_value_that_is_no_text_is_not_sent(
    http: aiohttp.ClientSession, service: Service, impact: FakeImpact, value: Any
) -> None:
    """The router has printed numbers in Go's notation by now; a wrong amount is worse than none."""
    told = await send(http, service, order(impact, {**ORDER, "OrderShipping": value}))

    assert told.status == 400
    assert told.error.startswith("unsupported_body: ")
    assert impact.calls == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"FORM": {}},
        {"FORM": None},
        {"JSON": {"a": 1}},
        {"XML": {"payload": "<a/>"}},
        {"JSON_ARRAY": {"batch": "[]"}},
        {"GZIP": {"payload": "x"}},
        {"FORM": {"A": "1"}, "JSON": {"a": 1}},
    ],
)
async def test_exactly_one_form_is_sent(
    http: aiohttp.ClientSession, service: Service, impact: FakeImpact, body: Any
) -> None:
    """Another body, two bodies or none are not what our transformation made: that job's 400."""
    told = await send(http, service, page_load(impact, body=body))

    assert told.status == 400
    assert told.error.startswith("unsupported_body: ")
    assert impact.calls == []


@pytest.mark.parametrize("text", ["ü", "a b+c&d=e", "100%", "日本", "\u2028", '"', "%41"])
async def test_form_values_arrive_as_they_are(
    http: aiohttp.ClientSession, service: Service, impact: FakeImpact, text: str
) -> None:
    """Encoding is undone by the receiver to the same text."""
    await send(http, service, order(impact, {**ORDER, "Note": text}))

    assert impact.calls[0].form["Note"] == text


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"{", b'{"endpoint":7,"metadata":[]}', b'{"endpoint":"x","metadata":7}']
)
async def test_a_body_not_of_the_protocol_is_asked_for_again(
    http: aiohttp.ClientSession, service: Service, version: str, body: bytes
) -> None:
    """Whatever it is, it is not the event's fault: 503, and the router keeps the jobs."""
    async with http.post(f"{service.url}/{version}/destinations/impact/proxy", data=body) as response:
        await response.read()

    assert response.status == 503
    assert response.headers["X-Rudder-Error-Reason"] == "undecodable_body"


async def test_deliveries_are_counted_by_result_and_cause(
    http: aiohttp.ClientSession, service: Service, impact: FakeImpact
) -> None:
    """Each delivery moves one counter whose labels come from closed lists."""
    impact.script([{"status": 503, "times": 1}])
    await send(http, service, order(impact))
    await send(http, service, order(impact))
    await send(http, service, request_of("http://evil.example.com/x"))
    counted = {
        tuple(sample.labels.values()): sample.value
        for metric in service.telemetry.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "impact_plugin_deliveries_total"
    }

    assert counted == {
        ("conversions", "retry", "overload"): 1,
        ("conversions", "delivered", "ok"): 1,
        ("pageload", "rejected", "endpoint_not_allowed"): 1,
    }
