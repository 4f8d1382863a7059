"""What all benchmarks print alike: the machine, the tables, the verdicts."""

import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import msgspec

NOTE: Final = "Ratios within one run are what counts; times and rates belong to this machine and this moment."


class Machine(msgspec.Struct, frozen=True):
    """Where the numbers were taken."""

    python: str
    msgspec: str
    aiohttp: str
    cpu: str
    cores: int


def machine() -> Machine:
    """Ask the machine."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return Machine(python, _version("msgspec"), _version("aiohttp"), _cpu_model(), os.cpu_count() or 1)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def print_heading(title: str) -> None:
    """Print what was run, where, and how to read it."""
    here = machine()
    print(f"{title}: {' '.join(['python -m', f'benchmarks.{Path(sys.argv[0]).stem}', *sys.argv[1:]])}")
    print(f"{here.python}, msgspec {here.msgspec}, aiohttp {here.aiohttp}; {here.cores} x {here.cpu}")
    print(NOTE)
    print()


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table, first column to the left and the others to the right."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    print(_line(heads, widths))
    print(f"| {'-' * widths[0]} | " + " | ".join("-" * (width - 1) + ":" for width in widths[1:]) + " |")
    for row in rows:
        print(_line(row, widths))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join([first, *others])} |"


def print_json(**parts: Any) -> None:
    """Print the machine and the results as one JSON object."""
    encoded = msgspec.json.encode({"machine": machine(), "note": NOTE, **parts})
    print(msgspec.json.format(encoded).decode())


def verdict(value: float, goal: float | None) -> tuple[str, str]:
    """The cells ``goal`` and ``met?``."""
    return ("", "") if goal is None else (f"<= {goal}", "yes" if value <= goal else "no")
