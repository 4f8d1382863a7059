"""Requests of the router and of senders, those passed through to the stock transformer, and recordings of them."""

from typing import Literal

from impact_plugin.telemetry.event import TelemetryEvent
from impact_plugin.telemetry.metric import counter, gauge, histogram

RECORDINGS = gauge("impact_plugin_recording", "Recordings of traffic in progress.")


class RequestArrived(TelemetryEvent, frozen=True):
    """A request of the router arrived."""


class RequestServed(TelemetryEvent, frozen=True):
    """A request of the router ended; ``ours`` if it concerned this destination and was not passed through.

    ``status`` is 0 if the router hung up before the response.
    """

    method: str
    route: str
    status: int
    seconds: float
    ours: bool


class RequestRefused(TelemetryEvent, frozen=True):
    """A request could not be processed; the response makes its sender keep the events."""

    level = "warning"
    metrics = (
        counter(
            "impact_plugin_refused_requests",
            "Requests refused so that the router keeps its events, by reason.",
            ("reason",),
        ).inc(),
    )

    route: str
    status: int
    reason: str
    detail: str


class PassedThrough(TelemetryEvent, frozen=True):
    """A request for another destination went to the stock transformer; ``code`` is 0 if it was unreachable."""

    metrics = (
        counter(
            "impact_plugin_passed_through",
            "Requests passed through to the stock transformer, by the class of its response (2xx ..., unreachable).",
            ("status",),
        ).inc(),
    )

    code: int
    seconds: float

    @property
    def status(self) -> str:
        """The class of the response: ``2xx`` and so on, or ``unreachable``."""
        return f"{self.code // 100}xx" if self.code else "unreachable"


class IngestAnswered(TelemetryEvent, frozen=True):
    """A sender got its response on the ingest port, after ``seconds``."""

    metrics = (
        counter(
            "impact_plugin_ingest_answers", "Responses on the ingest port, by HTTP status.", ("surface", "status")
        ).inc(),
        histogram(
            "impact_plugin_ingest_seconds",
            "Time to answer a sender, in seconds; Jitsu gives up after two.",
            ("surface",),
        ).observe("seconds"),
    )

    surface: Literal["segment_api", "webhook"]
    status: int
    seconds: float


class RecordingStarted(TelemetryEvent, frozen=True):
    """A recording of traffic, with personal data replaced, has begun; ``to`` is a file or the operator's connection."""

    level = "warning"
    metrics = (RECORDINGS.inc(),)

    to: str
    seconds: float
    max_bytes: int


class RecordingEnded(TelemetryEvent, frozen=True):
    """A recording ended; ``left_out`` counts the events that arrived too fast to be recorded."""

    level = "warning"
    metrics = (
        RECORDINGS.dec(),
        counter("impact_plugin_recording_left_out", "Events that arrived too fast to be recorded.").inc("left_out"),
    )

    to: str
    bytes: int
    left_out: int
    cause: str
