"""The Redis backend keeps to the port, in one round trip a batch, and says clearly when the server does not answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from conformance import MINUTE, NEW, NOON, REPEAT, StoreConformance, ask, click, click_id, decisions, digest, query
from redis.asyncio import Redis

from impact_plugin.config.settings import make_settings
from impact_plugin.errors import StateError
from impact_plugin.store.base import CALL_SIZE, SessionStore, StoreUnavailableError
from impact_plugin.store.engine import Capacities
from impact_plugin.store.redis import PREFIX, RedisSettings, RedisStore, open_redis
from impact_plugin.store.registry import open_store
from impact_transformers import Secret


def settings_of(url: str, **more: Any) -> RedisSettings:
    """The settings of a store on that server."""
    return RedisSettings(Secret(url), Capacities(1000, 1000, 1000), 96 * 3600, 30 * 86400, more.get("timeout", 5.0))


@pytest.fixture(name="client")
async def client_fixture(redis_url: str) -> AsyncIterator[Redis]:
    """Lend a client of the shared server, emptied."""
    client = Redis.from_url(redis_url)
    await client.flushall()
    yield client
    await client.aclose()


class TestRedis(StoreConformance):
    """The suite, on an empty server."""

    @pytest.fixture(name="store")
    async def store_fixture(self, client: Redis, redis_url: str) -> AsyncIterator[SessionStore]:
        """Lend a store without anything in it."""
        del client
        async with open_redis(settings_of(redis_url)) as store:
            yield store


async def calls_of_scripts(client: Any) -> int:
    """How many script calls the server has counted."""
    stats = await client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


async def test_a_batch_is_one_round_trip(client: Redis, redis_url: str) -> None:
    """Up to 256 queries go in one call of the script."""
    async with open_redis(settings_of(redis_url)) as store:
        before = await calls_of_scripts(client)
        await store.decide([click(f"m{number}", number, click_id="C", anonymous="a") for number in range(CALL_SIZE)])

        assert before + 1 == await calls_of_scripts(client)


async def test_two_replicas_decide_as_one(client: Redis, redis_url: str) -> None:
    """Each message has one answer, whichever replica is asked; one of many parallel clicks is the click."""
    del client
    async with open_redis(settings_of(redis_url)) as one, open_redis(settings_of(redis_url)) as two:
        calls = [store.decide([click(f"m{number}", number)]) for number, store in enumerate([one, two] * 10)]
        first = [found[0].decision for found in await asyncio.gather(*calls)]
        again = [await decisions(store, click(f"m{number}", number)) for number, store in enumerate([two, one] * 10)]
        await one.decide([query("p", 0, click_id="C", anonymous="a")])

        assert 1 == first.count(NEW)
        assert first == [found[0] for found in again]
        assert "C" == await click_id(two, ask("o", 1, anonymous="a"))


async def test_a_lost_script_is_sent_again(client: Redis, redis_url: str) -> None:
    """A restarted server knows no scripts; the batch does not notice."""
    async with open_redis(settings_of(redis_url)) as store:
        await client.script_flush()

        assert [NEW, REPEAT] == await decisions(store, click("m1", 0), click("m2", 1))


async def test_everything_expires(client: Redis, redis_url: str) -> None:
    """Every key has a time to live: decisions their retention, clicks their days."""
    async with open_redis(settings_of(redis_url)) as store:
        await store.decide([
            click("m1", 0, click_id="C", anonymous="a"),
            query("i", 1, joins=True, anonymous="a", user="u"),
            ask("o", -5, anonymous="b", order=True),
        ])  # fmt: skip
    living = {key.decode()[len(PREFIX)]: await client.pttl(key) for key in await client.keys("*")}

    assert {"c", "i", "a", "w"} == set(living)
    assert 96 * 60 * MINUTE < living["c"] <= 96 * 60 * MINUTE + 30 * MINUTE
    assert 0 < living["a"] <= 96 * 60 * MINUTE < living["i"] <= 30 * 24 * 60 * MINUTE
    assert 0 < living["w"] <= 60 * MINUTE


async def test_nothing_is_stored_but_digests_times_and_click_ids(client: Redis, redis_url: str) -> None:
    """Keys are the prefix, a letter and a digest."""
    async with open_redis(settings_of(redis_url)) as store:
        await store.decide([click("m1", 0, click_id="CLICK", anonymous="jane"), ask("o", 1, user="jane")])
    keys = await client.keys("*")

    assert all(len(key) == len(PREFIX) + 21 and key.startswith(PREFIX.encode()) for key in keys)
    assert not [key for key in keys if b"jane" in key or b"jane" in await client.get(key)]


async def test_a_killed_server_is_told_within_the_deadline(make_redis: Callable[..., Any]) -> None:
    """Every call fails as unavailable, none hangs; when the server is back, the store goes on, with what was missed."""
    server = make_redis()
    async with open_redis(settings_of(server.url, timeout=1.0)) as store:
        await store.decide([click("m1", 0)])
        server.kill()
        for call in (store.decide([click("m2", 1)]), store.check(), store.tally(), store.forget([digest("x")])):
            async with asyncio.timeout(5):
                with pytest.raises(StoreUnavailableError, match=r"unix://.* cannot be used"):
                    await call
        alone = await store.decide_locally([click("m3", 2, click_id="C", anonymous="a")])
        server.start()
        await store.check()

        assert NEW == alone[0].decision
        assert [REPEAT] == await decisions(store, click("m4", 3))
        assert "C" == await click_id(store, ask("o", 5, anonymous="a"))


async def test_a_frozen_server_is_told_within_the_deadline(client: Redis, redis_url: str) -> None:
    """A server that takes the command and does not answer counts as down after the timeout."""
    async with open_redis(settings_of(redis_url, timeout=0.2)) as store:
        await client.client_pause(2000)
        with pytest.raises(StoreUnavailableError, match=r"did not answer within 0\.2 s|TimeoutError"):
            await store.decide([click("m1", 0)])
        await client.client_unpause()

        assert [NEW] == await decisions(store, click("m2", 0, "other"))


async def test_what_is_missed_is_bounded(client: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the oldest queries of an outage are not written later, and are counted."""
    del client
    monkeypatch.setattr("impact_plugin.store.redis.MISSED_LIMIT", 3)
    async with open_redis(settings_of(redis_url)) as store:
        await store.decide_locally([query(f"p{n}", n, click_id=f"C{n}", anonymous="a") for n in range(5)])
        await store.check()

        assert 2 == (await store.tally()).unsaved
        assert [None, "C2"] == [
            await click_id(store, ask("o1", 1.5, anonymous="a")), await click_id(store, ask("o2", 2.5, anonymous="a")),
        ]  # fmt: skip


async def test_a_full_server_is_told(make_redis: Callable[..., Any]) -> None:
    """Out of memory is a state that cannot be written, not an answer."""
    server = make_redis("--maxmemory", "1mb", "--maxmemory-policy", "noeviction")
    async with open_redis(settings_of(server.url)) as store:
        with pytest.raises(StoreUnavailableError, match="OutOfMemoryError"):
            await store.decide([click(f"m{number}", 0, f"k{number}") for number in range(40 * CALL_SIZE)])


async def test_evictions_of_the_server_are_counted(make_redis: Callable[..., Any]) -> None:
    """A server that may evict does so with live entries: an operator must see it."""
    server = make_redis("--maxmemory", "3mb", "--maxmemory-policy", "volatile-ttl")
    async with open_redis(settings_of(server.url)) as store:
        evicted = 0
        for number in range(100):
            await store.decide([click(f"m{number}-{n}", 0, f"k{number}-{n}") for n in range(CALL_SIZE)])
            evicted += (await store.tally()).evicted["keys"]

        assert evicted > 0


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://user:hunter2@127.0.0.1:9/0", r"redis://127\.0\.0\.1:9 cannot be used"),
        ("unix:///no/such/redis.sock?password=hunter2", r"unix:///no/such/redis\.sock cannot be used"),
        ("redis://127.0.0.1:9/0?socket_timeout=hunter2", "cannot be used"),
    ],
)
async def test_a_server_that_is_not_there_stops_the_start(url: str, told: str) -> None:
    """The service does not begin without its state; the error names the place and never the password."""
    with pytest.raises(StateError, match=told) as found:
        async with open_redis(settings_of(url)):
            pass

    assert "hunter2" not in str(found.value)
    assert "hunter2" not in repr(settings_of(url))


async def test_a_wrong_password_is_told_without_it(make_redis: Callable[..., Any]) -> None:
    """Authentication fails at the start."""
    server = make_redis("--requirepass", "hunter2")
    with pytest.raises(StateError, match=r"(?i)auth") as found:
        async with open_redis(settings_of(server.url)):
            pass
    async with open_redis(settings_of(f"{server.url}?password=hunter2")) as store:
        assert [NEW] == await decisions(store, click("m1", 0))

    assert "hunter2" not in str(found.value)


@pytest.mark.parametrize(
    ("info", "told"),
    [
        ({"redis_version": "6.0.16"}, r"is version 6\.0\.16; 6\.2 or newer is needed"),
        ({"redis_version": "7.2.4", "cluster_enabled": 1}, "is a cluster"),
    ],
)
async def test_servers_that_will_not_do_are_refused(
    monkeypatch: pytest.MonkeyPatch, redis_url: str, info: dict[str, Any], told: str
) -> None:
    """Too old, or a cluster: said at the start, with what would do."""

    async def answer(_store: RedisStore, *_words: Any) -> Any:
        return info

    monkeypatch.setattr(RedisStore, "_ask", answer)
    with pytest.raises(StateError, match=told):
        async with open_redis(settings_of(redis_url)):
            pass


async def test_one_setting_chooses_the_backend(client: Redis, redis_url: str) -> None:
    """``state.url`` with a server's address opens it, with the retention of the settings."""
    state = make_settings({"state": {"url": redis_url, "decision_retention_hours": 24}}).state
    async with open_store(state, lambda: NOON / 1000) as store:
        await store.decide([ask("o", 1, anonymous="a")])
    (answer,) = [key for key in await client.keys("*") if key.startswith(f"{PREFIX}a".encode())]

    assert isinstance(store, RedisStore)
    assert 0 < await client.pttl(answer) <= 24 * 60 * MINUTE
