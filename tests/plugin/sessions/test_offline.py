"""Sessions of files: decided request by request, aged by the times of the events, and explained on demand."""

from typing import Any

import pytest

from impact_plugin.sessions.click_history import NOT_ASKED, EarlierEvent
from impact_plugin.sessions.offline import AskingEvent, OfflineSessions
from impact_plugin.sessions.sessions import visit_of
from impact_transformers import Decision, Visit
from impact_transformers.clicks import SEPARATOR
from tests.builders import question

MINUTE = 60_000
DAY = 24 * 60 * MINUTE
NOON = 1_789_034_400_000
PROGRAM = f"IRtest{SEPARATOR}1"


def ask(number: int, *, message: str = "", at: int = NOON, who: str = "a", **more: Any) -> AskingEvent:
    """An event with a question that asks nothing unless the test says so."""
    name = message or f"m-{number}"
    facts = {"program": PROGRAM, "time": at, "received": None, "anonymous_id": who}
    return AskingEvent(question(name, **{**facts, **more}), number, name, None)


def landing(number: int, click_id: str, **more: Any) -> AskingEvent:
    """A click candidate."""
    who = more.get("who", "a")
    return ask(number, key=f"{PROGRAM}{SEPARATOR}visitor={who}", click_id=click_id, **more)


def order(number: int, **more: Any) -> AskingEvent:
    """An order that wants the remembered click id."""
    return ask(number, asks=True, order=True, **more)


@pytest.mark.parametrize("explains", [False, True])
def test_the_events_of_a_request_are_decided_together(explains: bool) -> None:
    """As in the service: an order finds the click of its request, wherever it stands there."""
    sessions = OfflineSessions(ages=True, explains=explains)
    found = sessions.answer([order(1, at=NOON + MINUTE), landing(2, "c-1")])

    assert [Visit(None, "c-1"), Visit(Decision.NEW, None)] == [visit_of(one.answer) for one in found]


def test_answers_are_the_same_with_explanations_and_without() -> None:
    """Who asks why does not change what is decided."""
    requests = [
        [landing(1, "c-1"), landing(2, "c-2", at=NOON + MINUTE)],
        [landing(3, "c-1", message="m-1")],
        [order(4, at=NOON + DAY), order(5, at=NOON + 40 * DAY), order(6, who="b")],
        [landing(7, "c-1", at=NOON + 31 * MINUTE, who="b")],
    ]
    plain, explaining = OfflineSessions(ages=True), OfflineSessions(ages=True, explains=True)
    for request in requests:
        explained = explaining.answer(request)
        assert [one.answer for one in plain.answer(request)] == [one.answer for one in explained]
        assert [(one.answer.decision, one.answer.click_id) for one in explained] == [
            (one.explanation.decision, one.explanation.click_id) for one in explained
        ]


def test_without_explanations_nothing_is_explained() -> None:
    """A replay of millions does not pay for it."""
    (found,) = OfflineSessions(ages=True).answer([landing(1, "c-1")])

    assert found.explanation is NOT_ASKED


def test_a_repetition_names_the_first_time() -> None:
    """Also after the window has grown: what was decided is told as it was then."""
    sessions = OfflineSessions(ages=True, explains=True)
    requests = [[landing(1, "c-1")], [landing(2, "c-1", at=NOON + 20 * MINUTE)], [landing(3, "c-1", message="m-1")]]
    first, repeat, again = (sessions.answer(request)[0].explanation for request in requests)
    opener = EarlierEvent(1, "m-1")

    assert (Decision.NEW, Decision.REPEAT, Decision.NEW) == (first.decision, repeat.decision, again.decision)
    assert (False, False, True) == (first.replayed, repeat.replayed, again.replayed)
    assert (opener, opener, opener) == (first.opener, repeat.opener, again.opener)
    assert (first.start, first.end) == (again.start, again.end)


def test_the_first_event_that_brought_a_click_id_is_named() -> None:
    """Of several that carry it; the order asks days later."""
    sessions = OfflineSessions(ages=True, explains=True)
    sessions.answer([landing(1, "c-1"), landing(2, "c-1", at=NOON + MINUTE)])
    (found,) = sessions.answer([order(3, at=NOON + 2 * DAY)])

    assert ("c-1", EarlierEvent(1, "m-1"), True) == (
        found.explanation.click_id,
        found.explanation.clicked,
        found.explanation.asked,
    )


@pytest.mark.parametrize("explains", [False, True])
def test_what_is_forgotten_is_forgotten_by_explanations_too(explains: bool) -> None:
    """Months of landings take no more memory than weeks; the same message months later is a new one."""
    sessions = OfflineSessions(ages=True, explains=explains)
    for day in range(90):
        for one in range(300):
            sessions.answer([landing(1, f"c-{one}", message=f"{day}-{one}", at=NOON + day * DAY, who=f"{day}-{one}")])
    (found,) = sessions.answer([landing(2, "c-0", message="0-0", at=NOON + 90 * DAY, who="0-0")])
    tables = [sessions.engine.claims, sessions.engine.answers]
    if sessions._history is not None:
        tables += sessions._history.decisions

    assert (Decision.NEW, False) == (found.answer.decision, found.answer.replayed)
    assert (found.explanation.opener == EarlierEvent(2, "0-0")) is explains
    assert [len(table) <= 300 * 6 for table in tables] == [True] * len(tables)


def test_without_ageing_nothing_is_forgotten() -> None:
    """Of several files the second may be of the same days as the first."""
    sessions = OfflineSessions(ages=False)
    for day in range(60):
        for one in range(300):
            sessions.answer([landing(1, "c", message=f"{day}-{one}", at=NOON + day * DAY, who=f"{day}-{one}")])

    assert 60 * 300 == len(sessions.engine.claims)
