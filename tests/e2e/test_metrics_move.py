"""Whatever board and alerts ask for moves when the service has something to do, or something goes wrong."""

import asyncio
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml
from aiohttp import web
from ingest_site import KEY, IngestSite
from prometheus_client.parser import text_string_to_metric_families

from impact_plugin.telemetry import (
    LedgerFailed,
    LedgerMeasured,
    LedgerRestored,
    MemoryExceeded,
    RequestFault,
    ServiceStarted,
    SpoolFailed,
    SpoolRestored,
    StateFailed,
    StateMeasured,
    StateRestored,
    Telemetry,
    TelemetryEvent,
)
from impact_plugin.testing.fake_impact import FakeImpact
from impact_plugin.testing.strict_rudder import StrictRudder

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
CONFIG: Final = {"accountSID": "IRtest", "apiKey": "test-token-secret", "campaignId": "23224"}

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
    "impact_plugin_spool_capacity", "impact_plugin_build_info",
}  # fmt: skip
"""What says what the settings say."""


def queried() -> set[str]:
    """Every series of ours in the board and in the alerts."""
    board = (DEPLOY / "grafana" / "impact-plugin.json").read_text(encoding="utf-8")
    alerts = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in json.loads(board)["panels"] for target in panel.get("targets", [])]
    expressions += [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    return {name for text in expressions for name in re.findall(r"\b((?:impact_plugin|transformer)_\w+)\b", text)}


def samples(text: str) -> dict[str, set[tuple[str, float]]]:
    """By series: its children and their values."""
    found: dict[str, set[tuple[str, float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).add((str(sorted(sample.labels.items())), sample.value))
    return found


def event(kind: str, number: int, **more: Any) -> dict[str, Any]:
    """An event of a visitor."""
    at = "2026-09-10T10:00:00.000Z"
    return {"type": kind, "messageId": f"m-{number}", "anonymousId": "a-1", "timestamp": at, **more}


EVENTS: Final = [
    event("page", 1, properties={"url": "https://shop.example/?irclickid=c-1"}),
    event("page", 2, properties={"url": "https://shop.example/?irclickid=c-1"}),
    event("track", 3, event="Order Completed", properties={"order_id": "o-1", "total": 5}),
    event("track", 4, event="Order Completed", properties={"total": 5}),
    event("group", 5),
]


async def drive(site: IngestSite, router: str, http: aiohttp.ClientSession, process: Any) -> None:
    """A little of everything that a service does in a day."""
    async with StrictRudder(router, destination_config=CONFIG) as rudder:
        await rudder.run(EVENTS, delivery="proxy")
        await rudder.run(EVENTS, transform="router", delivery="proxy")
    for path in ("/v0/destinations/marketo", "/customTransform"):
        async with http.post(router + path, data=b"[]") as response:
            await response.read()
    async with http.post(f"{router}/v0/destinations/impact", data=b"{") as response:
        await response.read()
    # What senders hand over now has to wait for a while.
    site.impact.script([{"status": 429, "times": 1, "headers": {"Retry-After": "8"}}])
    await site.posts(EVENTS)
    async with http.post(f"{site.url}/v1/batch", data=b"[]", headers={"Authorization": f"Bearer {KEY}x"}) as response:
        await response.read()
    site.file.write_text("[server\n", encoding="utf-8")
    process.send(signal.SIGHUP)


async def test_every_series_that_is_asked_for_moves(
    tmp_path: Path, launch: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    """Under traffic, but for what moves in a disaster only, which its fact moves."""
    upstream = web.ServerRunner(web.Server(_answer), shutdown_timeout=0.1)
    await upstream.setup()
    await web.TCPSite(upstream, "127.0.0.1", 0).start()
    address = f"http://127.0.0.1:{upstream.addresses[0][1]}"
    async with FakeImpact(auth_token="test-token-secret") as impact, aiohttp.ClientSession() as http:
        site = IngestSite(tmp_path, launch, free_port, impact)
        process = await site.start(RUDDER__UPSTREAM=address)
        before = samples((await site._fetch("/metrics"))[1])
        await drive(site, f"http://127.0.0.1:{site._ports['port']}", http, process)
        wanted = queried() - set(DISASTERS) - STANDING
        unmoved: set[str] = set()
        for _ in range(200):
            after = samples((await site._fetch("/metrics"))[1])
            unmoved = {name for name in wanted if after.get(name, set()) == before.get(name, set())}
            if not unmoved:
                break
            await asyncio.sleep(0.1)
    await upstream.cleanup()

    assert unmoved == set()
    assert STANDING <= set(after)


async def _answer(_request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=b"[]", headers={"apiVersion": "2"})


def test_what_moves_in_disasters_moves_then() -> None:
    """By the fact that tells of it."""
    assert set(DISASTERS) <= queried()
    for name, fact in DISASTERS.items():
        telemetry = Telemetry()
        for restored in (LedgerRestored(), StateRestored(1.0), SpoolRestored()):
            telemetry.metrics.count(restored)
        before = samples(telemetry.metrics.render().decode()).get(name, set())
        telemetry.metrics.count(fact)

        assert samples(telemetry.metrics.render().decode()).get(name, set()) != before, name
