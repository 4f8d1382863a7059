"""What every telemetry event is, and what handles one."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec

from impact_plugin.telemetry.metric import MetricChange

Level: TypeAlias = Literal["info", "warning", "error"]


class TelemetryEvent(msgspec.Struct, frozen=True):
    """Something that happened in the service, with everything that an operator gets to see of it.

    A subclass declares all of it: its docstring is its entry in the reference, its fields are the fields of its log
    line, and its metrics are what the hooks count it in.
    """

    level: ClassVar[Level | None] = None
    """Severity of its log line; None for no line."""

    metrics: ClassVar[tuple[MetricChange, ...]] = ()
    """How it changes metrics."""


Handler: TypeAlias = Callable[[Any], None]
"""What one hook does with the events of one class."""
