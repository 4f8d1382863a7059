"""What a batch asks the sessions: digests, the grace period while the state is down, and what is told about it."""

import asyncio
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

import impact_plugin.sessions.sessions
from impact_plugin.app import Service
from impact_plugin.config.secrets import MIN_SECRET_LENGTH, load_or_create_secret
from impact_plugin.errors import StateError, StateUnavailableError
from impact_plugin.process.background import open_background
from impact_plugin.sessions.sessions import DIGEST_BYTES, Digests, Sessions
from impact_plugin.store.base import CALL_SIZE, SessionAnswer, SessionQuery, StoreTally
from impact_plugin.store.embedded import EmbeddedStore
from impact_plugin.store.engine import Capacities, Engine
from impact_plugin.telemetry import Telemetry, TelemetryEvent
from impact_plugin.telemetry.events.faults import RequestFault
from impact_plugin.telemetry.events.sessions import (
    SessionsDecided,
    StateFailed,
    StateMeasured,
    StateRestored,
    StateUndecided,
)
from impact_plugin.testing.strict_rudder import StrictRudder
from impact_transformers import NO_VISIT, Decision, Question, Secret, Visit
from tests import builders
from tests.builders import Clock, moment, question

NEW, REPEAT = Decision.NEW, Decision.REPEAT
NOON = 1_789_000_000_000
MINUTE = 60_000
DAY = 24 * 60 * MINUTE
GRACE = 300.0
TURNS = 500
PROGRAM = "IRtest\x1f23224"

Start = Callable[..., Awaitable[Service]]
Item = Callable[..., dict[str, Any]]


class FakeStore:
    """A store that is told whether it is up, and remembers what it was asked; beneath it the true rules."""

    def __init__(self) -> None:
        self.trouble: Exception | None = None
        self.calls: list[str] = []
        self.forgotten: list[bytes] = []
        self.sizes = [0]
        self._shared = Engine(Capacities(1000, 1000, 1000), 4 * DAY)
        self._alone = Engine(Capacities(1000, 1000, 1000), 4 * DAY)

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.trouble is not None and name != "decide_locally":
            raise self.trouble

    async def decide(self, queries: Sequence[SessionQuery]) -> list[SessionAnswer]:
        """By what all processes know."""
        self._called("decide")
        self.sizes.append(len(queries))
        return self._answers(self._shared, queries)

    async def decide_locally(self, queries: Sequence[SessionQuery]) -> list[SessionAnswer]:
        """By what this process knows: nothing."""
        self._called("decide_locally")
        return self._answers(self._alone, queries)

    async def forget(self, identities: Sequence[bytes]) -> int:
        """Remember who."""
        self._called("forget")
        self.forgotten += identities
        return len(identities)

    async def joined(self, identities: Sequence[bytes]) -> list[bytes]:
        """By what all processes know."""
        self._called("joined")
        stretches = self._shared.identities.stretches()
        return [one for stretch in stretches for one in self._shared.joined(stretch, identities)]

    async def check(self) -> None:
        """Say whether it is up."""
        self._called("check")

    async def tally(self) -> StoreTally:
        """Some numbers, which a store that is down does not have."""
        self._called("tally")
        return StoreTally({"claims": 7}, {"claims": 10}, {"claims": 1}, late_clicks=2, unsaved=3)

    @staticmethod
    def _answers(engine: Engine, queries: Sequence[SessionQuery]) -> list[SessionAnswer]:
        answers = engine.write(queries)
        engine.read(queries, answers)
        return answers


class Told(Telemetry):
    """Keeps what is reported."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[TelemetryEvent] = []

    def emit(self, event: TelemetryEvent) -> None:
        """Keep it, and count it as always."""
        self.events.append(event)
        super().emit(event)

    def of(self, *kinds: type[TelemetryEvent]) -> list[TelemetryEvent]:
        """Those of some kinds, in order."""
        return [event for event in self.events if isinstance(event, kinds)]

    def value(self, name: str, **labels: str) -> float | None:
        """One value of the metrics."""
        return self.metrics.registry.get_sample_value(f"impact_plugin_{name}", labels)


@pytest.fixture(name="patience")
def patience_fixture(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Lend the clock that the grace period goes by; the watch looks as often as it can."""
    clock = Clock(1000.0)
    monkeypatch.setattr(impact_plugin.sessions.sessions, "monotonic", clock)
    monkeypatch.setattr(impact_plugin.sessions.sessions, "CHECK_SECONDS", 0)
    return clock


class Desk:
    """Sessions over a fake store, without a watch unless a test opens one."""

    def __init__(self, grace: float = GRACE) -> None:
        self.store = FakeStore()
        self.told = Told()
        self.wall = Clock()
        self.digests = Digests(Secret("a secret of a test"))
        self.sessions = Sessions(self.store, self.digests, self.told, grace, self.wall)

    def fall(self) -> None:
        """Put the store out of reach."""
        self.store.trouble = StateUnavailableError("the disk is full")

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """With the watch, as the service has it."""
        async with open_background() as tasks:
            tasks.start_soon(self.sessions.watch)
            yield


@pytest.fixture(name="desk")
def desk_fixture(patience: Clock) -> Desk:
    """Lend sessions over a store that is up."""
    return Desk()


def landing(message: str = "m", **more: Any) -> Question:
    """A click candidate's."""
    return question(message, key="the landing", click_id="CLICK-1", **more)


def order(message: str = "o", **more: Any) -> Question:
    """An order's."""
    return question(message, **{"asks": True, "order": True, **more})


async def until(done: Callable[[], bool]) -> None:
    """Let the watch have its turns."""
    for _ in range(TURNS):
        if done():
            return
        await asyncio.sleep(0)
    pytest.fail("the watch did not see it")


async def test_each_event_gets_its_own_visit(desk: Desk) -> None:
    """In the order of the batch, with nothing for events that asked nothing."""
    visits = await desk.sessions.visits([None, order(), landing(), None, landing("again"), question("quiet")])

    assert [NO_VISIT, Visit(None, "CLICK-1"), Visit(NEW), NO_VISIT, Visit(REPEAT), NO_VISIT] == visits
    assert ["decide"] == desk.store.calls


async def test_a_batch_without_questions_asks_nothing(desk: Desk) -> None:
    """Not even a store that is down is noticed."""
    desk.fall()

    assert [NO_VISIT, NO_VISIT] == await desk.sessions.visits([None, None])
    assert [] == await desk.sessions.visits([])
    assert [] == desk.store.calls


async def test_a_large_batch_is_one_call_of_the_store(desk: Desk) -> None:
    """All clicks of a batch are written before any is read, so it must not be split here."""
    size = 2 * CALL_SIZE + 1
    visits = await desk.sessions.visits([*[order(f"o{number}") for number in range(size)], landing()])

    assert [Visit(None, "CLICK-1")] * size + [Visit(NEW)] == visits
    assert [0, size + 1] == desk.store.sizes


async def test_within_the_grace_batches_are_refused(desk: Desk, patience: Clock) -> None:
    """The error says why; the store, which has its own troubles, is not asked again by each batch."""
    desk.fall()
    for _ in range(3):
        patience.now += GRACE / 4
        with pytest.raises(StateUnavailableError, match="the disk is full"):
            await desk.sessions.visits([landing()])

    assert ["decide"] == desk.store.calls
    assert [StateFailed("the disk is full", GRACE)] == desk.told.of(StateFailed, StateUndecided, StateRestored)
    assert 0 == desk.told.value("state_up")
    assert 1 == desk.told.value("state_failures_total")
    assert [] == desk.told.of(SessionsDecided)


async def test_after_the_grace_this_process_decides_alone(desk: Desk, patience: Clock) -> None:
    """Each candidate is labelled undecided; an order that was told nothing, or a click id, is not."""
    await desk.sessions.visits([landing("known to the store")])
    desk.fall()
    with pytest.raises(StateUnavailableError):
        await desk.sessions.visits([landing()])
    patience.now += GRACE
    visits = await desk.sessions.visits([landing(), landing("again"), order(), order("o2", anonymous_id="nobody")])

    assert [
        Visit(NEW, undecided=True), Visit(REPEAT, undecided=True), Visit(None, "CLICK-1"), NO_VISIT,
    ] == visits  # fmt: skip
    assert ["decide", "decide", "decide_locally"] == desk.store.calls
    assert [StateUndecided("the disk is full", GRACE)] == desk.told.of(StateUndecided)
    assert 2 == desk.told.value("click_decisions_total", decision="undecided")
    assert 1 == desk.told.value("click_decisions_total", decision="new")
    assert 0 == desk.told.value("state_up")


async def test_the_last_moment_of_the_grace_is_still_grace(desk: Desk, patience: Clock) -> None:
    """It ends when it is over, not before."""
    desk.fall()
    with pytest.raises(StateUnavailableError):
        await desk.sessions.visits([landing()])
    patience.now += GRACE - 0.001
    with pytest.raises(StateUnavailableError):
        await desk.sessions.visits([landing()])
    patience.now += 0.001

    assert [Visit(NEW, undecided=True)] == await desk.sessions.visits([landing()])


async def test_without_a_grace_no_batch_is_refused(patience: Clock) -> None:
    """``state.grace_seconds = 0``: the first batch that meets the trouble is decided alone."""
    desk = Desk(grace=0)
    desk.fall()

    assert [Visit(NEW, undecided=True)] == await desk.sessions.visits([landing()])
    assert ["decide", "decide_locally"] == desk.store.calls


async def test_the_store_is_asked_again_when_it_is_back(desk: Desk, patience: Clock) -> None:
    """The watch sees it; what was decided before it went is still known, and the health is clean."""
    async with desk.watched():
        first = await desk.sessions.visits([landing()])
        desk.fall()
        with pytest.raises(StateUnavailableError):
            await desk.sessions.visits([landing("other")])
        patience.now += GRACE + 5
        await until(lambda: desk.sessions.health.alone)
        alone = await desk.sessions.visits([landing("other")])
        desk.store.trouble = None
        await until(lambda: desk.sessions.health.down_since is None)
        again = await desk.sessions.visits([landing(), landing("other")])

    told = desk.told.of(StateFailed, StateUndecided, StateRestored)
    assert [Visit(NEW)] == first
    assert [Visit(NEW, undecided=True)] == alone
    assert [Visit(NEW), Visit(REPEAT)] == again
    assert [
        StateFailed("the disk is full", GRACE), StateUndecided("the disk is full", GRACE + 5), StateRestored(GRACE + 5),
    ] == told  # fmt: skip
    assert (None, "", False) == msgspec.structs.astuple(desk.sessions.health)
    assert 1 == desk.told.value("state_up")
    assert 1 == desk.told.value("state_failures_total")


async def test_a_store_that_is_back_within_the_grace(desk: Desk, patience: Clock) -> None:
    """Nothing was decided alone, and each outage has a grace of its own."""
    async with desk.watched():
        for _ in range(2):
            desk.fall()
            with pytest.raises(StateUnavailableError):
                await desk.sessions.visits([landing()])
            patience.now += GRACE - 1
            desk.store.trouble = None
            await until(lambda: desk.sessions.health.down_since is None)

        assert [Visit(NEW)] == await desk.sessions.visits([landing()])
    assert [] == desk.told.of(StateUndecided)
    assert 2 == desk.told.value("state_failures_total")


async def test_a_trouble_without_traffic_is_seen_too(desk: Desk, patience: Clock) -> None:
    """The watch asks what the store holds, so that /ready and the alert do not wait for a batch."""
    async with desk.watched():
        await until(lambda: bool(desk.told.of(StateMeasured)))
        desk.fall()
        await until(lambda: desk.sessions.health.down_since is not None)
        patience.now += GRACE
        await until(lambda: desk.sessions.health.alone)
        at_once = await desk.sessions.visits([landing()])

    assert [Visit(NEW, undecided=True)] == at_once
    assert "decide" not in desk.store.calls
    assert 7 == desk.told.value("state_entries", kind="claims")
    assert 10 == desk.told.value("state_capacity", kind="claims")
    for name in ("state_evicted_live_total", "late_clicks_total", "state_unsaved_total"):
        labels = {"kind": "claims"} if "evicted" in name else {}
        assert (desk.told.value(name, **labels) or 0) > 0


async def test_a_defect_in_the_watch_does_not_end_it(desk: Desk) -> None:
    """It is told as a defect of ours, and the next look is taken."""
    async with desk.watched():
        desk.store.trouble = ZeroDivisionError("a defect")
        await until(lambda: bool(desk.told.of(RequestFault)))
        desk.store.trouble = None
        seen = len(desk.told.of(StateMeasured))
        await until(lambda: len(desk.told.of(StateMeasured)) > seen)

    [fault, *_] = desk.told.of(RequestFault)
    assert isinstance(fault, RequestFault)
    assert ("state", "ZeroDivisionError") == (fault.route, fault.error)
    assert [] == desk.told.of(StateFailed)


async def test_decisions_and_orders_are_counted_by_kind(desk: Desk) -> None:
    """New claims apart from replays, and each order once, by where its click id came from."""
    batch = [
        landing("first"), landing("second"),
        order("stitched"), order("without", anonymous_id="b"), order("carried", asks=False, click_id="CLICK-1"),
    ]  # fmt: skip
    await desk.sessions.visits(batch)
    await desk.sessions.visits([landing("first"), order("stitched"), order("without", anonymous_id="b")])

    found = {
        name: desk.told.value("click_decisions_total", decision=name) for name in ("new", "repeat", "replayed")
    } | {name: desk.told.value("orders_total", click_id=name) for name in ("stitched", "without", "carried")}
    assert {"new": 1, "repeat": 1, "replayed": 1, "stitched": 1, "without": 1, "carried": 1} == found
    assert 2 == desk.told.value("state_seconds_count")


async def test_forgetting_reaches_every_identity_of_an_id(desk: Desk) -> None:
    """Whoever asks to be forgotten may not know whether an id is the visitor's or the user's."""
    identities = await desk.sessions.identities({PROGRAM}, ["a-1", "jane"])
    count = await desk.sessions.forget(identities)
    asked = await desk.sessions.visits([question(click_id="C", user_id="jane")])
    known = desk.digests.query(question(user_id="jane"), NOON)

    assert 4 == count
    assert [NO_VISIT] == asked
    assert {known.anonymous, known.user} < set(desk.store.forgotten)


async def test_a_users_visitors_are_that_person_too(desk: Desk) -> None:
    """Those on which the user was identified, each once; not those of another user or another program."""
    await desk.sessions.visits(
        [
            question("i1", joins=True, user_id="jane"),
            question("i2", joins=True, anonymous_id="a-2", user_id="jane"),
            question("i3", joins=True, anonymous_id="a-3", user_id="john"),
            question("i4", joins=True, anonymous_id="a-4", user_id="jane", program="IRtest\x1f99999"),
        ]
    )
    found = await desk.sessions.identities({PROGRAM}, ["jane", "a-1"])
    visitors = [desk.digests.of_identity("anonymous", PROGRAM, id_) for id_ in ("a-1", "a-2", "a-3", "a-4")]

    assert [1, 1, 0, 0] == [found.count(one) for one in visitors]
    assert 5 == len(found)


async def test_nobody_at_no_program_is_nobody(desk: Desk) -> None:
    """Neither ids without programs nor programs without ids stand for anybody."""
    assert [] == await desk.sessions.identities([], ["jane"])
    assert [] == await desk.sessions.identities({PROGRAM}, [])


async def test_forgetting_says_when_it_could_not(desk: Desk) -> None:
    """Nobody is told that data is gone which is still there, or that nobody was joined who was."""
    desk.fall()
    with pytest.raises(StateUnavailableError, match="the disk is full"):
        await desk.sessions.identities({PROGRAM}, ["a-1"])
    with pytest.raises(StateUnavailableError, match="the disk is full"):
        await desk.sessions.forget([b"one"])


def test_digests_are_keyed_and_stable() -> None:
    """The same in every process that shares the secret, and nothing to anybody else."""
    one, same, other = (Digests(Secret(text)) for text in ("the first secret", "the first secret", "another secret"))
    texts = ["", "a", "jane@example.com", "Ü\U0001f600", "\ud800", "x" * 100_000]

    assert [one.of(text) for text in texts] == [same.of(text) for text in texts]
    assert len(texts) == len({one.of(text) for text in texts})
    assert {DIGEST_BYTES} == {len(one.of(text)) for text in texts}
    assert not {one.of(text) for text in texts} & {other.of(text) for text in texts}


def test_every_character_of_a_long_secret_counts() -> None:
    """Longer ones than the hash takes as its key are not cut off."""
    assert Digests(Secret("x" * 200 + "a")).of("m") != Digests(Secret("x" * 200 + "b")).of("m")


def test_identities_do_not_meet() -> None:
    """A visitor is not a user of the same name, nor the same visitor of another program, nor a message or a key."""
    digests = Digests(Secret("a secret of a test"))
    found = [
        *digests.identities(PROGRAM, "x", "x"), *digests.identities("IRtest\x1f99999", "x", "x"),
        digests.query(question("x"), NOON).owner, digests.query(question("x", program="IRtest\x1f99999"), NOON).owner,
        digests.query(landing("x"), NOON).key, digests.of("x"),
    ]  # fmt: skip

    assert None not in found
    assert len(found) == len(set(found))
    assert (None, None) == digests.identities(PROGRAM, None, None)


def test_digests_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million visitors do not fill the memory, and a digest is the same before and after."""
    monkeypatch.setattr(impact_plugin.sessions.sessions, "CACHED_DIGESTS", 10)
    digests = Digests(Secret("a secret of a test"))
    first = [digests.of_identity("user", PROGRAM, f"u{number}") for number in range(35)]

    assert first == [digests.of_identity("user", PROGRAM, f"u{number}") for number in range(35)]
    assert len(digests._known) <= 10


@pytest.mark.parametrize(
    ("own", "now", "time", "keeps"),
    [
        ({"time": NOON, "received": NOON}, NOON + DAY, NOON, False),
        ({"time": NOON, "received": None}, NOON + MINUTE, NOON, True),
        ({"time": NOON, "received": None}, NOON + 3 * DAY, NOON + 2 * DAY, True),
        ({"time": NOON + DAY, "received": None}, NOON, NOON + 5 * MINUTE, True),
        ({"time": None, "received": None}, NOON, NOON, True),
        ({"time": NOON, "received": None}, None, NOON, True),
        ({"time": None, "received": None}, None, 0, True),
    ],
    ids=["received", "fresh", "old", "ahead", "no time", "of a file", "of a file, no time"],
)
def test_the_time_of_a_question(own: dict[str, Any], now: int | None, time: int, keeps: bool) -> None:
    """Settled by the core where it can be; else clamped to our clock, and then the answer stays with the message."""
    found = Digests(Secret("a secret of a test")).query(landing(**own), now)

    assert (time, keeps) == (found.time, found.keeps)


async def test_a_retry_without_a_time_does_not_make_its_click_newer(desk: Desk) -> None:
    """Without any time the moment we saw it first counts, at every try: a newer click stays the last one."""
    carried = order("o1", asks=False, click_id="OLDER", time=None, received=None)
    newer = question("p", click_id="NEWER", time=NOON + MINUTE)
    found = []
    for minute, asked in enumerate([carried, newer, carried, order("o2", time=NOON + 3 * MINUTE)]):
        desk.wall.now = NOON / 1000 + 60 * minute
        found += await desk.sessions.visits([asked])

    assert Visit(None, "NEWER") == found[-1]


def test_the_secret_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    """The first start makes it, each later one finds it; nobody else can read it, and no two folders share one."""
    (tmp_path / "other").mkdir()
    first, again = load_or_create_secret(tmp_path), load_or_create_secret(tmp_path)
    other = load_or_create_secret(tmp_path / "other")

    assert first.reveal() == again.reveal() == (tmp_path / "secret").read_text()
    assert first.reveal() != other.reveal()
    assert len(first.reveal()) >= 2 * MIN_SECRET_LENGTH
    assert 0o600 == stat.S_IMODE((tmp_path / "secret").stat().st_mode)
    assert ["other", "secret"] == sorted(file.name for file in tmp_path.iterdir())


def test_a_secret_half_written_is_no_secret(tmp_path: Path) -> None:
    """What a crash left of the first start is written anew, whole."""
    (tmp_path / "secret.new").write_text("half")

    assert len(load_or_create_secret(tmp_path).reveal()) >= 2 * MIN_SECRET_LENGTH


@pytest.mark.parametrize(
    "content", [b"", b"short", b" " * 40, b"x" * (MIN_SECRET_LENGTH - 1)], ids=["empty", "5", "blank", "15"]
)
def test_a_secret_too_short_is_refused(tmp_path: Path, content: bytes) -> None:
    """It is neither used nor replaced: replacing it would empty the memory unasked."""
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(StateError, match=r"secret: the secret is too short; restore the file, or delete it"):
        load_or_create_secret(tmp_path)

    assert content == (tmp_path / "secret").read_bytes()


def test_a_secret_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Neither by what is no text nor by a folder in its place does the start end in a traceback."""
    (tmp_path / "secret").write_bytes(b"\xff" * 64)
    with pytest.raises(StateError, match="cannot be read or created"):
        load_or_create_secret(tmp_path)
    (tmp_path / "secret").unlink()
    (tmp_path / "secret").mkdir()
    with pytest.raises(StateError, match="cannot be read or created"):
        load_or_create_secret(tmp_path)


def page(message: str, minute: int = 0) -> dict[str, Any]:
    """A page call that is a click."""
    return builders.landing(message, **moment(minute))


class Outage:
    """Puts the state of running services out of reach, and lets the grace period pass."""

    def __init__(self, patience: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patience = patience
        self.lasts = False
        for name in ("decide", "check", "tally"):
            monkeypatch.setattr(EmbeddedStore, name, self._guarded(getattr(EmbeddedStore, name)))

    def _guarded(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def guarded(store: EmbeddedStore, *given: Any) -> Any:
            if self.lasts:
                raise StateUnavailableError("the disk is full")
            return await method(store, *given)

        return guarded


@pytest.fixture(name="outage")
def outage_fixture(patience: Clock, monkeypatch: pytest.MonkeyPatch) -> Outage:
    """Lend a switch for the state."""
    monkeypatch.setattr(impact_plugin.sessions.sessions, "CHECK_SECONDS", 0.01)
    return Outage(patience, monkeypatch)


class Router:
    """Asks a service in the router's two ways, and as an operator."""

    def __init__(self, service: Service, http: aiohttp.ClientSession, item: Item) -> None:
        self._service, self._http, self._item = service, http, item

    async def processor(self, *events: dict[str, Any], **config: Any) -> tuple[int, str | None, Any]:
        """Status, should-retry, and the reply."""
        body = [self._item(event, number, config or None) for number, event in enumerate(events, 1)]
        url = f"{self._service.url}/v0/destinations/impact"
        async with self._http.post(url, data=msgspec.json.encode(body)) as response:
            return response.status, response.headers.get("X-Rudder-Should-Retry"), await response.json()

    async def router(self, *events: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
        """Status and entries."""
        body = {"input": [self._item(event, number) for number, event in enumerate(events, 1)], "destType": "impact"}
        url = f"{self._service.url}/routerTransform"
        async with self._http.post(url, data=msgspec.json.encode(body)) as response:
            return response.status, (await response.json())["output"]

    async def ready(self) -> tuple[int, list[str], list[str]]:
        """Status, problems and troubles."""
        async with self._http.get(f"{self._service.operator_url}/ready") as response:
            found = await response.json()
            return response.status, found["problems"], found["troubles"]

    async def metrics(self) -> str:
        """All of them."""
        async with self._http.get(f"{self._service.operator_url}/metrics") as response:
            return await response.text()

    async def becomes(self, *expected: Any) -> None:
        """Wait until /ready says so."""
        for _ in range(TURNS):
            if await self.ready() == expected:
                return
            await asyncio.sleep(0.01)
        pytest.fail(f"/ready did not become {expected}, it is {await self.ready()}")


@pytest.fixture(name="router")
async def router_fixture(start: Start, outage: Outage, http: aiohttp.ClientSession, item: Item) -> Router:
    """Lend a router before a running service."""
    return Router(await start(), http, item)


REFUSED = "state_unavailable: the disk is full"
PROBLEM = "the session state is out of reach: the disk is full"
TROUBLE = "clicks are decided without the session state: the disk is full"


async def test_an_outage_as_the_router_sees_it(router: Router, outage: Outage) -> None:
    """Refused in each path's own way within the grace, answered after it, and decided as ever when it is over."""
    await router.processor(page("m1"))
    outage.lasts = True
    refused = await router.processor(page("m2", 1))
    each = await router.router(page("m3", 2), page("m4", 3))
    await router.becomes(503, [PROBLEM], [])
    outage.patience.now += GRACE
    await router.becomes(200, [], [TROUBLE])
    status, _, [alone] = await router.processor(page("m2", 1))
    routed = await router.router(page("m3", 2))
    metrics = await router.metrics()
    outage.lasts = False
    await router.becomes(200, [], [])

    assert (503, "true", {"error": REFUSED}) == refused
    assert 200 == each[0]
    assert [(429, REFUSED, 1), (429, REFUSED, 2)] == [
        (one["statusCode"], one["error"], one["metadata"][0]["jobId"]) for one in each[1]
    ]
    assert (200, 200, "pageload") == (status, alone["statusCode"], alone["output"]["endpointPath"])
    assert (200, 200) == (routed[0], routed[1][0]["statusCode"])
    assert "impact_plugin_state_up 0.0" in metrics
    assert 'impact_plugin_notices_total{notice="undecided"} 2.0' in metrics
    assert 'impact_plugin_refused_requests_total{reason="state_unavailable"} 2.0' in metrics
    assert "impact_plugin_state_up 1.0" in await router.metrics()


async def test_a_repeat_is_not_dropped_while_undecided(router: Router, outage: Outage, config: dict[str, Any]) -> None:
    """It may be somebody's unique click: it is sent as a page load, and dropped again when the state is back."""
    drops = {**config, "repeatedClicks": "drop"}
    found = [await router.processor(page("m1"), page("m2", 1), **drops)]
    outage.lasts = True
    found.append(await router.processor(page("m3", 2), **drops))
    outage.patience.now += GRACE
    found.append(await router.processor(page("m3", 2), page("m4", 3), **drops))
    outage.lasts = False
    await router.becomes(200, [], [])
    found.append(await router.processor(page("m1"), page("m5", 4), **drops))
    statuses = [[one["statusCode"] for one in reply] if status == 200 else status for status, _, reply in found]

    assert [[200, 298], 503, [200, 200], [200, 298]] == statuses
    assert ["pageload", "pageload"] == [one["output"]["endpointPath"] for one in found[2][2]]


async def test_a_batch_without_questions_passes_an_outage(router: Router, outage: Outage) -> None:
    """What has nothing to do with clicks is not held back: a group call is filtered as ever."""
    outage.lasts = True
    await router.becomes(503, [PROBLEM], [])
    status, _, [filtered] = await router.processor({"type": "group", "messageId": "g", "anonymousId": "a-1"})

    assert (200, 298) == (status, filtered["statusCode"])


@pytest.mark.parametrize("transform", ["processor", "router"])
async def test_the_router_loses_nothing_over_an_outage(
    start: Start, outage: Outage, config: dict[str, Any], transform: str
) -> None:
    """A strict router keeps its jobs while the state is down, and each has its answer afterwards."""
    service = await start()
    waits = 0

    async def sleep(_seconds: float) -> None:
        nonlocal waits
        waits += 1
        outage.lasts = waits < 3
        await asyncio.sleep(0.05)

    outage.lasts = True
    events = [page(f"m{number}", number % 60) for number in range(150)]
    async with StrictRudder(service.url, destination_config=config, sleep=sleep) as rudder:
        way: Any = transform
        summary = await rudder.run(events, transform=way, attempts=20)

    assert {"transformed": 150} == summary.states
    assert waits >= 3
