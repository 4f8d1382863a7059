"""``impact-plugin replay --send`` and the service as processes: killed on either side, and each order goes once."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from impact_plugin.testing.fake_impact import FakeImpact
from tests.builders import CONFIG
from tests.e2e.ingest_site import KEY, IngestSite, arrivals, name_of, order, page
from tests.waiting import until

VISITORS = 80
"""For each kill, so that there is something left to send."""

KILLS = [2, pytest.param(40, marks=[pytest.mark.campaign, pytest.mark.timeout(1800)])]
BATCH = 4
UNDER_WAY_SECONDS = 0.3
"""An answer of impact.com, and the moment until it is noted in the ledger."""


@pytest.fixture(name="impact")
async def impact_fixture() -> AsyncIterator[FakeImpact]:
    """Lend an impact.com that takes every order as a new one."""
    async with FakeImpact(dedupe_window=None) as impact:
        yield impact


class Day:
    """A file of visitors who come, and some of whom buy, and the command that sends it."""

    def __init__(self, folder: Path, launch: Callable[..., Any], visitors: int) -> None:
        self.visitors = [f"v{visitor}" for visitor in range(visitors)]
        self.events = [make(visitor, 1) for visitor in self.visitors for make in (page, order)]
        self.names = {event["messageId"] for event in self.events}
        self.file = folder / "day.ndjson"
        self.file.write_text("".join(json.dumps(event) + "\n" for event in self.events), encoding="utf-8")
        self.state = folder / "day.state"
        self._launch = launch

    def send(self, url: str, *words: str) -> Any:
        """Start the command, or go on with it."""
        batch = [] if "proxy" in words else ["--batch", str(BATCH)]
        resume = ["--resume", str(self.state)]
        return self._launch("replay", str(self.file), "--send", "--url", url, "--key", KEY, *resume, *batch, *words)

    @property
    def done(self) -> int:
        """How many events are written down as done."""
        return int(json.loads(self.state.read_bytes())["sent"]["events"]) if self.state.exists() else 0

    async def gets_on(self) -> None:
        """Wait until more is done than now."""
        before = self.done
        await until(lambda: self.done > before, "nothing is sent")


@pytest.fixture(name="kills")
def kills_fixture(request: pytest.FixtureRequest) -> int:
    """Lend how often something is killed; tests may say so."""
    kills: int = getattr(request, "param", 1)
    return kills


@pytest.fixture(name="day")
def day_fixture(tmp_path: Path, launch: Callable[..., Any], kills: int) -> Day:
    """Lend a day that is long enough for the kills."""
    return Day(tmp_path, launch, VISITORS * kills)


async def ended(process: Any) -> int:
    """The exit code, once the process has ended."""
    code: int = await asyncio.to_thread(process.wait)
    return code


def assert_orders_follow_their_pages(impact: FakeImpact, day: Day) -> None:
    """No order arrived before its visitor."""
    first = {name: place for place, name in reversed(list(enumerate(map(name_of, impact.calls))))}
    for visitor in day.visitors:
        assert first[f"page-{visitor}-1"] < first[f"order-{visitor}-1"]


@pytest.mark.parametrize("kills", KILLS, indirect=True)
@pytest.mark.parametrize("via", ["segment", "proxy"])
async def test_the_command_is_killed(
    site: IngestSite, impact: FakeImpact, day: Day, tmp_path: Path, via: str, kills: int
) -> None:
    """And typed again, each time: every event arrives, orders once and after their pages."""
    await site.start()
    words, url = ["--via", via], site.url
    if via == "proxy":
        destination = tmp_path / "destination.json"
        config = {**CONFIG, "eventTypeId": "56446"}
        destination.write_text(json.dumps(config), encoding="utf-8")
        words, url = [*words, "--destination", str(destination)], site.router_url
    stopped = []
    for _ in range(kills):
        process = day.send(url, *words)
        await day.gets_on()
        process.send(signal.SIGKILL)
        await ended(process)
        stopped.append(day.done)
    code = await ended(day.send(url, *words))
    await site.delivered(day.names)

    assert code == 0
    assert 0 < stopped[0] < stopped[-1] < len(day.events)
    assert day.done == len(day.events)
    assert {name: count for name, count in arrivals(impact).items() if name.startswith("order") and count > 1} == {}
    assert_orders_follow_their_pages(impact, day)


@pytest.mark.parametrize("kills", KILLS, indirect=True)
async def test_the_service_is_killed(site: IngestSite, impact: FakeImpact, day: Day, kills: int) -> None:
    """The command waits for it and goes on; nothing is left out, and orders go once but for those under way."""
    process, under_way = await site.start(), 0
    sender = day.send(site.url)
    for _ in range(kills):
        await day.gets_on()
        killed = time.time()
        process.send(signal.SIGKILL)
        await ended(process)
        await asyncio.sleep(0.05)
        under_way += sum(
            call.received_at > killed - UNDER_WAY_SECONDS and name_of(call).startswith("order") for call in impact.calls
        )
        process = await site.start()
    code = await ended(sender)
    await site.delivered(day.names)
    orders = {name: count for name, count in arrivals(impact).items() if name.startswith("order")}

    assert code == 0
    assert sum(orders.values()) - len(orders) <= under_way
    assert_orders_follow_their_pages(impact, day)


async def test_stopped_by_somebody(site: IngestSite, impact: FakeImpact, day: Day) -> None:
    """Ctrl-C ends it at once and tells how it goes on; a service that is not there is told after the patience."""
    await site.start()
    process = day.send(site.url)
    await day.gets_on()
    process.send(signal.SIGINT)
    code = await ended(process)
    told = "".join(iter(process.line, ""))
    done = day.done
    site_process = day.send("http://127.0.0.1:9", "--patience", "0")
    other = await ended(site_process)

    assert code == 3
    assert f"interrupted; continue with the same command and --resume {day.state}" in told
    assert 0 < done < len(day.events)
    # The file says where the events were sent to: going on elsewhere would leave out what is done.
    assert other == 2
    assert "belongs to other files or another target" in site_process.log
    assert await ended(day.send(site.url)) == 0
    await site.delivered(day.names)
    assert set(arrivals(impact).values()) == {1}


async def test_nothing_is_sent_that_was_not_asked_for(
    site: IngestSite, impact: FakeImpact, day: Day, launch: Callable[..., Any]
) -> None:
    """A replay without --send reaches nobody, though everybody is there."""
    await site.start()
    process = launch("replay", str(day.file))

    assert await ended(process) == 0
    assert "nothing left this machine" in "".join(iter(process.line, ""))
    await asyncio.sleep(0.2)
    assert list(impact.calls) == []
    assert await site.waiting() in (0, -1)
