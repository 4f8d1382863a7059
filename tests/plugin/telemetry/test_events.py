"""An event is one class: what it declares is what the hooks do, and nothing else has to know it."""

from collections import Counter
from typing import Any

import pytest

from impact_plugin.telemetry import METRICS, TELEMETRY_EVENTS, TelemetryEvent
from impact_plugin.telemetry.logging import line_fields, line_name
from impact_plugin.telemetry.metric import counter, gauge, histogram
from impact_plugin.telemetry.prometheus import STATIC, Metrics
from impact_plugin.telemetry.stock import STOCK

LIT = gauge("test_lit", "1 while the lamp is lit.")


class LampSwitched(TelemetryEvent, frozen=True):
    """An event of these tests with every form of change."""

    level = "info"
    metrics = (
        LIT.set(1),
        counter("test_switched", "Switched lamps.", ("room", "colour")).inc(),
        counter("test_hours", "Hours, by kind.", ("what",)).inc("hours", what="burnt"),
        gauge("test_bulbs", "Bulbs, by room and watts.", ("room", "watts")).set_each("bulbs"),
        counter("test_moths", "Moths, by species and size.", ("species", "size")).inc_each("moths"),
        histogram("test_seconds", "Seconds.", ("room",), buckets=(1.0,)).observe("seconds"),
    )

    room: str
    hours: int
    bulbs: dict[str, int]
    moths: Counter[tuple[str, str]]
    seconds: float
    exception: BaseException

    @property
    def colour(self) -> str:
        """A label that is worked out."""
        return f"light-{self.room}"


def switched(room: str = "attic") -> LampSwitched:
    """A lamp of a room."""
    return LampSwitched(room, 3, {"40": 2, "60": 1}, Counter({("owl", "big"): 5}), 0.5, KeyError())


def counted(*events: TelemetryEvent) -> dict[tuple[str, ...], float]:
    """The samples of the tests' metrics, by name and label values, after these events."""
    metrics = Metrics()
    handlers = {kind: metrics.handlers(kind) for kind in {type(event) for event in events}}
    for event in events:
        for handle in handlers[type(event)]:
            handle(event)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name.startswith("test_") and not sample.name.endswith("_created")
    }


def test_an_event_changes_what_it_declares() -> None:
    """Labels are attributes, constants, or the keys of a mapping whose entries are counted one by one."""
    assert counted(switched(), switched()) == {
        ("test_lit",): 1,
        ("test_switched_total", "attic", "light-attic"): 2,
        ("test_hours_total", "burnt"): 6,
        ("test_bulbs", "attic", "40"): 2,
        ("test_bulbs", "attic", "60"): 1,
        ("test_moths_total", "owl", "big"): 10,
        ("test_seconds_bucket", "attic", "1.0"): 2,
        ("test_seconds_bucket", "attic", "+Inf"): 2,
        ("test_seconds_count", "attic"): 2,
        ("test_seconds_sum", "attic"): 1.0,
    }


def test_events_share_a_metric() -> None:
    """A second event may change the metric of the first."""

    class LampBroken(TelemetryEvent, frozen=True):
        metrics = (LIT.set(0),)

    assert counted(switched(), LampBroken())[("test_lit",)] == 0


def test_the_line_is_named_after_the_class_and_never_holds_an_exception() -> None:
    """An exception is logged as the places it passed."""
    assert line_name(LampSwitched) == "lamp_switched"
    assert line_fields(LampSwitched) == ("room", "hours", "bulbs", "moths", "seconds", "at")


@pytest.mark.parametrize(
    "declared",
    [
        counter("test_counter", "A counter cannot be set.").set(1),
        histogram("test_histogram", "A histogram cannot be added to.").inc(),
        counter("test_labels", "One constant is missing.", ("room", "of")).inc(of="bulbs"),
    ],
    ids=lambda change: change.metric.name,
)
def test_a_wrong_declaration_fails_at_the_start(declared: Any) -> None:
    """Not when the first event of its kind happens."""

    class Wrong(TelemetryEvent, frozen=True):
        metrics = (declared,)

    with pytest.raises((AttributeError, KeyError)):
        Metrics().handlers(Wrong)


def test_every_event_of_the_service_is_known() -> None:
    """A class in any module of events is enough."""
    declared = {event for event in TelemetryEvent.__subclasses__() if event.__module__.startswith("impact_plugin.")}

    assert declared == set(TELEMETRY_EVENTS)


@pytest.mark.parametrize("event", TELEMETRY_EVENTS, ids=lambda event: event.__name__)
def test_what_an_event_counts_by_exists(event: type[TelemetryEvent]) -> None:
    """Values and labels name attributes of the event, unless the labels are constants or the keys of a mapping."""
    named = [change.value for change in event.metrics if isinstance(change.value, str)]
    labels = [
        label for change in event.metrics if not (change.constants or change.each) for label in change.metric.labels
    ]

    assert [name for name in (*named, *labels) if not hasattr(event, name)] == []


def test_every_metric_is_changed_by_an_event() -> None:
    """But for those that are set once, and those of the stock transformer, whose hook counts them."""
    changed = {change.metric for event in TELEMETRY_EVENTS for change in event.metrics}

    assert set(METRICS) - changed == {*STATIC, *STOCK}
    assert len({metric.name for metric in METRICS}) == len(METRICS)
