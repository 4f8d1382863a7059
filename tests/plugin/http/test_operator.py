"""What operators and their machines ask: health, readiness, version and metrics, and how a service stops."""

import asyncio
import shutil
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from impact_plugin import __version__
from impact_plugin.app import Service, run_service
from impact_plugin.config.settings import Settings
from impact_plugin.http.readiness import Readiness
from impact_plugin.process.memory import MemoryWatch
from impact_plugin.process.shutdown import Shutdown
from impact_plugin.sessions.sessions import Health
from impact_plugin.telemetry import Telemetry
from impact_plugin.testing.fake_impact import FakeImpact
from tests.builders import settings

Start = Callable[..., Awaitable[Service]]


async def get(http: aiohttp.ClientSession, url: str) -> tuple[int, Any]:
    """Fetch JSON."""
    async with http.get(url) as response:
        return response.status, msgspec.json.decode(await response.read())


async def samples(
    http: aiohttp.ClientSession, service: Service
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Scrape the metrics as Prometheus does."""
    async with http.get(f"{service.operator_url}/metrics") as response:
        text = await response.text()
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("port", ["url", "operator_url"])
async def test_health_ready_and_version_on_both_ports(http: aiohttp.ClientSession, service: Service, port: str) -> None:
    """A probe may ask either port; the health body is the stock transformer's."""
    base = getattr(service, port)

    assert await get(http, f"{base}/health") == (200, {"service": "UP", "version": __version__})
    assert await get(http, f"{base}/ready") == (200, {"ready": True, "problems": [], "troubles": []})
    assert await get(http, f"{base}/version") == (200, {"name": "impact-plugin", "version": __version__})


async def test_metrics_are_on_the_operators_port_only(http: aiohttp.ClientSession, service: Service) -> None:
    """The router's port does not show them."""
    async with http.get(f"{service.url}/metrics") as response:
        await response.read()

    assert response.status == 503
    assert await samples(http, service)


@pytest.mark.parametrize("port", ["url", "operator_url"])
async def test_without_its_state_folder_a_service_is_alive_but_not_ready(
    http: aiohttp.ClientSession, service: Service, tmp_path: Path, port: str
) -> None:
    """A lost volume takes the instance out of the balancer with the reason, and it comes back by itself."""
    base, folder = getattr(service, port), tmp_path / "var"
    shutil.rmtree(folder)
    status, body = await get(http, f"{base}/ready")
    health, _ = await get(http, f"{base}/health")
    folder.mkdir()
    again, _ = await get(http, f"{base}/ready")

    assert (status, body["ready"], health, again) == (503, False, 200, 200)
    assert str(folder) in body["problems"][0]


async def test_the_state_folder_is_made_for_the_service_alone(start: Start, tmp_path: Path) -> None:
    """``state.dir`` is made with its parents, readable by nobody else."""
    folder = tmp_path / "a" / "b"
    await start(state={"dir": str(folder)})

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def settings_for(impact: FakeImpact, folder: Path, grace: float) -> Settings:
    """Settings of a service with this grace period."""
    return settings(folder, impact.url, server={"shutdown_grace_seconds": grace})


DELIVERY: dict[str, Any] = {
    "method": "POST",
    "metadata": [{"jobId": 1}],
    "body": {"FORM": {"CampaignId": "1", "EventDate": "2026-09-10T10:00:00Z", "CustomProfileId": "a"}},
}


async def deliver(http: aiohttp.ClientSession, service: Service, impact: FakeImpact) -> int:
    """Have one Page Load delivered; 0 when the connection breaks."""
    body = {**DELIVERY, "endpoint": f"{impact.url}/PageLoad"}
    try:
        async with http.post(f"{service.url}/v1/destinations/impact/proxy", json=body) as response:
            await response.read()
            return response.status
    except aiohttp.ClientError:
        return 0


async def until_measured(http: aiohttp.ClientSession, service: Service) -> None:
    """Wait until the service has looked at what it holds, which it does once a second."""
    wanted = {"impact_plugin_state_entries", "impact_plugin_delivery_waiting"}
    async with asyncio.timeout(30):
        while not wanted <= {name for name, _ in await samples(http, service)}:  # noqa: ASYNC110 - metrics are polled
            await asyncio.sleep(0.01)


async def until_called(impact: FakeImpact) -> None:
    """Wait until the stand-in has a call."""
    while not impact.calls:  # noqa: ASYNC110 - the stand-in offers no event to wait for
        await asyncio.sleep(0.01)


async def test_a_request_under_way_is_finished_when_the_service_stops(
    http: aiohttp.ClientSession, impact: FakeImpact, tmp_path: Path
) -> None:
    """The router gets the answer of what it asked before; afterwards the port is closed."""
    impact.script([{"delay": 0.4}])
    async with run_service(settings_for(impact, tmp_path / "var", 5.0), {}) as service:
        under_way = asyncio.create_task(deliver(http, service, impact))
        await until_called(impact)

    assert await under_way == 200
    with pytest.raises(aiohttp.ClientConnectorError):
        await get(http, f"{service.url}/health")


async def test_a_stopping_service_says_so_until_its_requests_are_finished(
    http: aiohttp.ClientSession, impact: FakeImpact, tmp_path: Path
) -> None:
    """``/ready`` on the operator's port is 503 meanwhile: a balancer that asks there is not left to guess."""
    impact.script([{"delay": 0.5}])

    async def statuses(service: Service) -> list[int]:
        found = []
        # The port is closed in the moment in which the last request is finished.
        with suppress(aiohttp.ClientError):
            while not under_way.done():
                async with http.get(f"{service.operator_url}/ready") as response:
                    found.append(response.status)
                await asyncio.sleep(0.02)
        return found

    async with run_service(settings_for(impact, tmp_path / "var", 5.0), {}) as service:
        under_way = asyncio.create_task(deliver(http, service, impact))
        await until_called(impact)
        asking = asyncio.create_task(statuses(service))
        await asyncio.sleep(0.1)

    assert await under_way == 200
    assert {200, 503} == set(await asking)


async def test_a_stopping_service_waits_for_the_grace_period_only(
    http: aiohttp.ClientSession, impact: FakeImpact, tmp_path: Path
) -> None:
    """``server.shutdown_grace_seconds`` bounds the wait for requests that do not end."""
    impact.script([{"delay": 20}])
    loop = asyncio.get_running_loop()
    async with run_service(settings_for(impact, tmp_path / "var", 0.2), {}) as service:
        under_way = asyncio.create_task(deliver(http, service, impact))
        await until_called(impact)
        stopped_at = loop.time()
    seconds = loop.time() - stopped_at
    await under_way

    assert seconds < 15


async def test_without_a_grace_period_nothing_is_waited_for(
    http: aiohttp.ClientSession, impact: FakeImpact, tmp_path: Path
) -> None:
    """0 seconds are none, and not as many as it takes."""
    impact.script([{"delay": 8}])
    loop = asyncio.get_running_loop()
    async with run_service(settings_for(impact, tmp_path / "var", 0.0), {}) as service:
        under_way = asyncio.create_task(deliver(http, service, impact))
        await until_called(impact)
        stopped_at = loop.time()
    seconds = loop.time() - stopped_at
    await under_way

    assert seconds < 2.0


async def test_an_idle_service_stops_at_once(http: aiohttp.ClientSession, impact: FakeImpact, tmp_path: Path) -> None:
    """Idle connections that a router keeps open do not hold up a restart."""
    loop = asyncio.get_running_loop()
    async with run_service(settings_for(impact, tmp_path / "var", 300.0), {}) as service:
        await get(http, f"{service.url}/health")
        await get(http, f"{service.operator_url}/health")
        stopped_at = loop.time()

    assert loop.time() - stopped_at < 100


async def test_a_draining_service_says_so(tmp_path: Path) -> None:
    """While it stops, a service is alive and not ready; a second problem is told as well."""
    shutdown = Shutdown(1.0)
    memory = MemoryWatch(0, Telemetry())
    readiness = Readiness(tmp_path / "absent", Health(), shutdown, memory, ())
    shutdown.begin()

    assert Readiness(tmp_path, Health(), Shutdown(1.0), memory, ()).problems() == []
    assert [problem.split()[:3] for problem in readiness.problems()] == [
        ["the", "service", "is"],
        ["the", "state", "folder"],
    ]


async def test_traffic_moves_the_metrics(
    http: aiohttp.ClientSession, service: Service, item: Callable[..., Any], page: dict[str, Any], order: dict[str, Any]
) -> None:
    """Events by call, outcome and reason; batches by size; refusals by reason: as Prometheus reads them."""
    batch = [item(page), item(order), item({"type": "group"}), item({"type": "page"})]
    for _ in range(2):
        async with http.post(f"{service.url}/v0/destinations/impact", json=batch) as response:
            await response.read()
    async with http.post(f"{service.url}/v0/destinations/impact", data=b"{") as response:
        await response.read()
    found = await samples(http, service)

    def events(call: str, outcome: str, reason: str) -> float:
        labels = (("call", call), ("outcome", outcome), ("reason", reason))
        return found["impact_plugin_events_total", labels]

    assert events("Page", "pageload", "") == 2
    assert events("Track", "conversions", "") == 2
    assert events("Other", "filtered", "unsupported_type") == 2
    assert events("Page", "rejected", "missing_identity") == 2
    assert found["impact_plugin_batch_events_count", (("protocol", "processor"),)] == 2
    assert found["impact_plugin_batch_events_sum", (("protocol", "processor"),)] == 8
    assert found["impact_plugin_batch_seconds_count", (("protocol", "processor"),)] == 2
    assert found["impact_plugin_refused_requests_total", (("reason", "undecodable_body"),)] == 1


async def test_labels_are_bounded_whatever_senders_write(
    http: aiohttp.ClientSession, service: Service, item: Callable[..., Any]
) -> None:
    """A thousand made-up types, event names, paths and accounts make no new series."""

    def made_up(numbers: range) -> list[Any]:
        kinds = [
            item({"type": f"kind-{n}", "event": f"event-{n}", "userId": f"u-{n}", "anonymousId": f"a-{n}"}, n)
            for n in numbers
        ]
        return kinds + [item({"type": "track", "event": f"event-{n}", "userId": f"u-{n}"}, n) for n in numbers]

    async def series_after(numbers: range) -> set[Any]:
        async with http.post(f"{service.url}/v0/destinations/impact", json=made_up(numbers)) as response:
            await response.read()
        for n in numbers:
            async with http.get(f"{service.url}/path-{n}") as response:
                await response.read()
            async with http.post(
                f"{service.url}/v1/destinations/impact/proxy", json={**DELIVERY, "endpoint": f"x{n}"}
            ) as response:
                await response.read()
        return set(await samples(http, service))

    await until_measured(http, service)
    one = await series_after(range(1))
    many = await series_after(range(1, 500))

    assert many == one
    assert not any(word in str(many) for word in ("kind-", "event-", "path-", "u-1", "a-1"))


async def test_unknown_paths_on_the_operators_port_are_plainly_unknown(
    http: aiohttp.ClientSession, service: Service
) -> None:
    """No router asks there, so 404 is right there."""
    async with http.get(f"{service.operator_url}/nothing") as response:
        await response.read()

    assert response.status == 404
