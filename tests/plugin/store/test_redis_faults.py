"""The Redis backend in trouble, and that its script has the very rules of the engine."""

import asyncio
import random
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from conformance import MINUTE, NEW, NOON, WINDOW, ask, click, click_id, decisions, digest, query
from redis.asyncio import Redis

from impact_plugin.config.settings import make_settings
from impact_plugin.errors import StateError
from impact_plugin.store.base import CALL_SIZE, SessionAnswer, SessionQuery, StoreUnavailableError
from impact_plugin.store.engine import Capacities, Engine
from impact_plugin.store.redis import RedisSettings, RedisStore, open_redis
from impact_plugin.store.registry import open_store
from impact_transformers import Secret

RETENTION_HOURS = 96
ROOM = Capacities(10_000, 10_000, 10_000)


def settings_of(url: str, timeout: float = 5.0) -> RedisSettings:
    """The settings of a store on that server."""
    return RedisSettings(Secret(url), ROOM, RETENTION_HOURS * 3600, 30 * 86400, timeout)


@pytest.fixture(name="client")
async def client_fixture(redis_url: str) -> AsyncIterator[Redis]:
    """Lend a client of the shared server, emptied."""
    client = Redis.from_url(redis_url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture(name="store")
async def store_fixture(client: Redis, redis_url: str) -> AsyncIterator[RedisStore]:
    """Lend a store on the empty server."""
    async with open_redis(settings_of(redis_url)) as store:
        yield store


def any_query(chance: random.Random) -> SessionQuery:
    """A query that meets others: few keys, visitors, users, ids and times."""
    asks, candidate = chance.random() < 0.4, chance.random() < 0.5
    return SessionQuery(
        owner=digest(f"message {chance.randrange(400)}"),
        time=NOON + chance.randrange(80) * MINUTE * chance.choice((1, 1, 1, 5, 100)),
        key=digest(f"key {chance.randrange(4)}") if candidate else None,
        window=WINDOW if candidate else 0,
        click_id=None if asks else chance.choice((None, "C1", "C2", "b", "B", "ü", "😀")),
        anonymous=chance.choice((None, *(digest(f"anonymous {number}") for number in range(3)))),
        user=chance.choice((None, None, *(digest(f"user {number}") for number in range(3)))),
        asks=asks,
        joins=chance.random() < 0.3,
        order=asks and chance.random() < 0.4,
        keeps=asks or chance.random() < 0.2,
        referral=chance.choice((10, 60, 30 * 1440)) * MINUTE,
        first=chance.random() < 0.3,
    )


@pytest.mark.parametrize("seed", range(12))
async def test_the_script_has_the_rules_of_the_engine(store: RedisStore, seed: int) -> None:
    """Batches of any kind and size, with retries: each answer is the engine's, to the last field; so is the count."""
    chance = random.Random(seed)  # noqa: S311 - a test repeats what it does
    engine = Engine(ROOM, RETENTION_HOURS * 3_600_000)
    known: dict[bytes, SessionQuery] = {}
    expected: list[SessionAnswer] = []
    actual: list[SessionAnswer] = []
    for size in (1, 2, 5, 20, 1, 300, 3, 40, 1, 5):
        drawn = [any_query(chance) for _ in range(size)]
        # A message has one content, however often it comes, and comes once in a batch.
        batch = list({one.owner: known.setdefault(one.owner, one) for one in drawn}.values())
        answers = engine.write(batch)
        engine.read(batch, answers)
        expected += answers
        actual += await store.decide(batch)

    assert expected == actual
    assert engine.late_clicks == (await store.tally()).late_clicks


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2/x@127.0.0.1:9/0",
        "redis://user:hunter2#x@127.0.0.1:9/0",
        "redis://user:hunter2?x@127.0.0.1:9/0",
        "redis://user:9/hunter2@127.0.0.1:9/0",
        "redis://user:hunter2@127.0.0.1:port/0",
        "redis://user:hunter2@[::1/0",
        "unix://user:hunter2/x@/no/such/redis.sock",
        "unix://user:9/hunter2@/no/such/redis.sock",
    ],
)
async def test_a_password_that_breaks_the_address_is_not_told(url: str) -> None:
    """A slash in a password makes it look like a port or a path; the error tells how to write it, and not the URL."""
    with pytest.raises(StateError, match="in user and password write %2F for /") as found:
        async with open_redis(settings_of(url)):
            pass

    assert "hunter2" not in "".join(traceback.format_exception(found.value)).replace(url, "")


async def test_an_unknown_option_stops_the_start(redis_url: str) -> None:
    """What the client does not know is a mistake in the setting, told as such."""
    with pytest.raises(StateError, match="TypeError; look at the options after the question mark"):
        async with open_redis(settings_of(f"{redis_url}?colour=hunter2")):
            pass


@pytest.mark.parametrize("option", ["decode_responses=true", "protocol=2", "protocol=3"])
async def test_options_that_change_answers_do_no_harm(client: Redis, redis_url: str, option: str) -> None:
    """However the client was told to talk, the answers of the script are read."""
    del client
    async with open_redis(settings_of(f"{redis_url}?{option}")) as store:
        assert [NEW] == await decisions(store, click("m1", 0))
        assert {"keys": 1} == (await store.tally()).sizes


async def test_without_the_extra_the_error_tells_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most need no client of Redis, so it is not installed with the service."""
    monkeypatch.setitem(sys.modules, "impact_plugin.store.redis", None)
    state = make_settings({"state": {"url": "redis://127.0.0.1:9/0"}}).state
    with pytest.raises(StateError, match=r"pip install 'impact-plugin\[redis\]'"):
        async with open_store(state, lambda: NOON / 1000):
            pass


async def test_a_full_server_is_not_back(make_redis: Callable[..., Any]) -> None:
    """It answers a ping, but a batch would fail at once: the outage goes on, so that its grace can run out."""
    server = make_redis()
    client = Redis.from_url(server.url)
    async with open_redis(settings_of(server.url)) as store:
        await client.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailableError, match="OutOfMemoryError"):
            await store.decide([click("m1", 0)])
        with pytest.raises(StoreUnavailableError, match="OutOfMemoryError"):
            await store.check()
        await client.config_set("maxmemory", 0)
        await store.check()

        assert [NEW] == await decisions(store, click("m1", 0))
    await client.aclose()


async def test_a_server_that_became_a_replica_is_not_back(make_redis: Callable[..., Any]) -> None:
    """After a failover the old address may still answer, and take nothing."""
    server = make_redis()
    client = Redis.from_url(server.url)
    async with open_redis(settings_of(server.url)) as store:
        await client.execute_command("REPLICAOF", "127.0.0.1", "9")
        for call in (store.decide([click("m1", 0)]), store.check()):
            with pytest.raises(StoreUnavailableError, match="ReadOnlyError"):
                await call
        await client.execute_command("REPLICAOF", "NO", "ONE")
        await store.check()

        assert [NEW] == await decisions(store, click("m1", 0))
    await client.aclose()


async def test_a_large_call_has_one_deadline(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round trip is quick enough by itself; all of them together are not."""
    execute = store._client.execute_command

    async def slowly(*words: Any) -> Any:
        await asyncio.sleep(0.2)
        return await execute(*words)

    monkeypatch.setattr(store._client, "execute_command", slowly)
    monkeypatch.setattr(store, "_settings", settings_of("redis://127.0.0.1", timeout=1.0))
    with pytest.raises(StoreUnavailableError, match="did not answer within 1 s"):
        await store.decide([query(f"m{number}", 0) for number in range(10 * CALL_SIZE)])


async def test_an_answer_that_is_not_the_scripts(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something between us and the server may answer anything; the batch is kept, not failed."""

    async def answer(*_words: Any) -> bytes:
        return b"OK"

    monkeypatch.setattr(store._client, "execute_command", answer)
    with pytest.raises(StoreUnavailableError, match="its answer is not the script's"):
        await store.decide([click("m1", 0)])


async def test_what_was_forgotten_does_not_come_back(store: RedisStore) -> None:
    """A click that waits for the server is forgotten with the rest; the decision about its message is not."""
    await store.decide_locally(
        [click("m1", 0, click_id="A", anonymous="a", user="u"), query("p", 0, click_id="B", anonymous="b")]
    )
    await store.forget([digest("anonymous a"), digest("user u")])
    alone = await store.decide_locally([ask("o0", 1, anonymous="a")])
    await store.check()

    assert None is alone[0].click_id
    assert [None, None, "B"] == [
        await click_id(store, ask("o1", 1, anonymous="a")),
        await click_id(store, ask("o2", 1, user="u")),
        await click_id(store, ask("o3", 1, anonymous="b")),
    ]
    assert (await store.decide([click("m1", 0)]))[0].replayed


async def test_a_large_batch_alone_is_answered_as_one(store: RedisStore) -> None:
    """Also without the server an order is stitched that stands before its landing, however far."""
    filler = [query(f"f{number}", 0) for number in range(2 * CALL_SIZE)]
    batch = [ask("o", 5, anonymous="a"), *filler, query("p", 0, click_id="C", anonymous="a")]
    found = await store.decide_locally(batch)

    assert (len(batch), "C") == (len(found), found[0].click_id)


async def test_what_is_missed_while_catching_up_is_kept(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit only what waits gives way, not what is under way; each one is written or counted."""
    monkeypatch.setattr("impact_plugin.store.redis.MISSED_LIMIT", 300)
    run, late = store._run, [query(f"l{n}", 0, click_id="C", anonymous=f"l{n}") for n in range(290)]

    async def run_and_miss_more(phase: str, queries: Any, *more: bytes) -> bytes:
        nonlocal late
        if late:
            batch, late = late, []
            await store.decide_locally(batch)
        return await run(phase, queries, *more)

    await store.decide_locally([query(f"e{n}", 0, click_id="C", anonymous=f"e{n}") for n in range(300)])
    monkeypatch.setattr(store, "_run", run_and_miss_more)
    await store.check()
    found = await store.decide([ask(f"o{one}{n}", 1, anonymous=f"{one}{n}") for one in "el" for n in range(290)])
    lost = [number for number, answer in enumerate(found) if answer.click_id is None]

    # 256 of 300 were under way, 290 came to the 44 that waited, so 34 of those gave way.
    assert list(range(256, 290)) == lost
    assert 34 == (await store.tally()).unsaved


async def test_a_catch_up_that_fails_loses_nothing(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server goes away again in the middle; what was under way is written the next time."""
    await store.decide_locally([query("p", 0, click_id="C", anonymous="a")])

    async def fail(*_given: Any) -> bytes:
        raise StoreUnavailableError("gone again")

    with monkeypatch.context() as patch:
        patch.setattr(store, "_run", fail)
        with pytest.raises(StoreUnavailableError, match="gone again"):
            await store.check()
    await store.check()

    assert "C" == await click_id(store, ask("o", 1, anonymous="a"))


async def test_evictions_before_the_start_are_not_news(make_redis: Callable[..., Any]) -> None:
    """A process that joins a long-lived server counts from then on."""
    server = make_redis("--maxmemory", "3mb", "--maxmemory-policy", "volatile-ttl")
    client = Redis.from_url(server.url)
    for number in range(4000):
        await client.set(f"other-{number}", b"x" * 1000, px=100_000)
    async with open_redis(settings_of(server.url)) as store:
        first = await store.tally()
    told = (await client.info("stats"))["evicted_keys"]
    await client.aclose()

    assert told > 0
    assert {"keys": 0} == first.evicted
