"""Retries: how many may be sent, by time, in addition to new requests, and after success."""

from impact_plugin.delivery.limits.retry_budget import MAX_TOKENS, RetryBudget


def _spent(now: float = 0.0) -> RetryBudget:
    """A budget of which nothing is left at ``now``."""
    budget = RetryBudget()
    while budget.seconds_to_wait(now) == 0.0:
        budget.record_sent(retry=True)
    return budget


def _allowed(budget: RetryBudget, now: float) -> int:
    """How many retries it lets go at ``now``."""
    count = 0
    while budget.seconds_to_wait(now) == 0.0:
        budget.record_sent(retry=True)
        count += 1
    return count


def test_ten_retries_are_saved_up() -> None:
    """However long nothing was sent."""
    assert int(MAX_TOKENS) == _allowed(RetryBudget(), 1e6)


def test_time_gives_one_a_second() -> None:
    """An account whose retries all fail still tries."""
    budget = _spent()

    assert 1.0 == budget.seconds_to_wait(0.0)
    assert 3 == _allowed(budget, 3.0)


def test_five_new_requests_give_one() -> None:
    """A fifth of what is sent for the first time."""
    budget = _spent()
    for _ in range(5):
        budget.record_sent(retry=False)

    assert 1 == _allowed(budget, 0.0)


def test_a_backlog_of_retries_gathers_speed_while_they_are_delivered() -> None:
    """After a long outage every waiting request is a retry: the number in flight doubles with each round trip."""
    budget, rounds = _spent(), []
    in_flight = _allowed(budget, 1.0)
    for _ in range(4):
        for _ in range(in_flight):
            budget.record_processed(retry=True)
        in_flight = _allowed(budget, 1.0)
        rounds.append(in_flight)

    assert [2, 4, 8, 10] == rounds


def test_what_was_withdrawn_was_not_spent() -> None:
    """And a new request that did not go out gives nothing."""
    budget = _spent()
    budget.record_processed(retry=False)
    budget.record_sent(retry=True)
    budget.undo_sent(retry=True)
    for _ in range(5):
        budget.record_sent(retry=False)
        budget.undo_sent(retry=False)

    assert 1 == _allowed(budget, 0.0)
