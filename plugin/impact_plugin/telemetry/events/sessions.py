"""Sessions: the decisions about clicks, and the session state they are made from."""

from collections import Counter
from collections.abc import Mapping

from impact_plugin.telemetry.event import TelemetryEvent
from impact_plugin.telemetry.metric import counter, gauge, histogram

STATE_UP = gauge("impact_plugin_state_up", "1 while the session state is available, 0 while it is not.")


class SessionsDecided(TelemetryEvent, frozen=True):
    """A batch got its decisions: click candidates by decision, and orders by where their click id came from."""

    metrics = (
        counter(
            "impact_plugin_click_decisions",
            "Click candidates: new (unique clicks), repeat, replayed (known message), undecided (state unavailable).",
            ("decision",),
        ).inc_each("decisions"),
        counter(
            "impact_plugin_orders",
            "Conversions by their click id: carried by the event, stitched from the session state, or without.",
            ("click_id",),
        ).inc_each("orders"),
        histogram("impact_plugin_state_seconds", "Time for the session state to answer a batch, in seconds.").observe(
            "seconds"
        ),
    )

    questions: int
    decisions: Counter[str]
    orders: Counter[str]
    seconds: float


class StateMeasured(TelemetryEvent, frozen=True):
    """The entries of the session state by kind, and what happened to them since the last measurement."""

    metrics = (
        gauge("impact_plugin_state_entries", "Entries of the session state, by kind.", ("kind",)).set_each("sizes"),
        gauge(
            "impact_plugin_state_capacity",
            "Maximum number of entries of the session state, by kind; alert at 80 %.",
            ("kind",),
        ).set_each("capacities"),
        counter(
            "impact_plugin_state_evicted_live",
            "Entries dropped at capacity before they expired, by kind; expected 0.",
            ("kind",),
        ).inc_each("evicted"),
        counter(
            "impact_plugin_late_clicks",
            "Conversions sent without a click id that arrived afterwards; router transform avoids most of them.",
        ).inc("late_clicks"),
        counter(
            "impact_plugin_state_unsaved",
            "Changes kept in memory only, because they could not be written to the session state in time.",
        ).inc("unsaved"),
    )

    sizes: Mapping[str, int]
    capacities: Mapping[str, int]
    evicted: Mapping[str, int]
    late_clicks: int
    unsaved: int


class StateLoaded(TelemetryEvent, frozen=True):
    """The session state is open; ``sizes`` counts the entries it already holds, by kind."""

    level = "info"
    metrics = (STATE_UP.set(1),)

    sizes: Mapping[str, int]
    seconds: float


class StateFailed(TelemetryEvent, frozen=True):
    """The session state is unavailable: batches are refused for the grace period, and the router keeps them."""

    level = "warning"
    metrics = (
        counter("impact_plugin_state_failures", "How often the session state became unavailable.").inc(),
        STATE_UP.set(0),
    )

    cause: str
    grace_seconds: float


class StateUndecided(TelemetryEvent, frozen=True):
    """The grace period is over: until the session state is back, this process decides about clicks by itself."""

    level = "error"

    cause: str
    seconds: float


class StateRestored(TelemetryEvent, frozen=True):
    """The session state is available again, after ``seconds``."""

    level = "warning"
    metrics = (STATE_UP.set(1),)

    seconds: float
