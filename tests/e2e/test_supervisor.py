"""Workers that are killed, replaced and stopped under a supervisor: the ports take every request, and none is lost."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import anyio
import pytest

from impact_plugin.testing.fake_impact import FakeImpact
from impact_plugin.testing.strict_rudder import StrictRudder, Summary
from tests import builders
from tests.builders import SHOP, TOKEN, job, page
from tests.e2e.processes import children_of, is_running, work_of

SECONDS: Final = 60.0
WAITING: Final = 200
ORDERS: Final = 400
"""For each kill and each replacement: it comes when half of them have been answered since the last one."""


class Site:
    """A supervised service and what its log says."""

    def __init__(self, process: Any, port: int, operator_port: int, ingest_port: int) -> None:
        self.process = process
        self.port, self.operator_port, self.ingest_port = port, operator_port, ingest_port
        self.url = f"http://127.0.0.1:{port}"

    def told(self, name: str) -> list[dict[str, Any]]:
        """The lines of the log with this name."""
        lines = (json.loads(line) for line in self.process.log.splitlines() if line.startswith("{"))
        return [line for line in lines if line["event"] == name]

    async def until_told(self, name: str, times: int = 1) -> list[dict[str, Any]]:
        """Wait for so many lines with this name."""
        async with asyncio.timeout(SECONDS):
            while len(found := self.told(name)) < times:  # noqa: ASYNC110 - the log is a file of another process
                await asyncio.sleep(0.02)
        return found

    def worker(self) -> int:
        """The process that serves at the moment."""
        return int((self.told("worker_started") + self.told("worker_replaced"))[-1]["pid"])

    async def kill_worker(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the worker, and wait until the next one is there."""
        started, ended = len(self.told("service_started")), len(self.told("worker_ended"))
        os.kill(self.told("worker_started")[-1]["pid"], number)
        await self.until_told("worker_ended", ended + 1)
        await self.until_told("service_started", started + 1)


def first_of_two(free_port: Callable[[], int]) -> int:
    """A free port whose next one is free too: a second worker's operator's port is that."""
    for _ in range(100):
        port = free_port()
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port + 1)):
            return port
    raise AssertionError("no two free ports beside each other")


Serve = Callable[..., Awaitable[Site]]


@pytest.fixture(name="serve")
def serve_fixture(launch: Callable[..., Any], free_port: Callable[[], int]) -> Serve:
    """Lend a starter of supervised services."""

    async def serve(*words: str, started: int = 1, **variables: str) -> Site:
        ports = free_port(), first_of_two(free_port), free_port()
        named = dict(
            zip(("SERVER__PORT", "SERVER__OPERATOR_PORT", "SERVER__INGEST_PORT"), map(str, ports), strict=True)
        )
        given = {**named, "SERVER__WORKERS": "1", "SERVER__SHUTDOWN_GRACE_SECONDS": "5", **variables}
        site = Site(launch("serve", *words, **given), *ports)
        await site.until_told("service_started", started)
        return site

    return serve


@pytest.fixture(name="sources")
def sources_fixture(tmp_path: Path) -> Path:
    """Lend a configuration file with a source and a destination."""
    file = tmp_path / "impact.toml"
    file.write_text(
        """
[sources.shop]
keys = ["a-key-of-the-tests"]
destinations = ["impact"]

[destinations.impact]
accountSID = "IRtest"
apiKey = "test-token-secret"
campaignId = "23224"
""",
        encoding="utf-8",
    )
    return file


def request(path: str, body: Any, *headers: str) -> bytes:
    """A request as it goes over the wire, on a connection of its own."""
    raw = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: a", "Connection: close", f"Content-Length: {len(raw)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


def connected(port: int, sent: bytes, number: int) -> Iterator[socket.socket]:
    """Connections on which a request was sent."""
    for _ in range(number):
        connection = socket.create_connection(("127.0.0.1", port), SECONDS)
        connection.sendall(sent)
        yield connection


def status_of(connection: socket.socket) -> str:
    """The status line of the whole answer."""
    with connection:
        received = b""
        while part := connection.recv(65536):
            received += part
    return received.partition(b"\r\n")[0].decode()


JOBS: Final = [job(page())]
ROUTER: Final = request("/v0/destinations/impact", JOBS)
SENDER: Final = request("/v1/track", {"event": "x", "anonymousId": "a"}, "Authorization: Bearer a-key-of-the-tests")


@pytest.mark.parametrize("port", ["router", "ingest"])
async def test_requests_that_wait_when_the_worker_is_killed_are_answered(
    serve: Serve, sources: Path, port: str
) -> None:
    """Two hundred connections wait in the queue of a worker that hangs; it is killed, and not one of them is lost."""
    site = await serve("--config", str(sources))
    sent, number = (ROUTER, site.port) if port == "router" else (SENDER, site.ingest_port)
    os.kill(site.worker(), signal.SIGSTOP)
    waiting = list(connected(number, sent, WAITING))
    await site.kill_worker()
    told = [await asyncio.to_thread(status_of, connection) for connection in waiting]

    assert ["HTTP/1.1 200 OK"] * WAITING == told


async def test_a_connection_without_a_request_is_no_ones_yet(serve: Serve) -> None:
    """The kernel keeps what was opened and not used: whoever sends later is answered by the next worker."""
    site = await serve()
    early = [socket.create_connection(("127.0.0.1", site.port), SECONDS) for _ in range(50)]
    await asyncio.sleep(0.2)
    await site.kill_worker()
    for connection in early:
        connection.sendall(ROUTER)
    told = [await asyncio.to_thread(status_of, connection) for connection in early]

    assert ["HTTP/1.1 200 OK"] * len(early) == told


async def spare_of(site: Site) -> int:
    """The process that waits to take the worker's place, once it has loaded all it needs and sleeps."""
    async with asyncio.timeout(SECONDS):
        while True:
            spares = set(children_of(site.process.pid)) - {site.worker()}
            before = {one: work_of(one) for one in spares}
            await asyncio.sleep(0.3)
            for one, work in before.items():
                if work == work_of(one) and work[0] == "S":
                    return one


async def test_a_worker_that_dies_is_replaced_by_the_one_prepared(serve: Serve) -> None:
    """However it ends. The next one was there before, and the metrics tell how many there were."""
    site = await serve()
    gaps = []
    prepared, served = [], []
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
        prepared.append(await spare_of(site))
        began = time.monotonic()
        await site.kill_worker(number)
        gaps.append(time.monotonic() - began)
        served.append(site.worker())
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{site.operator_port}/metrics") as response:
        metrics = await response.text()
    sys.stdout.write(f"\nseconds until a worker was replaced: {', '.join(f'{gap:.2f}' for gap in gaps)}\n")

    assert [line["cause"] for line in site.told("worker_ended")] == ["SIGKILL", "exit code 0", "SIGSEGV"]
    assert served == prepared
    assert "impact_plugin_worker_restarts 3.0" in metrics


def order(number: int) -> dict[str, Any]:
    """An order of one of a hundred visitors."""
    visitor = number % 100
    return builders.order(f"o-{number}", f"m-{number}", f"a-{visitor}", userId=f"u-{visitor}")


async def delivered(impact: FakeImpact, orders: int) -> None:
    """Wait until impact.com has answered so many orders, and more are under way."""
    async with asyncio.timeout(SECONDS):
        while len(impact.calls) < orders:  # noqa: ASYNC110 - kept by the stand-in
            await asyncio.sleep(0.005)


async def patient(seconds: float) -> None:
    """Sleep as the router does where seconds are few, and less where they are many."""
    await anyio.sleep(min(seconds, 1.0))


@pytest.mark.parametrize(
    ("transform", "times"),
    [
        ("processor", 2),
        ("router", 2),
        pytest.param("processor", 30, marks=[pytest.mark.campaign, pytest.mark.timeout(1800)]),
        pytest.param("router", 30, marks=[pytest.mark.campaign, pytest.mark.timeout(1800)]),
    ],
)
async def test_no_order_is_lost_while_workers_are_killed_and_replaced(
    serve: Serve, transform: Any, times: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new connection for each request, kills, then replacements under load: no panic, no loss, no wrong reply."""
    orders = [order(number) for number in range(2 * times * ORDERS)]
    async with FakeImpact(auth_token=TOKEN) as impact:
        site = await serve(IMPACT__API_URL=impact.url, IMPACT__TRACKING_URL=impact.url, LOG__LEVEL="info")
        async with StrictRudder(
            site.url, destination_config=SHOP, keep_alive=False, concurrency=100, sleep=patient
        ) as rudder:
            await rudder.wait_for_features()
            running = asyncio.create_task(rudder.run(orders, transform=transform, delivery="proxy", attempts=20))
            under_load = []
            for number in range(times):
                await delivered(impact, number * ORDERS + ORDERS // 2)
                under_load.append(not running.done())
                await site.kill_worker()
            for number in range(times):
                await delivered(impact, (times + number) * ORDERS + ORDERS // 2)
                under_load.append(not running.done())
                site.process.send(signal.SIGHUP)
                await site.until_told("worker_replaced", number + 1)
            summary: Summary = await running
        accepted = {call.form["OrderId"] for call in impact.conversions}
    with capsys.disabled():
        sys.stdout.write(f"\n{transform}: {times} kills, {times} replacements, {summary.states}\n")

    assert summary == Summary(len(orders), {"succeeded": len(orders)}, {200: len(orders)})
    assert accepted == {f"o-{number}" for number in range(len(orders))}
    assert all(under_load)


async def test_a_replacement_serves_what_the_file_says_now(serve: Serve, tmp_path: Path) -> None:
    """Settings too, which a process can read only at its start."""
    file = tmp_path / "settings.toml"
    file.write_text('[rudder]\ndestination_types = ["IMPACT"]\n', encoding="utf-8")
    site = await serve("--config", str(file))
    file.write_text('[rudder]\ndestination_types = ["IMPACT", "IMPACT_EU"]\n', encoding="utf-8")
    site.process.send(signal.SIGHUP)
    await site.until_told("worker_replaced")
    async with aiohttp.ClientSession() as http, http.get(f"{site.url}/features") as response:
        told = await response.json()

    assert told["routerTransform"] == {"IMPACT": True, "IMPACT_EU": True}


async def test_a_file_that_cannot_be_used_leaves_the_old_worker(serve: Serve, tmp_path: Path) -> None:
    """A mistake at three in the morning is a line in the log, and no outage."""
    file = tmp_path / "settings.toml"
    file.write_text("", encoding="utf-8")
    site = await serve("--config", str(file))
    before = site.worker()
    file.write_text("[server]\nprot = 1\n", encoding="utf-8")
    site.process.send(signal.SIGHUP)
    (told,) = await site.until_told("worker_not_replaced")
    async with aiohttp.ClientSession() as http, http.get(f"{site.url}/ready") as response:
        assert response.status == 200
    file.write_text("", encoding="utf-8")
    site.process.send(signal.SIGHUP)
    (replaced,) = await site.until_told("worker_replaced")

    assert (told["pid"], told["cause"]) == (before, "it ended with exit code 2; see its line above")
    assert "prot" in site.process.log
    assert replaced["old_pid"] == before


async def test_a_stop_in_the_midst_of_a_replacement_ends_both_processes(serve: Serve) -> None:
    """SIGTERM waits for no replacement: the worker is stopped, and what was to replace it is killed."""
    site = await serve()
    await spare_of(site)
    site.process.send(signal.SIGHUP)
    await asyncio.sleep(0.05)
    processes = children_of(site.process.pid)
    site.process.send(signal.SIGTERM)
    code = await asyncio.to_thread(site.process.wait)

    assert code == 0
    assert not any(map(is_running, processes))
    assert site.told("worker_not_replaced") == []


async def test_what_is_under_way_is_finished_at_the_end(serve: Serve) -> None:
    """On SIGTERM the request that waits for impact.com is answered, and the exit code is 0."""
    async with FakeImpact(auth_token=TOKEN) as impact:
        impact.script([{"delay": 1.0}])
        site = await serve(IMPACT__API_URL=impact.url, IMPACT__TRACKING_URL=impact.url)
        async with StrictRudder(site.url, destination_config=SHOP) as rudder:
            running = asyncio.create_task(rudder.run([order(1)], delivery="proxy"))
            async with asyncio.timeout(SECONDS):
                while not impact.calls:  # noqa: ASYNC110 - kept by the stand-in
                    await asyncio.sleep(0.01)
            site.process.send(signal.SIGTERM)
            summary = await running
        code = await asyncio.to_thread(site.process.wait)

    assert (summary.states, code) == ({"succeeded": 1}, 0)


async def test_workers_end_with_their_supervisor(serve: Serve, launch: Callable[..., Any]) -> None:
    """A supervisor that is killed leaves nobody behind who holds the port or the state of the next one."""
    site = await serve()
    left_behind = [site.worker(), await spare_of(site)]
    site.process.send(signal.SIGKILL)
    await asyncio.to_thread(site.process.wait)
    await site.until_told("service_stopping")
    async with asyncio.timeout(SECONDS):
        while any(map(is_running, left_behind)):  # noqa: ASYNC110 - somebody else's children
            await asyncio.sleep(0.02)
    second = launch("serve", "--workers", "1", "--port", str(site.port), "--operator-port", str(site.operator_port))
    again = Site(second, site.port, site.operator_port, site.ingest_port)
    await again.until_told("service_started")

    assert again.worker() != site.worker()


def started_in_vain(launch: Callable[..., Any], *words: str, **variables: str) -> tuple[int, str]:
    """Exit code and message of a start that cannot succeed."""
    given = {"SERVER__WORKERS": "1", "SERVER__PORT": "0", "SERVER__OPERATOR_PORT": "0", **variables}
    process = launch("serve", *words, **given)
    code = process.wait()
    return code, process.log


async def test_a_first_start_that_cannot_succeed_ends(serve: Serve, launch: Callable[..., Any], tmp_path: Path) -> None:
    """Settings, the state of another process, a port that is taken: one line and exit code 2, not a loop."""
    site = await serve()

    taken = started_in_vain(launch)
    wrong = started_in_vain(launch, SERVER__MAX_BODY_MB="0")
    port = started_in_vain(launch, "--port", str(site.port), STATE__DIR=str(tmp_path / "other"))

    assert [code for code, _ in (taken, wrong, port)] == [2, 2, 2]
    assert "another process" in taken[1]
    assert "SERVER__MAX_BODY_MB" in wrong[1]
    assert re.search(r"cannot listen on 127.0.0.1:\d+", port[1])


def test_several_workers_are_refused(launch: Callable[..., Any]) -> None:
    """One process owns the state; a line at the start says so."""
    variable, option = started_in_vain(launch, SERVER__WORKERS="2"), started_in_vain(launch, "--workers", "2")

    assert [2, 2] == [code for code, _ in (variable, option)]
    told = "must be 0 (no supervisor) or 1; one process owns the state in state.dir"
    assert f"IMPACT_PLUGIN__SERVER__WORKERS: {told}" in variable[1]
    assert f"--workers: {told}" in option[1]
