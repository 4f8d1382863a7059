"""The vocabulary in which a telemetry event declares its metrics; it knows no metrics library."""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import msgspec

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets of a histogram of times."""

Verb: TypeAlias = Literal["inc", "dec", "set", "observe"]


class Metric(msgspec.Struct, frozen=True):
    """A metric: name (a counter's without ``_total``), type, help text, labels, and a histogram's upper bounds.

    Its methods declare how an event changes it. A value is a number or the name of one of the event's attributes. Each
    label has the value of the event's attribute of the same name, unless you pass constants; then pass all of them.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    def inc(self, value: str | float = 1, **constants: str) -> "MetricChange":
        """Add to a counter or gauge."""
        return MetricChange(self, "inc", value, constants)

    def dec(self, value: str | float = 1, **constants: str) -> "MetricChange":
        """Subtract from a gauge."""
        return MetricChange(self, "dec", value, constants)

    def set(self, value: str | float, **constants: str) -> "MetricChange":
        """Set a gauge."""
        return MetricChange(self, "set", value, constants)

    def observe(self, value: str | float, **constants: str) -> "MetricChange":
        """Add a value to a histogram."""
        return MetricChange(self, "observe", value, constants)

    def inc_each(self, mapping: str) -> "MetricChange":
        """Add each number of a mapping; the labels that the event has no attribute for come from the mapping's keys."""
        return MetricChange(self, "inc", mapping, each=True)

    def set_each(self, mapping: str) -> "MetricChange":
        """Set one gauge for each number of a mapping, with labels as in :meth:`inc_each`."""
        return MetricChange(self, "set", mapping, each=True)


class MetricChange(msgspec.Struct, frozen=True):
    """How an event changes a metric; with ``each``, ``value`` names a mapping and every entry is a change."""

    metric: Metric
    verb: Verb
    value: str | float
    constants: Mapping[str, str] = {}
    each: bool = False


def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Metric:
    """A count that only grows; Prometheus adds ``_total`` to its name."""
    return Metric(name, "counter", text, labels)


def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Metric:
    """A value that goes up and down."""
    return Metric(name, "gauge", text, labels)


def histogram(name: str, text: str, labels: tuple[str, ...] = (), *, buckets: tuple[float, ...] = SECONDS) -> Metric:
    """A distribution of values; of seconds, unless you give other ``buckets``."""
    return Metric(name, "histogram", text, labels, buckets)
