"""The stock transformer's series, under its names, so that dashboards that were there before go on.

Its counters have no ``_total``, which our library adds to counters, so they are gauges that only rise: ``rate()`` works
on them alike. Labels that grow with the traffic or the number of customers (raw URLs, ids of sources, destinations and
workspaces) are left out; the type is ``IMPACT`` whatever the operator's name for it.
https://github.com/rudderlabs/rudder-transformer/blob/develop/src/util/prometheus.js
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from prometheus_client import Gauge, Histogram

from impact_plugin.telemetry.events import (
    Attempted,
    BatchTransformed,
    RequestArrived,
    RequestRefused,
    RequestServed,
    TelemetryEvent,
)
from impact_plugin.telemetry.metric import SECONDS, MetricFacts
from impact_transformers import REASONS, Reason

TYPE: Final = "IMPACT"
NAME: Final = "impact"
VERSION: Final = "v0"
EVENTS: Final = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 150, 200)

REQUESTS: Final = MetricFacts(
    "transformer_http_request_duration",
    "histogram",
    ("method", "route", "code", "destType"),
    "Time to answer a request of the router, in seconds; as the stock transformer tells it.",
    SECONDS,
)
INPUT: Final = MetricFacts(
    "transformer_dest_transform_input_events",
    "histogram",
    ("destination", "version", "destinationType"),
    "Events of a batch that was to be transformed; as the stock transformer tells it.",
    EVENTS,
)
OUTPUT: Final = MetricFacts(
    "transformer_dest_transform_output_events",
    "histogram",
    ("destination", "version", "destinationType"),
    "Requests that a batch became; as the stock transformer tells it.",
    EVENTS,
)
SUCCESS: Final = MetricFacts(
    "transformer_event_transform_success",
    "gauge",
    ("destType", "module", "feature", "implementation"),
    "Events that became requests; as the stock transformer tells it. It only rises.",
)
FAILURE: Final = MetricFacts(
    "transformer_event_transform_failure",
    "gauge",
    ("destType", "module", "feature", "implementation", "errorCategory", "errorType"),
    "Events that became none; as the stock transformer tells it. It only rises.",
)
OUTGOING: Final = MetricFacts(
    "transformer_outgoing_request_count",
    "gauge",
    ("feature", "destType", "endpointPath", "requestMethod", "module", "success", "statusCode"),
    "Requests sent to impact.com; as the stock transformer tells it. It only rises.",
)
OUTGOING_SECONDS: Final = MetricFacts(
    "transformer_outgoing_request_latency",
    "histogram",
    ("feature", "destType", "endpointPath", "requestMethod", "module"),
    "Time until impact.com answered, in seconds; as the stock transformer tells it.",
    SECONDS,
)
FENCED: Final = MetricFacts(
    "transformer_memory_fenced_requests",
    "gauge",
    ("route",),
    "Requests refused because of the memory ceiling; as the stock transformer tells it. It only rises.",
)
UNDER_WAY: Final = MetricFacts(
    "transformer_http_concurrent_requests",
    "gauge",
    (),
    "Requests of the router under way; as the stock transformer tells it.",
)

STOCK: Final = (REQUESTS, INPUT, OUTPUT, SUCCESS, FAILURE, OUTGOING, OUTGOING_SECONDS, FENCED, UNDER_WAY)
"""All of them, for the registry and the documentation."""

CATEGORIES: Final[dict[str, tuple[str, str]]] = {
    "filtered": ("", "filtered"),
    "configuration": ("dataValidation", "configuration"),
    "instrumentation": ("dataValidation", "instrumentation"),
    "unsupported": ("platform", "unsupported"),
    "fault": ("transformation", ""),
}


def count_stock(event: TelemetryEvent, gauge: Callable[..., Gauge], histogram: Callable[..., Histogram]) -> None:
    """Move the series that this event moves; ``gauge`` and ``histogram`` find one by its facts and labels."""
    match event:
        case RequestArrived():
            gauge(UNDER_WAY).inc()
        case RequestServed():
            gauge(UNDER_WAY).dec()
            type_ = TYPE if event.ours else ""
            histogram(REQUESTS, event.method, event.route, status_code(event.status), type_).observe(event.seconds)
        case RequestRefused() if event.reason == MEMORY:
            gauge(FENCED, event.route).inc()
        case BatchTransformed():
            _count_batch(event, gauge, histogram)
        case Attempted():
            labels = ("proxy", TYPE, event.endpoint_path, "POST", "destination")
            # As there: a body that tells of an error does not make a status of success a failure.
            success = "true" if 200 <= event.status < 300 else "false"
            gauge(OUTGOING, *labels, success, status_code(event.status)).inc()
            histogram(OUTGOING_SECONDS, *labels).observe(event.seconds)
        case _:
            pass


MEMORY: Final = "memory"
"""The reason of requests that were refused because of the memory ceiling."""

_CODES: Final = {int(status): str(int(status)) for status in HTTPStatus}


def status_code(status: int) -> str:
    """The label for a status: those with a name, "other" for what else a server may think of, "" for no answer."""
    return _CODES.get(status, "other") if status else ""


def _count_batch(event: BatchTransformed, gauge: Callable[..., Gauge], histogram: Callable[..., Histogram]) -> None:
    labels = (TYPE, "destination", event.protocol, "native")
    made = 0
    for (_, outcome, reason), count in event.outcomes.items():
        if outcome not in ("skip", "reject"):
            made += count
            continue
        category = CATEGORIES[REASONS[Reason(reason)].category]
        gauge(FAILURE, *labels, *category).inc(count)
    if made:
        gauge(SUCCESS, *labels).inc(made)
    histogram(INPUT, NAME, VERSION, TYPE).observe(event.events)
    histogram(OUTPUT, NAME, VERSION, TYPE).observe(made)
