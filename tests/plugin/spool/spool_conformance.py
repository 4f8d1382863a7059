"""What every spool must do, whatever it is kept in; a backend's tests subclass :class:`SpoolConformance`."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from impact_plugin.spool.base import (
    LANE_LENGTH,
    LANE_SECONDS,
    DeadLetter,
    DeadLetterCause,
    DeadLetterFilter,
    Forgotten,
    NewEvent,
    NewRow,
    Spool,
    SpoolFullError,
    SpoolRow,
)
from tests.builders import NOON, Clock

ALL = DeadLetterFilter()


Opener = Callable[..., AbstractAsyncContextManager[Spool]]


def digest(text: str) -> bytes:
    """Fifteen bytes for a name."""
    return text.encode().ljust(15, b".")[:15]


def event(
    name: str,
    lane: str | None = None,
    *,
    urgent: bool = False,
    people: tuple[str, ...] = (),
    death: DeadLetterCause | None = None,
    to: tuple[str, ...] = ("eu",),
    size: int = 0,
    source: str = "shop",
    order_id: str | None = None,
) -> NewEvent:
    """An event with a row for each destination; its payload is its name."""
    payload = name.encode().ljust(size, b" ")
    given = tuple(digest(one) for one in people)
    rows = tuple(
        NewRow(one, payload, b"v", urgent, digest(lane) if lane else None, given, order_id, death) for one in to
    )
    return NewEvent(source, digest(name), int(NOON * 1000), rows)


def names(rows: list[SpoolRow]) -> list[str]:
    """What was given, by name."""
    return [row.payload.decode().strip() for row in rows]


async def take(spool: Spool, *, urgent: bool = False, limit: int = 1000, to: str = "eu") -> list[SpoolRow]:
    """Take all that is due."""
    return await spool.take(to, urgent=urgent, limit=limit)


async def dead(spool: Spool, which: DeadLetterFilter = ALL) -> list[DeadLetter]:
    """The dead letters meant."""
    return [one async for one in spool.letters(which)]


class SpoolConformance:
    """A subclass has a fixture ``opener``: called with limits by name it opens the same spool again and again."""

    @pytest.fixture(name="clock")
    def clock_fixture(self) -> Clock:
        """Lend a clock."""
        return Clock()

    @pytest.fixture(name="opener")
    def opener_fixture(self, tmp_path: Path, clock: Clock) -> Opener:
        """Lend what opens a spool."""
        raise NotImplementedError

    @pytest.fixture(name="spool")
    async def spool_fixture(self, opener: Opener) -> AsyncIterator[Spool]:
        """Lend an open spool."""
        async with AsyncExitStack() as stack:
            yield await stack.enter_async_context(opener())

    async def test_what_was_put_is_taken_once(self, spool: Spool) -> None:
        """In the order in which it came, and not again while it is held."""
        await spool.put([event("a"), event("b")])

        assert ["a", "b"] == names(await take(spool))
        assert [] == await take(spool)

    async def test_a_row_is_as_it_was_put(self, spool: Spool, clock: Clock) -> None:
        """Every column comes back."""
        await spool.put([event("a", "ada", urgent=True, people=("ada",))])
        (row,) = await take(spool, urgent=True)

        expected = SpoolRow(row.number, "shop", "eu", b"a", b"v", urgent=True, lane=digest("ada"), received=clock.ms)
        assert expected == row

    async def test_destinations_and_kinds_are_apart(self, spool: Spool) -> None:
        """Each take is of one destination, and of orders or of the rest."""
        await spool.put([event("page", to=("eu", "us")), event("order", urgent=True)])

        assert ["page"] == names(await take(spool, to="us"))
        assert ["order"] == names(await take(spool, urgent=True))
        assert ["page"] == names(await take(spool))

    async def test_no_more_than_asked_for(self, spool: Spool) -> None:
        """The limit bounds what is held in memory."""
        await spool.put([event(f"e{number}") for number in range(10)])

        assert 3 == len(await take(spool, limit=3))
        assert 7 == len(await take(spool))

    async def test_what_comes_again_is_a_duplicate(self, spool: Spool) -> None:
        """Also within one call, and also when it was delivered meanwhile."""
        first = await spool.put([event("a"), event("a"), event("b")])
        for row in await take(spool):
            spool.done(row)
        await spool.flush()

        assert [True, False, True] == first
        assert [False, True] == await spool.put([event("a"), event("c")])

    async def test_what_is_done_is_gone(self, opener: Opener) -> None:
        """For the next process too."""
        async with opener() as spool:
            await spool.put([event("a"), event("b")])
            first, _ = await take(spool)
            spool.done(first)
            await spool.flush()
            waiting = dict((await spool.tally()).waiting)
        async with opener() as spool:
            assert {"eu": 1} == waiting
            assert ["b"] == names(await take(spool))

    async def test_what_is_held_is_there_again_for_the_next_process(self, opener: Opener) -> None:
        """Whoever took it may have died."""
        async with opener() as spool:
            await spool.put([event("a"), event("b")])
            first, second = await take(spool)
            spool.done(first)
            spool.later(second, 0, failed=True)
        async with opener() as spool:
            (row,) = await take(spool)

            assert (b"b", 1) == (row.payload, row.attempt)

    async def test_released_rows_are_given_again_untried(self, spool: Spool) -> None:
        """A closed gate says nothing against them."""
        await spool.put([event("a")])
        rows = await take(spool)
        spool.release(rows)

        assert rows == await take(spool)

    async def test_later_is_not_before_its_time(self, spool: Spool, clock: Clock) -> None:
        """Attempts and the first failure are remembered."""
        await spool.put([event("a")])
        (row,) = await take(spool)
        spool.later(row, clock.ms + 5000, failed=True)
        early = await take(spool)
        began = clock.ms
        clock.now += 5
        (again,) = await take(spool)
        spool.later(again, clock.ms, failed=False)
        await spool.flush()
        (once_more,) = await take(spool)

        assert [] == early
        assert (1, began) == (again.attempt, again.failing_since)
        assert (1, began) == (once_more.attempt, once_more.failing_since)

    async def test_a_lane_is_given_in_order(self, spool: Spool) -> None:
        """An order brings the page loads before it along, although they are of the other kind."""
        await spool.put([event("landing", "ada"), event("other", "bob"), event("order", "ada", urgent=True)])

        assert ["landing", "order"] == names(await take(spool, urgent=True))
        assert ["other"] == names(await take(spool))

    async def test_a_lane_waits_for_the_row_that_is_tried_again(self, spool: Spool, clock: Clock) -> None:
        """Also what comes into it afterwards; other lanes do not wait."""
        await spool.put([event("landing", "ada"), event("order", "ada", urgent=True), event("other", "bob")])
        landing, other = await take(spool)
        spool.later(landing, clock.ms + 60_000, failed=True)
        before = await take(spool, urgent=True)
        await spool.put([event("second", "ada", urgent=True)])
        still = await take(spool, urgent=True)
        clock.now += 60
        after = await take(spool, urgent=True)

        assert (b"other", []) == (other.payload, names(before))
        assert [] == still
        assert ["landing", "order", "second"] == names(after)

    async def test_a_lane_that_fails_for_long_loses_its_order(self, spool: Spool, clock: Clock) -> None:
        """One visitor never holds a shop up; it is counted once, and order comes back with an empty lane."""
        await spool.put([event("landing", "ada"), event("order", "ada", urgent=True)])
        (landing,) = await take(spool)
        spool.later(landing, clock.ms, failed=True)
        clock.now += LANE_SECONDS + 1
        (landing,) = await take(spool)
        spool.later(landing, clock.ms + 60_000, failed=True)
        (order,) = await take(spool, urgent=True)
        unordered = (await spool.tally()).unordered

        assert b"order" == order.payload
        assert 1 == unordered

    async def test_order_comes_back_with_an_empty_lane(self, spool: Spool, clock: Clock) -> None:
        """An episode is counted once, however often rows are taken in it."""
        await spool.put([event("one", "ada"), event("two", "ada"), event("three", "ada")])
        rows = await take(spool)
        spool.later(rows[0], clock.ms, failed=True)
        spool.release(rows[1:])
        clock.now += LANE_SECONDS + 1
        for _ in range(3):
            rows = await take(spool)
            spool.release(rows)
        for row in await take(spool):
            spool.done(row)
        await spool.flush()
        await spool.put([event("landing", "ada"), event("order", "ada", urgent=True)])
        (landing,) = await take(spool)
        spool.later(landing, clock.ms + 60_000, failed=True)

        assert [] == await take(spool, urgent=True)
        assert ["one", "two", "three"] == names(rows)
        assert 1 == (await spool.tally()).unordered

    async def test_a_long_lane_loses_its_order(self, spool: Spool, clock: Clock) -> None:
        """More than two hundred rows of one visitor are no visitor's; counted once, however often they are taken."""
        await spool.put([event(f"p{number}", "bot") for number in range(LANE_LENGTH + 2)])
        for _ in range(3):
            (first, *rest) = rows = await take(spool)
            spool.release(rows)
        spool.later(first, clock.ms + 60_000, failed=True)
        spool.release(rest)
        await spool.flush()
        rows = await take(spool)
        for _ in range(3):
            spool.release(rows)
            rows = await take(spool)

        assert 1 <= len(rows)
        assert "p0" not in names(rows)
        assert 1 == (await spool.tally()).unordered

    async def test_a_buried_row_is_a_dead_letter(self, spool: Spool, clock: Clock) -> None:
        """With all that somebody needs who looks."""
        await spool.put([event("a", order_id="o-1")])
        (row,) = await take(spool)
        clock.now += 5
        spool.bury(row, DeadLetterCause("refused", "the field is wrong", b"POST /"))
        await spool.flush()
        (letter,) = await dead(spool)

        told = (letter.reason, letter.detail, letter.request, letter.attempts, letter.order_id, letter.payload)
        assert ("refused", "the field is wrong", b"POST /", 1, "o-1", b"a") == told
        assert (int(NOON * 1000), clock.ms) == (letter.received, letter.died)
        assert {"eu": 0} == dict((await spool.tally()).waiting)

    async def test_some_are_dead_from_the_start(self, spool: Spool) -> None:
        """They are seen like others, and never taken."""
        await spool.put([event("a", death=DeadLetterCause("missing_order_id", "none"))])

        assert [] == await take(spool)
        assert ["missing_order_id"] == [one.reason for one in await dead(spool)]
        assert [False] == await spool.put([event("a")])

    @pytest.mark.parametrize(
        ("which", "expected"),
        [
            (DeadLetterFilter(), ["a", "b", "c"]),
            (DeadLetterFilter(reason="x"), ["a", "c"]),
            (DeadLetterFilter(source="jitsu"), ["b"]),
            (DeadLetterFilter(destination="us"), ["c"]),
            (DeadLetterFilter(order_id="o-1"), ["a"]),
            (DeadLetterFilter(since=int(NOON * 1000) + 1), []),
            (DeadLetterFilter(until=int(NOON * 1000)), []),
            (DeadLetterFilter(since=int(NOON * 1000), until=int(NOON * 1000) + 1), ["a", "b", "c"]),
            (DeadLetterFilter(numbers=()), []),
            (DeadLetterFilter(reason="x' OR 1=1 --"), []),
        ],
    )
    async def test_dead_letters_are_found(self, spool: Spool, which: DeadLetterFilter, expected: list[str]) -> None:
        """By any of the filters, and by all that are given."""
        x, y = DeadLetterCause("x", ""), DeadLetterCause("y", "")
        await spool.put([event("a", death=x, order_id="o-1"), event("b", death=y, source="jitsu")])
        await spool.put([event("c", death=x, to=("us",))])

        assert expected == [one.payload.decode() for one in await dead(spool, which)]

    async def test_dead_letters_can_be_tried_again(self, spool: Spool) -> None:
        """At once, as if just received; those that are not meant stay."""
        await spool.put([event("a", death=DeadLetterCause("x", "")), event("b", death=DeadLetterCause("y", ""))])
        count = await spool.retry(DeadLetterFilter(reason="x"))

        assert 1 == count
        assert ["a"] == names(await take(spool))
        assert ["y"] == [one.reason for one in await dead(spool)]

    async def test_dead_letters_can_be_thrown_away(self, spool: Spool) -> None:
        """And counted, page by page."""
        await spool.put([event(f"e{number}", death=DeadLetterCause("x", "")) for number in range(1200)])

        assert 1200 == await spool.purge(ALL)
        assert [] == await dead(spool)
        assert 0 == (await spool.tally()).dead

    async def test_a_person_is_forgotten(self, spool: Spool) -> None:
        """Waiting or dead, taken or not; others stay, and what was taken settles into nothing."""
        await spool.put([event("a", people=("ada", "a-1")), event("b", people=("bob",)), event("c")])
        await spool.put([event("d", people=("a-1",), death=DeadLetterCause("x", "")), event("e", people=("ada",))])
        (row, *others) = await take(spool, limit=1)
        forgotten = await spool.forget([digest("ada"), digest("a-1")])
        held = spool.holds(row)
        spool.later(row, 0, failed=True)
        await spool.flush()

        assert Forgotten(2, 1) == forgotten
        assert ([], False) == (others, held)
        assert ["b", "c"] == names(await take(spool))
        assert [] == await dead(spool)

    async def test_a_full_spool_says_when_to_come_again(self, opener: Opener) -> None:
        """In whole seconds, thirty at most, and what is in it is taken all the same."""
        async with opener(max_events=3) as spool:
            await spool.put([event("a"), event("b")])
            with pytest.raises(SpoolFullError) as full:
                await spool.put([event("c"), event("d")])
            fits = await spool.put([event("c")])

            assert 1 <= full.value.seconds <= 30
            assert [True] == fits
            assert 3 == len(await take(spool))

    async def test_a_full_spool_starts(self, opener: Opener) -> None:
        """And drains."""
        async with opener() as spool:
            await spool.put([event(f"e{number}") for number in range(100)])
        async with opener(max_events=3) as spool:
            rows: Any = await take(spool)

            assert 100 == len(rows)

    async def test_the_tally_tells_what_is_held(self, spool: Spool) -> None:
        """By destination, in bytes, and since when."""
        await spool.put([event("a", size=100, to=("eu", "us")), event("b", size=50, death=DeadLetterCause("x", ""))])
        tally = await spool.tally()

        assert ({"eu": 1, "us": 1}, 1, 2, int(NOON * 1000)) == (
            dict(tally.waiting), tally.dead, tally.seen, tally.oldest,
        )  # fmt: skip
        assert 202 == tally.bytes
