"""The rules of clicks, joins and withdrawals: each alone, and all together against a reference without rows."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from impact_transformers import Decision
from impact_transformers.visit_rules import (
    NEWEST_CLICKS,
    NEWEST_USERS,
    NOTHING,
    Click,
    IdentityMemory,
    Window,
    chosen,
    clicks_of,
    decide_click,
    users_at,
    with_click,
    with_user,
    withdrawn,
    without_clicks_of,
)
from tests.properties import tried

LENGTH: Final = 30
NEW, REPEAT = Decision.NEW, Decision.REPEAT


def decisions(times: Iterable[int], *, fixed: bool) -> list[Decision]:
    """Decide on clicks of one key, in the order in which they arrive."""
    windows: tuple[Window, ...] = ()
    found = []
    for number, time in enumerate(times):
        decision, windows = decide_click(windows, bytes([number]), time, LENGTH, fixed=fixed)
        found.append(decision)
    return found


@pytest.mark.parametrize(
    ("times", "rolling", "fixed"),
    [
        ([0, 29, 30], [NEW, REPEAT, REPEAT], [NEW, REPEAT, NEW]),
        ([0, 20, 40, 60], [NEW, REPEAT, REPEAT, REPEAT], [NEW, REPEAT, NEW, REPEAT]),
        ([0, 30], [NEW, NEW], [NEW, NEW]),
        ([0, 20, 51], [NEW, REPEAT, NEW], [NEW, REPEAT, NEW]),
        ([100, 0, 110], [NEW, NEW, REPEAT], [NEW, NEW, REPEAT]),
        ([0, 20, 10, 45], [NEW, REPEAT, REPEAT, REPEAT], [NEW, REPEAT, REPEAT, NEW]),
    ],
)
def test_a_repeat_extends_a_rolling_window_and_leaves_a_fixed_one(
    times: list[int], rolling: list[Decision], fixed: list[Decision]
) -> None:
    """Both kinds of programs that impact.com has, with clicks that arrive late too."""
    assert rolling == decisions(times, fixed=False)
    assert fixed == decisions(times, fixed=True)


@given(st.lists(st.integers(0, 200), max_size=12), st.booleans())
@tried(200)
def test_the_message_of_a_click_gets_its_answer_again(times: list[int], fixed: bool) -> None:
    """Whatever came after it; and a retry changes no window."""
    windows: tuple[Window, ...] = ()
    openers = []
    for number, time in enumerate(times):
        decision, windows = decide_click(windows, bytes([number]), time, LENGTH, fixed=fixed)
        openers += [bytes([number])] if decision is NEW else []

    assert [one.opener for one in windows] == openers
    for opener in openers:
        assert decide_click(windows, opener, 77, LENGTH, fixed=fixed) == (NEW, windows)


@given(st.lists(st.integers(0, 300), unique=True, max_size=12))
@tried(200)
def test_fixed_windows_of_clicks_in_order_never_overlap(times: list[int]) -> None:
    """A unique click is at least a window's length after the one before."""
    times.sort()
    unique = [time for time, one in zip(times, decisions(times, fixed=True), strict=True) if one is NEW]

    assert all(LENGTH <= after - before for before, after in pairwise(unique))


def test_the_newest_clicks_are_remembered() -> None:
    """The oldest goes; but before it the middle one of three in a row of the same id."""
    known = NOTHING
    for time in range(NEWEST_CLICKS + 2):
        known = with_click(known, Click(time, f"id-{time}"))

    assert [f"id-{time}" for time in range(2, NEWEST_CLICKS + 2)] == [one.click_id for one in known.clicks]

    for time in (20, 21, 22, 23):
        known = with_click(known, Click(time, "same"))

    assert [4, 5, 6, 7, 8, 9, 20, 23] == [one.time for one in known.clicks]


def test_the_newest_identifications_are_remembered() -> None:
    """The oldest goes, and the same one counts once."""
    known = NOTHING
    for time in (*range(NEWEST_USERS + 1), NEWEST_USERS):
        known = with_user(known, time, b"u")

    assert list(range(1, NEWEST_USERS + 1)) == [one.time for one in known.users]


def test_the_clicks_id_that_is_chosen() -> None:
    """The last before the event or the first, within the referral window; of two at a time the anonymous identity's."""
    anonymous = IdentityMemory((Click(10, "a"), Click(50, "b")))
    user = IdentityMemory((Click(5, "c"), Click(50, "d"), Click(70, "e")))

    assert chosen([anonymous, user], 60, 100, first=False) == "b"
    assert chosen([anonymous, user], 60, 100, first=True) == "c"
    assert chosen([anonymous, user], 60, 50, first=True) == "a"
    assert chosen([anonymous, user], 60, 9, first=False) is None
    assert chosen([], 60, 9, first=False) is None


# All together, in any order of arrival. A step is a click, an event that names both, a withdrawal, or one of those with
# more identities. The keeper applies the rules row by row; the reference looks at the set of all steps.


class Event(msgspec.Struct, frozen=True):
    """One event's business: a click (with an id), a withdrawal, or neither; with both identities, it joins them."""

    time: int
    anonymous: bytes | None
    user: bytes | None
    click_id: str | None = None
    withdraws: bool = False


class Keeper:
    """Keeps rows in a dictionary, as the store's issue will keep them in tables."""

    def __init__(self) -> None:
        self.rows: dict[bytes, IdentityMemory] = {}

    def write(self, event: Event) -> None:
        """Apply one event."""
        both = event.anonymous is not None and event.user is not None
        if event.withdraws:
            self._withdraw(event)
        elif both:
            self._join(event)
        if event.click_id is not None:
            owners = {event.anonymous, event.user, *users_at(self._row(event.anonymous), event.time)} - {None}
            for owner in owners:
                self._remember(owner, Click(event.time, event.click_id, event.anonymous), event.anonymous)

    def choose(self, event: Event, referral: int, *, first: bool) -> str | None:
        """The click id of an order."""
        rows = [self._row(one) for one in (event.anonymous, event.user) if one is not None]
        return chosen(rows, event.time, referral, first=first)

    def _row(self, identity: bytes | None) -> IdentityMemory:
        return self.rows.get(identity or b"", NOTHING)

    def _remember(self, owner: Any, click: Click, anonymous: bytes | None) -> None:
        """Write a click to a row, unless the identity that it was made under has withdrawn."""
        made_under = self._row(anonymous)
        if anonymous is None or made_under.withdrawn is None or click.time > made_under.withdrawn:
            self.rows[owner] = with_click(self._row(owner), click)

    def _join(self, event: Event) -> None:
        anonymous: Any = event.anonymous
        user: Any = event.user
        self.rows[anonymous] = with_user(self._row(anonymous), event.time, user)
        for click in clicks_of(self._row(anonymous), user):
            self.rows[user] = with_click(self._row(user), click)

    def _withdraw(self, event: Event) -> None:
        if event.anonymous is not None:
            for row in list(self.rows):
                self.rows[row] = without_clicks_of(self.rows[row], event.anonymous, event.time)
        for identity in {event.anonymous, event.user} - {None}:
            self.rows[identity or b""] = withdrawn(self._row(identity), event.time)


def reference(events: list[Event], order: Event, referral: int, *, first: bool) -> str | None:
    """The order's click id without rows: among all events, in order of arrival."""
    held = [
        (event.time, identity != order.anonymous, event.click_id)
        for event in events
        for identity in {order.anonymous, order.user} - {None}
        if event.click_id is not None
        and order.time - referral <= event.time <= order.time
        and (identity in (event.anonymous, event.user) or _is_joined(events, event, identity))
        and not any(
            one.withdraws
            and event.time <= one.time
            and {one.anonymous, one.user} & ({event.anonymous, identity} - {None})
            for one in events
        )
    ]
    if not held:
        return None
    times = [time for time, _, _ in held]
    best = min(times) if first else max(times)
    return min((rank, str(click_id)) for time, rank, click_id in held if time == best)[1]


def _is_joined(events: list[Event], click: Event, user: bytes | None) -> bool:
    """Whether at the click's arrival or later nobody else was known to have been identified after it."""
    if click.anonymous is None:
        return False
    arrived = events.index(click) + 1
    return any(_belongs(events[:known], click, user) for known in range(arrived, len(events) + 1))


def _belongs(events: list[Event], click: Event, user: bytes | None) -> bool:
    joins = [one for one in events if one.anonymous == click.anonymous and one.user is not None and not one.withdraws]
    others = any(one.user != user and one.time > click.time for one in joins)
    return not others and any(one.user == user and one.time >= click.time for one in joins)


@st.composite
def some_events(draw: st.DrawFn) -> list[Event]:
    """Events of a few visitors, whose times are all different, so that only the rules decide."""
    times = draw(st.lists(st.integers(0, 60), unique=True, max_size=NEWEST_CLICKS))  # in any order of arrival
    made = []
    for time in times:
        kind = draw(st.sampled_from(["click", "click", "both", "withdrawal"]))
        anonymous = draw(st.sampled_from([b"a", b"b", None] if kind != "both" else [b"a", b"b"]))
        user = draw(st.sampled_from([b"u", b"v"] if kind == "both" or anonymous is None else [b"u", b"v", None]))
        made.append(Event(time, anonymous, user, f"id-{time}" if kind == "click" else None, kind == "withdrawal"))
    return made


@given(
    some_events(),
    st.integers(0, 70),
    st.sampled_from([b"a", b"b", None]),
    st.sampled_from([b"u", b"v"]),
    st.sampled_from([10, 100]),
    st.booleans(),
)
@tried(2000)
def test_rows_agree_with_the_reference(
    events: list[Event], time: int, anonymous: bytes | None, user: bytes, referral: int, first: bool
) -> None:
    """Clicks, joins by any event with both ids and withdrawals, in any order of arrival: the order gets its click."""
    keeper = Keeper()
    for event in events:
        keeper.write(event)
    order = Event(time, anonymous, user)

    assert reference(events, order, referral, first=first) == keeper.choose(order, referral, first=first)


@given(some_events(), st.data())
@tried(300)
def test_a_withdrawal_takes_everything_back_whenever_it_arrives(events: list[Event], data: st.DataObject) -> None:
    """Before, between or after the events: nothing of the time up to it is left of the identity, nor with its users."""
    withdrawal = Event(60, b"a", None, withdraws=True)
    keeper = Keeper()
    for event in data.draw(st.permutations([*events, withdrawal])):
        keeper.write(event)

    assert not keeper.rows[b"a"].clicks
    assert not keeper.rows[b"a"].users
    assert all(click.anonymous != b"a" for row in keeper.rows.values() for click in row.clicks)
