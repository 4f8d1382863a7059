"""The log as it is written: one line a batch, nothing secret or personal in it, whatever happens."""

import asyncio
import io
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, get_args

import aiohttp
import msgspec
import pytest
import structlog

from impact_plugin.app import Service
from impact_plugin.config.settings import LogSettings
from impact_plugin.protocols import rudder_processor
from impact_plugin.telemetry import TELEMETRY_EVENTS, Telemetry, configure_logging
from impact_plugin.telemetry.events.faults import RequestFault, TransformFault
from impact_plugin.telemetry.events.http import RequestRefused
from impact_plugin.telemetry.events.process import ServiceStarted
from impact_plugin.testing.fake_impact import FakeImpact
from impact_transformers import Secret

Start = Callable[..., Awaitable[Service]]
Item = Callable[..., dict[str, Any]]


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines on standard error, each of which must be one JSON object; nothing may be on standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    # A service that stops after this has no open file to write to.
    configure_logging(LogSettings(level="error"))
    return [json.loads(line) for line in err.splitlines()]


async def post(http: aiohttp.ClientSession, url: str, body: Any) -> bytes:
    """Send JSON and return the reply."""
    async with http.post(url, data=body if isinstance(body, bytes) else msgspec.json.encode(body)) as response:
        return await response.read()


async def test_a_batch_is_one_line(
    capsys: pytest.CaptureFixture[str], http: aiohttp.ClientSession, service: Service, item: Item, page: dict[str, Any]
) -> None:
    """Two hundred events make one line with their counts; an operator's log does not grow with the traffic."""
    configure_logging(LogSettings())
    await post(http, f"{service.url}/v0/destinations/impact", [item(page)] * 150 + [item({"type": "group"})] * 50)
    await post(http, f"{service.url}/routerTransform", {"input": [item(page)], "destType": "impact"})
    lines = written(capsys)

    assert [(line["event"], line["protocol"], line["events"]) for line in lines] == [
        ("batch_transformed", "processor", 200),
        ("batch_transformed", "router", 1),
    ]
    assert lines[0]["outcomes"] == {"Page/pageload": 150, "Other/filtered/unsupported_type": 50}
    assert lines[0]["level"] == "info"
    assert {"timestamp", "seconds", "bytes_in", "bytes_out"} <= set(lines[0])


async def test_deliveries_and_passed_requests_are_metrics_only(
    capsys: pytest.CaptureFixture[str],
    http: aiohttp.ClientSession,
    start: Start,
    impact: FakeImpact,
    upstream: Any,
) -> None:
    """What happens for every event is counted, not written, at the usual level."""
    service = await start(rudder={"upstream": upstream.url})
    configure_logging(LogSettings())
    await post(http, f"{service.url}/customTransform", b"[]")
    form = {"CampaignId": "1", "EventDate": "2026-09-10T10:00:00Z", "CustomProfileId": "a"}
    delivery = {"endpoint": f"{impact.url}/PageLoad", "metadata": [{"jobId": 1}], "body": {"FORM": form}}
    await post(http, f"{service.url}/v1/destinations/impact/proxy", delivery)

    assert written(capsys) == []


async def test_nothing_personal_or_secret_is_written_whatever_is_sent(
    capsys: pytest.CaptureFixture[str],
    http: aiohttp.ClientSession,
    service: Service,
    item: Item,
    page: dict[str, Any],
    config: dict[str, Any],
    spoil: Callable[..., None],
) -> None:
    """Good, bad, broken and unreadable events at the chattiest level: no address, id, token or body shows."""
    configure_logging(LogSettings(level="debug"))
    spoil(ValueError("jane@example.com in an event"))
    person = {**page, "anonymousId": "anon-4711", "userId": "jane@example.com", "traits": {"email": "jane@example.com"}}
    batch = [
        item(person),
        item({**person, "messageId": "m-bad"}),
        item({"type": "jane@example.com"}),
        item({"type": "track", "event": "Order Completed", "properties": {"currency": "jane@example.com"}}),
        item(person, config={**config, "campaignId": "jane@example.com"}),
    ]
    await post(http, f"{service.url}/v0/destinations/impact", batch)
    await post(http, f"{service.url}/routerTransform", {"input": batch, "destType": "impact"})
    for path in ("/v0/destinations/impact", "/routerTransform", "/v1/destinations/impact/proxy"):
        await post(http, service.url + path, b'{"endpoint":{"jane@example.com":1},"anon-4711":"test-token-secret"}')
        await post(http, service.url + path, b'[{"jane@example.com":"anon-4711","test-token-secret":')
    await post(http, f"{service.url}/jane@example.com/test-token-secret", b"")
    _, err = capsys.readouterr()
    configure_logging(LogSettings(level="error"))

    assert err.count("\n") >= 8
    for secret in ("jane", "anon-4711", "test-token-secret"):
        assert secret not in err


async def test_an_exception_shows_where_and_not_what(
    capsys: pytest.CaptureFixture[str],
    http: aiohttp.ClientSession,
    service: Service,
    item: Item,
    page: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The line names the exception's type and the places in our code; its message may quote the event."""
    configure_logging(LogSettings())

    def broken(*_given: Any) -> Any:
        raise ValueError("jane the outer") from KeyError("jane the inner")

    monkeypatch.setattr("impact_plugin.transformation.step.prepare", broken)
    await post(http, f"{service.url}/v0/destinations/impact", [item(page)])
    fault, batch = written(capsys)

    assert (fault["event"], fault["level"], fault["error"]) == ("transform_fault", "error", "ValueError")
    assert any("step.py:" in place for place in fault["at"])
    assert "jane" not in json.dumps(fault)
    assert batch["outcomes"] == {"Page/rejected/transform_fault": 1}


class Full(io.StringIO):
    """A standard error that takes nothing more, like a full disk or a closed pipe."""

    def write(self, _text: str) -> int:
        """Refuse."""
        raise OSError(28, "No space left on device")


async def test_a_log_that_cannot_be_written_stops_no_batch(
    http: aiohttp.ClientSession,
    service: Service,
    item: Item,
    page: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full disk costs log lines; it must not turn batches into 503s, or 500s that crash the router in the end."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Full())
        configure_logging(LogSettings())
    async with http.post(f"{service.url}/v0/destinations/impact", json=[item(page)]) as good:
        entries = await good.read()
    async with http.post(f"{service.url}/v0/destinations/impact", data=b"{") as bad:
        await bad.read()
    configure_logging(LogSettings(level="error"))

    assert (good.status, bad.status) == (200, 503)
    assert msgspec.json.decode(entries)[0]["statusCode"] == 200


def test_secrets_are_masked_by_type_and_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    """A Secret never prints, nor does what stands under the name of one, at any depth and in any spelling."""
    configure_logging(LogSettings())
    structlog.get_logger().info(
        "x",
        wrapped=Secret("hidden-1"),
        Authorization="Basic hidden-2",
        apiKey="hidden-3",
        auth_token="hidden-4",
        nested={
            "authToken": "hidden-5",
            "list": [{"api_key": "hidden-6"}, Secret("hidden-7"), ("a", Secret("hidden-8"))],
        },
        token="hidden-9",
        secret="hidden-10",
        plain="shown",
    )
    (line,) = written(capsys)

    assert "hidden" not in json.dumps(line)
    assert (line["wrapped"], line["Authorization"], line["plain"]) == ("***", "***", "shown")


@pytest.mark.parametrize(
    "text",
    [
        "jane@example.com",
        "to <jane@example.com>, now",
        "https://shop.example.com/?e=jane%40example.com",
        "https://shop.example.com/?e=jane%2540example.com",
        "mailto:jane@example.com?subject=x",
    ],
)
def test_addresses_are_redacted_in_any_text(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """In values, in the event's name, in lists and below."""
    configure_logging(LogSettings())
    structlog.get_logger().info(text, value=text, nested={"list": [text, (text,)]})
    (line,) = written(capsys)

    assert "jane" not in json.dumps(line)


def test_addresses_are_redacted_in_keys(capsys: pytest.CaptureFixture[str]) -> None:
    """A mapping keyed by what a sender wrote shows no address either."""
    configure_logging(LogSettings())
    structlog.get_logger().info("x", counts={"jane@example.com": 1})
    (line,) = written(capsys)

    assert "jane" not in json.dumps(line)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["service_started", "request_refused", "transform_fault"]),
        ("info", ["service_started", "request_refused", "transform_fault"]),
        ("warning", ["request_refused", "transform_fault"]),
        ("error", ["transform_fault"]),
    ],
)
def test_the_level_decides_what_is_written(
    capsys: pytest.CaptureFixture[str], level: Literal["debug", "info", "warning", "error"], expected: list[str]
) -> None:
    """``log.level`` is the least serious level that shows; the metrics count all the same."""
    configure_logging(LogSettings(level=level))
    telemetry = Telemetry()
    telemetry.emit(ServiceStarted("u", "o", "i", "v", 0))
    telemetry.emit(RequestRefused("other", 503, "not_ours", "d"))
    telemetry.emit(TransformFault("KeyError", KeyError()))

    assert [line["event"] for line in written(capsys)] == expected
    assert telemetry.metrics.registry.get_sample_value("impact_plugin_faults_total", {"where": "event"}) == 1


def test_lines_are_json_or_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """``log.format`` chooses; the console's form is redacted alike."""
    configure_logging(LogSettings(format="console"))
    structlog.get_logger().info("batch", who="jane@example.com", token="hidden", key=Secret("hidden"))
    _, console = capsys.readouterr()
    configure_logging(LogSettings(format="json"))
    structlog.get_logger().info("batch")
    (line,) = written(capsys)

    with pytest.raises(json.JSONDecodeError):
        json.loads(console)
    assert "batch" in console
    assert "jane" not in console
    assert "hidden" not in console
    assert line["event"] == "batch"


def test_every_fact_can_be_emitted(capsys: pytest.CaptureFixture[str]) -> None:
    """Each kind of event the service reports has its level, its metric and a line that renders."""
    configure_logging(LogSettings(level="debug"))
    telemetry = Telemetry()
    samples: dict[type[Any], Any] = {
        str: "text", int: 1, float: 0.5, bool: True, BaseException: ValueError("jane"), Counter[str]: Counter({"a": 1}),
        Counter[tuple[str, str, str]]: Counter({("Page", "filtered", "page_disabled"): 1}),
        Mapping[str, int]: {"claims": 1},
        Mapping[tuple[str, str], int]: {("pageload", "open"): 1}, tuple[str, ...]: ("eu",),
        Counter[tuple[str, str]]: Counter({("stored", ""): 1}),
    }  # fmt: skip
    for kind in TELEMETRY_EVENTS:
        values = {
            field.name: samples.get(field.type) or get_args(field.type)[0] for field in msgspec.structs.fields(kind)
        }
        telemetry.emit(kind(**values))
    lines = written(capsys)

    assert len(TELEMETRY_EVENTS) >= 8
    assert len(lines) >= 6
    assert "jane" not in json.dumps(lines)


async def test_a_refused_request_is_a_warning_with_its_reason(
    capsys: pytest.CaptureFixture[str], http: aiohttp.ClientSession, service: Service
) -> None:
    """The operator reads which route, why, and what to do."""
    configure_logging(LogSettings())
    await post(http, f"{service.url}/v0/destinations/impact", b"{")
    await post(http, f"{service.url}/nothing/at/all", b"")
    first, second = written(capsys)

    assert (first["event"], first["level"], first["route"], first["reason"]) == (
        "request_refused", "warning", "/v0/destinations/impact", "undecodable_body",
    )  # fmt: skip
    assert (second["route"], second["reason"]) == ("other", "not_ours")


async def test_a_request_fault_is_an_error_with_its_place(
    capsys: pytest.CaptureFixture[str],
    http: aiohttp.ClientSession,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A defect of ours can be found from the line alone."""
    configure_logging(LogSettings())

    async def broken(*_given: Any, **_named: Any) -> bytes:
        await asyncio.sleep(0)
        raise RuntimeError("jane@example.com")

    monkeypatch.setattr(rudder_processor, "handle", broken)
    await post(http, f"{service.url}/v0/destinations/impact", b"[]")
    (line,) = written(capsys)

    assert (line["event"], line["level"], line["error"]) == ("request_fault", "error", "RuntimeError")
    assert any("test_telemetry.py:" in place for place in line["at"])
    assert "jane" not in json.dumps(line)


def test_an_exception_without_a_traceback_renders(capsys: pytest.CaptureFixture[str]) -> None:
    """An exception that was never raised has no places, and harms nothing."""
    configure_logging(LogSettings())
    Telemetry().emit(RequestFault("other", "KeyError", KeyError("jane")))
    (line,) = written(capsys)

    assert line["at"] == []
