"""What board and alerts ask Prometheus for, taken apart: series, the labels they select by, and those they group by."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import yaml

DEPLOY: Final = Path(__file__).parents[1] / "deploy"
TARGET_LABELS: Final = frozenset({"instance", "job"})
"""Prometheus adds them; a service does not know them."""

_SELECTOR: Final = re.compile(r"\b((?:impact_plugin|transformer|process)_\w+|up)\b(?:\{([^}]*)\})?")
_MATCHER: Final = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


class Selector(msgspec.Struct, frozen=True, order=True):
    """A series and what its labels have to be, without the labels of targets."""

    series: str
    matchers: tuple[tuple[str, str, str], ...] = ()

    def __str__(self) -> str:
        """As Prometheus writes it."""
        inside = ",".join(f'{label}{sign}"{value}"' for label, sign, value in self.matchers)
        return f"{self.series}{{{inside}}}" if inside else self.series

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a child of the series is meant; expressions match the whole value, a missing label is empty."""
        for label, sign, value in self.matchers:
            pattern = value if sign in ("=~", "!~") else re.escape(value)
            if (re.fullmatch(pattern, labels.get(label, "")) is None) is not sign.startswith("!"):
                return False
        return True


def expressions() -> list[str]:
    """Every query of the board and of the alerts."""
    board = json.loads((DEPLOY / "grafana" / "impact-plugin.json").read_text(encoding="utf-8"))
    alerts = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    return found + [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]


def selectors(expression: str) -> list[Selector]:
    """What an expression selects."""
    # What it groups by stands in brackets of its own and could be taken for a series.
    bare = re.sub(r"\b(?:by|on) \([^)]*\)", "", expression)
    return [
        Selector(series, tuple(found for found in _MATCHER.findall(inside) if found[0] not in TARGET_LABELS))
        for series, inside in _SELECTOR.findall(bare)
    ]


def grouped(expression: str) -> set[str]:
    """The labels an expression groups or joins by."""
    found = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
    return {name.strip() for names in found for name in names.split(",")}


def queried() -> set[Selector]:
    """Every selector of ours in the board and in the alerts."""
    return {one for text in expressions() for one in selectors(text) if one.series != "up"}
