"""How many retries an account may send beside its new requests. Pure; times are monotonic seconds."""

from typing import Final

A_SECOND: Final = 1.0
"""Retries that time allows, a second."""

A_FIRST_ATTEMPT: Final = 0.2
"""Retries that a request sent for the first time allows."""

MOST: Final = 10.0
"""Retries saved up, at most: ten seconds' worth."""

A_DELIVERED_RETRY: Final = 2.0
A_DELIVERED_REQUEST: Final = 1.0


class RetryBudget:
    """Retries are spent, and earned by time, by new requests and above all by success.

    After a long outage everything that waits is a retry. If only time and new requests allowed them, a backlog of a
    million would take days, so every delivered request gives one back, and a delivered retry one more: the number
    under way doubles with each round trip, as in a slow start, and the other gates decide.
    """

    __slots__ = ("_at", "_left")

    def __init__(self) -> None:
        self._left = MOST
        self._at = 0.0

    def wait(self, now: float) -> float:
        """Seconds until a retry may be sent; 0 when now."""
        self._left = min(MOST, self._left + max(0.0, now - self._at) * A_SECOND)
        self._at = now
        return 0.0 if self._left >= 1.0 else (1.0 - self._left) / A_SECOND

    def sent(self, *, retry: bool) -> None:
        """One request goes out."""
        self._left = self._left - 1.0 if retry else min(MOST, self._left + A_FIRST_ATTEMPT)

    def withdrawn(self, *, retry: bool) -> None:
        """It did not go out after all."""
        self._left = min(MOST, self._left + 1.0) if retry else max(0.0, self._left - A_FIRST_ATTEMPT)

    def delivered(self, *, retry: bool) -> None:
        """impact.com answered it."""
        self._left = min(MOST, self._left + (A_DELIVERED_RETRY if retry else A_DELIVERED_REQUEST))
