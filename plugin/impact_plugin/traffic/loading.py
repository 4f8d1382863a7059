"""A load run put together: events of files, shaped into requests, driven, judged, and told."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final

import msgspec

from impact_plugin.errors import ImpactPluginError
from impact_plugin.traffic.client import HttpAnswer, connect
from impact_plugin.traffic.driver import PERCENTILES, Driver, Histogram, LoadOutcome, LoadStep, Second
from impact_plugin.traffic.reading import RecordedDestination, Traffic
from impact_plugin.traffic.report import TROUBLE, Bar, ReportPage, Series
from impact_plugin.traffic.shapes import Shape, Shaped, marked, outputs, shape_all, shape_proxied, shifted
from impact_transformers import UndecodableEventError, decode_object

MOST_EVENTS: Final = 200_000
MOST_BYTES: Final = 512 * 1024 * 1024
"""Of shaped requests, which are kept in memory and sent again and again."""

MILLISECONDS: Final = 1e3
TRANSFORM_SECONDS: Final = 30.0
GROWTH: Final = 1.6
BISECTIONS: Final = 4
KEPT_UP: Final = 0.97
"""The share of the intended requests that must be answered well within a step for the service to have kept up."""


class LoadError(ImpactPluginError):
    """The run cannot be made; the message says why."""


class Tried(msgspec.Struct, frozen=True):
    """One step of the search for the limit."""

    rate: float
    answered: float
    p99: float
    failed: float
    kept_up: bool


def read_events(traffic: Traffic, most: int) -> list[dict[str, Any]]:
    """The events of the files, decoded whole; raises :class:`LoadError` where there are none."""
    traffic.whole = True
    events = []
    for subject in traffic:
        if isinstance(subject, RecordedDestination):
            continue
        try:
            events.append(decode_object(subject.message))
        except UndecodableEventError:
            continue
        if len(events) >= min(most, MOST_EVENTS):
            break
    if not events:
        raise LoadError("the files hold no events")
    return events


async def shape_traffic(
    events: Sequence[dict[str, Any]], shape: Shape, address: tuple[str, int], *, shift: bool
) -> list[Shaped]:
    """The requests of all events; deliveries are made of what the running service transforms them to."""
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
        if size > MOST_BYTES:
            break
        kept.append(one)
    return kept


async def _transformed(requests: Iterator[Shaped], address: tuple[str, int]) -> list[dict[str, Any]]:
    """The request objects that the service makes of the events: a delivery is of what it made itself."""
    connection = await connect(*address)
    if isinstance(connection, str):
        raise LoadError(f"the service does not answer at {address[0]}:{address[1]} ({connection})")
    found: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    try:
        for one in requests:
            asked: asyncio.Future[HttpAnswer] = loop.create_future()
            connection.ask(one.template, asked.set_result, keep_body=True)
            answer = await asyncio.wait_for(asked, TRANSFORM_SECONDS)
            if answer.status != 200:
                raise LoadError(f"the service answers {answer.status or answer.trouble} to a transformation")
            found += outputs(answer.body)
    except TimeoutError:
        raise LoadError("the service does not answer a transformation in time") from None
    finally:
        connection.close()
    if not found:
        raise LoadError("none of the events becomes a request: see impact-plugin replay")
    return found


def endless(shaped: Sequence[Shaped]) -> Iterator[bytes]:
    """The requests again and again, every pass with ids of its own."""
    for number in count():
        for one in shaped:
            yield one.of_pass(number)


def judge_transformer(answer: HttpAnswer) -> str:
    """What rudder-server makes of an answer: without the version it panics, whatever else is good."""
    if not answer.status:
        return answer.trouble
    if answer.status == 200 and b"apiversion: 2" not in answer.head:
        return "no apiVersion"
    return str(answer.status)


async def find_limit(driver: Driver, first: float, seconds: float, p99: float, told: Any) -> list[Tried]:
    """Raise the rate until the service no longer keeps up, then close in on where that begins."""
    tries: list[Tried] = []

    async def kept_up(rate: float) -> bool:
        outcome = await driver.run([LoadStep(rate, rate, seconds)])
        latency = outcome.latencies.percentile(99)
        answered = outcome.good / max(outcome.seconds, seconds)
        good = outcome.good >= KEPT_UP * outcome.intended and latency <= p99 and answered >= KEPT_UP * rate * 0.97
        tries.append(Tried(rate, answered, latency, outcome.share_failed, good))
        told(tries[-1])
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
    """The highest rate at which the service kept up; 0 where it never did."""
    return max((one.rate for one in tries if one.kept_up), default=0.0)


def as_object(outcome: LoadOutcome, per_request: float, tries: Sequence[Tried] = ()) -> dict[str, Any]:
    """Everything, for programs; latencies in milliseconds."""
    return {
        "seconds": round(outcome.seconds, 3),
        "intended": outcome.intended,
        "answered_well": outcome.good,
        "requests_per_second": round(outcome.good / outcome.seconds, 1) if outcome.seconds else 0,
        "events_per_second": round(outcome.good * per_request / outcome.seconds, 1) if outcome.seconds else 0,
        "kinds": dict(outcome.kinds),
        "latency_ms": percentiles(outcome.latencies),
        "latency_ms_by_kind": {kind: percentiles(histogram) for kind, histogram in outcome.by_kind.items()},
        "own_core_share": round(outcome.core_share, 3),
        "own_delay_p99_ms": round(outcome.late.percentile(99) * MILLISECONDS, 3),
        "limit": round(limit_of(tries), 1) if tries else None,
        "tries": [msgspec.to_builtins(one) for one in tries],
    }


def percentiles(latencies: Histogram) -> dict[str, float]:
    """Latencies in milliseconds, by the share that was not later."""
    shares = {f"p{share:g}": latencies.percentile(share) for share in PERCENTILES}
    return {name: round(seconds * MILLISECONDS, 3) for name, seconds in shares.items()}


KIND_HEADS: Final = ("answer", "requests", *(f"p{share:g} ms" for share in PERCENTILES))


def kind_rows(outcome: LoadOutcome) -> list[tuple[str, ...]]:
    """How many answers of each kind there were, and how late they came; a failure that comes late is another one."""
    return [
        (kind, f"{number:,}", *(f"{value:,.1f}" for value in percentiles(outcome.by_kind[kind]).values()))
        for kind, number in outcome.kinds.most_common()
    ]


def report(title: str, subtitle: str, outcome: LoadOutcome, per_request: float, tries: Sequence[Tried] = ()) -> str:
    """The report as a page."""
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
        page.heading("Latency by percentile", "The share of good answers that were not later, in per cent.")
        page.bars([Bar(name, value, colour="c2") for name, value in latency.items()], " ms")
    page.heading("Answers", "By status, or by what happened instead.")
    page.bars(
        [Bar(kind, times, "", "c5" if kind[0] == "2" else TROUBLE) for kind, times in outcome.kinds.most_common()]
    )
    if len(outcome.kinds) > 1:
        page.table(KIND_HEADS, kind_rows(outcome))
    late = outcome.late.percentile(99) * MILLISECONDS
    told = f"It took {outcome.core_share:.0%} of a core, and was itself up to {late:.2f} ms late (p99)."
    page.heading("This side of the connections", told)
    return page.html()


def _add_limit(page: ReportPage, tries: Sequence[Tried]) -> None:
    page.heading("The limit", f"The service kept up with {limit_of(tries):,.0f} requests a second.")
    rows = [_tried_row(one) for one in sorted(tries, key=lambda one: one.rate)]
    page.table(("rate", "answered/s", "p99 ms", "failed", "kept up"), rows)


def _add_time(page: ReportPage, outcome: LoadOutcome) -> None:
    """What became of each second's requests, and how long they took."""
    seconds = outcome.timeline
    points = [f"{number} s" for number in range(len(seconds))]
    page.heading("Requests a second", "By their intended start.")
    page.lines(
        points,
        [
            # Where all goes well these two are the same line.
            Series("intended", tuple(float(one.intended) for one in seconds), "c1", broad=True),
            Series("answered well", tuple(float(one.answered) for one in seconds), "c1"),
            Series("failed", tuple(float(one.failed) for one in seconds), TROUBLE),
        ],
    )
    if not outcome.good:
        return
    page.heading("Latency", "Of good answers, from the intended start.")
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
    """In milliseconds; None where nothing was answered well: 0 would be the best there is."""
    return second.latencies.percentile(share) * MILLISECONDS if second.latencies.total else None


def _tried_row(one: Tried) -> tuple[str, str, str, str, str]:
    kept_up = "yes" if one.kept_up else "no"
    return f"{one.rate:,.0f}", f"{one.answered:,.0f}", f"{one.p99 * MILLISECONDS:,.1f}", f"{one.failed:.2%}", kept_up
