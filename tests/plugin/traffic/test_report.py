"""The page builder of the reports: bars in proportion, round ticks, numbers that can be read, nothing lost silently."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impact_plugin.traffic.report import MAX_POINTS, MAX_ROWS, Bar, ReportPage, Series, _ticks, ranked


def page() -> ReportPage:
    """An empty one."""
    return ReportPage("Title", "subtitle")


def test_bars_are_in_proportion_however_long_their_numbers() -> None:
    """All leave the same room for the longest number: one that gave way to its own would look smaller."""
    made = page()
    made.bars([Bar("most", 200, "100.0%"), Bar("half", 100), Bar("part", 50, part=True, colour="c4")], " ms")
    html = made.html()

    found = re.findall(r'<i class="(\w+)" style="width:calc\(\(100% - (\d+)ch\) \* ([\d.]+)\)"></i>([^<]*)', html)
    assert found == [
        ("c1", "16", "1.0000", "200 ms · 100.0%"),
        ("c1", "16", "0.5000", "100 ms"),
        ("c4", "16", "0.2500", "50 ms"),
    ]
    assert "<dt class=in>part</dt>" in html


def test_no_bars_are_no_trouble() -> None:
    """Nor are those of nothing."""
    made = page()
    made.bars([])
    made.bars([Bar("none", 0)])

    assert "* 0.0000)" in made.html()


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.0, 451.0], [0, 200, 400, 600]),
        ([20.0, 3.0], [0, 5, 10, 15, 20]),
        ([41.0], [0, 20, 40, 60]),
        ([29.63], [0, 10, 20, 30]),
        ([0.013], [0, 0.005, 0.01, 0.015]),
        ([1.0], [0, 1]),
        ([3.0], [0, 1, 2, 3]),
        ([10.0], [0, 3, 6, 9, 12]),
        ([0.0], [0, 1]),
        ([1e-300], [0, 0.25, 0.5, 0.75, 1]),
        ([], [0, 1]),
        ([1_000_000.0], [0, 250_000, 500_000, 750_000, 1_000_000]),
    ],
)
def test_the_ticks_of_an_axis_are_round(values: list[float], ticks: list[float]) -> None:
    """And whole where counts are counted."""
    assert _ticks(values) == ticks


@given(st.lists(st.floats(0, 1e12, allow_subnormal=False), max_size=5))
def test_no_value_is_above_the_axis(values: list[float]) -> None:
    """Few ticks, evenly apart, the last at or above everything."""
    ticks = _ticks(values)

    assert ticks[0] == 0
    assert 2 <= len(ticks) <= 5
    assert ticks[-1] >= max(values, default=0) * (1 - 1e-6)


def test_a_chart_tells_its_lines_units_and_points() -> None:
    """Broad lines are drawn first; texts stand beside the drawing, and what it shows is told in words."""
    made = page()
    made.lines(
        ["0 s", "1 s", "2 s"],
        [Series("reached <b>", (1.0, 2.0, 4.0)), Series("wanted", (1.0, 2.0, 3.0), "c3", broad=True)],
        " ms",
    )
    html = made.html()

    assert html.index('<polyline class="line c3 broad"') < html.index('<polyline class="line c1"')
    assert 'points="0.0,75.00 500.0,50.00 1000.0,0.00"' in html
    assert "<span>4 ms</span><span>3 ms</span><span>2 ms</span><span>1 ms</span><span>0 ms</span>" in html
    assert 'aria-label="reached &lt;b&gt; up to 4 ms, wanted up to 3 ms"' in html
    assert re.findall(r'<span[^>]* style="([^"]*)">(\d s)</span>', html) == [
        ("left:0", "0 s"),
        ("left:50.00%;transform:translateX(-50%)", "1 s"),
        ("right:0", "2 s"),
    ]
    assert "<text" not in html


@pytest.mark.parametrize("many", [0, 1, 2, 10 * MAX_POINTS + 1])
def test_a_chart_of_any_length_can_be_drawn(many: int) -> None:
    """With no more points than can be told apart."""
    made = page()
    made.lines([f"{number} s" for number in range(many)], [Series("one", tuple(map(float, range(many))))])
    points = [point for run in re.findall(r'points="([^"]*)"', made.html()) for point in run.split()]

    # One alone is drawn as a short line.
    assert len(points) == many + (many == 1) if many <= MAX_POINTS else len(points) <= MAX_POINTS


def test_a_line_is_broken_where_there_is_no_value() -> None:
    """An outage is not the best latency there is; of many neighbours a peak stays, and is told."""
    made = page()
    made.lines(["a", "b", "c", "d"], [Series("p99", (2.0, 4.0, None, 4.0))], " ms")
    many = [1.0, None, 9.0] * MAX_POINTS
    made.lines(["x"] * len(many), [Series("peaks", tuple(many), peaks=True), Series("means", tuple(many))])
    html = made.html()

    assert re.findall(r'points="([^"]*)"', html)[:2] == ["0.0,50.00 333.3,0.00", "1000.0,0.00 1004.0,0.00"]
    assert "peaks up to 9, means up to 9" in html
    peaks, means = (re.findall(r",([\d.]+)", run) for run in re.findall(r'points="([^"]*)"', html)[2:])
    assert (set(peaks), set(means)) == ({"0.00"}, {"44.44"})


def test_numbers_in_tables_stand_to_the_right_with_separators() -> None:
    """Of several texts in a cell those after the first are notes, none longer than a reader takes in."""
    made = page()
    made.table(("events", "amount", "what"), [(12_345, "8,929.95", ("first", "", "x" * 500))])
    html = made.html()

    assert "<td class=n>12,345</td><td class=n>8,929.95</td><td><div>first</div><div>xxx" in html
    assert "x" * 199 + "…</div></td>" in html


def test_what_is_left_out_is_told() -> None:
    """Of tables and of bars."""
    made = page()
    made.table(("name",), [(f"row {number}",) for number in range(MAX_ROWS + 1_234)])
    made.bars(ranked({f"bar {number}": number for number in range(MAX_ROWS + 7)}))
    html = made.html()

    assert "and 1,234 more; --json prints them all" in html
    assert "and 7 more; --json prints them all" in html
    assert "bar 0<" not in html
