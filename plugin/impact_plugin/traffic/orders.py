"""The orders, leads and installs of a replay, each counted once: sent, sent again, missing, or of a doubtful amount.

Memory is bounded. Of the orders that were sent, at least the last half of :data:`MAX_REMEMBERED` are remembered, by
digests: an order that comes again after more orders than that counts as another one, and ``forgets`` says that this
can have happened. Of missing and of doubtful orders the first :data:`MAX_NAMED` each are named; the others are only
counted, and a missing one is then counted even if it is sent later.
"""

import hashlib
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import chain
from typing import Final, TypeVar

import msgspec

from impact_plugin.delivery.pipeline import OrderIdentity
from impact_transformers import Notice, NoticeReason
from impact_transformers.normalize import redact_emails

MAX_REMEMBERED: Final = 1_000_000
MAX_NAMED: Final = 20_000

Key = TypeVar("Key")

GUESSES: Final = frozenset({NoticeReason.AMOUNTS_DISAGREE, NoticeReason.AMOUNT_AMBIGUOUS})
"""Notices about an amount that had to be guessed; ``orderAmount`` settles most of them."""

DOUBTS: Final = GUESSES | {
    NoticeReason.AMOUNT_UNREADABLE,
    NoticeReason.AMOUNT_MISSING,
    NoticeReason.AMOUNT_NEGATIVE,
    NoticeReason.CURRENCY_MISSING,
}
"""Notices for which an order that is sent needs your attention."""


class OrderSum(msgspec.Struct):
    """How many orders, and what they are worth in hundredths of their currency."""

    orders: int = 0
    cents: int = 0

    def add(self, cents: int | None) -> None:
        """Count one order; None is worth nothing that is known."""
        self.orders += 1
        self.cents += cents or 0

    @property
    def amount(self) -> Decimal:
        """The sum in units of the currency."""
        return in_units(self.cents)


class FlaggedOrder(msgspec.Struct, frozen=True):
    """One order that needs your attention: the number and the message id of its event, its id, and why.

    ``cents`` is None if nothing says what the order is worth; ``currency`` is empty if it names none. ``outcome`` is
    filtered, rejected, pageload for an order that went out as a visit, or conversions.
    """

    event: int
    message_id: str
    destination: str
    order_id: str
    cents: int | None
    currency: str
    outcome: str
    reason: str
    detail: str

    @property
    def amount(self) -> Decimal | None:
        """What the order is worth, in units of the currency."""
        return None if self.cents is None else in_units(self.cents)


class OrderTally(msgspec.Struct):
    """The orders so far; sums are by currency, and those of missing and doubtful orders also by outcome and reason."""

    sent: dict[str, OrderSum] = {}
    repeated: dict[str, OrderSum] = {}
    changed: int = 0
    doubtful: list[FlaggedOrder] = []
    doubtful_sums: dict[tuple[str, str, str], OrderSum] = {}
    guessed: int = 0
    forgets: bool = False
    missing: dict[bytes, FlaggedOrder] = {}
    unnamed: dict[tuple[str, str, str], OrderSum] = {}
    recent: dict[bytes, int | None] = {}
    earlier: dict[bytes, int | None] = {}

    def add_sent(
        self,
        identity: OrderIdentity | None,
        order: FlaggedOrder,
        notices: Iterable[Notice],
        limit: int = MAX_REMEMBERED,
    ) -> None:
        """Count an order that is sent; one with the identity of an earlier one is a repeat.

        ``order`` describes it in case that its amount is doubtful; its outcome, reason and detail do not matter.
        """
        if identity is not None:
            key = _digest(*msgspec.structs.astuple(identity))
            if self._is_remembered(key):
                self._add_repeat(key, order)
                return
            self._remember(key, order.cents, limit)
            self.missing.pop(key, None)
        _sum(self.sent, order.currency).add(order.cents)
        self._add_doubts(order, [notice for notice in notices if notice.reason in DOUBTS])

    def add_missing(self, identity: OrderIdentity | None, order: FlaggedOrder) -> None:
        """Count an order that is not sent, unless it was sent before or is missing already.

        Without an identity it is another order if it comes with another message.
        """
        message = order.message_id or f"event {order.event}"
        facts = ("message", order.destination, message) if identity is None else msgspec.structs.astuple(identity)
        key = _digest(*facts)
        if self._is_remembered(key) or key in self.missing:
            return
        if len(self.missing) < MAX_NAMED:
            self.missing[key] = order
        else:
            _sum(self.unnamed, (order.outcome, order.reason, order.currency)).add(order.cents)

    @property
    def missing_sums(self) -> dict[tuple[str, str, str], OrderSum]:
        """The money at risk: missing orders by outcome, reason and currency, the largest sums first."""
        sums = {key: OrderSum(one.orders, one.cents) for key, one in self.unnamed.items()}
        for order in self.missing.values():
            _sum(sums, (order.outcome, order.reason, order.currency)).add(order.cents)
        return dict(sorted(sums.items(), key=lambda item: (-item[1].cents, -item[1].orders, item[0])))

    @property
    def missing_by_currency(self) -> dict[str, OrderSum]:
        """The money at risk by currency alone."""
        sums: dict[str, OrderSum] = {}
        for (_, _, currency), one in self.missing_sums.items():
            whole = _sum(sums, currency)
            whole.orders, whole.cents = whole.orders + one.orders, whole.cents + one.cents
        return sums

    @property
    def flagged(self) -> Iterator[FlaggedOrder]:
        """The orders that are named: those that are missing, then those of a doubtful amount."""
        return chain(self.missing.values(), self.doubtful)

    def _add_repeat(self, key: bytes, order: FlaggedOrder) -> None:
        _sum(self.repeated, order.currency).add(order.cents)
        if order.cents != self.recent.get(key, self.earlier.get(key)):
            self.changed += 1

    def _add_doubts(self, order: FlaggedOrder, doubts: list[Notice]) -> None:
        if not doubts:
            return
        self.guessed += any(notice.reason in GUESSES for notice in doubts)
        for reason in dict.fromkeys(notice.reason for notice in doubts):
            _sum(self.doubtful_sums, ("conversions", str(reason), order.currency)).add(order.cents)
        if len(self.doubtful) < MAX_NAMED:
            reasons = ", ".join(dict.fromkeys(notice.reason for notice in doubts))
            details = "; ".join(dict.fromkeys(notice.detail for notice in doubts if notice.detail))
            self.doubtful.append(
                msgspec.structs.replace(order, outcome="conversions", reason=reasons, detail=redact_emails(details))
            )

    def _is_remembered(self, key: bytes) -> bool:
        return key in self.recent or key in self.earlier

    def _remember(self, key: bytes, cents: int | None, limit: int) -> None:
        if len(self.recent) >= limit // 2:
            self.forgets |= bool(self.earlier)
            self.earlier, self.recent = self.recent, {}
        self.recent[key] = cents


def in_units(cents: int) -> Decimal:
    """Hundredths as units with two decimals."""
    return Decimal(cents).scaleb(-2)


def _sum(sums: dict[Key, OrderSum], key: Key) -> OrderSum:
    return sums.setdefault(key, OrderSum())


def _digest(*facts: str) -> bytes:
    return hashlib.blake2b("\x1f".join(facts).encode("utf-8", "surrogatepass"), digest_size=16).digest()
