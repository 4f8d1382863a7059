"""What the service reports: from one internal event come its log line and its metrics.

To add an event, write one class in ``telemetry/events``.
"""

from itertools import chain
from typing import Final

from impact_plugin.telemetry.event import TelemetryEvent
from impact_plugin.telemetry.events import TELEMETRY_EVENTS
from impact_plugin.telemetry.logging import configure_logging, log_handlers
from impact_plugin.telemetry.metric import Metric
from impact_plugin.telemetry.prometheus import CONTENT_TYPE, STATIC, Metrics
from impact_plugin.telemetry.stock import STOCK, StockMetrics

__all__ = [
    "CONTENT_TYPE",
    "METRICS",
    "TELEMETRY_EVENTS",
    "Metrics",
    "Telemetry",
    "TelemetryEvent",
    "configure_logging",
]

METRICS: Final[tuple[Metric, ...]] = tuple(
    dict.fromkeys([*(change.metric for event in TELEMETRY_EVENTS for change in event.metrics), *STATIC, *STOCK])
)
"""All of them, for the reference."""


class Telemetry:
    """Hands every event to the hooks: to the metrics, to those of the stock transformer, and to the log."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        hooks = (self.metrics.handlers, StockMetrics(self.metrics).handlers, log_handlers)
        self._handlers = {
            event: tuple(chain.from_iterable(handlers(event) for handlers in hooks)) for event in TELEMETRY_EVENTS
        }

    def emit(self, event: TelemetryEvent) -> None:
        """Count and log an event."""
        for handle in self._handlers[type(event)]:
            handle(event)
