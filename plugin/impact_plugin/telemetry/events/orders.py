"""The ledger of conversions, which keeps an order from being sent twice."""

from impact_plugin.telemetry.event import TelemetryEvent
from impact_plugin.telemetry.metric import counter, gauge

LEDGER_UP = gauge("impact_plugin_ledger_up", "1 while the ledger of conversions is available, 0 while it is not.")


class LedgerFailed(TelemetryEvent, frozen=True):
    """The ledger of conversions is unavailable: conversions are held back, and the router keeps them."""

    level = "error"
    metrics = (LEDGER_UP.set(0),)

    cause: str


class LedgerRestored(TelemetryEvent, frozen=True):
    """The ledger of conversions is available again."""

    level = "warning"
    metrics = (LEDGER_UP.set(1),)


class LedgerMeasured(TelemetryEvent, frozen=True):
    """The orders in the ledger, those whose outcome is unknown, and those evicted since the last measurement."""

    metrics = (
        gauge("impact_plugin_ledger_orders", "Orders in the ledger of conversions.").set("orders"),
        gauge(
            "impact_plugin_ledger_capacity", "Maximum number of orders in the ledger of conversions; alert at 80 %."
        ).set("capacity"),
        gauge("impact_plugin_ledger_unsettled", "Orders in the ledger of conversions whose outcome is unknown.").set(
            "unsettled"
        ),
        counter("impact_plugin_ledger_evicted", "Orders dropped from the ledger at capacity; expected 0.").inc(
            "evicted"
        ),
        LEDGER_UP.set(1),
    )

    orders: int
    unsettled: int
    capacity: int
    evicted: int
