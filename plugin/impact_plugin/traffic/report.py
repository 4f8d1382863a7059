"""Self-contained HTML: tables, and charts drawn as SVG, in light and dark as the reader's system has it. No scripts."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final

import msgspec

from impact_plugin import __version__

WIDTH: Final = 760
ROW: Final = 26
LABEL: Final = 250
CHART: Final = 180
LEFT: Final = 46
MOST_ROWS: Final = 60
MOST_POINTS: Final = 240
COLOURS: Final = ("c1", "c2", "c3", "c4", "c5")

STYLE: Final = """
:root { color-scheme: light dark; --ink:#1c2430; --soft:#5b6777; --line:#d9dee5; --paper:#fff; --band:#f4f6f8;
  --c1:#2563eb; --c2:#0d9488; --c3:#d97706; --c4:#dc2626; --c5:#7c3aed }
@media (prefers-color-scheme: dark) { :root { --ink:#e6eaf0; --soft:#9aa7b8; --line:#323c49; --paper:#12171d;
  --band:#1a212a; --c1:#60a5fa; --c2:#2dd4bf; --c3:#fbbf24; --c4:#f87171; --c5:#a78bfa } }
body { margin:0 auto; max-width:820px; padding:24px 20px 60px; background:var(--paper); color:var(--ink);
  font:15px/1.5 system-ui,sans-serif }
h1 { font-size:24px; margin:0 0 4px } h2 { font-size:17px; margin:34px 0 8px }
p { margin:4px 0 10px; color:var(--soft) } table { border-collapse:collapse; width:100% }
th,td { text-align:left; padding:5px 10px 5px 0; border-bottom:1px solid var(--line); vertical-align:top }
th { color:var(--soft); font-weight:600 } td.n,th.n { text-align:right; font-variant-numeric:tabular-nums }
.tiles { display:flex; flex-wrap:wrap; gap:12px; margin:18px 0 }
.tile { background:var(--band); border-radius:8px; padding:10px 16px; min-width:96px }
.tile b { display:block; font-size:22px; font-variant-numeric:tabular-nums }
.tile span { color:var(--soft); font-size:13px }
svg { display:block; width:100%; height:auto } svg text { fill:var(--ink); font:13px system-ui,sans-serif }
svg text.soft { fill:var(--soft); font-size:11px } .axis { stroke:var(--line) }
""" + "\n".join(
    f".{name} {{ fill:var(--{name}); stroke:var(--{name}) }} .{name}.stroke {{ fill:none; stroke-width:2 }}"
    for name in COLOURS
)


class Series(msgspec.Struct, frozen=True):
    """One line of a chart: its name, and values beside the points of the axis."""

    name: str
    values: tuple[float, ...]


class Page:
    """One report, built from the top."""

    def __init__(self, title: str, subtitle: str) -> None:
        self._title = title
        self._parts = [f"<h1>{escape(title)}</h1>", f"<p>{escape(subtitle)}</p>"]

    def tiles(self, tiles: Iterable[tuple[str, str]]) -> None:
        """Large numbers with what they are."""
        cells = (
            f'<div class="tile"><b>{escape(number)}</b><span>{escape(name)}</span></div>' for name, number in tiles
        )
        self._parts.append(f'<div class="tiles">{"".join(cells)}</div>')

    def heading(self, text: str, note: str = "") -> None:
        """A part of the report."""
        self._parts.append(f"<h2>{escape(text)}</h2>" + (f"<p>{escape(note)}</p>" if note else ""))

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table; numbers stand to the right."""
        shown = [[str(cell) for cell in row] for row in rows][:MOST_ROWS]
        numeric = [all(_is_number(row[column]) for row in shown) for column in range(len(heads))]

        def line(cells: Sequence[str], tag: str) -> str:
            made = (
                f"<{tag}{' class=n' if numeric[column] else ''}>{escape(cell)}</{tag}>"
                for column, cell in enumerate(cells)
            )
            return f"<tr>{''.join(made)}</tr>"

        self._parts.append(f"<table>{line(heads, 'th')}{''.join(line(row, 'td') for row in shown)}</table>")

    def bars(self, rows: Sequence[tuple[str, float]], *, colour: str = "c1") -> None:
        """Bars beside their names, the largest over the whole width."""
        shown = rows[:MOST_ROWS]
        most = max((value for _, value in shown), default=0) or 1
        room = WIDTH - LABEL - 90
        made = []
        for place, (name, value) in enumerate(shown):
            y, length = place * ROW, max(1.0, value / most * room)
            made.append(f'<text x="{LABEL - 10}" y="{y + 18}" text-anchor="end">{escape(_short(name))}</text>')
            made.append(f'<rect class="{colour}" x="{LABEL}" y="{y + 5}" width="{length:.1f}" height="16" rx="3"/>')
            made.append(f'<text class="soft" x="{LABEL + length + 8:.1f}" y="{y + 17}">{_number(value)}</text>')
        self._svg(len(shown) * ROW + 4, made)

    def lines(self, points: Sequence[str], series: Sequence[Series], unit: str = "") -> None:
        """Lines over an axis of time; neighbouring points are put together where there are too many."""
        points, series = _thinned(points, series)
        most = max((max(one.values, default=0) for one in series), default=0) or 1
        step = (WIDTH - LEFT - 10) / max(1, len(points) - 1)
        made = [
            f'<line class="axis" x1="{LEFT}" y1="{CHART - most_y:.1f}" x2="{WIDTH}" y2="{CHART - most_y:.1f}"/>'
            f'<text class="soft" x="{LEFT - 6}" y="{CHART - most_y + 4:.1f}" text-anchor="end">'
            f"{_number(most * share)}{escape(unit)}</text>"
            for share in (0, 0.5, 1)
            for most_y in (share * (CHART - 20),)
        ]
        for place, one in enumerate(series):
            colour = COLOURS[place % len(COLOURS)]
            heights = (CHART - value / most * (CHART - 20) for value in one.values)
            path = " ".join(f"{LEFT + number * step:.1f},{height:.1f}" for number, height in enumerate(heights))
            made.append(f'<polyline class="{colour} stroke" points="{path}"/>')
            made.append(f'<rect class="{colour}" x="{LEFT + place * 150}" y="{CHART + 28}" width="10" height="10"/>')
            made.append(f'<text x="{LEFT + 15 + place * 150}" y="{CHART + 38}">{escape(one.name)}</text>')
        for number in {0, len(points) // 2, len(points) - 1} if points else ():
            anchor = "start" if number == 0 else "end" if number == len(points) - 1 else "middle"
            x = LEFT + number * step
            told = escape(points[number])
            made.append(f'<text class="soft" x="{x:.1f}" y="{CHART + 16}" text-anchor="{anchor}">{told}</text>')
        self._svg(CHART + 44, made)

    def html(self) -> str:
        """The whole page."""
        foot = f"<p style='margin-top:40px'>impact-plugin {escape(__version__)}</p>"
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(self._title)}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
            f"<body>{''.join(self._parts)}{foot}</body></html>\n"
        )

    def _svg(self, height: float, parts: Iterable[str]) -> None:
        self._parts.append(f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img">{"".join(parts)}</svg>')


def ranked(counts: Mapping[str, int]) -> list[tuple[str, float]]:
    """Counts as rows of bars, the largest first."""
    return [(name, count) for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def _thinned(points: Sequence[str], series: Sequence[Series]) -> tuple[list[str], list[Series]]:
    width = -(-len(points) // MOST_POINTS) or 1
    kept = [Series(one.name, tuple(_means(one.values, width))) for one in series]
    return list(points[::width]), kept


def _means(values: Sequence[float], width: int) -> Iterable[float]:
    for start in range(0, len(values), width):
        some = values[start : start + width]
        yield sum(some) / len(some)


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "").replace("%", "").replace("-", "").strip().isdigit()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:,.2f}"


def _short(text: str) -> str:
    return text if len(text) <= 36 else f"{text[:35]}…"
