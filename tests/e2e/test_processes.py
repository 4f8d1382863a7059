"""The commands as processes: started from their settings, stopped by signals, restarted after a crash."""

import json
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

SAMPLES = Path(__file__).parents[1] / "samples" / "rudderstack"

Launch = Callable[..., Any]
FreePort = Callable[[], int]
UntilUp = Callable[[str], None]


def post(url: str, body: bytes) -> tuple[int, dict[str, str], Any]:
    """Send JSON as curl does, and decode the answer."""
    with urlopen(Request(url, body, {"Content-Type": "application/json"}), timeout=15) as response:  # noqa: S310 - local
        return response.status, dict(response.headers), json.loads(response.read())


def fetch(url: str) -> Any:
    """Fetch JSON."""
    with urlopen(url, timeout=15) as response:  # noqa: S310 - local
        return json.loads(response.read())


def script(fake_impact: str, rules: list[dict[str, Any]]) -> None:
    """Tell the stand-in how to behave."""
    with urlopen(Request(f"{fake_impact}/_script", json.dumps({"rules": rules}).encode(), method="PUT"), timeout=15):  # noqa: S310 - local
        return


class Plugin:
    """A running ``serve`` process and its two addresses."""

    def __init__(self, process: Any, port: int, operator_port: int) -> None:
        self.process = process
        self.port = port
        self.operator_port = operator_port
        self.url = f"http://127.0.0.1:{port}"


@pytest.fixture(name="serve")
def serve_fixture(launch: Launch, free_port: FreePort, fake_impact: str, until_up: UntilUp) -> Callable[..., Plugin]:
    """Lend a starter of services that send to the stand-in's process."""

    def serve(port: int | None = None, **variables: str) -> Plugin:
        chosen, operator_port = port or free_port(), free_port()
        process = launch(
            "serve",
            SERVER__PORT=str(chosen),
            SERVER__OPERATOR_PORT=str(operator_port),
            IMPACT__TRACKING_URL=fake_impact,
            IMPACT__API_URL=fake_impact,
            **variables,
        )
        until_up(f"http://127.0.0.1:{operator_port}/ready")
        return Plugin(process, chosen, operator_port)

    return serve


def delivery(fake_impact: str) -> bytes:
    """The sample of the delivery proxy, addressed to the stand-in."""
    body = json.loads((SAMPLES / "proxy_v1_request.json").read_bytes())
    body["endpoint"] = f"{fake_impact}/PageLoad"
    body["body"]["FORM"] = {"CampaignId": "1", "EventDate": "2026-09-10T10:00:00Z", "CustomProfileId": "a-1"}
    return json.dumps(body).encode()


def test_from_a_sample_body_to_a_conversion(serve: Callable[..., Plugin], fake_impact: str) -> None:
    """What the README shows: transform the router's sample, send what came out, and see it arrive."""
    plugin = serve()
    status, headers, entries = post(
        f"{plugin.url}/v0/destinations/impact", (SAMPLES / "processor_request_plain.json").read_bytes()
    )
    output = entries[0]["output"]
    proxied = {**output, "metadata": [entries[0]["metadata"]], "destinationConfig": {}}
    _, _, told = post(f"{plugin.url}/v1/destinations/impact/proxy", json.dumps(proxied).encode())
    calls = fetch(f"{fake_impact}/_calls")["calls"]

    assert (status, headers["apiVersion"], entries[0]["statusCode"]) == (200, "2", 200)
    assert output["endpoint"] == f"{fake_impact}/Advertisers/IRlocalSID/Conversions"
    assert told["output"]["response"][0]["statusCode"] == 200
    assert [(call["path"], call["accepted"]) for call in calls] == [("/Advertisers/IRlocalSID/Conversions", True)]


def test_every_line_of_the_log_is_json(serve: Callable[..., Plugin]) -> None:
    """Also what the HTTP library has to say about requests that are no HTTP."""
    plugin = serve()
    post(f"{plugin.url}/v0/destinations/impact", b"[]")
    for garbage in (b"GET jane@example.com\r\n\r\n", b"\x16\x03\x01\x00\xa5\x01\x00", b"POST / HTTP/9.9\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", plugin.port), 15) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    plugin.process.send(signal.SIGTERM)
    code = plugin.process.wait()
    log = plugin.process.log
    lines = [json.loads(line) for line in log.splitlines()]

    assert code == 0
    assert [line["event"] for line in lines[1:3]] == ["service_started", "batch_transformed"]
    assert lines[-1]["event"] == "service_stopping"
    assert "jane" not in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_running_request_finish(
    serve: Callable[..., Plugin], fake_impact: str, number: signal.Signals
) -> None:
    """A rolling restart loses no answer, and ends with exit code 0."""
    plugin = serve()
    script(fake_impact, [{"delay": 0.8}])
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.append(post(f"{plugin.url}/v1/destinations/impact/proxy", delivery(fake_impact)))
    )
    asking.start()
    while not fetch(f"{fake_impact}/_calls")["calls"]:
        time.sleep(0.02)
    plugin.process.send(number)
    code = plugin.process.wait()
    asking.join(15)

    assert code == 0
    assert answers[0][2]["output"]["response"][0]["statusCode"] == 200
    assert "Traceback" not in plugin.process.log


def test_after_a_crash_the_same_port_works_at_once(serve: Callable[..., Plugin]) -> None:
    """Connections that the dead process left behind do not keep the next one from listening."""
    plugin = serve()
    post(f"{plugin.url}/v0/destinations/impact", b"[]")
    plugin.process.send(signal.SIGKILL)
    killed = plugin.process.wait()
    again = serve(plugin.port)

    assert killed == -signal.SIGKILL
    assert post(f"{again.url}/v0/destinations/impact", b"[]")[2] == []


def one_line_of(process: Any) -> str:
    """The one line that a command which cannot start leaves, with exit code 2."""
    code = process.wait()
    log: str = process.log
    assert "Traceback" not in log, log[-2000:]
    assert code == 2
    # The state is opened before the ports, and that is a line of its own.
    told = [line for line in log.splitlines() if "state_loaded" not in line]
    assert len(told) == 1
    return told[0]


def test_a_port_in_use_is_told_in_one_line(
    serve: Callable[..., Plugin], launch: Launch, free_port: FreePort, tmp_path: Path
) -> None:
    """The second service names the port, and leaves the first alone."""
    first = serve()
    line = one_line_of(
        launch(
            "serve",
            SERVER__PORT=str(first.port),
            SERVER__OPERATOR_PORT=str(free_port()),
            STATE__DIR=str(tmp_path / "other"),
        )
    )

    assert str(first.port) in line
    assert post(f"{first.url}/v0/destinations/impact", b"[]")[2] == []


def test_an_operators_port_in_use_is_told_in_one_line(
    serve: Callable[..., Plugin], launch: Launch, free_port: FreePort, tmp_path: Path
) -> None:
    """As above, for the other port."""
    first = serve()
    line = one_line_of(
        launch(
            "serve",
            SERVER__PORT=str(free_port()),
            SERVER__OPERATOR_PORT=str(first.operator_port),
            STATE__DIR=str(tmp_path / "other"),
        )
    )

    assert str(first.operator_port) in line


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"SERVER__PRT": "1"}, "IMPACT_PLUGIN__SERVER__PRT"),
        ({"SERVER__PORT": "many"}, "IMPACT_PLUGIN__SERVER__PORT"),
        ({"SERVER__PORT": "70000"}, "IMPACT_PLUGIN__SERVER__PORT"),
        ({"SERVER__HOST": "no.such.host.invalid"}, "no.such.host.invalid"),
        ({"STATE__DIR": "/dev/null/state"}, "/dev/null/state"),
        ({"IMPACT__API_URL": "api.impact.com"}, "IMPACT_PLUGIN__IMPACT__API_URL"),
    ],
    ids=lambda value: next(iter(value.items())) if isinstance(value, dict) else "",
)
def test_settings_that_cannot_work_are_told_in_one_line(
    launch: Launch, free_port: FreePort, variables: dict[str, str], named: str
) -> None:
    """The service does not start with a traceback where the operator made a mistake."""
    ports = {"SERVER__PORT": str(free_port()), "SERVER__OPERATOR_PORT": str(free_port())}

    assert named in one_line_of(launch("serve", **{**ports, **variables}))


def test_options_of_the_command_line_win(
    launch: Launch, free_port: FreePort, until_up: UntilUp, tmp_path: Path
) -> None:
    """Options over environment over file."""
    port, operator_port, other = free_port(), free_port(), free_port()
    file = tmp_path / "settings.toml"
    file.write_text(f'[server]\nport = {other}\n[rudder]\ndestination_types = ["FROM_FILE"]\n', encoding="utf-8")
    process = launch(
        "serve", "--config", str(file), "--port", str(port), "--operator-port", str(operator_port),
        SERVER__PORT=str(other), SERVER__OPERATOR_PORT=str(other),
    )  # fmt: skip
    until_up(f"http://127.0.0.1:{operator_port}/ready")

    assert fetch(f"http://127.0.0.1:{port}/features")["routerTransform"] == {"FROM_FILE": True}
    process.send(signal.SIGTERM)
    assert process.wait() == 0


def test_the_stand_in_is_a_process_of_its_own(launch: Launch) -> None:
    """``fake-impact`` prints its address, and a signal ends it with exit code 0."""
    process = launch("fake-impact", "--port", "0")
    url = process.line().split()[-1]
    calls = fetch(f"{url}/_calls")
    process.send(signal.SIGTERM)

    assert calls == {"calls": [], "duplicates": 0}
    assert process.wait() == 0
    assert process.log == ""
