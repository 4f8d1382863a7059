"""Permits, the gates that withhold them, and statistics of a limiter. Pure; times are monotonic seconds."""

from enum import StrEnum
from typing import Final, Literal, TypeAlias

import msgspec

EndpointName: TypeAlias = Literal["conversions", "pageload"]
"""impact.com's two endpoints, as routers and metrics call them."""


class Gate(StrEnum):
    """Why a request waits; gates are checked in this order. A label in metrics and in ``/debug/limits``."""

    CREDENTIALS = "credentials"
    BREAKER = "breaker"
    QUOTA = "quota"
    PACE = "pace"
    CONCURRENCY = "concurrency"
    RETRY_BUDGET = "retry_budget"
    SLOTS = "slots"


GATES: Final[dict[Gate, str]] = {
    Gate.CREDENTIALS: "impact.com refused the account's credentials; one request every five minutes tries them again.",
    Gate.BREAKER: "Most requests failed or did not reach the host; single requests probe whether it has recovered.",
    Gate.QUOTA: "The account's request quota is used up until it is reset, according to impact.com.",
    Gate.PACE: "The rest of the quota, or a rate learned from refusals, is spread over time.",
    Gate.CONCURRENCY: "As many requests are in flight as impact.com has proved to handle at once.",
    Gate.RETRY_BUDGET: "Too many retries failed; new requests go first.",
    Gate.SLOTS: "As many requests of all accounts are in flight as this process may send at once.",
}
"""What each gate means, for the documentation."""


class Permit(msgspec.Struct, frozen=True):
    """Permission to send one request now; give it back with ``Limiter.release`` or ``Limiter.release_unused``.

    ``number`` counts the permits of a limiter. ``rank`` is how many of its requests were in flight, this one included.
    """

    number: int
    rank: int
    sent_at: float
    retry: bool = False
    probe: bool = False


class Wait(msgspec.Struct, frozen=True):
    """No permit now: the gate that is closed, and when to try again; infinity stands for when a request has ended."""

    gate: Gate
    until: float


class LimiterStatistics(msgspec.Struct, frozen=True):
    """The state of a limiter and why its requests wait; None stands for unknown or not in force.

    ``state`` is ``open`` (traffic flows), ``probing`` or ``closed`` (breaker, credentials or quota). ``pace`` is in
    requests per second, ``reset_in`` and ``closed_for`` in seconds, ``rtt`` the mean response time in seconds.
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
    """A change of state that is logged.

    ``breaker_opened`` and ``breaker_closed`` are named as for an electric circuit: opened stops requests.
    ``limit_collapsed`` means that the concurrency limit fell to a quarter within ten seconds.
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
