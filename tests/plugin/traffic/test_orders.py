"""Orders of a replay are counted once, in number and in money, and a missing one is named with its worth and reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import impact_plugin.traffic.orders as module
from impact_plugin.__main__ import app
from impact_plugin.delivery.pipeline import OrderIdentity
from impact_plugin.traffic import summary
from impact_plugin.traffic.destinations import TrafficDestinations
from impact_plugin.traffic.orders import FlaggedOrder, OrderSum, OrderTally
from impact_plugin.traffic.reading import TrafficEvent
from impact_plugin.traffic.replay import ReplayRun
from impact_transformers import Notice, NoticeReason

Config = dict[str, Any]
CONFIG: Final[Config] = {"accountSID": "IRtest", "apiKey": "test-token-secret", "campaignId": "23224"}
DOUBT: Final = Notice(NoticeReason.AMOUNTS_DISAGREE, "total 5.00, lines 4.00", "OrderSubTotalPostDiscount")


def raise_fault(error: Exception) -> None:
    """Fail by the defect that was reported."""
    raise error


def tally_of(events: list[dict[str, Any]], config: Config | None = None) -> OrderTally:
    """The orders of a replay of these events, each in a request of its own."""
    run = ReplayRun(TrafficDestinations({}), raise_fault)
    for number, event in enumerate(events, 1):
        raw = msgspec.Raw(msgspec.json.encode(event))
        run.feed(number, [TrafficEvent(raw, config=CONFIG if config is None else config)])
    return run.sums.tally


def order(order_id: str | None = "o-1", **changes: Any) -> dict[str, Any]:
    """An order of 10 euros; ``changes`` are members of the event."""
    properties = {"subtotal": 10, "currency": "EUR"} | ({} if order_id is None else {"order_id": order_id})
    return {
        "type": "track",
        "event": "Order Completed",
        "messageId": f"m-{order_id}",
        "anonymousId": "a-1",
        "timestamp": "2026-09-10T10:00:00Z",
        "properties": properties,
        **changes,
    }


def in_short(sums: dict[Any, OrderSum]) -> dict[Any, tuple[int, int]]:
    """Numbers and hundredths."""
    return {key: (one.orders, one.cents) for key, one in sums.items()}


def missing_of(tally: OrderTally) -> list[tuple[str, int | None, str, str, str]]:
    """Id, worth, currency, outcome and reason of the missing orders."""
    return [(one.order_id, one.cents, one.currency, one.outcome, one.reason) for one in tally.missing.values()]


def test_an_order_that_comes_again_is_counted_once() -> None:
    """In number and in money; its repeats are counted apart, with the one whose amount is another."""
    again = order(messageId="m-2", properties={"order_id": "o-1", "subtotal": 12, "currency": "EUR"})
    tally = tally_of([order(), order(messageId="m-1"), again, order("o-2")])

    assert {"EUR": (2, 2000)} == in_short(tally.sent)
    assert {"EUR": (2, 2200)} == in_short(tally.repeated)
    assert 1 == tally.changed


def test_the_same_id_in_another_program_or_of_another_event_type_is_another_order() -> None:
    """impact.com knows an order by account, program, event type and id."""
    two = {**CONFIG, "campaignId": "99"}
    run = ReplayRun(TrafficDestinations({}), raise_fault)
    types = {**CONFIG, "eventTypes": {"Signed Up": {"code": "SIGNUP", "kind": "lead"}}}
    for number, (event, config) in enumerate(((order(), CONFIG), (order(), two), (order(event="Signed Up"), types)), 1):
        run.feed(number, [TrafficEvent(msgspec.Raw(msgspec.json.encode(event)), config=config)])

    assert {"EUR": (3, 3000)} == in_short(run.sums.tally.sent)


@pytest.mark.parametrize(
    ("event", "config", "missing"),
    [
        (order(None), {}, ("", 1000, "EUR", "rejected", "missing_order_id")),
        (
            order("undefined"), {},
            ("undefined", 1000, "EUR", "rejected", "missing_order_id"),
        ),
        (order(anonymousId=None), {}, ("o-1", 1000, "EUR", "rejected", "missing_attribution_key")),
        (
            order(properties={"order_id": "o-1", "total": "five", "currency": "EUR"}), {},
            ("o-1", None, "EUR", "rejected", "invalid_amount"),
        ),
        (
            order(context={"consent": False}), {"consentGate": "denied", "consentPaths": ["context.consent"]},
            ("o-1", 1000, "EUR", "filtered", "consent_denied"),
        ),
        (
            order(context={}), {"consentGate": "required", "consentPaths": ["context.consent"]},
            ("o-1", 1000, "EUR", "filtered", "consent_denied"),
        ),
        (order(event="Purchase"), {}, ("o-1", 1000, "EUR", "pageload", "looks_like_order")),
        (order(event="Purchase"), {"unmappedTrack": "skip"}, ("o-1", 1000, "EUR", "filtered", "unmapped_track")),
        (order(), {"campaignId": "twelve"}, ("o-1", 1000, "EUR", "rejected", "configuration")),
        (
            order(), {"campaignId": "{{ event.properties.program }}"},
            ("o-1", 1000, "EUR", "rejected", "configuration"),
        ),
        (order(type=None), {}, ("o-1", 1000, "EUR", "rejected", "missing_type")),
        (
            order(properties={"order_id": "o-1", "currency": "JPY", "total": 1100, "tax": 100}, anonymousId=None), {},
            ("o-1", 100000, "JPY", "rejected", "missing_attribution_key"),
        ),
        (
            order("jane@example.com", anonymousId=None), {"parameterSources": {"OrderId": []}},
            ("redacted", 1000, "EUR", "rejected", "missing_order_id"),
        ),
    ],
)  # fmt: skip
def test_an_order_that_no_conversion_reports_is_named(
    event: dict[str, Any], config: Config, missing: tuple[str, int | None, str, str, str]
) -> None:
    """With its id, what it is worth, and the reason; also when the configuration is to blame."""
    tally = tally_of([event, {**event, "messageId": event["messageId"]}], {**CONFIG, **config})

    assert [missing] == missing_of(tally)
    assert {} == tally.sent


@pytest.mark.parametrize(
    ("event", "config"),
    [
        (order(event="Order Refunded"), {}),
        (order(event="Checkout Started"), {}),
        (order(type="page", anonymousId=None), {}),
        (order(event="Product Viewed", properties={"sku": "s"}, anonymousId=None), {}),
        (
            {"type": "page", "context": {"consent": False}},
            {"consentGate": "denied", "consentPaths": ["context.consent"]},
        ),
        ({"anonymousId": "a-1", "properties": {}}, {}),
    ],
)  # fmt: skip
def test_what_is_no_order_is_not_missed(event: dict[str, Any], config: Config) -> None:
    """Neither what happened to an order later, nor a step towards it, nor a page."""
    assert [] == missing_of(tally_of([event], {**CONFIG, **config}))


@pytest.mark.parametrize("name", ["Order Completed", "Purchase"])
def test_an_order_that_is_sent_at_last_is_not_missing(name: str) -> None:
    """Rejected or taken for a visit at first, or after it was sent: somebody else reported it."""
    unsent = order(event=name, messageId="m-2", **({"anonymousId": None} if name == "Order Completed" else {}))

    for events in ([unsent, order()], [order(), unsent]):
        tally = tally_of(events)
        assert [] == missing_of(tally)
        assert {"EUR": (1, 1000)} == in_short(tally.sent)


def test_two_orders_without_an_id_are_two() -> None:
    """Their messages tell them apart; the same message again is the same order."""
    events = [order(None, messageId=name) for name in ("m-1", "m-2", "m-1", None, None)]

    assert {("rejected", "missing_order_id", "EUR"): (4, 4000)} == in_short(tally_of(events).missing_sums)


def test_leads_and_installs_count_without_money() -> None:
    """They have an id made of their message."""
    lead = order(None, event="Signed Up", messageId="m-1", properties={})
    tally = tally_of([lead, lead], {**CONFIG, "eventTypes": {"Signed Up": {"code": "SIGNUP", "kind": "lead"}}})

    assert ({"": (1, 0)}, {"": (1, 0)}) == (in_short(tally.sent), in_short(tally.repeated))


def test_an_amount_that_had_to_be_guessed_is_named_and_warned_of() -> None:
    """With the readings that the notice names; orderAmount settles it."""
    doubtful = {"order_id": "o-2", "subtotal": 100, "revenue": 80, "currency": "EUR"}
    tally = tally_of([order(), order("o-2", properties=doubtful)])
    (one,) = tally.doubtful

    assert ("o-2", "conversions", "amounts_disagree") == (one.order_id, one.outcome, one.reason)
    assert "revenue 80.00" in one.detail
    assert 1 == tally.guessed
    assert {("conversions", "amounts_disagree", "EUR"): (1, 10000)} == in_short(tally.doubtful_sums)
    assert "1 of 2 orders" in summary.order_warnings(tally)[0]


def identity(number: int) -> OrderIdentity:
    """The order of this number."""
    return OrderIdentity("IRtest", "1", "code:A", f"o-{number}")


def flagged(number: int, cents: int | None = 100) -> FlaggedOrder:
    """The order of this number, as a replay describes it."""
    return FlaggedOrder(number, f"m-{number}", "eu", f"o-{number}", cents, "EUR", "rejected", "missing_order_id", "")


@given(st.lists(st.integers(0, 60), max_size=200), st.integers(2, 40))
def test_memory_is_bounded_and_what_is_forgotten_is_told(numbers: list[int], limit: int) -> None:
    """A repeat within the last half of the limit is always recognised; nothing is told to be forgotten that is not."""
    tally = OrderTally()
    last: dict[int, int] = {}
    for place, number in enumerate(numbers):
        before = len(tally.recent) + len(tally.earlier), sum(one.orders for one in tally.repeated.values())
        tally.add_sent(identity(number), flagged(number), (), limit)
        repeated = sum(one.orders for one in tally.repeated.values()) > before[1]
        since = len(set(numbers[last[number] + 1 : place])) if number in last else None
        assert repeated or since is None or since >= limit // 2
        assert len(tally.recent) + len(tally.earlier) <= limit
        last[number] = place

    counted = sum(one.orders for one in tally.sent.values())
    assert counted == len(set(numbers)) or tally.forgets


def test_missing_and_doubtful_orders_beyond_the_bound_are_counted_and_not_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their money is in the sums all the same."""
    monkeypatch.setattr(module, "MAX_NAMED", 3)
    tally = OrderTally()
    for number in range(5):
        tally.add_missing(identity(number), flagged(number))
        tally.add_sent(identity(100 + number), flagged(number), (DOUBT,))

    assert (3, 3) == (len(tally.missing), len(tally.doubtful))
    assert {("rejected", "missing_order_id", "EUR"): (5, 500)} == in_short(tally.missing_sums)
    assert {("conversions", "amounts_disagree", "EUR"): (5, 500)} == in_short(tally.doubtful_sums)
    assert 5 == tally.guessed


def test_warnings_name_what_the_numbers_do_not_show() -> None:
    """Guesses, repeats with another amount, and repeats that were forgotten; none of them where all is well."""
    tally = OrderTally(sent={"EUR": OrderSum(1_200, 0)}, guessed=3, changed=1, forgets=True)

    assert [] == summary.order_warnings(OrderTally())
    warnings = summary.order_warnings(tally)
    assert [True, True, True] == [
        warning.startswith(text)
        for warning, text in zip(
            warnings, ("3 of 1,200 orders", "1 order came again", "more than 500,000 different orders"), strict=True
        )
    ]


Write = Callable[[str, Any], Path]


@pytest.fixture(name="events")
def events_fixture(tmp_path: Path) -> Path:
    """Write a file with a sent, a repeated, a missing and a doubtful order."""
    doubtful = {"order_id": "=o-3", "subtotal": 100, "revenue": 80, "currency": "EUR"}
    events = [order(), order(), order(None, messageId="m-9"), order("=o-3", properties=doubtful)]
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, events)))
    return path


def replay(*words: str) -> int:
    """Call the command in this process."""
    code = app(["replay", *words], result_action="return_value")
    assert isinstance(code, int)
    return code


def test_the_command_shows_orders_and_money(events: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By outcome, reason and currency, with each missing order and the warning about guesses."""
    assert 0 == replay(str(events))
    lines = capsys.readouterr().out.splitlines()

    assert "sent\t\tEUR\t2\t110.00" in lines
    assert "sent again\t\tEUR\t1\t10.00" in lines
    assert "rejected\tmissing_order_id\tEUR\t1\t10.00" in lines
    assert "3\t\t10.00 EUR\trejected missing_order_id" in lines
    assert any("validate --orders FILE" in line for line in lines)


def test_json_csv_and_html_tell_the_same(events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The CSV can be opened in a spreadsheet without danger."""
    page, sheet = tmp_path / "report.html", tmp_path / "orders.csv"
    assert 0 == replay(str(events), "--json", "--html", str(page), "--csv", str(sheet))
    result = json.loads(capsys.readouterr().out)
    html = page.read_text(encoding="utf-8")

    assert {"EUR": "110.00"} == result["money"]
    assert [("m-9", "10.00")] == [(one["message_id"], one["amount"]) for one in result["missing_orders"]]
    assert [("=o-3", "amounts_disagree")] == [(one["order_id"], one["reason"]) for one in result["doubtful_orders"]]
    assert {"outcome": "sent again", "reason": "", "currency": "EUR", "orders": 1, "amount": "10.00"} in result[
        "order_outcomes"
    ]
    assert [",10.00,EUR,rejected", "'=o-3,100.00,EUR,conversions"] == [
        ",".join(line.split(",")[:4]) for line in sheet.read_text(encoding="utf-8").splitlines()[1:]
    ]
    assert "Missing orders" in html
    assert "<div>rejected missing_order_id</div>" in html
    assert "Doubtful amounts" in html


def test_another_configuration_is_compared_in_money(
    events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting of orderAmount changes what is booked, and the table says by how much; what stays is left out."""
    now, then = tmp_path / "now.json", tmp_path / "then.json"
    now.write_bytes(msgspec.json.encode(CONFIG))
    then.write_bytes(msgspec.json.encode({**CONFIG, "orderAmount": "revenue"}))
    page = tmp_path / "report.html"
    assert 0 == replay(str(events), "-d", str(now), "--against", str(then), "--html", str(page))
    lines = capsys.readouterr().out.splitlines()

    assert "sent EUR\t2\t110.00\t2\t90.00" in lines
    assert not any(line.startswith("missing EUR") for line in lines)
    assert "<td>sent EUR</td><td class=n>2</td><td class=n>110.00</td>" in page.read_text(encoding="utf-8")


def test_orders_come_through_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeat is recognised and a missing order known after the replay went on."""
    from impact_plugin.traffic import snapshots  # noqa: PLC0415 - the only test that needs it

    run = ReplayRun(TrafficDestinations({}), raise_fault)
    for number, event in enumerate((order(), order(), order(None), order("o-2", event="Purchase")), 1):
        run.feed(number, [TrafficEvent(msgspec.Raw(msgspec.json.encode(event)))])
    run.sums.tally.unnamed["rejected", "missing_order_id", ""] = OrderSum(2, 30)
    state, again = tmp_path / "state", ReplayRun(TrafficDestinations({}), raise_fault)
    snapshots.save(state, [], 4, [run], None)
    snapshots.load(state, [], [again], None)

    assert run.sums.tally == again.sums.tally


def test_a_defect_of_ours_while_reading_a_missing_order_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The replay goes on; nothing is known of that order."""

    def broken(*_: object) -> None:
        raise KeyError("o-1")

    monkeypatch.setattr("impact_plugin.transformation.step.find_order", broken)
    faults: list[Exception] = []
    run = ReplayRun(TrafficDestinations({}), faults.append)
    run.feed(1, [TrafficEvent(msgspec.Raw(msgspec.json.encode(order(None))))])

    assert (1, {}) == (len(faults), run.sums.tally.missing)
    assert 1 == run.sums.total_of("rejected")
