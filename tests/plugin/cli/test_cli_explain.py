"""``impact-plugin explain``: every form of input, every format, and nothing secret in any of them."""

import contextlib
import gzip
import io
import json
import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import pytest

from impact_plugin.__main__ import app
from impact_plugin.cli.errors import CommandError
from impact_plugin.errors import SettingsError
from impact_plugin.traffic.reading import ReadingError

SAMPLES = Path(__file__).parents[2] / "samples" / "rudderstack"
SECRET = "test-token-secret"
FORMS = {"table": (), "json": ("--json",), "curl": ("--format", "curl")}

Write = Callable[[str, Any], str]


def run(*words: str) -> int:
    """Call the command in this process."""
    code = app(["explain", *words], result_action="return_value")
    assert isinstance(code, int)
    return code


@pytest.fixture(name="write")
def write_fixture(tmp_path: Path) -> Write:
    """Lend a writer of files: bytes as they are, text encoded, anything else as JSON."""

    def write(name: str, content: Any) -> str:
        path = tmp_path / name
        match content:
            case bytes():
                path.write_bytes(content)
            case str():
                path.write_text(content, encoding="utf-8")
            case _:
                path.write_bytes(msgspec.json.encode(content))
        return str(path)

    return write


def explained(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines of the json format."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def forms(page: dict[str, Any], order: dict[str, Any]) -> dict[str, bytes]:
    """The same two events in every form an input may have."""
    both, encode = [page, order], msgspec.json.encode
    array, lines = encode(both), b"\n".join(map(encode, both))
    known = {"ID": "d-1", "Config": {"accountSID": "IRmine", "apiKey": SECRET, "campaignId": "7"}}
    routed = [{"message": one, "metadata": {"jobId": 1, "destinationId": "d-1"}} for one in both]
    return {
        "array": array,
        "array with spaces": b"\n  " + json.dumps(both, indent=2).encode() + b"\n",
        "lines": lines,
        "lines with blanks": b"\r\n" + lines.replace(b"\n", b"\r\n\r\n") + b"\r\n",
        "gzipped array": gzip.compress(array),
        "gzipped lines": gzip.compress(lines),
        "two gzips joined": gzip.compress(encode(page) + b"\n") + gzip.compress(encode(order)),
        "processor body": encode([{**one, "destination": known} for one in routed]),
        "processor body compacted": encode({"input": routed, "destinations": {"d-1": known}}),
        "router body": encode({"input": [{**one, "destination": known} for one in routed], "destType": "impact"}),
        "router body compacted": encode({"input": routed, "destType": "impact", "destinations": {"d-1": known}}),
        "bodies in lines": b"\n".join(encode({"input": [{**one, "destination": known}]}) for one in routed),
    }


@pytest.mark.parametrize("form", forms({}, {}))
def test_events_are_found_in_every_form(
    capsys: pytest.CaptureFixture[str], write: Write, page: dict[str, Any], order: dict[str, Any], form: str
) -> None:
    """Whatever an operator has at hand: an export, a router's log, a recorded body."""
    code = run(write("input", forms(page, order)[form]), "--json")
    lines = explained(capsys)

    assert code == 0
    assert [(line["event"], line["outcome"], line["endpoint_path"]) for line in lines] == [
        (1, "sent", "pageload"),
        (2, "sent", "conversions"),
    ]


def test_one_event_is_enough(capsys: pytest.CaptureFixture[str], write: Write, order: dict[str, Any]) -> None:
    """A single object, as one copies it from a live view."""
    assert run(write("event.json", order), "--json") == 0
    assert explained(capsys)[0]["form"]["OrderId"] == "o-1"


def test_standard_input_is_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, order: dict[str, Any]
) -> None:
    """``-`` takes a pipe, gzipped or not."""
    for raw in (msgspec.json.encode(order), gzip.compress(msgspec.json.encode(order))):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))

        assert run("-", "--json") == 0
        assert explained(capsys)[0]["endpoint_path"] == "conversions"


@pytest.mark.parametrize(
    "name",
    ["processor_request_plain", "processor_request_compacted", "router_request_plain", "router_request_compacted"],
)
def test_a_routers_body_brings_its_destination(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """The account is the body's own, not the demonstration's."""
    assert run(str(SAMPLES / f"{name}.json"), "--json") == 0
    assert "/Advertisers/IRlocalSID/" in explained(capsys)[0]["url"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.json", '{"accountSID": "IRmine", "apiKey": "test-token-secret", "campaignId": "7"}'),
        ("d.json", '{"ID": "d", "Config": {"accountSID": "IRmine", "apiKey": "test-token-secret", "campaignId": "7"}}'),
        ("d.json", '{"config": {"accountSID": "IRmine", "apiKey": "test-token-secret", "campaignId": "7"}}'),
        ("d.toml", 'accountSID = "IRmine"\napiKey = "test-token-secret"\ncampaignId = 7\n'),
        ("d.toml", '[config]\naccountSID = "IRmine"\napiKey = "test-token-secret"\ncampaignId = "7"\n'),
    ],
)
@pytest.mark.parametrize("option", ["--destination", "-d"])
def test_a_destination_can_be_given(
    capsys: pytest.CaptureFixture[str], write: Write, order: dict[str, Any], name: str, content: str, option: str
) -> None:
    """As JSON or TOML, bare or in the object around it; it wins over what a body brings."""
    assert run(write("event.json", order), option, write(name, content), "--json") == 0
    assert explained(capsys)[0]["form"]["CampaignId"] == "7"
    assert run(str(SAMPLES / "router_request_plain.json"), option, write(name, content), "--json") == 0
    assert "/Advertisers/IRmine/" in explained(capsys)[0]["url"]


TWO = """
[destinations.eu]
accountSID = "IReu"
apiKey = "test-token-secret"
campaignId = "1"
[destinations.us]
accountSID = "IRus"
apiKey = "test-token-secret"
campaignId = "2"
"""


def test_a_destination_of_the_services_file_is_chosen_by_name(
    write: Write, capsys: pytest.CaptureFixture[str], order: dict[str, Any]
) -> None:
    """Without a name the events go to all of them; a name that is neither there nor a file is one line."""
    words = [write("event.json", order), "--json", "--config", write("impact.toml", TWO.encode())]
    run(*words)
    run(*words, "-d", "us")
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert [one["destination"] for one in told] == ["eu", "us", "us"]
    assert [one["form"]["CampaignId"] for one in told] == ["1", "2", "2"]
    with pytest.raises(CommandError, match=r"asia is neither a file nor a destination of .*, which has eu, us"):
        run(*words, "-d", "asia")


@pytest.mark.parametrize("form", FORMS)
def test_the_token_is_never_printed(
    capsys: pytest.CaptureFixture[str], write: Write, order: dict[str, Any], page: dict[str, Any], form: str
) -> None:
    """What is shown can be pasted into a ticket."""
    config = {"accountSID": "IRmine", "apiKey": SECRET, "campaignId": "7"}
    body = [
        {"message": one, "metadata": {}, "destination": {"Config": config}} for one in (order, page, {"type": "page"})
    ]
    run(write("body.json", body), *FORMS[form])
    out, err = capsys.readouterr()

    assert out
    assert SECRET not in out + err


@pytest.mark.parametrize("form", FORMS)
def test_addresses_are_not_printed(
    capsys: pytest.CaptureFixture[str], write: Write, page: dict[str, Any], order: dict[str, Any], form: str
) -> None:
    """Neither in values nor among the paths tried, in any spelling."""
    tricky = [
        {**page, "userId": "jane@example.com", "traits": {"email": "jane@example.com"}},
        {**page, "context": {"page": {"url": "https://x.example.com/?e=jane%40example.com"}}},
        {**order, "properties": {**order["properties"], "coupon": "jane@example.com"}},
        {**order, "properties": {**order["properties"], "coupon": "https://x.example.com/?e=jane%40example%2Ecom"}},
        {**order, "properties": {**order["properties"], "currency": "jane@example.com"}},
        {"type": "jane@example.com"},
    ]
    run(write("events.json", tricky), *FORMS[form])
    out, err = capsys.readouterr()

    assert "jane" not in out + err
    if form == "json":
        assert [json.loads(line)["event"] for line in out.splitlines()] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"type": "page", "anonymousId": "a"}, 0),
        ({"type": "group"}, 0),
        ({"type": "page"}, 1),
        ({}, 1),
        (7, 1),
        ([{"type": "page", "anonymousId": "a"}, {"type": "page"}], 1),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_the_exit_code_tells_whether_something_was_rejected(
    capsys: pytest.CaptureFixture[str], write: Write, event: Any, code: int, form: str
) -> None:
    """0 when every event was sent or filtered, 1 when one was rejected: usable in a check."""
    assert run(write("events.json", event), *FORMS[form]) == code
    assert capsys.readouterr().out


def test_the_table_shows_values_and_where_they_came_from(
    capsys: pytest.CaptureFixture[str], write: Write, order: dict[str, Any]
) -> None:
    """A person sees the request, parameter by parameter, with its path and rule."""
    run(write("order.json", order))
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("OrderId"))

    assert "event 1: conversions  POST https://api.impact.com/Advertisers/IRdemoAccount/Conversions" in out
    assert [cell.strip() for cell in row.split("│")] == [
        "OrderId", "o-1", "properties.order_id", "order_id", "properties.order_id",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("event", "parts"),
    [
        ({"type": "page"}, ["rejected missing_identity", "fix: Let the SDK send anonymousId or userId."]),
        ({"type": "group"}, ["filtered unsupported_type", "Event type group is not supported"]),
        ("text", ["rejected undecodable_event", "fix: "]),
    ],
)
def test_the_table_says_why_and_what_to_do(
    capsys: pytest.CaptureFixture[str], write: Write, event: Any, parts: list[str]
) -> None:
    """A rejected or filtered event is explained in words."""
    run(write("event.json", [event]))
    out = capsys.readouterr().out

    assert [part for part in parts if part not in out] == []


def test_json_tells_reason_path_and_fix(
    capsys: pytest.CaptureFixture[str], write: Write, order: dict[str, Any]
) -> None:
    """A script gets the same facts as fields."""
    order["properties"] = {"order_id": "o-1", "total": "on request"}
    run(write("order.json", order), "--json")
    (line,) = explained(capsys)

    assert (line["outcome"], line["reason"], line["parameter"], line["path"]) == (
        "rejected", "invalid_amount", "total", "properties.total",
    )  # fmt: skip
    assert line["fix"]
    assert line["steps"]


def test_curl_is_a_command_that_sends_the_same_request(
    capsys: pytest.CaptureFixture[str], write: Write, order: dict[str, Any], page: dict[str, Any]
) -> None:
    """The shell reads back exactly the form; the token is left to a variable, and page loads have none."""
    order["properties"]["order_id"] = 'o\'1 & $(x) "q" ü'
    run(write("events.json", [order, page, {"type": "group"}]), "-f", "curl")
    conversion, page_load, filtered = capsys.readouterr().out.splitlines()
    words = shlex.split(conversion)
    form = dict(parse_qsl(words[words.index("--data") + 1], strict_parsing=True))

    assert form["OrderId"] == 'o\'1 & $(x) "q" ü'
    assert words[words.index("-u") + 1] == "IRdemoAccount:$IMPACT_AUTH_TOKEN"
    assert words[-1] == "https://api.impact.com/Advertisers/IRdemoAccount/Conversions"
    assert "-u" not in shlex.split(page_load)
    assert filtered.startswith("# event 3: filtered unsupported_type")


def test_addresses_of_impact_come_from_the_settings(
    capsys: pytest.CaptureFixture[str], write: Write, order: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """File and environment count here as they do for the service."""
    settings = write("settings.toml", '[impact]\napi_url = "http://127.0.0.1:9099/"\n')
    run(write("order.json", order), "--json", "--config", settings)
    from_file = explained(capsys)[0]["url"]
    monkeypatch.setenv("IMPACT_PLUGIN__IMPACT__API_URL", "http://127.0.0.1:9100")
    run(write("order.json", order), "--json", "--config", settings)

    assert from_file == "http://127.0.0.1:9099/Advertisers/IRdemoAccount/Conversions"
    assert explained(capsys)[0]["url"].startswith("http://127.0.0.1:9100/")


def test_variables_of_the_environment_fill_a_destination_in(
    capsys: pytest.CaptureFixture[str], write: Write, page: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``env.IMPACT_VAR_*`` works as in the service."""
    monkeypatch.setenv("IMPACT_VAR_CAMPAIGN", "99")
    config = {"accountSID": "IRmine", "apiKey": "t", "campaignId": "env.IMPACT_VAR_CAMPAIGN"}
    run(write("page.json", page), "-d", write("d.json", config), "--json")

    assert explained(capsys)[0]["form"]["CampaignId"] == "99"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"  \n ", "empty"),
        (gzip.compress(b"", mtime=0), "empty"),
        (b"hello", "not JSON"),
        (b'{"type":', "not JSON"),
        (gzip.compress(b"[]" * 99, mtime=0)[:-5], "cannot be read"),
        (b"\x1f\x8b\x00\x00", "cannot be read"),
    ],
)
def test_an_input_that_holds_no_events_is_refused(write: Write, content: bytes, told: str) -> None:
    """The error names the mistake."""
    with pytest.raises((CommandError, ReadingError), match=told):
        run(write("input", content))


@pytest.mark.parametrize("content", [b"[" * 5000, b'{"type":"page","properties":' + b"[" * 5000 + b"]" * 5000 + b"}"])
def test_an_input_nested_too_deep_is_refused_or_rejected(write: Write, content: bytes) -> None:
    """No traceback whatever the input is."""
    try:
        code = run(write("input", content))
    except ReadingError:
        code = 2

    assert code in {1, 2}


def test_a_line_that_is_no_json_is_that_events_rejection(
    capsys: pytest.CaptureFixture[str], write: Write, page: dict[str, Any]
) -> None:
    """One spoilt line of an export does not hide the others."""
    good = msgspec.json.encode(page)
    code = run(write("lines", good + b"\nnot json\n" + good), "--json")
    lines = explained(capsys)

    assert code == 1
    assert [line["outcome"] for line in lines] == ["sent", "rejected", "sent"]
    assert lines[1]["reason"] == "undecodable_event"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{}", r"accountSID: is required[\s\S]*apiKey: is required[\s\S]*campaignId: is required"),
        ('{"accountSID": "a b", "apiKey": "test-token-secret", "campaignId": "x"}', r"accountSID: [\s\S]*campaignId: "),
        ("[]", "must hold one object"),
        ("{", "cannot be read as a configuration"),
    ],
)
def test_a_destination_that_cannot_work_is_refused(write: Write, page: dict[str, Any], content: str, told: str) -> None:
    """Every mistake at once, and never the token."""
    with pytest.raises(CommandError, match=told) as refused:
        run(write("page.json", page), "-d", write("d.json", content))

    assert SECRET not in str(refused.value)


def call_process(*words: str) -> subprocess.CompletedProcess[str]:
    """Call the command as a process."""
    return subprocess.run(
        [sys.executable, "-m", "impact_plugin", "explain", *words], capture_output=True, text=True, check=False
    )


def test_mistakes_of_the_operator_are_one_line_and_exit_code_2(tmp_path: Path) -> None:
    """A missing file is no traceback."""
    done = call_process(str(tmp_path / "absent.json"))

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("impact-plugin: ")
    assert "absent.json: cannot be read" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["--no-such-option"], ["x.json", "-f", "yaml"]])
def test_wrong_usage_is_exit_code_2(words: list[str]) -> None:
    """1 stays for rejected events: a script can tell the two apart."""
    done = call_process(*words)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_wrong_settings_are_told(write: Write, page: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped variable is refused here as well."""
    monkeypatch.setenv("IMPACT_PLUGIN__IMPACT__APIURL", "http://127.0.0.1")

    with pytest.raises(SettingsError, match=r"IMPACT__APIURL: .*did you mean .*IMPACT__API_URL"):
        run(write("page.json", page))


def test_a_rejected_event_makes_the_process_exit_with_1(write: Write) -> None:
    """The command's code is the process's."""
    done = call_process(write("e.json", {"type": "page"}))

    assert (done.returncode, done.stderr) == (1, "")
    assert "missing_identity" in done.stdout


def test_an_empty_configuration_of_a_body_is_told_as_the_service_would(
    capsys: pytest.CaptureFixture[str], write: Write, page: dict[str, Any]
) -> None:
    """The demonstration account stands in where no destination is named, not for one that is wrong."""
    body = [{"message": page, "metadata": {}, "destination": {"ID": "d-1", "Config": {}}}]

    code = run(write("body.json", body))
    out = capsys.readouterr().out

    assert code == 1
    assert "event 1: rejected configuration: accountSID: is required" in out
    assert "IRdemoAccount" not in out


def story(page: dict[str, Any], order: dict[str, Any]) -> list[dict[str, Any]]:
    """A landing, its repeat, the landing once more, a stranger's page, and the order of the one who landed."""
    landing = {**page, "properties": {"url": "https://shop.example.com/?im_ref=CLICK-1"}}
    repeat = {**landing, "messageId": "m-repeat", "timestamp": "2026-09-10T10:20:00.000Z"}
    stranger = {**page, "messageId": "m-stranger", "anonymousId": "a-2"}
    return [landing, repeat, landing, stranger, {**order, "timestamp": "2026-09-10T10:30:00.000Z"}]


def test_json_tells_the_decision_and_why(
    capsys: pytest.CaptureFixture[str], write: Write, page: dict[str, Any], order: dict[str, Any]
) -> None:
    """The key, the window, the event that opened it, and the event that brought the click id of an order."""
    run("--json", write("events.json", story(page, order)))
    new, repeat, again, stranger, stitched = (one["visit"] for one in explained(capsys))
    opener = {"event": 1, "messageId": "m-page"}

    assert ("new", ["IRdemoAccount", "23224", "visitor=a-1", "click_id=CLICK-1"]) == (new["decision"], new["key"])
    assert ("2026-09-10T10:00:00Z", "2026-09-10T10:30:00Z", opener) == (new["start"], new["end"], new["opener"])
    assert ("repeat", "2026-09-10T10:50:00Z", opener) == (repeat["decision"], repeat["end"], repeat["opener"])
    assert ("new", True, opener) == (again["decision"], again["replayed"], again["opener"])
    assert (None, True, None) == (stranger["decision"], stranger["asked"], stranger["click_id"])
    assert ("CLICK-1", opener) == (stitched["click_id"], stitched["clicked"])


def test_the_table_tells_the_decision_in_sentences(
    capsys: pytest.CaptureFixture[str], write: Write, page: dict[str, Any], order: dict[str, Any]
) -> None:
    """An operator who asks why something was not a click reads it, without a person's address in it."""
    landing, *others = story(page, order)
    person = {**landing, "anonymousId": "jane@example.com", "messageId": "m-jane"}
    run(write("events.json", [landing, *others, person]))
    told = capsys.readouterr().out

    assert "click new: no earlier click of this key within its window" in told
    assert "click repeat: within the window 2026-09-10T10:00:00Z to 2026-09-10T10:50:00Z opened by event 1" in told
    assert "click new: the same message came before" in told
    assert "click key: IRdemoAccount · 23224 · visitor=a-1 · click_id=CLICK-1" in told
    assert "no click id: no click of this visitor before the event, within the referral window" in told
    assert "click id CLICK-1: remembered from event 1 (messageId m-page)" in told
    assert "jane" not in told


def test_a_dropped_repeat_is_told_as_the_service_would(
    capsys: pytest.CaptureFixture[str], write: Write, page: dict[str, Any], order: dict[str, Any]
) -> None:
    """With ``repeatedClicks`` drop the repeat is filtered, and its story says why."""
    config = {"accountSID": "IRx", "apiKey": SECRET, "campaignId": "1", "repeatedClicks": "drop"}
    run("--json", "-d", write("config.json", config), write("events.json", story(page, order)))
    new, repeat, *_ = explained(capsys)

    assert ("sent", "clicks") == (new["outcome"], new["endpoint_path"])
    assert ("filtered", "repeated_click", "repeat") == (
        repeat["outcome"],
        repeat["reason"],
        repeat["visit"]["decision"],
    )


def test_an_order_is_shown_alone(
    capsys: pytest.CaptureFixture[str], write: Write, page: dict[str, Any], order: dict[str, Any]
) -> None:
    """By its id; what came before it still brings its click id, and keeps its number."""
    other = {**order, "messageId": "m-other", "properties": {**order["properties"], "order_id": "o-2"}}
    file = write("events.json", [*story(page, order), other])
    code = run(file, "--order-id", "o-1")
    out = capsys.readouterr().out

    assert code == 0
    assert out.count("POST ") == 1
    assert out.startswith("event 5: conversions  POST ")
    assert "click id CLICK-1: remembered from event 1 (messageId m-page)" in out


def test_an_order_that_was_rejected_is_found_by_its_own_words(
    capsys: pytest.CaptureFixture[str], write: Write, order: dict[str, Any]
) -> None:
    """It became no request, and its properties name it; the exit code tells that it was rejected."""
    wrong = {**order, "properties": {"orderId": "o-7", "total": "five", "currency": "EUR"}}
    code = run(write("events.json", [order, wrong]), "--order-id", "o-7", "--json")
    (line,) = explained(capsys)

    assert (code, line["event"], line["reason"]) == (1, 2, "invalid_amount")


@pytest.mark.parametrize("form", FORMS)
def test_an_order_that_is_not_there_is_told(
    capsys: pytest.CaptureFixture[str], write: Write, order: dict[str, Any], form: str
) -> None:
    """In one line on standard error, with exit code 1; nothing is shown."""
    code = run(write("events.json", [order]), "--order-id", "o-99", *FORMS[form])
    out, err = capsys.readouterr()

    assert (code, out) == (1, "")
    assert err == "impact-plugin: no event has the order id o-99\n"


def test_of_several_destinations_each_is_named(
    capsys: pytest.CaptureFixture[str], write: Write, page: dict[str, Any]
) -> None:
    """With the service's own file, an event is shown once for each of its destinations."""
    text = "".join(
        f'[destinations.{name}]\naccountSID = "IRtest"\napiKey = "t"\ncampaignId = "{number}"\n'
        for number, name in enumerate(("eu", "us"), 1)
    )
    run(write("events.json", [page]), "-d", write("impact.toml", text))
    out = capsys.readouterr().out

    assert "event 1 at eu: pageload  POST https://trkapi.impact.com/PageLoad" in out
    assert "event 1 at us: pageload  POST https://trkapi.impact.com/PageLoad" in out


def test_a_recording_is_explained(capsys: pytest.CaptureFixture[str], write: Write, page: dict[str, Any]) -> None:
    """With the configuration that it holds, and the time at which each event was received."""
    recorded: list[dict[str, Any]] = [
        {"line": "recording", "version": 1, "at": "2026-09-10T10:00:00", "plugin": "0.1.0"},
        {"line": "destination", "id": "d-1", "config": {"accountSID": "IRmine", "apiKey": "t", "campaignId": "7"}},
        {"line": "event", "at": 1_789_034_400_000, "via": "router", "request": 1, "to": ["d-1"], "event": page},
    ]
    run(write("recording.ndjson", b"\n".join(map(msgspec.json.encode, recorded))), "--json")
    (line,) = explained(capsys)

    assert (line["destination"], line["form"]["CampaignId"]) == ("d-1", "7")


def test_a_file_that_was_cut_off_is_explained_as_far_as_it_goes(
    capsys: pytest.CaptureFixture[str], write: Write, page: dict[str, Any]
) -> None:
    """And standard error tells that its end is missing."""
    events = b"\n".join(msgspec.json.encode({**page, "messageId": f"m-{number:04}"}) for number in range(3000))
    file = write("cut.gz", gzip.compress(events)[:-2000])
    code = run(file, "--json")
    out, err = capsys.readouterr()

    assert code == 0
    assert 100 < len(out.splitlines()) < 3000
    assert err == f"impact-plugin: {file}: is cut off; everything up to there was explained\n"


def test_a_pipe_is_read(capsys: pytest.CaptureFixture[str], tmp_path: Path, order: dict[str, Any]) -> None:
    """What a shell makes of <(...)."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["sh", "-c", 'printf %s "$1" > "$2"', "sh", json.dumps(order), str(pipe)]):
        code = run(str(pipe), "--json")

    assert code == 0
    assert explained(capsys)[0]["form"]["OrderId"] == "o-1"


def test_a_defect_of_ours_is_shown_and_logged_once(
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[..., None],
    write: Write,
    page: dict[str, Any],
    order: dict[str, Any],
) -> None:
    """As the rejection of the events it met; the others are explained, and nothing of a person is in the log."""
    spoil(KeyError("jane@example.com"))
    bad = {**page, "messageId": "m-bad"}
    code = run(write("events.json", [bad, order, bad]), "--json")
    out, err = capsys.readouterr()
    shown, logged = map(json.loads, out.splitlines()), json.loads(err)

    assert code == 1
    assert [one.get("reason") for one in shown] == ["transform_fault", None, "transform_fault"]
    assert (logged["event"], logged["error"]) == ("transform_fault", "KeyError")
    assert any("step.py:" in place for place in logged["at"])
    assert "jane" not in out + err


def test_what_is_piped_stays_whole_beside_progress_on_a_terminal(tmp_path: Path, write: Write) -> None:
    """The bar is on standard error, and nothing of the output goes there."""
    file = write("events.ndjson", b'{"type":"page","anonymousId":"a"}\n' * 600)
    terminal, side = pty.openpty()
    with (tmp_path / "out").open("wb") as out:
        command = [sys.executable, "-m", "impact_plugin", "explain", file, "--json"]
        process = subprocess.Popen(command, stdout=out, stderr=side)
    os.close(side)
    shown = b""
    # The end of a terminal is an error on Linux.
    with contextlib.suppress(OSError):
        while piece := os.read(terminal, 65_536):
            shown += piece
    os.close(terminal)
    lines = (tmp_path / "out").read_text(encoding="utf-8").splitlines()

    assert process.wait() == 0
    assert [json.loads(line)["event"] for line in lines] == list(range(1, 601))
    assert b"explaining" in shown
    assert b"endpoint_path" not in shown
