"""Same message, same answer, always: stateful tests of each backend against a reference that a reader can check.

The reference keeps plain lists and never packs, shards, expires or forgets what it answered. Batches of random events,
retries of any of them in any order and split, restarts, time going by, and visitors who are forgotten.
"""

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from impact_plugin.config.settings import StateSettings
from impact_plugin.store.base import NEWEST_CLICKS, SessionAnswer, SessionQuery, SessionStore
from impact_plugin.store.embedded import open_store
from impact_transformers import Decision
from tests.properties import tried

MINUTE = 60_000
NOON = 1_789_000_000_000
RETENTION = 96 * 3600.0
MEMORY = 30 * 86400.0
Given = tuple[Decision | None, str | None]

CLICKS = [(0, "A"), (15, "A"), (30, "A"), (30, "B"), (60, "Ü"), (90, "A"), (120, "B"), (121, "B")]
"""Minutes and ids: as many as an identity remembers, because the reference never lets go of any."""

assert len(CLICKS) == NEWEST_CLICKS

minutes = st.integers(-40, 200)
visitors = st.sampled_from(["a", "b", "c"])
users = st.sampled_from(["u", "v"])


class Naive:
    """The rules of the port, one after the other."""

    def __init__(self) -> None:
        self.windows: dict[bytes, list[list[Any]]] = {}
        self.clicks: dict[bytes, list[tuple[int, str]]] = {}
        self.users: dict[bytes, list[tuple[int, bytes]]] = {}
        self.given: dict[bytes, Given] = {}
        self.written: dict[bytes, bool] = {}

    def decide(self, queries: Sequence[SessionQuery]) -> list[Given]:
        """Write everything, then answer; a message that comes again changes nothing."""
        decided = {}
        for one in queries:
            if one.owner not in self.written:
                self.written[one.owner] = one.keeps
                decided[one.owner] = self._write(one)
        for one in queries:
            if one.owner not in self.given:
                self.given[one.owner] = (decided[one.owner], self._choose(one) if one.asks else None)
        return [self.given[one.owner] for one in queries]

    def forget(self, identities: Sequence[bytes]) -> int:
        """What is known of them goes; only the retry of a message whose answer is kept brings nothing back."""
        known = [one for one in identities if (self.clicks.pop(one, []), self.users.pop(one, [])) != ([], [])]
        self.written = {owner: kept for owner, kept in self.written.items() if kept}
        return len(known)

    def _write(self, one: SessionQuery) -> Decision | None:
        decision = None if one.key is None else self._claim(one, one.key)
        if one.click_id is not None:
            joined = [user for _, user in self.users.get(one.anonymous or b"", []) if self._is(one, user, one.time)]
            for identity in {one.anonymous, one.user, *joined} - {None}:
                self._remember(identity, one.time, one.click_id)
        if one.joins and one.anonymous is not None and one.user is not None:
            noted = self.users.setdefault(one.anonymous, [])
            noted[:] = sorted({*noted, (one.time, one.user)})[-8:]
            for time, click_id in list(self.clicks.get(one.anonymous, [])):
                if self._is(one, one.user, time):
                    self._remember(one.user, time, click_id)
        return decision

    def _claim(self, one: SessionQuery, key: bytes) -> Decision:
        windows = self.windows.setdefault(key, [])
        if any(owner == one.owner for _, _, owner in windows):
            return Decision.NEW
        for window in reversed(windows):
            if window[0] <= one.time < window[1]:
                window[1] = window[1] if one.fixed else max(window[1], one.time + one.window)
                return Decision.REPEAT
        windows.append([one.time, one.time + one.window, one.owner])
        return Decision.NEW

    def _is(self, one: SessionQuery, user: bytes, time: int) -> bool:
        noted = self.users.get(one.anonymous or b"", [])
        others = [at for at, other in noted if other != user and at > time]
        return not others and any(at >= time for at, other in noted if other == user)

    def _remember(self, identity: bytes | None, time: int, click_id: str) -> None:
        clicks = self.clicks.setdefault(identity or b"", [])
        clicks[:] = sorted({*clicks, (time, click_id)})

    def _choose(self, one: SessionQuery) -> str | None:
        known = [
            click
            for identity in (one.anonymous, one.user)
            for click in self.clicks.get(identity or b"", [])
            if one.time - one.referral <= click[0] <= one.time
        ]
        if not known:
            return None
        return (min if one.first else max)(known, key=lambda click: click[0])[1]


def digest(text: str) -> bytes:
    """A digest as the service makes them."""
    return hashlib.blake2b(text.encode(), digest_size=15).digest()


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    """An event's business with the sessions; its message is numbered by the machine."""
    visitor = draw(st.none() | visitors)
    user = draw(st.none() | users)
    kind = draw(st.sampled_from(["landing", "bare landing", "order", "login", "carrier"]))
    found: dict[str, Any] = {
        "time": NOON + draw(minutes) * MINUTE,
        "anonymous": None if visitor is None else digest(f"visitor {visitor}"),
        "user": None if user is None else digest(f"user {user}"),
        "referral": draw(st.sampled_from([20, 90, 10_000])) * MINUTE,
        "first": draw(st.booleans()),
    }
    known = visitor is not None or user is not None
    if kind in {"landing", "bare landing"}:
        found |= {
            "key": digest(f"key {visitor or user} {draw(st.integers(0, 1))}"),
            "window": 30 * MINUTE,
            "fixed": draw(st.booleans()),
        }
    if kind in {"landing", "carrier"}:
        minute, click_id = draw(st.sampled_from(CLICKS))
        found |= {"time": NOON + minute * MINUTE, "click_id": click_id}
    elif known:
        found |= {"asks": True, "keeps": True, "order": kind == "order"}
    if kind == "login" and visitor is not None and user is not None:
        found |= {"joins": True}
    return found


class Machine(RuleBasedStateMachine):
    """Sends batches, retries them, restarts, lets time go by; the store must agree with the reference."""

    open_stores: ClassVar[Callable[["Machine"], list[AbstractAsyncContextManager[SessionStore]]]]
    restarts: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="model-"))
        self.naive = Naive()
        self.sent: list[SessionQuery] = []
        self.now = NOON / 1000
        self.turn = 0
        self.stack = AsyncExitStack()
        self.stores: list[SessionStore] = []

    @initialize()
    def begin(self) -> None:
        """Open the store, or the stores."""
        self.runner.run(self._open())

    async def _open(self) -> None:
        self.stack = AsyncExitStack()
        self.stores = [await self.stack.enter_async_context(one) for one in type(self).open_stores(self)]

    def _ask(self, queries: list[SessionQuery]) -> None:
        """Ask one of the stores, in turn, and compare."""
        self.turn += 1
        answers: list[SessionAnswer] = self.runner.run(self.stores[self.turn % len(self.stores)].decide(queries))

        assert self.naive.decide(queries) == [(one.decision, one.click_id) for one in answers]

    @rule(batch=st.lists(events(), min_size=1, max_size=6))
    def send(self, batch: list[dict[str, Any]]) -> None:
        """Events that were not here before."""
        queries = [SessionQuery(digest(f"message {len(self.sent) + n}"), **event) for n, event in enumerate(batch)]
        self.sent += queries
        self._ask(queries)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        """Any of the earlier ones again, in any order, some twice, in one batch."""
        self._ask(data.draw(st.lists(st.sampled_from(self.sent), min_size=1, max_size=8)))

    @precondition(lambda self: any(one.keeps for one in self.sent))
    @rule(data=st.data(), late=minutes)
    def retry_at_another_time(self, data: st.DataObject, late: int) -> None:
        """Where the time is ours it is another one at each try; the answer stays with the message."""
        kept = st.sampled_from([one for one in self.sent if one.keeps])
        moved = [
            msgspec.structs.replace(one, time=NOON + late * MINUTE)
            for one in data.draw(st.lists(kept, min_size=1, max_size=4))
        ]
        self._ask(moved)

    @precondition(lambda self: self.sent and len(self.naive.written) == len(self.sent))
    @rule(pieces=st.integers(2, 5))
    def retry_all_at_once(self, pieces: int) -> None:
        """The whole history split over calls at the same time: no chunk can upset another."""

        async def ask_all() -> list[list[SessionAnswer]]:
            return await asyncio.gather(
                *[self.stores[n % len(self.stores)].decide(self.sent[n::pieces]) for n in range(pieces)]
            )

        for n, answers in enumerate(self.runner.run(ask_all())):
            given = [self.naive.given[one.owner] for one in self.sent[n::pieces]]
            assert given == [(one.decision, one.click_id) for one in answers]

    @rule(identities=st.lists(visitors | users, min_size=1, max_size=3, unique=True))
    def forget(self, identities: list[str]) -> None:
        """Visitors and users ask to be forgotten; what they were answered stands, and they may come back."""
        digests = [digest(f"{'visitor' if one in 'abc' else 'user'} {one}") for one in identities]

        assert self.naive.forget(digests) == self.runner.run(self.stores[self.turn % len(self.stores)].forget(digests))

    @precondition(lambda self: self.sent)
    @rule()
    def retry_all(self) -> None:
        """The whole history in one batch, the last first."""
        self._ask(self.sent[::-1])

    @precondition(lambda self: self.sent)
    @rule(batch=st.lists(events(), min_size=1, max_size=3), data=st.data())
    def mix(self, batch: list[dict[str, Any]], data: st.DataObject) -> None:
        """A batch split differently: old and new together."""
        old = data.draw(st.lists(st.sampled_from(self.sent), max_size=4))
        new = [SessionQuery(digest(f"message {len(self.sent) + n}"), **event) for n, event in enumerate(batch)]
        self.sent += new
        self._ask(data.draw(st.permutations([*old, *new])))

    @precondition(lambda self: self.restarts)
    @rule()
    def restart(self) -> None:
        """Close and open: what was answered was on disk."""
        self.runner.run(self.stack.aclose())
        self.runner.run(self._open())

    @precondition(lambda self: self.now < NOON / 1000 + RETENTION * 0.9)
    @rule(hours=st.integers(1, 20))
    def wait(self, hours: int) -> None:
        """Time goes by, within the retention of the oldest decision."""
        self.now = min(self.now + hours * 3600, NOON / 1000 + RETENTION)

    @invariant()
    def nothing_was_evicted(self) -> None:
        """The promise holds below capacity; the test must stay there."""
        for store in self.stores:
            tally = self.runner.run(store.tally())

            assert (0, 0) == (sum(tally.evicted.values()), tally.unsaved)

    def teardown(self) -> None:
        """Close everything."""
        self.runner.run(self.stack.aclose())
        self.runner.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def open_embedded_store(machine: Machine) -> list[AbstractAsyncContextManager[SessionStore]]:
    """One store on the machine's folder and clock."""
    chosen = StateSettings(str(machine.folder), durability="process")
    return [open_store(chosen, lambda: machine.now)]


def run(machine: type[Machine], examples: int) -> None:
    """Run the machine."""
    chosen = tried(examples, stateful_step_count=25, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=chosen)


@pytest.mark.hypothesis
def test_the_embedded_store_never_changes_its_mind() -> None:
    """Retries, splits, reorderings, restarts and time: the same message gets the same answer."""

    class Embedded(Machine):
        open_stores = open_embedded_store

    run(Embedded, 60)
