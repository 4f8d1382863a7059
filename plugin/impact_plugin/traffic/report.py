"""Self-contained HTML reports: tables, bars and lines as SVG, light or dark as the system is, without scripts.

The texts of charts are HTML next to the drawing: they keep their size on a phone, where a drawing shrinks.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final, TypeAlias

import msgspec

from impact_plugin import __version__

MAX_ROWS: Final = 60
MAX_POINTS: Final = 240
MAX_CHARACTERS: Final = 200
MAX_TICKS: Final = 4
MIN_VALUE: Final = 1e-6
"""The smallest value that an axis can show; smaller ones are drawn as nothing."""

COLOURS: Final = ("c1", "c2", "c3", "c4", "c5")
TROUBLE: Final = "c4"
"""The colour of failures, in every chart."""

STYLE: Final = """
:root { color-scheme: light dark; --ink:#1c2430; --soft:#5b6777; --line:#d9dee5; --paper:#fff; --band:#f4f6f8;
  --c1:#2563eb; --c2:#0d9488; --c3:#d97706; --c4:#dc2626; --c5:#7c3aed }
@media (prefers-color-scheme: dark) { :root { --ink:#e6eaf0; --soft:#9aa7b8; --line:#323c49; --paper:#12171d;
  --band:#1a212a; --c1:#60a5fa; --c2:#2dd4bf; --c3:#fbbf24; --c4:#f87171; --c5:#a78bfa } }
body { margin:0 auto; max-width:820px; padding:24px 20px 32px; background:var(--paper); color:var(--ink);
  font:15px/1.5 system-ui,sans-serif; overflow-wrap:break-word }
h1 { font-size:24px; margin:0 0 4px } h2 { font-size:17px; margin:34px 0 8px }
p { margin:4px 0 10px; color:var(--soft) } .foot { margin-top:40px; font-size:13px }
.scroll { overflow-x:auto } table { border-collapse:collapse; min-width:min(100%,340px); margin-top:12px }
th,td { text-align:left; padding:6px 20px 6px 0; border-bottom:1px solid var(--line); vertical-align:top }
th:last-child,td:last-child { padding-right:0 } th { color:var(--soft); font-weight:600 }
td.n,th.n { text-align:right; font-variant-numeric:tabular-nums } td div { overflow-wrap:anywhere }
td div + div { color:var(--soft); font-size:13px; margin-top:2px }
.tiles { display:flex; flex-wrap:wrap; gap:12px; margin:18px 0 }
.tile { box-sizing:border-box; flex:1 1 112px; max-width:200px; background:var(--band); border-radius:8px;
  padding:10px 14px }
.tile b { display:block; font-size:21px; white-space:nowrap; font-variant-numeric:tabular-nums }
.tile span { display:block; color:var(--soft); font-size:13px; line-height:1.35 }
.bars { display:grid; grid-template-columns:fit-content(45%) 1fr; gap:4px 14px; margin:8px 0; align-items:center;
  font-size:14px } .bars dt { min-width:min(110px,28vw) } .bars dt.in { padding-left:18px }
.bars dd { margin:0; display:flex; align-items:center; gap:8px; color:var(--soft); font-size:12px;
  font-variant-numeric:tabular-nums; white-space:nowrap }
.bars i { flex:none; min-width:2px; height:16px; border-radius:3px }
.chart { display:grid; grid-template-columns:auto 1fr; gap:0 8px; margin:16px 0 22px; color:var(--soft);
  font-size:11px; line-height:16px; font-variant-numeric:tabular-nums } .chart svg { width:100%; height:160px;
  overflow:visible } .chart line,.chart polyline { vector-effect:non-scaling-stroke }
.y { min-width:26px; display:flex; flex-direction:column; justify-content:space-between; margin:-8px 0;
  text-align:right }
.x { grid-column:2; position:relative; height:16px; margin-top:6px } .x span { position:absolute; white-space:nowrap }
.key { grid-column:2; display:flex; flex-wrap:wrap; gap:2px 22px; margin-top:8px; color:var(--ink); font-size:13px }
.key svg { width:22px; height:10px; margin-right:6px } .axis { stroke:var(--line) }
.line { fill:none; stroke-width:2 } .broad { stroke-width:8; opacity:.3 }
@media (max-width:560px) { th,td { padding-right:12px } .x .middle { display:none } }
""" + "\n".join(f".{name} {{ stroke:var(--{name}) }} i.{name} {{ background:var(--{name}) }}" for name in COLOURS)

Cell: TypeAlias = "str | int | tuple[str, ...]"
"""A number gets thousands separators; of several texts, the later ones are notes to the first."""


class Bar(msgspec.Struct, frozen=True):
    """One bar: its name, its value, and a note after the number; a part of the bar above is indented."""

    name: str
    value: float
    note: str = ""
    colour: str = "c1"
    part: bool = False


class Series(msgspec.Struct, frozen=True):
    """One line of a chart: its name, and a value for each point of the axis; broad lines lie underneath.

    The line breaks where a value is None. Where points are merged, their mean is drawn, or with ``peaks`` the largest.
    """

    name: str
    values: tuple[float | None, ...]
    colour: str = "c1"
    broad: bool = False
    peaks: bool = False

    @property
    def known(self) -> list[float]:
        """The values that are not None."""
        return [value for value in self.values if value is not None]


class ReportPage:
    """One report, built from top to bottom."""

    def __init__(self, title: str, subtitle: str) -> None:
        self._title = title
        self._parts = [f"<h1>{escape(title)}</h1>", f"<p>{escape(subtitle)}</p>"]

    def tiles(self, tiles: Iterable[tuple[str, str]]) -> None:
        """Add large numbers with their names."""
        cells = (
            f'<div class="tile"><b>{escape(number)}</b><span>{escape(name)}</span></div>' for name, number in tiles
        )
        self._parts.append(f'<div class="tiles">{"".join(cells)}</div>')

    def heading(self, text: str, note: str = "") -> None:
        """Add a heading, with a note below it."""
        self._parts.append(f"<h2>{escape(text)}</h2>" + (f"<p>{escape(note)}</p>" if note else ""))

    def note(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Add a table; columns of numbers are right-aligned."""
        shown = rows[:MAX_ROWS]
        numeric = [all(_is_number(row[column]) for row in shown) for column in range(len(heads))]

        def line(cells: Sequence[Cell], tag: str) -> str:
            made = (
                f"<{tag}{' class=n' if numeric[column] else ''}>{_cell(cell)}</{tag}>"
                for column, cell in enumerate(cells)
            )
            return f"<tr>{''.join(made)}</tr>"

        body = "".join(line(row, "td") for row in shown)
        self._parts.append(f'<div class="scroll"><table>{line(heads, "th")}{body}</table></div>')
        self._note_rest(len(rows))

    def bars(self, bars: Sequence[Bar], unit: str = "") -> None:
        """Add bars next to their names; the largest takes the whole width."""
        shown = bars[:MAX_ROWS]
        most = max((bar.value for bar in shown), default=0) or 1
        label = [" · ".join(filter(None, (f"{_number(bar.value)}{unit}", bar.note))) for bar in shown]
        # Every bar leaves room for the longest number: one that shrinks for its own number would lie.
        room = max(map(len, label), default=0) + 1
        made = [
            f"<dt{' class=in' if bar.part else ''}>{escape(_short(bar.name))}</dt>"
            f'<dd><i class="{bar.colour}" style="width:calc((100% - {room}ch) * {bar.value / most:.4f})"></i>'
            f"{escape(number)}</dd>"
            for bar, number in zip(shown, label, strict=True)
        ]
        self._parts.append(f'<dl class="bars">{"".join(made)}</dl>')
        self._note_rest(len(bars))

    def lines(self, points: Sequence[str], series: Sequence[Series], unit: str = "") -> None:
        """Add lines over an axis of time; neighbouring points are merged if there are too many."""
        label = ", ".join(f"{one.name} up to {_number(max(one.known, default=0))}{unit}" for one in series)
        points, series = _thinned(points, series)
        ticks = _ticks([value for one in series for value in one.known])
        levels = "".join(f"<span>{tick:,.10g}{escape(unit)}</span>" for tick in reversed(ticks))
        lines = "".join(_line(one, ticks[-1]) for one in sorted(series, key=lambda one: not one.broad))
        self._parts.append(
            f'<div class="chart"><div class="y">{levels}</div>'
            f'<svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
            f'{_grid(len(ticks))}{lines}</svg><div class="x">{_moments(points)}</div>'
            f'<div class="key">{"".join(map(_key, series))}</div></div>'
        )

    def html(self) -> str:
        """Finish the page."""
        foot = f'<p class="foot">impact-plugin {escape(__version__)}</p>'
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(self._title)}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
            f"<body>{''.join(self._parts)}{foot}</body></html>\n"
        )

    def _note_rest(self, rows: int) -> None:
        if rows > MAX_ROWS:
            self._parts.append(f"<p>and {rows - MAX_ROWS:,} more; --json prints them all</p>")


def ranked(counts: Mapping[str, int], colour: str = "c1") -> list[Bar]:
    """Make bars of counts, the largest first."""
    return [
        Bar(name, count, colour=colour) for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def _cell(cell: Cell) -> str:
    if isinstance(cell, tuple):
        return "".join(f"<div>{escape(_short(text, MAX_CHARACTERS))}</div>" for text in cell if text)
    return f"{cell:,}" if isinstance(cell, int) else escape(cell)


def _line(series: Series, top: float) -> str:
    step = 1000 / max(1, len(series.values) - 1)
    runs: list[list[str]] = [[]]
    for place, value in enumerate(series.values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append(f"{place * step:.1f},{100 - value / top * 100:.2f}")
    drawn = [run if len(run) > 1 else _dash(run[0]) for run in runs if run]
    return "".join(f'<polyline class="{_classes(series)}" points="{" ".join(run)}"/>' for run in drawn)


def _dash(point: str) -> list[str]:
    """Draw a single point as a short line, since it would be invisible."""
    across, _, down = point.partition(",")
    return [point, f"{float(across) + 4:.1f},{down}"]


def _grid(ticks: int) -> str:
    heights = (f"{place / (ticks - 1) * 100:.2f}" for place in range(ticks))
    return "".join(f'<line class="axis" x1="0" y1="{height}" x2="1000" y2="{height}"/>' for height in heights)


def _moments(points: Sequence[str]) -> str:
    """Label the first, the middle and the last point; a phone has no room for the middle one."""
    last = len(points) - 1
    made = []
    for place in sorted({0, len(points) // 2, last}) if points else ():
        style = 'style="left:0"' if place == 0 else 'style="right:0"' if place == last else ""
        style = style or f'class="middle" style="left:{place / last:.2%};transform:translateX(-50%)"'
        made.append(f"<span {style}>{escape(points[place])}</span>")
    return "".join(made)


def _key(series: Series) -> str:
    drawn = f'<line class="{_classes(series)}" x1="0" y1="5" x2="22" y2="5"/>'
    return f'<span><svg viewBox="0 0 22 10" aria-hidden="true">{drawn}</svg>{escape(series.name)}</span>'


def _classes(series: Series) -> str:
    return f"line {series.colour}{' broad' if series.broad else ''}"


def _ticks(values: Sequence[float]) -> list[float]:
    """Round numbers from 0 to the first that no value exceeds; whole numbers if the values are counts."""
    most = max(values, default=0)
    most = most if most > MIN_VALUE else 1
    unit = 10 ** math.floor(math.log10(most / MAX_TICKS))
    step = next(unit * size for size in (1, 2, 2.5, 5, 10) if unit * size * MAX_TICKS >= most * (1 - 1e-9))
    if all(value == int(value) for value in values):
        step = math.ceil(step)
    return [round(place * step, 10) for place in range(math.ceil(most / step - 1e-9) + 1)]


def _thinned(points: Sequence[str], series: Sequence[Series]) -> tuple[list[str], list[Series]]:
    width = -(-len(points) // MAX_POINTS) or 1
    kept = [msgspec.structs.replace(one, values=tuple(_merged(one, width))) for one in series]
    return list(points[::width]), kept


def _merged(series: Series, width: int) -> Iterable[float | None]:
    for start in range(0, len(series.values), width):
        some = [value for value in series.values[start : start + width] if value is not None]
        yield None if not some else max(some) if series.peaks else sum(some) / len(some)


def _is_number(cell: Cell) -> bool:
    if not isinstance(cell, str):
        return isinstance(cell, int)
    return cell.replace(",", "").replace(".", "").replace("%", "").replace("-", "").strip().isdigit()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:,.2f}"


def _short(text: str, most: int = 36) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
