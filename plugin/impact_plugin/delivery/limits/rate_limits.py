"""Reads what responses say about the request quota, in every family of headers, and computes back-off.

Pure. impact.com documents several families, and a reset that is in seconds in the text and an epoch in the example:
https://integrations.impact.com/brand-api-reference/brand-api-reference-v13/readme/rate-limits
https://integrations.impact.com/partner-api-reference/readme/rate-limits
"""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Final

import msgspec

MIN_EPOCH_SECONDS: Final = 1e8
"""A larger reset is a time since 1970 rather than a delay: as a delay it would be three years."""

MAX_RESET_SECONDS: Final = 86_400.0
MAX_RETRY_AFTER_SECONDS: Final = 3600.0
"""No documented window is longer than a day, and no proxy on the way may stop an account for longer than an hour."""

_FAMILIES: Final = (
    ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
    ("x-ratelimit-limit-hour", "x-ratelimit-remaining-hour", "ratelimit-reset"),
    ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"),
)
_DRAFT_FIELD: Final = re.compile(r"\b(limit|remaining|reset|r|t)\s*=\s*(\d+)")
_NUMBER: Final = re.compile(r"\d{1,15}(?:\.\d{1,40})?")


class RateLimits(msgspec.Struct, frozen=True):
    """What a response says: requests per window, requests left, seconds until the reset, and until a retry is welcome.

    None stands for not stated. Times are delays, never negative and at most a day (``reset``) or an hour
    (``retry_after``).
    """

    limit: int | None = None
    remaining: int | None = None
    reset: float | None = None
    retry_after: float | None = None


NO_RATE_LIMITS: Final = RateLimits()
"""What a response without any of the headers says."""


def read_rate_limits(headers: Mapping[str, str], now: float) -> RateLimits:
    """Read the family of headers that a response has; of several, the one with the fewest requests left.

    ``now`` is in seconds since 1970. If the response has a ``Date``, absolute times count from that instead, because
    the clocks may differ. Unreadable values are ignored.
    """
    lowered = {name.lower(): value for name, value in headers.items() if _is_relevant(name)}
    if lowered.keys() <= {"date"}:
        return NO_RATE_LIMITS
    now = _date(lowered.get("date", "")) or now
    families = [*(_family(lowered, names, now) for names in _FAMILIES), _draft(lowered.get("ratelimit", ""))]
    found = [family for family in families if family is not None]
    retry_after = _retry_after(lowered.get("retry-after"), now)
    if not found:
        return RateLimits(retry_after=retry_after) if retry_after is not None else NO_RATE_LIMITS
    # A family that does not say what is left comes last.
    strictest = min(found, key=lambda family: (family.remaining is None, family.remaining or 0, -(family.reset or 0.0)))
    return msgspec.structs.replace(strictest, retry_after=retry_after)


def backoff(failures: int, *, initial: float, maximum: float, jitter: float) -> float:
    """Seconds to wait after this many failures in a row, at least one: exponential back-off up to ``maximum``.

    ``jitter`` in [0, 1) spreads the waits over their upper half, so that replicas do not retry at the same moment.
    """
    ceiling = min(maximum, initial * 2.0 ** min(failures - 1, 60))
    return ceiling * (0.5 + jitter / 2)


def _is_relevant(name: str) -> bool:
    lowered = name.lower()
    return "ratelimit" in lowered or lowered in {"retry-after", "date"}


def _family(headers: Mapping[str, str], names: tuple[str, str, str], now: float) -> RateLimits | None:
    limit, remaining, reset = (_number(headers.get(name, "")) for name in names)
    if remaining is None and (limit is None or reset is None):
        return None
    return RateLimits(
        None if limit is None else int(limit),
        None if remaining is None else int(remaining),
        None if reset is None else _delay(reset, now),
    )


def _draft(value: str) -> RateLimits | None:
    """Read the single header of the IETF draft: ``limit=10, remaining=5, reset=7`` or ``"default";r=5;t=7``.

    https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
    """
    fields = {name: int(number) for name, number in _DRAFT_FIELD.findall(value[:256])}
    remaining = fields.get("remaining", fields.get("r"))
    if remaining is None:
        return None
    reset = fields.get("reset", fields.get("t"))
    return RateLimits(fields.get("limit"), remaining, None if reset is None else min(float(reset), MAX_RESET_SECONDS))


def _retry_after(value: str | None, now: float) -> float | None:
    """Read seconds, also with a fraction, or a date: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after ."""
    if value is None:
        return None
    number = _number(value)
    if number is None:
        date = _date(value)
        number = None if date is None else max(0.0, date - now)
    elif number > MIN_EPOCH_SECONDS:
        number = max(0.0, number - now)
    return None if number is None else min(number, MAX_RETRY_AFTER_SECONDS)


def _delay(reset: float, now: float) -> float:
    return min(max(0.0, reset - now if reset > MIN_EPOCH_SECONDS else reset), MAX_RESET_SECONDS)


def _number(text: str) -> float | None:
    """Read a number, or the first one of a list such as ``100, 100;w=60``."""
    match = _NUMBER.match(text.strip())
    if match is None:
        return None
    rest = text.strip()[match.end() :].strip()
    number = float(match[0])
    return number if isfinite(number) and (not rest or rest[0] in ",;") else None


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
