"""The drain: whose row goes when, and how each ends; on a real spool, against a delivery engine of the test's own."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from impact_plugin.config.destinations import KnownDestination
from impact_plugin.config.settings import ImpactSettings, make_settings
from impact_plugin.config.sources import Routing, make_routing
from impact_plugin.delivery.endpoints import Endpoints
from impact_plugin.delivery.pipeline import DeliveryRequest
from impact_plugin.delivery.policy import Cause, Verdict
from impact_plugin.errors import StateUnavailableError
from impact_plugin.ingest.drain import MAX_BACK_OFF_SECONDS, MAX_FAULTS, WINDOW, Drain, back_off
from impact_plugin.process.background import open_background
from impact_plugin.sessions.sessions import Digests, Sessions
from impact_plugin.spool.base import DeadLetterFilter, NewEvent, NewRow
from impact_plugin.spool.sqlite import open_sqlite_spool
from impact_plugin.store.embedded import open_store
from impact_plugin.telemetry import Telemetry
from impact_transformers import Secret
from tests import builders
from tests.builders import CONFIG

SECONDS = 10.0
OK = Verdict("delivered", Cause.OK, "taken")


def verdict(cause: Cause, result: Any = "retry") -> Verdict:
    """A verdict with that cause."""
    return Verdict(result, cause, f"{cause}: as the test says")


class Engine:
    """Stands for the delivery engine: answers as the test says, and remembers what it was given."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.under_way: set[str] = set()
        self.most = 0
        self.answer: Callable[[str], Verdict] = lambda _: OK
        self.gate: asyncio.Event | None = None

    async def deliver(self, request: DeliveryRequest, *, seconds: float, is_abandoned: Callable[[], bool]) -> Verdict:  # noqa: ARG002 - the engine's signature
        """Deliver one request; it is known by its message."""
        name = dict(pair.split("=") for pair in request.body.decode().split("&"))["CustomProfileId"]
        mark = f"{name}:{'order' if request.endpoint == 'conversions' else 'page'}"
        self.sent.append(mark)
        self.under_way.add(mark)
        self.most = max(self.most, len(self.under_way))
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        self.under_way.discard(mark)
        return self.answer(mark)


class Place:
    """A spool with its drain."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = Engine()
        self.routing: Routing = make_routing({"destinations": {"eu": CONFIG}}, {})
        self.offset = 0.0
        self.numbers = 0
        self.telemetry = Telemetry()

    def now(self) -> float:
        """Seconds since 1970, moved on by the test."""
        return time.time() + self.offset

    async def open(self, stack: AsyncExitStack) -> None:
        """Open spool and sessions."""
        settings = make_settings({"state": {"dir": str(self.folder)}, "spool": {"min_free_mb": 0}})
        store = await stack.enter_async_context(open_store(settings.state, self.now))
        digests = Digests(Secret("secret of the tests"))
        sessions = Sessions(store, digests, self.telemetry, 300.0, self.now)
        self.spool = await stack.enter_async_context(open_sqlite_spool(settings.spool, settings.state, self.now))
        engine: Any = self.engine
        self.drain = Drain(
            lambda: self.routing, self.spool, engine, sessions, Endpoints(ImpactSettings()), self.telemetry, self.now
        )

    @asynccontextmanager
    async def draining(self, seconds: float = 1.0) -> AsyncIterator[None]:
        """With the drain at work, as the service has it; at the end it has ``seconds`` to finish."""
        async with open_background() as tasks:
            tasks.start_soon(self.drain.run, tasks)
            yield
            self.drain.stop()
            await self.drain.finish(seconds)

    async def put(self, *visitors: str, order: bool = False, lane: bool = True, payload: bytes | None = None) -> None:
        """Put an event of each visitor."""
        events = []
        for visitor in visitors:
            self.numbers += 1
            name, message = f"o-{self.numbers}", f"m-{self.numbers}"
            event = builders.order(name, message, visitor) if order else builders.page(message, visitor)
            row = NewRow(
                "eu",
                payload or msgspec.json.encode(event),
                urgent=order,
                lane=visitor.encode().ljust(15) if lane else None,
                order_id=f"o-{self.numbers}" if order else None,
            )
            events.append(NewEvent("shop", self.numbers.to_bytes(15), int(self.now() * 1000), (row,)))
        await self.spool.put(events)

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until it is so."""
        deadline = time.monotonic() + SECONDS
        while not done():
            assert time.monotonic() < deadline, self.engine.sent[-10:]
            await asyncio.sleep(0.01)

    async def empty(self) -> None:
        """Wait until nothing waits."""
        deadline = time.monotonic() + SECONDS
        while sum((await self.spool.tally()).waiting.values()):
            assert time.monotonic() < deadline, self.engine.sent[-10:]
            await asyncio.sleep(0.02)

    async def letters(self) -> list[tuple[str, int]]:
        """Reason and attempts of the dead letters."""
        return [(one.reason, one.attempts) async for one in self.spool.letters(DeadLetterFilter())]


@pytest.fixture(name="place")
async def place_fixture(tmp_path: Path) -> AsyncIterator[Place]:
    """Lend a spool with a drain that does not run yet."""
    async with AsyncExitStack() as stack:
        place = Place(tmp_path)
        await place.open(stack)
        yield place


async def test_a_visitors_events_go_in_order_and_orders_wait_for_their_landing(place: Place) -> None:
    """Although orders go first in general."""
    await place.put("a", "b")
    await place.put("a", order=True)
    async with place.draining():
        await place.empty()

    sent = place.engine.sent
    assert sent.index("a:page") < sent.index("a:order")
    assert 3 == len(sent)


async def test_orders_do_not_wait_behind_a_backlog_of_page_loads(place: Place) -> None:
    """Five hundred page loads were there before; the order is among the first to go."""
    await place.put(*(f"v{number}" for number in range(500)))
    await place.put("buyer", order=True)
    async with place.draining():
        await place.empty()

    assert place.engine.sent.index("buyer:order") < WINDOW


async def test_no_more_than_the_window_is_in_memory(place: Place) -> None:
    """However much waits."""
    place.engine.gate = asyncio.Event()
    await place.put(*(f"v{number}" for number in range(1000)))
    async with place.draining():
        await place.until(lambda: len(place.engine.sent) >= WINDOW // 2)
        await asyncio.sleep(0.2)
        held = len(place.engine.sent)
        place.engine.gate.set()
        await place.empty()

    assert WINDOW // 2 == held
    assert 1000 == len(place.engine.sent)


async def test_a_visitor_has_one_request_under_way(place: Place) -> None:
    """The next goes when the last has ended."""
    await place.put(*["a"] * 20)
    async with place.draining():
        await place.empty()

    assert 1 == place.engine.most
    assert 20 == len(place.engine.sent)


async def test_a_failed_row_holds_back_its_visitor_only(place: Place) -> None:
    """The order waits for the landing to be tried again; other visitors do not."""
    place.engine.answer = lambda mark: verdict(Cause.TRANSIENT) if mark == "a:page" else OK
    await place.put("a", "b")
    await place.put("a", "b", order=True)
    async with place.draining():
        await place.until(lambda: "b:order" in place.engine.sent)
        await asyncio.sleep(0.2)
        held_back = "a:order" not in place.engine.sent
        place.engine.answer = lambda _: OK
        place.offset = MAX_BACK_OFF_SECONDS
        await place.empty()

    assert held_back
    assert "a:order" == place.engine.sent[-1]


@pytest.mark.parametrize("cause", [Cause.REFUSED, Cause.BODY_ERROR])
async def test_what_is_refused_for_good_is_a_dead_letter(place: Place, cause: Cause) -> None:
    """With its reason, the attempt, and what was sent."""
    place.engine.answer = lambda _: verdict(cause, "rejected")
    await place.put("a", order=True)
    async with place.draining():
        await place.empty()

    assert [(str(cause), 1)] == await place.letters()
    (letter,) = [one async for one in place.spool.letters(DeadLetterFilter(order_id="o-1"))]
    assert letter.request.startswith(b"POST https://api.impact.com/Advertisers/IRtest/Conversions\n\n")
    assert b"OrderId=o-1" in letter.request
    assert b"token" not in letter.request


async def test_an_order_of_unknown_fate_is_a_dead_letter_when_it_is_too_late(place: Place) -> None:
    """The proxy lets the router keep such a job; here somebody must look."""
    place.engine.answer = lambda _: verdict(Cause.AMBIGUOUS_EXPIRED)
    await place.put("a", order=True)
    async with place.draining():
        await place.empty()

    assert ["ambiguous_expired"] == [reason for reason, _ in await place.letters()]


@pytest.mark.parametrize(("cause", "counted"), [(Cause.QUOTA, 0), (Cause.OVERLOAD, 0), (Cause.TRANSIENT, 1)])
async def test_only_what_failed_counts_as_an_attempt(place: Place, cause: Cause, counted: int) -> None:
    """A quota that is used up says nothing against an event."""
    place.engine.answer = lambda _: verdict(cause)
    await place.put("a")
    async with place.draining():
        await place.until(lambda: len(place.engine.sent) == 1)
        await asyncio.sleep(0.2)
    place.offset = MAX_BACK_OFF_SECONDS
    (row,) = await place.spool.take("eu", urgent=False, limit=10)

    assert counted == row.attempt


async def test_rows_that_were_not_sent_go_back_untried(place: Place) -> None:
    """A closed gate costs a pause, no attempt, and no order among a visitor's rows."""
    place.engine.answer = lambda _: verdict(Cause.WAITING)
    await place.put("a", "a", "b")
    async with place.draining():
        await place.until(lambda: len(place.engine.sent) >= 2)
        place.engine.answer = lambda _: OK
        place.engine.sent.clear()
        await place.empty()

    assert ["a:page", "a:page", "b:page"] == sorted(place.engine.sent)
    assert [] == await place.letters()


async def test_a_defect_is_tried_some_times_and_buried(place: Place) -> None:
    """A poison event neither stops the feed nor goes round for ever."""

    def broken(mark: str) -> Verdict:
        if mark.startswith("poison"):
            raise KeyError(mark)
        return OK

    place.engine.answer = broken
    await place.put("poison", "b", "c")
    async with place.draining():
        for _ in range(MAX_FAULTS):
            await asyncio.sleep(0.1)
            place.offset += MAX_BACK_OFF_SECONDS
            place.drain.wake()
        await place.empty()

    assert MAX_FAULTS == place.engine.sent.count("poison:page")
    assert [("fault", MAX_FAULTS)] == await place.letters()


class BrokenDestination:
    """A destination with a defect of ours in it."""

    reads_message = False

    def for_event(self, _message: Any) -> Any:
        """Fail."""
        raise KeyError


async def test_a_defect_in_the_transformation_is_tried_some_times_and_buried(place: Place) -> None:
    """An update may come meanwhile; what was never sent is a dead letter that can be sent then."""
    broken: Any = BrokenDestination()
    place.routing = Routing({}, {"eu": KnownDestination("eu", "", broken)})
    await place.put("a", order=True)
    async with place.draining():
        for _ in range(MAX_FAULTS):
            await asyncio.sleep(0.1)
            place.offset += MAX_BACK_OFF_SECONDS
            place.drain.wake()
        await place.empty()
    faults = place.telemetry.metrics.registry.get_sample_value("impact_plugin_faults_total", {"where": "event"})

    assert [] == place.engine.sent
    assert [("fault", MAX_FAULTS)] == await place.letters()
    assert MAX_FAULTS == faults


async def test_bytes_that_are_no_event_are_buried(place: Place) -> None:
    """Whatever is in the file, the start is never blocked by it."""
    await place.put("a", payload=b"\x00not json")
    await place.put("b")
    async with place.draining():
        await place.empty()

    assert ["b:page"] == place.engine.sent
    assert [("undecodable_event", 1)] == await place.letters()


async def test_rows_of_a_destination_that_is_gone_wait(place: Place) -> None:
    """A file with a mistake must not bury what it does not name; when it is back, they go."""
    await place.put("a")
    known, place.routing = place.routing, Routing()
    async with place.draining():
        await asyncio.sleep(0.1)
        sent_without = list(place.engine.sent)
        place.routing = known
        await place.empty()

    assert [] == sent_without
    assert ["a:page"] == place.engine.sent


async def test_a_corrected_configuration_decides_about_what_waits(place: Place) -> None:
    """Pages were switched off meanwhile: they are skipped, not sent."""
    await place.put("a")
    place.routing = make_routing({"destinations": {"eu": {**CONFIG, "enablePageEvents": False}}}, {})
    async with place.draining():
        await place.empty()

    assert [] == place.engine.sent
    assert [] == await place.letters()


async def test_what_is_under_way_may_end_and_the_rest_stays(place: Place) -> None:
    """Stopping takes nothing more; what was answered is gone from the spool, what was not is there."""
    place.engine.gate = asyncio.Event()
    await place.put(*(f"v{number}" for number in range(200)))
    async with place.draining(5.0):
        await place.until(lambda: len(place.engine.sent) == WINDOW // 2)
        place.drain.stopping = True
        asyncio.get_running_loop().call_later(0.1, place.engine.gate.set)

    assert 200 - WINDOW // 2 == sum((await place.spool.tally()).waiting.values())


async def test_a_spool_out_of_reach_is_told_once_and_again_when_it_is_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For /ready and the log; rows go on when it is back."""
    real = place.spool.tally

    async def broken() -> Any:
        raise StateUnavailableError("the disk is gone")

    monkeypatch.setattr(place.spool, "tally", broken)
    async with place.draining():
        await place.until(lambda: "the disk is gone" in place.drain.trouble())
        monkeypatch.setattr(place.spool, "tally", real)
        await place.until(lambda: not place.drain.trouble())


def test_the_back_off_grows_and_is_bounded() -> None:
    """Any part of a time that doubles: whoever failed together does not come back together."""
    chances = [Random(seed) for seed in range(200)]  # noqa: S311 - jitter, not a secret
    longest = [max(back_off(attempt, chance) for chance in chances) for attempt in (1, 3, 5, 20)]

    assert [2, 8, 32, MAX_BACK_OFF_SECONDS] == pytest.approx(longest, rel=0.1)
    assert min(back_off(20, chance) for chance in chances) < 10
