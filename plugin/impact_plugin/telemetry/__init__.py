"""One internal event per fact; the log line and the metric both derive from it."""

from contextlib import suppress

from impact_plugin.telemetry.events import (
    TELEMETRY_EVENTS,
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
    RoutingLoaded,
    RoutingRefused,
    RowEnded,
    ServiceStarted,
    ServiceStopping,
    SessionsDecided,
    SpoolFailed,
    SpoolMeasured,
    SpoolRestored,
    StateFailed,
    StateLoaded,
    StateMeasured,
    StateRestored,
    StateUndecided,
    SupervisorStarted,
    TelemetryEvent,
    TransformFault,
    WorkerEnded,
    WorkerNotReplaced,
    WorkerReplaced,
    WorkerStarted,
)
from impact_plugin.telemetry.logging import configure_logging, log
from impact_plugin.telemetry.metrics import CONTENT_TYPE, METRICS, Metrics

__all__ = [
    "CONTENT_TYPE",
    "METRICS",
    "TELEMETRY_EVENTS",
    "Attempted",
    "BatchTransformed",
    "Delivered",
    "DeliveryMeasured",
    "EventsTaken",
    "IngestAnswered",
    "LaneUnordered",
    "LedgerFailed",
    "LedgerMeasured",
    "LedgerRestored",
    "LimitChanged",
    "MemoryExceeded",
    "MemoryRecovered",
    "Metrics",
    "PassedThrough",
    "PersonForgotten",
    "ProcessMeasured",
    "RecordingEnded",
    "RecordingStarted",
    "RequestArrived",
    "RequestFault",
    "RequestRefused",
    "RequestServed",
    "RoutingLoaded",
    "RoutingRefused",
    "RowEnded",
    "ServiceStarted",
    "ServiceStopping",
    "SessionsDecided",
    "SpoolFailed",
    "SpoolMeasured",
    "SpoolRestored",
    "StateFailed",
    "StateLoaded",
    "StateMeasured",
    "StateRestored",
    "StateUndecided",
    "SupervisorStarted",
    "Telemetry",
    "TelemetryEvent",
    "TransformFault",
    "WorkerEnded",
    "WorkerNotReplaced",
    "WorkerReplaced",
    "WorkerStarted",
    "configure_logging",
]


class Telemetry:
    """Where the service reports facts."""

    def __init__(self) -> None:
        self.metrics = Metrics()

    def emit(self, event: TelemetryEvent) -> None:
        """Count and log one fact."""
        self.metrics.count(event)
        # Standard error may be closed or a broken pipe: losing a line is better than losing a reply.
        with suppress(OSError, ValueError):
            log(event)
