"""The transformation of batches."""

from collections import Counter
from typing import Literal

from impact_plugin.telemetry.event import TelemetryEvent
from impact_plugin.telemetry.metric import counter, histogram


class BatchTransformed(TelemetryEvent, frozen=True):
    """A batch was transformed: one log line for each batch, never one for each event."""

    level = "info"
    metrics = (
        counter(
            "impact_plugin_events",
            "Events by call, outcome (the endpoint path of a request, filtered or rejected) and reason.",
            ("call", "outcome", "reason"),
        ).inc_each("outcomes"),
        counter(
            "impact_plugin_notices", "Requests made of events that deserve your attention, by notice.", ("notice",)
        ).inc_each("notices"),
        histogram(
            "impact_plugin_batch_events", "Events in a batch.", ("protocol",), buckets=(1, 5, 10, 20, 50, 100, 200, 500)
        ).observe("events"),
        histogram("impact_plugin_batch_seconds", "Time to transform a batch, in seconds.", ("protocol",)).observe(
            "seconds"
        ),
    )

    protocol: Literal["processor", "router"]
    events: int
    outcomes: Counter[tuple[str, str, str]]
    notices: Counter[str]
    seconds: float
    bytes_in: int
    bytes_out: int
