"""What every backend of the ledger must do, as tests; a backend subclasses and lends an ``open_it`` fixture.

class TestMine(LedgerConformance):
    @pytest.fixture(name="open_it")
    def open_it_fixture(self, clock: Clock) -> Opener: ...
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import msgspec
import pytest
from hypothesis import strategies as st

from impact_plugin.errors import StateUnavailableError
from impact_plugin.orders.ledger import BEGUN, Ledger, LedgerTally, OrderOutcome, Standing
from tests.builders import NOON, Clock, digest

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
WINDOW: Final = DAY
LEASE: Final = 120.0
RETENTION: Final = 90 * DAY

CLEAR: Final = Standing.CLEAR
AMBIGUOUS: Final = Standing.AMBIGUOUS
EXPIRED: Final = Standing.EXPIRED
DELIVERED: Final = Standing.DELIVERED
BUSY: Final = Standing.BUSY

Opener = Callable[..., AbstractAsyncContextManager[Any]]
"""Opens a ledger on the same state each time; takes ``retention`` and ``timeout``."""


@pytest.fixture(name="clock")
def clock_fixture() -> Clock:
    """Lend a clock."""
    return Clock()


def order(name: object) -> bytes:
    """The identity of an order."""
    return digest(f"order {name}")


ONE: Final = order("one")


async def attempt(ledger: Ledger, identity: bytes, outcome: OrderOutcome) -> Standing:
    """One attempt from begin to end, if there may be one."""
    standing = await ledger.begin(identity)
    if standing in BEGUN:
        await ledger.settle(identity, outcome)
    return standing


class LedgerConformance:
    """The suite."""

    @pytest.fixture(name="ledger")
    async def ledger_fixture(self, open_it: Opener) -> AsyncIterator[Ledger]:
        """Lend a ledger without anything in it."""
        async with open_it() as ledger:
            yield ledger

    async def test_what_was_delivered_is_never_sent_again(self, open_it: Opener, clock: Clock) -> None:
        """Not at once, not after a restart, not after weeks, not when the clock has gone back by years."""
        async with open_it() as ledger:
            found = [await attempt(ledger, ONE, OrderOutcome.DELIVERED), await ledger.begin(ONE)]
        for moment in (0, 30 * DAY, -2000 * DAY):
            clock.now = NOON + moment
            async with open_it() as ledger:
                found.append(await ledger.begin(ONE))

        assert [CLEAR, DELIVERED, DELIVERED, DELIVERED, DELIVERED] == found

    async def test_what_was_begun_by_a_dead_process_is_not_clear(self, open_it: Opener, clock: Clock) -> None:
        """Its bytes may have been written: it may be sent again with its OrderId, and not when that is forgotten."""
        async with open_it() as ledger:
            found = [await ledger.begin(ONE)]
        clock.now += LEASE
        async with open_it() as ledger:
            found.append(await ledger.begin(ONE))
        clock.now = NOON + WINDOW
        async with open_it() as ledger:
            found.append(await ledger.begin(ONE))

        assert [CLEAR, AMBIGUOUS, EXPIRED] == found

    async def test_what_came_to_nothing_is_clear_again(self, ledger: Ledger) -> None:
        """However often."""
        found = [await attempt(ledger, ONE, OrderOutcome.NOTHING) for _ in range(3)]

        assert [CLEAR] * 3 == found

    async def test_nothing_takes_back_no_earlier_attempt(self, ledger: Ledger, clock: Clock) -> None:
        """The order of unknown outcome stays one since its first attempt, to the millisecond."""
        found = [await attempt(ledger, ONE, OrderOutcome.UNKNOWN)]
        for seconds in (HOUR, WINDOW - 0.001):
            clock.now = NOON + seconds
            found.append(await attempt(ledger, ONE, OrderOutcome.NOTHING))
        clock.now = NOON + WINDOW
        found.append(await ledger.begin(ONE))

        assert [CLEAR, AMBIGUOUS, AMBIGUOUS, EXPIRED] == found

    async def test_another_unknown_outcome_does_not_prolong(self, ledger: Ledger, clock: Clock) -> None:
        """impact.com counts from the first order it got."""
        found = []
        for seconds in (0, WINDOW / 2, WINDOW):
            clock.now = NOON + seconds
            found.append(await attempt(ledger, ONE, OrderOutcome.UNKNOWN))

        assert [CLEAR, AMBIGUOUS, EXPIRED] == found

    async def test_a_delivery_ends_all(self, ledger: Ledger, clock: Clock) -> None:
        """After unknown outcomes, and also one that is told when the order has expired."""
        await attempt(ledger, ONE, OrderOutcome.UNKNOWN)
        second = await attempt(ledger, ONE, OrderOutcome.DELIVERED)
        await attempt(ledger, order("two"), OrderOutcome.UNKNOWN)
        clock.now += WINDOW
        expired = await ledger.begin(order("two"))
        await ledger.settle(order("two"), OrderOutcome.DELIVERED)

        assert (AMBIGUOUS, EXPIRED) == (second, expired)
        assert [DELIVERED, DELIVERED] == [await ledger.begin(ONE), await ledger.begin(order("two"))]

    async def test_an_attempt_in_flight_is_busy_for_its_lease(self, ledger: Ledger, clock: Clock) -> None:
        """Then nobody knows what became of it, and what is told of it then is of the attempt that followed."""
        found = [await ledger.begin(ONE), await ledger.begin(ONE)]
        clock.now += LEASE
        found += [await ledger.begin(ONE), await ledger.begin(ONE)]
        await ledger.settle(ONE, OrderOutcome.NOTHING)
        await ledger.settle(ONE, OrderOutcome.NOTHING)

        assert [CLEAR, BUSY, AMBIGUOUS, BUSY] == found
        assert AMBIGUOUS is await ledger.begin(ONE)

    async def test_sending_again_on_purpose(self, ledger: Ledger) -> None:
        """``again`` begins what was delivered, one attempt at a time; it stays delivered whatever comes of it."""
        await attempt(ledger, ONE, OrderOutcome.DELIVERED)
        found = []
        for outcome in OrderOutcome:
            found += [await ledger.begin(ONE, again=True), await ledger.begin(ONE, again=True), await ledger.begin(ONE)]
            await ledger.settle(ONE, outcome)
            found.append(await ledger.begin(ONE))

        assert [CLEAR, BUSY, DELIVERED, DELIVERED] * 3 == found

    async def test_sending_again_is_for_what_was_delivered(self, ledger: Ledger, clock: Clock) -> None:
        """An order of unknown outcome stands as it does without."""
        first = await ledger.begin(ONE, again=True)
        await ledger.settle(ONE, OrderOutcome.UNKNOWN)
        second = await ledger.begin(ONE, again=True)
        await ledger.settle(ONE, OrderOutcome.UNKNOWN)
        clock.now += WINDOW

        assert [CLEAR, AMBIGUOUS, EXPIRED] == [first, second, await ledger.begin(ONE, again=True)]

    async def test_a_clock_that_goes_back_makes_nothing_clear(self, ledger: Ledger, clock: Clock) -> None:
        """Neither what was delivered, nor what is of unknown outcome, nor what is in flight; nor when it is right."""
        for name, outcome in (("delivered", OrderOutcome.DELIVERED), ("unknown", OrderOutcome.UNKNOWN)):
            await attempt(ledger, order(name), outcome)
        await ledger.begin(order("begun"))
        found = []
        for moment in (NOON - 1, NOON - 400 * DAY, NOON):
            clock.now = moment
            found.append([await ledger.begin(order(name)) for name in ("delivered", "unknown", "begun")])
            await ledger.settle(order("unknown"), OrderOutcome.NOTHING)

        assert [DELIVERED, AMBIGUOUS, BUSY] == found[0]
        assert [DELIVERED, AMBIGUOUS, AMBIGUOUS] == found[1]
        # The last was sent by a clock 400 days late, and is now an order of that time.
        assert [DELIVERED, AMBIGUOUS, EXPIRED] == found[2]

    async def test_outcomes_of_what_was_not_begun(self, ledger: Ledger) -> None:
        """A former process began them, or they have been forgotten: what may have been written is never clear."""
        for outcome in OrderOutcome:
            await ledger.settle(order(outcome), outcome)
        found = {outcome: await ledger.begin(order(outcome)) for outcome in OrderOutcome}

        assert {
            OrderOutcome.DELIVERED: DELIVERED,
            OrderOutcome.NOTHING: CLEAR,
            OrderOutcome.UNKNOWN: AMBIGUOUS,
        } == found

    async def test_a_settle_comes_before_the_next_begin(self, ledger: Ledger) -> None:
        """Although nobody waits for it."""
        found = []
        for _ in range(5):
            found.append(await ledger.begin(ONE))
            await ledger.settle(ONE, OrderOutcome.NOTHING)

        assert [CLEAR] * 5 == found

    async def test_many_orders_at_once(self, ledger: Ledger) -> None:
        """Five hundred begins of as many orders: each is begun, and after their outcomes each stands as it should."""
        names = [order(number) for number in range(500)]
        first = await asyncio.gather(*map(ledger.begin, names))
        outcomes = [list(OrderOutcome)[number % 3] for number in range(500)]
        await asyncio.gather(*map(ledger.settle, names, outcomes))
        second = await asyncio.gather(*map(ledger.begin, names))

        assert [CLEAR] * 500 == first
        assert [DELIVERED, CLEAR, AMBIGUOUS] * 166 + [DELIVERED, CLEAR] == second

    async def test_one_order_at_once(self, ledger: Ledger) -> None:
        """Five hundred begins of one order: one may send it."""
        found = await asyncio.gather(*[ledger.begin(ONE) for _ in range(500)])

        assert (1, 499) == (found.count(CLEAR), found.count(BUSY))

    @pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 20, 100])
    async def test_a_begin_that_is_given_up_leaves_nothing(self, ledger: Ledger, turns: int) -> None:
        """Whoever was cancelled has sent nothing, wherever the begin was; the order is clear for the next one."""
        task = asyncio.create_task(ledger.begin(ONE))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(result, BaseException):
            await ledger.settle(ONE, OrderOutcome.NOTHING)
        await ledger.flush()
        await ledger.flush()

        assert CLEAR is await ledger.begin(ONE)

    async def test_a_begin_given_up_as_its_answer_comes(self, ledger: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is committed and answered, and the caller is cancelled before it reads the answer."""
        tell = ledger._tell
        task: asyncio.Task[Any] = asyncio.create_task(ledger.begin(ONE))

        def tell_and_cancel(*given: Any) -> None:
            tell(*given)
            task.cancel()

        with monkeypatch.context() as patch:
            patch.setattr(ledger, "_tell", tell_and_cancel)
            await asyncio.wait([task])
        await ledger.flush()

        assert task.cancelled()
        assert CLEAR is await ledger.begin(ONE)

    async def test_whoever_leaves_the_queue_is_not_begun(self, ledger: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """While the state is slow, callers come and go: nothing is written for those who have gone."""
        perform, slow = ledger._perform, asyncio.Event()
        written: list[Any] = []

        async def perform_slowly(operations: Any, **named: Any) -> Any:
            await slow.wait()
            written.extend(operation.identity for operation in operations)
            return await perform(operations, **named)

        monkeypatch.setattr(ledger, "_perform", perform_slowly)
        first = asyncio.create_task(ledger.begin(ONE))
        await asyncio.sleep(0.01)
        gone = [asyncio.create_task(ledger.begin(order(number))) for number in range(5)]
        await asyncio.sleep(0.01)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        slow.set()
        await first
        await ledger.flush()

        assert [ONE] == written

    async def test_more_than_one_turn_waits_for_no_tick(self, open_it: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
        """What did not fit goes at once."""
        monkeypatch.setattr("impact_plugin.orders.ledger_queue.TICK_SECONDS", 60)
        async with open_it() as ledger:
            monkeypatch.setattr(ledger, "_turn_size", 10)
            found = await asyncio.wait_for(asyncio.gather(*[ledger.begin(order(name)) for name in range(95)]), 5)

        assert [CLEAR] * 95 == found

    async def test_giving_up_harms_no_other_attempt(self, ledger: Ledger) -> None:
        """A begin that would have been told BUSY is cancelled: the attempt in flight stays in flight."""
        first = await ledger.begin(ONE)
        for turns in range(12):
            task = asyncio.create_task(ledger.begin(ONE))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await ledger.flush()

        assert [CLEAR, BUSY] == [first, await ledger.begin(ONE)]

    async def test_an_error_on_the_way_leaves_no_permission(self, ledger: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The state fails after it has written: the begin raises, and what it wrote is taken back."""
        perform = ledger._perform

        async def perform_and_fail(*given: Any, **named: Any) -> None:
            await perform(*given, **named)
            raise OSError("the answer was lost")

        with monkeypatch.context() as patch:
            patch.setattr(ledger, "_perform", perform_and_fail)
            with pytest.raises(StateUnavailableError, match="the answer was lost"):
                await ledger.begin(ONE)
        await ledger.flush()

        assert CLEAR is await ledger.begin(ONE)

    async def test_a_settle_outlives_an_outage(self, ledger: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is kept, in order, until the state is back."""
        await asyncio.gather(*[ledger.begin(order(number)) for number in range(5)])

        async def fail(*_given: Any, **_named: Any) -> None:
            raise StateUnavailableError("gone")

        with monkeypatch.context() as patch:
            patch.setattr(ledger, "_perform", fail)
            for number, outcome in enumerate((OrderOutcome.DELIVERED, OrderOutcome.NOTHING, OrderOutcome.UNKNOWN)):
                await ledger.settle(order(number), outcome)
                with pytest.raises(StateUnavailableError, match="gone"):
                    await ledger.flush()
            # A second outcome is of an attempt that nobody remembers; only after the first it makes a difference.
            await ledger.settle(order(4), OrderOutcome.NOTHING)
            await ledger.settle(order(4), OrderOutcome.UNKNOWN)
            with pytest.raises(StateUnavailableError, match="gone"):
                await ledger.flush()
        await ledger.settle(order(3), OrderOutcome.NOTHING)
        found = [await ledger.begin(order(number)) for number in range(5)]

        assert [DELIVERED, CLEAR, AMBIGUOUS, CLEAR, AMBIGUOUS] == found

    async def test_closing_writes_what_was_settled(self, open_it: Opener, clock: Clock) -> None:
        """All of it, however much; and a closed ledger permits nothing."""
        names = [order(number) for number in range(600)]
        async with open_it() as ledger:
            await asyncio.gather(*map(ledger.begin, names))
            for name in names:
                await ledger.settle(name, OrderOutcome.DELIVERED)
        with pytest.raises(StateUnavailableError, match="closed"):
            await ledger.begin(ONE)
        clock.now += LEASE
        async with open_it() as ledger:
            found = await asyncio.gather(*map(ledger.begin, names))

        assert {DELIVERED} == set(found)

    async def test_orders_are_forgotten_after_their_time(self, open_it: Opener, clock: Clock) -> None:
        """Not before."""
        async with open_it(retention=0.5) as ledger:
            await attempt(ledger, ONE, OrderOutcome.DELIVERED)
            before = await ledger.begin(ONE)
            clock.now += 0.6
            await asyncio.sleep(0.6)

            assert [DELIVERED, CLEAR] == [before, await ledger.begin(ONE)]

    async def test_the_tally(self, ledger: Ledger) -> None:
        """What is held, and what is not settled."""
        before = await ledger.tally()
        await ledger.begin(ONE)
        await attempt(ledger, order("two"), OrderOutcome.DELIVERED)
        await ledger.check()
        after = await ledger.tally()

        assert LedgerTally(before.size + 2, before.capacity, 0, before.unsettled + 1) == after


class Step(msgspec.Struct, frozen=True):
    """Something that happens: ``begin``, ``settle``, ``crash``, or ``pass`` of so many seconds."""

    what: str
    name: int = 0
    again: bool = False
    outcome: OrderOutcome = OrderOutcome.NOTHING
    seconds: float = 0


steps = st.lists(
    st.one_of(
        st.builds(Step, st.just("begin"), st.integers(0, 2), st.sampled_from((False, False, False, True))),
        st.builds(Step, st.just("settle"), st.integers(0, 2), outcome=st.sampled_from(OrderOutcome)),
        st.builds(Step, st.just("pass"), seconds=st.sampled_from((1.0, LEASE, HOUR, WINDOW, -HOUR, -2 * DAY))),
        st.just(Step("crash")),
    ),
    min_size=2,
    max_size=25,
)
"""Histories of three orders."""


class _Attempt(msgspec.Struct):
    begun: int
    life: int
    outcome: OrderOutcome | None = None


class Reference:
    """The rules from the whole history of an order, told as plainly as can be."""

    def __init__(self, *, alone: bool) -> None:
        """``alone`` when all other processes are known to be dead."""
        self._alone = alone
        self._life = 0
        self._attempts: dict[int, list[_Attempt]] = {}

    def crash(self) -> None:
        """Another process takes over."""
        self._life += 1

    def begin(self, step: Step, now: int) -> Standing:
        """How an order stands."""
        attempts = self._attempts.setdefault(step.name, [])
        delivered = any(one.outcome is OrderOutcome.DELIVERED for one in attempts)
        if delivered and not step.again:
            return DELIVERED
        if attempts and self._in_flight(attempts[-1], now):
            return BUSY
        unknown = [one.begun for one in attempts if one.outcome in {None, OrderOutcome.UNKNOWN}]
        if unknown and not delivered and now - min(unknown) >= WINDOW * 1000:
            return EXPIRED
        attempts.append(_Attempt(now, self._life))
        return CLEAR if delivered or not unknown else AMBIGUOUS

    def settle(self, step: Step, now: int) -> None:
        """Of the attempt in flight, or of one that nobody remembers."""
        attempts = self._attempts.setdefault(step.name, [])
        if attempts and attempts[-1].outcome is None and attempts[-1].life == self._life:
            attempts[-1].outcome = step.outcome
        elif step.outcome is OrderOutcome.DELIVERED or all(one.outcome is OrderOutcome.NOTHING for one in attempts):
            attempts.append(_Attempt(now, self._life, step.outcome))

    def _in_flight(self, one: _Attempt, now: int) -> bool:
        dead = self._alone and one.life != self._life
        return one.outcome is None and not dead and abs(now - one.begun) < LEASE * 1000


async def standings(
    history: Sequence[Step], clock: Clock, begin_life: Callable[[], Awaitable[Ledger]], prefix: str
) -> list[Standing]:
    """What a ledger answers in a history; ``begin_life`` ends one process and begins another."""
    ledger, found = await begin_life(), []
    for step in history:
        identity = order(f"{prefix} {step.name}")
        if step.what == "begin":
            found.append(await ledger.begin(identity, again=step.again))
        elif step.what == "settle":
            await ledger.settle(identity, step.outcome)
        elif step.what == "crash":
            ledger = await begin_life()
        else:
            # What was settled without having been begun has the time at which it is written.
            await ledger.flush()
            clock.now += step.seconds
    return found


def expected(history: Sequence[Step], *, alone: bool) -> list[Standing]:
    """What the reference answers."""
    reference, clock, found = Reference(alone=alone), Clock(), []
    for step in history:
        now = int(clock.now * 1000)
        if step.what == "begin":
            found.append(reference.begin(step, now))
        elif step.what == "settle":
            reference.settle(step, now)
        elif step.what == "crash":
            reference.crash()
        else:
            clock.now += step.seconds
    return found
