"""What impact.com's answers say about its request quota: one reader for every family of headers, and back-off.

Pure. impact.com's pages show several families, and a reset that is seconds in the text and an epoch in the example:
https://integrations.impact.com/brand-api-reference/brand-api-reference-v13/readme/rate-limits
https://integrations.impact.com/partner-api-reference/readme/rate-limits
"""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Final

import msgspec

EPOCH_FROM: Final = 1e8
"""A reset above this is a time since 1970, not a delay: as a delay it would be three years."""

LONGEST_RESET: Final = 86_400.0
LONGEST_RETRY_AFTER: Final = 3600.0
"""Seconds; no documented window is longer than a day, and nobody waits for an hour because a proxy said so."""

_SIMPLE: Final = (
    ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
    ("x-ratelimit-limit-hour", "x-ratelimit-remaining-hour", "ratelimit-reset"),
    ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"),
)
_NAMED: Final = re.compile(r"\b(limit|remaining|reset|r|t)\s*=\s*(\d+)")
_NUMBER: Final = re.compile(r"\d{1,15}(?:\.\d{1,40})?")


class RateLimits(msgspec.Struct, frozen=True):
    """What one answer says: requests in a window, requests left of it, and seconds until it ends or to stay away.

    None means not said. Times are delays from the answer, never negative and never longer than a day (``reset``) or an
    hour (``retry_after``).
    """

    limit: int | None = None
    remaining: int | None = None
    reset: float | None = None
    retry_after: float | None = None


UNSAID: Final = RateLimits()


def read_rate_limits(headers: Mapping[str, str], now: float) -> RateLimits:
    """Read whichever family the headers hold; of several, the one with the least requests left.

    ``now`` is in seconds since 1970. Where the answer has a ``Date``, absolute times are measured from that instead,
    because the two clocks need not agree. What cannot be read is taken as not said.
    """
    lowered = {name.lower(): value for name, value in headers.items() if _interesting(name)}
    if lowered.keys() <= {"date"}:
        return UNSAID
    now = _date(lowered.get("date", "")) or now
    found = [one for names in _SIMPLE if (one := _family(lowered, names, now)) is not None]
    draft = _draft(lowered.get("ratelimit", ""))
    found += [draft] if draft is not None else []
    retry_after = _retry_after(lowered.get("retry-after"), now)
    if not found:
        return RateLimits(retry_after=retry_after) if retry_after is not None else UNSAID
    # Of several the least is believed; a family that does not say what is left comes last.
    least = min(found, key=lambda one: (one.remaining is None, one.remaining or 0, -(one.reset or 0.0)))
    return msgspec.structs.replace(least, retry_after=retry_after)


def backoff(attempt: int, *, first: float, longest: float, chance: float) -> float:
    """Seconds to wait after ``attempt`` failures in a row (1 is the first), doubled each time up to ``longest``.

    ``chance`` in [0, 1) spreads the waits over their upper half, so that replicas do not come back together.
    """
    ceiling = min(longest, first * 2.0 ** min(attempt - 1, 60))
    return ceiling * (0.5 + chance / 2)


def _interesting(name: str) -> bool:
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
    """One header for all three: ``limit=10, remaining=5, reset=7`` or ``"default";r=5;t=7``.

    https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
    """
    named = {name: int(number) for name, number in _NAMED.findall(value[:256])}
    remaining = named.get("remaining", named.get("r"))
    if remaining is None:
        return None
    reset = named.get("reset", named.get("t"))
    return RateLimits(named.get("limit"), remaining, None if reset is None else min(float(reset), LONGEST_RESET))


def _retry_after(value: str | None, now: float) -> float | None:
    """Seconds, with or without a fraction, or a date: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after ."""
    if value is None:
        return None
    number = _number(value)
    if number is None:
        date = _date(value)
        number = None if date is None else max(0.0, date - now)
    elif number > EPOCH_FROM:
        number = max(0.0, number - now)
    return None if number is None else min(number, LONGEST_RETRY_AFTER)


def _delay(reset: float, now: float) -> float:
    return min(max(0.0, reset - now if reset > EPOCH_FROM else reset), LONGEST_RESET)


def _number(text: str) -> float | None:
    """A number as headers write it; the first of a list such as ``100, 100;w=60``."""
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
