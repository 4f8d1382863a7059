"""The rules in memory, where they are packed: windows at the extremes, many of a key, clicks, and answers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import impact_plugin.store.embedded
import impact_plugin.store.engine
from impact_plugin.store.base import NEWEST_CLICKS, NEWEST_USERS, NEWEST_WINDOWS, SessionAnswer, SessionQuery
from impact_plugin.store.engine import LONGEST, WINDOW_BYTES, Capacities, Engine, with_click
from impact_transformers import Decision
from tests.builders import digest
from tests.properties import tried

TRIED = tried(300)
NEW, REPEAT = Decision.NEW, Decision.REPEAT
NOON = 1_789_000_000_000
MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
RETENTION = 4 * DAY
YEAR_2000 = 946_684_800_000
YEAR_2200 = 7_258_118_400_000


def event(message: str, time: int, **more: Any) -> SessionQuery:
    """An event's query; what asks is kept, unless it is said otherwise."""
    return SessionQuery(digest(message), time, **{"referral": 30 * DAY, "keeps": more.get("asks", False), **more})


def candidate(message: str, time: int, window: int = 30 * MINUTE) -> SessionQuery:
    """A candidate of the one key."""
    return event(message, time, key=digest("key"), window=window)


def carrier(message: str, minute: int, click_id: str = "C", **identities: Any) -> SessionQuery:
    """An event with a click id."""
    return event(message, NOON + minute * MINUTE, click_id=click_id, **(identities or {"anonymous": digest("a")}))


def order(message: str, minute: int, **identities: Any) -> SessionQuery:
    """An order without one."""
    chosen = identities or {"anonymous": digest("a")}
    return event(message, NOON + minute * MINUTE, asks=True, order=True, **chosen)


def login(message: str, minute: int, user: bytes) -> SessionQuery:
    """An identification on the one device."""
    when = NOON + minute * MINUTE
    return event(message, when, asks=True, joins=True, anonymous=digest("a"), user=user)


@pytest.fixture(name="engine")
def engine_fixture() -> Engine:
    """Lend an engine with room for everything."""
    return make_engine()


def make_engine() -> Engine:
    """An engine with room for everything."""
    return Engine(Capacities(1000, 1000, 1000), RETENTION)


def ask(engine: Engine, *queries: SessionQuery) -> list[SessionAnswer]:
    """One call."""
    answers = engine.write(queries)
    engine.read(queries, answers)
    return answers


def decisions(engine: Engine, *queries: SessionQuery) -> list[Decision | None]:
    """Of one call each."""
    return [ask(engine, query)[0].decision for query in queries]


@given(
    time=st.integers(YEAR_2000 - DAY, YEAR_2200 + DAY) | st.sampled_from([0, 1, YEAR_2000 - DAY, YEAR_2200 + DAY]),
    window=st.integers(1, DAY) | st.sampled_from([1, DAY, LONGEST]),
    owner=st.binary(min_size=15, max_size=15) | st.sampled_from([bytes(15), b"\xff" * 15]),
)
@TRIED
def test_a_window_is_what_it_was_asked_to_be(time: int, window: int, owner: bytes) -> None:
    """At the extremes of time, length and digest: it begins and ends to the millisecond, and knows its opener."""
    moments = {"before": time - 1, "first": time, "last": time + window - 1, "after": time + window}
    found = {}
    for name, moment in moments.items():
        engine = make_engine()
        opener = SessionQuery(owner, time, digest("key"), window)
        opened = ask(engine, opener)[0]
        found[name] = ask(engine, SessionQuery(digest(name), max(0, moment), digest("key"), 1))[0].decision
        again = ask(engine, opener)[0]

        assert (NEW, False, time, time + window) == (opened.decision, opened.replayed, opened.start, opened.end)
        assert (NEW, True, time, time + window) == (again.decision, again.replayed, again.start, again.end)

    assert {"first": REPEAT, "last": REPEAT, "after": NEW} == {name: found[name] for name in ("first", "last", "after")}
    assert (NEW if time else REPEAT) == found["before"]


@given(
    story=st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 180), st.sampled_from([10, 30, 60])), min_size=1, max_size=40
    )
)
@TRIED
def test_windows_overlap_as_intervals_do(story: list[tuple[int, int, int]]) -> None:
    """Late and early candidates, retries, and windows of several lengths: as a list of intervals would decide."""
    engine = make_engine()
    spans: list[list[int]] = []
    openers: set[int] = set()
    times: dict[int, tuple[int, int]] = {}
    for message, *first in story:
        minute, window = times.setdefault(message, (first[0], first[1]))
        found = decisions(engine, candidate(f"m{message}", NOON + minute * MINUTE, window * MINUTE))[0]
        hit = [span for span in spans if span[0] <= minute < span[1]]
        if message in openers:
            expected = NEW
        elif hit:
            expected = REPEAT
            for span in hit:
                span[1] = max(span[1], minute + window)
        else:
            expected = NEW
            openers.add(message)
            spans.append([minute, minute + window])

        assert expected == found


def test_a_key_that_is_seen_for_months_stays_one_value(engine: Engine) -> None:
    """The longest window there is ends, and a click follows: a length never runs over into the time beside it."""
    days = [ask(engine, candidate(f"m{day}", NOON + day * DAY, DAY + HOUR))[0] for day in range(120)]
    again = [ask(engine, candidate(f"m{day}", NOON + day * DAY, DAY + HOUR))[0] for day in range(120)]

    assert LONGEST // DAY == [one.decision for one in days].index(NEW, 1) - 1
    assert all(one.start <= NOON + day * DAY < one.start + LONGEST for day, one in enumerate(days))
    assert [NEW] == list({one.decision for day, one in enumerate(again) if days[day].decision is NEW and day > 90})


def test_an_answer_never_tells_a_longer_window_than_is_kept(engine: Engine) -> None:
    """The end that the answer to a repeat names is the end that the opener is told afterwards."""
    opener = candidate("opener", NOON, LONGEST)
    ask(engine, opener)
    repeat = ask(engine, candidate("repeat", NOON + LONGEST - 1, DAY))[0]

    assert ask(engine, opener)[0].end == repeat.end


def test_windows_of_a_key_are_bounded(engine: Engine) -> None:
    """Only the newest are kept, in bounded room; what had to go although it could still be asked for is counted."""
    times = [NOON + number * MINUTE for number in range(NEWEST_WINDOWS + 10)]
    queries = [candidate(f"m{number}", time, 1) for number, time in enumerate(times)]
    opened = decisions(engine, *queries)
    held = engine.claims.get(digest("key")) or b""
    kept = [answer.replayed for answer in ask(engine, *queries[10:])]

    assert {NEW} == set(opened)
    assert NEWEST_WINDOWS * WINDOW_BYTES == len(held)
    assert [True] * NEWEST_WINDOWS == kept
    assert 10 == engine.claims.evicted


def test_windows_go_when_no_retry_can_ask_for_them(engine: Engine) -> None:
    """A day (the longest way from an event's time to its arrival) after the retention; that is no eviction."""
    early = candidate("early", NOON, HOUR)
    end = NOON + HOUR
    ask(engine, early, candidate("in time", end + RETENTION + DAY - 1))
    kept = ask(engine, early)[0].replayed
    ask(engine, candidate("too late", end + RETENTION + DAY + HOUR))

    assert kept
    assert 2 * WINDOW_BYTES == len(engine.claims.get(digest("key")) or b"")
    assert 0 == engine.claims.evicted


def test_a_full_claim_fits_into_the_journal(engine: Engine) -> None:
    """The lengths of values stand in a table of so many; a larger value would stop every commit."""
    for number in range(2 * NEWEST_WINDOWS):
        ask(engine, candidate(f"m{number}", NOON + number * HOUR))

    assert len(engine.claims.get(digest("key")) or b"") < len(impact_plugin.store.embedded._LENGTHS)


clicks = st.lists(
    st.tuples(st.integers(0, 50), st.sampled_from(["A", "B", "C"])),
    min_size=1, max_size=NEWEST_CLICKS, unique_by=lambda click: click[0],
)  # fmt: skip


def last_ids(known: list[tuple[int, str]]) -> list[list[str]]:
    """At each moment, the id of the last click before it."""
    return [[click_id for time, click_id in known if time <= moment][-1:] for moment in range(52)]


@given(arrived=clicks)
@TRIED
def test_leaving_out_a_click_changes_no_answer(arrived: list[tuple[int, str]]) -> None:
    """Clicks that arrive in order, each twice: the last before any moment, and the very first, have the same id."""
    known: list[tuple[int, str]] = []
    for time, click_id in sorted(arrived):
        known = with_click(with_click(known, time, click_id), time, click_id)

    assert last_ids(sorted(arrived)) == last_ids(known)
    assert min(arrived)[1] == known[0][1]


@given(arrived=clicks)
@TRIED
def test_the_order_of_arrival_decides_no_click_id(arrived: list[tuple[int, str]]) -> None:
    """As few clicks as are remembered, in any order: the last before any moment is the last before it."""
    known: list[tuple[int, str]] = []
    for time, click_id in arrived:
        known = with_click(known, time, click_id)

    assert last_ids(sorted(arrived)) == last_ids(known)


@given(arrived=st.lists(st.tuples(st.integers(0, 500), st.sampled_from("ABCDEFGHIJKL")), max_size=60))
@TRIED
def test_the_memory_of_an_identity_is_bounded_and_has_the_newest(arrived: list[tuple[int, str]]) -> None:
    """Never more than so many, in order, none of them twice, and the newest of all is always there."""
    known: list[tuple[int, str]] = []
    for time, click_id in arrived:
        known = with_click(known, time, click_id)

    assert len(known) <= NEWEST_CLICKS
    assert sorted(set(known)) == known
    assert min(len(set(arrived)), NEWEST_CLICKS) == len(known)
    if arrived:
        assert max(arrived) == known[-1]


def test_an_id_on_every_page_leaves_room_for_the_others() -> None:
    """A hundred pages with one id push nothing else out: in their row the ones in the middle go first."""
    known = with_click([], 0, "B")
    for time in range(1, 101):
        known = with_click(known, time, "A")

    assert [(0, "B"), (1, "A")] == known[:2]
    assert (100, "A") == known[-1]
    assert NEWEST_CLICKS == len(known)


def test_the_newest_clicks_stay(engine: Engine) -> None:
    """The oldest go, also when an old page arrives last."""
    ids = [f"C{number}" for number in range(NEWEST_CLICKS + 2)]
    for number, click_id in reversed(list(enumerate(ids))):
        ask(engine, carrier(click_id, number, click_id))
    found = [ask(engine, order(f"o{number}", number))[0].click_id for number in range(len(ids))]

    assert [None, None, *ids[2:]] == found


def test_a_retry_of_a_page_that_was_pushed_out_brings_nothing_back(engine: Engine) -> None:
    """The oldest of nine is forgotten each time it is sent again."""
    ids = [f"C{number}" for number in range(NEWEST_CLICKS + 1)]
    for _ in range(2):
        for number, click_id in enumerate(ids):
            ask(engine, carrier(click_id, number, click_id))

    assert [None, "C1", "C8"] == [ask(engine, order(f"o{minute}", minute))[0].click_id for minute in (0, 1, 100)]


def test_identifications_are_bounded(engine: Engine) -> None:
    """A shared device knows its newest users; the last one still gets the click after which nobody else came."""
    for number in range(3 * NEWEST_USERS):
        ask(engine, login(f"l{number}", number, digest(f"u{number}")))
    last = digest(f"u{3 * NEWEST_USERS - 1}")
    ask(engine, carrier("c", 3 * NEWEST_USERS - 1, "LATE"))

    assert NEWEST_USERS == len(engine._recall(digest("a")).users)
    assert "LATE" == ask(engine, order("o", 100, user=last))[0].click_id


@pytest.mark.parametrize(
    ("events", "late"),
    [
        ([order("o", 10), carrier("c", 5)], 1),
        ([order("o", 10), carrier("c", 10)], 1),
        ([order("o", 10), carrier("c", 11)], 0),
        ([carrier("c", 5), order("o", 10)], 0),
        ([order("o", 10), carrier("c", 5), carrier("c2", 6)], 1),
        ([order("o", 10), order("o2", 12), carrier("c", 5)], 1),
        ([order("o", 10), order("o", 10), carrier("c", 5), carrier("c", 5)], 1),
        ([order("o", 10, user=digest("u")), carrier("c", 5), login("l", 11, digest("u"))], 1),
        ([order("o", 10, user=digest("u")), login("l", 11, digest("u")), carrier("c", 5)], 1),
    ],
    ids=["late", "same moment", "after", "in time", "once", "two orders", "retries", "login", "after its login"],
)  # fmt: skip
def test_orders_that_missed_their_click_are_counted(engine: Engine, events: list[SessionQuery], late: int) -> None:
    """A click that arrives after its order is counted once, whichever way it comes; other clicks are not."""
    for query in events:
        ask(engine, query)

    assert late == engine.late_clicks


def test_an_order_of_two_identities_misses_its_click_once(engine: Engine) -> None:
    """The visitor and the user are one person, and it was one order."""
    both: dict[str, Any] = {"anonymous": digest("a"), "user": digest("u")}
    ask(engine, order("o", 10, **both))
    ask(engine, carrier("c", 5, **both))

    assert 1 == engine.late_clicks


def test_orders_that_are_watched_are_bounded(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first are no longer watched; a shop without clicks does not fill the memory."""
    monkeypatch.setattr(impact_plugin.store.engine, "LATE_CLICK_ORDERS", 2)
    for number in range(5):
        ask(engine, order(f"o{number}", 10, anonymous=digest(f"a{number}")))
    for number in range(5):
        ask(engine, carrier(f"c{number}", 5, anonymous=digest(f"a{number}")))

    assert 2 == engine.late_clicks
    assert {} == engine._without_click


@pytest.mark.parametrize("click_id", ["C", "-", "N", "R", "", "Ünïcode€", "x" * 64, "\U0001f600" * 64])
def test_the_answer_of_a_message_is_kept_to_the_letter(engine: Engine, click_id: str) -> None:
    """Click ids are opaque, also those that look like our own marks."""
    if click_id:
        ask(engine, carrier("c", 0, click_id))
    first = ask(engine, order("o", 5))[0]
    ask(engine, carrier("newer", 4, "NEWER"))
    again = ask(engine, order("o", 5))[0]

    assert (None, click_id or None, False) == (first.decision, first.click_id, first.replayed)
    assert (None, click_id or None, True) == (again.decision, again.click_id, again.replayed)


@pytest.mark.parametrize("decision", [NEW, REPEAT])
def test_a_candidate_that_asks_keeps_decision_and_click_id(engine: Engine, decision: Decision) -> None:
    """Both are the same at any later time, even when the retry has another time of its own."""
    ask(engine, carrier("c", 0, "C"))
    if decision is REPEAT:
        ask(engine, candidate("earlier", NOON))
    own = {"key": digest("key"), "window": 30 * MINUTE, "asks": True, "anonymous": digest("a")}
    first = ask(engine, event("m", NOON + MINUTE, **own))[0]
    ask(engine, carrier("newer", 1, "NEWER"))
    again = ask(engine, event("m", NOON + 5 * DAY, **own))[0]

    assert (decision, "C", False) == (first.decision, first.click_id, first.replayed)
    assert (decision, "C", True) == (again.decision, again.click_id, again.replayed)


def test_a_retry_of_a_kept_message_changes_nothing(engine: Engine) -> None:
    """It opens no window, joins nobody and writes nothing."""
    queries = [login("l", 3, digest("u")), order("o", 5), event("m", NOON, key=digest("key"), window=HOUR, keeps=True)]
    ask(engine, *queries)
    before = bool(engine.take_changes())
    ask(engine, *queries)

    assert before
    assert not engine.take_changes()


def test_the_same_message_twice_in_a_batch_is_one_message(engine: Engine) -> None:
    """Both places get the answer of the first."""
    own = {"key": digest("key"), "window": HOUR, "asks": True, "anonymous": digest("a")}
    found = ask(engine, event("m", NOON, **own), event("other", NOON, **own), event("m", NOON, **own))

    assert [(NEW, False), (REPEAT, False), (NEW, True)] == [(one.decision, one.replayed) for one in found]


def test_changes_are_told_once_and_whole(engine: Engine) -> None:
    """What is to be made durable: each table's new values, and None for what was forgotten."""
    ask(engine, candidate("m", NOON), carrier("c", 0), order("o", 1))
    changes = engine.take_changes()
    engine.forget([digest("a"), digest("nobody")])
    forgotten = engine.take_changes()

    assert {digest("key"): engine.claims.get(digest("key"))} == changes.claims
    assert {digest("o"): b"-C"} == changes.answers
    assert [digest("a")] == list(changes.identities)
    assert {digest("a"): None, digest("nobody"): None} == forgotten.identities
    assert not engine.take_changes()


def test_forgetting_tells_how_many_were_known(engine: Engine) -> None:
    """Their clicks and identifications are gone, and the orders that went without are no longer watched."""
    ask(engine, carrier("c", 0), login("l", 1, digest("u")))
    ask(engine, order("o", 1, anonymous=digest("without")))

    assert 2 == engine.forget([digest("a"), digest("u"), digest("without")])
    assert [None, None] == [
        one.click_id for one in ask(engine, order("o1", 9), order("o2", 9, user=digest("u")))
    ]  # fmt: skip
    ask(engine, carrier("late", 0, anonymous=digest("without")))
    assert 0 == engine.late_clicks
