"""The service is killed, or stopped, or its disk fails, while senders post: nothing that was acknowledged is lost."""

import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from impact_plugin.app import run_service
from impact_plugin.config.settings import SpoolSettings, StateSettings, load_settings
from impact_plugin.config.sources import RoutingFile
from impact_plugin.spool.sqlite import SqliteSpool, open_sqlite_spool
from impact_plugin.spool.sqlite_schema import FILE
from impact_plugin.testing.fake_impact import FakeImpact
from tests.e2e.ingest_site import KEY, IngestSite, arrivals, body_of, name_of, order, page
from tests.e2e.processes import is_accepted, work_of
from tests.waiting import SECONDS, until, until_so

KILLS = [5, pytest.param(200, marks=[pytest.mark.campaign, pytest.mark.timeout(1800)])]
SENDERS = 4
VISITORS = 4
TURNS = 10
"""Batches of the same visitors: with a page and an order in each, no visitor has so many waiting that order is lost."""

ANSWER_SECONDS = 0.03
UNDER_WAY_SECONDS = ANSWER_SECONDS + 0.1
"""An answer, and the moment until it is noted in the ledger."""


@pytest.fixture(name="impact")
async def impact_fixture() -> AsyncIterator[FakeImpact]:
    """Lend an impact.com that takes every order as a new one, and remembers all calls."""
    async with FakeImpact(dedupe_window=None, maxlen=1_000_000) as impact:
        impact.script([{"delay": ANSWER_SECONDS}])
        yield impact


class Senders:
    """Several senders that repeat what was not answered 200, and remember what was."""

    def __init__(self, site: IngestSite) -> None:
        self._site = site
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self.acknowledged: set[str] = set()
        self.statuses: set[int] = set()
        self.repeats = 0

    def start(self) -> None:
        """Begin to send."""
        self._tasks = [asyncio.create_task(self._send(number)) for number in range(SENDERS)]

    async def stop(self) -> None:
        """Send what was begun until it is acknowledged, and end."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    def has_acknowledged(self, events: int) -> bool:
        """Whether so many events have been answered 200."""
        return len(self.acknowledged) >= events

    async def _send(self, sender: int) -> None:
        turn = 0
        while not self._stopping:
            visitors = [f"v{sender}x{turn // TURNS}x{one}" for one in range(VISITORS)]
            await self.deliver([make(one, turn) for one in visitors for make in (page, order)])
            turn += 1
            await asyncio.sleep(0.02)

    async def deliver(self, events: list[dict[str, Any]]) -> None:
        """Send a batch until it is acknowledged."""
        while (status := await self._site.posts(events)) != 200:
            self.statuses.add(status)
            self.repeats += 1
            await asyncio.sleep(0.05)
        self.acknowledged.update(event["messageId"] for event in events)


def out_of_order(impact: FakeImpact) -> list[str]:
    """Events that arrived for the first time after a later one of their visitor."""
    latest: dict[str, tuple[int, str]] = {}
    found = []
    for name in arrivals(impact):
        kind, visitor, number = name.split("-")
        # In each turn the page comes before the order.
        place = (int(number), {"page": "a", "order": "b"}[kind])
        if place < latest.get(visitor, place):
            found.append(name)
        latest[visitor] = max(place, latest.get(visitor, place))
    return found


def conversions_since(impact: FakeImpact, moment: float) -> int:
    """How many conversions came in since."""
    return sum(call.received_at > moment and name_of(call).startswith("order") for call in impact.calls[-5000:])


def has_more_calls(impact: FakeImpact, than: int) -> bool:
    """Whether impact.com was called since it had been called this often."""
    return len(impact.calls) > than


async def accepted(site: IngestSite, events: list[dict[str, Any]], key: str = KEY) -> int:
    """Send again until it is acknowledged."""
    for _ in range(int(SECONDS / 0.05)):
        if (status := await site.posts(events, key)) == 200:
            break
        await asyncio.sleep(0.05)
    return status


async def is_refused(site: IngestSite, events: list[dict[str, Any]]) -> bool:
    """Whether there is no room for the events."""
    return await site.posts(events) != 200


async def kill(process: Any) -> None:
    """As the kernel does when memory is short: no last words."""
    process.send(signal.SIGKILL)
    await asyncio.to_thread(process.wait)


@pytest.mark.parametrize("kills", KILLS)
async def test_killed_at_any_moment(
    site: IngestSite, impact: FakeImpact, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Acknowledged events arrive, in order; orders once, but for those that were under way at a kill."""
    chance = random.Random(20260910)  # noqa: S311 - a seed, so that a failure can be found again
    senders = Senders(site)
    under_way, started = 0, time.monotonic()
    process = await site.start()
    senders.start()
    for _ in range(kills):
        await asyncio.sleep(chance.uniform(0, 0.6))
        killed = time.time()
        await kill(process)
        # What was written to the socket before the kill is still read after it.
        await asyncio.sleep(0.05)
        under_way += conversions_since(impact, killed - UNDER_WAY_SECONDS)
        process = await site.start()
    await senders.stop()
    await site.delivered(senders.acknowledged, seconds=60 + kills)
    found = arrivals(impact)
    orders = {name: count for name, count in found.items() if name.startswith("order")}
    pages_again = sum(found.values()) - sum(orders.values()) - (len(found) - len(orders))
    again = sum(orders.values()) - len(orders)
    with capsys.disabled():
        acknowledged = f"{len(senders.acknowledged)} events acknowledged, {len(found)} arrived"
        told = f"{again} of {len(orders)} orders sent again, at most {under_way} were under way at the kills"
        more = f"{pages_again} page loads sent again, {senders.repeats} requests repeated"
        sys.stdout.write(f"\n{kills} kills in {time.monotonic() - started:.0f} s: {acknowledged}; {told}; {more}\n")

    assert senders.acknowledged == set(found)
    assert again <= under_way
    assert [] == out_of_order(impact)
    assert {200} == {call.status for call in impact.calls}


async def test_told_to_stop_under_load(site: IngestSite, impact: FakeImpact) -> None:
    """SIGTERM: what is under way ends, what waits is sent after the next start, and nothing is sent twice."""
    senders, codes = Senders(site), []
    process = await site.start()
    senders.start()
    for number in range(1, 4):
        await until(partial(senders.has_acknowledged, number * 40), "nothing more is acknowledged")
        process.send(signal.SIGTERM)
        codes.append(await asyncio.to_thread(process.wait))
        process = await site.start()
    await senders.stop()
    await site.delivered(senders.acknowledged)

    assert [0, 0, 0] == codes
    assert dict.fromkeys(senders.acknowledged, 1) == dict(arrivals(impact))
    assert [] == out_of_order(impact)
    assert senders.statuses <= {0, 503}


async def test_a_request_under_way_at_the_stop_is_answered(site: IngestSite, impact: FakeImpact) -> None:
    """While it is worked on, the service is not ready any more; its events are sent after the next start, once."""
    impact.script([])
    process = await site.start()
    # So many that a fast machine is still at them when it has worked for so long.
    events = [page(f"v{number}", 1) for number in range(4000)]
    posting = asyncio.create_task(site.posts(events, seconds=SECONDS))
    _, before = work_of(process.pid)
    await until(lambda: work_of(process.pid)[1] > before + 10, "the request is not worked on")
    process.send(signal.SIGTERM)
    readiness = []
    while not posting.done():
        readiness.append(await site.ready())
    code = await asyncio.to_thread(process.wait)
    await site.start()
    await site.delivered({event["messageId"] for event in events})

    assert (200, 0) == (posting.result(), code)
    assert 503 in readiness
    assert {1} == set(arrivals(impact).values())


async def test_a_body_that_is_not_here_at_the_stop(site: IngestSite, impact: FakeImpact) -> None:
    """Its sender is told at once to come again, and the stop does not wait for it."""
    process = await site.start()
    body = body_of([page("v", 1)])
    head = f"POST /v1/batch HTTP/1.1\r\nHost: shop\r\nX-Write-Key: {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(site.url.rpartition(":")[2]))
    writer.write(head.encode() + body[:40])
    await until(partial(is_accepted, writer.get_extra_info("socket")), "the connection is not accepted")
    stopped = time.monotonic()
    process.send(signal.SIGTERM)
    answer = await reader.read()
    code = await asyncio.to_thread(process.wait)
    seconds = time.monotonic() - stopped
    writer.close()

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1\r\n" in answer
    assert 0 == code
    assert 10 > seconds
    assert [] == impact.calls


class Disk:
    """A small disk of its own under the state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, *options: str) -> None:
        """Mount it, or mount it anew."""
        subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", self.folder], check=True)

    def fill(self, leave: int = 0) -> None:
        """Leave so many bytes free."""
        with (self.folder / "ballast").open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while (free := os.statvfs(self.folder).f_bavail * 4096 - leave) > 0:
                ballast.write(bytes(min(free, 65536)))

    def empty(self) -> None:
        """Make room again."""
        (self.folder / "ballast").unlink()


@pytest.fixture(name="disk")
def disk_fixture(site: IngestSite) -> Iterator[Disk]:
    """Lend a small disk for the site's state."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    disk = Disk(site.state)
    disk.folder.mkdir()
    disk.mount("size=16m")
    yield disk
    subprocess.run(["umount", "--lazy", disk.folder], check=True)


@asynccontextmanager
async def run_inside(
    site: IngestSite, monkeypatch: pytest.MonkeyPatch, clock: Callable[[], float] = time.time
) -> AsyncIterator[SqliteSpool]:
    """The service in this process, where its clock and its spool can be reached."""
    opened: list[SqliteSpool] = []

    @asynccontextmanager
    async def open_it(
        settings: SpoolSettings, state: StateSettings, now: Callable[[], float]
    ) -> AsyncIterator[SqliteSpool]:
        async with open_sqlite_spool(settings, state, now) as spool:
            opened.append(spool)
            yield spool

    monkeypatch.setattr("impact_plugin.app.open_sqlite_spool", open_it)
    settings = load_settings(site.file, {"IMPACT_PLUGIN__STATE__DIR": str(site.state)})
    async with run_service(settings, {}, clock, RoutingFile(site.file, {})):
        yield opened[0]


async def test_a_disk_that_takes_nothing(site: IngestSite, impact: FakeImpact) -> None:
    """Senders are told to come again and readiness says why; when it takes writes again, all goes on by itself."""
    process = await site.start()
    statuses = [await site.posts([page("v", 1), order("v", 1)])]
    unlimited = resource.prlimit(process._process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process._process.pid, resource.RLIMIT_FSIZE, (1, unlimited[1]))
    statuses += [await site.posts([page("v", 2), order("v", 2)]) for _ in range(3)]
    ready = await site.ready()
    resource.prlimit(process._process.pid, resource.RLIMIT_FSIZE, unlimited)
    statuses.append(await accepted(site, [page("v", 2), order("v", 2)]))
    names = {"page-v-1", "order-v-1", "page-v-2", "order-v-2"}
    await site.delivered(names)

    assert [200, 503, 503, 503, 200] == statuses
    assert 503 == ready
    assert names == set(arrivals(impact))
    assert 1 == arrivals(impact)["order-v-2"]
    assert [] == out_of_order(impact)


async def test_a_full_disk(site: IngestSite, impact: FakeImpact, disk: Disk) -> None:
    """429 while it is nearly full, 503 when it is; a start is refused with what to do; nothing stored is lost."""
    impact.script([{"status": 503}])
    site.write(settings="[spool]\nmin_free_mb = 4")
    process = await site.start()
    statuses = [await site.posts([page("v", 1), order("v", 1)])]
    disk.fill(leave=3 * 1024 * 1024)
    # How much is free is looked at once a second.
    await until_so(partial(is_refused, site, [page("w", 1)]), "there is room")
    statuses.append(await site.posts([page("v", 2), order("v", 2)]))
    disk.fill()
    statuses.append(await site.posts([page("v", 2), order("v", 2)]))
    await kill(process)
    process = site.launch()
    code = await asyncio.to_thread(process.wait)
    disk.empty()
    impact.script([])
    await site.start()
    statuses.append(await accepted(site, [page("v", 2), order("v", 2)]))
    await site.delivered({"page-v-1", "order-v-1", "page-v-2", "order-v-2"})

    assert [200, 429] == statuses[:2]
    # Whatever it meets first: the limit, or the disk.
    assert statuses[2] in (429, 503)
    assert (200, 2) == (statuses[3], code)
    assert "free or mend the disk" in process.log
    assert {1} == set(arrivals(impact).values())
    assert [] == out_of_order(impact)


async def test_a_read_only_disk_stops_the_start(site: IngestSite, impact: FakeImpact, disk: Disk) -> None:
    """With one line that names the file; when it can be written again, what waited is sent."""
    impact.script([{"status": 503}])
    site.write(settings="[spool]\nmin_free_mb = 0")
    process = await site.start()
    status = await site.posts([page("v", 1), order("v", 1)])
    await kill(process)
    disk.mount("remount", "ro")
    process = site.launch()
    code = await asyncio.to_thread(process.wait)
    [line] = process.log.splitlines()
    disk.mount("remount", "rw")
    impact.script([])
    await site.start()
    await site.delivered({"page-v-1", "order-v-1"})

    assert (200, 2) == (status, code)
    assert line.startswith(f"impact-plugin: {site.state}")
    assert {"page-v-1": 1, "order-v-1": 1} == dict(arrivals(impact))


async def test_a_spool_that_cannot_be_written(
    site: IngestSite, impact: FakeImpact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk made read-only by the system: 503, readiness tells of the spool, and what was stored is sent later."""
    async with run_inside(site, monkeypatch) as spool:
        impact.script([{"status": 503}])
        statuses = [await site.posts([page("v", 1), order("v", 1)])]
        await until(lambda: bool(impact.calls), "nothing was sent")
        spool._writer.execute("PRAGMA query_only = ON")
        statuses += [await site.posts([page("v", 2), order("v", 2)]) for _ in range(2)]
        await site.troubled("readonly")
        spool._writer.execute("PRAGMA query_only = OFF")
        impact.script([])
        statuses.append(await accepted(site, [page("v", 2), order("v", 2)]))
        await site.delivered({"page-v-1", "order-v-1", "page-v-2", "order-v-2"})

    assert [200, 503, 503, 200] == statuses
    assert {1} == set(arrivals(impact).values())
    assert [] == out_of_order(impact)


async def test_a_spool_that_takes_nothing_new(
    site: IngestSite, impact: FakeImpact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits, and only senders meet the trouble: readiness tells of it all the same, and when it is over."""
    async with run_inside(site, monkeypatch) as spool:
        statuses = [await site.posts([page("v", 1)])]
        await site.delivered({"page-v-1"})
        await spool.flush()
        spool._writer.execute("PRAGMA query_only = ON")
        statuses.append(await site.posts([page("v", 2)]))
        await site.troubled("readonly")
        spool._writer.execute("PRAGMA query_only = OFF")
        statuses.append(await accepted(site, [page("v", 2)]))
        await site.troubled('"troubles":[]')
        await site.delivered({"page-v-2"})

    assert [200, 503, 200] == statuses
    assert {"page-v-1": 1, "page-v-2": 1} == dict(arrivals(impact))


async def test_commands_beside_the_service_take_nothing_from_it(
    site: IngestSite, impact: FakeImpact, launch: Callable[..., Any]
) -> None:
    """They open the same file and close it: the service sees what they changed, and its log is still its log."""

    async def letters(*words: str) -> str:
        process = launch("dead-letters", *words, "--config", str(site.file), STATE__DIR=str(site.state))
        code = await asyncio.to_thread(process.wait)
        assert code == 0, process.log
        return "".join(iter(process.line, ""))

    impact.script([{"status": 503}])
    process = await site.start()
    unnamed = {**order("v0", 0), "properties": {"total": 5, "currency": "EUR"}}
    assert await accepted(site, [unnamed]) == 200
    assert "1 missing_order_id" in await letters("list")
    await letters("retry", "--reason", "missing_order_id")
    deadline = time.monotonic() + SECONDS
    while "missing_order_id" not in (told := await letters("list")):
        assert time.monotonic() < deadline, told
    assert (site.state / f"{FILE}-wal").exists()
    events = [page("v1", 1), order("v1", 1)]
    assert await accepted(site, events) == 200
    await kill(process)
    impact.script([])
    await site.start()
    await site.delivered({event["messageId"] for event in events})


async def test_a_torn_end_of_the_log(site: IngestSite, impact: FakeImpact) -> None:
    """What a power cut leaves behind the last commit is let be: nothing that was acknowledged is in it."""
    impact.script([{"status": 503}])
    process = await site.start()
    for number in range(20):
        await accepted(site, [page("v", number), order("v", number)])
    await kill(process)
    for log in site.state.glob("*-wal"):
        torn = log.read_bytes()[-4096 * 3 : -2000]
        with log.open("ab") as end:
            end.write(torn)
    impact.script([])
    await site.start()
    names = {f"{kind}-v-{number}" for kind in ("page", "order") for number in range(20)}
    await site.delivered(names)

    assert dict.fromkeys(names, 1) == dict(arrivals(impact))
    assert [] == out_of_order(impact)


async def test_a_log_damaged_in_its_middle(site: IngestSite, impact: FakeImpact) -> None:
    """What was written before the damage is sent; what came after it is gone, and is taken when it comes again."""
    impact.script([{"status": 503}])
    process = await site.start()
    log = site.state / f"{FILE}-wal"
    await accepted(site, [page("v", 1), order("v", 1)])
    end = log.stat().st_size
    await accepted(site, [page("w", 1), order("w", 1)])
    await kill(process)
    with log.open("r+b") as damaged:
        damaged.seek(end + 500)
        damaged.write(b"\xff" * 500)
    impact.script([])
    await site.start()
    await site.delivered({"page-v-1", "order-v-1"})
    before = set(arrivals(impact))
    await accepted(site, [page("w", 1), order("w", 1)])
    await site.delivered({"page-w-1", "order-w-1"})

    assert {"page-v-1", "order-v-1"} <= before
    assert {"page-v-1": 1, "order-v-1": 1, "page-w-1": 1, "order-w-1": 1} == dict(arrivals(impact))


async def test_a_damaged_file_stops_the_start(site: IngestSite, impact: FakeImpact) -> None:
    """With one line that names it; moved away, the service starts with nothing."""
    impact.script([{"status": 503}])
    process = await site.start()
    await accepted(site, [page("v", 1)])
    process.send(signal.SIGTERM)
    await asyncio.to_thread(process.wait)
    file = site.state / FILE
    file.write_bytes(b"no database " + file.read_bytes()[12:])
    process = site.launch()
    code = await asyncio.to_thread(process.wait)
    [line] = process.log.splitlines()
    file.rename(site.state / "damaged.db")
    impact.script([])
    await site.start()
    await accepted(site, [page("v", 2)])
    await site.delivered({"page-v-2"})

    assert 2 == code
    assert line.startswith(f"impact-plugin: {file}: the spool cannot be opened: file is not a database;")
    assert "page-v-1" not in arrivals(impact)


async def test_a_clock_that_is_set_back(site: IngestSite, impact: FakeImpact, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a day, under way and between two starts: what was put off by the old time is sent soon, once."""
    behind = 0.0

    def clock() -> float:
        return time.time() - behind

    for number in range(2):
        impact.script([{"status": 503}])
        async with run_inside(site, monkeypatch, clock):
            await accepted(site, [page("v", number), order("v", number)])
            put_off = len(impact.calls)
            await until(partial(has_more_calls, impact, put_off), "nothing was sent")
            await asyncio.sleep(0.2)
            behind += 86400
            if number:
                break
            impact.script([])
            await accepted(site, [page("w", 1), order("w", 1)])
            await site.delivered({"page-v-0", "order-v-0", "page-w-1", "order-w-1"})
    impact.script([])
    async with run_inside(site, monkeypatch, clock):
        await site.delivered({"page-v-1", "order-v-1"})

    assert {1} == set(arrivals(impact).values())
    assert [] == out_of_order(impact)


async def test_a_corrected_file_is_taken_over_by_sighup(tmp_path: Path, site: IngestSite) -> None:
    """A token, and a key that is exchanged; a file with a mistake changes nothing and names it."""
    async with FakeImpact(auth_token="the-right-token") as impact:
        site.impact = impact
        site.write(api_key="a-wrong-token")
        process = await site.start()
        statuses = [await site.posts([page("v", 1), order("v", 1)])]
        await site.delivered({"page-v-1"})
        site.write(api_key="the-right-token", keys='["short"]')
        process.send(signal.SIGHUP)
        await site.told(process, "routing_refused")
        statuses.append(await site.posts([page("v", 2)]))
        new = KEY[::-1]
        site.write(api_key="the-right-token", keys=f'["{KEY}", "{new}"]')
        process.send(signal.SIGHUP)
        statuses.append(await accepted(site, [page("v", 3)], new))
        await site.delivered({"order-v-1", "page-v-2", "page-v-3"})
        found = arrivals(impact)
    [refused] = [json.loads(line) for line in process.log.splitlines() if "routing_refused" in line]

    assert [200, 200, 200] == statuses
    assert {"page-v-1": 1, "order-v-1": 1, "page-v-2": 1, "page-v-3": 1} == dict(found)
    assert "sources.shop.keys" in str(refused)
    assert "the-right-token" not in process.log
