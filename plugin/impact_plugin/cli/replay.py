"""``impact-plugin replay``: what becomes of recorded traffic, and what another configuration would change."""

import contextlib
import gc
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Final

from cyclopts import Parameter

from impact_plugin.cli.inputs import Flag, InputError, read_config, write_text
from impact_plugin.cli.output import INTERRUPTED, Advance, Output, interruptible
from impact_plugin.cli.send_again import NOWHERE, To, send_again
from impact_plugin.config.destinations import KnownDestination
from impact_plugin.config.manifest import load_manifest
from impact_plugin.config.settings import ROUTING, read_file
from impact_plugin.config.sources import load_routing
from impact_plugin.traffic import snapshots, summary
from impact_plugin.traffic.reading import RecordedDestination, Traffic, TrafficEvent, fingerprints
from impact_plugin.traffic.replay import Chosen, Comparison, Compile, ReplayedEvent, ReplayRun
from impact_transformers import ConfigurationError, Event, Reject, Skip, compile_destination
from impact_transformers.configuration import VARIABLE_PREFIX
from impact_transformers.normalize import as_text, redact_emails

COLLECTED_AFTER: Final = (100_000, 50, 100)
NOT_FOUND: Final = 1


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
    look = Output(as_json=json, quiet=quiet)
    if to.send is not None:
        if against is not None or order_id is not None or html is not None:
            raise InputError("--send: goes without --against, --order-id and --html; run the replay without it first")
        with interruptible() as interrupted:
            return send_again(files, to, destination, resume, look, interrupted)
    run = _Run(files, [_destinations(one) for one in (destination, against)[: 1 if against is None else 2]])
    began = perf_counter()
    with _rarely_collected(), interruptible() as interrupted, look.progress("replaying", run.traffic.total) as advance:
        whole = run.go(advance, interrupted, resume, order_id)
    if order_id is not None:
        return _tell_order(look, order_id, run.found)
    sums, seconds = run.sides[0].finish(), perf_counter() - began
    _tell(look, run, seconds)
    for file in run.traffic.cut_off:
        look.line(f"{file}: is cut off; what can be read of it was replayed", "bold")
    look.result(summary.as_object(sums, seconds, run.comparison))
    if html is not None:
        names = ", ".join(file.name for file in files[:4]) + (" ..." if len(files) > 4 else "")
        write_text(html, summary.report(names, sums, seconds, run.comparison))
        look.line(f"report: {html}")
    if not whole:
        look.line(f"interrupted; go on with the same command and --resume {resume}" if resume else "interrupted")
        return INTERRUPTED
    return 0


class _Run:
    """One replay: the files, one side or two, and what an order came to."""

    def __init__(self, files: Sequence[Path], given: Sequence[Sequence[KnownDestination]]) -> None:
        self.traffic = Traffic(files)
        self._files = fingerprints(files)
        self._chosen = [Chosen(Compile(_compile), one) for one in given]
        self.sides = [ReplayRun(chosen, ages=len(files) == 1) for chosen in self._chosen]
        self.comparison = Comparison() if len(given) > 1 else None
        self.found: list[ReplayedEvent] = []
        self.traffic.whole = any(known.reads_message for one in given for known in one)

    def go(self, advance: Advance, interrupted: list[int], resume: Path | None, order_id: str | None) -> bool:
        """Replay everything, or until interrupted; whether all was done."""
        done = 0
        if resume is not None and resume.exists():
            done = snapshots.load(resume, self._files, self.sides, self.comparison)
        number, began = 0, perf_counter()
        for subjects in self._requests():
            if number + len(subjects) <= done:
                number += len(subjects)
                continue
            if interrupted:
                if resume is not None:
                    snapshots.save(resume, self._files, number, self.sides, self.comparison)
                return False
            self._feed(number + 1, subjects, order_id)
            number += len(subjects)
            if number % 256 < len(subjects):
                rate = (number - done) / max(perf_counter() - began, 1e-9)
                advance(self.traffic.done, f"{number:,} events, {rate:,.0f}/s")
        if resume is not None:
            resume.unlink(missing_ok=True)
        return True

    def _feed(self, first: int, subjects: Sequence[TrafficEvent], order_id: str | None) -> None:
        ended = [side.feed(first, subjects) for side in self.sides]
        if self.comparison is not None:
            self.comparison.compare(*ended)
        if order_id is not None:
            self.found += [one for one in ended[0] if _is_order(one, order_id)]

    def _requests(self) -> Iterator[list[TrafficEvent]]:
        """The events of each request together; what a recording tells of destinations is taken note of."""

        def subjects() -> Iterator[TrafficEvent]:
            for one in self.traffic:
                if isinstance(one, RecordedDestination):
                    for chosen in self._chosen:
                        self.traffic.whole |= chosen.tell(one.id, one.config).reads_message
                else:
                    yield one

        numbered = enumerate(subjects())
        for _, group in groupby(
            numbered, key=lambda pair: pair[0] if pair[1].request is None else -1 - pair[1].request
        ):
            yield [subject for _, subject in group]


def _destinations(path: Path | None) -> list[KnownDestination]:
    if path is None:
        return []
    if path.suffix == ".toml" and any(kind in read_file(path) for kind in ROUTING):
        return [*load_routing(path, os.environ).destinations.values()]
    known = _compile(path.stem, read_config(path))
    if known.destination is None:
        raise InputError(f"{path}: the configuration cannot be used: {known.problem}")
    return [known]


def _compile(id_: str, config: dict[str, Any]) -> KnownDestination:
    variables = {name: value for name, value in os.environ.items() if name.startswith(VARIABLE_PREFIX)}
    try:
        return KnownDestination(id_, "", compile_destination(config, load_manifest().configuration, variables))
    except ConfigurationError as error:
        return KnownDestination(id_, "", None, str(error))


@contextlib.contextmanager
def _rarely_collected() -> Iterator[None]:
    """Have cycles looked for less often: a replay makes none, and the search walks all visitors it remembers."""
    before = gc.get_threshold()
    gc.set_threshold(*COLLECTED_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _is_order(one: ReplayedEvent, order_id: str) -> bool:
    properties = one.event.properties if isinstance(one.event, Event) else None
    named = [as_text((properties or {}).get(name)) for name in ("order_id", "orderId")]
    form = getattr(getattr(one.outcome, "request", None), "form", {})
    return order_id in named or form.get("OrderId") == order_id


def _tell_order(look: Output, order_id: str, found: Sequence[ReplayedEvent]) -> int:
    told = []
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
            look.line(line)
        told.append({"event": one.number, "outcome": one.label, "lines": lines[1:]})
    if not found:
        look.line(f"no event has the order id {order_id}")
    look.result({"order_id": order_id, "events": told})
    return 0 if found else NOT_FOUND


def _tell(look: Output, run: _Run, seconds: float) -> None:
    sums = run.sides[0].sums
    rate = sums.received / max(seconds, 1e-9)
    look.line(f"{sums.received:,} events in {seconds:.1f} s ({rate:,.0f}/s); nothing was sent", "bold")
    look.table(("", "events"), [(name, f"{count:,}") for name, count in summary.funnel(sums)])
    reasons = summary.reasons(sums)
    if reasons:
        rows = [(outcome, reason, f"{count:,}", fix) for outcome, reason, count, _, fix, _ in reasons]
        look.table(("outcome", "reason", "events", "fix"), rows, "why not")
    look.table(("clicks", "events"), [(name, f"{count:,}") for name, count in sums.decisions.most_common()])
    look.table(("orders' click id", "events"), [(name, f"{count:,}") for name, count in sums.orders.most_common()])
    if sums.money:
        look.table(("currency", "amount"), list(sums.money.items()))
    if run.comparison is not None:
        told = f"{run.comparison.changed:,} of {run.comparison.compared:,} events would become something else"
        look.line(told, "bold")
        look.table(("now", "then", "parameters", "events", "example"), summary.change_rows(run.comparison))
