"""``impact-plugin load``: drive a running service with recorded traffic, and find out how much it takes."""

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from cyclopts import Parameter, validators

from impact_plugin.cli.inputs import Flag, InputError, write_text
from impact_plugin.cli.output import Output
from impact_plugin.cli.targets import Key, address_of, shape_of
from impact_plugin.traffic import loading
from impact_plugin.traffic.driver import Driver, LoadOutcome, LoadStep
from impact_plugin.traffic.reading import Traffic
from impact_plugin.traffic.shapes import SENDERS, Shape, Shaped, Via

FAILED: Final = 1
DEFAULT_BATCH: Final[dict[Via, int]] = {"processor": 100, "router": 20, "proxy": 1, "segment": 1, "webhook": 1}
MOST_RATE: Final = 100_000

Whole: TypeAlias = Annotated[int, Parameter(validator=validators.Number(gte=1))]
Positive: TypeAlias = Annotated[float, Parameter(validator=validators.Number(gt=0))]


async def load(  # noqa: PLR0913 - each is an option of the command
    *files: Path,
    destination: Annotated[Path | None, Parameter(name=["--destination", "-d"])] = None,
    via: Via = "processor",
    url: str | None = None,
    rate: str = "50",
    duration: Positive = 10.0,
    batch: Whole | None = None,
    connections: Whole = 100,
    key: Key = "",
    source: str = "",
    find_limit: Flag = False,
    p99_ms: Positive = 250.0,
    requests: Whole | None = None,
    most_events: Whole = 20_000,
    keep_times: Flag = False,
    anywhere: Flag = False,
    html: Path | None = None,
    json: Flag = False,
    quiet: Flag = False,
) -> int:
    """Send recorded events to a running service as a router or sender does, on a schedule that does not wait for it.

    The traffic is sent again and again, each pass with new ids, and with times moved to the present. Requests begin
    when the schedule says, and latency counts from then. Point the service at impact-plugin fake-impact first.

    Exit code 0: every request was answered well; 1: not every one; 2: the run could not be made.

    Parameters
    ----------
    files
        Recordings, exports or bodies, as for replay.
    destination
        The destination's configuration, for processor, router and proxy; default a demonstration account.
    via
        As rudder-server's processor, its router, its delivery by proxy; by the Segment HTTP API, or a webhook.
    url
        Address of the service; default the router's or the senders' port of this machine.
    rate
        Requests a second: a number; FROM-TO for a ramp; or steps, as 50:10,100:10,100-500:30 (rate:seconds).
    duration
        Seconds, for rates without their own.
    batch
        Events in a request; default as the router sends them, 1 for senders.
    connections
        At most so many at the same time.
    key
        The source's key, for segment and webhook.
    source
        The source's name, for webhook.
    find_limit
        Raise the rate until the service no longer keeps up, then close in; steps last --duration.
    p99_ms
        With --find-limit: more than this is not keeping up.
    requests
        So many requests in a closed loop instead of a schedule: each connection waits for its answer.
    most_events
        Read at most so many events of the files; they are kept in memory.
    keep_times
        Leave the times of events as they are recorded.
    anywhere
        Allow an address that is not this machine.
    html
        Write the report here.
    json
        Print one JSON object.
    quiet
        Print nothing.
    """
    if not files:
        raise InputError("load: name at least one file")
    look = Output(as_json=json, quiet=quiet)
    address = address_of("--url", url, via, anywhere=anywhere)
    shape = shape_of(via, address, destination, batch or DEFAULT_BATCH[via], key, source)
    events = loading.read_events(Traffic(files), most_events)
    shaped = await loading.shape_traffic(events, shape, address, shift=not keep_times)
    judge = None if via in SENDERS else loading.judge_transformer
    driver = Driver(*address, loading.endless(shaped), connections=connections, judge=judge)
    tries: list[loading.Tried] = []
    async with aclosing(driver):
        if find_limit:
            tries = await _search(driver, rate, duration, p99_ms, look)
            steps = [LoadStep(limit, limit, duration)] if (limit := loading.limit_of(tries)) else []
        else:
            steps = _steps(rate, duration)
        outcome = await _run(driver, steps, requests, connections, look)
    return _told(look, outcome, shaped, shape, tries, html)


async def _run(
    driver: Driver, steps: Sequence[LoadStep], requests: int | None, connections: int, look: Output
) -> LoadOutcome:
    if requests is not None:
        return await driver.run_closed(requests, connections)
    total = sum(step.seconds for step in steps)
    with look.progress("loading", total) as advance:
        return await driver.run(
            steps,
            lambda outcome: advance(len(outcome.timeline), f"{outcome.good:,} of {outcome.intended:,} answered well"),
        )


async def _search(driver: Driver, rate: str, duration: float, p99_ms: float, look: Output) -> list[loading.Tried]:
    first = _steps(rate, duration)[0].start

    def told(tried: loading.Tried) -> None:
        verdict = "kept up" if tried.kept_up else "did not keep up"
        look.line(f"{tried.rate:,.0f}/s: {verdict}, p99 {tried.p99 * 1000:,.1f} ms, {tried.failed:.2%} failed")

    return await loading.find_limit(driver, first, duration, p99_ms / 1000, told)


def _steps(text: str, duration: float) -> list[LoadStep]:
    """``50``, ``10-200``, or ``50:10,100-500:30``."""
    steps = []
    for part in text.split(","):
        rates, _, seconds = part.partition(":")
        start, _, end = rates.partition("-")
        try:
            step = LoadStep(float(start), float(end or start), float(seconds or duration))
        except ValueError:
            raise InputError(f"--rate: {part!r} is no RATE, FROM-TO or RATE:SECONDS") from None
        if not (0 < step.start <= MOST_RATE and 0 < step.end <= MOST_RATE and 0 < step.seconds <= 86_400):
            raise InputError(f"--rate: {part!r}: rates are above 0 and at most {MOST_RATE:,}, seconds at most a day")
        steps.append(step)
    return steps


def _told(
    look: Output,
    outcome: LoadOutcome,
    shaped: Sequence[Shaped],
    shape: Shape,
    tries: Sequence[loading.Tried],
    html: Path | None,
) -> int:
    per_request = sum(one.events for one in shaped) / len(shaped)
    found = loading.as_object(outcome, per_request, tries)
    if tries:
        look.line(f"limit: {found['limit']:,.0f} requests a second, {found['limit'] * per_request:,.0f} events", "bold")
    look.line(
        f"{outcome.good:,} of {outcome.intended:,} requests answered well, {found['requests_per_second']:,.0f}/s, "
        f"{found['events_per_second']:,.0f} events/s",
        "bold",
    )
    look.table(("latency", "ms"), list(found["latency_ms"].items()))
    look.table(loading.KIND_HEADS, loading.kind_rows(outcome))
    look.line(f"this command took {outcome.core_share:.0%} of a core, {found['own_delay_p99_ms']} ms late at p99")
    look.result(found)
    if html is not None:
        subtitle = f"{shape.via}, {per_request:g} event{'' if per_request == 1 else 's'} a request, to {shape.host}"
        write_text(html, loading.report("Load", subtitle, outcome, per_request, tries))
        look.line(f"report: {html}")
    return 0 if outcome.good == outcome.intended and outcome.intended else FAILED
