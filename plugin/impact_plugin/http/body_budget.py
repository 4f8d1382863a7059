"""Limits the memory that senders' request bodies may use together."""

from types import TracebackType
from typing import Final, Self

from impact_plugin.protocols.refusals import RefusalReason, RefusedError
from impact_plugin.units import MIB

MAX_BYTES: Final = 256 * MIB
"""Of all bodies in progress; requests beyond it get 429, and senders retry them."""


class BodyBudget:
    """Counts the bytes of the bodies in progress."""

    def __init__(self) -> None:
        self.taken = 0

    def reserve(self, size: int) -> "BodyReservation":
        """Reserve the announced length of a body; raises :class:`RefusedError` if the budget is used up."""
        reservation = BodyReservation(self)
        reservation.grow(size)
        return reservation


class BodyReservation:
    """One body's share of the budget; leaving the block returns it."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._budget.taken -= self._size
        self._size = 0

    def grow(self, size: int) -> None:
        """Raise the reservation to ``size`` bytes; raises :class:`RefusedError` if the budget is used up."""
        more = size - self._size
        if more <= 0:
            return
        if self._budget.taken + more > MAX_BYTES:
            raise RefusedError(RefusalReason.BUSY, "too many large bodies are being processed", 1)
        self._budget.taken += more
        self._size = size
