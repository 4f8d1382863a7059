"""``impact-plugin replay --send``: send recorded events to a running service, each until it acknowledges it."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter, validators

from impact_plugin.cli.errors import CommandError
from impact_plugin.cli.exit_codes import DONE, FAILED, INTERRUPTED
from impact_plugin.cli.output import Output, counted
from impact_plugin.cli.target import Anywhere, SourceKey, SourceName, make_shape, parse_address
from impact_plugin.traffic.reading import ReadingError, Traffic, fingerprints, is_recording
from impact_plugin.traffic.sending import Sending, SendingError, batches, send_all
from impact_plugin.traffic.sent import TAKEN, Sent, load_sent, save_sent
from impact_plugin.traffic.shapes import SENDERS, Shape, Via

MAX_BATCH: Final = 2000
DEFAULT_BATCH: Final[dict[Via, int]] = {"processor": 100, "router": 20, "proxy": 1, "segment": 100, "webhook": 100}


@dataclass(frozen=True)
class SendOptions:
    """Where and how to send events.

    Parameters
    ----------
    send
        Send the events to the running service at --url, instead of replaying them here.
    url
        Address of the service, http://HOST:PORT; default this machine's port for senders or for routers.
    via
        Through the Segment HTTP API or to the source's webhook, whose events the service delivers; as
        rudder-server's processor or router, which only transform; or through its delivery proxy.
    batch
        Events in a request; default 100, 20 as a router, 1 by proxy.
    patience
        Give up if the service accepts nothing for this many seconds.
    pseudonyms
        Send our own recordings too, though they hold pseudonyms instead of persons.
    """

    send: bool = False
    url: str | None = None
    via: Via = "segment"
    key: SourceKey = field(default="", repr=False)
    source: SourceName = ""
    batch: Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=MAX_BATCH))] = None
    patience: Annotated[float, Parameter(validator=validators.Number(gte=0))] = 120.0
    pseudonyms: bool = False
    anywhere: Anywhere = False


SEND_NOTHING: Final = SendOptions()


@dataclass(frozen=True)
class _Job:
    """The files, where they go, and the file that keeps the progress."""

    files: Sequence[Path]
    options: SendOptions
    shape: Shape
    resume: Path | None
    names: list[tuple[str, int, str]]
    """Fingerprints of the files at the start: another file may take the place of one meanwhile."""

    target: tuple[str, ...]

    def begin(self) -> Sent:
        """Read the progress, or start from the beginning."""
        return Sent() if self.resume is None else load_sent(self.resume, self.names, self.target)

    def keep(self, sent: Sent) -> None:
        """Write the progress down, with --resume."""
        if self.resume is not None:
            save_sent(self.resume, self.names, self.target, sent)

    def check(self, traffic: Traffic) -> None:
        """Check that all of the files was read; raises :class:`SendingError`."""
        for file in traffic.cut_off:
            raise SendingError(f"{file}: is cut off; everything up to there was sent")
        try:
            same = fingerprints(self.files) == self.names
        except ReadingError:
            same = False
        if not same:
            raise SendingError("a file changed while it was sent; send its present content as a file of its own")


def send_events(
    files: Sequence[Path],
    options: SendOptions,
    destination: str | None,
    resume: Path | None,
    output: Output,
    interrupted: Sequence[int],
) -> int:
    """Send all events, or continue an interrupted sending; returns the exit code."""
    _refuse_recordings(files, options)
    shape = _shape(options, destination)
    job = _Job(files, options, shape, resume, fingerprints(files), _target(shape))
    sent = job.begin()
    if sent.complete:
        output.line(f"everything was posted already; to post it once more, delete {resume}")
        _report(output, sent, shape, 0.0)
        return _conclude(output, resume, sent, "")
    # A file that cannot be written must fail before the first event is sent, not after.
    job.keep(sent)
    began, problem = perf_counter(), ""
    try:
        sent.complete = asyncio.run(_send(job, sent, output, interrupted))
    except (SendingError, ReadingError) as error:
        problem = str(error)
    job.keep(sent)
    _report(output, sent, shape, perf_counter() - began, problem)
    return _conclude(output, resume, sent, problem)


async def _send(job: _Job, sent: Sent, output: Output, interrupted: Sequence[int]) -> bool:
    traffic = Traffic(job.files)
    first, began = sent.events, perf_counter()

    def stopping() -> bool:
        return bool(interrupted)

    with output.progress("sending", traffic.total) as advance:

        def taken() -> None:
            job.keep(sent)
            rate = (sent.events - first) / max(perf_counter() - began, 1e-9)
            advance(traffic.done, f"{sent.events:,} events, {rate:,.0f}/s")

        patience = job.options.patience
        async with aclosing(Sending(job.shape, sent, patience=patience, stopping=stopping)) as sending:
            pseudonyms = job.options.pseudonyms
            pending = batches(traffic, job.shape.batch, sent.events, stopping, pseudonyms=pseudonyms)
            whole = await send_all(pending, sending, taken)
    if whole:
        job.check(traffic)
    return whole


def _shape(options: SendOptions, destination: str | None) -> Shape:
    via = options.via
    address = parse_address(options.url, via, anywhere=options.anywhere)
    if via not in SENDERS and destination is None:
        raise CommandError(f"--destination: required with --via {via}: the configuration that the events are for")
    if via == "proxy" and options.batch not in (None, 1):
        raise CommandError("--batch: cannot be combined with --via proxy, which delivers one event at a time")
    shape = make_shape(via, address, destination, options.batch or DEFAULT_BATCH[via], options.key, options.source)
    if "destinations" in shape.config:
        raise CommandError(f"{destination}: holds several destinations; with --send, --destination must hold one")
    return shape


def _target(shape: Shape) -> tuple[str, ...]:
    """Identify the target; of key and destination, which are confidential, by digests."""
    confidential = shape.key.encode(), msgspec.json.encode(shape.config, order="deterministic")
    return shape.via, shape.host, shape.source, *(sha256(one).hexdigest()[:16] for one in confidential)


def _refuse_recordings(files: Sequence[Path], options: SendOptions) -> None:
    for file in files:
        if not options.pseudonyms and is_recording(file):
            raise CommandError(
                f"{file}: is our own recording, with pseudonyms in place of customers, which impact.com would take "
                "for customers; send an export, or allow it with --pseudonyms"
            )


def _report(output: Output, sent: Sent, shape: Shape, seconds: float, problem: str = "") -> None:
    output.line(
        f"{counted(sent.events, 'event')} posted to {shape.host} ({shape.via}); this run took {seconds:.1f} s", "bold"
    )
    rows = [(outcome, f"{count:,}", "; ".join(sent.examples.get(outcome, [])[:1])) for outcome, count in _ranked(sent)]
    output.table(("outcome", "events", "example"), rows)
    if sent.repeats:
        output.line(f"{counted(sent.repeats, 'request')} repeated, because the service did not accept them at once")
    if sent.outcomes.get("duplicate"):
        output.line("duplicates were known to the service; if it rejected them then, they are dead letters")
    if shape.via in ("processor", "router"):
        output.line("only transformed: a router delivers what the service returns, this command does not")
    run = {"via": shape.via, "target": shape.host, "seconds": round(seconds, 3), "problem": problem}
    output.result({**msgspec.structs.asdict(sent), **run})


def _ranked(sent: Sent) -> list[tuple[str, int]]:
    """Put what needs attention last, where it is read."""
    return sorted(sent.outcomes.items(), key=lambda item: (item[0] not in TAKEN, -item[1]))


def _conclude(output: Output, resume: Path | None, sent: Sent, problem: str) -> int:
    fix = "start again from the beginning, since the service knows what it has; or use --resume FILE next time"
    if resume is not None:
        fix = f"continue with the same command and --resume {resume}"
    if problem:
        output.warning(f"{problem}; {fix}")
        return FAILED
    if not sent.complete:
        output.line(f"interrupted; {fix}")
        return INTERRUPTED
    return FAILED if sent.lost else DONE
