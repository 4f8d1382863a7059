"""The metrics, in a registry of our own; labels are bounded by the enumerations they come from."""

from functools import lru_cache
from typing import Final, Literal

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from impact_plugin.telemetry.events import (
    BatchTransformed,
    Delivered,
    PassedThrough,
    RequestFault,
    RequestRefused,
    TelemetryEvent,
    TransformFault,
)

CHILDREN: Final = 512
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class MetricFacts(msgspec.Struct, frozen=True):
    """One metric: name, type, labels, meaning, and the upper bounds of a histogram's buckets."""

    name: str
    kind: Literal["counter", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

EVENTS: Final = MetricFacts(
    "impact_plugin_events",
    "counter",
    ("call", "outcome", "reason"),
    "Events by call, outcome (the endpoint path of a request, skip or reject) and reason.",
)
NOTICES: Final = MetricFacts(
    "impact_plugin_notices", "counter", ("notice",), "Requests made of events that an operator should know about."
)
BATCH_EVENTS: Final = MetricFacts(
    "impact_plugin_batch_events", "histogram", ("protocol",), "Events in a batch.", (1, 5, 10, 20, 50, 100, 200, 500)
)
BATCH_SECONDS: Final = MetricFacts(
    "impact_plugin_batch_seconds", "histogram", ("protocol",), "Time to transform a batch, in seconds.", _SECONDS
)
FAULTS: Final = MetricFacts(
    "impact_plugin_faults", "counter", ("where",), "Defects of ours that an event or a request met."
)
REFUSED: Final = MetricFacts(
    "impact_plugin_refused_requests", "counter", ("reason",), "Requests answered so that the router keeps its events."
)
DELIVERIES: Final = MetricFacts(
    "impact_plugin_deliveries",
    "counter",
    ("endpoint_path", "result", "cause"),
    "Requests sent for the router, by endpoint path, result and cause.",
)
DELIVERY_SECONDS: Final = MetricFacts(
    "impact_plugin_delivery_seconds",
    "histogram",
    ("endpoint_path",),
    "Time until impact.com answered, in seconds.",
    _SECONDS,
)
PASSED_THROUGH: Final = MetricFacts(
    "impact_plugin_passed_through",
    "counter",
    ("status",),
    "Requests passed to the stock transformer, by the class of its answer.",
)

METRICS: Final = (
    EVENTS,
    NOTICES,
    BATCH_EVENTS,
    BATCH_SECONDS,
    FAULTS,
    REFUSED,
    DELIVERIES,
    DELIVERY_SECONDS,
    PASSED_THROUGH,
)
"""All of them, for the documentation."""


class Metrics:
    """Counts what the telemetry events tell."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._counters = {facts: self._make_counter(facts) for facts in METRICS if facts.kind == "counter"}
        self._histograms = {facts: self._make_histogram(facts) for facts in METRICS if facts.kind == "histogram"}
        # Looking a child up by its labels takes a lock and several copies; there are few, so they are kept.
        self._counter = lru_cache(maxsize=CHILDREN)(lambda facts, *labels: self._counters[facts].labels(*labels))
        self._histogram = lru_cache(maxsize=CHILDREN)(lambda facts, *labels: self._histograms[facts].labels(*labels))

    def _make_counter(self, facts: MetricFacts) -> Counter:
        return Counter(facts.name, facts.help, facts.labels, registry=self.registry)

    def _make_histogram(self, facts: MetricFacts) -> Histogram:
        return Histogram(facts.name, facts.help, facts.labels, buckets=facts.buckets, registry=self.registry)

    def count(self, event: TelemetryEvent) -> None:
        """Move the metrics that this event moves."""
        match event:
            case BatchTransformed():
                self._histogram(BATCH_EVENTS, event.protocol).observe(event.events)
                self._histogram(BATCH_SECONDS, event.protocol).observe(event.seconds)
                for labels, number in event.outcomes.items():
                    self._counter(EVENTS, *labels).inc(number)
                for notice, number in event.notices.items():
                    self._counter(NOTICES, notice).inc(number)
            case TransformFault():
                self._counter(FAULTS, "event").inc()
            case RequestFault():
                self._counter(FAULTS, "request").inc()
            case RequestRefused():
                self._counter(REFUSED, event.reason).inc()
            case Delivered():
                self._counter(DELIVERIES, event.endpoint_path, event.result, event.cause).inc()
                self._histogram(DELIVERY_SECONDS, event.endpoint_path).observe(event.seconds)
            case PassedThrough():
                status = f"{event.status // 100}xx" if event.status else "unreachable"
                self._counter(PASSED_THROUGH, status).inc()
            case _:
                pass

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)
