"""``impact-plugin explain``: what becomes of events, and why, without sending anything."""

import gzip
import os
import shlex
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from impact_plugin.cli.inputs import InputError, read_config
from impact_plugin.config.manifest import load_manifest
from impact_plugin.config.settings import ImpactSettings, load_settings
from impact_plugin.delivery.endpoints import FORM_TYPE
from impact_plugin.sessions.offline import ClickExplanation, EarlierEvent, OfflineSessions
from impact_plugin.traffic.replay import DEMONSTRATION
from impact_transformers import (
    NOTICES,
    AnyDestination,
    ConfigurationError,
    Conversion,
    Decision,
    Event,
    Explanation,
    Reason,
    Reject,
    Send,
    Skip,
    UndecodableEventError,
    compile_destination,
    decode_event,
    decode_object,
    prepare,
)
from impact_transformers import (
    explain as explain_event,
)
from impact_transformers.configuration import VARIABLE_PREFIX
from impact_transformers.events import UNREADABLE
from impact_transformers.normalize import as_text, redact_emails

Format = Literal["table", "json", "curl"]

REJECTED: Final = 1
"""Exit code when at least one event was rejected."""

WIDTH: Final = 200
"""Columns of a table that no terminal shows."""


class Subject(msgspec.Struct, frozen=True):
    """One event to explain, with the destination it came with, if any."""

    message: msgspec.Raw
    config: dict[str, Any] | None = None


class _Explained(msgspec.Struct, frozen=True):
    """One event, its outcome, and what the events before it in the file had to do with it."""

    number: int
    explanation: Explanation
    story: ClickExplanation


class _Routed(msgspec.Struct, frozen=True):
    """An element of a router's batch."""

    message: msgspec.Raw
    metadata: dict[str, Any] = {}
    destination: dict[str, Any] | None = None


class _Batch(msgspec.Struct, frozen=True):
    input: list[_Routed]
    destinations: dict[str, dict[str, Any]] = {}


def explain(
    file: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    destination: Annotated[Path | None, Parameter(name=["--destination", "-d"])] = None,
    format: Annotated[Format, Parameter(name=["--format", "-f"])] = "table",  # noqa: A002 - the option's name
    config: Path | None = None,
) -> int:
    """Show the request that each event becomes, where every parameter came from, and why a click is one.

    The events are taken as the whole traffic, in order: earlier ones decide about clicks and click ids of later ones.

    Exit code 0: every event became a request or was filtered; 1: at least one was rejected; 2: nothing could be read.

    Parameters
    ----------
    file
        Events as JSON, a JSON array, one JSON object a line, or a body that rudder-server sent; may be gzipped;
        - is standard input.
    destination
        The destination's configuration, JSON or TOML. Without it, events of a router's body bring their own, and others
        get a demonstration account.
    format
        table to read, json to process, curl to try by hand (the token is left to you).
    config
        TOML file with the service's settings, for the addresses of impact.com.
    """
    settings = load_settings(config, os.environ)
    given = read_config(destination) if destination is not None else None
    compiled: dict[bytes, AnyDestination] = {}
    printer = {"table": _print_table, "json": _print_json, "curl": _print_curl}[format]
    sessions = OfflineSessions()
    rejected = False
    for number, subject in enumerate(_subjects(_read(file)), 1):
        chosen = next(config for config in (given, subject.config, DEMONSTRATION) if config is not None)
        key = msgspec.json.encode(chosen)
        if key not in compiled:
            compiled[key] = _compile(chosen)
        explained = _explain_one(number, subject.message, compiled[key], sessions)
        rejected = rejected or isinstance(explained.explanation.outcome, Reject)
        printer(explained, settings.impact)
    return REJECTED if rejected else 0


def _explain_one(number: int, raw: msgspec.Raw, destination: AnyDestination, sessions: OfflineSessions) -> _Explained:
    try:
        event, message = decode_event(raw), decode_object(raw)
    except UndecodableEventError as error:
        return _Explained(number, Explanation(Reject(Reason.UNDECODABLE_EVENT, str(error))), ClickExplanation())
    message_id = as_text(event.message_id) if isinstance(event, Event) else None
    visit, story = sessions.visit(prepare(event, destination, message).question, EarlierEvent(number, message_id))
    return _Explained(number, explain_event(event, destination, message, visit), story)


def _compile(config: dict[str, Any]) -> AnyDestination:
    variables = {name: value for name, value in os.environ.items() if name.startswith(VARIABLE_PREFIX)}
    try:
        return compile_destination(config, load_manifest().configuration, variables)
    except ConfigurationError as error:
        lines = "\n".join(f"  {problem}" for problem in error.problems)
        raise InputError(f"the destination's configuration cannot be used:\n{lines}") from error


def _read(file: str) -> bytes:
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error


def _subjects(raw: bytes) -> Iterator[Subject]:
    """Find the events, whatever they are wrapped in."""
    text = raw.strip()
    if not text:
        raise InputError("the input is empty; give it events as JSON")
    for one in _documents(text):
        yield from _unwrap(one)


def _documents(text: bytes) -> list[msgspec.Raw]:
    try:
        return msgspec.json.decode(text, type=list[msgspec.Raw])
    except UNREADABLE:
        pass
    try:
        return [msgspec.json.decode(text, type=msgspec.Raw)]
    except UNREADABLE as error:
        if b"\n" not in text:
            raise InputError(f"the input is not JSON: {error}") from error
        return [msgspec.Raw(line.strip()) for line in text.splitlines() if line.strip()]


def _unwrap(raw: msgspec.Raw) -> Iterator[Subject]:
    """The event itself, or those of a router's body."""
    try:
        batch = msgspec.json.decode(raw, type=_Batch)
    except UNREADABLE:
        try:
            batch = _Batch([msgspec.json.decode(raw, type=_Routed)])
        except UNREADABLE:
            yield Subject(raw)
            return
    for item in batch.input:
        destination = item.destination or batch.destinations.get(str(item.metadata.get("destinationId")), {})
        yield Subject(item.message, destination.get("Config"))


def _print_table(explained: _Explained, impact: ImpactSettings) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    number, explanation = explained.number, explained.explanation
    outcome = explanation.outcome
    if isinstance(outcome, Send):
        console.print(
            Text(f"event {number}: {outcome.request.endpoint_path}  POST {_url(outcome, impact)}", style="bold green")
        )
    else:
        style = "bold yellow" if isinstance(outcome, Skip) else "bold red"
        console.print(
            Text(f"event {number}: {_name(outcome)} {outcome.reason}: {redact_emails(outcome.detail)}", style=style)
        )
    for notice in outcome.notices if isinstance(outcome, Send) else ():
        console.print(Text(f"  notice {notice}: {NOTICES[notice]}", style="yellow"))
    if isinstance(outcome, Reject):
        place = f"{outcome.parameter} from {outcome.path or 'the mapping'}  " if outcome.parameter else ""
        console.print(Text(f"  {place}fix: {outcome.fix}"))
    for line in _told(explained.story):
        console.print(Text(f"  {redact_emails(line)}", style="cyan"))
    table = Table("parameter", "value", "from", "rule", "tried", show_edge=False, pad_edge=False)
    for step in explanation.steps:
        if step.value is None and not any(one.refused for one in step.tries):
            continue
        tried = ", ".join(one.path + (f" ({one.refused})" if one.refused else "") for one in step.tries)
        table.add_row(
            *map(
                Text, (step.parameter, redact_emails(step.value or ""), step.path or step.note or "", step.rule, tried)
            )
        )
    if table.row_count:
        console.print(table)
    console.print()


def _told(story: ClickExplanation) -> Iterator[str]:
    """What the sessions decided, and why, in sentences."""
    if story.decision is not None:
        window = f"the window {story.start} to {story.end}"
        opener = "" if story.opener is None else f" opened by {_named(story.opener)}"
        if story.replayed:
            yield f"click {story.decision}: the same message was here before; {window}{opener}"
        elif story.decision is Decision.NEW:
            yield f"click new: no click of this key before it within its window; it opens {window}"
        else:
            yield f"click repeat: within {window}{opener}"
        yield f"click key: {' · '.join(story.key)}"
    if story.click_id is not None:
        source = "" if story.clicked is None else f" by {_named(story.clicked)}"
        yield f"click id {story.click_id}: remembered, brought{source}"
    elif story.asked:
        yield "no click id: this visitor clicked nothing before the event, within the referral window"


def _named(earlier: EarlierEvent) -> str:
    return f"event {earlier.event}" + ("" if earlier.message_id is None else f" (messageId {earlier.message_id})")


def _print_json(explained: _Explained, impact: ImpactSettings) -> None:
    number, explanation = explained.number, explained.explanation
    outcome = explanation.outcome
    shown: dict[str, Any] = {"event": number, "outcome": _name(outcome)}
    if isinstance(outcome, Send):
        request = outcome.request
        shown |= {
            "endpoint_path": request.endpoint_path,
            "method": "POST",
            "url": _url(outcome, impact),
            "form": request.form,
            "notices": outcome.notices,
        }
    else:
        shown |= {"reason": outcome.reason, "detail": redact_emails(outcome.detail)}
    if isinstance(outcome, Reject):
        shown |= {"parameter": outcome.parameter, "path": outcome.path, "fix": outcome.fix}
    shown["visit"] = explained.story
    steps = msgspec.to_builtins(explanation.steps)
    print(
        redact_emails(
            msgspec.json.encode(
                shown
                | {"steps": [{**step, "path": one.path} for step, one in zip(steps, explanation.steps, strict=True)]}
            ).decode()
        )
    )


def _print_curl(explained: _Explained, impact: ImpactSettings) -> None:
    number, outcome = explained.number, explained.explanation.outcome
    if not isinstance(outcome, Send):
        print(f"# event {number}: {_name(outcome)} {outcome.reason}: {redact_emails(outcome.detail)}")
        return
    credentials = (
        ["-u", f"{outcome.config.account_sid}:$IMPACT_AUTH_TOKEN"] if isinstance(outcome.request, Conversion) else []
    )
    words = ["curl", "-X", "POST", *map(_quoted, credentials)]
    words += [
        word
        for header in (f"Content-Type: {FORM_TYPE}", "Accept: application/json")
        for word in ("-H", shlex.quote(header))
    ]
    words += ["--data", shlex.quote(urlencode(outcome.request.form)), shlex.quote(_url(outcome, impact))]
    print(" ".join(words))


def _quoted(word: str) -> str:
    """Quote for the shell, but let the variable with the token be filled in."""
    return f'"{word}"' if "$" in word else shlex.quote(word)


def _name(outcome: Send | Skip | Reject) -> str:
    return type(outcome).__name__.lower()


def _url(outcome: Send, impact: ImpactSettings) -> str:
    if isinstance(outcome.request, Conversion):
        return f"{impact.api_url.rstrip('/')}/Advertisers/{outcome.config.account_sid}/Conversions"
    return f"{impact.tracking_url.rstrip('/')}/PageLoad"
