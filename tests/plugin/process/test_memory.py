"""The memory ceiling: above it events are refused so that their senders keep them; everything else goes on."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from impact_plugin.app import Service
from impact_plugin.process.memory import PATIENCE_SECONDS, MemoryWatch, open_descriptors, resident_bytes
from impact_plugin.telemetry import Telemetry

Item = Callable[..., dict[str, Any]]
Start = Callable[..., Awaitable[Service]]

CEILING = 100


class Watched:
    """A watch whose process is as large as the test says."""

    def __init__(self, ceiling: int = CEILING) -> None:
        self.size = 0
        self.given_up = 0
        self.telemetry = Telemetry()
        self.watch = MemoryWatch(ceiling, self.telemetry, self._give_up, lambda: self.size)

    def _give_up(self) -> None:
        self.given_up += 1

    def measure(self, size: int, now: float) -> bool:
        """Measure this size at this time, and say whether it is too much."""
        self.size = size
        self.watch.measure(now)
        return self.watch.exceeded

    def value(self, name: str) -> float | None:
        """A metric."""
        return self.telemetry.metrics.registry.get_sample_value(name)


def test_above_the_ceiling_and_below_it_again() -> None:
    """The ceiling itself is still allowed; the metrics move along."""
    watched = Watched()

    assert not watched.measure(CEILING, 0.0)
    assert watched.watch.trouble() == ""
    assert watched.measure(CEILING + 1, 1.0)
    assert watched.value("impact_plugin_over_memory") == 1
    assert watched.value("impact_plugin_memory_bytes") == CEILING + 1
    assert watched.value("impact_plugin_memory_ceiling_bytes") == CEILING
    assert "server.max_memory_mb" in watched.watch.trouble()
    assert not watched.measure(CEILING - 1, 2.0)
    assert watched.value("impact_plugin_over_memory") == 0


def test_a_process_that_stays_above_gives_up_once() -> None:
    """After its patience, counted from when it went above, and not again while it ends."""
    watched = Watched()
    watched.measure(CEILING + 1, 0.0)
    watched.measure(CEILING, 10.0)
    watched.measure(CEILING + 1, 11.0)
    watched.measure(CEILING + 1, 10.9 + PATIENCE_SECONDS)
    assert watched.given_up == 0
    watched.measure(CEILING + 1, 11.0 + PATIENCE_SECONDS)
    watched.measure(CEILING + 1, 12.0 + PATIENCE_SECONDS)

    assert watched.given_up == 1


def test_without_a_ceiling_memory_is_measured_only() -> None:
    """0 is none."""
    watched = Watched(ceiling=0)

    assert not watched.measure(10**15, 0.0)
    assert watched.value("impact_plugin_memory_bytes") == 10**15


def test_the_size_of_this_process_is_known() -> None:
    """A Python with pytest has more than 20 MB and less than 20 GB."""
    assert 20_000_000 < resident_bytes() < 20_000_000_000


def test_a_system_that_does_not_tell_is_no_fault(tmp_path: Path) -> None:
    """Where there is no /proc, no ceiling is ever met."""
    for content in (None, "", "x y z"):
        file = tmp_path / f"statm-{content}"
        if content is not None:
            file.write_text(content, encoding="ascii")

        assert 0 == resident_bytes(file)


@pytest.fixture(name="full")
async def full_fixture(start: Start, upstream: Any) -> Service:
    """Lend a service that holds more than it may: pytest alone takes more than the least ceiling there is."""
    return await start(server={"max_memory_mb": 64}, rudder={"upstream": upstream.url})


async def test_the_processor_is_asked_to_come_again(
    http: aiohttp.ClientSession, full: Service, item: Item, page: dict[str, Any]
) -> None:
    """503 with the header, before the body is read."""
    async with http.post(f"{full.url}/v0/destinations/impact", json=[item(page)]) as response:
        assert (response.status, response.headers["X-Rudder-Should-Retry"]) == (503, "true")
        assert response.headers["X-Rudder-Error-Reason"] == "memory"


@pytest.mark.parametrize("path", ["/routerTransform", "/batch"])
async def test_the_routers_jobs_come_again(
    http: aiohttp.ClientSession, full: Service, item: Item, page: dict[str, Any], path: str
) -> None:
    """429 for each job: a 503 would count as an error of theirs, and the third in three hours aborts them."""
    async with http.post(full.url + path, json={"input": [item(page)], "destType": "impact"}) as response:
        told = await response.json()
    entries = told["output"] if path == "/routerTransform" else told

    assert [entry["statusCode"] for entry in entries] == [429]
    assert "server.max_memory_mb" in entries[0]["error"]


async def test_what_is_not_ours_passes_through(http: aiohttp.ClientSession, full: Service, upstream: Any) -> None:
    """Other destinations do not pay for our memory: their bodies are not kept."""
    for path in ("/v0/destinations/marketo", "/customTransform", "/v2/sources/x"):
        async with http.post(full.url + path, data=b"[]") as response:
            assert response.status == 200
    async with http.post(f"{full.url}/routerTransform", data=b'{"input":[],"destType":"am"}') as response:
        assert response.status == 200

    assert len(upstream.seen) == 4


async def test_health_features_and_readiness_go_on(http: aiohttp.ClientSession, full: Service) -> None:
    """A router may boot, and the process is not taken out of service; /ready names the trouble."""
    for path in ("/health", "/features", "/ready"):
        async with http.get(full.url + path) as response:
            assert response.status == 200
            told = await response.json()

    assert any("server.max_memory_mb" in trouble for trouble in told["troubles"])


def test_descriptors_are_counted(tmp_path: Path) -> None:
    """One more file is one more, and one less again when it is closed."""
    before = open_descriptors()
    with (tmp_path / "file").open("w", encoding="ascii"):
        assert open_descriptors() == before + 1

    assert open_descriptors() == before


def test_descriptors_are_listed_where_the_folder_has_no_size(tmp_path: Path) -> None:
    """Older systems do not tell their number, and some have no such folder."""

    class Older(type(tmp_path)):  # type: ignore[misc]
        """A folder of such a system."""

        def stat(self, **_more: bool) -> Any:
            """Nothing is known of it."""
            return os.stat_result((0,) * 10)

    for number in range(3):
        (tmp_path / str(number)).touch()

    assert 3 == open_descriptors(Older(tmp_path))
    assert 0 == open_descriptors(tmp_path / "none")
