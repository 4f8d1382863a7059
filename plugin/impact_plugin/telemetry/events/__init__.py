"""Everything the service reports, in one module for each part of it; one class declares one event completely."""

from types import ModuleType
from typing import Final

from impact_plugin.telemetry.event import TelemetryEvent
from impact_plugin.telemetry.events import delivery, faults, http, ingest, orders, process, sessions, transformation


def _events_in(module: ModuleType) -> tuple[type[TelemetryEvent], ...]:
    return tuple(
        found
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, TelemetryEvent) and found is not TelemetryEvent
    )


MODULES: Final = (process, http, transformation, faults, delivery, orders, sessions, ingest)
TELEMETRY_EVENTS: Final = tuple(event for module in MODULES for event in _events_in(module))
"""All events, for the hooks and the reference."""
