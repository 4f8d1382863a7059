"""When the router retries a job, and how long it and the processor wait."""

import pytest

from impact_plugin.rudder.retries import back_pressure_wait, backoff, next_state, processor_outcome, transport_wait


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (0, "retry"),
        (199, "retry"),
        (200, "succeeded"),
        (298, "filtered"),
        (299, "succeeded"),
        (302, "aborted"),
        (400, "aborted"),
        (408, "retry"),
        (429, "retry"),
        (499, "aborted"),
        (500, "retry"),
        (599, "retry"),
        (809, "retry"),
    ],
)
def test_first_try_is_judged_by_its_status(status: int, state: str) -> None:
    """A first failure is tried again unless its status lies between 300 and 499; 408 and 429 are not refusals."""
    assert state == next_state(status, attempt=1, first_failed_at=None, now=0.0)


@pytest.mark.parametrize(
    ("status", "attempt", "age", "state"),
    [
        (500, 3, 10800.0, "retry"),
        (500, 3, 10800.5, "aborted"),
        (500, 2, 99999.0, "retry"),
        (500, 99, 60.0, "retry"),
        (429, 99, 99999.0, "retry"),
        (599, 99, 99999.0, "retry"),
        (0, 99, 99999.0, "retry"),
    ],
)
def test_only_server_errors_grow_old(status: int, attempt: int, age: float, state: str) -> None:
    """A 5xx is given up once it is past the window and was tried three times; a 429, a 599 and a 0 never are."""
    assert state == next_state(status, attempt=attempt, first_failed_at=1000.0, now=1000.0 + age)


def test_backoff_doubles_to_five_minutes() -> None:
    """A failed job waits 10 s, then twice as long each time, up to 300 s, however often it failed."""
    assert [backoff(attempt) for attempt in range(1, 8)] == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    assert backoff(10_000) == 300.0


def test_backoff_counts_from_one() -> None:
    """There is no wait before the first failure, and asking for one is a mistake."""
    with pytest.raises(ValueError, match="counted from 1"):
        backoff(0)


def test_processor_waits_have_two_rhythms() -> None:
    """Back-pressure is asked again after 1, 2, 4 .. 30 s, faults after 0.5 s growing by half up to 30 s."""
    assert [back_pressure_wait(attempt) for attempt in range(1, 8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert [transport_wait(attempt) for attempt in range(1, 4)] == [0.5, 0.75, 1.125]
    assert transport_wait(30) == 30.0


@pytest.mark.parametrize(
    ("status", "headers", "outcome"),
    [
        (200, {}, "reply"),
        (503, {"x-rudder-should-retry": "true"}, "retry"),
        (503, {"X-Rudder-Should-Retry": "false"}, "backoff_then_panic"),
        (503, {}, "backoff_then_panic"),
        (500, {"X-Rudder-Should-Retry": "true"}, "backoff_then_panic"),
        (408, {}, "backoff_then_panic"),
        (429, {}, "backoff_then_panic"),
        (204, {}, "aborted"),
        (302, {}, "aborted"),
        (404, {}, "aborted"),
        (413, {}, "aborted"),
    ],
)
def test_processor_looks_at_the_http_status_first(status: int, headers: dict[str, str], outcome: str) -> None:
    """Only a 503 with should-retry asks for time; faults are retried until the panic; the rest aborts the chunk."""
    assert outcome == processor_outcome(status, headers)
