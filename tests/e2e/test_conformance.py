"""The recorded day through the service as rudder-server drives it, every way it can: nothing refused, nothing lost."""

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import aiohttp
import msgspec
import pytest
import structlog
from blockbuster import blockbuster_ctx

from impact_plugin.app import Service, run_service
from impact_plugin.config.settings import LogSettings
from impact_plugin.telemetry import configure_logging
from impact_plugin.testing.fake_impact import FakeImpact
from impact_plugin.testing.strict_rudder import StrictRudder, Summary
from tests.builders import settings
from tests.one_task import in_one_task

Transform = Literal["processor", "router"]
Delivery = Literal["direct", "proxy"]
Version = Literal["v0", "v1"]

SENT, FILTERED, REJECTED = 3694, 12, 18
"""What becomes of the 3,724 events of the day."""

REPORTED_TWICE = 5
"""Orders of the day with two events of their own: only the ledger notices."""


@pytest.fixture(name="impact")
async def impact_fixture() -> AsyncIterator[FakeImpact]:
    """Lend a stand-in for impact.com."""
    async with FakeImpact(auth_token="demo-token") as impact:
        yield impact


@pytest.fixture(name="service")
async def service_fixture(impact: FakeImpact, tmp_path: Path) -> AsyncIterator[Service]:
    """Lend a running service that sends to the stand-in."""
    configure_logging(LogSettings(level="error"))
    async with in_one_task(run_service(settings(tmp_path / "var", impact.url), {})) as service:
        yield service
    structlog.reset_defaults()


class Forced(StrictRudder):
    """A router that was told once, at its boot, whether to send compacted bodies."""

    def force(self, *, compacted: bool) -> None:
        """Overrule what the features said."""
        self._compacted = compacted


Way = tuple[Transform, Delivery, Version, bool, bool]
"""How to transform, how to deliver, by which version of the proxy; whether compacted, and with a slash too many."""

PAIRS: list[Way] = [
    ("processor", "direct", "v1", True, False),
    ("router", "direct", "v1", False, True),
    ("processor", "proxy", "v0", False, False),
    ("processor", "proxy", "v1", True, True),
    ("router", "proxy", "v0", True, True),
    ("router", "proxy", "v1", False, False),
]
"""Every two choices meet in one of them; the version of the proxy means nothing to a direct delivery."""

TRANSFORMS: tuple[Transform, ...] = ("processor", "router")
DELIVERIES: list[tuple[Delivery, Version]] = [("direct", "v1"), ("proxy", "v0"), ("proxy", "v1")]
ALL: list[Way] = [
    (transform, delivery, version, compacted, slash)
    for transform, (delivery, version) in product(TRANSFORMS, DELIVERIES)
    for compacted, slash in product((False, True), repeat=2)
]
WAYS = [*PAIRS, *(pytest.param(way, marks=pytest.mark.campaign) for way in ALL if way not in PAIRS)]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way)))
async def test_the_whole_day_every_way(
    service: Service,
    impact: FakeImpact,
    make_day: ModuleType,
    day: list[dict[str, Any]],
    way: Way,
) -> None:
    """Every event is delivered, filtered or refused with a reason; impact.com refuses nothing that we made."""
    transform, delivery, version, compacted, trailing_slash = way
    async with Forced(
        service.url,
        destination_config=make_day.DESTINATION_CONFIG,
        trailing_slash=trailing_slash,
        keep_alive=compacted,
    ) as rudder:
        features = await rudder.wait_for_features()
        rudder.force(compacted=compacted)
        summary = await rudder.run(day, transform=transform, delivery=delivery, proxy_version=version)

    assert summary == Summary(
        len(day),
        {"succeeded": SENT, "aborted": REJECTED, "filtered": FILTERED},
        {200: SENT, 400: REJECTED, 298: FILTERED},
    )
    # The shop reported some orders twice; the ledger knows them, impact.com does not hear of them again.
    arrived = SENT - (REPORTED_TWICE if delivery == "proxy" else 0)
    orders = Counter((call.form["OrderId"], call.form.get("EventTypeId")) for call in impact.conversions)
    assert Counter(call.status for call in impact.calls) == {200: arrived}
    assert len(impact.conversions) + len(impact.page_loads) == arrived
    assert sum(orders.values()) - len(orders) == (0 if delivery == "proxy" else REPORTED_TWICE)
    assert features.compacted
    assert "IMPACT" in features.router_transform


async def test_all_ways_make_the_same_requests(
    service: Service, impact: FakeImpact, make_day: ModuleType, day: list[dict[str, Any]]
) -> None:
    """Processor or router, plain or compacted: the same event becomes the same request."""
    seen = []
    async with StrictRudder(service.url, destination_config=make_day.DESTINATION_CONFIG) as rudder:
        for send in (rudder.send_processor, rudder.send_router):
            for compacted in (False, True):
                rudder._last_job = 0
                seen.append(
                    [(job.status, job.request, job.error) for job in await send(day[:800], compacted=compacted)]
                )

    assert seen[0] == seen[1] == seen[2] == seen[3]
    assert impact.calls == []


async def test_no_event_of_the_day_sends_an_address_in_clear(
    service: Service, make_day: ModuleType, day: list[dict[str, Any]]
) -> None:
    """Visitors wrote theirs in many places; no request carries one."""
    async with StrictRudder(service.url, destination_config=make_day.DESTINATION_CONFIG) as rudder:
        forms = [job.request["body"]["FORM"] for job in await rudder.send_processor(day) if job.request]

    assert len(forms) == SENT
    assert [value for form in forms for value in form.values() if "@" in value or "%40" in value] == []


async def test_the_metrics_add_up_to_the_day(service: Service, make_day: ModuleType, day: list[dict[str, Any]]) -> None:
    """The operator's counters tell the same totals as the router's."""
    async with StrictRudder(service.url, destination_config=make_day.DESTINATION_CONFIG) as rudder:
        await rudder.send_router(day, compacted=True)
    outcomes: Counter[str] = Counter()
    for metric in service.telemetry.metrics.registry.collect():
        for sample in metric.samples:
            if sample.name == "impact_plugin_events_total":
                outcomes[sample.labels["outcome"]] += int(sample.value)

    assert outcomes["pageload"] + outcomes["conversions"] + outcomes.get("clicks", 0) == SENT
    assert (outcomes["filtered"], outcomes["rejected"]) == (FILTERED, REJECTED)


async def test_no_request_blocks_the_event_loop(
    service: Service, impact: FakeImpact, make_day: ModuleType, day: list[dict[str, Any]]
) -> None:
    """Transforming, delivering and answering do no blocking input or output, so one batch never stalls another."""
    with blockbuster_ctx() as buster:
        # /ready looks at a local folder, which is one quick system call.
        buster.functions["os.access"].can_block_in("readiness.py", {"problems"})
        # The process measures itself every second; /proc is memory, not a disk.
        for function in buster.functions.values():
            function.can_block_in("memory.py", {"resident_bytes", "open_descriptors"})
        async with StrictRudder(service.url, destination_config=make_day.DESTINATION_CONFIG) as rudder:
            await rudder.wait_for_features()
            processed = await rudder.run(day[:60], delivery="proxy")
            routed = await rudder.run(day[:60], transform="router", delivery="direct")
        async with aiohttp.ClientSession() as http:
            statuses = []
            for url in (f"{service.url}/health", f"{service.url}/ready", f"{service.operator_url}/metrics"):
                async with http.get(url) as response:
                    await response.read()
                    statuses.append(response.status)

    assert processed.events == routed.events == 60
    assert statuses == [200, 200, 200]
    assert len(impact.calls) > 100


@pytest.mark.serial
async def test_a_large_batch_does_not_hold_up_health(
    service: Service, make_day: ModuleType, day: list[dict[str, Any]]
) -> None:
    """While batches of thousands of events are worked on, a probe is answered in a fraction of its usual second."""
    destination = {"ID": "d-1", "Config": make_day.DESTINATION_CONFIG}
    body = msgspec.json.encode(
        {
            "input": [{"message": one, "metadata": {"jobId": n}} for n, one in enumerate(day)],
            "destinations": {"d-1": destination},
        }
    )
    headers = {"X-Content-Format": "json+compactedv1"}
    slowest = 0.0
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession() as http:

        async def transform() -> int:
            async with http.post(
                f"{service.url}/v0/destinations/impact", data=io.BytesIO(body), headers=headers
            ) as response:
                return len(await response.read())

        batches = [asyncio.create_task(transform()) for _ in range(3)]
        while not all(batch.done() for batch in batches):
            started = loop.time()
            async with http.get(f"{service.url}/health") as response:
                await response.read()
            slowest = max(slowest, loop.time() - started)
        sizes = await asyncio.gather(*batches)

    assert min(sizes) > 1_000_000
    assert slowest < 1.0
