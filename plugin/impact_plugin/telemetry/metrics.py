"""The metrics, in a registry of our own; labels are bounded by the enumerations they come from."""

from collections.abc import Mapping
from functools import lru_cache
from time import time
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from impact_plugin import __version__
from impact_plugin.telemetry.events import (
    Attempted,
    BatchTransformed,
    Delivered,
    DeliveryMeasured,
    EventsTaken,
    IngestAnswered,
    LaneUnordered,
    LedgerFailed,
    LedgerMeasured,
    LedgerRestored,
    LimitChanged,
    MemoryExceeded,
    MemoryRecovered,
    PassedThrough,
    PersonForgotten,
    ProcessMeasured,
    RecordingEnded,
    RecordingStarted,
    RequestArrived,
    RequestFault,
    RequestRefused,
    RequestServed,
    RoutingRefused,
    RowEnded,
    ServiceStarted,
    SessionsDecided,
    SpoolFailed,
    SpoolMeasured,
    SpoolRestored,
    StateFailed,
    StateLoaded,
    StateMeasured,
    StateRestored,
    TelemetryEvent,
    TransformFault,
)
from impact_plugin.telemetry.metric import SECONDS, MetricFacts
from impact_plugin.telemetry.stock import STOCK, count_stock

CHILDREN: Final = 512
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


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
    "impact_plugin_batch_seconds", "histogram", ("protocol",), "Time to transform a batch, in seconds.", SECONDS
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
    "Deliveries for the router, sent or not, by endpoint path, result and cause.",
)
DELIVERY_SECONDS: Final = MetricFacts(
    "impact_plugin_delivery_seconds",
    "histogram",
    ("endpoint_path",),
    "Time until the router was answered, waiting included, in seconds.",
    SECONDS,
)
ATTEMPTS: Final = MetricFacts(
    "impact_plugin_attempts",
    "counter",
    ("endpoint_path", "cause"),
    "Requests that went to impact.com, by endpoint path and cause.",
)
ATTEMPT_SECONDS: Final = MetricFacts(
    "impact_plugin_attempt_seconds",
    "histogram",
    ("endpoint_path",),
    "Time until impact.com answered one request, in seconds.",
    SECONDS,
)
WAITING: Final = MetricFacts(
    "impact_plugin_delivery_waiting", "gauge", ("endpoint_path",), "Requests that wait for leave to be sent."
)
IN_FLIGHT: Final = MetricFacts(
    "impact_plugin_delivery_in_flight", "gauge", ("endpoint_path",), "Requests under way to impact.com."
)
LIMIT_STATES: Final = MetricFacts(
    "impact_plugin_delivery_accounts",
    "gauge",
    ("endpoint_path", "state"),
    "Accounts whose traffic flows (open), is tried again (probing) or is stopped (closed); /debug/limits says why.",
)
LIMIT_CHANGES: Final = MetricFacts(
    "impact_plugin_limit_changes",
    "counter",
    ("endpoint_path", "change"),
    "Changes of an account's limits: breaker, credentials, quota, collapse; the log names the account.",
)
LANES_UNORDERED: Final = MetricFacts(
    "impact_plugin_lanes_unordered",
    "counter",
    (),
    "Visitors whose requests were let go in any order, because too many of them waited.",
)
LEDGER_ORDERS: Final = MetricFacts("impact_plugin_ledger_orders", "gauge", (), "Orders in the ledger of conversions.")
LEDGER_CAPACITY: Final = MetricFacts(
    "impact_plugin_ledger_capacity", "gauge", (), "How many orders the ledger may hold; alert at 80 %."
)
LEDGER_UNSETTLED: Final = MetricFacts(
    "impact_plugin_ledger_unsettled", "gauge", (), "Orders in the ledger whose outcome is not known."
)
LEDGER_EVICTED: Final = MetricFacts(
    "impact_plugin_ledger_evicted", "counter", (), "Orders dropped from the ledger at capacity; expected 0."
)
LEDGER_UP: Final = MetricFacts(
    "impact_plugin_ledger_up", "gauge", (), "1 while the ledger of conversions answers, 0 while it is out of reach."
)
PASSED_THROUGH: Final = MetricFacts(
    "impact_plugin_passed_through",
    "counter",
    ("status",),
    "Requests passed to the stock transformer, by the class of its answer.",
)

DECISIONS: Final = MetricFacts(
    "impact_plugin_click_decisions",
    "counter",
    ("decision",),
    "Click candidates: new (unique clicks), repeat, replayed (the message was known), undecided (state out of reach).",
)
ORDERS: Final = MetricFacts(
    "impact_plugin_orders",
    "counter",
    ("click_id",),
    "Conversions by their click id: carried by the event, stitched from memory, or without.",
)
LATE_CLICKS: Final = MetricFacts(
    "impact_plugin_late_clicks",
    "counter",
    (),
    "Conversions that went without a click id which arrived afterwards; router transform avoids most of them.",
)
STATE_ENTRIES: Final = MetricFacts(
    "impact_plugin_state_entries", "gauge", ("kind",), "Entries of the session state, by kind."
)
STATE_CAPACITY: Final = MetricFacts(
    "impact_plugin_state_capacity", "gauge", ("kind",), "How many entries of a kind there may be; alert at 80 %."
)
EVICTED_LIVE: Final = MetricFacts(
    "impact_plugin_state_evicted_live",
    "counter",
    ("kind",),
    "Entries dropped at capacity before they expired; expected 0.",
)
UNSAVED: Final = MetricFacts(
    "impact_plugin_state_unsaved",
    "counter",
    (),
    "Changes that live in memory only, because the state took none for long.",
)
STATE_SECONDS: Final = MetricFacts(
    "impact_plugin_state_seconds",
    "histogram",
    (),
    "Time for the session state to answer a batch, in seconds.",
    SECONDS,
)
STATE_UP: Final = MetricFacts(
    "impact_plugin_state_up", "gauge", (), "1 while the session state answers, 0 while it is out of reach."
)
STATE_FAILURES: Final = MetricFacts(
    "impact_plugin_state_failures", "counter", (), "How often the session state went out of reach."
)

INGESTED: Final = MetricFacts(
    "impact_plugin_ingested_events",
    "counter",
    ("source", "status", "reason"),
    "Events that senders handed over, by source, status (stored, duplicate, filtered, rejected) and reason.",
)
INGEST_SECONDS: Final = MetricFacts(
    "impact_plugin_ingest_seconds",
    "histogram",
    ("surface",),
    "Time until a sender was answered, in seconds; Jitsu gives up after two.",
    SECONDS,
)
INGEST_ANSWERS: Final = MetricFacts(
    "impact_plugin_ingest_answers", "counter", ("surface", "status"), "Answers on the ingest port, by HTTP status."
)
SPOOL_ENDED: Final = MetricFacts(
    "impact_plugin_spool_ended",
    "counter",
    ("result", "reason"),
    "Tries of stored events by result (delivered, skipped, dead, later) and reason.",
)
SPOOL_WAITING: Final = MetricFacts(
    "impact_plugin_spool_waiting", "gauge", ("destination",), "Stored events that are not delivered yet."
)
SPOOL_DEAD: Final = MetricFacts("impact_plugin_spool_dead_letters", "gauge", (), "Dead letters that are kept.")
SPOOL_BYTES: Final = MetricFacts("impact_plugin_spool_bytes", "gauge", (), "Bytes of the stored events.")
SPOOL_CAPACITY: Final = MetricFacts(
    "impact_plugin_spool_capacity", "gauge", ("of",), "How many events and bytes may be stored; alert at 80 %."
)
SPOOL_AGE: Final = MetricFacts(
    "impact_plugin_spool_oldest_seconds", "gauge", (), "Age of the oldest stored event that is not delivered."
)
SPOOL_EXPIRED: Final = MetricFacts(
    "impact_plugin_spool_expired", "counter", (), "Stored events that became dead letters of old age."
)
SPOOL_UNORDERED: Final = MetricFacts(
    "impact_plugin_spool_unordered", "counter", (), "Visitors whose stored events lost their order: too many, or stuck."
)
SPOOL_EVICTED: Final = MetricFacts(
    "impact_plugin_spool_evicted",
    "counter",
    (),
    "Dead letters and notes of seen events dropped before their time, because there were too many.",
)
SPOOL_UP: Final = MetricFacts(
    "impact_plugin_spool_up", "gauge", (), "1 while the spool can be written, 0 while it cannot."
)
ROUTING_REFUSED: Final = MetricFacts(
    "impact_plugin_routing_refused", "counter", (), "Configuration files that could not be used when read again."
)
FORGOTTEN: Final = MetricFacts(
    "impact_plugin_forgotten", "counter", ("what",), "What was deleted on request: identities, waiting, dead_letters."
)

RESTARTS: Final = MetricFacts(
    "impact_plugin_worker_restarts",
    "gauge",
    (),
    "How often the supervisor replaced this worker because it had ended by itself.",
)
MEMORY: Final = MetricFacts("impact_plugin_memory_bytes", "gauge", (), "Resident memory of the process.")
MEMORY_CEILING: Final = MetricFacts(
    "impact_plugin_memory_ceiling_bytes", "gauge", (), "Above it events are refused (server.max_memory_mb); 0 for none."
)
OVER_MEMORY: Final = MetricFacts(
    "impact_plugin_over_memory", "gauge", (), "1 while events are refused because of the ceiling, else 0."
)

RECORDING: Final = MetricFacts(
    "impact_plugin_recording", "gauge", (), "How many recordings of what the service is asked are under way."
)
RECORDING_LEFT_OUT: Final = MetricFacts(
    "impact_plugin_recording_left_out", "counter", (), "Events that came too fast to be recorded."
)

BUILD: Final = MetricFacts("impact_plugin_build_info", "gauge", ("version",), "1; the label tells the version.")
STARTED: Final = MetricFacts(
    "process_start_time_seconds", "gauge", (), "When the process started, in seconds since 1970."
)
RESIDENT: Final = MetricFacts(
    "process_resident_memory_bytes", "gauge", (), "The same as impact_plugin_memory_bytes, under its usual name."
)
PROCESSOR: Final = MetricFacts(
    "process_cpu_seconds", "counter", (), "Processor time of the process, in seconds; 1 a second is a whole core."
)
DESCRIPTORS: Final = MetricFacts("process_open_fds", "gauge", (), "File descriptors that are open.")
DESCRIPTORS_LIMIT: Final = MetricFacts(
    "process_max_fds", "gauge", (), "How many file descriptors may be open; alert at 80 %."
)
LAG: Final = MetricFacts(
    "impact_plugin_loop_lag_seconds", "histogram", (), "How late the event loop was, looked at once a second.", SECONDS
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
    ATTEMPTS,
    ATTEMPT_SECONDS,
    WAITING,
    IN_FLIGHT,
    LIMIT_STATES,
    LIMIT_CHANGES,
    LANES_UNORDERED,
    LEDGER_ORDERS,
    LEDGER_CAPACITY,
    LEDGER_UNSETTLED,
    LEDGER_EVICTED,
    LEDGER_UP,
    PASSED_THROUGH,
    DECISIONS,
    ORDERS,
    LATE_CLICKS,
    STATE_ENTRIES,
    STATE_CAPACITY,
    EVICTED_LIVE,
    UNSAVED,
    STATE_SECONDS,
    STATE_UP,
    STATE_FAILURES,
    INGESTED,
    INGEST_SECONDS,
    INGEST_ANSWERS,
    SPOOL_ENDED,
    SPOOL_WAITING,
    SPOOL_DEAD,
    SPOOL_BYTES,
    SPOOL_CAPACITY,
    SPOOL_AGE,
    SPOOL_EXPIRED,
    SPOOL_UNORDERED,
    SPOOL_EVICTED,
    SPOOL_UP,
    ROUTING_REFUSED,
    FORGOTTEN,
    RESTARTS,
    MEMORY,
    MEMORY_CEILING,
    OVER_MEMORY,
    RECORDING,
    RECORDING_LEFT_OUT,
    BUILD,
    STARTED,
    RESIDENT,
    PROCESSOR,
    DESCRIPTORS,
    DESCRIPTORS_LIMIT,
    LAG,
    *STOCK,
)
"""All of them, for the documentation."""


class Metrics:
    """Counts what the telemetry events tell."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._counters = {facts: self._make_counter(facts) for facts in METRICS if facts.kind == "counter"}
        self._gauges = {facts: self._make_gauge(facts) for facts in METRICS if facts.kind == "gauge"}
        self._histograms = {facts: self._make_histogram(facts) for facts in METRICS if facts.kind == "histogram"}
        # Looking a child up by its labels takes a lock and several copies; there are few, so they are kept.
        self._counter = lru_cache(maxsize=CHILDREN)(lambda facts, *labels: _child(self._counters[facts], labels))
        self._gauge = lru_cache(maxsize=CHILDREN)(lambda facts, *labels: _child(self._gauges[facts], labels))
        self._histogram = lru_cache(maxsize=CHILDREN)(lambda facts, *labels: _child(self._histograms[facts], labels))
        self._gauge(BUILD, __version__).set(1)
        self._gauge(STARTED).set(time())

    def _make_counter(self, facts: MetricFacts) -> Counter:
        return Counter(facts.name, facts.help, facts.labels, registry=self.registry)

    def _make_gauge(self, facts: MetricFacts) -> Gauge:
        return Gauge(facts.name, facts.help, facts.labels, registry=self.registry)

    def _make_histogram(self, facts: MetricFacts) -> Histogram:
        return Histogram(facts.name, facts.help, facts.labels, buckets=facts.buckets, registry=self.registry)

    def count(self, event: TelemetryEvent) -> None:
        """Move the metrics that this event moves."""
        count_stock(event, self._gauge, self._histogram)
        match event:
            case RequestArrived() | RequestServed():
                # Two for every request, and there is nothing of ours to count in them.
                pass
            case BatchTransformed():
                self._histogram(BATCH_EVENTS, event.protocol).observe(event.events)
                self._histogram(BATCH_SECONDS, event.protocol).observe(event.seconds)
                self._count_all(EVENTS, event.outcomes)
                self._count_all(NOTICES, event.notices)
            case SessionsDecided():
                self._histogram(STATE_SECONDS).observe(event.seconds)
                self._count_all(DECISIONS, event.decisions)
                self._count_all(ORDERS, event.orders)
            case TransformFault():
                self._counter(FAULTS, "event").inc()
            case RequestFault():
                self._counter(FAULTS, "request").inc()
            case RequestRefused():
                self._counter(REFUSED, event.reason).inc()
            case Delivered():
                self._counter(DELIVERIES, event.endpoint_path, event.result, event.cause).inc()
                self._histogram(DELIVERY_SECONDS, event.endpoint_path).observe(event.seconds)
            case Attempted():
                self._counter(ATTEMPTS, event.endpoint_path, event.cause).inc()
                self._histogram(ATTEMPT_SECONDS, event.endpoint_path).observe(event.seconds)
            case PassedThrough():
                status = f"{event.status // 100}xx" if event.status else "unreachable"
                self._counter(PASSED_THROUGH, status).inc()
            case _:
                self._count_delivery(event)
                self._count_state(event)
                self._count_ingest(event)
                self._count_spool(event)
                self._count_process(event)

    def _count_delivery(self, event: TelemetryEvent) -> None:
        """The metrics of the delivery engine and of its ledger."""
        match event:
            case DeliveryMeasured():
                for endpoint, number in event.waiting.items():
                    self._gauge(WAITING, endpoint).set(number)
                for endpoint, number in event.in_flight.items():
                    self._gauge(IN_FLIGHT, endpoint).set(number)
                for (endpoint, state), number in event.accounts.items():
                    self._gauge(LIMIT_STATES, endpoint, state).set(number)
            case LimitChanged():
                self._counter(LIMIT_CHANGES, event.endpoint_path, event.change).inc()
            case LaneUnordered():
                self._counter(LANES_UNORDERED).inc()
            case LedgerMeasured():
                self._gauge(LEDGER_ORDERS).set(event.orders)
                self._gauge(LEDGER_CAPACITY).set(event.capacity)
                self._gauge(LEDGER_UNSETTLED).set(event.unsettled)
                self._counter(LEDGER_EVICTED).inc(event.evicted)
                self._gauge(LEDGER_UP).set(1)
            case LedgerFailed():
                self._gauge(LEDGER_UP).set(0)
            case LedgerRestored():
                self._gauge(LEDGER_UP).set(1)
            case _:
                pass

    def _count_state(self, event: TelemetryEvent) -> None:
        """The metrics of the session state itself."""
        match event:
            case StateMeasured():
                for kind, number in event.sizes.items():
                    self._gauge(STATE_ENTRIES, kind).set(number)
                for kind, number in event.capacities.items():
                    self._gauge(STATE_CAPACITY, kind).set(number)
                self._count_all(EVICTED_LIVE, event.evicted)
                self._counter(LATE_CLICKS).inc(event.late_clicks)
                self._counter(UNSAVED).inc(event.unsaved)
            case StateFailed():
                self._counter(STATE_FAILURES).inc()
                self._gauge(STATE_UP).set(0)
            case StateLoaded() | StateRestored():
                self._gauge(STATE_UP).set(1)
            case _:
                pass

    def _count_ingest(self, event: TelemetryEvent) -> None:
        """The metrics of the ingest port."""
        match event:
            case EventsTaken():
                for (status, reason), number in event.results.items():
                    self._counter(INGESTED, event.source, status, reason).inc(number)
            case IngestAnswered():
                self._counter(INGEST_ANSWERS, event.surface, str(event.status)).inc()
                self._histogram(INGEST_SECONDS, event.surface).observe(event.seconds)
            case RoutingRefused():
                self._counter(ROUTING_REFUSED).inc()
            case PersonForgotten():
                self._counter(FORGOTTEN, "identities").inc(event.identities)
                self._counter(FORGOTTEN, "waiting").inc(event.waiting)
                self._counter(FORGOTTEN, "dead_letters").inc(event.dead_letters)
            case _:
                pass

    def _count_spool(self, event: TelemetryEvent) -> None:
        """The metrics of the spool and its drain."""
        match event:
            case RowEnded():
                self._counter(SPOOL_ENDED, event.result, event.reason).inc()
            case SpoolMeasured():
                for destination, number in event.waiting.items():
                    self._gauge(SPOOL_WAITING, destination).set(number)
                self._gauge(SPOOL_DEAD).set(event.dead)
                self._gauge(SPOOL_BYTES).set(event.bytes)
                self._gauge(SPOOL_CAPACITY, "events").set(event.capacity_rows)
                self._gauge(SPOOL_CAPACITY, "bytes").set(event.capacity_bytes)
                self._gauge(SPOOL_AGE).set(event.age_seconds)
                self._counter(SPOOL_EXPIRED).inc(event.expired)
                self._counter(SPOOL_UNORDERED).inc(event.unordered)
                self._counter(SPOOL_EVICTED).inc(event.evicted)
                self._gauge(SPOOL_UP).set(1)
            case SpoolFailed():
                self._gauge(SPOOL_UP).set(0)
            case SpoolRestored():
                self._gauge(SPOOL_UP).set(1)
            case _:
                pass

    def _count_process(self, event: TelemetryEvent) -> None:
        """The metrics of the process itself."""
        match event:
            case ServiceStarted():
                self._gauge(RESTARTS).set(event.restarts)
            case ProcessMeasured():
                self._gauge(MEMORY).set(event.bytes)
                self._gauge(MEMORY_CEILING).set(event.ceiling)
                self._gauge(RESIDENT).set(event.bytes)
                self._counter(PROCESSOR).inc(event.cpu_seconds)
                self._gauge(DESCRIPTORS).set(event.descriptors)
                self._gauge(DESCRIPTORS_LIMIT).set(event.descriptors_limit)
                self._histogram(LAG).observe(event.loop_lag)
            case MemoryExceeded():
                self._gauge(OVER_MEMORY).set(1)
            case MemoryRecovered():
                self._gauge(OVER_MEMORY).set(0)
            case RecordingStarted():
                self._gauge(RECORDING).inc()
            case RecordingEnded():
                self._gauge(RECORDING).dec()
                self._counter(RECORDING_LEFT_OUT).inc(event.left_out)
            case _:
                pass

    def _count_all(self, facts: MetricFacts, numbers: Mapping[str, int] | Mapping[tuple[str, str, str], int]) -> None:
        for labels, number in numbers.items():
            self._counter(facts, *((labels,) if isinstance(labels, str) else labels)).inc(number)

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)


_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


def _child(metric: _Metric, labels: tuple[str, ...]) -> _Metric:
    return metric.labels(*labels) if labels else metric
