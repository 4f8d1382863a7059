"""The result of a replay: as rows of a table, as one JSON document, and as an HTML report."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from impact_plugin.traffic.comparison import Comparison
from impact_plugin.traffic.orders import MAX_REMEMBERED, FlaggedOrder, OrderSum, OrderTally
from impact_plugin.traffic.replay import HOUR_MS, Sums
from impact_plugin.traffic.report import TROUBLE, Bar, ReportPage, Series, ranked
from impact_transformers import NOTICES, REASONS, NoticeReason, Reason

PATHS: Final = ("clicks", "pageload", "conversions")
UNSENT: Final = ("filtered", "rejected")
NO_CURRENCY: Final = "none"
"""Stands for the currency of orders that name none."""

OrderRow: TypeAlias = tuple[str, str, str, int, str]
"""Outcome, reason, currency, number of orders, and their amount."""


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


def order_rows(tally: OrderTally) -> list[OrderRow]:
    """What became of the orders, leads and installs: those that are sent, those sent again, and the missing ones."""
    sent = [("sent", "", currency, one) for currency, one in sorted(tally.sent.items())]
    again = [("sent again", "", currency, one) for currency, one in sorted(tally.repeated.items())]
    missing = [(outcome, reason, currency, one) for (outcome, reason, currency), one in tally.missing_sums.items()]
    return [
        (outcome, reason, currency or NO_CURRENCY, one.orders, f"{one.amount:,}")
        for outcome, reason, currency, one in (*sent, *again, *missing)
    ]


def worth(one: FlaggedOrder) -> str:
    """What an order is worth, in words."""
    return "unknown" if one.amount is None else f"{one.amount:,} {one.currency}".rstrip()


def order_changes(now: OrderTally, then: OrderTally) -> list[tuple[str, int, str, int, str]]:
    """Sums that would be others with another configuration: of sent and of missing orders, by currency."""
    rows = []
    for name, before, after in (
        ("sent", now.sent, then.sent),
        ("missing", now.missing_by_currency, then.missing_by_currency),
    ):
        for currency in sorted({*before, *after}):
            one, other = before.get(currency, OrderSum()), after.get(currency, OrderSum())
            if one != other:
                label = f"{name} {currency or NO_CURRENCY}"
                rows.append((label, one.orders, f"{one.amount:,}", other.orders, f"{other.amount:,}"))
    return rows


def order_warnings(tally: OrderTally) -> list[str]:
    """What you should know before you rely on the numbers of the orders."""
    warnings = []
    if tally.guessed:
        warnings.append(
            f"{tally.guessed:,} of {sum(one.orders for one in tally.sent.values()):,} orders are sent with an amount"
            " that orderAmount = auto had to guess; impact-plugin validate --orders FILE finds the setting that fits"
        )
    if tally.changed:
        orders = "1 order" if tally.changed == 1 else f"{tally.changed:,} orders"
        warnings.append(f"{orders} came again with another amount; impact.com books the first")
    if tally.forgets:
        warnings.append(
            f"more than {MAX_REMEMBERED // 2:,} different orders: a repeat after that many others counts as an order"
        )
    return warnings


def as_object(sums: Sums, seconds: float, comparison: Comparison | None, then: Sums | None = None) -> dict[str, Any]:
    """Everything, for programs; the rows of the funnel in snake_case.

    ``then`` are the sums with the other configuration of a comparison.
    """
    tally = sums.tally
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
        "money": {currency: str(one.amount) for currency, one in sorted(tally.sent.items()) if currency},
        "order_outcomes": [_order_row(row) for row in order_rows(tally)],
        "repeats_with_another_amount": tally.changed,
        "repeats_forgotten": tally.forgets,
        "missing_orders": [_flagged(one) for one in tally.missing.values()],
        "guessed_amounts": tally.guessed,
        "doubtful_orders": [_flagged(one) for one in tally.doubtful],
        "examples": sums.examples,
        "changes": None if comparison is None else _changes(comparison, then),
    }


def _order_row(row: OrderRow) -> dict[str, Any]:
    outcome, reason, currency, orders, amount = row
    amount = amount.replace(",", "")
    return {"outcome": outcome, "reason": reason, "currency": currency, "orders": orders, "amount": amount}


def _flagged(one: FlaggedOrder) -> dict[str, Any]:
    amount = None if one.amount is None else str(one.amount)
    shown = {name: getattr(one, name) for name in one.__struct_fields__ if name != "cents"}
    return {**shown, "amount": amount}


def _changes(comparison: Comparison, then: Sums | None) -> dict[str, Any]:
    kinds = sorted(comparison.changes.values(), key=lambda change: -change.count)
    outcomes = [] if then is None else [_order_row(row) for row in order_rows(then.tally)]
    return {"compared": comparison.compared, "changed": comparison.changed, "kinds": kinds, "order_outcomes": outcomes}


def change_rows(comparison: Comparison) -> list[tuple[str, str, str, int, str]]:
    """The changes, most frequent first: before, after, parameters, count, an example."""
    kinds = sorted(comparison.changes.values(), key=lambda change: -change.count)
    return [
        (kind.before, kind.after, ", ".join(kind.parameters), kind.count, "; ".join(kind.examples[:1]))
        for kind in kinds
    ]


def report(files: str, sums: Sums, seconds: float, comparison: Comparison | None, then: Sums | None = None) -> str:
    """Make the HTML report."""
    page = ReportPage("Replay", f"{files}: {sums.received:,} events in {seconds:.1f} s. Nothing left this machine.")
    page.tiles(
        [
            ("events", f"{sums.received:,}"),
            ("sent", f"{sums.sent:,}"),
            ("conversions", f"{sums.total_of('conversions'):,}"),
            ("unique clicks", f"{sums.total_of('clicks'):,}"),
            ("missing orders", f"{sum(one.orders for one in sums.tally.missing_sums.values()):,}"),
        ]
    )
    if comparison is not None:
        _add_changes(page, comparison, sums.tally, then)
    page.heading("From event to request")
    page.bars(_funnel_bars(sums))
    _add_reasons(page, sums)
    if sums.tally.sent or sums.tally.missing:
        _add_money(page, sums.tally)
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


def _add_changes(page: ReportPage, comparison: Comparison, now: OrderTally, then: Sums | None) -> None:
    note = f"It would change {comparison.changed:,} of {comparison.compared:,} events."
    page.heading("What the other configuration would change", note)
    if comparison.changes:
        rows = [
            (count, (f"{now} → {then}", parameters, example))
            for now, then, parameters, count, example in change_rows(comparison)
        ]
        page.table(("events", "now → then, differing parameters, and an example"), rows)
    changes = [] if then is None else order_changes(now, then.tally)
    if changes:
        page.table(("orders", "now", "amount now", "then", "amount then"), changes)


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


def _add_money(page: ReportPage, tally: OrderTally) -> None:
    page.heading(
        "Money",
        "Orders, leads and installs, each counted once, with the amount that impact.com books; what is filtered or "
        "rejected is the money at risk.",
    )
    rows = [
        ((outcome, reason), currency, orders, amount) for outcome, reason, currency, orders, amount in order_rows(tally)
    ]
    page.table(("outcome and reason", "currency", "orders", "amount"), rows)
    for warning in order_warnings(tally):
        page.note(warning)
    for title, note, flagged in (
        ("Missing orders", "No conversion reports them.", [*tally.missing.values()]),
        ("Doubtful amounts", "These orders are sent; look at what they are worth.", tally.doubtful),
    ):
        if flagged:
            page.heading(title, note)
            page.table(("event", "order", "amount"), [_flagged_cells(one) for one in flagged])


def _flagged_cells(one: FlaggedOrder) -> tuple[str, tuple[str, ...], str]:
    why = one.reason if one.outcome == "conversions" else f"{one.outcome} {one.reason}"
    return f"{one.event}", (one.order_id or "without an order id", why, one.detail), worth(one)
