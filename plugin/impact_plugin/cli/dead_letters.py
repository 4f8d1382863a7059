"""``impact-plugin dead-letters``: look at events that will not be delivered, send them again, or delete them.

All of it works beside a running service, which sees what was changed within a second, and without one.
"""

import asyncio
import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Annotated, Any, BinaryIO, Final, TypeAlias
from urllib.parse import parse_qsl, urlsplit

import cyclopts
import msgspec
from cyclopts import Parameter, validators
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from impact_plugin.cli.inputs import Flag
from impact_plugin.config.settings import load_settings
from impact_plugin.errors import ImpactPluginError
from impact_plugin.files import replacing
from impact_plugin.ingest.dead_letters import facts_of
from impact_plugin.spool.base import DeadLetter, DeadLetterFilter
from impact_plugin.spool.sqlite_letters import Letters, open_letters
from impact_transformers.events import UNREADABLE
from impact_transformers.normalize import redact_emails

NOTHING: Final = 1
"""Exit code when nothing matched."""

WIDTH: Final = 200
"""Columns where no terminal shows them."""

UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGE: Final = re.compile(r"(\d{1,6})([smhdw])")

Limit: TypeAlias = Annotated[int, Parameter(validator=validators.Number(gte=0))]

dead_letters = cyclopts.App(
    name="dead-letters", help="Look at events that will not be delivered, send them again, or delete them."
)


class DeadLettersError(ImpactPluginError):
    """The command cannot be carried out as it was given."""


@Parameter(name="*")
@dataclass(frozen=True)
class Filters:
    """Which dead letters are meant; all of the options must match."""

    reason: Annotated[str | None, Parameter(help="Why they are dead, refused for instance.")] = None
    source: Annotated[str | None, Parameter(help="Name of the source they came from.")] = None
    destination: Annotated[str | None, Parameter(help="Name of the destination they were for.")] = None
    order_id: Annotated[str | None, Parameter(help="The order they are about.")] = None
    since: Annotated[
        str | None, Parameter(help="Dead since then: 2026-09-10T10:00:00Z (UTC unless told), or an age: 30m, 2h, 3d.")
    ] = None
    until: Annotated[str | None, Parameter(help="Dead before then, told in the same way.")] = None
    config: Annotated[Path | None, Parameter(help="The service's TOML file; it tells the folder, state.dir.")] = None


NO_FILTERS: Final = Filters()


class _Shown(msgspec.Struct, frozen=True):
    """A dead letter as it is listed."""

    number: int
    died: str
    source: str
    destination: str
    reason: str
    order_id: str | None
    attempts: int
    detail: str


class _Request(msgspec.Struct, frozen=True):
    """What was sent last."""

    method: str
    path: str
    form: list[tuple[str, str]]


@dead_letters.command(name="list")
async def list_(*numbers: int, filters: Filters = NO_FILTERS, limit: Limit = 100, json: Flag = False) -> int:
    """List dead letters, oldest first, and how many there are for each reason.

    Exit code 0, also where there is none; 2: the folder or an option cannot be used.

    Parameters
    ----------
    numbers
        Only these.
    limit
        How many to list; the sums are of all that match.
    json
        Print one JSON object.
    """
    which = _which(numbers, filters, time())
    found: list[_Shown] = []
    reasons: Counter[str] = Counter()
    async with _opened(filters) as letters:
        with _progress("reading dead letters"):
            async for letter in letters.letters(which):
                reasons[letter.reason] += 1
                if len(found) < limit:
                    found.append(_shown(letter))
    if json:
        _print_json({"letters": found, "reasons": dict(reasons.most_common()), "total": reasons.total()})
    elif sys.stdout.isatty():
        _print_table(found, reasons)
    else:
        _print_lines(found, reasons)
    return 0


@dead_letters.command
async def show(number: int, *, config: Path | None = None, json: Flag = False) -> int:
    """Show one dead letter: the event, why it is dead and what to do, what was sent and what impact.com said.

    Exit code 1: there is none of that number; 2: the folder cannot be used.

    Parameters
    ----------
    number
        As dead-letters list has it.
    config
        The service's TOML file; it tells the folder, state.dir.
    json
        Print one JSON object.
    """
    async with _opened(Filters(config=config)) as letters:
        found = [letter async for letter in letters.letters(DeadLetterFilter(numbers=(number,)))]
    if not found:
        print(f"impact-plugin: there is no dead letter {number}", file=sys.stderr)
        return NOTHING
    if json:
        _print_json(_facts(found[0]))
    else:
        _print_letter(found[0])
    return 0


@dead_letters.command
async def retry(*numbers: int, filters: Filters = NO_FILTERS, all: Flag = False) -> int:  # noqa: A002 - the option's name
    """Let dead letters be delivered, by the present configuration, as if they had just been received.

    Exit code 1: none matched; 2: the folder or an option cannot be used.

    Parameters
    ----------
    numbers
        Only these.
    all
        Every dead letter there is; instead of numbers and filters.
    """
    now = time()
    which = _chosen(numbers, filters, now, every=all)
    # What a running service gives up again meanwhile must not be taken once more, and so for ever.
    until = int(now * 1000) + 1
    which = msgspec.structs.replace(which, until=until if which.until is None else min(until, which.until))
    async with _opened(filters) as letters:
        with _progress("putting dead letters back"):
            count = await letters.retry(which)
    print(f"{count} dead letters will be delivered: by the running service at once, else when it is started")
    return 0 if count or all else NOTHING


@dead_letters.command
async def purge(
    *numbers: int,
    filters: Filters = NO_FILTERS,
    all: Flag = False,  # noqa: A002 - the option's name
    yes: Flag = False,
) -> int:
    """Delete dead letters for good.

    Exit code 1: none matched, or it was not confirmed; 2: the folder or an option cannot be used.

    Parameters
    ----------
    numbers
        Only these.
    all
        Every dead letter there is; instead of numbers and filters.
    yes
        Do not ask.
    """
    which = _chosen(numbers, filters, time(), every=all)
    if not yes and not sys.stdin.isatty():
        raise DeadLettersError("purge deletes for good: add --yes where nobody can be asked")
    async with _opened(filters) as letters:
        if not yes and not await _confirmed(letters, which):
            print("nothing was deleted")
            return NOTHING
        with _progress("deleting dead letters"):
            count = await letters.purge(which)
    print(f"{count} dead letters deleted")
    return 0 if count or all else NOTHING


@dead_letters.command
async def export(
    file: Annotated[str, Parameter(allow_leading_hyphen=True)] = "-",
    *,
    number: Annotated[tuple[int, ...], Parameter(negative=())] = (),
    filters: Filters = NO_FILTERS,
    full: Flag = False,
) -> int:
    """Write the events of dead letters, one JSON object a line, as impact-plugin explain and senders take them.

    Exit code 1: none matched; 2: the folder, the file or an option cannot be used.

    Parameters
    ----------
    file
        Where to; - is standard output. A file that is there is replaced.
    number
        Only this one; may be repeated.
    full
        Write all that is kept of each, the event under "event".
    """
    which = _which(number, filters, time())
    count = 0
    async with _opened(filters) as letters:
        with _target(file) as target, _progress("writing dead letters"):
            async for letter in letters.letters(which):
                target.write((msgspec.json.encode(_facts(letter)) if full else _line(letter.payload)) + b"\n")
                count += 1
    if file != "-":
        print(f"{count} events written to {file}")
    return 0 if count else NOTHING


@asynccontextmanager
async def _opened(filters: Filters) -> AsyncIterator[Letters]:
    settings = load_settings(filters.config, os.environ)
    async with open_letters(Path(settings.state.dir), time) as letters:
        yield letters


def _chosen(numbers: tuple[int, ...], filters: Filters, now: float, *, every: bool) -> DeadLetterFilter:
    """The filter of a command that changes something: nothing at all must be meant on purpose."""
    which = _which(numbers, filters, now)
    empty = which == DeadLetterFilter()
    if empty and not every:
        raise DeadLettersError("which? give numbers or filters, or --all")
    if every and not empty:
        raise DeadLettersError("--all goes without numbers and filters")
    return which


def _which(numbers: tuple[int, ...], filters: Filters, now: float) -> DeadLetterFilter:
    return DeadLetterFilter(
        numbers or None,
        filters.reason,
        filters.source,
        filters.destination,
        filters.order_id,
        None if filters.since is None else _moment("--since", filters.since, now),
        None if filters.until is None else _moment("--until", filters.until, now),
    )


def _moment(option: str, text: str, now: float) -> int:
    """Milliseconds since 1970 of a time or an age."""
    age = _AGE.fullmatch(text.strip().lower())
    if age is not None:
        return int((now - int(age[1]) * UNITS[age[2]]) * 1000)
    try:
        moment = datetime.fromisoformat(text.strip())
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise DeadLettersError(f"{option}: must be a time such as 2026-09-10T10:00:00Z, or an age such as 2h") from None


async def _confirmed(letters: Letters, which: DeadLetterFilter) -> bool:
    with _progress("counting dead letters"):
        count = sum([1 async for _ in letters.letters(which)])
    if not count:
        return False
    answer = await asyncio.to_thread(input, f"delete {count} dead letters for good? [y/N] ")
    return answer.strip().lower() in ("y", "yes")


@contextmanager
def _target(file: str) -> Iterator[BinaryIO]:
    """Where to write; a file is its owner's alone."""
    if file == "-":
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            _hush()
        return
    try:
        with replacing(Path(file), private=True) as target:
            yield target
    except OSError as error:
        raise DeadLettersError(f"{file}: cannot be written: {error.strerror}") from error


def _line(payload: bytes) -> bytes:
    """The event on one line; what is no JSON as a text, so that the lines stay JSON."""
    try:
        msgspec.json.decode(payload)
        return msgspec.json.format(payload, indent=-1)
    except UNREADABLE:
        return msgspec.json.encode(payload.decode("utf-8", "replace"))


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _plain(text: str) -> str:
    """A sender's text as one may show it: no addresses, and nothing that moves a terminal's cursor."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in redact_emails(text))


def _shown(letter: DeadLetter) -> _Shown:
    return _Shown(
        letter.number,
        _time(letter.died),
        letter.source,
        letter.destination,
        letter.reason,
        None if letter.order_id is None else _plain(letter.order_id),
        letter.attempts,
        _plain(letter.detail),
    )


def _request(raw: bytes) -> _Request | None:
    """What was sent, without the host, which may hold a password, and without addresses."""
    head, _, body = raw.decode("utf-8", "replace").partition("\n\n")
    method, _, url = head.partition(" ")
    if not url:
        return None
    form = [(name, redact_emails(value)) for name, value in parse_qsl(body, keep_blank_values=True)]
    return _Request(method, urlsplit(url).path, form)


def _event(letter: DeadLetter) -> Any:
    text = redact_emails(letter.payload.decode("utf-8", "replace"))
    try:
        return msgspec.json.decode(text)
    except UNREADABLE:
        return text


def _facts(letter: DeadLetter) -> dict[str, Any]:
    facts = facts_of(letter.reason)
    return {
        **msgspec.structs.asdict(_shown(letter)),
        "received": _time(letter.received),
        "meaning": facts.meaning,
        "fix": facts.fix,
        "request": _request(letter.request),
        "event": _event(letter),
    }


def _print_json(value: Any) -> None:
    print(msgspec.json.encode(value).decode())


def _print_table(found: list[_Shown], reasons: Counter[str]) -> None:
    console = Console()
    table = Table("number", "died", "source", "destination", "reason", "order id", "attempts", show_edge=False)
    for one in found:
        row = (one.number, one.died, one.source, one.destination, one.reason, one.order_id or "", one.attempts)
        table.add_row(*(Text(str(cell)) for cell in row))
    if found:
        console.print(table)
        console.print()
    for line in _sums(found, reasons):
        console.print(Text(line))


def _print_lines(found: list[_Shown], reasons: Counter[str]) -> None:
    for one in found:
        row = (one.number, one.died, one.source, one.destination, one.reason, one.order_id or "-", one.attempts)
        print("\t".join(str(cell) for cell in row))
    for line in _sums(found, reasons):
        print(line)


def _sums(found: list[_Shown], reasons: Counter[str]) -> Iterator[str]:
    """How many for each reason, and what was left out."""
    if not reasons:
        yield "no dead letters"
    for reason, count in reasons.most_common():
        yield f"{count} {reason}: {facts_of(reason).meaning}"
    if len(found) < reasons.total():
        yield f"{len(found)} of {reasons.total()} are listed; see --limit and the filters"


def _print_letter(letter: DeadLetter) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    facts, shown, request = facts_of(letter.reason), _shown(letter), _request(letter.request)
    console.print(Text(f"dead letter {letter.number}: {letter.reason}", style="bold red"))
    for name, text in (
        ("meaning", facts.meaning),
        ("fix", facts.fix),
        ("said", shown.detail),
        ("received", _time(letter.received)),
        ("died", f"{shown.died}, after {letter.attempts} attempts"),
        ("way", f"{letter.source} to {letter.destination}"),
        ("order id", shown.order_id or ""),
    ):
        if text:
            console.print(Text(f"  {name}: {text}"), soft_wrap=True)
    if request is not None:
        console.print(Text(f"  request: {request.method} {_plain(request.path)}"), soft_wrap=True)
        for name, value in request.form:
            console.print(Text(f"    {_plain(name)}={_plain(value)}"), soft_wrap=True)
    console.print(Text("  event:"))
    for line in _event_lines(letter):
        console.print(Text(f"    {_plain(line)}"), soft_wrap=True)


def _event_lines(letter: DeadLetter) -> list[str]:
    event = _event(letter)
    if isinstance(event, str):
        return event.splitlines()
    return msgspec.json.format(msgspec.json.encode(event), indent=2).decode().splitlines()


def _progress(text: str) -> Status:
    """A word on a terminal while something lasts."""
    return Console(stderr=True).status(text)


def _hush() -> None:
    """Whoever read our output has seen enough: what is left must not be complained about at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
