"""The words of the limiter and of who asks it: gates, permits, waits. Pure; all times are monotonic seconds."""

from enum import StrEnum
from typing import Final, Literal, TypeAlias

import msgspec

EndpointName: TypeAlias = Literal["conversions", "pageload"]
"""impact.com's two endpoints, as routers and metrics call them."""


class Gate(StrEnum):
    """Why a request waits; gates are asked in this order. A label in metrics and in ``/debug/limits``."""

    CREDENTIALS = "credentials"
    BREAKER = "breaker"
    QUOTA = "quota"
    PACE = "pace"
    CONCURRENCY = "concurrency"
    RETRY_BUDGET = "retry_budget"
    SLOTS = "slots"


GATES: Final[dict[Gate, str]] = {
    Gate.CREDENTIALS: "impact.com refused the account's credentials; one request in five minutes tries them again.",
    Gate.BREAKER: "Most requests failed or found no host; one request at a time tries whether that is over.",
    Gate.QUOTA: "The account's request quota is used up, by impact.com's word, until it is reset.",
    Gate.PACE: "What is left of the quota, or a rate learned from refusals, is spread over time.",
    Gate.CONCURRENCY: "As many requests are under way as impact.com has proved to take at once.",
    Gate.RETRY_BUDGET: "Too many retries that failed; new requests go first.",
    Gate.SLOTS: "As many requests are under way, of all accounts together, as this process may have.",
}
"""What each gate means, for the documentation."""


class Permit(msgspec.Struct, frozen=True):
    """Leave to send one request now; it must come back by ``done`` or ``withdraw``.

    ``number`` counts the permits of a limiter. ``rank`` is how many requests of it were under way with this one.
    """

    number: int
    rank: int
    sent_at: float
    retry: bool = False
    probe: bool = False


class Wait(msgspec.Struct, frozen=True):
    """No leave yet: which gate is closed, and when to ask again; infinity means when a request has come back."""

    gate: Gate
    until: float


class LimiterStatistics(msgspec.Struct, frozen=True):
    """What a limiter does and why its requests wait; None where something is not known or not in force.

    ``state`` is ``open`` (traffic flows), ``probing`` or ``closed`` (breaker, credentials or quota). ``pace`` is in
    requests a second, ``reset_in`` and ``closed_for`` in seconds, ``rtt`` the mean answer time in seconds.
    """

    state: Literal["open", "probing", "closed"]
    limit: int
    in_flight: int
    quota_left: int | None
    reset_in: float | None
    pace: float | None
    rtt: float | None
    gate: Gate | None
    closed_for: float | None
    why: str


class LimitChange(msgspec.Struct, frozen=True):
    """A change of state worth a line in the log.

    ``limit_collapsed`` tells that the concurrency fell to a quarter of what it was within ten seconds.
    """

    change: Literal[
        "breaker_opened",
        "breaker_closed",
        "credentials_refused",
        "credentials_accepted",
        "quota_exhausted",
        "quota_reset",
        "limit_collapsed",
    ]
    detail: str
