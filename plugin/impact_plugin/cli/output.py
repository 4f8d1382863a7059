"""What commands print: tables and progress on a terminal, plain lines in a pipe, JSON for programs.

Progress and errors go to standard error, so that you can pipe the output. rich respects ``NO_COLOR``.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Final, Protocol

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from impact_plugin.cli.errors import CommandError
from impact_plugin.files import write_whole

PIPE_COLUMNS: Final = 200
"""Width of a line where no terminal limits it."""

PROGRESS_SECONDS: Final = 10.0
"""Between two lines of progress where no terminal shows a bar."""


SEVERITY_STYLES: Final = {"ok": "green", "warning": "yellow", "error": "bold red"}
"""How findings and checks look on a terminal."""


class Advance(Protocol):
    """Reports progress: how much of the total is done, and a note, such as a rate."""

    def __call__(self, done: float, note: str = "", /) -> None:
        """Report; cheap enough to call after every item."""


class Output:
    """The output of one command: with ``as_json`` only :meth:`result` prints, with ``quiet`` nothing does."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self._as_json = as_json and not quiet
        self._silent = as_json or quiet
        self._console = Console() if sys.stdout.isatty() else Console(width=PIPE_COLUMNS)

    def line(self, text: str, style: str = "") -> None:
        """Print one line."""
        if not self._silent:
            self._console.print(Text(text, style=style), soft_wrap=True)

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
        """Print a table on a terminal, tab-separated columns elsewhere."""
        if self._silent:
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
        """Print the result as one JSON document, if asked for; keys are in snake_case."""
        if self._as_json:
            print(msgspec.json.encode(value).decode())

    def warning(self, text: str) -> None:
        """Print one line on standard error in the form of an error, even without other output."""
        print(f"impact-plugin: {text}", file=sys.stderr)

    @contextmanager
    def progress(self, doing: str, total: float | None = None) -> Iterator[Advance]:
        """Show progress until the block ends; without a total it only shows that the command is at work."""
        if self._silent:
            yield _ignore
        elif sys.stderr.isatty():
            with _bar() as bar:
                task = bar.add_task(doing, total=total, note="")

                def advance(done: float, note: str = "") -> None:
                    bar.update(task, completed=done, note=note)

                yield advance
        else:
            yield _ProgressLines(doing, total)


def write_text(path: Path, text: str) -> None:
    """Write a file; raises :class:`CommandError`."""
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {error.strerror}") from error


def counted(number: int, noun: str) -> str:
    """Write a number with its noun in the right form: ``1 event``, ``1,200 events``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        # Output that goes to a file must not appear on the terminal among the progress instead.
        redirect_stdout=sys.stdout.isatty(),
    )


class _ProgressLines:
    """Progress as a line every few seconds."""

    def __init__(self, doing: str, total: float | None) -> None:
        self._doing = doing
        self._total = total
        self._next = monotonic() + PROGRESS_SECONDS

    def __call__(self, done: float, note: str = "") -> None:
        if monotonic() < self._next:
            return
        self._next = monotonic() + PROGRESS_SECONDS
        share = f"{done / self._total:.0%} " if self._total else ""
        print(f"{self._doing}: {share}{note}", file=sys.stderr, flush=True)


def _ignore(_done: float, _note: str = "") -> None:
    """Report to nobody."""
