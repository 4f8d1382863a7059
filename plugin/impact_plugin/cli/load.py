"""``impact-plugin load``: drive a running service with recorded traffic, and measure how much it can take."""

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from cyclopts import Parameter, validators

from impact_plugin.cli.errors import CommandError
from impact_plugin.cli.exit_codes import DONE, FAILED
from impact_plugin.cli.options import Destination, Json, Quiet
from impact_plugin.cli.output import Output, counted, write_text
from impact_plugin.cli.target import Anywhere, SourceKey, SourceName, make_shape, parse_address
from impact_plugin.traffic import loading
from impact_plugin.traffic.driver import Driver, LoadOutcome, LoadStep
from impact_plugin.traffic.reading import Traffic
from impact_plugin.traffic.shapes import SENDERS, Shape, Shaped, Via
from impact_plugin.units import DAY_SECONDS

DEFAULT_BATCH: Final[dict[Via, int]] = {"processor": 100, "router": 20, "proxy": 1, "segment": 1, "webhook": 1}
MAX_RATE: Final = 100_000

Whole: TypeAlias = Annotated[int, Parameter(validator=validators.Number(gte=1))]
Positive: TypeAlias = Annotated[float, Parameter(validator=validators.Number(gt=0))]


async def load(  # noqa: PLR0913 - each is an option of the command
    *files: Path,
    destination: Destination = None,
    via: Via = "processor",
    url: str | None = None,
    rate: str = "50",
    duration: Positive = 10.0,
    batch: Whole | None = None,
    connections: Whole = 100,
    key: SourceKey = "",
    source: SourceName = "",
    find_limit: bool = False,
    p99_ms: Positive = 250.0,
    requests: Whole | None = None,
    max_events: Whole = 20_000,
    keep_times: bool = False,
    anywhere: Anywhere = False,
    html: Path | None = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Send recorded events to a running service as a router or sender would, at a rate that you choose.

    The schedule does not wait for the service: latency counts from the time at which a request was due. The traffic
    repeats, each pass with new ids, and its times move to the present. Point the service at impact-plugin fake-impact
    first, or it sends to impact.com.

    Exit code 0: every request succeeded; 1: some failed; 2: an option, a file or the service cannot be used.

    ```sh
    impact-plugin load monday.ndjson.gz --rate 50:10,100-500:30
    impact-plugin load monday.ndjson.gz --find-limit --html limit.html
    ```

    Parameters
    ----------
    files
        Recordings, exports or request bodies, as for replay.
    destination
        File with the destination's configuration, for processor, router and proxy; default a demonstration account.
    via
        Send as rudder-server's processor, its router or its delivery proxy; through the Segment HTTP API; or to a
        webhook.
    url
        Address of the service, http://HOST:PORT; default this machine's port for routers or for senders.
    rate
        Requests a second: a number; FROM-TO for a ramp; or steps of RATE:SECONDS, such as 50:10,100:10,100-500:30.
    duration
        Seconds for each rate that names none.
    batch
        Events in a request; default 100, 20 as a router, 1 by proxy and as a sender.
    connections
        Connections open at the same time, at most.
    find_limit
        Raise the rate until the service falls behind, then narrow down the limit; each step lasts --duration.
    p99_ms
        With --find-limit: the 99th percentile in milliseconds above which the service has fallen behind.
    requests
        Send this many requests in a closed loop instead: each connection waits for its reply.
    max_events
        Read this many events at most; they are kept in memory.
    keep_times
        Leave the times of events as recorded.
    html
        File for an HTML report.
    """
    if not files:
        raise CommandError("FILES: name at least one file of events")
    output = Output(as_json=json, quiet=quiet)
    address = parse_address(url, via, anywhere=anywhere)
    shape = make_shape(via, address, destination, batch or DEFAULT_BATCH[via], key, source)
    events = loading.read_events(Traffic(files), max_events)
    shaped = await loading.shape_traffic(events, shape, address, shift=not keep_times)
    judge = None if via in SENDERS else loading.judge_transformer
    driver = Driver(*address, loading.endless(shaped), connections=connections, judge=judge)
    tries: list[loading.Tried] = []
    async with aclosing(driver):
        if find_limit:
            tries = await _search(driver, rate, duration, p99_ms, output)
            steps = [LoadStep(limit, limit, duration)] if (limit := loading.limit_of(tries)) else []
        else:
            steps = _steps(rate, duration)
        outcome = await _run(driver, steps, requests, connections, output)
    return _report(output, outcome, shaped, shape, tries, html)


async def _run(
    driver: Driver, steps: Sequence[LoadStep], requests: int | None, connections: int, output: Output
) -> LoadOutcome:
    if requests is not None:
        return await driver.run_closed(requests, connections)
    total = sum(step.seconds for step in steps)
    with output.progress("loading", total) as advance:
        return await driver.run(
            steps,
            lambda outcome: advance(len(outcome.timeline), f"{outcome.good:,} of {outcome.intended:,} succeeded"),
        )


async def _search(driver: Driver, rate: str, duration: float, p99_ms: float, output: Output) -> list[loading.Tried]:
    first = _steps(rate, duration)[0].start

    def report(tried: loading.Tried) -> None:
        verdict = "kept up" if tried.kept_up else "fell behind"
        output.line(f"{tried.rate:,.0f}/s: {verdict}, p99 {tried.p99 * 1000:,.1f} ms, {tried.failed:.2%} failed")

    return await loading.find_limit(driver, first, duration, p99_ms / 1000, report)


def _steps(text: str, duration: float) -> list[LoadStep]:
    """Parse ``50``, ``10-200`` or ``50:10,100-500:30``."""
    steps = []
    for part in text.split(","):
        rates, _, seconds = part.partition(":")
        start, _, end = rates.partition("-")
        try:
            step = LoadStep(float(start), float(end or start), float(seconds or duration))
        except ValueError:
            raise CommandError(f"--rate: {part!r} must be RATE, FROM-TO or RATE:SECONDS") from None
        if not (0 < step.start <= MAX_RATE and 0 < step.end <= MAX_RATE and 0 < step.seconds <= DAY_SECONDS):
            raise CommandError(
                f"--rate: {part!r}: a rate must be above 0 and at most {MAX_RATE:,}, and last a day at most"
            )
        steps.append(step)
    return steps


def _report(
    output: Output,
    outcome: LoadOutcome,
    shaped: Sequence[Shaped],
    shape: Shape,
    tries: Sequence[loading.Tried],
    html: Path | None,
) -> int:
    per_request = sum(one.events for one in shaped) / len(shaped)
    found = loading.as_object(outcome, per_request, tries)
    if tries:
        limit = found["limit"]
        output.line(f"limit: {limit:,.0f} requests a second, {limit * per_request:,.0f} events a second", "bold")
    output.line(
        f"{outcome.good:,} of {counted(outcome.intended, 'request')} succeeded, "
        f"{found['requests_per_second']:,.0f} a second, {found['events_per_second']:,.0f} events a second",
        "bold",
    )
    output.table(("latency", "ms"), list(found["latency_ms"].items()))
    output.table(loading.REPLY_HEADS, loading.reply_rows(outcome))
    output.line(
        f"this command used {outcome.core_share:.0%} of a core; "
        f"99% of its requests left at most {found['own_delay_p99_ms']} ms late"
    )
    output.result(found)
    if html is not None:
        plural = "" if per_request == 1 else "s"
        subtitle = f"{shape.via}, {per_request:g} event{plural} a request, to {shape.host}"
        write_text(html, loading.report("Load", subtitle, outcome, per_request, tries))
        output.line(f"report: {html}")
    return DONE if outcome.good == outcome.intended and outcome.intended else FAILED
