"""``impact-plugin replay --send``: recorded events to a running service, each until it was acknowledged."""

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

from impact_plugin.cli.inputs import Flag, InputError
from impact_plugin.cli.output import INTERRUPTED, Output
from impact_plugin.cli.targets import Key, address_of, shape_of
from impact_plugin.traffic.reading import ReadingError, Traffic, fingerprints, is_recording
from impact_plugin.traffic.sending import Sending, SendingError, batches, send_all
from impact_plugin.traffic.sent import TAKEN, Sent, load_sent, save_sent
from impact_plugin.traffic.shapes import SENDERS, Shape, Via

NOT_TAKEN: Final = 1
MOST_BATCH: Final = 2000
DEFAULT_BATCH: Final[dict[Via, int]] = {"processor": 100, "router": 20, "proxy": 1, "segment": 100, "webhook": 100}


@dataclass(frozen=True)
class To:
    """Where and how events are sent.

    Parameters
    ----------
    send
        Send the events to the service at this address, http://HOST:PORT, instead of telling what becomes of them.
    via
        By the Segment HTTP API or the source's webhook, which deliver; or as rudder-server asks for a transformation
        (processor, router: nothing is delivered), or has it delivered (proxy).
    key
        The source's key, for segment and webhook.
    source
        The source's name, for webhook.
    batch
        Events in a request; default 100, as a router 20, by proxy 1.
    patience
        Give up when the service took nothing for so many seconds.
    pseudonyms
        Send recordings of ours too, though they have pseudonyms in the place of persons.
    anywhere
        Allow an address that is not this machine.
    """

    send: str | None = None
    via: Via = "segment"
    key: Key = field(default="", repr=False)
    source: str = ""
    batch: Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=MOST_BATCH))] = None
    patience: Annotated[float, Parameter(validator=validators.Number(gte=0))] = 120.0
    pseudonyms: Flag = False
    anywhere: Flag = False


NOWHERE: Final = To()


@dataclass(frozen=True)
class _Errand:
    """Files, where they go, and the file that keeps how far it is."""

    files: Sequence[Path]
    to: To
    shape: Shape
    resume: Path | None
    names: list[tuple[str, int, str]]
    """As the files were at the beginning: another of the same name may take the place of one meanwhile."""

    target: tuple[str, ...]

    def begin(self) -> Sent:
        """How far it is."""
        return Sent() if self.resume is None else load_sent(self.resume, self.names, self.target)

    def keep(self, sent: Sent) -> None:
        """Write down how far it is, where that is wanted."""
        if self.resume is not None:
            save_sent(self.resume, self.names, self.target, sent)

    def check(self, traffic: Traffic) -> None:
        """Whether what was read is all there is; raises :class:`SendingError`."""
        for file in traffic.cut_off:
            raise SendingError(f"{file}: is cut off; what can be read of it was sent, its end was not")
        try:
            same = fingerprints(self.files) == self.names
        except ReadingError:
            same = False
        if not same:
            raise SendingError("a file was changed while it was sent; send what it is now as a file of its own")


def send_again(
    files: Sequence[Path],
    to: To,
    destination: Path | None,
    resume: Path | None,
    look: Output,
    interrupted: Sequence[int],
) -> int:
    """Send everything, or go on where a sending stopped; returns the exit code."""
    _refuse_recordings(files, to)
    shape = _shape(to, destination)
    errand = _Errand(files, to, shape, resume, fingerprints(files), _target(shape))
    sent = errand.begin()
    if sent.complete:
        look.line(f"everything was sent; delete {resume} to send it once more")
        _tell(look, sent, shape, 0.0)
        return _ended(look, resume, sent, "")
    # What cannot be written down must show before the first event is sent, not after.
    errand.keep(sent)
    began, problem = perf_counter(), ""
    try:
        sent.complete = asyncio.run(_send(errand, sent, look, interrupted))
    except (SendingError, ReadingError) as error:
        problem = str(error)
    errand.keep(sent)
    _tell(look, sent, shape, perf_counter() - began, problem)
    return _ended(look, resume, sent, problem)


async def _send(errand: _Errand, sent: Sent, look: Output, interrupted: Sequence[int]) -> bool:
    traffic = Traffic(errand.files)
    first, began = sent.events, perf_counter()

    def stopping() -> bool:
        return bool(interrupted)

    with look.progress("sending", traffic.total) as advance:

        def taken() -> None:
            errand.keep(sent)
            rate = (sent.events - first) / max(perf_counter() - began, 1e-9)
            advance(traffic.done, f"{sent.events:,} events, {rate:,.0f}/s")

        async with aclosing(Sending(errand.shape, sent, patience=errand.to.patience, stopping=stopping)) as sending:
            pending = batches(traffic, errand.shape.batch, sent.events, stopping, pseudonyms=errand.to.pseudonyms)
            whole = await send_all(pending, sending, taken)
    if whole:
        errand.check(traffic)
    return whole


def _shape(to: To, destination: Path | None) -> Shape:
    address = address_of("--send", to.send, to.via, anywhere=to.anywhere)
    if to.via not in SENDERS and destination is None:
        raise InputError(f"--destination: is needed with --via {to.via}: the configuration the events go to")
    if to.via == "proxy" and to.batch not in (None, 1):
        raise InputError("--batch: goes without --via proxy, which delivers one event after the other")
    shape = shape_of(to.via, address, destination, to.batch or DEFAULT_BATCH[to.via], to.key, to.source)
    if "destinations" in shape.config:
        raise InputError(f"{destination}: is a file of the service; --destination takes one destination with --send")
    return shape


def _target(shape: Shape) -> tuple[str, ...]:
    """Where the events go; the key and the destination, which say whose they are, as digests."""
    whose = shape.key.encode(), msgspec.json.encode(shape.config, order="deterministic")
    return shape.via, shape.host, shape.source, *(sha256(one).hexdigest()[:16] for one in whose)


def _refuse_recordings(files: Sequence[Path], to: To) -> None:
    for file in files:
        if not to.pseudonyms and is_recording(file):
            raise InputError(
                f"{file}: is a recording of ours, and would bring pseudonyms to impact.com instead of customers; "
                "send an export, or allow it with --pseudonyms"
            )


def _tell(look: Output, sent: Sent, shape: Shape, seconds: float, problem: str = "") -> None:
    look.line(f"{sent.events:,} events sent to {shape.host} by {shape.via}; this run took {seconds:.1f} s", "bold")
    rows = [(ending, f"{count:,}", "; ".join(sent.examples.get(ending, [])[:1])) for ending, count in _ranked(sent)]
    look.table(("ended", "events", "example"), rows)
    if sent.repeats:
        look.line(f"{sent.repeats:,} requests went out again: the service did not take them at once")
    if sent.endings.get("duplicate"):
        look.line("duplicates were here before; those that were refused then are dead letters (dead-letters list)")
    if shape.via in ("processor", "router"):
        look.line("only transformed: a router delivers what it gets back, this command does not")
    run = {"via": shape.via, "target": shape.host, "seconds": round(seconds, 3), "problem": problem}
    look.result({**msgspec.structs.asdict(sent), **run})


def _ranked(sent: Sent) -> list[tuple[str, int]]:
    """What is left to do about comes last, where it is read."""
    return sorted(sent.endings.items(), key=lambda item: (item[0] not in TAKEN, -item[1]))


def _ended(look: Output, resume: Path | None, sent: Sent, problem: str) -> int:
    go_on = "with --resume FILE it could go on from here; from the beginning the service knows what it had"
    if resume is not None:
        go_on = f"go on with the same command and --resume {resume}"
    if problem:
        look.line(f"{problem}; {go_on}", "bold")
        return NOT_TAKEN
    if not sent.complete:
        look.line(f"interrupted; {go_on}")
        return INTERRUPTED
    return NOT_TAKEN if sent.lost else 0
