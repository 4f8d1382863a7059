"""What people and programs see of dead letters: no e-mail addresses, passwords or control characters."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from impact_plugin.cli.output import Output, counted
from impact_plugin.ingest.dead_letters import facts_of
from impact_plugin.spool.base import DeadLetter
from impact_transformers.events import UNREADABLE
from impact_transformers.normalize import redact_emails


class DeadLetterSummary(msgspec.Struct, frozen=True):
    """A row of the list; times are UTC."""

    number: int
    rejected_at: str
    source: str
    destination: str
    reason: str
    order_id: str | None
    attempts: int
    detail: str


class _Request(msgspec.Struct, frozen=True):
    """The last request to impact.com."""

    method: str
    path: str
    form: list[tuple[str, str]]


def summarize(letter: DeadLetter) -> DeadLetterSummary:
    """The row of a dead letter."""
    return DeadLetterSummary(
        letter.number,
        _time(letter.died),
        letter.source,
        letter.destination,
        letter.reason,
        None if letter.order_id is None else _plain(letter.order_id),
        letter.attempts,
        _plain(letter.detail),
    )


def describe(letter: DeadLetter) -> dict[str, Any]:
    """Everything about a dead letter, for programs."""
    facts = facts_of(letter.reason)
    return {
        **msgspec.structs.asdict(summarize(letter)),
        "received_at": _time(letter.received),
        "meaning": facts.meaning,
        "fix": facts.fix,
        "request": _request(letter.request),
        "event": _event(letter),
    }


def event_line(payload: bytes) -> bytes:
    """The event on one line; text that is not JSON becomes a JSON string, so that every line is JSON."""
    try:
        msgspec.json.decode(payload)
        return msgspec.json.format(payload, indent=-1)
    except UNREADABLE:
        return msgspec.json.encode(payload.decode("utf-8", "replace"))


def print_list(output: Output, rows: list[DeadLetterSummary], reasons: Counter[str]) -> None:
    """Print the rows, and how many dead letters there are for each reason."""
    heads = ("number", "rejected at", "source", "destination", "reason", "order id", "attempts")
    if rows:
        output.table(
            heads,
            [
                (row.number, row.rejected_at, row.source, row.destination, row.reason, row.order_id or "", row.attempts)
                for row in rows
            ],
        )
    else:
        output.line("no dead letters")
    for reason, count in reasons.most_common():
        output.line(f"{count} {reason}: {facts_of(reason).meaning}")
    if len(rows) < reasons.total():
        output.line(f"{len(rows)} of {reasons.total()} are listed; see --limit and the filters")


def print_letter(output: Output, letter: DeadLetter) -> None:
    """Print everything about one dead letter."""
    facts, row, request = facts_of(letter.reason), summarize(letter), _request(letter.request)
    output.line(f"dead letter {letter.number}: {letter.reason}", "bold red")
    for name, text in (
        ("meaning", facts.meaning),
        ("fix", facts.fix),
        ("detail", row.detail),
        ("received", _time(letter.received)),
        ("rejected", f"{row.rejected_at}, after {counted(letter.attempts, 'attempt')}"),
        ("route", f"{letter.source} to {letter.destination}"),
        ("order id", row.order_id or ""),
    ):
        if text:
            output.line(f"  {name}: {text}")
    if request is not None:
        output.line(f"  request: {request.method} {_plain(request.path)}")
        for name, value in request.form:
            output.line(f"    {_plain(name)}={_plain(value)}")
    output.line("  event:")
    for line in _event_lines(letter):
        output.line(f"    {_plain(line)}")


def _event_lines(letter: DeadLetter) -> Iterator[str]:
    event = _event(letter)
    if isinstance(event, str):
        yield from event.splitlines()
    else:
        yield from msgspec.json.format(msgspec.json.encode(event), indent=2).decode().splitlines()


def _event(letter: DeadLetter) -> Any:
    text = redact_emails(letter.payload.decode("utf-8", "replace"))
    try:
        return msgspec.json.decode(text)
    except UNREADABLE:
        return text


def _request(raw: bytes) -> _Request | None:
    """The request without its host, which may hold a password."""
    head, _, body = raw.decode("utf-8", "replace").partition("\n\n")
    method, _, url = head.partition(" ")
    if not url:
        return None
    form = [(name, redact_emails(value)) for name, value in parse_qsl(body, keep_blank_values=True)]
    return _Request(method, urlsplit(url).path, form)


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in redact_emails(text))


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
