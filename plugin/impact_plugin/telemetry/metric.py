"""What a metric is, in one Struct: for the registry and for the documentation."""

from typing import Final, Literal

import msgspec

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds of the buckets of times."""


class MetricFacts(msgspec.Struct, frozen=True):
    """One metric: name, type, labels, meaning, and the upper bounds of a histogram's buckets."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()
