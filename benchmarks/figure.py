"""A bar chart as SVG, by hand: readable on light and on dark ground, and small enough to be committed."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

import msgspec

WIDTH: Final = 760
LEFT: Final = 230
RIGHT: Final = 60
TOP: Final = 64
BAR: Final = 7
GAP: Final = 12
COLOURS: Final = ("#2f81f7", "#8b949e", "#d29922")
"""Told apart by those who see few colours too, and visible on white and on black."""
STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#57606a}line{stroke:#8b949e;stroke-opacity:.35}"
    "@media (prefers-color-scheme:dark){text{fill:#c9d1d9}}"
)


class Bars(msgspec.Struct, frozen=True):
    """One group: its name, and a share from 0 to 1 for each series."""

    name: str
    values: Mapping[str, float]


def draw(title: str, groups: Sequence[Bars]) -> str:
    """The whole picture."""
    series = list(groups[0].values)
    height = TOP + len(groups) * (len(series) * BAR + GAP) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"',
        f'role="img" aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<text x="0" y="16" style="font-weight:600">{escape(title)}</text>',
        *_legend(series),
        *_grid(height),
    ]
    for number, group in enumerate(groups):
        parts += _group(group, TOP + number * (len(series) * BAR + GAP))
    return "\n".join([*parts, "</svg>", ""])


def _legend(series: Sequence[str]) -> list[str]:
    return [
        f'<rect x="{LEFT + number * 110}" y="28" width="10" height="10" fill="{COLOURS[number]}"/>'
        f'<text x="{LEFT + 15 + number * 110}" y="37">{escape(name)}</text>'
        for number, name in enumerate(series)
    ]


def _grid(height: int) -> list[str]:
    return [
        f'<line x1="{_x(share)}" y1="{TOP - 6}" x2="{_x(share)}" y2="{height - 22}"/>'
        f'<text x="{_x(share)}" y="{height - 8}" text-anchor="middle">{share:.0%}</text>'
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]


def _group(group: Bars, top: int) -> list[str]:
    middle = top + len(group.values) * BAR / 2 + 4
    parts = [f'<text x="{LEFT - 8}" y="{middle:.0f}" text-anchor="end">{escape(group.name)}</text>']
    for number, value in enumerate(group.values.values()):
        width = _x(min(value, 1.0)) - LEFT
        parts.append(
            f'<rect x="{LEFT}" y="{top + number * BAR}" width="{width:.1f}" height="{BAR - 1}" '
            f'fill="{COLOURS[number]}"/>'
        )
    ours = next(iter(group.values.values()))
    parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{middle:.0f}">{ours:.0%}</text>')
    return parts


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)
