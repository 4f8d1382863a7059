"""``impact-plugin replay``: what becomes of a file of events, what another configuration would change, and why not."""

import gzip
import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import impact_plugin.cli.replay as command
from impact_plugin.__main__ import app
from impact_plugin.cli.errors import CommandError
from impact_plugin.traffic.destinations import TrafficDestinations
from impact_plugin.traffic.reading import ReadingError, Traffic, TrafficEvent
from impact_plugin.traffic.replay import ReplayRun, cents_of
from make_day import DESTINATION_CONFIG
from tests.builders import CONFIG

pytestmark = pytest.mark.slow

DAY = Path(__file__).parents[3] / "tools" / "day.ndjson.gz"
SENT, FILTERED, REJECTED = 3694, 12, 18
"""What becomes of the 3,724 events of the recorded day; the service's own end-to-end tests say the same."""


Write = Callable[[str, Any], Path]


@pytest.fixture(name="write")
def write_fixture(tmp_path: Path) -> Write:
    """Lend a writer of files."""

    def write(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else msgspec.json.encode(content))
        return path

    return write


def run(*words: str) -> int:
    """Call the command in this process."""
    code = app(["replay", *words], result_action="return_value")
    assert isinstance(code, int)
    return code


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The result as an object."""
    assert run(*words, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_recorded_day(capsys: pytest.CaptureFixture[str], write: Write) -> None:
    """The same sums as through the service, with clicks, orders and money."""
    result = told(capsys, str(DAY), "-d", str(write("day.json", DESTINATION_CONFIG)))

    assert result["funnel"] == {
        "received": 3724,
        "at_their_destinations": 3724,
        "sent": SENT,
        "clicks": 181,
        "pageload": 3302,
        "conversions": 211,
        "filtered": FILTERED,
        "rejected": REJECTED,
    }
    assert result["clicks"] == {"new": 181, "repeat": 98}
    assert result["orders"] == {"without": 114, "stitched": 84, "carried": 13}
    assert result["money"] == {"EUR": "35037.63", "USD": "9052.11"}
    assert {(one["outcome"], one["reason"]) for one in result["order_outcomes"]} == {
        ("sent", ""),
        ("sent again", ""),
        ("rejected", "missing_order_id"),
    }
    assert (len(result["missing_orders"]), result["guessed_amounts"], result["changes"]) == (6, 3, None)


def test_the_recorded_day_at_a_destination_without_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """Orders of other shop systems are missing, and the report names them with what they are worth."""
    missing = told(capsys, str(DAY))["missing_orders"]
    reasons = Counter(one["reason"] for one in missing)

    assert reasons == {"missing_order_id": 14, "looks_like_order": 8}
    assert all(one["amount"] for one in missing)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", ["lines", "array", "pretty", "segment batch", "gateway dump", "processor body"])
def test_events_are_found_in_every_form(
    capsys: pytest.CaptureFixture[str],
    write: Write,
    page: dict[str, Any],
    order: dict[str, Any],
    form: str,
    packed: bool,
) -> None:
    """Exports, dumps and bodies, gzipped or not."""
    encode = msgspec.json.encode
    content = {
        "lines": encode(page) + b"\n" + encode(order) + b"\n",
        "array": encode([page, order]),
        "pretty": json.dumps([page, order], indent=2).encode(),
        "segment batch": encode({"batch": [page, order], "writeKey": "w"}) + b"\n",
        "gateway dump": encode({"job_id": 1, "event_payload": {"batch": [page, order]}}) + b"\n",
        "processor body": encode([{"message": one, "destination": {"Config": CONFIG}} for one in (page, order)]),
    }[form]
    file = write("events", gzip.compress(content) if packed else content)
    result = told(capsys, str(file))

    assert (result["funnel"]["pageload"], result["funnel"]["conversions"]) == (1, 1)


def test_files_are_one_traffic(
    capsys: pytest.CaptureFixture[str], write: Write, page: dict[str, Any], order: dict[str, Any]
) -> None:
    """A landing of yesterday's file brings the click id of today's order."""
    landing = {**page, "properties": {"url": "https://shop.example/?irclickid=c-1"}}
    late = {**order, "timestamp": "2026-09-11T10:00:00.000Z"}
    result = told(capsys, str(write("yesterday", landing)), str(write("today", late)))

    assert result["orders"] == {"stitched": 1}


def test_another_configuration_is_compared(
    capsys: pytest.CaptureFixture[str], write: Write, page: dict[str, Any], order: dict[str, Any]
) -> None:
    """Event by event: what they would become, which parameters differ, and examples."""
    signup = {**order, "event": "Signed Up", "messageId": "m-3"}
    file = write("events", [page, order, signup])
    now = write("now.json", CONFIG)
    then = write(
        "then.json",
        {
            **CONFIG,
            "enablePageEvents": False,
            "campaignId": "99",
            "eventTypes": {"Signed Up": {"code": "SIGNUP", "kind": "lead"}},
        },
    )
    changes = told(capsys, str(file), "-d", str(now), "--against", str(then))["changes"]
    kinds = {(kind["before"], kind["after"]): kind for kind in changes["kinds"]}

    assert (changes["compared"], changes["changed"]) == (3, 3)
    assert set(kinds) == {
        ("pageload", "filtered page_disabled"),
        ("conversions", "conversions"),
        ("pageload", "conversions"),
    }
    assert kinds["conversions", "conversions"]["parameters"] == ["CampaignId"]
    assert kinds["conversions", "conversions"]["examples"] == ["event 2, CampaignId 23224 -> 99"]
    assert told(capsys, str(file), "-d", str(now), "--against", str(now))["changes"]["changed"] == 0


def test_destinations_of_the_services_file_are_taken(
    capsys: pytest.CaptureFixture[str], write: Write, page: dict[str, Any]
) -> None:
    """Every event goes to all of them, as from a source that names none."""
    text = "".join(
        f'[destinations.{name}]\naccountSID = "IRtest"\napiKey = "t"\ncampaignId = "{number}"\n'
        for number, name in enumerate(("eu", "us"), 1)
    )
    result = told(capsys, str(write("events", page)), "-d", str(write("impact.toml", text.encode())))

    assert (result["funnel"]["received"], result["funnel"]["pageload"]) == (1, 2)


def test_why_an_order_was_not_sent(capsys: pytest.CaptureFixture[str], write: Write, order: dict[str, Any]) -> None:
    """One command: the reason, the place and the fix; and exit code 1 for an order that is not there."""
    wrong = {**order, "properties": {"order_id": "o-7", "total": "five", "currency": "EUR"}}
    file = str(write("events", [order, wrong]))

    assert run(file, "--order-id", "o-7") == 0
    printed = capsys.readouterr().out
    assert "event 2: rejected invalid_amount" in printed
    assert "total from properties.total; fix: Send a number, or text such as 1234.50" in printed
    assert run(file, "--order-id", "o-1") == 0
    assert "event 1: conversions" in capsys.readouterr().out
    assert run(file, "--order-id", "o-99") == 1
    assert "no event has the order id o-99" in capsys.readouterr().err


def test_a_configuration_with_paths_of_its_own_reads_whole_events(
    capsys: pytest.CaptureFixture[str], write: Write, order: dict[str, Any]
) -> None:
    """Also from a recording, whose events are otherwise read as far as the usual paths go."""
    custom = {**CONFIG, "rudderToImpactProperty": [{"from": "properties.shelf", "to": "Text1"}]}
    event = {**order, "properties": {**order["properties"], "shelf": "A7"}}
    lines = [
        {"line": "recording", "version": 1, "at": "2026-09-10T10:00:00", "plugin": "0.1.0"},
        {"line": "destination", "id": "d", "config": {**custom, "apiKey": "concealed"}},
        {"line": "event", "at": 1, "via": "processor", "request": 1, "to": ["d"], "event": event},
        {"line": "end", "events": 1, "left_out": 0, "cause": "time"},
    ]
    file = write("recording.ndjson", b"\n".join(map(msgspec.json.encode, lines)) + b"\n")
    plain = write("plain.json", CONFIG)
    changes = told(capsys, str(file), "--against", str(plain))["changes"]

    assert changes["kinds"][0]["parameters"] == ["Text1"]
    assert changes["kinds"][0]["examples"] == ["event 1, Text1 A7 -> nothing"]


def test_the_report_stands_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One file: no script, nothing fetched, and it has the sums, the reasons with their fix, and charts."""
    page = tmp_path / "report.html"
    assert run(str(DAY), "--html", str(page)) == 0
    html = page.read_text(encoding="utf-8")

    assert "3,724 events" in capsys.readouterr().out
    assert (html.count('class="bars"'), html.count('class="chart"')) == (4, 2)
    assert "Send properties.order_id, or name the path under parameterSources.OrderId." in html
    assert "Missing orders" in html
    assert "prefers-color-scheme" in html
    assert "<script" not in html
    assert "http" not in html
    assert len(html) < 200_000


def test_what_is_rejected_has_its_place_in_time(order: dict[str, Any], write: Write) -> None:
    """By the time the event tells, though it asks the sessions nothing; a wild clock does not stretch the axis."""
    bad = {**order, "properties": {"order_id": "o-1", "total": "five", "currency": "EUR"}}
    told = {**bad, "timestamp": "2026-09-10T10:20:00Z"}
    wild = {**bad, "timestamp": "2001-01-01T00:00:00Z", "receivedAt": "2026-09-10T11:00:00Z"}
    late = {**bad, "timestamp": None, "receivedAt": "2026-09-10T11:00:00Z"}
    file = write("events.json", [told, wild, late, {**bad, "timestamp": None}])
    replayed = command._Replay([file], [[]])
    replayed.go(lambda *_: None, [], None, None)
    hours = replayed.runs[0].sums.hours
    places = {
        datetime.fromtimestamp(hour * 3600, UTC).strftime("%d.%m. %H"): count for (hour, _), count in hours.items()
    }

    assert {path for _, path in hours} == {"rejected"}
    assert places == {"10.09. 10": 1, "09.09. 11": 1, "10.09. 11": 1}


def test_what_is_hostile_stays_text(tmp_path: Path, write: Write, order: dict[str, Any]) -> None:
    """Names of files, details of events and ids of orders are escaped."""
    wrong = {**order, "properties": {"order_id": "<script>alert(1)</script>", "total": "<b>five", "currency": "<b>"}}
    file = write("<img src=x>.json", wrong)
    run(str(file), "--html", str(tmp_path / "report.html"), "--quiet")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")

    assert "<script>" not in html
    assert "<img" not in html
    assert "&lt;img" in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_an_interrupted_replay_goes_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sums, the sessions and the comparison of a run with a pause are those of one without."""
    other = tmp_path / "other.json"
    other.write_bytes(msgspec.json.encode({**CONFIG, "enableIdentifyEvents": False}))
    words = [str(DAY), "--against", str(other)]
    whole = told(capsys, *words)
    state = tmp_path / "state"
    feed = command._Replay._feed
    fed = 0

    def stop_on_the_way(self: Any, first: int, events: Any, order_id: Any) -> None:
        nonlocal fed
        feed(self, first, events, order_id)
        fed += 1
        if fed in (700, 1900):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(command._Replay, "_feed", stop_on_the_way)
    assert run(*words, "--resume", str(state)) == 3
    assert "--resume" in capsys.readouterr().out
    assert run(*words, "--resume", str(state), "--quiet") == 3
    with pytest.raises(ReadingError, match="other files or with other options"):
        run(str(DAY), "--resume", str(state))
    parts = told(capsys, *words, "--resume", str(state))

    assert fed == 3724
    assert {**parts, "seconds": 0} == {**whole, "seconds": 0}
    assert not state.exists()


def days(number: int, *, after: int = 0) -> list[dict[str, Any]]:
    """Landings, so many hundred a day, each of a visitor of its own."""
    return [
        {
            "type": "page", "messageId": f"m-{day}-{one}", "anonymousId": f"v-{day}-{one}",
            "timestamp": f"{date(2026, 1, 1) + timedelta(days=day)}T10:00:00Z",
            "properties": {"url": f"https://shop.example.com/?irclickid=c-{day}-{one}"},
        }
        for day in range(after, after + number)
        for one in range(300)
    ]  # fmt: skip


def raise_fault(error: Exception) -> None:
    """Fail by the defect that was reported."""
    raise error


def replayed(events: list[dict[str, Any]]) -> ReplayRun:
    """The run after these events."""
    run_ = ReplayRun(TrafficDestinations({}), raise_fault)
    for number, event in enumerate(events, 1):
        run_.feed(number, [TrafficEvent(msgspec.Raw(msgspec.json.encode(event)))])
    return run_


def test_months_take_no_more_memory_than_weeks() -> None:
    """What the service would have forgotten by then is forgotten here too."""
    weeks, months = (replayed(days(number)).sessions.engine for number in (60, 120))

    assert len(months.claims) == len(weeks.claims) <= 300 * 6
    assert len(months.answers) == len(weeks.answers) <= 300 * 6
    assert len(months.identities) <= 300 * 40


def test_a_wrong_clock_makes_nothing_forgotten() -> None:
    """Events of another century, a few in a row, are no sign that a century has passed."""
    wrong = [{**one, "timestamp": "2099-01-01T00:00:00Z", "messageId": f"w-{one['messageId']}"} for one in days(1)]
    engine = replayed([*days(2), *wrong[:200], *days(1, after=2)]).sessions.engine

    assert len(engine.identities) == 900


def test_events_without_a_time_keep_nothing_from_being_forgotten() -> None:
    """They say nothing about the time, here and there among others."""
    events = days(40)
    for place in range(0, len(events), 100):
        del events[place]["timestamp"]

    assert len(replayed(events).sessions.engine.answers) <= 300 * 6


def test_a_first_event_of_another_century_keeps_nothing_from_being_forgotten() -> None:
    """A clock is not set by one event."""
    first = {**days(1)[0], "timestamp": "2099-01-01T00:00:00Z", "messageId": "w"}

    assert len(replayed([first, *days(40)]).sessions.engine.answers) <= 300 * 6


def test_of_several_files_nothing_is_forgotten_in_between(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The clicks of a quarter in one, its orders in another: each order finds its click."""
    clicks, orders = tmp_path / "clicks.ndjson", tmp_path / "orders.ndjson"
    landings = days(90)[::50]
    bought = [
        {
            **landing, "type": "track", "event": "Order Completed", "messageId": f"o-{place}",
            "properties": {"order_id": f"o-{place}", "total": 5, "currency": "EUR"},
        }
        for place, landing in enumerate(landings)
    ]  # fmt: skip
    clicks.write_bytes(b"\n".join(map(msgspec.json.encode, days(90))))
    orders.write_bytes(b"\n".join(map(msgspec.json.encode, bought)))

    assert told(capsys, str(clicks), str(orders))["orders"] == {"stitched": len(landings)}


def test_a_file_that_was_cut_off_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What can be read of it is replayed; of a single document nothing can be."""
    lines = b"\n".join(map(msgspec.json.encode, days(4)))
    for name, content in (("lines", lines), ("document", b"[" + lines.replace(b"\n", b",\n") + b"]")):
        (tmp_path / name).write_bytes(gzip.compress(content)[:-2000])

    assert run(str(tmp_path / "lines")) == 0
    assert "is cut off; everything up to there was replayed" in capsys.readouterr().err
    with pytest.raises(ReadingError, match="cannot be read"):
        run(str(tmp_path / "document"))


def test_a_pipe_is_told_in_one_line(tmp_path: Path) -> None:
    """What a shell makes of <(...) cannot be read twice."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)
    with pytest.raises(ReadingError, match="is not a regular file"):
        run(str(pipe))
    os.close(writer)


def test_a_long_pause_forgets_nothing_of_what_came_after_it() -> None:
    """The first events after it are those by which it is noticed."""
    order = {
        "type": "track", "event": "Order Completed", "messageId": "o", "anonymousId": "v-90-0",
        "timestamp": "2026-04-02T10:00:00Z", "properties": {"order_id": "o", "total": 5, "currency": "EUR"},
    }  # fmt: skip
    run_ = replayed([*days(1), *days(2, after=90), order])

    assert run_.sums.orders["stitched"] == 1


def test_an_interruption_makes_nothing_live_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Generations go on where they were."""
    events = days(9)
    path = tmp_path / "days.ndjson"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, events)))
    runs: list[ReplayRun] = []
    feed = command._Replay._feed

    def stop_on_the_way(self: Any, first: int, events: Any, order_id: Any) -> None:
        feed(self, first, events, order_id)
        runs[:] = self.runs
        if first in (1000, 2000):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(command._Replay, "_feed", stop_on_the_way)
    codes = [run(str(path), "--resume", str(tmp_path / "state"), "--quiet") for _ in range(3)]
    whole = replayed(events).sessions.engine

    assert codes == [3, 3, 0]
    for name in ("claims", "answers", "identities"):
        assert list(getattr(runs[0].sessions.engine, name).generations()) == list(getattr(whole, name).generations())


@pytest.mark.parametrize("content", [b"garbage", b"\x00\x01", b'{"line":"destination","id":1}'])
def test_a_file_of_interruption_that_is_none_is_told(tmp_path: Path, content: bytes) -> None:
    """And nothing is begun."""
    state = tmp_path / "state"
    state.write_bytes(content)

    with pytest.raises(ReadingError, match="cannot be read as an interrupted replay"):
        run(str(DAY), "--resume", str(state))


def test_nothing_to_replay_is_told(tmp_path: Path, write: Write) -> None:
    """No file, no such file, a configuration that cannot be used, a report that cannot be written."""
    with pytest.raises(CommandError, match="at least one file"):
        run()
    with pytest.raises(ReadingError, match="cannot be read"):
        run(str(tmp_path / "none"))
    with pytest.raises(CommandError, match="cannot be used: campaignId"):
        run(str(DAY), "-d", str(write("bad.json", {**CONFIG, "campaignId": "x"})))
    with pytest.raises(CommandError, match="cannot be written"):
        run(str(DAY), "--html", str(tmp_path / "none" / "report.html"), "--quiet")


def test_a_cut_off_file_ends_where_it_ends(tmp_path: Path, write: Write) -> None:
    """As a recording does that was ended by a kill: what can be read is replayed."""
    packed = DAY.read_bytes()
    file = write("cut.gz", packed[: len(packed) // 2])
    found = [one for one in Traffic([file]) if isinstance(one, TrafficEvent)]

    assert 500 < len(found) < 3724


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_garbage_is_rejected_and_never_a_fault(lines: list[bytes]) -> None:
    """Whatever stands in a file, each thing in it has an outcome, or the file is refused in a sentence."""
    import tempfile  # noqa: PLC0415 - hypothesis and fixtures of a function do not go together

    run_ = ReplayRun(TrafficDestinations({}), raise_fault)
    with tempfile.NamedTemporaryFile(suffix=".ndjson") as file:
        file.write(b"\n".join(lines))
        file.flush()
        try:
            events = [one for one in Traffic([Path(file.name)]) if isinstance(one, TrafficEvent)]
        except ReadingError:
            return
    ended = run_.feed(1, events)

    assert len(ended) == len(events)


@pytest.mark.parametrize(
    ("form", "cents"),
    [
        ({"OrderSubTotalPostDiscount": "12.50"}, 1250),
        ({"ItemPrice1": "10.00", "ItemQuantity1": "3", "ItemSubTotal2": "5.5", "OrderDiscount": "1"}, 3450),
        ({"ItemPrice1": "10.00"}, 1000),
        ({}, None),
        ({"OrderSubTotalPostDiscount": "much"}, None),
    ],
)
def test_money_is_counted_as_impact_would(form: dict[str, str], cents: int | None) -> None:
    """The order's subtotal, or its items less its discount."""
    assert cents_of(form) == cents


def test_several_destinations_are_compared_each_with_its_own(
    capsys: pytest.CaptureFixture[str], write: Write, order: dict[str, Any]
) -> None:
    """An event that goes to two is two comparisons, and neither is taken for the other's."""

    def service(name: str, campaign: int) -> Path:
        text = "".join(
            f'[destinations.{id_}]\naccountSID = "IRtest"\napiKey = "t"\ncampaignId = "{number}"\n'
            for id_, number in (("eu", 1), ("us", campaign))
        )
        return write(name, text.encode())

    file, now, then = write("events", [order]), service("now.toml", 2), service("then.toml", 3)
    changes = told(capsys, str(file), "-d", str(now), "--against", str(then))["changes"]

    assert (changes["compared"], changes["changed"]) == (2, 1)
    assert changes["kinds"][0]["examples"] == ["event 1, CampaignId 2 -> 3"]


def test_a_defect_of_ours_is_one_events_and_logged_once(
    capsys: pytest.CaptureFixture[str], spoil: Callable[..., None], write: Write, order: dict[str, Any]
) -> None:
    """It is counted as the rejection of the events it met; the replay goes on."""
    spoil(KeyError("jane@example.com"))
    bad = {**order, "messageId": "m-bad"}
    assert run(str(write("events", [bad, order, bad])), "--json") == 0
    out, err = capsys.readouterr()
    result, logged = json.loads(out), json.loads(err)

    assert {(one["reason"], one["events"]) for one in result["outcomes"]} == {("", 1), ("transform_fault", 2)}
    assert (logged["event"], logged["error"]) == ("transform_fault", "KeyError")
    assert "jane" not in out + err


def test_a_destination_without_configuration_rejects_its_events(
    capsys: pytest.CaptureFixture[str], write: Write, page: dict[str, Any]
) -> None:
    """As in the service; only where none is named there is a demonstration account."""
    bodies = [
        [{"message": page, "destination": {"ID": "d-1"}}],
        [{"message": page, "destination": {"ID": "d-1", "Config": "text"}}],
        {"input": [{"message": page, "metadata": {"destinationId": "d-1"}}], "destinations": {"d-2": {}}},
        [{"message": page}],
    ]
    results = [told(capsys, str(write("body", body)))["outcomes"] for body in bodies]

    assert [one["reason"] for (one,) in results] == [*["configuration"] * 3, ""]
