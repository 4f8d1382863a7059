"""How many bytes of senders' bodies are worked on at the same time."""

from types import TracebackType
from typing import Final, Self

from impact_plugin.protocols.refusals import RefusalReason, RefusedError
from impact_plugin.units import MIB

MAX_BYTES: Final = 256 * MIB
"""Of all bodies together; beyond it senders are asked to repeat their requests."""


class BodyBudget:
    """Bytes of the bodies that are worked on."""

    def __init__(self) -> None:
        self.taken = 0

    def reserve(self, size: int) -> "BodyReservation":
        """Room for a body of which ``size`` bytes are announced; raises :class:`RefusedError` where there is none."""
        reservation = BodyReservation(self)
        reservation.grow(size)
        return reservation


class BodyReservation:
    """What one body takes of the budget, until the block ends."""

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
        """Take room for a body that has ``size`` bytes by now; raises :class:`RefusedError` where there is none."""
        more = size - self._size
        if more <= 0:
            return
        if self._budget.taken + more > MAX_BYTES:
            raise RefusedError(RefusalReason.BUSY, "too many large bodies are worked on already", 1)
        self._budget.taken += more
        self._size = size
