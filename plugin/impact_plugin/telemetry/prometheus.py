"""The Prometheus hook: the metrics that the events declare, in a registry of their own.

The values of labels come from enumerations and from the configuration, never from what a client sends.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter
from time import time
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from impact_plugin import __version__
from impact_plugin.telemetry.event import Handler, TelemetryEvent
from impact_plugin.telemetry.metric import Metric, MetricChange, gauge

CHILDREN: Final = 512
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

BUILD: Final = gauge("impact_plugin_build_info", "Always 1; the label is the version.", ("version",))
STARTED: Final = gauge("process_start_time_seconds", "When the process started, in seconds since the Unix epoch.")
KINDS: Final[dict[str, type[Any]]] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
STATIC: Final = (BUILD, STARTED)
"""The metrics that no event changes: they are set once."""


class Metrics:
    """The metrics of this process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._children: dict[str, Callable[..., Any]] = {}
        self.children(BUILD)(__version__).set(1)
        self.children(STARTED)().set(time())

    def children(self, metric: Metric) -> Callable[..., Any]:
        """Return a function from label values to the child of a metric, which it registers when it is new."""
        if metric.name not in self._children:
            made = self._registered(metric)
            # prometheus_client takes a lock and copies the labels for every look-up; children are few, so keep them.
            self._children[metric.name] = lru_cache(maxsize=CHILDREN)(made.labels) if metric.labels else lambda: made
        return self._children[metric.name]

    def handlers(self, kind: type[TelemetryEvent]) -> list[Handler]:
        """Return what counts the events of this class: a function for each change that it declares."""
        return [_handler(kind, change, self) for change in kind.metrics]

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _registered(self, metric: Metric) -> Any:
        buckets = {"buckets": metric.buckets} if metric.buckets else {}
        return KINDS[metric.kind](metric.name, metric.help, metric.labels, registry=self.registry, **buckets)


def _handler(kind: type[TelemetryEvent], change: MetricChange, metrics: Metrics) -> Handler:
    """Return what makes one change for an event. Attributes are read by ``attrgetter``, which is C code."""
    children = metrics.children(change.metric)
    act = getattr(KINDS[change.metric.kind], change.verb)
    if change.each:
        return _each(kind, change, children, act)
    labels, value = _labels(change), _value(change)
    return lambda event: act(children(*labels(event)), value(event))


def _each(
    kind: type[TelemetryEvent], change: MetricChange, children: Callable[..., Any], act: Callable[..., None]
) -> Handler:
    """Return what makes a change for each entry of a mapping, whose key has the labels that the event lacks."""
    own = [label for label in change.metric.labels if hasattr(kind, label)]
    labels, mapping = _attributes(own), attrgetter(str(change.value))
    several = len(change.metric.labels) - len(own) > 1

    def handle(event: Any) -> None:
        first = labels(event)
        for key, number in mapping(event).items():
            act(children(*first, *(key if several else (key,))), number)

    return handle


def _labels(change: MetricChange) -> Callable[[Any], tuple[Any, ...]]:
    if not change.constants:
        return _attributes(change.metric.labels)
    values = tuple(change.constants[label] for label in change.metric.labels)
    return lambda _event: values


def _value(change: MetricChange) -> Callable[[Any], float]:
    number = change.value
    return attrgetter(number) if isinstance(number, str) else lambda _event: number


def _attributes(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    if not names:
        return lambda _event: ()
    only = attrgetter(*names)
    return lambda event: (only(event),)
