"""``impact-plugin dead-letters``: look at rejected events, send them again, export or delete them.

Every command works with the service running, which sees a change within a second, and without it.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from time import time
from typing import Annotated, BinaryIO, Final, TypeAlias

import cyclopts
import msgspec
from cyclopts import Parameter, validators

from impact_plugin.cli.dead_letter_filters import NO_FILTERS, Filters
from impact_plugin.cli.dead_letter_views import (
    DeadLetterSummary,
    describe,
    event_line,
    print_letter,
    print_list,
    summarize,
)
from impact_plugin.cli.errors import CommandError
from impact_plugin.cli.exit_codes import DONE, FAILED
from impact_plugin.cli.options import Config, Json, Quiet
from impact_plugin.cli.output import Output, counted
from impact_plugin.config.settings import load_settings
from impact_plugin.files import replacing
from impact_plugin.spool.base import DeadLetterFilter
from impact_plugin.spool.sqlite_letters import Letters, open_letters

STANDARD_OUTPUT: Final = Path("-")

Limit: TypeAlias = Annotated[int, Parameter(validator=validators.Number(gte=0))]
Numbers: TypeAlias = Annotated[int, Parameter(help="Only the dead letters of these numbers, as listed.")]
All: TypeAlias = Annotated[bool, Parameter(help="Every dead letter, instead of numbers and filters.")]

dead_letters = cyclopts.App(
    name="dead-letters",
    help="""Look at rejected events that are kept as dead letters, send them again, export or delete them.

```sh
impact-plugin dead-letters list --config impact.toml
impact-plugin dead-letters retry --reason refused --config impact.toml
```
""",
)


@dead_letters.command(name="list")
async def list_(
    *numbers: Numbers, filters: Filters = NO_FILTERS, limit: Limit = 100, json: Json = False, quiet: Quiet = False
) -> int:
    """List dead letters, oldest first, and how many there are for each reason.

    Exit code 0: listed, even if there are none; 2: the state folder or an option cannot be used.

    ```sh
    impact-plugin dead-letters list --reason missing_order_id --since 2d
    ```

    Parameters
    ----------
    limit
        List this many at most; the counts for each reason are of all that match.
    """
    selected, output = filters.select(numbers, time()), Output(as_json=json, quiet=quiet)
    rows: list[DeadLetterSummary] = []
    reasons: Counter[str] = Counter()
    async with _opened(filters.config) as letters:
        with output.progress("reading dead letters"):
            async for letter in letters.letters(selected):
                reasons[letter.reason] += 1
                if len(rows) < limit:
                    rows.append(summarize(letter))
    print_list(output, rows, reasons)
    output.result({"letters": rows, "reasons": dict(reasons.most_common()), "total": reasons.total()})
    return DONE


@dead_letters.command
async def show(number: int, *, config: Config = None, json: Json = False, quiet: Quiet = False) -> int:
    """Show one dead letter: the event, its reason and the fix, what was sent, and what impact.com replied.

    Exit code 0: shown; 1: there is none of that number; 2: the state folder cannot be used.

    ```sh
    impact-plugin dead-letters show 17
    ```

    Parameters
    ----------
    number
        Its number, as listed.
    """
    output = Output(as_json=json, quiet=quiet)
    async with _opened(config) as letters:
        found = [letter async for letter in letters.letters(DeadLetterFilter(numbers=(number,)))]
    if not found:
        output.warning(f"there is no dead letter {number}")
        return FAILED
    print_letter(output, found[0])
    output.result(describe(found[0]))
    return DONE


@dead_letters.command
async def retry(
    *numbers: Numbers,
    filters: Filters = NO_FILTERS,
    all: All = False,  # noqa: A002 - the option's name
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Send dead letters again with the present configuration, as if you had just received them.

    Exit code 0: put back; 1: none matched; 2: the state folder or an option cannot be used.

    ```sh
    impact-plugin dead-letters retry --reason missing_order_id
    ```
    """
    now, output = time(), Output(as_json=json, quiet=quiet)
    selected = filters.select_explicitly(numbers, now, every=all)
    # A running service may reject them again meanwhile: without a bound in time, those would be put back for ever.
    until = int(now * 1000) + 1
    selected = msgspec.structs.replace(selected, until=until if selected.until is None else min(until, selected.until))
    async with _opened(filters.config) as letters:
        with output.progress("putting dead letters back"):
            count = await letters.retry(selected)
    output.line(f"{counted(count, 'dead letter')} put back: a running service sends them now, another when it starts")
    output.result({"retried": count})
    return DONE if count or all else FAILED


@dead_letters.command
async def purge(
    *numbers: Numbers,
    filters: Filters = NO_FILTERS,
    all: All = False,  # noqa: A002 - the option's name
    yes: bool = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Delete dead letters for good.

    Exit code 0: deleted; 1: none matched, or you did not confirm; 2: the state folder or an option cannot be used.

    ```sh
    impact-plugin dead-letters purge --until 14d --yes
    ```

    Parameters
    ----------
    yes
        Delete without asking.
    """
    selected, output = filters.select_explicitly(numbers, time(), every=all), Output(as_json=json, quiet=quiet)
    if not yes and not sys.stdin.isatty():
        raise CommandError("--yes: required where nobody can be asked, since purge deletes for good")
    async with _opened(filters.config) as letters:
        if not yes and not await _confirmed(output, letters, selected):
            output.line("nothing was deleted")
            output.result({"deleted": 0})
            return FAILED
        with output.progress("deleting dead letters"):
            count = await letters.purge(selected)
    output.line(f"{counted(count, 'dead letter')} deleted")
    output.result({"deleted": count})
    return DONE if count or all else FAILED


@dead_letters.command
async def export(
    *numbers: Numbers,
    out: Annotated[Path, Parameter(allow_leading_hyphen=True)] = STANDARD_OUTPUT,
    filters: Filters = NO_FILTERS,
    full: bool = False,
    quiet: Quiet = False,
) -> int:
    """Write the events of dead letters, one JSON object a line, as impact-plugin explain and senders take them.

    Exit code 0: written; 1: none matched; 2: the state folder, the file or an option cannot be used.

    ```sh
    impact-plugin dead-letters export --out orders.ndjson --reason refused
    ```

    Parameters
    ----------
    out
        File to write, or replace, that only you can read; `-` is standard output.
    full
        Write everything about each dead letter, with the event under "event".
    """
    selected, output = filters.select(numbers, time()), Output(quiet=quiet or out == STANDARD_OUTPUT)
    count = 0
    async with _opened(filters.config) as letters:
        with _target(out) as target, output.progress("writing dead letters"):
            async for letter in letters.letters(selected):
                target.write((msgspec.json.encode(describe(letter)) if full else event_line(letter.payload)) + b"\n")
                count += 1
    output.line(f"{counted(count, 'event')} written to {out}")
    return DONE if count else FAILED


@asynccontextmanager
async def _opened(config: Path | None) -> AsyncIterator[Letters]:
    settings = load_settings(config, os.environ)
    async with open_letters(Path(settings.state.dir), time) as letters:
        yield letters


async def _confirmed(output: Output, letters: Letters, selected: DeadLetterFilter) -> bool:
    with output.progress("counting dead letters"):
        count = sum([1 async for _ in letters.letters(selected)])
    if not count:
        return False
    answer = await asyncio.to_thread(input, f"delete {counted(count, 'dead letter')} for good? [y/N] ")
    return answer.strip().lower() in ("y", "yes")


@contextmanager
def _target(out: Path) -> Iterator[BinaryIO]:
    if out == STANDARD_OUTPUT:
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            _discard_output()
        return
    try:
        with replacing(out, private=True) as target:
            yield target
    except OSError as error:
        raise CommandError(f"{out}: cannot be written: {error.strerror}") from error


def _discard_output() -> None:
    """Send what is left to nowhere: the reader, ``head`` for instance, has closed the pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
