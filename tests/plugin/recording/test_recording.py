"""A recording of live traffic, replayed, decides the same and makes the same requests, but for the pseudonyms."""

import asyncio
import base64
import contextlib
import errno
import gzip
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from impact_plugin.app import Service, run_service
from impact_plugin.cli.replay import replay as replay_command
from impact_plugin.config.settings import LogSettings, load_settings, make_settings
from impact_plugin.config.sources import RoutingFile
from impact_plugin.recording import recorder as recorder_module
from impact_plugin.telemetry import configure_logging
from impact_plugin.testing.fake_impact import FakeImpact
from impact_plugin.traffic.destinations import TrafficDestinations
from impact_plugin.traffic.reading import ReadingError, Traffic, TrafficEvent
from impact_plugin.traffic.replay import ReplayedEvent, ReplayRun, requests_of

Start = Callable[..., Awaitable[Service]]
Item = Callable[..., dict[str, Any]]

PERSONAL = {"CustomProfileId", "CustomerId", "IpAddress"}


async def recorded(
    http: aiohttp.ClientSession, service: Service, file: Path, drive: Callable[[], Awaitable[None]]
) -> None:
    """Record while something happens."""
    async with http.get(f"{service.operator_url}/record?seconds=600") as response:
        assert response.status == 200
        beginning = await response.content.readany()
        await drive()
        pieces = [beginning]
        # Everything that was taken is written within a second; the rest is cut off, as by Ctrl-C.
        try:
            async with asyncio.timeout(1.5):
                while piece := await response.content.readany():
                    pieces.append(piece)
        except TimeoutError:
            response.close()
    file.write_bytes(b"".join(pieces))


def replayed(file: Path) -> list[ReplayedEvent]:
    """The events of a recording through sessions of their own."""
    run = ReplayRun(TrafficDestinations({}), raise_fault)
    requests = requests_of(Traffic([file]), [run.destinations])
    return [one for first, events in requests for one in run.feed(first, events)]


def raise_fault(error: Exception) -> None:
    """Fail by the defect that was reported."""
    raise error


def journey(visitor: str, number: int) -> list[dict[str, Any]]:
    """A landing, the same again, a page, an order, an order that cannot be sent, and something unreadable."""
    base = {"anonymousId": f"{visitor}@shop.example", "userId": visitor, "context": {"ip": "14.5.67.21"}}
    landing = {"url": f"https://shop.example/?irclickid=c-{number}", "email": "ada@shop.example"}
    order = {"order_id": f"o-{number}", "total": 10 + number, "currency": "EUR"}

    def event(kind: str, name: str, minute: int, properties: dict[str, Any], **more: Any) -> dict[str, Any]:
        at = f"2026-09-10T10:{minute:02}:00.000Z"
        return {
            "type": kind,
            "messageId": f"{visitor}-{name}",
            "timestamp": at,
            "properties": properties,
            **base,
            **more,
        }

    return [
        event("page", "1", 0, landing),
        event("page", "2", 1, landing),
        event("page", "3", 2, {"url": "https://shop.example/cart"}),
        event("track", "4", 3, order, event="Order Completed"),
        event("track", "5", 4, {"total": 5}, event="Order Completed"),
    ]


async def test_the_same_decisions_and_the_same_requests(
    http: aiohttp.ClientSession, service: Service, item: Item, tmp_path: Path
) -> None:
    """Over both of the router's ways, with concurrent requests."""
    live: dict[str, Any] = {}

    async def drive() -> None:
        for number in range(20):
            events = journey(f"visitor-{number}", number)
            body = [item(event, place) for place, event in enumerate(events, 1)]
            if number % 2:
                async with http.post(f"{service.url}/v0/destinations/impact", json=body) as response:
                    entries = await response.json()
                requests = [entry.get("output") for entry in entries]
            else:
                asked = {"input": body, "destType": "impact"}
                async with http.post(f"{service.url}/routerTransform", json=asked) as response:
                    entries = (await response.json())["output"]
                entries.sort(key=lambda entry: entry["metadata"][0]["jobId"])
                requests = [entry.get("batchedRequest") for entry in entries]
            for event, entry, request in zip(events, entries, requests, strict=True):
                live[event["messageId"]] = (entry["statusCode"], request)

    file = tmp_path / "recording.ndjson.gz"
    await recorded(http, service, file, drive)
    ended = replayed(file)

    assert len(ended) == len(live) == 100
    for one in ended:
        event = one.prepared.event
        assert event is not None
        status, request = live[str(event.message_id)]  # type: ignore[union-attr]
        form = getattr(getattr(one.outcome, "request", None), "form", None)
        assert (form is not None) == (status == 200)
        if form is not None:
            kept = {name: value for name, value in request["body"]["FORM"].items() if name not in PERSONAL}
            assert one.label == request["endpointPath"]
            assert {name: value for name, value in form.items() if name not in PERSONAL} == kept
            assert form.keys() == request["body"]["FORM"].keys()
    labels = [one.label for one in ended]
    assert {label: labels.count(label) for label in set(labels)} == {
        "clicks": 20,
        "pageload": 40,
        "conversions": 20,
        "rejected missing_order_id": 20,
    }


async def test_nobody_stands_in_a_recording(
    http: aiohttp.ClientSession, service: Service, item: Item, tmp_path: Path
) -> None:
    """No address, no identifier, no token, also of what cannot be read."""
    spoilt = b'[{"message":"ada@shop.example","metadata":{"jobId":1},"destination":{"ID":"d","Config":{}}}]'

    async def drive() -> None:
        body = [item(event) for event in journey("visitor-1", 1)]
        async with http.post(f"{service.url}/v0/destinations/impact", json=body) as response:
            await response.read()
        async with http.post(f"{service.url}/v0/destinations/impact", data=spoilt) as response:
            await response.read()

    file = tmp_path / "recording.ndjson.gz"
    await recorded(http, service, file, drive)
    text = b"".join(piece for piece in _unpacked(file))

    for told in (b"ada@", b"visitor-1@", b'"visitor-1"', b"14.5.67.21", b"test-token-secret"):
        assert told not in text
    assert b"irclickid=c-1" in text
    assert b'"apiKey":"concealed"' in text


def _unpacked(file: Path) -> list[bytes]:
    lines: list[bytes] = []
    with gzip.open(file) as stream, contextlib.suppress(EOFError):
        lines += stream
    return lines


async def test_events_of_senders_are_recorded_too(
    http: aiohttp.ClientSession, impact: FakeImpact, tmp_path: Path
) -> None:
    """With the configuration of their destination, and the source's name."""
    config = tmp_path / "impact.toml"
    config.write_text(
        f"""
[server]
port = 0
operator_port = 0
ingest_port = 0
[impact]
tracking_url = "{impact.url}"
api_url = "{impact.url}"
[state]
dir = "{tmp_path / "var"}"
[sources.shop]
keys = ["a-key-of-sixteen-letters"]
[destinations.eu]
accountSID = "IRtest"
apiKey = "test-token-secret"
campaignId = "23224"
eventTypes = {{ "Signed Up" = {{ code = "SIGNUP", kind = "lead" }} }}
""",
        encoding="utf-8",
    )
    file = tmp_path / "recording.ndjson.gz"
    async with run_service(load_settings(config, {}), {}, routing=RoutingFile(config, {})) as service:

        async def drive() -> None:
            for event in [*journey("v", 1), {"type": "track", "event": "Signed Up", "anonymousId": "v"}]:
                headers = {"Authorization": "Basic " + base64.b64encode(b"a-key-of-sixteen-letters:").decode()}
                url = f"{service.ingest_url}/v1/batch"
                async with http.post(url, json={"batch": [event]}, headers=headers) as response:
                    assert response.status == 200

        await recorded(http, service, file, drive)
    ended = replayed(file)
    ways = {one.via for one in Traffic([file]) if isinstance(one, TrafficEvent)}

    assert ways == {"shop"}
    assert [one.label for one in ended] == [
        "clicks",
        "pageload",
        "pageload",
        "conversions",
        "rejected missing_order_id",
        "conversions",
    ]
    assert b"test-token-secret" not in b"".join(_unpacked(file))


async def test_a_recording_ends_by_itself(http: aiohttp.ClientSession, service: Service) -> None:
    """When its time is up, with a line that says so."""
    async with http.get(f"{service.operator_url}/record?seconds=0.2&mb=1") as response:
        lines = gzip.decompress(await response.read()).splitlines()

    assert msgspec.json.decode(lines[0])["line"] == "recording"
    assert msgspec.json.decode(lines[-1]) == {"line": "end", "events": 0, "left_out": 0, "cause": "time"}


async def test_a_recording_does_not_get_larger_than_it_may(
    http: aiohttp.ClientSession, start: Start, item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends early, and says why."""
    monkeypatch.setattr("impact_plugin.http.recording.MIB", 1000)
    service = await start()
    async with http.get(f"{service.operator_url}/record?seconds=60&mb=1") as response:
        await response.content.readany()
        for number in range(5):
            body = [item(event) for event in journey(f"visitor-{number}", number)] * 20
            async with http.post(f"{service.url}/v0/destinations/impact", json=body) as answer:
                await answer.read()
        rest = await response.read()

    value = service.telemetry.metrics.registry.get_sample_value
    assert len(rest) < 20_000
    assert value("impact_plugin_recording") == 0


async def test_what_comes_too_fast_is_left_out_and_counted(
    http: aiohttp.ClientSession, start: Start, item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The router does not wait for whoever records."""
    monkeypatch.setattr(recorder_module, "PENDING", 10)
    service = await start()
    async with http.get(f"{service.operator_url}/record?seconds=1.5") as response:
        await response.content.readany()
        body = [item(event) for event in journey("visitor", 1)] * 20
        async with http.post(f"{service.url}/v0/destinations/impact", json=body) as answer:
            assert answer.status == 200
        await response.read()

    value = service.telemetry.metrics.registry.get_sample_value
    assert value("impact_plugin_recording_left_out_total") == 90


@pytest.mark.parametrize("query", ["seconds=x", "seconds=0", "seconds=1e9", "mb=0", "mb=99999999", "mb=x"])
async def test_a_recording_without_end_is_refused(http: aiohttp.ClientSession, service: Service, query: str) -> None:
    """400, and what may be asked for."""
    async with http.get(f"{service.operator_url}/record?{query}") as response:
        told = await response.json()

    assert response.status == 400
    assert "seconds" in told["error"]


async def test_recordings_are_few(http: aiohttp.ClientSession, service: Service) -> None:
    """Each costs time for every event: the fifth is asked to wait."""
    running = [await http.get(f"{service.operator_url}/record") for _ in range(4)]
    async with http.get(f"{service.operator_url}/record") as response:
        assert response.status == 429
    for one in running:
        one.close()


async def test_asking_for_the_headers_records_nothing(http: aiohttp.ClientSession, service: Service) -> None:
    """HEAD is refused: nobody would get what is recorded, and one of the few would be taken."""
    async with http.head(f"{service.operator_url}/record") as response:
        assert response.status == 405


async def test_a_setting_records_from_the_start_on(start: Start, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """Into a folder, readable for its owner only; a stop ends it with a line."""
    folder = tmp_path / "recordings"
    settings = {"dir": str(folder), "minutes": 0.01, "max_mb": 1}
    service = await start(record=settings)
    for _ in range(200):
        if service.telemetry.metrics.registry.get_sample_value("impact_plugin_recording") == 0 and any(
            one.stat().st_size for one in folder.iterdir()
        ):
            break
        await asyncio.sleep(0.02)
    (file,) = folder.iterdir()

    assert file.stat().st_mode & 0o777 == 0o600
    assert b'"cause":"time"' in gzip.decompress(file.read_bytes())


def lines_of(capsys: pytest.CaptureFixture[str], event: str) -> list[dict[str, Any]]:
    """The lines of the log about an event."""
    lines = [msgspec.json.decode(line) for line in capsys.readouterr().err.splitlines()]
    # A service that stops after this has no open file to write to.
    configure_logging(LogSettings(level="error"))
    return [line for line in lines if line["event"] == event]


async def until(service: Service, *, recordings: int) -> None:
    """Wait until so many recordings are in progress."""
    value = service.telemetry.metrics.registry.get_sample_value
    async with asyncio.timeout(30):
        while value("impact_plugin_recording") != recordings:  # noqa: ASYNC110 - a metric offers no event to wait for
            await asyncio.sleep(0.01)


async def test_a_full_disk_ends_the_recording_and_is_no_defect(
    start: Start,
    http: aiohttp.ClientSession,
    item: Item,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The log says why, nothing counts as a fault, and the service goes on."""

    def full(_opened: int, _piece: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("impact_plugin.http.recording._write_all", full)
    configure_logging(LogSettings())
    service = await start(record={"dir": str(tmp_path / "recordings")})
    async with http.post(f"{service.url}/v0/destinations/impact", json=[item(journey("v", 1)[0])]) as response:
        assert response.status == 200
    await until(service, recordings=0)
    value = service.telemetry.metrics.registry.get_sample_value
    (line,) = lines_of(capsys, "recording_ended")

    assert line["cause"] == "it cannot be written: No space left on device"
    assert value("impact_plugin_faults_total", {"where": "request"}) is None


async def test_a_client_that_hangs_up_ends_the_recording(
    http: aiohttp.ClientSession, service: Service, item: Item, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log has the bytes that were made until then, and how many events were left out."""
    configure_logging(LogSettings())
    async with http.get(f"{service.operator_url}/record?seconds=600") as response:
        beginning = await response.content.readany()
        response.close()
    await until(service, recordings=0)
    (line,) = lines_of(capsys, "recording_ended")

    assert (line["cause"], line["left_out"]) == ("the client hung up", 0)
    assert line["bytes"] >= len(beginning)


async def test_what_was_received_before_a_stop_is_written(
    http: aiohttp.ClientSession, item: Item, tmp_path: Path
) -> None:
    """And the last line says that the service stopped."""
    folder = tmp_path / "recordings"
    tree = {"server": {"port": 0, "operator_port": 0}, "state": {"dir": str(tmp_path)}, "record": {"dir": str(folder)}}
    async with run_service(make_settings(tree), {}) as service:
        await until(service, recordings=1)
        async with http.post(f"{service.url}/v0/destinations/impact", json=[item(journey("v", 1)[0])]) as response:
            await response.read()
    (file,) = folder.iterdir()
    lines = gzip.decompress(file.read_bytes()).splitlines()

    assert [msgspec.json.decode(line)["line"] for line in lines] == ["recording", "destination", "event", "end"]
    assert msgspec.json.decode(lines[-1])["cause"] == "the service stops"


def test_what_is_no_recording_is_told(tmp_path: Path) -> None:
    """By the line."""
    file = tmp_path / "r.ndjson"
    file.write_text('{"line":"recording","version":1,"at":"x","plugin":"1"}\n{"line":"what"}\n', encoding="utf-8")

    with pytest.raises(ReadingError, match="line 2 does not belong to a recording"):
        list(Traffic([file]))
    with pytest.raises(ReadingError, match="cannot be read"):
        replay_command(tmp_path / "none", quiet=True)
