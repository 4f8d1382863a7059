"""Whether rudder-server retries, and after how long.

Sources, all in https://github.com/rudderlabs/rudder-server: ``router/worker.go``, ``router/handle.go`` and
``processor/internal/transformer/destination_transformer/destination_transformer.go``.
"""

from collections.abc import Mapping
from typing import Literal

from multidict import CIMultiDict


def next_state(
    status: int,
    *,
    attempt: int,
    first_failed_at: float | None,
    now: float,
    max_failed: int = 3,
    retry_window: float = 180 * 60,
) -> Literal["succeeded", "filtered", "aborted", "retry"]:
    """Return the state of a job after ``attempt`` attempts, the last of which ended in ``status``.

    Times are in seconds of one clock; ``first_failed_at`` is the time of the first failure of any kind, None for none.
    The window and the count limit server errors only: the router retries 408, 429, 599 (a request object that it could
    not decode) and anything below 200 forever.
    """
    if status == 298:
        return "filtered"
    if 200 <= status <= 299:
        return "succeeded"
    if status < 200 or status in {408, 429, 599}:
        return "retry"
    if status < 500:
        return "aborted"
    expired = first_failed_at is not None and now - first_failed_at > retry_window
    return "aborted" if expired and attempt >= max_failed else "retry"


def first_state(status: int) -> Literal["succeeded", "filtered", "aborted", "retry"]:
    """Return the state of a job whose first attempt ended in ``status``."""
    return next_state(status, attempt=1, first_failed_at=None, now=0.0)


def backoff(attempt: int, *, shortest: float = 10.0, longest: float = 300.0) -> float:
    """Return the seconds between a job's ``attempt``-th failure (counted from 1) and its next attempt: 10, 20 .. 300.

    Raises ValueError if ``attempt`` is below 1.
    """
    if attempt < 1:
        raise ValueError(f"attempts are counted from 1, not {attempt}")
    return min(shortest * 2.0 ** min(attempt - 1, 32), longest)


def back_pressure_wait(attempt: int) -> float:
    """Return the seconds that the processor waits after the ``attempt``-th 503 with should-retry: 1, 2, 4 .. 30.

    The real wait has a jitter of half its length. Source: ``internal/transformer-client/client.go``.
    """
    return backoff(attempt, shortest=1.0, longest=30.0)


def transport_wait(attempt: int) -> float:
    """Return the seconds that the processor waits after the ``attempt``-th fault of a request: 0.5, 0.75 .. 30.

    After 31 faults it panics.
    """
    return float(min(0.5 * 1.5 ** min(attempt - 1, 32), 30.0))


def processor_outcome(
    status: int, headers: Mapping[str, str]
) -> Literal["reply", "retry", "backoff_then_panic", "aborted"]:
    """Return what the processor does with a whole chunk because of the HTTP status alone.

    ``retry``, for a 503 with ``X-Rudder-Should-Retry: true``, is the only harmless way to ask for time; ``aborted``
    loses every event.
    """
    if status == 200:
        return "reply"
    if status == 503 and CIMultiDict(headers).get("X-Rudder-Should-Retry") == "true":
        return "retry"
    if status < 200 or status >= 500 or status in {408, 429}:
        return "backoff_then_panic"
    return "aborted"
