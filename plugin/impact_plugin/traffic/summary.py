"""What a replay came to, as rows for a table, as one object, and as a report."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any, Final

from impact_plugin.traffic.replay import HOUR_MS, Comparison, Sums
from impact_plugin.traffic.report import Page, Series, ranked
from impact_transformers import NOTICES, REASONS, Notice, Reason

PATHS: Final = ("clicks", "pageload", "conversions")
ENDINGS: Final = ("skip", "reject")


def funnel(sums: Sums) -> list[tuple[str, int]]:
    """From what was received to what would be handed over."""
    mapped = sum(sums.outcomes.values())
    endings = {ending: sums.total_of(ending) for ending in ENDINGS}
    return [
        ("received", sums.received),
        ("at their destinations", mapped),
        ("mapped", mapped - endings["reject"] - endings["skip"]),
        *((f"  {path}", sums.total_of(path)) for path in PATHS),
        ("skipped", endings["skip"]),
        ("rejected", endings["reject"]),
    ]


def reasons(sums: Sums) -> list[tuple[str, str, int, str, str, str]]:
    """Why events were skipped or rejected, most frequent first: outcome, reason, count, meaning, fix, an example."""
    counts: Counter[tuple[str, str]] = Counter()
    for (_, outcome, reason), count in sums.outcomes.items():
        if outcome in ENDINGS:
            counts[outcome, reason] += count
    rows = []
    for (outcome, reason), count in counts.most_common():
        facts = REASONS[Reason(reason)]
        example = next(iter(sums.examples.get(reason, [])), "")
        rows.append((outcome, str(reason), count, facts.meaning, facts.fix, example))
    return rows


def as_object(sums: Sums, seconds: float, comparison: Comparison | None) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "received": sums.received,
        "seconds": round(seconds, 3),
        "funnel": {name.strip(): count for name, count in funnel(sums)},
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
    """What would change, the most frequent first: before, after, parameters, count, an example."""
    kinds = sorted(comparison.changes.values(), key=lambda change: -change.count)
    return [
        (kind.before, kind.after, ", ".join(kind.parameters), kind.count, "; ".join(kind.examples[:1]))
        for kind in kinds
    ]


def report(files: str, sums: Sums, seconds: float, comparison: Comparison | None) -> str:
    """The report as a page."""
    page = Page("Replay", f"{files}, {sums.received:,} events in {seconds:.1f} s. Nothing was sent.")
    page.tiles(
        [
            ("events", f"{sums.received:,}"),
            ("requests", f"{sums.sent:,}"),
            ("conversions", f"{sums.total_of('conversions'):,}"),
            ("unique clicks", f"{sums.total_of('clicks'):,}"),
            ("rejected", f"{sums.total_of('reject'):,}"),
        ]
    )
    if comparison is not None:
        _add_changes(page, comparison)
    page.heading("From event to request")
    page.bars([(name, count) for name, count in funnel(sums)])
    _add_reasons(page, sums)
    _add_time(page, sums)
    _add_orders(page, sums)
    if sums.notices:
        page.heading("Notices", "Requests that were made and that somebody should know about.")
        page.table(
            ("notice", "requests", "meaning"),
            [(name, count, NOTICES[Notice(name)]) for name, count in sums.notices.most_common()],
        )
    return page.html()


def _add_changes(page: Page, comparison: Comparison) -> None:
    told = f"{comparison.changed:,} of {comparison.compared:,} events would become something else."
    page.heading("What the other configuration would change", told)
    if comparison.changes:
        page.table(("now", "then", "parameters", "events", "example"), change_rows(comparison))


def _add_reasons(page: Page, sums: Sums) -> None:
    found = reasons(sums)
    page.heading("Why not", "" if found else "Every event became a request.")
    if found:
        page.bars([(f"{reason} ({outcome})", count) for outcome, reason, count, *_ in found], colour="c3")
        page.table(("reason", "events", "meaning", "fix", "example"), [row[1:] for row in found])


def _add_time(page: Page, sums: Sums) -> None:
    hours = sorted({hour for hour, _ in sums.hours})
    if len(hours) < 2:
        return
    every = list(range(hours[0], hours[-1] + 1)) if hours[-1] - hours[0] < 24 * 400 else hours
    page.heading("Over time", "Requests an hour, by the time of the events.")
    series = [Series(path, tuple(float(sums.hours[hour, path]) for hour in every)) for path in (*PATHS, "reject")]
    page.lines([_moment(hour) for hour in every], series)


def _moment(hour: int) -> str:
    return datetime.fromtimestamp(hour * HOUR_MS / 1000, UTC).strftime("%Y-%m-%d %H:00")


def _add_orders(page: Page, sums: Sums) -> None:
    page.heading("Clicks", "Candidates by decision: new is a unique click, replayed a message that was here before.")
    page.bars(ranked(sums.decisions), colour="c2")
    page.heading("Orders", "By their click id: carried by the event, stitched from an earlier click, or without.")
    page.bars(ranked(sums.orders), colour="c5")
    if sums.money:
        page.heading("Money", "Of the conversions, by currency, as impact.com would count it.")
        page.table(("currency", "amount"), list(sums.money.items()))
