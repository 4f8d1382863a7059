"""``explain`` and ``replay`` say the same about the same file: outcomes, decisions and click ids, event by event."""

import gzip
import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from impact_plugin.__main__ import app
from impact_plugin.config.destinations import Destinations, KnownDestination
from impact_plugin.config.sources import load_routing
from impact_plugin.traffic.destinations import TrafficDestinations
from impact_plugin.traffic.reading import Traffic
from impact_plugin.traffic.replay import ReplayedEvent, ReplayRun, requests_of
from impact_transformers import Send
from tests.builders import CONFIG

pytestmark = pytest.mark.slow

DAY: Final = Path(__file__).parents[3] / "tools" / "day.ndjson.gz"
WIDE: Final = {**CONFIG, "rudderToImpactProperty": [{"from": "properties.shelf", "to": "Text1"}]}

Row = tuple[int, str, str, Any, str | None, str | None]
"""An event's number, destination, outcome, form or detail, decision, and remembered click id."""


def explained(capsys: pytest.CaptureFixture[str], file: Path, destination: Path | None) -> list[Row]:
    """What the command ``explain`` shows."""
    options = [] if destination is None else ["-d", str(destination)]
    app(["explain", str(file), "--json", *options], result_action="return_value")
    return [_explained_row(json.loads(line)) for line in capsys.readouterr().out.splitlines()]


def _explained_row(shown: dict[str, Any]) -> Row:
    visit = shown["visit"]
    where = shown["event"], shown["destination"]
    if "form" in shown:
        return *where, shown["endpoint_path"], shown["form"], visit["decision"], visit["click_id"]
    return *where, f"{shown['outcome']} {shown['reason']}", shown["detail"], visit["decision"], visit["click_id"]


def replayed(file: Path, destination: Path | None) -> list[Row]:
    """What the command ``replay`` counts."""
    faults: list[Exception] = []
    run = ReplayRun(TrafficDestinations({}, given(destination)), faults.append)
    requests = requests_of(Traffic([file]), [run.destinations])
    rows = [_replayed_row(one) for first, events in requests for one in run.feed(first, events)]
    assert not faults
    return rows


def given(file: Path | None) -> list[KnownDestination]:
    """The destinations of a configuration, or of the service's file."""
    if file is None:
        return []
    if file.suffix == ".toml":
        return [*load_routing(file, {}).destinations.values()]
    return [Destinations({}).of_config(file.stem, msgspec.json.decode(file.read_bytes()))]


def _replayed_row(one: ReplayedEvent) -> Row:
    outcome, visit = one.outcome, one.visit
    shown: Any = outcome.request.form if isinstance(outcome, Send) else outcome.detail
    decision = None if visit.decision is None else str(visit.decision)
    return one.number, one.prepared.known.id, one.label, shown, decision, visit.click_id


def visitor(name: str, minute: int, click_id: str = "") -> list[dict[str, Any]]:
    """A landing, the same again, the landing's message once more, a page, and an order."""
    base = {"anonymousId": name, "context": {"ip": "14.5.67.21"}}

    def event(kind: str, after: int, properties: dict[str, Any], **more: Any) -> dict[str, Any]:
        at = f"2026-09-10T10:{minute + after:02}:00.000Z"
        named = {"type": kind, "messageId": f"{name}-{after}", "timestamp": at, "properties": properties}
        return {**named, **base, **more}

    landing = {"url": f"https://shop.example.com/?irclickid={click_id or name}"}
    first = event("page", 0, landing)
    order = {"order_id": f"o-{name}", "total": 5, "currency": "EUR", "shelf": "A7"}
    return [
        first,
        event("page", 1, landing),
        first,
        event("page", 2, {"url": "https://shop.example.com/cart"}),
        event("track", 3, order, event="Order Completed"),
    ]


def odd() -> list[Any]:
    """Events that need a second look: of no type, filtered, refused, of a strange shape, and none at all."""
    return [
        {"type": "PAGE", "messageId": "odd-1", "anonymousId": "v", "context": "none"},
        {"type": "group"},
        {"type": "page"},
        {},
        7,
        "text",
        {"type": "track", "event": "Order Completed", "messageId": "odd-2", "anonymousId": "v", "properties": {}},
    ]


def lines(events: list[Any]) -> bytes:
    """One event a line."""
    return b"\n".join(map(msgspec.json.encode, events)) + b"\n"


def recording(requests: list[list[Any]], config: dict[str, Any]) -> bytes:
    """As the service records: its destination, and events with the requests they came in."""
    written: list[dict[str, Any]] = [
        {"line": "recording", "version": 1, "at": "2026-09-10T10:00:00", "plugin": "0.1.0"},
        {"line": "destination", "id": "eu", "config": config},
        {"line": "destination", "id": "us", "config": {**config, "campaignId": "99"}},
    ]
    for number, events in enumerate(requests, 1):
        at = 1_789_034_400_000 + number * 1000
        written += [
            {"line": "event", "at": at, "via": "processor", "request": number, "to": ["eu", "us"], "event": event}
            for event in events
        ]
    return lines([*written, {"line": "end", "events": 1, "left_out": 0, "cause": "time"}])


def files() -> dict[str, bytes]:
    """A file of every kind, each with clicks, repeats, repetitions, orders and odd things in it."""
    events = [*visitor("a", 0), *odd(), *visitor("b", 10, "shared"), *visitor("c", 20, "shared")]
    encode = msgspec.json.encode
    known = {"ID": "d-1", "Config": CONFIG}
    routed: list[Any] = [{"message": one, "metadata": {"jobId": 1, "destinationId": "d-1"}} for one in events]
    with_destination = [{**one, "destination": known} for one in routed]
    landing, *_, order = visitor("d", 0)
    return {
        "lines": lines(events),
        "lines with blanks": b"\r\n\n" + lines(events).replace(b"\n", b"\r\n\n") + b"\r\n",
        "a line that is no JSON": lines(events) + b"not json\n" + lines(visitor("e", 0)),
        "array": encode(events),
        "pretty array": json.dumps(events, indent=2).encode(),
        "one object over several lines": json.dumps(order, indent=2).encode(),
        "segment batches": lines([{"batch": events[:7], "writeKey": "w"}, {"batch": events[7:]}]),
        "gateway dump": lines([{"job_id": 1, "event_payload": {"batch": events}}]),
        "gateway dump, payload as text": lines([{"event_payload": encode({"batch": events}).decode()}]),
        "processor body": encode(with_destination),
        "processor body compacted": encode({"input": routed, "destinations": {"d-1": known}}),
        "router body": encode({"input": with_destination, "destType": "impact"}),
        "bodies in lines": lines([{"input": [one]} for one in with_destination]),
        "body of a wrong destination": encode([{**one, "destination": {"ID": "d", "Config": {}}} for one in routed]),
        "body of a destination without configuration": encode([{**one, "destination": {"ID": "d"}} for one in routed]),
        "body whose destination is not in it": encode({"input": routed, "destinations": {"d-2": known}}),
        "recording": recording([events[:9], events[9:]], CONFIG),
        "recording, order before its landing": recording([[order, landing], [landing]], CONFIG),
        "recording that is read whole": recording([events[:9], events[9:]], WIDE),
        "two gzips": gzip.compress(lines(events[:9])) + gzip.compress(lines(events[9:])),
    }


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", files())
def test_a_file_of_every_kind(capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str, packed: bool) -> None:
    """With the destinations it brings, or the demonstration account."""
    content = files()[kind]
    file = tmp_path / "events"
    file.write_bytes(gzip.compress(content) if packed and not content.startswith(b"\x1f\x8b") else content)
    rows = replayed(file, None)

    assert rows
    assert rows == explained(capsys, file, None)


@pytest.mark.parametrize("config", [CONFIG, WIDE, {**CONFIG, "repeatedClicks": "drop"}])
@pytest.mark.parametrize("kind", ["lines", "router body", "recording"])
def test_a_file_for_a_destination(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str, config: dict[str, Any]
) -> None:
    """With a destination that wins over what the file brings."""
    file, destination = tmp_path / "events", tmp_path / "shop.json"
    file.write_bytes(files()[kind])
    destination.write_bytes(msgspec.json.encode(config))
    rows = replayed(file, destination)

    assert {"shop"} == {row[1] for row in rows}
    assert rows == explained(capsys, file, destination)


def test_a_file_for_the_services_destinations(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Each event goes to each of them, and is shown for each."""
    file, service = tmp_path / "events", tmp_path / "impact.toml"
    file.write_bytes(lines(visitor("a", 0)))
    service.write_text(
        "".join(
            f'[destinations.{name}]\naccountSID = "IRtest"\napiKey = "t"\ncampaignId = "{number}"\n'
            for number, name in enumerate(("eu", "us"), 1)
        ),
        encoding="utf-8",
    )
    rows = replayed(file, service)

    assert ["eu", "us"] * 5 == [row[1] for row in rows]
    assert rows == explained(capsys, file, service)


def test_the_recorded_day(capsys: pytest.CaptureFixture[str]) -> None:
    """All of its 3,724 events, among them clicks, repeats, orders that are stitched, and what is rejected."""
    rows = replayed(DAY, None)

    assert 3724 == len(rows)
    assert {"new": 181, "repeat": 98} == {
        decision: sum(row[4] == decision for row in rows) for decision in ("new", "repeat")
    }
    assert 76 == sum(row[2] == "conversions" and row[5] is not None for row in rows)
    assert rows == explained(capsys, DAY, None)


def test_what_is_forgotten_meanwhile(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Months in one file: a message that comes again after weeks is a new click in both."""
    first = date(2026, 1, 1)
    landings = [
        {
            "type": "page", "messageId": f"m-{number % 9000}", "anonymousId": f"v-{number % 9000}",
            "timestamp": f"{first + timedelta(days=number // 300)}T10:00:00Z",
            "properties": {"url": f"https://shop.example.com/?irclickid=c-{number % 9000}"},
        }
        for number in range(12_000)
    ]  # fmt: skip
    file = tmp_path / "months.ndjson"
    file.write_bytes(lines(landings))
    rows = replayed(file, None)
    app(["replay", str(file), "--json"], result_action="return_value")
    counts = json.loads(capsys.readouterr().out)["clicks"]

    assert {"new": 12_000} == counts
    assert rows == explained(capsys, file, None)
