"""The stock transformer's series: its names, values that mean the same, and labels with few values."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from prometheus_client.samples import Sample

from impact_plugin.app import Service
from impact_plugin.delivery.policy import Cause
from impact_plugin.protocols.rudder_envelope import STAT_CATEGORIES
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.delivery import RequestSent
from impact_plugin.telemetry.events.http import RequestArrived, RequestRefused, RequestServed
from impact_plugin.telemetry.events.process import ProcessMeasured
from impact_plugin.telemetry.events.transformation import BatchTransformed
from impact_plugin.telemetry.stock import CATEGORIES, STOCK
from impact_plugin.testing.fake_impact import FakeImpact

Item = Callable[..., dict[str, Any]]
Start = Callable[..., Awaitable[Service]]

MANY = "destinationId", "workspaceId", "sourceId", "sourceType", "k8_namespace", "instanceName"
"""Labels of the stock transformer's whose values grow with its customers."""


def samples(telemetry: Telemetry, name: str) -> list[Sample]:
    """The children of a series."""
    return [
        sample
        for family in telemetry.metrics.registry.collect()
        for sample in family.samples
        if sample.name == name and sample.value
    ]


async def served(http: aiohttp.ClientSession, service: Service) -> Counter[tuple[str, str, str, str]]:
    """How many requests were answered, by method, route, code and type."""
    async with http.get(f"{service.operator_url}/metrics") as response:
        text = await response.text()
    found: Counter[tuple[str, str, str, str]] = Counter()
    for line in text.splitlines():
        if line.startswith("transformer_http_request_duration_count{"):
            inside, _, value = line.partition("{")[2].rpartition("} ")
            labels = dict(one.split("=", 1) for one in inside.split(","))
            method, route, code, kind = (labels[name].strip('"') for name in ("method", "route", "code", "destType"))
            found[method, route, code, kind] += int(float(value))
    return found


def test_no_label_grows_with_the_customers() -> None:
    """Ids are left out; what a client may choose is not told."""
    assert not {label for facts in STOCK for label in facts.labels} & set(MANY)


async def test_requests_are_told_by_route_and_whose_they_are(
    http: aiohttp.ClientSession, start: Start, upstream: Any, item: Item, page: dict[str, Any]
) -> None:
    """A path of ours by its name in whatever spelling; all others are one, as are rare methods."""
    service = await start(rudder={"upstream": upstream.url})
    for path in ("/v0/destinations/impact", "//v0/Destinations/IMPACT/"):
        await http.post(service.url + path, json=[item(page)])
    for kind in ("impact", "marketo"):
        await http.post(f"{service.url}/routerTransform", json={"input": [item(page)], "destType": kind})
    for number in range(20):
        await http.post(f"{service.url}/v2/sources/{number}?jane@example.com", data=b"[]")
    await http.request("PROPFIND", f"{service.url}/folder")
    await http.get(f"{service.url}/health")

    assert await served(http, service) == {
        ("POST", "/v0/destinations/impact", "200", "IMPACT"): 2,
        ("POST", "/routertransform", "200", "IMPACT"): 1,
        ("POST", "/routertransform", "200", ""): 1,
        ("POST", "other", "200", ""): 20,
        ("other", "other", "200", ""): 1,
        ("GET", "/health", "200", ""): 1,
    }


async def test_requests_under_way_are_told(http: aiohttp.ClientSession, service: Service, impact: FakeImpact) -> None:
    """While impact.com takes its time they are there, and afterwards they are not."""
    impact.script([{"delay": 0.5, "times": 1}])
    form = {"CampaignId": "1", "EventDate": "2026-09-10T10:00:00Z", "CustomProfileId": "a"}
    delivery = {"endpoint": f"{impact.url}/PageLoad", "metadata": [{"jobId": 1}], "body": {"FORM": form}}
    asking = asyncio.create_task(http.post(f"{service.url}/v1/destinations/impact/proxy", json=delivery))
    seen = set()
    while not asking.done():
        async with http.get(f"{service.operator_url}/metrics") as response:
            seen |= {line for line in (await response.text()).splitlines() if "concurrent_requests " in line}
    async with http.get(f"{service.operator_url}/metrics") as response:
        after = await response.text()

    assert "transformer_http_concurrent_requests 1.0" in seen
    assert "transformer_http_concurrent_requests 0.0" in after


def test_a_request_that_was_cut_off_is_over() -> None:
    """It has no code, and is not under way for ever."""
    telemetry = Telemetry()
    telemetry.emit(RequestArrived())
    telemetry.emit(RequestServed("POST", "other", 0, 0.1, ours=False))
    (sample,) = samples(telemetry, "transformer_http_request_duration_count")

    assert sample.labels["code"] == ""
    assert samples(telemetry, "transformer_http_concurrent_requests") == []


@pytest.mark.parametrize("path", ["/v0/destinations/impact", "/routerTransform", "/batch"])
async def test_requests_refused_for_memory_are_fenced_ones(
    http: aiohttp.ClientSession, start: Start, item: Item, page: dict[str, Any], path: str
) -> None:
    """In every protocol, also where each job is told and the answer as a whole is a 200."""
    service = await start(server={"max_memory_mb": 64})
    events = [item(page)]
    await http.post(
        service.url + path, json=events if path.startswith("/v0") else {"input": events, "destType": "impact"}
    )
    async with http.get(f"{service.operator_url}/metrics") as response:
        text = await response.text()

    assert f'transformer_memory_fenced_requests{{route="{path.lower()}"}} 1.0' in text


def test_other_refusals_are_not_fenced() -> None:
    """Only memory is what the stock transformer means by it."""
    telemetry = Telemetry()
    telemetry.emit(RequestRefused("other", 503, "not_ours", ""))

    assert samples(telemetry, "transformer_memory_fenced_requests") == []


@pytest.mark.parametrize(
    ("status", "cause", "success", "code"),
    [
        (200, Cause.OK, "true", "200"),
        (200, Cause.BODY_ERROR, "true", "200"),
        (429, Cause.QUOTA, "false", "429"),
        (599, Cause.TRANSIENT, "false", "other"),
        (0, Cause.NOT_SENT, "false", ""),
    ],
)
def test_requests_to_impact_are_told_by_their_status(status: int, cause: Cause, success: str, code: str) -> None:
    """Success is a matter of the status, as there; a status without a name is not told."""
    telemetry = Telemetry()
    telemetry.emit(RequestSent("pageload", cause, status, 0.1))
    (count,) = samples(telemetry, "transformer_outgoing_request_count")
    (latency,) = samples(telemetry, "transformer_outgoing_request_latency_count")

    assert (count.labels["success"], count.labels["statusCode"], count.value) == (success, code, 1)
    assert count.labels.items() > latency.labels.items()


def test_a_batch_is_told_by_what_became_of_its_events() -> None:
    """As many went in as there were events, as many came out as there are requests; the rest failed, by category."""
    telemetry = Telemetry()
    outcomes = Counter(
        {
            ("Page", "pageload", ""): 3,
            ("Page", "filtered", "page_disabled"): 2,
            ("Track", "rejected", "transform_fault"): 1,
        }
    )
    telemetry.emit(BatchTransformed("router", 6, outcomes, Counter(), 0.1, 1, 1))
    failed = samples(telemetry, "transformer_event_transform_failure")
    values = {
        name: samples(telemetry, f"transformer_{name}")[0].value
        for name in ("event_transform_success", "dest_transform_input_events_sum", "dest_transform_output_events_sum")
    }

    assert list(values.values()) == [3, 6, 3]
    assert {(one.labels["errorCategory"], one.labels["errorType"]): one.value for one in failed} == {
        ("", "filtered"): 2,
        ("transformation", ""): 1,
    }


def test_categories_are_those_the_router_is_told() -> None:
    """The series and the tags of an error in the answer say the same."""
    told = {name: (tags["errorCategory"], tags.get("errorType", "")) for name, tags in STAT_CATEGORIES.items()}

    assert told.items() <= CATEGORIES.items()
    assert set(CATEGORIES) - set(told) == {"filtered"}


def test_a_look_at_the_process_moves_its_series() -> None:
    """Processor time adds up, the rest is as it is now, and every lag is kept: one look may be between two scrapes."""
    telemetry = Telemetry()
    for lag in (0.7, 0.0):
        telemetry.emit(ProcessMeasured(100, 200, 30, 40, 0.5, lag))

    def value(name: str) -> float:
        (sample,) = samples(telemetry, name)
        return float(sample.value)

    assert value("process_cpu_seconds_total") == 1.0
    assert (value("process_open_fds"), value("process_max_fds")) == (30, 40)
    assert value("process_resident_memory_bytes") == value("impact_plugin_memory_bytes") == 100
    assert value("impact_plugin_loop_lag_seconds_count") == 2
    assert value("impact_plugin_loop_lag_seconds_sum") == 0.7
