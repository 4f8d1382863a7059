"""The intake by itself: which rows are written for an event, for whom, and what its sender is told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from impact_plugin.config.settings import StateSettings
from impact_plugin.config.sources import Routing, make_routing
from impact_plugin.errors import StateUnavailableError
from impact_plugin.ingest.intake import KEPT_BYTES, Intake, Item, ItemResult, Unusable
from impact_plugin.recording.recorder import Recorder
from impact_plugin.sessions.sessions import Digests, Sessions
from impact_plugin.spool.base import NewEvent, NewRow, SpoolFullError
from impact_plugin.store.embedded import open_store
from impact_plugin.telemetry import Telemetry
from impact_transformers import Secret, conclude, hash_email
from tests.builders import CONFIG

NOW: Final = 1_789_034_400.0
OTHER: Final = {**CONFIG, "campaignId": "99"}
CLICK: Final = "https://shop.example.com/?irclickid=CLICK-1"


class Shelf:
    """Stands in for the spool: remembers what it was given; ``fault`` is raised instead."""

    def __init__(self) -> None:
        self.events: list[NewEvent] = []
        self.fault: Exception | None = None

    async def put(self, events: Sequence[NewEvent]) -> list[bool]:
        """Keep the events that are new."""
        if self.fault is not None:
            raise self.fault
        known = {event.seen for event in self.events}
        new = []
        for event in events:
            new.append(event.seen not in known)
            known.add(event.seen)
            if new[-1]:
                self.events.append(event)
        return new

    @property
    def rows(self) -> list[NewRow]:
        """All rows, in order."""
        return [row for event in self.events for row in event.rows]


class Desk:
    """An intake with a source that feeds these destinations."""

    def __init__(self) -> None:
        self.shelf = Shelf()
        self.stored = 0
        self.failures: list[StateUnavailableError] = []
        self.telemetry = Telemetry()
        self.digests = Digests(Secret("secret of the tests"))
        self.routing: Routing
        self.feed({"eu": CONFIG})

    def feed(self, destinations: dict[str, dict[str, Any]], **source: Any) -> None:
        """Configure the destinations."""
        sources = {"shop": {"keys": ["a-key-of-the-shop-0123456789"], **source}}
        self.routing = make_routing({"sources": sources, "destinations": destinations}, {})

    async def open(self, folder: Path, stack: AsyncExitStack) -> None:
        """Open the sessions."""
        store = await stack.enter_async_context(open_store(StateSettings(str(folder)), lambda: NOW))
        sessions = Sessions(store, self.digests, self.telemetry, 300.0, lambda: NOW)
        spool: Any = self.shelf
        drain: Any = self
        self.intake = Intake(
            lambda: self.routing, sessions, spool, self.digests, self.telemetry, lambda: NOW, drain,
            Recorder(b"key"),
        )  # fmt: skip

    def wake(self) -> None:
        """Called by the intake when something was stored."""
        self.stored += 1

    def report(self, error: StateUnavailableError) -> None:
        """Called by the intake when the spool could not be written."""
        self.failures.append(error)

    async def take(self, *items: Any, call: str | None = None) -> list[ItemResult]:
        """Take events, given as objects or as they are."""
        given = [one if isinstance(one, Item | Unusable) else Item(msgspec.json.encode(one), call) for one in items]
        return await self.intake.take(self.routing.sources["shop"], given)


@pytest.fixture(name="desk")
async def desk_fixture(tmp_path: Path) -> AsyncIterator[Desk]:
    """Lend an intake."""
    async with AsyncExitStack() as stack:
        desk = Desk()
        await desk.open(tmp_path, stack)
        yield desk


def statuses(results: Sequence[ItemResult]) -> list[tuple[str, str]]:
    """Status and reason of each."""
    return [(result.status, result.reason) for result in results]


async def test_rows_know_whom_they_are_about(desk: Desk, order: dict[str, Any]) -> None:
    """Digests of the visitor and the user at the program, for deletion; the visitor's is the lane."""
    await desk.take({**order, "userId": "u-1"})
    [row] = desk.shelf.rows
    [known] = desk.routing.destinations_of(desk.routing.sources["shop"])
    assert known.destination is not None
    expected = desk.digests.identities(known.destination.program or "", "a-1", "u-1")

    assert expected == row.people
    assert row.people[0] == row.lane
    assert (True, "o-1", None) == (row.urgent, row.order_id, row.death)


@pytest.mark.parametrize(
    ("who", "people"), [({"anonymousId": None, "userId": "u-1"}, 1), ({"anonymousId": None}, 0), ({"userId": 5}, 2)]
)
async def test_a_lane_is_that_of_whoever_is_known(desk: Desk, who: dict[str, Any], people: int) -> None:
    """An event of nobody has none, and waits for nobody."""
    event = {"type": "page", "messageId": "m", "anonymousId": "a", "properties": {"url": CLICK}, **who}
    await desk.take(event)
    [row] = desk.shelf.rows

    assert people == len(row.people)
    assert (row.people[0] if people else None) == row.lane


async def test_what_the_sessions_said_is_written_down(desk: Desk, page: dict[str, Any], order: dict[str, Any]) -> None:
    """The visit goes with the row: the drain does not ask again, and a later landing cannot change it."""
    landing = {**page, "properties": {"url": CLICK}}
    await desk.take(landing, order)
    visits = [msgspec.msgpack.decode(row.visit) for row in desk.shelf.rows]

    assert "CLICK-1" in str(visits[1])
    assert [False, True] == [row.urgent for row in desk.shelf.rows]


async def test_the_best_of_two_destinations_is_told(desk: Desk, order: dict[str, Any]) -> None:
    """Stored at one is stored; the other's rejection is a dead letter that tells the destination."""
    desk.feed({"eu": CONFIG, "us": {**OTHER, "accountSID": "{{ event.properties.account || no account }}"}})
    results = await desk.take(order)
    deaths = [(row.destination, row.death.reason if row.death else None) for row in desk.shelf.rows]

    assert [("stored", "")] == statuses(results)
    assert [("eu", None), ("us", "configuration")] == deaths
    assert 1 == len(desk.shelf.events)


async def test_what_all_destinations_filter_is_not_written(desk: Desk) -> None:
    """Nothing is to be sent, and nothing to be looked at."""
    desk.feed({"eu": CONFIG, "us": OTHER})
    results = await desk.take({"type": "group", "messageId": "m", "anonymousId": "a", "groupId": "g"})

    assert ["filtered"] == [result.status for result in results]
    assert ([], 0) == (desk.shelf.events, desk.stored)


async def test_a_reject_is_a_dead_letter_with_what_it_can_be_found_by(desk: Desk, order: dict[str, Any]) -> None:
    """The reason, the order and the person; without an address in any of them."""
    properties = {"order_id": "o-9", "total": "five", "currency": "EUR", "note": "anna@shop.example"}
    results = await desk.take({**order, "properties": properties})
    [row] = desk.shelf.rows

    assert row.death is not None
    assert [("rejected", row.death.reason)] == statuses(results)
    assert ("o-9", 1, None) == (row.order_id, len(row.people), row.lane)
    assert b"anna@" not in row.payload
    digest = hash_email("anna@shop.example")
    assert digest is not None
    assert digest.encode() in row.payload


async def test_what_is_no_event_is_cut_and_kept_once(desk: Desk) -> None:
    """For one destination, with its first bytes; the same thing again is the same dead letter."""
    desk.feed({"eu": CONFIG, "us": OTHER})
    thing = Unusable("too large: anna@shop.example", b"anna@shop.example " + b"x" * 100_000)
    first, again = await desk.take(thing), await desk.take(thing)
    [row] = desk.shelf.rows

    assert [("rejected", "undecodable_event")] == statuses(first)
    # Whoever repeats a request, because an answer was lost, must not take it for a good event.
    assert statuses(again) == statuses(first)
    assert KEPT_BYTES >= len(row.payload) - 40
    assert row.death is not None
    assert "anna@" not in row.death.detail
    assert not row.payload.startswith(b"anna@")


async def test_a_defect_is_one_events_error(
    desk: Desk, spoil: Callable[..., None], page: dict[str, Any], order: dict[str, Any]
) -> None:
    """It is a dead letter to be tried again, and the rest of the batch is stored."""
    spoil(ZeroDivisionError(), page["messageId"])
    results = await desk.take(page, order)

    assert [("rejected", "transform_fault"), ("stored", "")] == statuses(results)
    assert ["transform_fault", None] == [row.death.reason if row.death else None for row in desk.shelf.rows]


async def test_a_defect_at_the_end_is_one_events_error_too(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, page: dict[str, Any], order: dict[str, Any]
) -> None:
    """Also when the visit is known already, nobody else's event is lost."""

    def fail(draft: Any, *more: Any) -> Any:
        if draft.event.message_id == page["messageId"]:
            raise ZeroDivisionError
        return conclude(draft, *more)

    monkeypatch.setattr("impact_plugin.transformation.step.conclude", fail)
    results = await desk.take(page, order)

    assert [("rejected", "transform_fault"), ("stored", "")] == statuses(results)
    assert ["transform_fault", None] == [row.death.reason if row.death else None for row in desk.shelf.rows]


async def test_the_same_id_in_two_calls_is_two_events(desk: Desk, order: dict[str, Any], page: dict[str, Any]) -> None:
    """Some senders give one id to a page and the order on it; and to two orders of different names."""
    same = [{**page, "messageId": "m"}, {**order, "messageId": "m"}, {**order, "messageId": "m", "event": "Signed Up"}]
    await desk.take(*same)
    results = await desk.take(*same)

    assert 2 <= len(desk.shelf.events)
    assert "stored" not in {result.status for result in results}


async def test_two_sources_may_use_the_same_ids(desk: Desk, order: dict[str, Any]) -> None:
    """What is the same event is a matter of one source."""
    source = desk.routing.sources["shop"]
    other = msgspec.structs.replace(source, name="other")
    item = Item(msgspec.json.encode(order))
    results = [(await desk.intake.take(one, [item]))[0].status for one in (source, other, source)]

    assert ["stored", "stored", "duplicate"] == results


async def test_a_failed_spool_takes_nothing(desk: Desk, order: dict[str, Any]) -> None:
    """Its failure is noted for readiness, and the sender comes again."""
    desk.shelf.fault = StateUnavailableError("the disk is gone")
    with pytest.raises(StateUnavailableError, match="the disk is gone"):
        await desk.take(order)
    desk.shelf.fault = SpoolFullError("full", 7)
    with pytest.raises(SpoolFullError):
        await desk.take(order)
    desk.shelf.fault = None
    results = await desk.take(order)

    assert 1 == len(desk.failures)
    assert ([("stored", "")], 1) == (statuses(results), desk.stored)


async def test_a_large_batch_lets_others_work(desk: Desk, page: dict[str, Any]) -> None:
    """Other requests go on while thousands of events are prepared."""
    pulses = 0

    async def pulse() -> None:
        nonlocal pulses
        while True:
            await asyncio.sleep(0)
            pulses += 1

    pulsing = asyncio.create_task(pulse())
    await desk.intake._prepare_all(
        desk.routing.sources["shop"],
        [Item(msgspec.json.encode({**page, "messageId": f"m-{number}"})) for number in range(5000)],
        desk.routing.destinations_of(desk.routing.sources["shop"]),
        NOW,
    )
    pulsing.cancel()

    assert pulses >= 3
