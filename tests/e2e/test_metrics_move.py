"""Whatever board and alerts ask for moves when the service has something to do, or something goes wrong."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from impact_plugin.config.settings import LogSettings
from impact_plugin.telemetry import Telemetry, TelemetryEvent, configure_logging
from impact_plugin.telemetry.events.faults import RequestFault
from impact_plugin.telemetry.events.ingest import SpoolFailed, SpoolRestored
from impact_plugin.telemetry.events.orders import LedgerFailed, LedgerMeasured, LedgerRestored
from impact_plugin.telemetry.events.process import MemoryExceeded, ServiceStarted
from impact_plugin.telemetry.events.sessions import StateFailed, StateMeasured, StateRestored
from impact_plugin.testing.fake_impact import FakeImpact
from impact_plugin.testing.strict_rudder import StrictRudder
from tests import builders
from tests.builders import CONFIG
from tests.e2e.ingest_site import KEY, IngestSite, page
from tests.queried import Selector, queried

ROOM: Final = 1000
"""Events that the spool takes: as few as it may be told."""

Children = dict[tuple[tuple[str, str], ...], float]

DISASTERS: Final[dict[str, TelemetryEvent]] = {
    "impact_plugin_faults_total": RequestFault("r", "e", ValueError()),
    "impact_plugin_over_memory": MemoryExceeded(2, 1),
    "impact_plugin_worker_restarts": ServiceStarted("u", "o", "i", "v", 1),
    "impact_plugin_ledger_up": LedgerFailed("c"),
    "impact_plugin_ledger_evicted_total": LedgerMeasured(1, 1, 1, 1),
    "impact_plugin_ledger_unsettled": LedgerMeasured(1, 1, 1, 1),
    "impact_plugin_state_up": StateFailed("c", 1.0),
    "impact_plugin_spool_up": SpoolFailed("c"),
    "impact_plugin_late_clicks_total": StateMeasured({}, {}, {}, 1, 0),
}
"""What moves in a disaster only, and the fact that moves it."""

STANDING: Final = {
    "impact_plugin_memory_ceiling_bytes", "impact_plugin_ledger_capacity", "impact_plugin_state_capacity",
    "impact_plugin_spool_capacity", "impact_plugin_build_info", "process_max_fds",
}  # fmt: skip
"""What says what the settings and the system say."""


def samples(text: str) -> dict[str, Children]:
    """By series: its children and their values."""
    found: dict[str, Children] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def meant(selector: Selector, found: dict[str, Children]) -> Children:
    """The children that a selector selects."""
    children = found.get(selector.series, {})
    return {labels: value for labels, value in children.items() if selector.matches(dict(labels))}


def moved(selector: Selector, seen: list[dict[str, Children]]) -> bool:
    """Whether a child that is meant has another value than at the first look; one that is not there yet stands at 0."""
    before = meant(selector, seen[0])
    return any(
        value != before.get(labels, 0.0) for later in seen[1:] for labels, value in meant(selector, later).items()
    )


EVENTS: Final = [
    builders.landing("m-1"),
    builders.landing("m-2"),
    builders.order("o-1", "m-3"),
    builders.order(message="m-4", properties={"total": 5}),
    builders.event("group", "m-5"),
]


class Day:
    """A service with a source, a stock transformer and impact.com beside it, and what is sent to it."""

    def __init__(self, site: IngestSite, http: aiohttp.ClientSession, upstream: web.ServerRunner, process: Any) -> None:
        self._site = site
        self._http = http
        self._upstream = upstream
        self._process = process
        self._router = f"http://127.0.0.1:{site._ports['port']}"

    async def look(self) -> dict[str, Children]:
        """The metrics as they are."""
        return samples((await self._site._fetch("/metrics"))[1])

    async def pass_by(self) -> None:
        """Send a little of everything that a service is asked in a day."""
        async with StrictRudder(self._router, destination_config=CONFIG) as rudder:
            await rudder.run(EVENTS, delivery="proxy")
            await rudder.run(EVENTS, transform="router", delivery="proxy")
        for path in ("/v0/destinations/marketo", "/customTransform"):
            await self._post(path, data=b"[]")
        await self._post("/v0/destinations/impact", data=b"{")
        await self._upstream.cleanup()
        await self._post("/customTransform", data=b"[]")

    async def be_refused(self) -> None:
        """Ask for deliveries that impact.com does not take: for what is in them, and for an account's credentials."""
        for number in range(8):
            await self._deliver("IRtest", "test-token-secret", {"OrderId": f"o-{number}", "CampaignId": "none"})
            await self._deliver("IRother", "wrong", {"OrderId": f"o-{number}"})

    async def wait_for_impact(self) -> list[dict[str, Children]]:
        """Ask for a delivery that takes its time, and look again and again meanwhile."""
        self._site.impact.script([{"delay": 1.0, "times": 1}])
        asking = asyncio.create_task(self._deliver("IRtest", "test-token-secret", {"OrderId": "o-slow"}))
        seen = []
        while not asking.done():
            seen.append(await self.look())
            await asyncio.sleep(0.1)
        await asking
        return seen

    async def take(self) -> None:
        """Take events of senders while impact.com takes none for a while, until there is no more room."""
        self._site.impact.script([{"status": 429, "times": 1, "headers": {"Retry-After": "8"}}])
        await self._site.posts(EVENTS)
        await self._site.posts(EVENTS, key=f"{KEY}x")
        answers = [
            await self._site.posts([page(f"v-{turn}-{one}", one) for one in range(ROOM // 2)]) for turn in range(4)
        ]
        assert 429 in answers

    def be_misconfigured(self) -> None:
        """Read a configuration file again that is none."""
        self._site.file.write_text("[server\n", encoding="utf-8")
        self._process.send(signal.SIGHUP)

    async def _deliver(self, sid: str, token: str, changes: dict[str, str]) -> None:
        at = "2026-09-10T10:00:00Z"
        form = {"CampaignId": "23224", "EventTypeId": "1", "EventDate": at, "CustomProfileId": "a-1", **changes}
        delivery = {
            "endpoint": f"{self._site.impact.url}/Advertisers/{sid}/Conversions",
            "headers": {"Authorization": aiohttp.encode_basic_auth(sid, token)},
            "body": {"FORM": form},
            "metadata": [{"jobId": 1}],
        }
        await self._post("/v1/destinations/impact/proxy", json=delivery)

    async def _post(self, path: str, **more: Any) -> None:
        async with self._http.post(self._router + path, **more) as response:
            await response.read()


@asynccontextmanager
async def day(folder: Path, launch: Callable[..., Any], free_port: Callable[[], int]) -> AsyncIterator[Day]:
    """A day that begins."""
    upstream = web.ServerRunner(web.Server(_answer), shutdown_timeout=0.1)
    await upstream.setup()
    await web.TCPSite(upstream, "127.0.0.1", 0).start()
    address = f"http://127.0.0.1:{upstream.addresses[0][1]}"
    async with FakeImpact(auth_token="test-token-secret") as impact, aiohttp.ClientSession() as http:
        site = IngestSite(folder, launch, free_port, impact)
        process = await site.start(RUDDER__UPSTREAM=address, SPOOL__MAX_EVENTS=str(ROOM))
        yield Day(site, http, upstream, process)


async def _answer(_request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=b"[]", headers={"apiVersion": "2"})


async def test_everything_that_is_asked_for_moves(
    tmp_path: Path, launch: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    """Under traffic, each by its selector; but for what moves in a disaster only, which its fact moves."""
    wanted = {one for one in queried() if one.series not in STANDING | set(DISASTERS)}
    async with day(tmp_path, launch, free_port) as today:
        seen = [await today.look()]
        await today.pass_by()
        await today.be_refused()
        seen += await today.wait_for_impact()
        await today.take()
        today.be_misconfigured()
        for _ in range(200):
            seen.append(await today.look())
            if not (unmoved := sorted(str(one) for one in wanted if not moved(one, seen))):
                break
            await asyncio.sleep(0.1)

    assert unmoved == []
    assert {one for one in queried() if one.series in STANDING and not meant(one, seen[-1])} == set()


@pytest.mark.parametrize("selector", [one for one in sorted(queried()) if one.series in DISASTERS], ids=str)
def test_what_moves_in_disasters_moves_then(selector: Selector) -> None:
    """By the fact that tells of it, from the state of an ordinary day."""
    configure_logging(LogSettings())
    telemetry = Telemetry()
    for restored in (LedgerRestored(), StateRestored(1.0), SpoolRestored()):
        telemetry.emit(restored)
    before = samples(telemetry.metrics.render().decode())
    telemetry.emit(DISASTERS[selector.series])

    assert moved(selector, [before, samples(telemetry.metrics.render().decode())])


def test_no_exception_stands_for_nothing() -> None:
    """What is excepted is asked for: a list that is longer than it must be hides what no longer moves."""
    assert STANDING | set(DISASTERS) <= {one.series for one in queried()}
