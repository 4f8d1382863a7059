"""How commands show things: tables and progress on a terminal, plain lines elsewhere, JSON where a program reads.

``NO_COLOR`` is rich's to respect. Progress goes to standard error, so that output can be piped.
"""

import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final, Protocol

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

WIDTH: Final = 200
"""Columns where no terminal shows them."""

LINE_SECONDS: Final = 10.0
"""Between two lines of progress where no terminal shows a bar."""

STYLES: Final = {"error": "bold red", "warning": "yellow", "bad": "bold red", "good": "green"}
"""How findings and checks look on a terminal."""

INTERRUPTED: Final = 3
"""Exit code of a command that somebody stopped."""


class Advance(Protocol):
    """Tells how far the work is: of the total, and in words."""

    def __call__(self, done: float, told: str = "", /) -> None:
        """Called as often as the work likes."""


class Output:
    """The output of one command."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self._quiet = quiet
        self._console = Console() if sys.stdout.isatty() else Console(width=WIDTH)

    def line(self, text: str, style: str = "") -> None:
        """One line, not where JSON or silence was asked for."""
        if not self.as_json and not self._quiet:
            self._console.print(Text(text, style=style), soft_wrap=True)

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
        """A table on a terminal, columns separated by tabs elsewhere."""
        if self.as_json or self._quiet:
            return
        if not self._console.is_terminal:
            lines = ["\t".join(map(str, row)) for row in (heads, *rows)]
            print("\n".join([title, *lines] if title else lines))
            return
        table = Table(*heads, title=title or None, title_justify="left", show_edge=False)
        for row in rows:
            table.add_row(*(Text(str(cell)) for cell in row))
        self._console.print(table)

    def result(self, value: Any) -> None:
        """The whole result as one JSON object, where that was asked for."""
        if self.as_json:
            print(msgspec.json.encode(value).decode())

    @contextmanager
    def progress(self, doing: str, total: float | None) -> Iterator[Advance]:
        """Lend something that tells how far the work is; without a total only what it is at."""
        if self._quiet or self.as_json:
            yield _silent
        elif sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[told]}"),
            )
            bar = Progress(
                *columns,
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                # Where output goes to a file, it must not be shown among the progress instead.
                redirect_stdout=sys.stdout.isatty(),
            )
            with bar:
                task = bar.add_task(doing, total=total, told="")

                def advance(done: float, told: str = "") -> None:
                    bar.update(task, completed=done, told=told)

                yield advance
        else:
            yield _Lines(doing, total)


class _Lines:
    """Progress as a line now and then."""

    def __init__(self, doing: str, total: float | None) -> None:
        self._doing = doing
        self._total = total
        self._next = monotonic() + LINE_SECONDS

    def __call__(self, done: float, told: str = "") -> None:
        if monotonic() < self._next:
            return
        self._next = monotonic() + LINE_SECONDS
        share = f"{done / self._total:.0%} " if self._total else ""
        print(f"{self._doing}: {share}{told}", file=sys.stderr, flush=True)


def _silent(_done: float, _told: str = "") -> None:
    """Tell nothing."""


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """A list that holds the signal once somebody asked to stop; who asks twice does not wait for it."""
    asked: list[int] = []

    def ask(number: int, _frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
