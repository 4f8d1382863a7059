"""The step of one event: what it becomes, and the border that keeps our defects to the event they meet."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from impact_plugin.config.destinations import Destinations, KnownDestination
from impact_plugin.telemetry import Telemetry
from impact_plugin.transformation.step import PreparedEvent, TransformStep, faults_to
from impact_transformers import NO_VISIT, Decision, Destination, Draft, Reason, Reject, Send, Skip, Visit

CLICK = {"url": "https://shop.example.com/?irclickid=c-1"}


class Faults(list[Exception]):
    """Keeps what was reported."""

    @property
    def names(self) -> list[str]:
        """The classes of the exceptions."""
        return [type(error).__name__ for error in self]


class BrokenDestination:
    """A destination with a defect of ours in it."""

    reads_message = False

    def for_event(self, _message: Any) -> Destination:
        """Fail, with something in the message that nobody should read in a log."""
        raise KeyError("jane@example.com")


@pytest.fixture(name="faults")
def faults_fixture() -> Faults:
    """Lend a list of the faults that were reported."""
    return Faults()


@pytest.fixture(name="step")
def step_fixture(faults: Faults) -> TransformStep:
    """Lend a step that reports to the list."""
    return TransformStep(faults.append)


def known_of(config: dict[str, Any]) -> KnownDestination:
    """The destination as the service compiles it."""
    return Destinations({}).get(msgspec.Raw(msgspec.json.encode({"ID": "d-1", "Config": config})))


def raw(event: Any) -> bytes:
    """The event in bytes."""
    return msgspec.json.encode(event)


def test_an_order_becomes_a_request(
    step: TransformStep, faults: Faults, order: dict[str, Any], config: dict[str, Any]
) -> None:
    """Decoded, prepared, concluded with what the sessions remember: the click id is in the form."""
    prepared = step.read(raw(order), known_of(config))
    outcome = step.conclude(prepared, Visit(click_id="c-1"))

    assert isinstance(outcome, Send)
    assert ("o-1", "c-1") == (outcome.request.form["OrderId"], outcome.request.form["ClickId"])
    assert prepared.question is not None
    assert prepared.question.order
    assert ("Track", []) == (prepared.call, faults)


def test_a_click_is_labelled_by_the_decision(step: TransformStep, page: dict[str, Any], config: dict[str, Any]) -> None:
    """The visit decides about the endpoint of a click candidate."""
    prepared = step.read(raw({**page, "properties": CLICK}), known_of(config))
    outcomes = [step.conclude(prepared, visit) for visit in (Visit(Decision.NEW), NO_VISIT)]

    assert ["clicks", "pageload"] == [one.request.endpoint_path for one in outcomes if isinstance(one, Send)]


def test_what_is_filtered_asks_nothing(step: TransformStep, config: dict[str, Any]) -> None:
    """A call that is not forwarded is skipped, under a label that is bounded."""
    prepared = step.read(raw({"type": "group"}), known_of(config))

    assert isinstance(step.conclude(prepared, NO_VISIT), Skip)
    assert (None, "Other") == (prepared.question, prepared.call)


def test_without_sessions_nothing_is_asked(faults: Faults, order: dict[str, Any], config: dict[str, Any]) -> None:
    """The event is transformed all the same."""
    step = TransformStep(faults.append, asks=False)
    prepared = step.read(raw(order), known_of(config))

    assert prepared.question is None
    assert isinstance(step.conclude(prepared, NO_VISIT), Send)


@pytest.mark.parametrize(
    ("bytes_", "detail"),
    [
        (b"not json", "the event is not readable JSON"),
        (b'{"type":"page', "the event is not readable JSON"),
        (b'{"type":"page","a":' + b"[" * 5000, "the event is not readable JSON"),
        (b'"text"', "the event is a JSON str, not an object"),
        (b"", "the event is not readable JSON"),
        (b"\xff\xfe", "the event is not readable JSON"),
    ],
)
def test_bytes_that_hold_no_event_are_rejected(
    step: TransformStep, faults: Faults, config: dict[str, Any], bytes_: bytes, detail: str
) -> None:
    """It is the sender's mistake, told in words; nothing of ours is reported as broken."""
    decoded = step.decode(bytes_)
    prepared = step.read(msgspec.Raw(bytes_), known_of(config))

    assert isinstance(decoded, Reject)
    assert decoded.detail.startswith(detail)
    assert decoded == step.conclude(prepared, NO_VISIT)
    assert (Reason.UNDECODABLE_EVENT, None, None, []) == (decoded.reason, prepared.event, prepared.question, faults)


def test_a_configuration_that_cannot_be_used_rejects_the_event(
    step: TransformStep, faults: Faults, order: dict[str, Any]
) -> None:
    """The event is kept with it: whoever counts and records knows its call."""
    prepared = step.read(raw(order), known_of({}))
    outcome = step.conclude(prepared, NO_VISIT)

    assert isinstance(outcome, Reject)
    assert outcome.reason is Reason.CONFIGURATION
    assert "accountSID: is required" in outcome.detail
    assert ("Track", None, []) == (prepared.call, prepared.question, faults)


def test_a_defect_in_prepare_rejects_its_event(step: TransformStep, faults: Faults, order: dict[str, Any]) -> None:
    """As a fault of ours, reported once; its message, which may quote a person, is not in the outcome."""
    broken: Any = BrokenDestination()
    prepared = step.read(raw(order), KnownDestination("d-1", "", broken))

    assert Reject(Reason.TRANSFORM_FAULT, "KeyError in the transformation") == step.conclude(prepared, NO_VISIT)
    assert ("Track", None, ["KeyError"]) == (prepared.call, prepared.question, faults.names)


def test_a_defect_in_the_question_costs_the_visit_only(
    step: TransformStep, faults: Faults, order: dict[str, Any], config: dict[str, Any]
) -> None:
    """The order is sent without a remembered click id: better than not at all."""
    known = known_of(config)
    assert isinstance(known.destination, Destination)
    without_rules: Any = None
    broken = replace(known, destination=replace(known.destination, clicks=without_rules))
    prepared = step.read(raw(order), broken)

    assert isinstance(step.conclude(prepared, NO_VISIT), Send)
    assert (None, ["AttributeError"]) == (prepared.question, faults.names)


def test_a_defect_in_conclude_rejects_its_event(
    step: TransformStep, faults: Faults, page: dict[str, Any], order: dict[str, Any], config: dict[str, Any]
) -> None:
    """And its neighbour has its request."""
    good, bad = (step.read(raw(event), known_of(config)) for event in (page, order))
    assert isinstance(bad.draft.outcome, Send)
    without_request: Any = None
    spoilt = PreparedEvent(bad.known, bad.event, Draft(Send(without_request, bad.draft.outcome.config)))
    outcomes = [step.conclude(one, NO_VISIT) for one in (spoilt, good)]

    assert Reject(Reason.TRANSFORM_FAULT, "AttributeError in the transformation") == outcomes[0]
    assert isinstance(outcomes[1], Send)
    assert ["AttributeError"] == faults.names


def test_a_whole_message_is_read_where_the_destination_needs_it(
    step: TransformStep, order: dict[str, Any], config: dict[str, Any]
) -> None:
    """A path of the operator's own is found though the types do not know it; without the bytes it is not."""
    known = known_of({**config, "rudderToImpactProperty": [{"from": "shelf", "to": "Text1"}]})
    bytes_ = raw({**order, "shelf": "A7"})
    event = step.decode(bytes_)
    assert not isinstance(event, Reject)
    outcomes = [
        step.conclude(one, NO_VISIT) for one in (step.prepare(event, known, bytes_), step.prepare(event, known))
    ]

    assert ["A7", None] == [one.request.form.get("Text1") for one in outcomes if isinstance(one, Send)]


def test_faults_are_counted_by_telemetry(order: dict[str, Any]) -> None:
    """The service reports them as its telemetry event for a defect that met an event."""
    telemetry = Telemetry()
    broken: Any = BrokenDestination()
    TransformStep(faults_to(telemetry)).read(raw(order), KnownDestination("d-1", "", broken))

    assert telemetry.metrics.registry.get_sample_value("impact_plugin_faults_total", {"where": "event"}) == 1
