"""What recorded orders say about a configuration: which ``orderAmount`` fits them, and which names lack an entry."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec

from impact_plugin.config.validation import Finding
from impact_plugin.traffic.destinations import TrafficDestinations
from impact_plugin.traffic.reading import Traffic
from impact_plugin.traffic.replay import requests_of
from impact_plugin.transformation.reported_order import ReportedOrder
from impact_plugin.transformation.step import ReportFault, TransformStep
from impact_transformers import Track
from impact_transformers.advice import Advice, Fit, advise
from impact_transformers.conventions import AUTO
from impact_transformers.normalize import as_text, redact_emails
from impact_transformers.order import Order

MAX_ORDERS: Final = 20_000
"""Orders of one destination that are compared with the conventions; more tell nothing else."""

MAX_NAMES: Final = 50
"""Names of events that are counted for one destination."""

LONGEST_NAME: Final = 64
MIN_SHARE: Final = 0.25
"""Of the orders, the share that must say by themselves what they are worth before a setting is recommended."""


class OrderAdvice(msgspec.Struct, frozen=True):
    """What the orders at one destination say.

    ``guessed`` of them have an amount that the configured ``order_amount`` leaves in doubt. ``unnamed`` counts, by
    name, the tracks that look like an order and have no entry.
    """

    destination: str
    order_amount: str
    advice: Advice
    guessed: int
    unnamed: dict[str, int]

    @property
    def recommended(self) -> tuple[Fit, ...]:
        """The conventions that fit best, all alike, the plainest first; none if too few orders tell."""
        fits, advice = self.advice.fits, self.advice
        if not fits or advice.telling < advice.orders * MIN_SHARE:
            return ()
        return tuple(fit for fit in fits if fit.orders == fits[0].orders)

    @property
    def configured(self) -> Fit:
        """How many orders the configured convention fits."""
        found = next((fit.orders for fit in self.advice.fits if fit.convention == self.order_amount), 0)
        return Fit(self.order_amount, found)

    def share(self, fit: Fit) -> str:
        """The share of the telling orders that a convention fits, in percent."""
        return f"{fit.orders / self.advice.telling:.0%}" if self.advice.telling else ""


class _Collected:
    def __init__(self, order_amount: str) -> None:
        self.order_amount = order_amount
        self.orders: list[Order] = []
        self.guessed = 0
        self.unnamed: Counter[str] = Counter()

    def add(self, found: ReportedOrder, name: str) -> None:
        if not found.named and (name in self.unnamed or len(self.unnamed) < MAX_NAMES):
            self.unnamed[name] += 1
        if found.kind.kind == "action" and len(self.orders) < MAX_ORDERS:
            # The lines are summed already; without them an order is small.
            self.orders.append(msgspec.structs.replace(found.order, items=()))
            self.guessed += found.net is not None and found.net.doubt


def read_orders(traffic: Traffic, destinations: TrafficDestinations, report_fault: ReportFault) -> list[OrderAdvice]:
    """Read the orders of the traffic as each of their destinations reads them; raises :class:`ReadingError`."""
    step = TransformStep(report_fault, asks=False)
    collected: dict[str, _Collected] = {}
    for _, events in requests_of(traffic, [destinations]):
        for source in events:
            for known in destinations.of(source):
                prepared = (
                    step.read(source.message, known)
                    if source.event is None
                    else step.prepare(source.event, known, source.message)
                )
                found = step.order_of(prepared, source.message)
                if found is not None:
                    at = collected.setdefault(known.id, _Collected(found.config.order_amount))
                    at.add(found, _name(prepared.event))
    return [
        OrderAdvice(id_, one.order_amount, advise(one.orders), one.guessed, dict(one.unnamed.most_common()))
        for id_, one in collected.items()
    ]


def _name(event: object) -> str:
    name = as_text(event.event) if isinstance(event, Track) else None
    return redact_emails(name or type(event).__name__)[:LONGEST_NAME]


def findings_of(one: OrderAdvice, path: str) -> Iterator[Finding]:
    """Warnings about the configuration at ``path``."""
    for name, count in one.unnamed.items():
        message = (
            f"{name!r} has an order id and an amount in {count:,} of the recorded events, but no entry: "
            "if it is an order, name it here"
        )
        yield Finding("warning", f"{path}.actionEventNames", message)
    best = next(iter(one.recommended), None)
    if best is None:
        return
    fits = f'orderAmount = "{best.convention}" fits {one.share(best)} of those that tell what they are worth'
    if one.order_amount != AUTO and one.configured.orders < best.orders:
        message = f"{one.order_amount} fits {one.share(one.configured)} of the recorded orders, {fits}"
        yield Finding("warning", f"{path}.orderAmount", message)
    elif one.order_amount == AUTO and one.guessed:
        message = f"auto has to guess for {one.guessed:,} of {one.advice.orders:,} recorded orders; {fits}"
        yield Finding("warning", f"{path}.orderAmount", message)


def remarks_on(one: OrderAdvice) -> list[str]:
    """What the orders say, in sentences."""
    advice = one.advice
    remarks = [f"{advice.orders:,} orders, of which {advice.telling:,} tell by themselves what they are worth"]
    if not one.recommended:
        remarks.append("too few of them tell to recommend an orderAmount")
    others = [fit.convention for fit in one.recommended[1:]]
    if others:
        remarks.append(f"as many orders fit {', '.join(others[:4])}: these orders do not tell them apart")
    unknown = [
        name
        for name, seen in (("discount", advice.discounted), ("tax", advice.taxed), ("shipping", advice.shipped))
        if not seen
    ]
    if advice.telling and unknown:
        remarks.append(f"none of those has {' or '.join(unknown)}: how the shop writes that stays unknown")
    return remarks
