"""``impact-plugin replay``: what becomes of recorded traffic, and what another configuration would change."""

import contextlib
import gc
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Annotated, Final

from cyclopts import Parameter

from impact_plugin.cli.faults import log_faults_once
from impact_plugin.cli.inputs import Flag, InputError, read_destinations, write_text
from impact_plugin.cli.output import INTERRUPTED, Advance, Output, interruptible
from impact_plugin.cli.send_again import NOWHERE, To, send_again
from impact_plugin.config.destinations import KnownDestination, destination_variables
from impact_plugin.traffic import snapshots, summary
from impact_plugin.traffic.comparison import Comparison
from impact_plugin.traffic.destinations import TrafficDestinations
from impact_plugin.traffic.reading import Traffic, TrafficEvent, fingerprints
from impact_plugin.traffic.replay import ReplayedEvent, ReplayRun, requests_of
from impact_transformers import Reject, Skip
from impact_transformers.normalize import redact_emails

COLLECTED_AFTER: Final = (100_000, 50, 100)
NOT_FOUND: Final = 1
PROGRESS_EVENTS: Final = 256
"""Events between two reports of progress."""


def replay(
    *files: Path,
    destination: Annotated[Path | None, Parameter(name=["--destination", "-d"])] = None,
    against: Path | None = None,
    order_id: str | None = None,
    html: Path | None = None,
    resume: Path | None = None,
    json: Flag = False,
    quiet: Flag = False,
    to: Annotated[To, Parameter(name="*")] = NOWHERE,
) -> int:
    """Run recorded events through the mapping and sessions of their own, and tell what becomes of them.

    Sends nothing, unless --send names a running service: then the events go there, in their order and one request at a
    time, each until it was acknowledged, with the ids and times they have.

    Exit code 0: done; 1: the order that was asked for is not there, or the service did not take every event; 2: a file
    or a configuration cannot be used; 3: interrupted.

    Parameters
    ----------
    files
        Our recordings, events as NDJSON or a JSON array, exports of Segment or RudderStack, bodies of routers; each may
        be gzipped. They are taken in this order. In a single one, visitors and clicks are forgotten by the times of the
        events, as the service does by its clock; with several nothing is, since they may be of the same days.
    destination
        Where the events go: a destination's configuration (JSON or TOML), or the service's TOML file with its
        destinations. Without it recordings and bodies bring their own, and others get a demonstration account.
    against
        Another one, of the same kinds: tells which events would become something else with it, and what.
    order_id
        Tell only what became of this order, and why.
    html
        Write the report here.
    resume
        When interrupted, write here where it was; with this file there, go on from it. With --send it is written after
        every request, and stays: the same command once more sends nothing.
    json
        Print one JSON object.
    quiet
        Print nothing.
    """
    if not files:
        raise InputError("replay: name at least one file")
    output = Output(as_json=json, quiet=quiet)
    if to.send is not None:
        if against is not None or order_id is not None or html is not None:
            raise InputError("--send: goes without --against, --order-id and --html; run the replay without it first")
        with interruptible() as interrupted:
            return send_again(files, to, destination, resume, output, interrupted)
    run = _Replay(files, [read_destinations(one) for one in (destination, against)[: 1 if against is None else 2]])
    began = perf_counter()
    with (
        _rarely_collected(),
        interruptible() as interrupted,
        output.progress("replaying", run.traffic.total) as advance,
    ):
        whole = run.go(advance, interrupted, resume, order_id)
    if order_id is not None:
        return _print_order(output, order_id, run.of_order)
    sums, seconds = run.runs[0].finish(), perf_counter() - began
    _print_sums(output, run, seconds)
    for name in run.traffic.cut_off:
        output.line(f"{name}: is cut off; what can be read of it was replayed", "bold")
    output.result(summary.as_object(sums, seconds, run.comparison))
    if html is not None:
        names = ", ".join(file.name for file in files[:4]) + (" ..." if len(files) > 4 else "")
        write_text(html, summary.report(names, sums, seconds, run.comparison))
        output.line(f"report: {html}")
    if not whole:
        output.line(f"interrupted; go on with the same command and --resume {resume}" if resume else "interrupted")
        return INTERRUPTED
    return 0


class _Replay:
    """One replay: the files, one run or two, and the events of an order that was asked for."""

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
        """Replay everything, or until interrupted; returns whether all was done."""
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
    """Have cycles looked for less often: a replay makes none, and the search walks all visitors it remembers."""
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
        output.line(f"no event has the order id {order_id}")
    output.result({"order_id": order_id, "events": events})
    return 0 if found else NOT_FOUND


def _print_sums(output: Output, run: _Replay, seconds: float) -> None:
    sums = run.runs[0].sums
    rate = sums.received / max(seconds, 1e-9)
    output.line(f"{sums.received:,} events in {seconds:.1f} s ({rate:,.0f}/s); nothing was sent", "bold")
    output.table(("", "events"), [(name, f"{count:,}") for name, count in summary.funnel(sums)])
    reasons = summary.reasons(sums)
    if reasons:
        rows = [(outcome, reason, f"{count:,}", fix) for outcome, reason, count, _, fix, _ in reasons]
        output.table(("outcome", "reason", "events", "fix"), rows, "why not")
    output.table(("clicks", "events"), [(name, f"{count:,}") for name, count in sums.decisions.most_common()])
    output.table(("orders' click id", "events"), [(name, f"{count:,}") for name, count in sums.orders.most_common()])
    if sums.money:
        output.table(("currency", "amount"), list(sums.money.items()))
    if run.comparison is not None:
        changed = f"{run.comparison.changed:,} of {run.comparison.compared:,} events"
        output.line(f"{changed} would become something else", "bold")
        output.table(("now", "then", "parameters", "events", "example"), summary.change_rows(run.comparison))
