"""How ``impact-plugin explain`` prints an event: as a table, as JSON, or as a curl command."""

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlencode

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from impact_plugin.delivery.endpoints import FORM_TYPE, Endpoints
from impact_plugin.sessions.click_history import ClickExplanation, EarlierEvent
from impact_plugin.traffic.replay import ReplayedEvent, ReplayRun
from impact_plugin.transformation.step import outcome_word
from impact_transformers import Conversion, Decision, Explanation, Reject, Send, Skip
from impact_transformers.normalize import redact_emails
from impact_transformers.trail import Step

Format: TypeAlias = Literal["table", "curl"]
Show: TypeAlias = Callable[[ReplayedEvent], None]

COLUMNS: Final = ("parameter", "value", "from", "rule", "tried")


def view(format_: Format, run: ReplayRun, endpoints: Endpoints, *, as_json: bool) -> Show:
    """Make a function that prints one event of the run."""
    if as_json:
        return lambda one: print(_as_json(one, run.explanation_of(one), endpoints))
    if format_ == "curl":
        return lambda one: print(_as_curl(one, endpoints))
    console = Console() if sys.stdout.isatty() else None

    def print_table(one: ReplayedEvent) -> None:
        title = f"event {one.number}"
        if len(run.destinations.of(one.source)) > 1:
            title += f" at {one.prepared.known.id}"
        explanation = run.explanation_of(one)
        lines = [*_heading(title, one, explanation, endpoints)]
        rows = [*_rows(explanation.steps)]
        if console is None:
            _print_plain(lines, rows)
        else:
            _print_styled(console, lines, rows)

    return print_table


def _print_plain(lines: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> None:
    """Print columns without wrapping; a table of rich takes ten milliseconds, too long for a day of events."""
    table = _aligned(rows) if rows else []
    print("\n".join([*(text for text, _ in lines), *table, ""]))


def _print_styled(console: Console, lines: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> None:
    for text, style in lines:
        console.print(Text(text, style=style))
    if rows:
        table = Table(*COLUMNS, show_edge=False, pad_edge=False)
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
    console.print()


def _heading(
    title: str, one: ReplayedEvent, explanation: Explanation, endpoints: Endpoints
) -> Iterator[tuple[str, str]]:
    """The lines above the table, each with its style."""
    outcome = one.outcome
    if isinstance(outcome, Send):
        yield f"{title}: {one.label}  POST {_url(outcome, endpoints)}", "bold green"
        for notice in outcome.notices:
            yield f"  notice {redact_emails(str(notice))}", "yellow"
        if explanation.amount is not None:
            yield f"  amount {explanation.amount}", "cyan"
    else:
        style = "bold yellow" if isinstance(outcome, Skip) else "bold red"
        yield f"{title}: {_reason(one, outcome)}", style
    if isinstance(outcome, Reject):
        yield f"  {_place(outcome)}fix: {outcome.fix}", ""
    for sentence in _sentences(one.clicks):
        yield f"  {redact_emails(sentence)}", "cyan"


def _rows(steps: Sequence[Step]) -> Iterator[tuple[str, ...]]:
    """The parameters that are sent, and those with a refused value."""
    for step in steps:
        if step.value is not None or any(one.refused for one in step.tries):
            tried = ", ".join(one.path + (f" ({one.refused})" if one.refused else "") for one in step.tries)
            yield step.parameter, redact_emails(step.value or ""), step.path or step.note or "", step.rule, tried


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The table in columns, without wrapping."""
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    line = "╇".join("━" * (width + (1 if place in (0, len(widths) - 1) else 2)) for place, width in enumerate(widths))
    return [_joined(COLUMNS, widths, " ┃ "), line, *(_joined(row, widths, " │ ") for row in rows)]


def _joined(cells: Sequence[str], widths: Sequence[int], between: str) -> str:
    return between.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _sentences(clicks: ClickExplanation) -> Iterator[str]:
    """The decisions about click and click id, with their reasons."""
    if clicks.decision is not None:
        window = f"the window {clicks.start} to {clicks.end}"
        opener = "" if clicks.opener is None else f" opened by {_named(clicks.opener)}"
        if clicks.replayed:
            yield f"click {clicks.decision}: the same message came before; {window}{opener}"
        elif clicks.decision is Decision.NEW:
            yield f"click new: no earlier click of this key within its window; it opens {window}"
        else:
            yield f"click repeat: within {window}{opener}"
        yield f"click key: {' · '.join(clicks.key)}"
    if clicks.click_id is not None:
        source = "an earlier event" if clicks.clicked is None else _named(clicks.clicked)
        yield f"click id {clicks.click_id}: remembered from {source}"
    elif clicks.asked:
        yield "no click id: no click of this visitor before the event, within the referral window"


def _named(earlier: EarlierEvent) -> str:
    return f"event {earlier.event}" + ("" if earlier.message_id is None else f" (messageId {earlier.message_id})")


def _as_json(one: ReplayedEvent, explanation: Explanation, endpoints: Endpoints) -> str:
    outcome = one.outcome
    shown: dict[str, Any] = {
        "event": one.number,
        "destination": one.prepared.known.id,
        "outcome": outcome_word(outcome),
    }
    if isinstance(outcome, Send):
        shown |= {
            "endpoint_path": outcome.request.endpoint_path,
            "method": "POST",
            "url": _url(outcome, endpoints),
            "form": outcome.request.form,
            "notices": outcome.notices,
            "amount": explanation.amount,
        }
    else:
        shown |= {"reason": outcome.reason, "detail": redact_emails(outcome.detail)}
    if isinstance(outcome, Reject):
        shown |= {"parameter": outcome.parameter, "path": outcome.path, "fix": outcome.fix}
    shown["visit"] = one.clicks
    shown["steps"] = [{**msgspec.structs.asdict(step), "path": step.path} for step in explanation.steps]
    return redact_emails(msgspec.json.encode(shown).decode())


def _as_curl(one: ReplayedEvent, endpoints: Endpoints) -> str:
    outcome = one.outcome
    if not isinstance(outcome, Send):
        return f"# event {one.number}: {_reason(one, outcome)}"
    words = ["curl", "-X", "POST"]
    if isinstance(outcome.request, Conversion):
        # In double quotes the shell replaces the variable.
        words += ["-u", f'"{outcome.config.account_sid}:$IMPACT_AUTH_TOKEN"']
    for header in (f"Content-Type: {FORM_TYPE}", "Accept: application/json"):
        words += ["-H", shlex.quote(header)]
    words += ["--data", shlex.quote(urlencode(outcome.request.form)), shlex.quote(_url(outcome, endpoints))]
    return " ".join(words)


def _reason(one: ReplayedEvent, outcome: Skip | Reject) -> str:
    return f"{one.label}: {redact_emails(outcome.detail)}"


def _place(outcome: Reject) -> str:
    return f"{outcome.parameter} from {outcome.path or 'the mapping'}  " if outcome.parameter else ""


def _url(outcome: Send, endpoints: Endpoints) -> str:
    return endpoints.of(outcome.request, outcome.config).url
