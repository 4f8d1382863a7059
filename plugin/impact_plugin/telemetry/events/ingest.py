"""Ingest: events of senders, the spool that stores them, the configuration of sources, and deletion."""

from collections import Counter
from collections.abc import Mapping
from typing import Literal

from impact_plugin.telemetry.event import TelemetryEvent
from impact_plugin.telemetry.metric import counter, gauge

SPOOL_CAPACITY = gauge(
    "impact_plugin_spool_capacity", "Maximum number of stored events and bytes; alert at 80 %.", ("of",)
)
SPOOL_UP = gauge("impact_plugin_spool_up", "1 while the spool is available, 0 while it is not.")
FORGOTTEN = counter(
    "impact_plugin_forgotten", "What was deleted on request: identities, waiting (events), dead_letters.", ("what",)
)


class EventsIngested(TelemetryEvent, frozen=True):
    """A source sent events, and those that were stored are durable; ``results`` counts them by status and reason."""

    metrics = (
        counter(
            "impact_plugin_ingested_events",
            "Events of senders, by source, status (stored, duplicate, filtered, rejected) and reason.",
            ("source", "status", "reason"),
        ).inc_each("results"),
    )

    source: str
    results: Counter[tuple[str, str]]
    seconds: float


class SpoolAttemptEnded(TelemetryEvent, frozen=True):
    """An attempt to deliver a stored event ended: the event was sent, filtered or rejected, or is held for a retry."""

    metrics = (
        counter(
            "impact_plugin_spool_ended",
            "Attempts to deliver stored events, by result (sent, filtered, rejected, held) and reason.",
            ("result", "reason"),
        ).inc(),
    )

    result: Literal["sent", "filtered", "held", "rejected"]
    reason: str


class SpoolMeasured(TelemetryEvent, frozen=True):
    """The stored events, and what happened to them since the last measurement.

    ``waiting`` counts them by destination; ``age_seconds`` is the age of the oldest that waits.
    """

    metrics = (
        gauge(
            "impact_plugin_spool_waiting", "Stored events that are not delivered yet, by destination.", ("destination",)
        ).set_each("waiting"),
        gauge("impact_plugin_spool_dead_letters", "Dead letters in the spool.").set("dead"),
        gauge("impact_plugin_spool_bytes", "Size of the stored events, in bytes.").set("bytes"),
        SPOOL_CAPACITY.set("capacity_rows", of="events"),
        SPOOL_CAPACITY.set("capacity_bytes", of="bytes"),
        gauge(
            "impact_plugin_spool_oldest_seconds", "Age of the oldest stored event that is not delivered, in seconds."
        ).set("age_seconds"),
        counter("impact_plugin_spool_expired", "Stored events that became dead letters because of their age.").inc(
            "expired"
        ),
        counter(
            "impact_plugin_spool_unordered",
            "Visitors whose stored events lost their order, because there were too many or one was stuck.",
        ).inc("unordered"),
        counter(
            "impact_plugin_spool_evicted",
            "Dead letters, and records of events already seen, dropped early because there were too many.",
        ).inc("evicted"),
        SPOOL_UP.set(1),
    )

    waiting: Mapping[str, int]
    dead: int
    bytes: int
    capacity_rows: int
    capacity_bytes: int
    age_seconds: float
    expired: int
    unordered: int
    evicted: int


class SpoolFailed(TelemetryEvent, frozen=True):
    """The spool is unavailable: senders get a 503 and send again, and nothing that is stored is lost."""

    level = "error"
    metrics = (SPOOL_UP.set(0),)

    cause: str


class SpoolRestored(TelemetryEvent, frozen=True):
    """The spool is available again."""

    level = "warning"
    metrics = (SPOOL_UP.set(1),)


class RoutingLoaded(TelemetryEvent, frozen=True):
    """Sources and destinations were loaded from the configuration file; ``changed`` names those that differ."""

    level = "info"

    sources: int
    destinations: int
    changed: tuple[str, ...]


class RoutingRefused(TelemetryEvent, frozen=True):
    """The configuration file was reloaded and is not usable, or not without a restart, as ``detail`` says."""

    level = "error"
    metrics = (
        counter("impact_plugin_routing_refused", "Configuration files that were not usable when reloaded.").inc(),
    )

    detail: str


class PersonForgotten(TelemetryEvent, frozen=True):
    """A person's data was deleted on request: identities, waiting events and dead letters."""

    level = "info"
    metrics = (
        FORGOTTEN.inc("identities", what="identities"),
        FORGOTTEN.inc("waiting", what="waiting"),
        FORGOTTEN.inc("dead_letters", what="dead_letters"),
    )

    identities: int
    waiting: int
    dead_letters: int
