"""How many retries an account may send in addition to its new requests: a token bucket.

Pure; times are monotonic seconds.
"""

from typing import Final

MAX_TOKENS: Final = 10.0
"""Retries that the bucket saves up: ten seconds' worth."""

TOKENS_PER_SECOND: Final = 1.0
TOKENS_PER_NEW_REQUEST: Final = 0.2
TOKENS_PER_PROCESSED_REQUEST: Final = 1.0
TOKENS_PER_PROCESSED_RETRY: Final = 2.0


class RetryBudget:
    """A retry costs one token; time, new requests and above all success earn tokens.

    After a long outage every waiting request is a retry. If only time and new requests earned tokens, a backlog of a
    million would take days. So every processed request earns one token, and a processed retry two: the number in
    flight doubles with each round trip, as in TCP's slow start, until another gate limits it.
    """

    __slots__ = ("_tokens", "_updated_at")

    def __init__(self) -> None:
        self._tokens = MAX_TOKENS
        self._updated_at = 0.0

    def seconds_to_wait(self, now: float) -> float:
        """Seconds until a retry may be sent; 0 if one may be sent now."""
        self._add(max(0.0, now - self._updated_at) * TOKENS_PER_SECOND)
        self._updated_at = now
        return 0.0 if self._tokens >= 1.0 else (1.0 - self._tokens) / TOKENS_PER_SECOND

    def record_sent(self, *, retry: bool) -> None:
        """Record that a request was sent."""
        self._add(-1.0 if retry else TOKENS_PER_NEW_REQUEST)

    def undo_sent(self, *, retry: bool) -> None:
        """Take back one :meth:`record_sent`: the request was not sent after all."""
        self._add(1.0 if retry else -TOKENS_PER_NEW_REQUEST)

    def record_processed(self, *, retry: bool) -> None:
        """Record that impact.com processed a request."""
        self._add(TOKENS_PER_PROCESSED_RETRY if retry else TOKENS_PER_PROCESSED_REQUEST)

    def _add(self, tokens: float) -> None:
        self._tokens = min(MAX_TOKENS, max(0.0, self._tokens + tokens))
