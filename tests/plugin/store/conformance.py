"""What every backend of the session state must do, as tests; a backend subclasses and lends a ``store`` fixture.

class TestMine(StoreConformance):
    @pytest.fixture(name="store")
    async def store_fixture(self) -> AsyncIterator[SessionStore]: ...
"""

import asyncio
from typing import Any, Final

import pytest

from impact_plugin.store.base import CALL_SIZE, NEWEST_CLICKS, NEWEST_WINDOWS, SessionAnswer, SessionQuery, SessionStore
from impact_transformers import Decision
from tests.builders import digest

NOON: Final = 1_789_000_000_000
MINUTE: Final = 60_000
DAY: Final = 24 * 60 * MINUTE
WINDOW: Final = 30 * MINUTE
NEW: Final = Decision.NEW
REPEAT: Final = Decision.REPEAT


def click(message: str, minute: float, key: str = "k", **more: Any) -> SessionQuery:
    """A click candidate at a minute after noon."""
    return query(message, minute, key=digest(f"key {key}"), window=WINDOW, **more)


def ask(message: str, minute: float, **more: Any) -> SessionQuery:
    """An event that wants a click id."""
    return query(message, minute, asks=True, keeps=True, referral=30 * DAY, **more)


def query(message: str, minute: float, **more: Any) -> SessionQuery:
    """A query; ``anonymous`` and ``user`` are given as text."""
    for name in ("anonymous", "user"):
        if name in more:
            more[name] = digest(f"{name} {more[name]}")
    return SessionQuery(owner=digest(f"message {message}"), time=NOON + int(minute * MINUTE), **more)


async def decisions(store: SessionStore, *queries: SessionQuery) -> list[Decision | None]:
    """The decisions, of one call each."""
    return [(await store.decide([one]))[0].decision for one in queries]


async def click_id(store: SessionStore, one: SessionQuery) -> str | None:
    """The click id that an event gets."""
    return (await store.decide([one]))[0].click_id


class StoreConformance:
    """The suite."""

    async def test_a_click_its_repeat_and_the_next_click(self, store: SessionStore) -> None:
        """Inside the window a repeat, at its very end a new click."""
        found = await decisions(store, click("m1", 0), click("m2", 29), click("m3", 58.999), click("m4", 88.999))

        assert [NEW, REPEAT, REPEAT, NEW] == found

    async def test_a_fixed_window_ends_when_it_was_to_end(self, store: SessionStore) -> None:
        """Repeats do not extend it."""
        fixed = [click(f"m{at}", at, fixed=True) for at in (0, 29, 30)]

        assert [NEW, REPEAT, NEW] == await decisions(store, *fixed)

    async def test_the_answer_tells_the_window(self, store: SessionStore) -> None:
        """Where the window began and, extended by the repeat, ends."""
        await store.decide([click("m1", 0)])
        (repeat,) = await store.decide([click("m2", 20)])

        assert SessionAnswer(REPEAT, None, replayed=False, start=NOON, end=NOON + 50 * MINUTE) == repeat

    async def test_a_retry_gets_its_own_answer(self, store: SessionStore) -> None:
        """The message that opened the window is a click again, however long the window has grown."""
        await decisions(store, click("m1", 0), click("m2", 20), click("m3", 40))
        (again,) = await store.decide([click("m1", 0)])

        assert (NEW, True) == (again.decision, again.replayed)
        assert [REPEAT, REPEAT, REPEAT] == await decisions(store, click("m2", 20), click("m3", 40), click("m2", 20))

    async def test_a_retry_extends_nothing(self, store: SessionStore) -> None:
        """Asked again and again, the first click does not keep the window open."""
        await decisions(store, click("m1", 0), *[click("m1", 0)] * 3)

        assert [NEW] == await decisions(store, click("m2", 30))

    async def test_another_key_is_another_click(self, store: SessionStore) -> None:
        """Two visitors, or two click ids, have windows of their own."""
        assert [NEW, NEW, REPEAT] == await decisions(
            store, click("m1", 0, "one"), click("m2", 1, "two"), click("m3", 2, "one")
        )

    async def test_a_late_candidate_before_the_window_is_new(self, store: SessionStore) -> None:
        """Arrival decides: what came first stays a click, and the late one, outside the window, is one too."""
        found = await decisions(
            store, click("m2", 0), click("m1", -10), click("m3", 15), click("m1", -10), click("m2", 0)
        )

        assert [NEW, NEW, REPEAT, NEW, NEW] == found

    async def test_one_call_decides_by_position(self, store: SessionStore) -> None:
        """Of several candidates in a call the first is the click; the same message twice is one message."""
        found = await store.decide([click("m1", 0), click("m2", 1), click("m1", 0), click("m3", 2)])

        assert [NEW, REPEAT, NEW, REPEAT] == [one.decision for one in found]

    async def test_parallel_calls_find_one_click(self, store: SessionStore) -> None:
        """Four calls at once with the same key: one click, and each message keeps its answer."""
        calls = [[click(f"m{number}", number)] for number in range(4)]
        first = await asyncio.gather(*map(store.decide, calls))
        again = await asyncio.gather(*map(store.decide, reversed(calls)))
        decided = [found[0].decision for found in first]

        assert 1 == decided.count(NEW)
        assert decided == [found[0].decision for found in reversed(again)]

    async def test_many_windows_of_a_key_are_bounded(self, store: SessionStore) -> None:
        """A key that is clicked every half hour for days stays small, and its newest windows stay right."""
        clicks = [click(f"m{number}", 31 * number) for number in range(NEWEST_WINDOWS + 20)]
        found = await store.decide(clicks)

        assert {NEW} == {one.decision for one in found}
        assert [NEW] == await decisions(store, clicks[-1])
        assert [REPEAT] == await decisions(store, click("again", 31 * (NEWEST_WINDOWS + 19) + 1))

    async def test_an_order_gets_the_last_click_before_it(self, store: SessionStore) -> None:
        """Not an older one, not a later one."""
        for number, minute in enumerate((0, 10, 20)):
            await store.decide([query(f"p{number}", minute, click_id=f"C{minute}", anonymous="a")])

        assert "C10" == await click_id(store, ask("o1", 15, anonymous="a"))
        assert "C20" == await click_id(store, ask("o2", 20, anonymous="a"))
        assert None is await click_id(store, ask("o3", -1, anonymous="a"))

    async def test_the_first_click_where_that_is_wanted(self, store: SessionStore) -> None:
        """``first`` takes the oldest one that is still remembered and within the referral window."""
        for minute in (0, 10):
            await store.decide([query(f"p{minute}", minute, click_id=f"C{minute}", anonymous="a")])

        assert "C0" == await click_id(store, ask("o1", 15, anonymous="a", first=True))
        assert "C10" == await click_id(store, query(
            "o2", 15, asks=True, keeps=True, anonymous="a", first=True, referral=10 * MINUTE
        ))  # fmt: skip

    async def test_a_click_counts_for_its_referral_window(self, store: SessionStore) -> None:
        """To the millisecond, by event time."""
        await store.decide([query("p", 0, click_id="C", anonymous="a")])
        inside, outside = (
            query(name, minute, asks=True, keeps=True, anonymous="a", referral=DAY)
            for name, minute in (("o1", 24 * 60), ("o2", 24 * 60 + 0.001))
        )

        assert ("C", None) == (await click_id(store, inside), await click_id(store, outside))

    async def test_an_old_page_arriving_late_replaces_nothing(self, store: SessionStore) -> None:
        """The newest click by event time wins, whatever arrived last."""
        await store.decide([query("p2", 10, click_id="C10", anonymous="a")])
        await store.decide([query("p1", 0, click_id="C0", anonymous="a")])

        assert "C10" == await click_id(store, ask("o1", 15, anonymous="a"))
        assert "C0" == await click_id(store, ask("o2", 5, anonymous="a"))

    async def test_only_so_many_clicks_are_remembered(self, store: SessionStore) -> None:
        """The newest eight; a ninth pushes the oldest out."""
        for minute in range(NEWEST_CLICKS + 1):
            await store.decide([query(f"p{minute}", minute, click_id=f"C{minute}", anonymous="a")])

        assert None is await click_id(store, ask("o1", 0.5, anonymous="a"))
        assert "C1" == await click_id(store, ask("o2", 1.5, anonymous="a"))

    async def test_the_same_id_on_every_page_pushes_nothing_out(self, store: SessionStore) -> None:
        """Sites that keep the id in each URL: another partner's earlier click is still there."""
        await store.decide([query("p", 0, click_id="FIRST", anonymous="a")])
        for minute in range(1, 40):
            await store.decide([query(f"p{minute}", minute, click_id="STICKY", anonymous="a")])

        assert "FIRST" == await click_id(store, ask("o1", 0.5, anonymous="a"))
        assert "STICKY" == await click_id(store, ask("o2", 20, anonymous="a"))
        assert "FIRST" == await click_id(store, ask("o3", 50, anonymous="a", first=True))

    async def test_a_click_belongs_to_both_identities(self, store: SessionStore) -> None:
        """Of a page that names visitor and user, either finds it alone; of two the newer wins."""
        await store.decide([query("p1", 0, click_id="C0", anonymous="a", user="u")])
        await store.decide([query("p2", 5, click_id="C5", user="u")])

        assert "C0" == await click_id(store, ask("o1", 10, anonymous="a"))
        assert "C5" == await click_id(store, ask("o2", 10, anonymous="a", user="u"))
        assert "C5" == await click_id(store, ask("o3", 10, user="u"))

    async def test_of_two_at_the_same_time_the_visitors_wins(self, store: SessionStore) -> None:
        """A tie is decided once and for all."""
        await store.decide(
            [query("p1", 0, click_id="USERS", user="u"), query("p2", 0, click_id="VISITORS", anonymous="a")]
        )

        assert "VISITORS" == await click_id(store, ask("o", 1, anonymous="a", user="u"))

    @pytest.mark.parametrize("ids", [("a", "B"), ("B", "a"), ("ü", "z"), ("z", "ü")])
    async def test_of_two_ids_at_the_same_time_arrival_does_not_matter(
        self, store: SessionStore, ids: tuple[str, str]
    ) -> None:
        """Two tabs opened in one millisecond: the lower id by its characters, on every server and in any order."""
        for number, id_ in enumerate(ids):
            await store.decide([query(f"p{number}", 0, click_id=id_, anonymous="a")])

        assert min(ids) == await click_id(store, ask("o", 1, anonymous="a"))

    async def test_what_an_event_carries_wins(self, store: SessionStore) -> None:
        """An event with an id of its own asks for none and gets none, but is remembered."""
        await store.decide([query("p1", 0, click_id="OLD", anonymous="a")])
        (carried,) = await store.decide([query("o1", 5, click_id="OWN", anonymous="a", order=True)])

        assert SessionAnswer() == carried
        assert "OWN" == await click_id(store, ask("o2", 6, anonymous="a"))

    async def test_a_visitor_is_not_a_user_of_the_same_name(self, store: SessionStore) -> None:
        """Identities are told apart by the digest, not by what they are used for."""
        await store.decide([query("p", 0, click_id="C", anonymous="same")])

        assert None is await click_id(store, ask("o", 1, user="same"))

    async def test_an_order_retried_after_a_newer_click_keeps_its_id(self, store: SessionStore) -> None:
        """Also when the newer click is older by event time, and also when there was none at first."""
        await store.decide([query("p1", 0, click_id="C0", anonymous="a")])
        order, early = ask("o1", 10, anonymous="a"), ask("o2", -5, anonymous="a")
        first = [await click_id(store, order), await click_id(store, early)]
        await store.decide(
            [query("p2", 5, click_id="C5", anonymous="a"), query("p3", -9, click_id="C-9", anonymous="a")]
        )
        again = await store.decide([order, early])

        assert ["C0", None] == first
        assert [("C0", True), (None, True)] == [(one.click_id, one.replayed) for one in again]
        assert "C5" == await click_id(store, ask("o3", 10, anonymous="a"))

    async def test_a_candidate_that_asks_keeps_both_answers(self, store: SessionStore) -> None:
        """A landing without an id: decision and remembered id, once and again, alone and twice in a call."""
        await store.decide([query("p", 0, click_id="C", anonymous="a")])
        landing = ask("m1", 5, key=digest("key"), window=WINDOW, anonymous="a")
        found = await store.decide([landing, landing])
        await store.decide([query("p2", 4, click_id="LATER", anonymous="a")])
        found += await store.decide([landing])

        assert [(NEW, "C")] * 3 == [(one.decision, one.click_id) for one in found]

    async def test_a_repeat_of_unsure_time_keeps_its_answer(self, store: SessionStore) -> None:
        """A message without a time of reception has another time at the next try; its answer is the same."""
        await store.decide([click("m1", 0)])
        first = await store.decide([click("m2", 10, keeps=True)])
        again = await store.decide([click("m2", 300, keeps=True)])

        assert (REPEAT, REPEAT) == (first[0].decision, again[0].decision)

    async def test_identify_joins_the_clicks_to_the_user(self, store: SessionStore) -> None:
        """An order elsewhere, with the user alone, is credited; a click after the login is not the user's by itself."""
        await store.decide([query("p1", 0, click_id="C0", anonymous="a")])
        await store.decide([query("i", 5, joins=True, anonymous="a", user="u")])
        await store.decide([query("p2", 7, click_id="C7", anonymous="a")])

        assert "C0" == await click_id(store, ask("o", 10, user="u"))

    async def test_two_users_on_one_device(self, store: SessionStore) -> None:
        """The click before the first login is the first user's alone."""
        await store.decide([query("p1", 0, click_id="C0", anonymous="a")])
        await store.decide([query("i1", 5, joins=True, anonymous="a", user="first")])
        await store.decide([query("i2", 10, joins=True, anonymous="a", user="second")])
        await store.decide([query("i3", 12, joins=True, anonymous="a", user="first")])

        assert "C0" == await click_id(store, ask("o1", 20, user="first"))
        assert None is await click_id(store, ask("o2", 20, user="second"))

    async def test_a_click_between_two_logins_is_the_second_users(self, store: SessionStore) -> None:
        """Whoever is identified next, and nobody else."""
        await store.decide([query("i1", 0, joins=True, anonymous="a", user="first")])
        await store.decide([query("p", 5, click_id="C5", anonymous="a")])
        await store.decide([query("i2", 10, joins=True, anonymous="a", user="second")])

        assert None is await click_id(store, ask("o1", 20, user="first"))
        assert "C5" == await click_id(store, ask("o2", 20, user="second"))

    async def test_a_click_that_arrives_after_its_login_is_joined(self, store: SessionStore) -> None:
        """The parts of one batch arrive in any order; the user's order is credited all the same."""
        await store.decide([query("i", 5, joins=True, anonymous="a", user="u")])
        await store.decide([query("p", 0, click_id="C0", anonymous="a")])

        assert "C0" == await click_id(store, ask("o", 10, user="u"))

    async def test_a_late_click_with_two_logins_after_it_is_nobodys(self, store: SessionStore) -> None:
        """Somebody else was identified after the click, so neither can be sure of it."""
        await store.decide([query("i1", 5, joins=True, anonymous="a", user="first")])
        await store.decide([query("i2", 10, joins=True, anonymous="a", user="second")])
        await store.decide([query("p", 0, click_id="C0", anonymous="a")])

        assert [None, None] == [await click_id(store, ask(f"o {one}", 20, user=one)) for one in ("first", "second")]

    async def test_joins_are_never_transitive(self, store: SessionStore) -> None:
        """What a user got from one visitor does not go on to another visitor's users."""
        await store.decide([query("p", 0, click_id="C0", anonymous="a")])
        await store.decide([query("i1", 1, joins=True, anonymous="a", user="u")])
        await store.decide([query("i2", 2, joins=True, anonymous="b", user="u")])
        await store.decide([query("i3", 3, joins=True, anonymous="b", user="v")])

        assert None is await click_id(store, ask("o1", 9, user="v"))
        assert None is await click_id(store, ask("o2", 9, anonymous="b"))

    @pytest.mark.parametrize("size", [3, CALL_SIZE + 40])
    async def test_everything_is_written_before_anything_is_read(self, store: SessionStore, size: int) -> None:
        """Of one call, however large: an order that stands before its landing and its login is stitched."""
        filler = [ask(f"f{number}", 0, anonymous=f"x{number}") for number in range(size - 3)]
        found = await store.decide([
            ask("o", 10, user="u", order=True),
            *filler,
            query("i", 5, joins=True, anonymous="a", user="u"),
            query("p", 0, click_id="C0", anonymous="a"),
        ])  # fmt: skip

        assert "C0" == found[0].click_id
        assert size == len(found)

    async def test_a_large_call_answers_as_small_ones_do(self, store: SessionStore) -> None:
        """In order, with the same message in two places of it, and again afterwards."""
        batch = [click(f"m{number}", 0, f"k{number % 300}") for number in range(3 * CALL_SIZE)]
        batch += [ask("twice", 1, anonymous="a"), *batch[:5], ask("twice", 1, anonymous="a")]
        first = await store.decide(batch)
        again = [
            answer for start in range(0, len(batch), 50) for answer in await store.decide(batch[start : start + 50])
        ]

        assert 300 == sum(one.decision is NEW for one in first[: 3 * CALL_SIZE])
        assert [one.decision for one in first] == [one.decision for one in again]

    async def test_orders_that_missed_their_click_are_counted(self, store: SessionStore) -> None:
        """Once each, when the click comes, and only when it is not later than the order."""
        await store.decide(
            [ask("o1", 10, anonymous="a", user="u", order=True), ask("o2", 10, anonymous="b", order=True)]
        )
        await store.decide([query("p1", 9, click_id="C", anonymous="a", user="u")])
        await store.decide([query("p2", 11, click_id="D", anonymous="b")])
        first = await store.tally()

        assert 1 == first.late_clicks
        assert 0 == (await store.tally()).late_clicks

    async def test_forgetting(self, store: SessionStore) -> None:
        """Clicks and joins are gone at once; what a message was answered stays."""
        await store.decide([query("p", 0, click_id="C", anonymous="a", user="u")])
        await store.decide([query("i", 1, joins=True, anonymous="a", user="u")])
        order = ask("o1", 5, user="u")
        before = await click_id(store, order)
        known = await store.forget([digest("anonymous a"), digest("user u"), digest("user nobody")])

        assert ("C", 2) == (before, known)
        assert [None, None] == [
            await click_id(store, ask("o2", 5, user="u")), await click_id(store, ask("o3", 5, anonymous="a")),
        ]  # fmt: skip
        assert "C" == await click_id(store, order)
        assert 0 == await store.forget([])

    async def test_who_was_joined(self, store: SessionStore) -> None:
        """The visitors on which a user was identified, with or without a click; of several users at once."""
        await store.decide([query("p", 0, click_id="C", anonymous="a1")])
        for number, (visitor, user) in enumerate((("a1", "u"), ("a2", "u"), ("a2", "v"), ("a3", "v"), ("a4", "w"))):
            await store.decide([query(f"i{number}", 1 + number, joins=True, anonymous=visitor, user=user)])
        visitors = {name: digest(f"anonymous {name}") for name in ("a1", "a2", "a3", "a4")}
        found = [set(await store.joined([digest(f"user {name}") for name in names])) for names in ("u", "v", "uw", "x")]

        assert [{"a1", "a2"}, {"a2", "a3"}, {"a1", "a2", "a4"}, set()] == [
            {name for name, visitor in visitors.items() if visitor in some} for some in found
        ]
        assert [2, 2, 3, 0] == [len(some) for some in found]

    async def test_nobody_joined_nobody(self, store: SessionStore) -> None:
        """A visitor's own identity, a click's text and no identity at all find nothing."""
        await store.decide([query("p", 0, click_id="C", anonymous="a", user="u")])
        await store.decide([query("i", 1, joins=True, anonymous="a", user="u")])

        assert [] == await store.joined([])
        assert [] == await store.joined([digest("anonymous a"), digest("message p")])

    async def test_who_was_joined_is_forgotten(self, store: SessionStore) -> None:
        """With the visitor; the user's other visitors stay."""
        for visitor in ("a1", "a2"):
            await store.decide([query(f"i {visitor}", 1, joins=True, anonymous=visitor, user="u")])
        await store.forget([digest("anonymous a1")])

        assert [digest("anonymous a2")] == await store.joined([digest("user u")])

    async def test_many_visitors_are_searched(self, store: SessionStore) -> None:
        """Whatever the stretches are that a backend looks at."""
        await store.decide(
            [
                query(f"i{number}", 1, joins=True, anonymous=f"a{number}", user=f"u{number % 50}")
                for number in range(2000)
            ]
        )
        found = await store.joined([digest("user u7")])

        assert {digest(f"anonymous a{number}") for number in range(7, 2000, 50)} == set(found)

    async def test_click_ids_are_opaque(self, store: SessionStore) -> None:
        """Any text comes back as it went in."""
        for number, text in enumerate(("b-iU-3W5%3AbBKgF~", "ü€😀", "0", "x" * 64, "false")):
            await store.decide([query(f"p{number}", 0, click_id=text, anonymous=f"a{number}")])

            assert text == await click_id(store, ask(f"o{number}", 1, anonymous=f"a{number}"))

    async def test_a_call_without_anything(self, store: SessionStore) -> None:
        """Nothing asked is nothing answered."""
        assert [] == await store.decide([])

    async def test_the_tally_knows_what_is_held(self, store: SessionStore) -> None:
        """Sizes grow with what is written; nothing was evicted or lost."""
        before = sum((await store.tally()).sizes.values())
        await store.decide([click("m", 0), ask("o", 1, anonymous="a")])
        after = await store.tally()

        assert before + 2 == sum(after.sizes.values())
        assert (0, 0) == (sum(after.evicted.values()), after.unsaved)

    async def test_deciding_alone(self, store: SessionStore) -> None:
        """Without the state the rules are the same; afterwards the state knows what was seen."""
        found = await store.decide_locally([click("m1", 0, click_id="C", anonymous="a"), click("m2", 5)])
        await store.check()

        assert [NEW, REPEAT] == [one.decision for one in found]
        assert "C" == await click_id(store, ask("o", 9, anonymous="a"))
        assert [NEW] == await decisions(store, click("m1", 0))
