"""One reader for every family of rate-limit headers, and what garbage in them must not do."""

from email.utils import formatdate
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from impact_plugin.delivery.limits.rate_limits import (
    MAX_RESET_SECONDS,
    NO_RATE_LIMITS,
    RateLimits,
    backoff,
    read_rate_limits,
)

NOW = 1_790_000_000.0

FAMILIES: dict[str, tuple[dict[str, str], RateLimits]] = {
    "the text's: seconds": (
        {"X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "998", "X-RateLimit-Reset": "1800"},
        RateLimits(1000, 998, 1800.0),
    ),
    "the example's: an epoch": (
        {"X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW + 90))},
        RateLimits(1000, 0, 90.0),
    ),
    "partners': an hour": (
        {"X-RateLimit-Limit-hour": "500", "X-RateLimit-Remaining-hour": "7", "RateLimit-Reset": "60"},
        RateLimits(500, 7, 60.0),
    ),
    "the draft's three": (
        {"RateLimit-Limit": "100, 100;w=60", "RateLimit-Remaining": "50", "RateLimit-Reset": "30"},
        RateLimits(100, 50, 30.0),
    ),
    "the draft's one": ({"RateLimit": "limit=100, remaining=50, reset=30"}, RateLimits(100, 50, 30.0)),
    "the draft's latest": ({"RateLimit": '"default";r=50;t=30'}, RateLimits(None, 50, 30.0)),
    "lower case": ({"x-ratelimit-remaining": "3", "x-ratelimit-reset": "4"}, RateLimits(None, 3, 4.0)),
    "no reset": ({"X-RateLimit-Remaining": "3"}, RateLimits(None, 3, None)),
    "seconds to stay away": ({"Retry-After": "120"}, RateLimits(retry_after=120.0)),
    "a fraction": ({"Retry-After": "0.25"}, RateLimits(retry_after=0.25)),
    "a fraction as programs print it": ({"Retry-After": "19.300000000000001"}, RateLimits(retry_after=19.3)),
    "a date": ({"Retry-After": formatdate(NOW + 30, usegmt=True)}, RateLimits(retry_after=30.0)),
    "a date gone by": ({"Retry-After": formatdate(NOW - 30, usegmt=True)}, RateLimits(retry_after=0.0)),
    "a time since 1970": ({"Retry-After": str(int(NOW + 20))}, RateLimits(retry_after=20.0)),
    "an hour at most": ({"Retry-After": "999999"}, RateLimits(retry_after=3600.0)),
    "a day at most": ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "99999999"}, RateLimits(None, 0, 86400.0)),
    "a reset gone by": (
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW - 500))},
        RateLimits(None, 0, 0.0),
    ),
    "two that contradict": (
        {
            "X-RateLimit-Remaining": "900",
            "X-RateLimit-Reset": "60",
            "RateLimit-Remaining": "2",
            "RateLimit-Reset": "10",
        },
        RateLimits(None, 2, 10.0),
    ),
    "two that agree: the longer": (
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "60", "RateLimit-Remaining": "0", "RateLimit-Reset": "10"},
        RateLimits(None, 0, 60.0),
    ),
    "both kinds": (
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "60", "Retry-After": "5"},
        RateLimits(None, 0, 60.0, 5.0),
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_read(family: str) -> None:
    """What impact.com's pages show, in all their spellings."""
    headers, expected = FAMILIES[family]

    assert read_rate_limits(CIMultiDict(headers), NOW) == expected


def test_absolute_times_count_from_the_answers_own_date() -> None:
    """Our clock may be an hour off; the server's two times agree with each other."""
    headers = {
        "Date": formatdate(NOW, usegmt=True),
        "X-RateLimit-Remaining": "1",
        "X-RateLimit-Reset": str(int(NOW + 9)),
    }

    assert read_rate_limits(headers, NOW + 3600) == RateLimits(None, 1, 9.0)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Date": formatdate(NOW, usegmt=True)},
        {"Content-Type": "application/json"},
        {"X-RateLimit-Remaining": "many"},
        {"X-RateLimit-Remaining": "-1"},
        {"X-RateLimit-Remaining": "1e9"},
        {"X-RateLimit-Limit": "1000"},
        {"RateLimit": "soon"},
        {"Retry-After": "soon"},
        {"Retry-After": ""},
        {"Retry-After": "-5"},
        {"Retry-After": "Thu, 99 Foo 2026 99:99:99 GMT"},
    ],
)
def test_what_cannot_be_read_is_not_said(headers: dict[str, str]) -> None:
    """Garbage is no reason to stop, nor to go faster."""
    assert read_rate_limits(headers, NOW) == NO_RATE_LIMITS


@given(
    st.dictionaries(
        st.sampled_from(
            ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit", "Retry-After", "Date"]
        ),
        st.text(max_size=40) | st.integers(-(10**18), 10**18).map(str) | st.floats().map(str),
    )
)
def test_whatever_the_headers_hold_the_result_is_usable(headers: dict[str, str]) -> None:
    """Never an exception, never a negative or endless time."""
    found = read_rate_limits(headers, NOW)

    for seconds in (found.reset, found.retry_after):
        assert seconds is None or (isfinite(seconds) and 0 <= seconds <= MAX_RESET_SECONDS)
    assert found.remaining is None or found.remaining >= 0


@pytest.mark.parametrize(("attempt", "ceiling"), [(1, 1.0), (2, 2.0), (3, 4.0), (7, 60.0), (10**6, 60.0)])
def test_waits_double_up_to_the_longest(attempt: int, ceiling: float) -> None:
    """Between half of the ceiling and all of it."""
    waits = [backoff(attempt, initial=1.0, maximum=60.0, jitter=jitter) for jitter in (0.0, 0.5, 0.999999)]

    assert waits == pytest.approx([ceiling / 2, ceiling * 0.75, ceiling], rel=1e-5)
