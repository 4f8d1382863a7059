"""``impact-plugin replay``: count what becomes of recorded traffic, and what another configuration would change."""

import contextlib
import gc
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Annotated, Final

from cyclopts import Parameter

from impact_plugin.cli.destinations import read_destinations
from impact_plugin.cli.errors import CommandError
from impact_plugin.cli.exit_codes import DONE, FAILED, INTERRUPTED
from impact_plugin.cli.faults import log_faults_once
from impact_plugin.cli.interruption import interruptible
from impact_plugin.cli.options import Config, Destination, Json, Quiet
from impact_plugin.cli.output import SEVERITY_STYLES, Advance, Output, counted, write_text
from impact_plugin.cli.replay_send import SEND_NOTHING, SendOptions, send_events
from impact_plugin.config.destinations import KnownDestination, destination_variables
from impact_plugin.traffic import snapshots, summary
from impact_plugin.traffic.comparison import Comparison
from impact_plugin.traffic.destinations import TrafficDestinations
from impact_plugin.traffic.orders import OrderTally
from impact_plugin.traffic.reading import Traffic, TrafficEvent, fingerprints
from impact_plugin.traffic.replay import ReplayedEvent, ReplayRun, requests_of
from impact_plugin.traffic.spreadsheet import orders_as_csv
from impact_transformers import Reject, Skip
from impact_transformers.normalize import redact_emails

COLLECTED_AFTER: Final = (100_000, 50, 100)
SHOWN_ORDERS: Final = 20
PROGRESS_EVENTS: Final = 256
"""Events between two reports of progress."""


def replay(  # noqa: PLR0913 - each is an option of the command
    *files: Path,
    destination: Destination = None,
    against: str | None = None,
    order_id: str | None = None,
    html: Path | None = None,
    csv: Path | None = None,
    resume: Path | None = None,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
    sending: Annotated[SendOptions, Parameter(name="*", group="With --send")] = SEND_NOTHING,
) -> int:
    """Replay recorded events offline, and count what becomes of them: sent, filtered or rejected, and why.

    Nothing leaves this machine, except with --send: it posts the events to a running service, in their order, one
    request at a time, each until the service acknowledges it, with their ids and times.

    Exit code 0: done; 1: there is no such order, or the service did not accept every event; 2: a file or an option
    cannot be used; 3: interrupted.

    ```sh
    impact-plugin replay monday.ndjson.gz --config impact.toml --html report.html
    impact-plugin replay monday.ndjson.gz --send --resume sent.state
    ```

    Parameters
    ----------
    files
        Recordings of record, events as NDJSON or a JSON array, exports of Segment or RudderStack, or request bodies of
        routers, also gzipped, in this order. With one file, clicks and visitors are forgotten by the times of the
        events, as the service forgets by its clock; with several nothing is, since their days may overlap.
    destination
        A destination of --config by its name, or a file with its configuration, JSON or TOML. Without it the events go
        to all destinations of --config; without that, recordings and request bodies bring their own, and other events
        get a demonstration account.
    against
        A name or a file like --destination, or another TOML file of yours: shows which events would change with it.
    order_id
        Show only what becomes of this order, and why.
    html
        File for an HTML report.
    csv
        File for the orders that need your attention, as CSV for a spreadsheet: those that are missing, with what they
        are worth and why, and those that are sent with a doubtful amount.
    resume
        File for the progress: an interrupted replay continues with the same command. With --send it is written after
        every request and stays, so that the same command sends nothing twice.
    """
    if not files:
        raise CommandError("FILES: name at least one file of events")
    output = Output(as_json=json, quiet=quiet)
    if sending.send:
        if any(option is not None for option in (against, order_id, html, csv)):
            raise CommandError(
                "--send: cannot be combined with --against, --order-id, --html and --csv; replay without it first"
            )
        with interruptible() as interrupted:
            return send_events(files, sending, destination, resume, output, interrupted)
    chosen = (destination,) if against is None else (destination, against)
    run = _Replay(files, [read_destinations(one, config) for one in chosen])
    began = perf_counter()
    with (
        _rarely_collected(),
        interruptible() as interrupted,
        output.progress("replaying", run.traffic.total) as advance,
    ):
        whole = run.go(advance, interrupted, resume, order_id)
    if order_id is not None:
        return _print_order(output, order_id, run.of_order)
    sums, seconds = run.runs[0].sums, perf_counter() - began
    then = run.runs[1].sums if run.comparison is not None else None
    _print_sums(output, run, seconds)
    for name in run.traffic.cut_off:
        output.warning(f"{name}: is cut off; everything up to there was replayed")
    output.result(summary.as_object(sums, seconds, run.comparison, then))
    if html is not None:
        names = ", ".join(file.name for file in files[:4]) + (" ..." if len(files) > 4 else "")
        write_text(html, summary.report(names, sums, seconds, run.comparison, then))
        output.line(f"report: {html}")
    if csv is not None:
        write_text(csv, orders_as_csv(sums.tally.flagged))
        output.line(f"orders: {csv}")
    if not whole:
        output.line(f"interrupted; continue with the same command and --resume {resume}" if resume else "interrupted")
        return INTERRUPTED
    return DONE


class _Replay:
    """One replay: the files, one run or two, and the events of the order to show."""

    def __init__(self, files: Sequence[Path], given: Sequence[Sequence[KnownDestination]]) -> None:
        self.traffic = Traffic(files)
        self._files = fingerprints(files)
        variables, report_fault = destination_variables(os.environ), log_faults_once()
        self.runs = [
            ReplayRun(TrafficDestinations(variables, one), report_fault, ages=len(files) == 1) for one in given
        ]
        self.comparison = Comparison() if len(given) > 1 else None
        self.of_order: list[ReplayedEvent] = []

    def go(self, advance: Advance, interrupted: Sequence[int], resume: Path | None, order_id: str | None) -> bool:
        """Replay until the end, or until interrupted, which returns False."""
        done = 0
        if resume is not None and resume.exists():
            done = snapshots.load(resume, self._files, self.runs, self.comparison)
        began = perf_counter()
        for first, events in requests_of(self.traffic, [run.destinations for run in self.runs]):
            last = first + len(events) - 1
            if last <= done:
                continue
            if interrupted:
                if resume is not None:
                    snapshots.save(resume, self._files, first - 1, self.runs, self.comparison)
                return False
            self._feed(first, events, order_id)
            if last % PROGRESS_EVENTS < len(events):
                rate = (last - done) / max(perf_counter() - began, 1e-9)
                advance(self.traffic.done, f"{last:,} events, {rate:,.0f}/s")
        if resume is not None:
            resume.unlink(missing_ok=True)
        return True

    def _feed(self, first: int, events: Sequence[TrafficEvent], order_id: str | None) -> None:
        replayed = [run.feed(first, events) for run in self.runs]
        if self.comparison is not None:
            self.comparison.compare(*replayed)
        if order_id is not None:
            self.of_order += [one for one in replayed[0] if one.is_order(order_id)]


@contextlib.contextmanager
def _rarely_collected() -> Iterator[None]:
    """Collect garbage less often: a replay makes no cycles, and a collection walks all remembered visitors."""
    before = gc.get_threshold()
    gc.set_threshold(*COLLECTED_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _print_order(output: Output, order_id: str, found: Sequence[ReplayedEvent]) -> int:
    events = []
    for one in found:
        lines = [f"event {one.number}: {one.label}"]
        if isinstance(one.outcome, Skip | Reject):
            lines.append(f"  {redact_emails(one.outcome.detail)}")
        if isinstance(one.outcome, Reject):
            place = (
                f"{one.outcome.parameter} from {one.outcome.path or 'the mapping'}; " if one.outcome.parameter else ""
            )
            lines.append(f"  {place}fix: {one.outcome.fix}")
        if one.visit.click_id is not None:
            lines.append(f"  click id {one.visit.click_id}, remembered from an earlier click")
        for line in lines:
            output.line(line)
        events.append({"event": one.number, "outcome": one.label, "lines": lines[1:]})
    if not found:
        output.warning(f"no event has the order id {order_id}")
    output.result({"order_id": order_id, "events": events})
    return DONE if found else FAILED


def _print_sums(output: Output, run: _Replay, seconds: float) -> None:
    sums = run.runs[0].sums
    rate = sums.received / max(seconds, 1e-9)
    received = counted(sums.received, "event")
    output.line(f"{received} replayed in {seconds:.1f} s ({rate:,.0f}/s); nothing left this machine", "bold")
    output.table(("outcome", "events"), [(name, f"{count:,}") for name, count in summary.funnel(sums)])
    reasons = summary.reasons(sums)
    if reasons:
        rows = [(outcome, reason, f"{count:,}", fix) for outcome, reason, count, _, fix, _ in reasons]
        output.table(("outcome", "reason", "events", "fix"), rows, "filtered and rejected")
    output.table(("clicks", "events"), [(name, f"{count:,}") for name, count in sums.decisions.most_common()])
    output.table(("orders' click id", "events"), [(name, f"{count:,}") for name, count in sums.orders.most_common()])
    _print_orders(output, sums.tally)
    if run.comparison is not None:
        output.line(f"{run.comparison.changed:,} of {run.comparison.compared:,} events would change", "bold")
        output.table(("now", "then", "parameters", "events", "example"), summary.change_rows(run.comparison))
        changes = summary.order_changes(sums.tally, run.runs[1].sums.tally)
        if changes:
            output.table(("orders", "now", "amount now", "then", "amount then"), changes)


def _print_orders(output: Output, tally: OrderTally) -> None:
    rows = [(*row[:3], f"{row[3]:,}", row[4]) for row in summary.order_rows(tally)]
    if rows:
        output.table(("orders", "reason", "currency", "number", "amount"), rows, "each order, lead and install once")
    missing = [*islice(tally.missing.values(), SHOWN_ORDERS)]
    if missing:
        flagged = [(one.event, one.order_id, summary.worth(one), f"{one.outcome} {one.reason}") for one in missing]
        output.table(("event", "order id", "amount", "missing because"), flagged, "missing orders")
    if len(tally.missing) > len(missing):
        output.line(f"and {len(tally.missing) - len(missing):,} more missing orders; --csv FILE lists them")
    for warning in summary.order_warnings(tally):
        output.line(warning, SEVERITY_STYLES["warning"])
