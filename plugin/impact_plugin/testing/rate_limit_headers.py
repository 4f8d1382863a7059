"""The rate-limit headers of HTTP services, of which impact.com's pages show several families.

https://integrations.impact.com/brand-api-reference/brand-api-reference-v13/readme/rate-limits
"""

import math
from collections.abc import Callable, Mapping
from email.utils import formatdate
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import msgspec

RateLimit: TypeAlias = Literal[
    "x-ratelimit",
    "x-ratelimit-epoch",
    "x-ratelimit-hour",
    "ratelimit-draft",
    "retry-after-seconds",
    "retry-after-float",
    "retry-after-date",
]
"""A family of headers, and the form of its values."""


class Allowance(msgspec.Struct, frozen=True):
    """What the headers announce: requests per window, requests left in this one, and seconds until it ends."""

    limit: int
    remaining: int
    reset_after: float


def announce(family: RateLimit, allowance: Allowance, now: float) -> dict[str, str]:
    """Return the headers of a family that announce an allowance; ``now`` is in seconds since 1970."""
    return _FAMILIES[family](allowance, now)


def _x_rate_limit(allowance: Allowance, reset: float) -> dict[str, str]:
    return {
        "X-RateLimit-Limit": str(allowance.limit),
        "X-RateLimit-Remaining": str(allowance.remaining),
        "X-RateLimit-Reset": str(math.ceil(reset)),
    }


def _x_rate_limit_hour(allowance: Allowance, _: float) -> dict[str, str]:
    """The partner API's variant: https://integrations.impact.com/partner-api-reference/readme/rate-limits ."""
    return {
        "X-RateLimit-Limit-hour": str(allowance.limit),
        "X-RateLimit-Remaining-hour": str(allowance.remaining),
        "RateLimit-Reset": str(math.ceil(allowance.reset_after)),
    }


def _rate_limit_draft(allowance: Allowance, _: float) -> dict[str, str]:
    """The IETF draft: https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-ratelimit-headers-06 ."""
    return {
        "RateLimit-Limit": str(allowance.limit),
        "RateLimit-Remaining": str(allowance.remaining),
        "RateLimit-Reset": str(math.ceil(allowance.reset_after)),
    }


_FAMILIES: Final[Mapping[RateLimit, Callable[[Allowance, float], dict[str, str]]]] = MappingProxyType(
    {
        "x-ratelimit": lambda allowance, _: _x_rate_limit(allowance, allowance.reset_after),
        "x-ratelimit-epoch": lambda allowance, now: _x_rate_limit(allowance, now + allowance.reset_after),
        "x-ratelimit-hour": _x_rate_limit_hour,
        "ratelimit-draft": _rate_limit_draft,
        "retry-after-seconds": lambda allowance, _: {"Retry-After": str(math.ceil(allowance.reset_after))},
        "retry-after-float": lambda allowance, _: {"Retry-After": str(allowance.reset_after)},
        # Rounded up: a date in whole seconds must not invite the client back early.
        "retry-after-date": lambda allowance, now: {
            "Retry-After": formatdate(math.ceil(now + allowance.reset_after), usegmt=True)
        },
    }
)
