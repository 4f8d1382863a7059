"""The hook for the stock transformer's metrics: under its names, so that dashboards made for it keep working.

Its counters lack the suffix ``_total``, which the Prometheus library adds to every counter, so they are gauges here
that never fall: ``rate()`` works on them just as well. Labels that grow with the traffic or the number of customers
(raw URLs, ids of sources, destinations and workspaces) are left out, and the type is always ``IMPACT``, whatever your
router calls the destination type.
https://github.com/rudderlabs/rudder-transformer/blob/develop/src/util/prometheus.js
"""

from http import HTTPStatus
from typing import Final

from impact_plugin.telemetry.event import Handler, TelemetryEvent
from impact_plugin.telemetry.events.delivery import RequestSent
from impact_plugin.telemetry.events.http import RequestArrived, RequestRefused, RequestServed
from impact_plugin.telemetry.events.transformation import BatchTransformed
from impact_plugin.telemetry.metric import gauge, histogram
from impact_plugin.telemetry.prometheus import Metrics
from impact_transformers import REASONS, Reason

TYPE: Final = "IMPACT"
NAME: Final = "impact"
VERSION: Final = "v0"
MEMORY: Final = "memory"
"""The reason of requests that are refused because of the memory ceiling."""

BATCH_SIZES: Final = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 150, 200)
CATEGORIES: Final[dict[str, tuple[str, str]]] = {
    "filtered": ("", "filtered"),
    "configuration": ("dataValidation", "configuration"),
    "instrumentation": ("dataValidation", "instrumentation"),
    "unsupported": ("platform", "unsupported"),
    "fault": ("transformation", ""),
}
"""Error category and error type by the category of a reason."""

REQUESTS: Final = histogram(
    "transformer_http_request_duration",
    "Time to answer a request of the router, in seconds; as in the stock transformer.",
    ("method", "route", "code", "destType"),
)
INPUT: Final = histogram(
    "transformer_dest_transform_input_events",
    "Events of a batch to be transformed; as in the stock transformer.",
    ("destination", "version", "destinationType"),
    buckets=BATCH_SIZES,
)
OUTPUT: Final = histogram(
    "transformer_dest_transform_output_events",
    "Requests that a batch became; as in the stock transformer.",
    ("destination", "version", "destinationType"),
    buckets=BATCH_SIZES,
)
SUCCESS: Final = gauge(
    "transformer_event_transform_success",
    "Events that became requests; as in the stock transformer. It never falls.",
    ("destType", "module", "feature", "implementation"),
)
FAILURE: Final = gauge(
    "transformer_event_transform_failure",
    "Events that became no request; as in the stock transformer. It never falls.",
    ("destType", "module", "feature", "implementation", "errorCategory", "errorType"),
)
OUTGOING: Final = gauge(
    "transformer_outgoing_request_count",
    "Requests sent to impact.com; as in the stock transformer. It never falls.",
    ("feature", "destType", "endpointPath", "requestMethod", "module", "success", "statusCode"),
)
OUTGOING_SECONDS: Final = histogram(
    "transformer_outgoing_request_latency",
    "Time until impact.com answered, in seconds; as in the stock transformer.",
    ("feature", "destType", "endpointPath", "requestMethod", "module"),
)
FENCED: Final = gauge(
    "transformer_memory_fenced_requests",
    "Requests refused because of the memory ceiling; as in the stock transformer. It never falls.",
    ("route",),
)
IN_FLIGHT: Final = gauge(
    "transformer_http_concurrent_requests", "Requests of the router in flight; as in the stock transformer."
)

STOCK: Final = (REQUESTS, INPUT, OUTPUT, SUCCESS, FAILURE, OUTGOING, OUTGOING_SECONDS, FENCED, IN_FLIGHT)
"""All of them, for the reference."""


class StockMetrics:
    """Counts what the stock transformer counts, in the registry of our own metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._requests = metrics.children(REQUESTS)
        self._input = metrics.children(INPUT)
        self._output = metrics.children(OUTPUT)
        self._success = metrics.children(SUCCESS)
        self._failure = metrics.children(FAILURE)
        self._outgoing = metrics.children(OUTGOING)
        self._outgoing_seconds = metrics.children(OUTGOING_SECONDS)
        self._fenced = metrics.children(FENCED)
        self._in_flight = metrics.children(IN_FLIGHT)()
        self._handlers: dict[type[TelemetryEvent], Handler] = {
            RequestArrived: self._request_arrived,
            RequestServed: self._request_served,
            RequestRefused: self._request_refused,
            BatchTransformed: self._batch_transformed,
            RequestSent: self._request_sent,
        }

    def handlers(self, kind: type[TelemetryEvent]) -> list[Handler]:
        """Return what counts the events of this class: nothing for a class without a counterpart there."""
        return [self._handlers[kind]] if kind in self._handlers else []

    def _request_arrived(self, _event: RequestArrived) -> None:
        self._in_flight.inc()

    def _request_served(self, event: RequestServed) -> None:
        self._in_flight.dec()
        type_ = TYPE if event.ours else ""
        self._requests(event.method, event.route, status_code(event.status), type_).observe(event.seconds)

    def _request_refused(self, event: RequestRefused) -> None:
        if event.reason == MEMORY:
            self._fenced(event.route).inc()

    def _request_sent(self, event: RequestSent) -> None:
        labels = ("proxy", TYPE, event.endpoint_path, "POST", "destination")
        # As there: an error in the body does not make a successful status a failure.
        success = "true" if 200 <= event.status < 300 else "false"
        self._outgoing(*labels, success, status_code(event.status)).inc()
        self._outgoing_seconds(*labels).observe(event.seconds)

    def _batch_transformed(self, event: BatchTransformed) -> None:
        labels = (TYPE, "destination", event.protocol, "native")
        requests = 0
        for (_, outcome, reason), count in event.outcomes.items():
            if outcome not in ("filtered", "rejected"):
                requests += count
                continue
            category = CATEGORIES[REASONS[Reason(reason)].category]
            self._failure(*labels, *category).inc(count)
        if requests:
            self._success(*labels).inc(requests)
        self._input(NAME, VERSION, TYPE).observe(event.events)
        self._output(NAME, VERSION, TYPE).observe(requests)


_CODES: Final = {int(status): str(int(status)) for status in HTTPStatus}


def status_code(status: int) -> str:
    """Return the label for a status: "other" for one that HTTP does not know, "" for no response."""
    return _CODES.get(status, "other") if status else ""
