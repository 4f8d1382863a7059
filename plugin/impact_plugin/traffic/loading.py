"""A load test: recorded events become requests, which are sent, judged and reported."""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final

import msgspec
from anyio import fail_after

from impact_plugin.errors import ImpactPluginError
from impact_plugin.traffic.client import HttpReply, connect
from impact_plugin.traffic.driver import PERCENTILES, Driver, Histogram, LoadOutcome, LoadStep, Second
from impact_plugin.traffic.reading import RecordedDestination, Traffic
from impact_plugin.traffic.report import TROUBLE, Bar, ReportPage, Series
from impact_plugin.traffic.shapes import Shape, Shaped, marked, outputs, shape_all, shape_proxied, shifted
from impact_transformers import UndecodableEventError, decode_object

MAX_EVENTS: Final = 200_000
MAX_BYTES: Final = 512 * 1024 * 1024
"""Size of all requests, which stay in memory and are sent many times."""

MILLISECONDS: Final = 1e3
TRANSFORM_SECONDS: Final = 30.0
GROWTH: Final = 1.6
BISECTIONS: Final = 4
KEPT_UP: Final = 0.97
"""The share of the intended requests that must succeed in a step for the service to have kept up."""


class LoadError(ImpactPluginError):
    """The load test cannot run; the message says why."""


class Tried(msgspec.Struct, frozen=True):
    """One step of the search for the limit: rates in requests a second, the 99th percentile in seconds."""

    rate: float
    succeeded: float
    p99: float
    failed: float
    kept_up: bool


def read_events(traffic: Traffic, most: int) -> list[dict[str, Any]]:
    """Decode the first events of the files; raises :class:`LoadError` if there are none."""
    traffic.whole = True
    events = []
    for subject in traffic:
        if isinstance(subject, RecordedDestination):
            continue
        try:
            events.append(decode_object(subject.message))
        except UndecodableEventError:
            continue
        if len(events) >= min(most, MAX_EVENTS):
            break
    if not events:
        raise LoadError("FILES: hold no events")
    return events


async def shape_traffic(
    events: Sequence[dict[str, Any]], shape: Shape, address: tuple[str, int], *, shift: bool
) -> list[Shaped]:
    """Make the requests; for deliveries the running service transforms the events first."""
    moved = shifted(events, datetime.now(UTC)) if shift else list(events)
    renewed = [marked(event, place) for place, event in enumerate(moved)]
    now = shape.now or time.time()
    if shape.via == "proxy":
        transformed = msgspec.structs.replace(shape, via="processor", batch=100, now=now)
        shaped = shape_proxied(await _transformed(shape_all(renewed, transformed), address), shape)
    else:
        shaped = shape_all(renewed, msgspec.structs.replace(shape, now=now))
    kept, size = [], 0
    for one in shaped:
        size += len(one.template)
        if size > MAX_BYTES:
            break
        kept.append(one)
    return kept


async def _transformed(requests: Iterator[Shaped], address: tuple[str, int]) -> list[dict[str, Any]]:
    """Have the service transform the events, since a delivery is of its own request objects."""
    connection = await connect(*address)
    if isinstance(connection, str):
        raise LoadError(f"--url: no service at {address[0]}:{address[1]} ({connection}); start it, or correct --url")
    found: list[dict[str, Any]] = []
    try:
        for one in requests:
            with fail_after(TRANSFORM_SECONDS):
                reply = await connection.exchange(one.template)
            if reply.status != 200:
                raise LoadError(f"--url: the service replied {reply.status or reply.fault} to a transformation")
            found += outputs(reply.body)
    except TimeoutError:
        raise LoadError(f"--url: no reply to a transformation within {TRANSFORM_SECONDS:g} s") from None
    finally:
        connection.close()
    if not found:
        raise LoadError("FILES: none of the events becomes a request; impact-plugin replay says why")
    return found


def endless(shaped: Sequence[Shaped]) -> Iterator[bytes]:
    """Yield the requests pass after pass, each pass with ids of its own."""
    for number in count():
        for one in shaped:
            yield one.of_pass(number)


def judge_transformer(reply: HttpReply) -> str:
    """Judge a reply as rudder-server does, which panics without the version, however good the rest is."""
    if not reply.status:
        return reply.fault
    if reply.status == 200 and b"apiversion: 2" not in reply.head:
        return "no apiVersion"
    return str(reply.status)


async def find_limit(
    driver: Driver, first: float, seconds: float, p99: float, report_step: Callable[[Tried], None]
) -> list[Tried]:
    """Raise the rate until the service falls behind, then narrow down the limit; steps last ``seconds``.

    ``p99`` is the 99th percentile in seconds above which the service has fallen behind.
    """
    tries: list[Tried] = []

    async def kept_up(rate: float) -> bool:
        outcome = await driver.run([LoadStep(rate, rate, seconds)])
        latency = outcome.latencies.percentile(99)
        succeeded = outcome.good / max(outcome.seconds, seconds)
        good = outcome.good >= KEPT_UP * outcome.intended and latency <= p99 and succeeded >= KEPT_UP * rate * 0.97
        tries.append(Tried(rate, succeeded, latency, outcome.share_failed, good))
        report_step(tries[-1])
        return good

    low, high = 0.0, first
    while await kept_up(high):
        low, high = high, high * GROWTH
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if await kept_up(middle):
            low = middle
        else:
            high = middle
    return tries


def limit_of(tries: Sequence[Tried]) -> float:
    """The highest rate at which the service kept up; 0 if it never did."""
    return max((one.rate for one in tries if one.kept_up), default=0.0)


def as_object(outcome: LoadOutcome, per_request: float, tries: Sequence[Tried] = ()) -> dict[str, Any]:
    """The result for programs; latencies in milliseconds."""
    return {
        "seconds": round(outcome.seconds, 3),
        "intended": outcome.intended,
        "succeeded": outcome.good,
        "requests_per_second": round(outcome.good / outcome.seconds, 1) if outcome.seconds else 0,
        "events_per_second": round(outcome.good * per_request / outcome.seconds, 1) if outcome.seconds else 0,
        "replies": dict(outcome.kinds),
        "latency_ms": percentiles(outcome.latencies),
        "latency_ms_by_reply": {kind: percentiles(histogram) for kind, histogram in outcome.by_kind.items()},
        "own_core_share": round(outcome.core_share, 3),
        "own_delay_p99_ms": round(outcome.late.percentile(99) * MILLISECONDS, 3),
        "limit": round(limit_of(tries), 1) if tries else None,
        "tries": [msgspec.to_builtins(one) for one in tries],
    }


def percentiles(latencies: Histogram) -> dict[str, float]:
    """Latencies in milliseconds by percentile."""
    shares = {f"p{share:g}": latencies.percentile(share) for share in PERCENTILES}
    return {name: round(seconds * MILLISECONDS, 3) for name, seconds in shares.items()}


REPLY_HEADS: Final = ("reply", "requests", *(f"p{share:g} ms" for share in PERCENTILES))


def reply_rows(outcome: LoadOutcome) -> list[tuple[str, ...]]:
    """Count the replies of each kind, with their latencies: a refusal at once is not a refusal after a minute."""
    return [
        (kind, f"{number:,}", *(f"{value:,.1f}" for value in percentiles(outcome.by_kind[kind]).values()))
        for kind, number in outcome.kinds.most_common()
    ]


def report(title: str, subtitle: str, outcome: LoadOutcome, per_request: float, tries: Sequence[Tried] = ()) -> str:
    """Make the HTML report."""
    page = ReportPage(title, subtitle)
    latency = percentiles(outcome.latencies) if outcome.good else {}
    rate = outcome.good / outcome.seconds if outcome.seconds else 0.0
    page.tiles(
        [
            ("requests a second", f"{rate:,.0f}"),
            ("events a second", f"{rate * per_request:,.0f}"),
            *((name, f"{latency[name]:,.1f} ms") for name in ("p50", "p99") if latency),
            ("failed", f"{outcome.share_failed:.2%}"),
            ("own share of a core", f"{outcome.core_share:.0%}"),
        ]
    )
    if tries:
        _add_limit(page, tries)
    if len(outcome.timeline) > 1:
        _add_time(page, outcome)
    if latency:
        page.heading(
            "Latency by percentile", "Of successful requests: p99 is the latency that 99% of them do not exceed."
        )
        page.bars([Bar(name, value, colour="c2") for name, value in latency.items()], " ms")
    page.heading("Replies", "By status, or by the fault instead of a reply.")
    page.bars(
        [Bar(kind, times, "", "c5" if kind[0] == "2" else TROUBLE) for kind, times in outcome.kinds.most_common()]
    )
    if len(outcome.kinds) > 1:
        page.table(REPLY_HEADS, reply_rows(outcome))
    late = outcome.late.percentile(99) * MILLISECONDS
    note = f"It used {outcome.core_share:.0%} of a core; 99% of its requests left at most {late:.2f} ms late."
    page.heading("The load generator", note)
    return page.html()


def _add_limit(page: ReportPage, tries: Sequence[Tried]) -> None:
    page.heading("The limit", f"The service kept up with {limit_of(tries):,.0f} requests a second.")
    rows = [_tried_row(one) for one in sorted(tries, key=lambda one: one.rate)]
    page.table(("rate", "succeeded/s", "p99 ms", "failed", "kept up"), rows)


def _add_time(page: ReportPage, outcome: LoadOutcome) -> None:
    """Draw outcome and latency of each second's requests."""
    seconds = outcome.timeline
    points = [f"{number} s" for number in range(len(seconds))]
    page.heading("Requests a second", "By their intended start.")
    page.lines(
        points,
        [
            # If all goes well these two are the same line.
            Series("intended", tuple(float(one.intended) for one in seconds), "c1", broad=True),
            Series("succeeded", tuple(float(one.succeeded) for one in seconds), "c1"),
            Series("failed", tuple(float(one.failed) for one in seconds), TROUBLE),
        ],
    )
    if not outcome.good:
        return
    page.heading("Latency", "Of successful requests, from the intended start.")
    shares = ((50.0, "p50", "c2"), (99.0, "p99", "c5"))
    page.lines(
        points,
        [
            Series(name, tuple(_latency(one, share) for one in seconds), colour, peaks=True)
            for share, name, colour in shares
        ],
        " ms",
    )


def _latency(second: Second, share: float) -> float | None:
    """In milliseconds; None if no request succeeded, since 0 would be the best of all."""
    return second.latencies.percentile(share) * MILLISECONDS if second.latencies.total else None


def _tried_row(one: Tried) -> tuple[str, str, str, str, str]:
    kept_up = "yes" if one.kept_up else "no"
    return f"{one.rate:,.0f}", f"{one.succeeded:,.0f}", f"{one.p99 * MILLISECONDS:,.1f}", f"{one.failed:.2%}", kept_up
