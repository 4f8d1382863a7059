"""The metrics, in a registry of our own; labels are bounded by the enumerations they come from."""

from typing import Final

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

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counts what the telemetry events tell."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events = Counter(
            "impact_plugin_events",
            "Events by call, outcome (the endpoint path of a request, skip or reject) and reason.",
            ("call", "outcome", "reason"),
            registry=self.registry,
        )
        self.batch_events = Histogram(
            "impact_plugin_batch_events",
            "Events in a batch.",
            ("protocol",),
            buckets=(1, 5, 10, 20, 50, 100, 200, 500),
            registry=self.registry,
        )
        self.batch_seconds = Histogram(
            "impact_plugin_batch_seconds",
            "Time to transform a batch.",
            ("protocol",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.faults = Counter(
            "impact_plugin_faults", "Defects of ours that an event or request met.", ("where",), registry=self.registry
        )
        self.refused = Counter(
            "impact_plugin_refused_requests",
            "Requests answered so that the router keeps its events.",
            ("reason",),
            registry=self.registry,
        )
        self.deliveries = Counter(
            "impact_plugin_deliveries",
            "Requests sent for the router, by endpoint path, result and cause.",
            ("endpoint_path", "result", "cause"),
            registry=self.registry,
        )
        self.delivery_seconds = Histogram(
            "impact_plugin_delivery_seconds",
            "Time until impact.com answered.",
            ("endpoint_path",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.passed = Counter(
            "impact_plugin_passed_through",
            "Requests passed to the stock transformer, by the class of its answer.",
            ("status",),
            registry=self.registry,
        )

    def count(self, event: TelemetryEvent) -> None:
        """Move the metrics that this event moves."""
        match event:
            case BatchTransformed():
                self.batch_events.labels(event.protocol).observe(event.events)
                self.batch_seconds.labels(event.protocol).observe(event.seconds)
                for labels, number in event.outcomes.items():
                    self.events.labels(*labels).inc(number)
            case TransformFault():
                self.faults.labels("event").inc()
            case RequestFault():
                self.faults.labels("request").inc()
            case RequestRefused():
                self.refused.labels(event.reason).inc()
            case Delivered():
                self.deliveries.labels(event.endpoint_path, event.result, event.cause).inc()
                self.delivery_seconds.labels(event.endpoint_path).observe(event.seconds)
            case PassedThrough():
                self.passed.labels(f"{event.status // 100}xx" if event.status else "unreachable").inc()
            case _:
                pass

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)
