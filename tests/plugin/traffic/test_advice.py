"""``impact-plugin validate --orders``: which orderAmount fits recorded orders, and which names lack an entry."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

import impact_plugin.traffic.advice as module
from impact_plugin.__main__ import app
from impact_plugin.config.destinations import Destinations
from impact_plugin.traffic.advice import OrderAdvice, findings_of, read_orders, remarks_on
from impact_plugin.traffic.destinations import TrafficDestinations
from impact_plugin.traffic.reading import Traffic
from impact_transformers.advice import Advice, Fit

DAY: Final = Path(__file__).parents[3] / "tools" / "day.ndjson.gz"
CONFIG: Final = {"accountSID": "IRtest", "apiKey": "test-token-secret", "campaignId": "23224"}

Write = Callable[[str, Any], Path]


@pytest.fixture(name="write")
def write_fixture(tmp_path: Path) -> Write:
    """Lend a writer of files: lines for a list, else one document; text as it is."""

    def write(name: str, content: Any) -> Path:
        path = tmp_path / name
        lines = content if isinstance(content, list) else [content]
        path.write_bytes(content.encode() if isinstance(content, str) else b"\n".join(map(msgspec.json.encode, lines)))
        return path

    return write


def order(number: int, properties: Mapping[str, Any], event: str = "Order Completed") -> dict[str, Any]:
    """An order with these fields."""
    return {
        "type": "track",
        "event": event,
        "messageId": f"m-{number}",
        "anonymousId": "a-1",
        "properties": {"order_id": f"o-{number}", "currency": "EUR", **properties},
    }


GROSS: Final = {"total": 126, "revenue": 110, "discount": 10, "tax": 20, "shipping": 6}
"""A shop whose revenue is before the discount."""

DOUBTFUL: Final = {"subtotal": 100, "revenue": 80}


def run(*words: str) -> int:
    """Call the command in this process."""
    code = app(["validate", *words], result_action="return_value")
    assert isinstance(code, int)
    return code


def test_the_setting_that_fits_is_named_with_its_share(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """With a warning if auto had to guess for some of the orders; what the orders do not tell is said."""
    events = [*(order(number, GROSS) for number in range(3)), order(9, DOUBTFUL)]
    config, file = write("config.json", CONFIG), write("events.ndjson", events)

    assert 0 == run(str(config), "--orders", str(file))
    lines = capsys.readouterr().out.splitlines()
    assert "config: 4 orders, of which 3 tell by themselves what they are worth" in lines
    assert "revenue-discount\t3\t100%" in lines
    assert "warning: config.orderAmount: auto has to guess for 1 of 4 recorded orders;" in lines[-2]
    assert 'orderAmount = "revenue-discount" fits 100%' in lines[-2]
    assert 1 == run(str(config), "--orders", str(file), "--deny-warnings")


def test_a_setting_that_does_not_fit_is_a_warning(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """With the share of the orders that it fits."""
    file = write("events.ndjson", [order(number, GROSS) for number in range(3)])
    config = write("config.json", {**CONFIG, "orderAmount": "revenue"})

    assert 0 == run(str(config), "--orders", str(file))
    lines = capsys.readouterr().out.splitlines()
    assert "revenue\t0\t0%" in lines
    (warning,) = [line for line in lines if line.startswith("warning")]
    assert "warning: config.orderAmount: revenue fits 0% of the recorded orders, " in warning
    assert 'orderAmount = "revenue-discount" fits 100% of those that tell' in warning


def test_a_setting_that_fits_is_no_warning(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to do."""
    file = write("events.ndjson", [order(number, GROSS) for number in range(3)])
    config = write("config.json", {**CONFIG, "orderAmount": "revenue-discount"})

    assert 0 == run(str(config), "--orders", str(file), "--deny-warnings")
    assert "ok: no mistakes found" in capsys.readouterr().out


def test_each_destination_of_the_services_file_reads_the_orders(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its own settings and by its path."""
    text = "".join(
        f'[destinations.{name}]\naccountSID = "IRtest"\napiKey = "t"\ncampaignId = "{number}"\n{more}'
        for number, (name, more) in enumerate((("eu", ""), ("us", 'orderAmount = "revenue-discount"\n')), 1)
    )
    file = write("events.ndjson", [order(number, GROSS) for number in range(3)])

    assert 0 == run(str(write("impact.toml", text)), "--orders", str(file), "--json")
    result = json.loads(capsys.readouterr().out)
    assert [("eu", "auto"), ("us", "revenue-discount")] == [
        (one["destination"], one["order_amount"]) for one in result["orders"]
    ]


def test_names_that_look_like_an_order_are_pointed_out(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """How often, and where to name them; not those of refunds and checkouts, and no address in a name."""
    names = ["Purchase", "Purchase", "jane@example.com bought", "Order Refunded", "Checkout Started"]
    events = [order(number, {"subtotal": 5}, name) for number, name in enumerate(names)]

    assert 0 == run(str(write("config.json", CONFIG)), "--orders", str(write("events.ndjson", events)))
    found = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert [
        "'Purchase' has an order id and an amount in 2 of",
        "'redacted bought' has an order id and an amount in 1 of",
    ] == [
        line.removeprefix("warning: config.actionEventNames: ").partition(" the recorded events")[0] for line in found
    ]


def test_orders_are_not_read_with_a_configuration_that_cannot_be_used(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its mistakes come first."""
    config = write("config.json", {**CONFIG, "campaignId": "twelve"})

    assert 2 == run(str(config), "--orders", str(DAY), "--json")
    assert [] == json.loads(capsys.readouterr().out)["orders"]


def test_without_a_configuration_the_recording_brings_its_own(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Or a destination without settings reads the events."""
    lines = [
        {"line": "recording", "version": 1, "at": "2026-09-10T10:00:00", "plugin": "0.1.0"},
        {"line": "destination", "id": "d", "config": {**CONFIG, "apiKey": "concealed", "orderAmount": "revenue"}},
        {"line": "event", "at": 1, "via": "processor", "request": 1, "to": ["d"], "event": order(1, GROSS)},
    ]
    for content, expected in ((lines, ("d", "revenue")), ([order(1, GROSS)], ("demonstration", "auto"))):
        assert 0 == run("--orders", str(write("events.ndjson", content)), "--json")
        (one,) = json.loads(capsys.readouterr().out)["orders"]
        assert expected == (one["destination"], one["order_amount"])


def read(events: list[dict[str, Any]], path: Path) -> OrderAdvice:
    """What these orders say to a destination without settings."""
    path.write_bytes(b"\n".join(map(msgspec.json.encode, events)))
    destinations = TrafficDestinations({}, [Destinations({}).of_config("eu", CONFIG)])

    def fail(error: Exception) -> None:
        raise error

    (one,) = read_orders(Traffic([path]), destinations, fail)
    return one


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first orders and names stand for the rest."""
    monkeypatch.setattr(module, "MAX_ORDERS", 5)
    monkeypatch.setattr(module, "MAX_NAMES", 3)
    events = [order(number, GROSS, f"Purchase {number}" if number % 2 else "Order Completed") for number in range(40)]
    one = read(events, tmp_path / "events")

    assert (5, 3) == (one.advice.orders, len(one.unnamed))


def test_leads_say_nothing_about_orders(tmp_path: Path) -> None:
    """Their amounts follow other rules."""
    events = [{**order(1, GROSS), "event": "Application Installed"}, order(2, GROSS)]

    assert 1 == read(events, tmp_path / "events").advice.orders


@pytest.mark.parametrize(
    ("advice", "remarks"),
    [
        (
            Advice(100, 20, 20, 20, 20, (Fit("subtotal", 20),)),
            ["100 orders, of which 20 tell by themselves what they are worth",
                "too few of them tell to recommend an orderAmount"],
        ),
        (
            Advice(4, 4, 0, 4, 0, (Fit("subtotal", 4), Fit("subtotal-discount", 4), Fit("revenue", 3))),
            [
                "4 orders, of which 4 tell by themselves what they are worth",
                "as many orders fit subtotal-discount: these orders do not tell them apart",
                "none of those has discount or shipping: how the shop writes that stays unknown",
            ],
        ),
        (
            Advice(0, 0, 0, 0, 0, ()),
            ["0 orders, of which 0 tell by themselves what they are worth",
                "too few of them tell to recommend an orderAmount"],
        ),
    ],
)  # fmt: skip
def test_what_the_orders_do_not_tell_is_said(advice: Advice, remarks: list[str]) -> None:
    """A recommendation is worth what its orders are."""
    one = OrderAdvice("eu", "auto", advice, 0, {})

    assert remarks == remarks_on(one)
    assert [] == [*findings_of(one, "destinations.eu")]


def test_the_recorded_day_tells_the_convention_of_its_shop(capsys: pytest.CaptureFixture[str]) -> None:
    """Most of it writes Segment's own example; what all systems have in common is the total."""
    assert 0 == run("--orders", str(DAY), "--json")
    (one,) = json.loads(capsys.readouterr().out)["orders"]

    assert "total-tax-shipping" == one["advice"]["fits"][0]["convention"]
