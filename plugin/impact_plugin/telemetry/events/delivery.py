"""Delivery to impact.com, and the limits it is under."""

from collections.abc import Mapping
from typing import Literal

from impact_plugin.telemetry.event import TelemetryEvent
from impact_plugin.telemetry.metric import counter, gauge, histogram


class RequestSent(TelemetryEvent, frozen=True):
    """A request was sent to impact.com; ``seconds`` until the response or, with ``status`` 0, until there was none."""

    metrics = (
        counter(
            "impact_plugin_attempts",
            "Requests sent to impact.com, by endpoint path and cause.",
            ("endpoint_path", "cause"),
        ).inc(),
        histogram(
            "impact_plugin_attempt_seconds", "Time until impact.com answered a request, in seconds.", ("endpoint_path",)
        ).observe("seconds"),
    )

    endpoint_path: str
    cause: str
    status: int
    seconds: float


class DeliveryEnded(TelemetryEvent, frozen=True):
    """A delivery for the router ended, sent or not, as ``cause`` says; ``seconds`` includes all waiting."""

    metrics = (
        counter(
            "impact_plugin_deliveries",
            "Deliveries for the router, sent or not, by endpoint path, result and cause.",
            ("endpoint_path", "result", "cause"),
        ).inc(),
        histogram(
            "impact_plugin_delivery_seconds",
            "Time to answer a delivery of the router, waiting included, in seconds.",
            ("endpoint_path",),
        ).observe("seconds"),
    )

    endpoint_path: str
    result: Literal["delivered", "retry", "rejected"]
    cause: str
    seconds: float


class DeliveryMeasured(TelemetryEvent, frozen=True):
    """The requests that wait and that are in flight, by endpoint path, and the accounts by endpoint path and state."""

    metrics = (
        gauge(
            "impact_plugin_delivery_waiting", "Requests waiting for a permit to be sent.", ("endpoint_path",)
        ).set_each("waiting"),
        gauge("impact_plugin_delivery_in_flight", "Requests to impact.com in flight.", ("endpoint_path",)).set_each(
            "in_flight"
        ),
        gauge(
            "impact_plugin_delivery_accounts",
            "Accounts whose traffic flows (open), is probed (probing) or is stopped (closed); /debug/limits says why.",
            ("endpoint_path", "state"),
        ).set_each("accounts"),
    )

    waiting: Mapping[str, int]
    in_flight: Mapping[str, int]
    accounts: Mapping[tuple[str, str], int]


class LimitChanged(TelemetryEvent, frozen=True):
    """impact.com accepts more or fewer requests of an account: its breaker, quota, credentials or limit changed."""

    level = "warning"
    metrics = (
        counter(
            "impact_plugin_limit_changes",
            "Changes of an account's limits: breaker, credentials, quota, collapse; the log names the account.",
            ("endpoint_path", "change"),
        ).inc(),
    )

    account: str
    endpoint_path: str
    change: str
    detail: str


class LaneUnordered(TelemetryEvent, frozen=True):
    """Too many requests of one visitor were waiting; they are sent in any order."""

    level = "warning"
    metrics = (
        counter(
            "impact_plugin_lanes_unordered",
            "Visitors whose requests were sent in any order because too many of them were waiting.",
        ).inc(),
    )
