"""``impact-plugin load``: an open schedule, latency from the intended start, errors by kind, and the limit."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from impact_plugin.__main__ import app
from impact_plugin.app import Service
from impact_plugin.cli.errors import CommandError
from impact_plugin.testing.fake_impact import FakeImpact
from impact_plugin.traffic import loading
from impact_plugin.traffic.client import HttpReply, request_bytes
from impact_plugin.traffic.driver import Driver, Histogram, LoadOutcome, LoadStep, Second
from impact_plugin.traffic.shapes import Shape, marked, shape_all, shifted
from tests.plugin.traffic.scripted_server import Server

pytestmark = pytest.mark.slow

DAY = Path(__file__).parents[3] / "tools" / "day.ndjson.gz"
HELLO = request_bytes("POST", "a", "/", {}, b"hello")
JUST = 0.5
"""Seconds of a short run."""


@pytest.fixture(name="driver")
async def driver_fixture(server: Server) -> AsyncIterator[Driver]:
    """Lend a driver that says hello."""
    driver = Driver("127.0.0.1", server.port, repeat(HELLO), connections=20, timeout=10.0)
    yield driver
    await driver.aclose()


@pytest.mark.serial
async def test_requests_come_when_the_schedule_says(server: Server, driver: Driver) -> None:
    """So many as its steps mean, and all of them answered."""
    outcome = await driver.run([LoadStep(100, 100, JUST), LoadStep(100, 300, JUST)])

    assert outcome.intended == sum(server.paths.values())
    assert 140 <= outcome.intended <= 155
    assert outcome.kinds == {"200": outcome.intended}
    assert outcome.good == outcome.latencies.total == outcome.intended
    assert sum(second.succeeded for second in outcome.timeline) == outcome.good


@pytest.mark.serial
async def test_a_service_that_stalls_shows_in_the_latencies(server: Server, driver: Driver) -> None:
    """A pause of the server is seen by every request that was due in it, not by those that happened to be under way."""
    stalled = asyncio.get_running_loop().time() + 0.3

    async def stall(_request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(max(0.0, stalled - asyncio.get_running_loop().time()))
        return web.Response(body=b"ok")

    server.reply = stall
    outcome = await driver.run([LoadStep(200, 200, JUST)])

    # With twenty connections a closed loop would have seen twenty slow requests of some thousand.
    assert outcome.latencies.percentile(50) > 0.02
    assert outcome.latencies.percentile(99) > 0.2


async def test_trouble_is_counted_by_its_kind(server: Server) -> None:
    """Statuses, resets, hang-ups, silence: each under its name, and none of them ends the run."""
    driver = Driver("127.0.0.1", server.port, repeat(HELLO), connections=20, timeout=1.0)
    never = asyncio.Event()
    number = 0

    async def reply(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal number
        number += 1
        if number % 4 == 1:
            return web.Response(status=503)
        if number % 4 == 2 and request.transport is not None:
            request.transport.abort()
        if number % 4 == 3:
            await never.wait()
        return web.Response(body=b"ok")

    server.reply = reply
    outcome = await driver.run([LoadStep(40, 40, JUST)])
    never.set()
    await driver.aclose()

    assert sum(outcome.kinds.values()) == outcome.intended
    assert set(outcome.kinds) == {"200", "503", "closed", "timeout"} or set(outcome.kinds) == {
        "200",
        "503",
        "reset",
        "closed",
        "timeout",
    }
    assert 0 < outcome.share_failed < 1
    assert {kind: histogram.total for kind, histogram in outcome.by_kind.items()} == outcome.kinds
    assert outcome.latencies.total == outcome.kinds["200"]
    # A refusal comes at once, and silence ends when patience does.
    late = loading.as_object(outcome, 1)["latency_ms_by_reply"]
    assert late["503"]["p50"] < late["timeout"]["p50"]
    assert {row[0] for row in loading.reply_rows(outcome)} == set(outcome.kinds)
    assert "p99 ms" in loading.report("Load", "", outcome, 1)


async def test_nobody_there_is_told(free_port: Callable[[], int]) -> None:
    """A closed port is refused connections, counted, and the run ends."""
    driver = Driver("127.0.0.1", free_port(), repeat(HELLO), connections=4, timeout=1.0)
    outcome = await driver.run([LoadStep(50, 50, 0.2)])

    assert set(outcome.kinds) == {"refused"}
    assert outcome.good == 0


@pytest.fixture(name="silent")
async def silent_fixture(server: Server) -> AsyncIterator[Server]:
    """Lend the server, which takes requests and never answers."""
    never = asyncio.Event()

    async def reply(_request: web.BaseRequest) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    server.reply = reply
    yield server
    never.set()


async def test_too_few_connections_are_told(silent: Server) -> None:
    """Requests that find none in time are counted as such, not forgotten."""
    driver = Driver("127.0.0.1", silent.port, repeat(HELLO), connections=2, timeout=0.3)
    outcome = await driver.run([LoadStep(100, 100, 0.2)])
    await driver.aclose()

    assert outcome.kinds["no connection in time"] + outcome.kinds["timeout"] == outcome.intended
    assert outcome.unsent == outcome.kinds["no connection in time"] > 0


@pytest.mark.parametrize("chunked", [True, False])
async def test_answers_with_a_length_and_in_chunks(server: Server, driver: Driver, chunked: bool) -> None:
    """Both are read to their end, also large ones in many pieces."""

    async def reply(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        if chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = 300_000
        await response.prepare(request)
        for _ in range(30):
            await response.write(b"x" * 10_000)
        await response.write_eof()
        return response

    server.reply = reply
    outcome = await driver.run_closed(50, 5)

    assert outcome.kinds == {"200": 50}


async def test_a_closed_loop_sends_so_many(server: Server, driver: Driver) -> None:
    """Each connection its next one when it has the answer."""
    outcome = await driver.run_closed(500, 7)

    assert outcome.intended == outcome.good == sum(server.paths.values()) == 500


async def test_a_closed_loop_ends_although_nobody_answers(silent: Server) -> None:
    """Each request is given up after its time, as on a schedule."""
    driver = Driver("127.0.0.1", silent.port, repeat(HELLO), connections=2, timeout=0.3)
    outcome = await asyncio.wait_for(driver.run_closed(4, 2), 60)
    await driver.aclose()

    assert outcome.kinds == {"timeout": 4}


def test_percentiles_are_those_of_the_values() -> None:
    """To ten microseconds."""
    histogram = Histogram()
    for number in range(1, 101):
        histogram.add(number / 1000)

    assert histogram.percentile(50) == pytest.approx(0.05, abs=2e-5)
    assert histogram.percentile(99) == pytest.approx(0.099, abs=2e-5)
    assert Histogram().percentile(99) == 0


def test_every_pass_has_ids_of_its_own(page: dict[str, Any], order: dict[str, Any]) -> None:
    """The same traffic again must not look like retries, nor the same orders like repeats; lengths stay."""
    shape = Shape("segment", "a", {}, 2, "key-of-the-source")
    (shaped,) = shape_all([marked(one, place) for place, one in enumerate((page, order))], shape)
    first, second = shaped.of_pass(0), shaped.of_pass(12)
    bodies = [msgspec.json.decode(one.partition(b"\r\n\r\n")[2])["batch"] for one in (first, second)]

    assert len(first) == len(second)
    for before, after in zip(*bodies, strict=True):
        assert before["messageId"] != after["messageId"]
        assert before["anonymousId"] != after["anonymousId"]
    assert bodies[0][1]["properties"]["order_id"] == "o-1~00000~"
    assert bodies[1][1]["properties"]["order_id"] == "o-1~00012~"


def test_times_move_to_the_present_together() -> None:
    """The latest is now, and between two events it takes as long as it took."""
    now = datetime(2026, 11, 26, 12, tzinfo=UTC)
    events: list[dict[str, Any]] = [
        {"timestamp": "2026-09-10T10:00:00.000Z", "sentAt": "2026-09-10T10:00:01.000Z"},
        {"timestamp": "2026-09-10T11:30:00.000Z", "sentAt": "never"},
        {"timestamp": 5},
    ]

    assert shifted(events, now) == [
        {"timestamp": "2026-11-26T10:30:00.000Z", "sentAt": "2026-11-26T10:30:01.000Z"},
        {"timestamp": "2026-11-26T12:00:00.000Z", "sentAt": "never"},
        {"timestamp": 5},
    ]
    assert shifted([{"a": 1}], now) == [{"a": 1}]


def test_an_answer_without_its_version_is_no_success() -> None:
    """rudder-server would panic, whatever the status."""
    assert loading.judge_transformer(HttpReply(200, "", b"http/1.1 200 ok\r\napiversion: 2")) == "200"
    assert loading.judge_transformer(HttpReply(200, "", b"http/1.1 200 ok")) == "no apiVersion"
    assert loading.judge_transformer(HttpReply(503)) == "503"
    assert loading.judge_transformer(HttpReply(0, "reset")) == "reset"


@pytest.mark.serial
async def test_the_limit_is_found(server: Server) -> None:
    """A server that answers at most so many a second, one after the other."""
    gate = asyncio.Lock()

    async def slow(_request: web.BaseRequest) -> web.StreamResponse:
        async with gate:
            await asyncio.sleep(0.008)
        return web.Response(body=b"ok")

    server.reply = slow
    driver = Driver("127.0.0.1", server.port, repeat(HELLO), connections=50, timeout=2.0)
    tries = await loading.find_limit(driver, 20, 0.6, 0.1, lambda _: None)
    await driver.aclose()

    assert 30 < loading.limit_of(tries) < 126
    assert not max(tries, key=lambda one: one.rate).kept_up


async def run(*words: str) -> int:
    """Call the command in this process."""
    code = await app.run_async(["load", *words], result_action="return_value")
    assert isinstance(code, int)
    return code


@pytest.mark.parametrize("via", ["processor", "router", "proxy"])
async def test_a_running_service_is_driven(
    start: Callable[..., Awaitable[Service]],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    via: str,
) -> None:
    """By the router's ways, with the recorded day; the result as an object, and as a report that stands alone."""
    async with FakeImpact(auth_token="demo-token") as impact:
        service = await start(impact={"tracking_url": impact.url, "api_url": impact.url})
        page = tmp_path / "report.html"
        words = ["--url", service.url, "--via", via, "--rate", "20", "--duration", "1", "--max-events", "300"]
        code = await run(str(DAY), *words, "--json", "--html", str(page))
        told = json.loads(capsys.readouterr().out)
        arrived = len(impact.calls)

    assert code == 0, told
    assert told["succeeded"] == told["intended"] == told["replies"]["200"]
    assert (arrived > 0) == (via == "proxy")
    assert told["latency_ms"]["p50"] > 0
    assert 0 < told["own_core_share"]
    html = page.read_text(encoding="utf-8")
    assert html.count('class="bars"') == 2
    assert "http://" not in html.replace(service.url, "")


def test_the_report_of_a_run_shows_its_seconds_and_what_failed() -> None:
    """Rates and latencies by the second; what was not answered well has the colour of trouble."""
    outcome = LoadOutcome(seconds=2.0, intended=5)
    outcome.by_kind = {"200": Histogram(), "503": Histogram()}
    for kind, taken in (("200", 0.01), ("200", 0.02), ("200", 0.03), ("503", 0.5), ("503", 0.7)):
        outcome.by_kind[kind].add(taken)
    outcome.timeline = [Second(3, 3, 0, outcome.latencies), Second(2, 0, 2)]
    html = loading.report("Load", "told", outcome, 100)

    assert html.count('class="chart"') == 2
    assert "intended up to 3, succeeded up to 3, failed up to 2" in html
    assert "p50 up to 20 ms, p99 up to 30 ms" in html
    assert '<i class="c4"' in html
    assert "<b>40.00%</b><span>failed</span>" in html
    assert loading.reply_rows(outcome)[1] == ("503", "2", "500.0", "700.0", "700.0", "700.0")


def test_the_report_of_a_run_without_a_good_answer_tells_no_latency() -> None:
    """A latency of 0 would be the best there is."""
    outcome = LoadOutcome(seconds=2.0, intended=5, timeline=[Second(3, 0, 3), Second(2, 0, 2)])
    outcome.by_kind = {"refused": Histogram()}
    for _ in range(5):
        outcome.by_kind["refused"].add(0.001)
    html = loading.report("Load", "told", outcome, 1)

    assert html.count('class="chart"') == 1
    assert "Latency" not in html
    assert "<span>p50</span>" not in html
    assert "refused" in html


async def test_it_says_what_it_needs(tmp_path: Path) -> None:
    """Files, a key, a source, an address of this machine, rates that are rates."""
    day = str(DAY)
    empty = tmp_path / "empty.json"
    empty.write_text("[]", encoding="utf-8")
    for words, told in (
        ([], "at least one file"),
        ([day, "--via", "segment"], "--key: required"),
        ([day, "--via", "webhook", "--key", "k"], "--source: required"),
        ([day, "--url", "http://192.0.2.1:9090"], "is not this machine; .* --anywhere"),
        ([day, "--url", "http://no-such-host.invalid"], "is not found"),
        ([day, "--url", "https://127.0.0.1"], "must be http://HOST:PORT"),
        ([day, "--rate", "fast"], "must be RATE"),
        ([day, "--rate", "0"], "a rate must be above 0"),
        ([day, "--rate", "5:0:"], "must be RATE"),
    ):
        with pytest.raises(CommandError, match=told):
            await run(*words)
    with pytest.raises(loading.LoadError, match="FILES: hold no events"):
        await run(str(empty))
    with pytest.raises(loading.LoadError, match=r"no service at 127.0.0.1:9 \(refused\)"):
        await run(day, "--via", "proxy", "--url", "http://127.0.0.1:9")


async def test_failures_are_the_exit_code(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """1, and the kinds tell which; a stranger's port is no service of ours."""

    async def strange(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"hello")

    server.reply = strange
    words = ["--url", f"http://127.0.0.1:{server.port}", "--requests", "20", "--max-events", "50"]

    assert await run(str(DAY), *words) == 1
    assert "no apiVersion\t20" in capsys.readouterr().out


async def test_senders_ways_go_where_they_should(server: Server) -> None:
    """The Segment HTTP API in batches, a webhook in arrays."""
    words = ["--url", f"http://127.0.0.1:{server.port}", "--requests", "5", "--max-events", "20", "--quiet"]

    assert await run(str(DAY), *words, "--via", "segment", "--key", "k", "--batch", "4") == 0
    assert await run(str(DAY), *words, "--via", "webhook", "--key", "k", "--source", "shop") == 0
    assert server.paths == {"/v1/batch": 5, "/webhook/shop": 5}
    assert len(msgspec.json.decode(server.bodies[0])["batch"]) == 4
