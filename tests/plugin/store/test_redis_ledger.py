"""The ledger at a server keeps to the port, also for several processes, and permits nothing that is not written."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from ledger_conformance import (
    AMBIGUOUS,
    BUSY,
    CLEAR,
    DELIVERED,
    LEASE,
    ONE,
    RETENTION,
    WINDOW,
    Clock,
    LedgerConformance,
    Opener,
    Step,
    attempt,
    clock_fixture,
    expected,
    order,
    standings,
    steps,
)
from redis.asyncio import Redis

from impact_plugin.errors import StateError
from impact_plugin.orders.ledger import Begin, Entry, Ledger, Operation, OrderOutcome, Settle, Terms, play
from impact_plugin.store.base import StoreUnavailableError
from impact_plugin.store.redis_ledger import TURN_SIZE, RedisLedger, RedisLedgerSettings, open_redis_ledger
from impact_plugin.store.redis_server import PREFIX
from impact_transformers import Secret

__all__ = ["clock_fixture"]

HISTORIES: Final = count()


def settings_of(url: str, **more: Any) -> RedisLedgerSettings:
    """The settings of a ledger on that server."""
    return msgspec.structs.replace(RedisLedgerSettings(Secret(url), RETENTION, WINDOW, LEASE, 5.0), **more)


@pytest.fixture(name="client")
async def client_fixture(redis_url: str) -> AsyncIterator[Redis]:
    """Lend a client of the shared server, emptied."""
    client = Redis.from_url(redis_url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture(name="open_it")
def open_it_fixture(client: Redis, redis_url: str, clock: Clock) -> Opener:
    """Lend an opener of ledgers on the server, which is empty."""
    del client

    @asynccontextmanager
    async def open_it(**more: Any) -> AsyncIterator[RedisLedger]:
        async with open_redis_ledger(settings_of(redis_url, **more), clock) as ledger:
            yield ledger

    return open_it


class TestRedisLedger(LedgerConformance):
    """The suite, on an empty server."""


@settings(max_examples=200, deadline=None)
@given(steps)
def test_any_history_stands_as_the_reference_has_it(redis_url: str, history: list[Step]) -> None:
    """Begins, outcomes, processes that die and clocks of any order: each answer is the one of the plain rules."""

    async def run() -> Any:
        clock, lives = Clock(), AsyncExitStack()

        async def begin_life() -> Ledger:
            await lives.aclose()
            return await lives.enter_async_context(open_redis_ledger(settings_of(redis_url), clock))

        async with lives:
            return await standings(history, clock, begin_life, f"history {next(HISTORIES)}")

    assert expected(history, alone=False) == asyncio.run(run())


def any_operations(chance: random.Random, size: int) -> list[Operation]:
    """Operations that meet others: few orders, few names of attempts, any outcome."""
    found: list[Operation] = []
    for _ in range(size):
        identity, name = order(chance.randrange(4)), chance.choice((b"a", b"b", b"c"))
        begins = chance.random() < 0.5
        outcome = chance.choice(list(OrderOutcome))
        found.append(Begin(identity, name, chance.random() < 0.3) if begins else Settle(identity, name, outcome))
    return found


@pytest.mark.parametrize("seed", range(10))
async def test_the_script_has_the_rules_of_the_module(open_it: Opener, clock: Clock, seed: int) -> None:
    """Turns of any kind and size, with attempts that are repeated: each answer is the one of ``play``."""
    chance, book = random.Random(seed), dict[bytes, Entry]()  # noqa: S311 - a test repeats what it does
    terms = Terms(int(WINDOW * 1000), int(LEASE * 1000))
    wanted, found = [], []
    async with open_it() as ledger:
        for size in (1, 2, 5, 20, 1, 40, 3, 1, 1, 5, 10, 1):
            operations = any_operations(chance, size)
            wanted += play(book, operations, int(clock.seconds * 1000), terms)
            found += await ledger._perform(operations, probe=False)
            clock.seconds += chance.choice((0, 1, LEASE, -LEASE, WINDOW / 2))

    assert wanted == found


async def calls_of_scripts(client: Any) -> int:
    """How many script calls the server has counted."""
    stats = await client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


async def test_of_two_processes_one_sends(open_it: Opener, clock: Clock) -> None:
    """The other is told that an attempt is in flight and, when that one is silent for its lease, may send again."""
    async with open_it() as one, open_it() as two:
        names = [order(number) for number in range(100)]
        found = await asyncio.gather(*[ledger.begin(name) for name in names for ledger in (one, two)])
        pairs = [set(found[at : at + 2]) for at in range(0, 200, 2)]
        clock.seconds += LEASE
        after = await asyncio.gather(*map(two.begin, names))

        assert [{CLEAR, BUSY}] * 100 == pairs
        assert [AMBIGUOUS] * 100 == after


async def test_the_outcome_of_one_process_is_known_to_the_other(open_it: Opener) -> None:
    """Delivered by one is delivered for all, and nothing came of what came to nothing."""
    async with open_it() as one, open_it() as two:
        await attempt(one, ONE, OrderOutcome.DELIVERED)
        await attempt(one, order("two"), OrderOutcome.NOTHING)
        await one.flush()

        assert [DELIVERED, CLEAR] == [await two.begin(ONE), await two.begin(order("two"))]


async def test_a_process_that_comes_late_takes_nothing_back(open_it: Opener, clock: Clock) -> None:
    """Its lease ran out, the other sends again: its own attempt counts as written, whatever it says but delivered."""
    async with open_it() as one, open_it() as two:
        for outcome in OrderOutcome:
            await one.begin(order(outcome))
        clock.seconds += LEASE
        for outcome in OrderOutcome:
            await two.begin(order(outcome))
            await one.settle(order(outcome), outcome)
        await one.flush()
        busy = [await two.begin(order(outcome)) for outcome in OrderOutcome]
        for outcome in OrderOutcome:
            await two.settle(order(outcome), OrderOutcome.NOTHING)
        await two.flush()

        assert [DELIVERED, BUSY, BUSY] == busy
        assert [DELIVERED, AMBIGUOUS, AMBIGUOUS] == [await one.begin(order(outcome)) for outcome in OrderOutcome]


async def test_what_waits_goes_in_one_round_trip(client: Redis, open_it: Opener) -> None:
    """Begins and outcomes of one moment, up to the size of a turn, are one call of the script."""
    async with open_it() as ledger:
        names = [order(number) for number in range(TURN_SIZE)]
        before = await calls_of_scripts(client)
        await asyncio.gather(*map(ledger.begin, names))
        middle = await calls_of_scripts(client)
        await asyncio.gather(*[ledger.settle(name, OrderOutcome.DELIVERED) for name in names])
        await ledger.flush()
        after = await calls_of_scripts(client)

        assert [1, 1] == [middle - before, after - middle]


async def test_every_key_expires_and_is_a_digest(client: Redis, open_it: Opener) -> None:
    """Keys are the prefix, a letter and a digest, and live for the retention."""
    async with open_it() as ledger:
        await ledger.begin(order("begun"))
        await attempt(ledger, order("delivered"), OrderOutcome.DELIVERED)
        await attempt(ledger, order("unknown"), OrderOutcome.UNKNOWN)
        await attempt(ledger, order("nothing"), OrderOutcome.NOTHING)
        await ledger.flush()
        keys = [key for key in await client.keys("*") if not key.endswith(b"check")]
        lives = [await client.pttl(key) for key in keys]

        assert [True] * 3 == [len(key) == len(PREFIX) + 21 and key.startswith(f"{PREFIX}o".encode()) for key in keys]
        assert [True] * 3 == [RETENTION * 1000 - 60_000 < life <= RETENTION * 1000 for life in lives]


async def test_a_repeated_command_is_answered_as_before(open_it: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client sends a command again when its answer was lost: the attempt is not in the way of itself."""
    async with open_it() as ledger:
        execute = ledger._client.execute_command

        async def twice(*words: Any) -> Any:
            await execute(*words)
            return await execute(*words)

        monkeypatch.setattr(ledger._client, "execute_command", twice)
        outcomes = (OrderOutcome.NOTHING, OrderOutcome.UNKNOWN, OrderOutcome.NOTHING, OrderOutcome.DELIVERED)
        found = [await attempt(ledger, ONE, outcome) for outcome in outcomes]
        found += [await ledger.begin(ONE), await ledger.begin(ONE, again=True)]

        assert [CLEAR, CLEAR, AMBIGUOUS, AMBIGUOUS, DELIVERED, CLEAR] == found


async def test_a_lost_script_is_sent_again(client: Redis, open_it: Opener) -> None:
    """A restarted server knows no scripts; the order does not notice."""
    async with open_it() as ledger:
        await client.script_flush()

        assert CLEAR is await attempt(ledger, ONE, OrderOutcome.DELIVERED)
        assert DELIVERED is await ledger.begin(ONE)


async def test_a_killed_server_permits_nothing(make_redis: Callable[..., Any], clock: Clock) -> None:
    """Every call fails in time; when the server is back, what was settled meanwhile is written."""
    server = make_redis()
    async with open_redis_ledger(settings_of(server.url, timeout=1.0), clock) as ledger:
        await ledger.begin(ONE)
        server.kill()
        for call in (ledger.begin(order("two")), ledger.check(), ledger.flush(), ledger.tally()):
            with pytest.raises(StoreUnavailableError, match=r"unix://.* (cannot be used|took no order within 1 s)"):
                await asyncio.wait_for(call, 5)
            await ledger.settle(ONE, OrderOutcome.DELIVERED)
        server.start()
        await ledger.check()

        assert [DELIVERED, CLEAR] == [await ledger.begin(ONE), await ledger.begin(order("two"))]


async def test_a_stalled_server_permits_nothing(make_redis: Callable[..., Any], clock: Clock) -> None:
    """It takes the command, and carries it out when nobody waits any more: the order is clear all the same."""
    server = make_redis()
    async with open_redis_ledger(settings_of(server.url, timeout=0.5), clock) as ledger:
        os.kill(server._process.pid, signal.SIGSTOP)
        found = await asyncio.gather(ledger.begin(ONE), ledger.begin(order("two")), return_exceptions=True)
        os.kill(server._process.pid, signal.SIGCONT)
        await ledger.check()

        assert {StoreUnavailableError} == set(map(type, found))
        assert [CLEAR, CLEAR] == [await ledger.begin(ONE), await ledger.begin(order("two"))]


async def test_a_full_server_permits_nothing(make_redis: Callable[..., Any], clock: Clock) -> None:
    """A turn that it took in part is taken back when there is room."""
    server = make_redis()
    client = Redis.from_url(server.url)
    async with open_redis_ledger(settings_of(server.url), clock) as ledger:
        await ledger.begin(ONE)
        await client.config_set("maxmemory", 1)
        for call in (ledger.begin(order("two")), ledger.check()):
            with pytest.raises(StoreUnavailableError, match="OutOfMemoryError"):
                await call
        await client.config_set("maxmemory", 0)
        await ledger.settle(ONE, OrderOutcome.DELIVERED)
        await ledger.check()

        assert [DELIVERED, CLEAR] == [await ledger.begin(ONE), await ledger.begin(order("two"))]
    await client.aclose()


@pytest.mark.parametrize("answer", [b"OK", None, [9], [1, 1], ["x"]])
async def test_an_answer_that_is_not_the_scripts(open_it: Opener, monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    """Something between us and the server may answer anything, which permits nothing."""
    async with open_it() as ledger:

        async def tell(*_words: Any) -> Any:
            return answer

        with monkeypatch.context() as patch:
            patch.setattr(ledger._client, "execute_command", tell)
            with pytest.raises(StoreUnavailableError, match="its answer is not the script's"):
                await ledger.begin(ONE)

        assert CLEAR is await ledger.begin(ONE)


@pytest.mark.parametrize(
    "url", ["redis://user:hunter2@127.0.0.1:9/0", "redis://:hunter2/x@127.0.0.1:9/0", "unix:///no/x?password=hunter2"]
)
async def test_no_password_in_an_error(url: str) -> None:
    """The start is refused, the place is named where it can be, the password never."""
    with pytest.raises(StateError, match=r"state\.url") as found:
        async with open_redis_ledger(settings_of(url), Clock()):
            pass

    assert "hunter2" not in str(found.value) + repr(settings_of(url))
