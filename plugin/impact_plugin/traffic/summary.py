"""The result of a replay: as rows of a table, as one JSON document, and as an HTML report."""

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from impact_plugin.traffic.comparison import Comparison
from impact_plugin.traffic.replay import HOUR_MS, Sums
from impact_plugin.traffic.report import TROUBLE, Bar, ReportPage, Series, ranked
from impact_transformers import NOTICES, REASONS, NoticeReason, Reason

PATHS: Final = ("clicks", "pageload", "conversions")
UNSENT: Final = ("filtered", "rejected")


def funnel(sums: Sums) -> list[tuple[str, int]]:
    """Count from the events received to their outcomes; an event counts once for each of its destinations."""
    return [
        ("received", sums.received),
        ("at their destinations", sum(sums.outcomes.values())),
        ("sent", sums.sent),
        *((f"  {path}", sums.total_of(path)) for path in PATHS),
        *((outcome, sums.total_of(outcome)) for outcome in UNSENT),
    ]


def reasons(sums: Sums) -> list[tuple[str, str, int, str, str, str]]:
    """Why events were filtered or rejected, most frequent first: outcome, reason, count, meaning, fix, an example."""
    counts: Counter[tuple[str, str]] = Counter()
    for (_, outcome, reason), count in sums.outcomes.items():
        if outcome in UNSENT:
            counts[outcome, reason] += count
    rows = []
    for (outcome, reason), count in counts.most_common():
        facts = REASONS[Reason(reason)]
        example = next(iter(sums.examples.get(reason, [])), "")
        rows.append((outcome, str(reason), count, facts.meaning, facts.fix, example))
    return rows


def as_object(sums: Sums, seconds: float, comparison: Comparison | None) -> dict[str, Any]:
    """Everything, for programs; the rows of the funnel in snake_case."""
    return {
        "received": sums.received,
        "seconds": round(seconds, 3),
        "funnel": {name.strip().replace(" ", "_"): count for name, count in funnel(sums)},
        "outcomes": [
            {"call": call, "outcome": outcome, "reason": reason, "events": count}
            for (call, outcome, reason), count in sorted(sums.outcomes.items())
        ],
        "clicks": dict(sums.decisions),
        "orders": dict(sums.orders),
        "notices": dict(sums.notices),
        "money": sums.money,
        "examples": sums.examples,
        "changes": None if comparison is None else _changes(comparison),
    }


def _changes(comparison: Comparison) -> dict[str, Any]:
    kinds = sorted(comparison.changes.values(), key=lambda change: -change.count)
    return {"compared": comparison.compared, "changed": comparison.changed, "kinds": kinds}


def change_rows(comparison: Comparison) -> list[tuple[str, str, str, int, str]]:
    """The changes, most frequent first: before, after, parameters, count, an example."""
    kinds = sorted(comparison.changes.values(), key=lambda change: -change.count)
    return [
        (kind.before, kind.after, ", ".join(kind.parameters), kind.count, "; ".join(kind.examples[:1]))
        for kind in kinds
    ]


def report(files: str, sums: Sums, seconds: float, comparison: Comparison | None) -> str:
    """Make the HTML report."""
    page = ReportPage("Replay", f"{files}: {sums.received:,} events in {seconds:.1f} s. Nothing left this machine.")
    page.tiles(
        [
            ("events", f"{sums.received:,}"),
            ("sent", f"{sums.sent:,}"),
            ("conversions", f"{sums.total_of('conversions'):,}"),
            ("unique clicks", f"{sums.total_of('clicks'):,}"),
            ("rejected", f"{sums.total_of('rejected'):,}"),
        ]
    )
    if comparison is not None:
        _add_changes(page, comparison)
    page.heading("From event to request")
    page.bars(_funnel_bars(sums))
    _add_reasons(page, sums)
    _add_time(page, sums)
    _add_orders(page, sums)
    if sums.notices:
        page.heading("Notices", "Requests that are sent and need your attention.")
        page.table(
            ("requests", "notice and meaning"),
            [(count, (name, NOTICES[NoticeReason(name)])) for name, count in sums.notices.most_common()],
        )
    return page.html()


def _funnel_bars(sums: Sums) -> list[Bar]:
    """The funnel with percentages; parts are indented, and filtered and rejected events have their own colours."""
    colours = {"filtered": "c3", "rejected": TROUBLE}
    rows = funnel(sums)
    whole = rows[1][1] or 1
    return [
        Bar(name.strip(), count, f"{count / whole:.1%}" if place > 1 else "", colours.get(name, "c1"), name[0] == " ")
        for place, (name, count) in enumerate(rows)
    ]


def _add_changes(page: ReportPage, comparison: Comparison) -> None:
    note = f"It would change {comparison.changed:,} of {comparison.compared:,} events."
    page.heading("What the other configuration would change", note)
    if comparison.changes:
        rows = [
            (count, (f"{now} → {then}", parameters, example))
            for now, then, parameters, count, example in change_rows(comparison)
        ]
        page.table(("events", "now → then, differing parameters, and an example"), rows)


def _add_reasons(page: ReportPage, sums: Sums) -> None:
    found = reasons(sums)
    page.heading("Filtered and rejected", "" if found else "Every event was sent.")
    if found:
        colours = {"filtered": "c3", "rejected": TROUBLE}
        page.bars([Bar(f"{reason} ({outcome})", count, "", colours[outcome]) for outcome, reason, count, *_ in found])
        rows = [(reason, (meaning, f"Fix: {fix}", example)) for _, reason, _, meaning, fix, example in found]
        page.table(("reason", "meaning, fix and an example"), rows)


def _add_time(page: ReportPage, sums: Sums) -> None:
    hours = sorted({hour for hour, _ in sums.hours})
    if len(hours) < 2:
        return
    every = list(range(hours[0], hours[-1] + 1)) if hours[-1] - hours[0] < 24 * 400 else hours

    def series(path: str, colour: str) -> Series:
        return Series(path, tuple(float(sums.hours[hour, path]) for hour in every), colour)

    page.heading(
        "Over time",
        "Events an hour by their own time (UTC), without those that have none. Rare ones have a chart of their own.",
    )
    moments = [_moment(hour) for hour in every]
    page.lines(moments, [series("pageload", "c1")])
    page.lines(moments, [series("clicks", "c2"), series("conversions", "c5"), series("rejected", TROUBLE)])


def _moment(hour: int) -> str:
    return datetime.fromtimestamp(hour * HOUR_MS / 1000, UTC).strftime("%Y-%m-%d %H:00")


def _add_orders(page: ReportPage, sums: Sums) -> None:
    page.heading(
        "Clicks",
        "Click candidates by decision. New: a unique click; repeat: within the click window of an earlier one; "
        "replayed: the same message as before.",
    )
    page.bars(ranked(sums.decisions, "c2"))
    page.heading("Orders", "By click id: carried by the event, stitched from an earlier click, or without one.")
    page.bars(ranked(sums.orders, "c5"))
    if sums.money:
        page.heading("Money", "Of the conversions by currency, as impact.com would count it.")
        page.table(("currency", "amount"), [(name, f"{Decimal(sum_):,}") for name, sum_ in sums.money.items()])
