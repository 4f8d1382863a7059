"""The port of the ledger of conversions, and its rules: what must be known of an order so that it is never sent twice.

An attempt is begun before its first byte and settled after its answer. Between the two it is in flight. What is left of
an order is whether it was delivered; since when its outcome is unknown, which is the time of its first attempt that was
written and not answered; and the attempt in flight. An attempt whose process died, or whose lease ran out, is one
without an answer: its bytes may have been written.

The name of an attempt is unique, so that an outcome, or a begin that is repeated, concerns that very attempt.

An attempt that came to nothing takes back no earlier one of unknown outcome, and nothing takes back a delivery. Times
are milliseconds since 1970, by the clock of whoever asks: an order can seem younger when a clock goes back, so that it
is sent again with its OrderId for longer, but never as if it were a new one.
"""

from collections.abc import MutableMapping, Sequence
from enum import StrEnum
from typing import Final, Protocol, TypeAlias

import msgspec

OWNER_BYTES: Final = 8
"""Of an attempt's name: the first bytes say which process made it, the others count."""

COUNT_BYTES: Final = 6


class Standing(StrEnum):
    """What may be done with an order; for CLEAR and AMBIGUOUS the attempt is begun, and must be settled."""

    CLEAR = "clear"
    """Never sent, or every attempt is known to have come to nothing: send it."""
    AMBIGUOUS = "ambiguous"
    """An attempt was written and its answer is not known: send again with the same OrderId."""
    EXPIRED = "expired"
    """As above, but impact.com may have forgotten the OrderId: do not send."""
    DELIVERED = "delivered"
    """impact.com has it: do not send."""
    BUSY = "busy"
    """Another attempt is in flight: do not send now."""


BEGUN: Final = frozenset({Standing.CLEAR, Standing.AMBIGUOUS})
"""The answers that begin an attempt."""


class OrderOutcome(StrEnum):
    """What became of an attempt."""

    DELIVERED = "delivered"
    """impact.com took it."""
    NOTHING = "nothing"
    """impact.com surely did not take it: it was refused, or not a byte was written."""
    UNKNOWN = "unknown"
    """It was written, and there was no answer."""


class LedgerTally(msgspec.Struct, frozen=True):
    """What a ledger holds, and what it did since the last look.

    ``unsettled`` are the orders that are not known as delivered.
    """

    size: int
    capacity: int
    evicted: int
    unsettled: int


class Ledger(Protocol):
    """One backend. An ``identity`` is a keyed digest of 15 bytes; calls may overlap."""

    async def begin(self, identity: bytes, *, again: bool = False) -> Standing:
        """Say how an order stands and, where it may be sent, make the intent durable before saying so.

        ``again`` begins also what was delivered, and answers CLEAR. Raises
        :class:`impact_plugin.errors.StateUnavailableError`: then, as when it is cancelled, nothing was begun.
        """

    async def settle(self, identity: bytes, outcome: OrderOutcome) -> None:
        """Note what became of the attempt that this process has in flight; it is written soon, and in order.

        Never waits and never fails, so it can be awaited where a task is being cancelled.
        """

    async def flush(self) -> None:
        """Return when everything settled so far is written; raises ``StateUnavailableError``."""

    async def check(self) -> None:
        """Raise ``StateUnavailableError`` unless the ledger can be written; what waits is written first."""

    async def tally(self) -> LedgerTally:
        """What is held, and what happened since the last call; raises ``StateUnavailableError``."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What is known of an order: delivered, of unknown outcome ``since``, an ``attempt`` in flight that was ``begun``.

    One without any of the three is not kept.
    """

    delivered: bool = False
    since: int | None = None
    attempt: bytes = b""
    begun: int = 0


class Begin(msgspec.Struct, frozen=True, gc=False):
    """The wish to send an order, by an attempt of this name."""

    identity: bytes
    attempt: bytes
    again: bool = False


class Settle(msgspec.Struct, frozen=True, gc=False):
    """What became of an attempt; without a name, of one that is not known any more."""

    identity: bytes
    attempt: bytes
    outcome: OrderOutcome


Operation: TypeAlias = Begin | Settle


class Terms(msgspec.Struct, frozen=True):
    """How long (milliseconds) an order may be sent again, and how long an attempt counts as in flight.

    With an ``owner`` nobody else is alive: attempts that are not the owner's are of dead processes.
    """

    window: int
    lease: int
    owner: bytes = b""


def play(
    book: MutableMapping[bytes, Entry], operations: Sequence[Operation], now: int, terms: Terms
) -> list[Standing | None]:
    """Carry out operations in order, each seeing those before it; answers the begins, and None for each settle."""
    standings: list[Standing | None] = []
    for operation in operations:
        before = book.get(operation.identity)
        if isinstance(operation, Begin):
            standing, after = begun(before, operation, now, terms)
            standings.append(standing)
        else:
            after = settled(before, operation, now)
            standings.append(None)
        if after is not None:
            book[operation.identity] = after
        elif before is not None:
            del book[operation.identity]
    return standings


def begun(entry: Entry | None, begin: Begin, now: int, terms: Terms) -> tuple[Standing, Entry | None]:
    """How an order stands, and what is then known of it."""
    if entry is None:
        return Standing.CLEAR, Entry(attempt=begin.attempt, begun=now)
    if entry.attempt == begin.attempt:
        # The same begin once more: clients of servers repeat a command whose answer was lost on the way.
        return (Standing.CLEAR if entry.since is None else Standing.AMBIGUOUS), entry
    if entry.delivered and not begin.again:
        return Standing.DELIVERED, entry
    if entry.attempt and _lives(entry, now, terms):
        return Standing.BUSY, entry
    if entry.delivered:
        return Standing.CLEAR, Entry(delivered=True, attempt=begin.attempt, begun=now)
    since = _unknown_since(entry)
    if since is not None and now - since >= terms.window:
        return Standing.EXPIRED, entry
    return Standing.AMBIGUOUS, Entry(since=since, attempt=begin.attempt, begun=now)


def settled(entry: Entry | None, settle: Settle, now: int) -> Entry | None:
    """What is known of an order after an outcome.

    An attempt that is not in flight any more was taken for one of unknown outcome, and only a delivery changes that.
    """
    if settle.outcome is OrderOutcome.DELIVERED:
        return Entry(delivered=True)
    if entry is None:
        return Entry(since=now) if settle.outcome is OrderOutcome.UNKNOWN else None
    if entry.attempt != settle.attempt:
        return entry
    if entry.delivered:
        return Entry(delivered=True)
    since = _unknown_since(entry) if settle.outcome is OrderOutcome.UNKNOWN else entry.since
    return None if since is None else Entry(since=since)


def _lives(entry: Entry, now: int, terms: Terms) -> bool:
    """Whether the attempt may still be under way.

    One from far in the future is as old as one from the past: the clock has been set, and it must not stay for ever.
    """
    return entry.attempt.startswith(terms.owner) and abs(now - entry.begun) < terms.lease


def _unknown_since(entry: Entry) -> int | None:
    """The first attempt without an answer, the one in flight counted as such; None when there is none."""
    if not entry.attempt:
        return entry.since
    return entry.begun if entry.since is None else min(entry.since, entry.begun)
