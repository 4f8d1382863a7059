"""The settings of the session state, each seen at work through a running service."""

import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from impact_plugin.app import Service
from impact_plugin.errors import StateUnavailableError
from impact_plugin.store.base import SessionQuery
from impact_plugin.store.embedded import EmbeddedStore
from tests import builders
from tests.builders import Clock, moment

Start = Callable[..., Awaitable[Service]]
Item = Callable[..., dict[str, Any]]

HOUR = 3600.0


@pytest.fixture(name="clock")
def clock_fixture() -> Clock:
    """Lend the clock that the services go by."""
    return Clock()


@pytest.fixture(name="start")
def start_fixture(start: Start, clock: Clock) -> Start:
    """Lend a starter of services that go by the clock."""
    return partial(start, clock=clock)


def landing(visitor: str = "a-1", message: str = "m-1", minute: int = 0) -> dict[str, Any]:
    """A page call that is a click."""
    return builders.landing(message, visitor, **moment(minute))


def order(visitor: str = "a-1", message: str = "m-2") -> dict[str, Any]:
    """An order an hour later, without a click id."""
    return builders.order(f"o-{message}", message, visitor, **moment(60))


@pytest.fixture(name="send")
def send_fixture(http: aiohttp.ClientSession, item: Item) -> Callable[..., Awaitable[list[tuple[str, str | None]]]]:
    """Lend a sender of events that tells the label and the click id of each request."""

    async def send(service: Service, *events: dict[str, Any]) -> list[tuple[str, str | None]]:
        body = msgspec.json.encode([item(event, number) for number, event in enumerate(events, 1)])
        async with http.post(f"{service.url}/v0/destinations/impact", data=body) as response:
            assert response.status == 200, await response.text()
            outputs = [one["output"] for one in msgspec.json.decode(await response.read())]
        return [(one["endpointPath"], one["body"]["FORM"].get("ClickId")) for one in outputs]

    return send


async def sample(http: aiohttp.ClientSession, service: Service, name: str) -> float:
    """One value of the service's metrics."""
    async with http.get(f"{service.operator_url}/metrics") as response:
        for line in (await response.text()).splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
    return 0.0


async def test_a_landing_is_a_click_and_its_order_gets_the_id(start: Start, send: Any, http: Any) -> None:
    """The whole promise: a click, its repeat, and an order that finds the click id; each is counted."""
    service = await start()
    found = await send(service, landing(), landing(message="m-3", minute=20), order())

    assert [("clicks", "CLICK-1"), ("pageload", "CLICK-1"), ("conversions", "CLICK-1")] == found
    assert await sample(http, service, 'impact_plugin_click_decisions_total{decision="new"}') == 1
    assert await sample(http, service, 'impact_plugin_click_decisions_total{decision="repeat"}') == 1
    assert await sample(http, service, 'impact_plugin_orders_total{click_id="stitched"}') == 1
    assert await sample(http, service, 'impact_plugin_events_total{call="Page",outcome="clicks",reason=""}') == 1


async def test_another_secret_finds_nothing(start: Start, send: Any, tmp_path: Path) -> None:
    """The digests are keyed: with another secret the same visitor's click is not there."""
    service = await start(state={"dir": str(tmp_path / "one"), "secret": "the first secret of two"})
    await send(service, landing())
    (tmp_path / "two").mkdir()
    for name in ("sessions.db", "sessions.db-wal"):
        (tmp_path / "two" / name).write_bytes((tmp_path / "one" / name).read_bytes())
    same = await start(state={"dir": str(tmp_path / "two"), "secret": "the other secret of two"})

    assert [("conversions", None)] == await send(same, order())
    assert [("conversions", "CLICK-1")] == await send(service, order())


@pytest.mark.parametrize(("durability", "synchronous"), [("power", 2), ("process", 1)])
async def test_durability_decides_how_a_commit_is_written(
    start: Start, monkeypatch: pytest.MonkeyPatch, durability: str, synchronous: int
) -> None:
    """``power`` lets SQLite wait for the disk at each commit (FULL), ``process`` does not (NORMAL)."""
    opened: list[sqlite3.Connection] = []
    load = EmbeddedStore.load

    def remember(store: EmbeddedStore) -> None:
        opened.append(store._connection)
        load(store)

    monkeypatch.setattr(EmbeddedStore, "load", remember)
    await start(state={"durability": durability})

    assert opened[0].execute("PRAGMA synchronous").fetchone() == (synchronous,)


async def test_decisions_expire_after_their_retention(start: Start, send: Any, clock: Clock) -> None:
    """Within the retention a repeated message gets its old answer; when it is over, the message is a new one."""
    service = await start(state={"decision_retention_hours": 24})
    await send(service, order())
    await send(service, landing())
    clock.now += 23 * HOUR
    kept = await send(service, order())
    clock.now += 30 * HOUR

    assert [("conversions", None)] == kept
    assert [("conversions", "CLICK-1")] == await send(service, order())


async def test_clicks_are_forgotten_after_their_days(start: Start, send: Any, clock: Clock) -> None:
    """The memory of clicks ends with ``click_memory_days``."""
    service = await start(state={"click_memory_days": 2})
    await send(service, landing())
    clock.now += 47 * HOUR
    before = await send(service, order(message="m-before"))
    clock.now += 48 * HOUR

    assert [("conversions", "CLICK-1")] == before
    assert [("conversions", None)] == await send(service, order(message="m-after"))


@pytest.mark.parametrize("name", ["claims", "identities", "answers"])
async def test_capacities_bound_what_is_kept(start: Start, send: Any, name: str) -> None:
    """At capacity the oldest goes: of three visitors, with room for two, the first is no longer known."""
    service = await start(state={f"max_{name}": 2})
    visitors = ["a-1", "a-2", "a-3"]
    early = [order(visitor, f"early-{visitor}") for visitor in visitors]
    await send(service, *early)
    await send(service, *[landing(visitor, f"landing-{visitor}") for visitor in visitors])
    late = await send(service, *[order(visitor, f"late-{visitor}") for visitor in visitors])
    again = await send(service, *[landing(visitor, f"again-{visitor}", minute=5) for visitor in visitors])

    assert [click_id for _, click_id in late] == [None if name == "identities" else "CLICK-1", "CLICK-1", "CLICK-1"]
    # With room for two, each newcomer pushes out the one that would have been recognised next.
    assert {label for label, _ in again} == ({"clicks"} if name == "claims" else {"pageload"})
    if name == "answers":
        assert [("conversions", "CLICK-1")] == await send(service, early[0])


async def test_the_grace_period_decides_how_long_batches_are_refused(
    start: Start, send: Any, http: aiohttp.ClientSession, item: Item, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Within the grace the router is asked to come again; without any, this process decides at once."""

    async def fail(_store: EmbeddedStore) -> None:
        raise StateUnavailableError("the disk is full")

    patient = await start()
    hasty = await start(state={"grace_seconds": 0, "dir": str(tmp_path / "hasty")})
    monkeypatch.setattr(EmbeddedStore, "_committed", fail)
    body = msgspec.json.encode([item(landing())])
    async with http.post(f"{patient.url}/v0/destinations/impact", data=body) as response:
        refused = (response.status, response.headers["X-Rudder-Should-Retry"], (await response.json())["error"])

    assert (503, "true", "state_unavailable: the disk is full") == refused
    assert [("clicks", "CLICK-1")] == await send(hasty, landing())


async def test_a_slow_state_is_waited_for_so_long(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes no commit counts as down after ``timeout_seconds``."""
    stores: list[EmbeddedStore] = []
    load = EmbeddedStore.load

    def remember(store: EmbeddedStore) -> None:
        stores.append(store)
        load(store)

    monkeypatch.setattr(EmbeddedStore, "load", remember)
    await start(state={"timeout_seconds": 0.1})

    async def never(_store: EmbeddedStore) -> None:
        return

    monkeypatch.setattr(EmbeddedStore, "_commit", never)
    with pytest.raises(StateUnavailableError, match=r"took no commit within 0\.1 s"):
        await stores[0].decide([SessionQuery(owner=bytes(15), time=0, key=bytes(15), window=1)])
    monkeypatch.undo()
