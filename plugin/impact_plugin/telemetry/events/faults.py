"""Unexpected exceptions: bugs of this service, caught at a border so that no event is lost."""

from impact_plugin.telemetry.event import TelemetryEvent
from impact_plugin.telemetry.metric import counter

FAULTS = counter(
    "impact_plugin_faults", "Unexpected exceptions, which are bugs of this service, by what met them.", ("where",)
)


class TransformFault(TelemetryEvent, frozen=True):
    """An unexpected exception met an event, which is rejected with the reason ``transform_fault``.

    ``error`` is the type of the exception and ``at`` where it passed our code; its message may quote the event and is
    never logged.
    """

    level = "error"
    metrics = (FAULTS.inc(where="event"),)

    error: str
    exception: BaseException


class RequestFault(TelemetryEvent, frozen=True):
    """An unexpected exception met a request, which is answered 503 so that the router keeps its events.

    ``route`` may also name background work, which goes on. ``error`` and ``at`` are as in ``TransformFault``.
    """

    level = "error"
    metrics = (FAULTS.inc(where="request"),)

    route: str
    error: str
    exception: BaseException
