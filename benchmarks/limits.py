"""The limiter on simulated sinks: how much of what they could take it finds, and how much it is refused.

python -m benchmarks.limits [--quick] [--json] [--figure]
"""

import argparse
import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Final, Literal

import msgspec

from benchmarks.figure import Bars, draw
from benchmarks.report import print_heading, print_json, print_table
from benchmarks.scenarios import Group, Scenario, drawn, fixed
from benchmarks.simulation import CONTROLLERS, Course, play

SEEDS: Final = (1, 2, 3, 4, 5)
RANDOM: Final = 40
QUICK_RANDOM: Final = 10
PROCESSES: Final = 2
FIGURE: Final = Path(__file__).parents[1] / "docs" / "images" / "limits.svg"
GOALS: Final[dict[Group, float]] = {"first": 0.9, "latency": 0.85, "quota": 0.99, "random": 0.85}
MOST_REFUSED: Final = 0.03
FIRST_SECONDS: Final = 3.0
AGAIN_SECONDS: Final = 10.0
SHARE_OVER: Final = 0.01
LONGEST_RTT: Final = 1.4
LINES: Final = ("I ", "J ")
"""Sinks where requests stand in line: there more at once only makes the line longer."""

NO_REFUSALS: Final = ("x-ratelimit", "ratelimit-draft")
HEADS: Final = (
    "scenario",
    "throughput",
    "refused",
    "95 % after s",
    "again after s",
    "over 110 %",
    "RTT",
    "goals",
    "met?",
    *(f"{name}: throughput, refused" for name in CONTROLLERS if name != "ours"),
)


class Row(msgspec.Struct, frozen=True):
    """One scenario: means over the seeds, of all controllers; the worst of the times."""

    name: str
    group: Group
    throughput: dict[str, float]
    refused: dict[str, float]
    refusals: float
    first: float
    again: float
    over: float
    rtt: float

    def missed(self) -> list[str]:
        """The goals that are not met; the times are goals of the scenarios that the first rules are for."""
        found = [] if self.throughput["ours"] >= GOALS[self.group] else [f"throughput >= {GOALS[self.group]:.0%}"]
        if self.group == "quota":
            told = any(family in self.name for family in NO_REFUSALS)
            return found + (["<= 1 refusal a run"] if told and self.refusals > 1 else [])
        if self.refused["ours"] > MOST_REFUSED:
            found.append(f"refused <= {MOST_REFUSED:.0%}")
        if self.name.startswith(LINES) and self.rtt > LONGEST_RTT:
            found.append(f"RTT <= {LONGEST_RTT}")
        if self.group == "first":
            found += ["95 % within 3 s"] if self.first > FIRST_SECONDS else []
            found += ["again within 10 s"] if self.again > AGAIN_SECONDS else []
            found += ["over 110 % <= 1 %"] if self.over > SHARE_OVER else []
        return found

    def cells(self) -> tuple[str, ...]:
        """The line as text."""
        missed = self.missed()
        others = [name for name in CONTROLLERS if name != "ours"]
        return (
            self.name,
            f"{self.throughput['ours']:.1%}",
            f"{self.refused['ours']:.2%}",
            _seconds(self.first),
            _seconds(self.again),
            f"{self.over:.1%}",
            f"{self.rtt:.2f}",
            "; ".join(missed) if missed else "all",
            "no" if missed else "yes",
            *(_beside(self.throughput[name], self.refused[name]) for name in others),
        )


def _beside(throughput: float, refused: float) -> str:
    return "" if math.isnan(throughput) else f"{throughput:.0%}, {refused:.1%}"


def _seconds(seconds: float) -> str:
    return "never" if seconds == math.inf else f"{seconds:.0f}"


def run_scenario(scenario: Scenario, seeds: Sequence[int], controllers: Sequence[str] = tuple(CONTROLLERS)) -> Row:
    """The controllers with all seeds; those that know nothing of a quota are left out where there is one."""
    courses: dict[str, list[Course]] = {
        name: [play(scenario, name, seed) for seed in seeds]
        for name in controllers
        if scenario.group != "quota" or name == "ours"
    }
    ours = courses["ours"]
    return Row(
        scenario.name,
        scenario.group,
        {name: mean(one.throughput for one in courses[name]) if name in courses else math.nan for name in CONTROLLERS},
        {name: mean(one.refused for one in courses[name]) if name in courses else math.nan for name in CONTROLLERS},
        mean(one.refusals for one in ours),
        max(one.first for one in ours),
        max(one.again for one in ours),
        max(one.over for one in ours),
        mean(one.rtt for one in ours),
    )


def measure(scenarios: Sequence[Scenario], seeds: Sequence[int]) -> list[Row]:
    """Every scenario, two at a time."""
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        return list(pool.map(run_scenario, scenarios, [seeds] * len(scenarios)))


def main() -> None:
    """Read the options, simulate, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed and few random scenarios: a look, not a result")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--figure", action="store_true", help=f"draw {FIGURE.relative_to(FIGURE.parents[2])} anew")
    options = parser.parse_args()
    seeds = SEEDS[:1] if options.quick else SEEDS
    number = QUICK_RANDOM if options.quick else RANDOM
    rows = measure(fixed(), seeds)
    rows += measure([drawn(seed) for seed in range(1, number + 1)], seeds[:1])
    if options.figure:
        FIGURE.parent.mkdir(parents=True, exist_ok=True)
        FIGURE.write_text(figure_of(rows), encoding="utf-8")
    if options.json:
        print_json(seeds=seeds, rows=rows)
        return
    print_heading("The limiter on simulated sinks")
    print_table(HEADS, [row.cells() for row in rows])
    _print_random([row for row in rows if row.group == "random"])


def _print_random(rows: Sequence[Row]) -> None:
    told = ", ".join(
        f"{name} {_mean(rows, 'throughput', name):.1%} ({_mean(rows, 'refused', name):.1%} refused)"
        for name in CONTROLLERS
    )
    worst = min(rows, key=lambda row: row.throughput["ours"])
    print(f"\nRandom scenarios, mean throughput: {told}.")
    print(f"The worst of ours: {worst.name}, {worst.throughput['ours']:.1%}.")


def _mean(rows: Sequence[Row], what: Literal["throughput", "refused"], controller: str) -> float:
    return mean(float(getattr(row, what)[controller]) for row in rows)


def figure_of(rows: Sequence[Row]) -> str:
    """Throughput against the optimum, scenario by scenario, ours beside the others."""
    shown = [row for row in rows if row.group in {"first", "latency"}]
    random = [row for row in rows if row.group == "random"]
    bars = [Bars(row.name, {name: row.throughput[name] for name in CONTROLLERS}) for row in shown]
    bars.append(
        Bars(
            f"{len(random)} random scenarios",
            {name: _mean(random, "throughput", name) for name in CONTROLLERS},
        )
    )
    return draw("Throughput, as a share of what the sink could take", bars)


if __name__ == "__main__":
    main()
