"""Questions of events to the session state, digests in place of identifiers, and what happens when the state is down.

One call of the store serves a batch. While the store is out of reach a batch is refused so that the router keeps it,
but for no longer than the grace period: after that this process decides alone, because the router's processor holds
back all its destinations while one of them waits.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from time import monotonic, perf_counter
from typing import ClassVar, Final

import msgspec
from anyio.lowlevel import checkpoint

from impact_plugin.errors import StateUnavailableError
from impact_plugin.process.background import repeat
from impact_plugin.store.base import CALL_SIZE, SessionAnswer, SessionQuery, SessionStore
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.sessions import (
    SessionsDecided,
    StateFailed,
    StateMeasured,
    StateRestored,
    StateUndecided,
)
from impact_transformers import NO_VISIT, Question, Secret, Visit
from impact_transformers.clicks import SEPARATOR, clamp

DIGEST_BYTES: Final = 15
"""A hundred and twenty bits, keyed: no two of a billion messages meet, and only who has the secret can look one up."""

CACHED_DIGESTS: Final = 65_536
CHECK_SECONDS: Final = 1.0


class Digests:
    """Keyed digests of what must not be stored in clear; the same for all processes that share the secret."""

    def __init__(self, secret: Secret) -> None:
        # blake2b takes keys of at most 64 bytes; operators may write longer ones.
        key = hashlib.blake2b(secret.reveal().encode(), digest_size=64).digest()
        self._hash = hashlib.blake2b(key=key, digest_size=DIGEST_BYTES)
        self._known: dict[tuple[str, str, str], bytes] = {}

    def of(self, text: str) -> bytes:
        """The digest of a text."""
        digest = self._hash.copy()
        digest.update(text.encode("utf-8", "surrogatepass"))
        return digest.digest()

    def of_identity(self, kind: str, program: str, id_: str) -> bytes:
        """The digest of an identity; kept, because a visitor sends many events in a row."""
        known = self._known.get((kind, program, id_))
        if known is None:
            if len(self._known) >= CACHED_DIGESTS:
                self._known.clear()
            known = self._known[kind, program, id_] = self.of(SEPARATOR.join((kind, program, id_)))
        return known

    def identities(
        self, program: str, anonymous_id: str | None, user_id: str | None
    ) -> tuple[bytes | None, bytes | None]:
        """The anonymous and the user identity at a program."""
        return (
            None if anonymous_id is None else self.of_identity("anonymous", program, anonymous_id),
            None if user_id is None else self.of_identity("user", program, user_id),
        )

    def query(self, question: Question, now: int | None) -> SessionQuery:
        """The question in digests, its time settled; ``now`` is in milliseconds, None for the events of a file."""
        program, time = question.program, question.time
        if time is None:
            time = now or 0
        elif question.received is None and now is not None:
            time = clamp(time, now)
        anonymous, user = self.identities(program, question.anonymous_id, question.user_id)
        return SessionQuery(
            self.of(f"message{SEPARATOR}{program}{SEPARATOR}{question.message}"),
            time,
            None if question.key is None else self.of("key" + SEPARATOR + question.key),
            question.window_ms,
            question.click_id,
            anonymous,
            user,
            question.asks,
            question.joins,
            question.order,
            # A time that may be ours is another one at the next try: the message must be known, and not written again.
            question.asks or question.received is None,
            question.referral_ms,
            question.first,
        )


class Health(msgspec.Struct):
    """How the store does: since when it is out of reach (monotonic seconds), why, and whether we decide alone."""

    down_since: float | None = None
    cause: str = ""
    alone: bool = False


class Sessions:
    """What a batch asks."""

    takes_questions: ClassVar[bool] = True
    """A question costs a third of an event's transformation; what stands in for sessions may do without."""

    def __init__(
        self,
        store: SessionStore,
        digests: Digests,
        telemetry: Telemetry,
        grace: float,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._digests = digests
        self._telemetry = telemetry
        self._grace = grace
        self._clock = clock
        self.health = Health()

    async def visits(self, questions: Sequence[Question | None]) -> list[Visit]:
        """The visit of each event, in order; raises :class:`StateUnavailableError` within the grace period."""
        now = int(self._clock() * 1000)
        query = self._digests.query
        asked = [question for question in questions if question is not None]
        if not asked:
            return [NO_VISIT] * len(questions)
        started = perf_counter()
        queries = [query(question, now) for question in asked[:CALL_SIZE]]
        for start in range(CALL_SIZE, len(asked), CALL_SIZE):
            await checkpoint()
            queries += [query(question, now) for question in asked[start : start + CALL_SIZE]]
        answers, alone = await self._decide(queries)
        self._report(asked, answers, perf_counter() - started, alone=alone)
        found = iter([visit_of(answer, alone=alone) for answer in answers])
        return [NO_VISIT if question is None else next(found) for question in questions]

    async def identities(self, programs: Collection[str], ids: Collection[str]) -> list[bytes]:
        """The digests of persons at programs: of each id as a user's and as an anonymous one, and of who was joined.

        Whoever asks may not know which of the two an id is. Raises :class:`StateUnavailableError`.
        """
        found = [
            one
            for program in programs
            for id_ in ids
            for one in self._digests.identities(program, id_, id_)
            if one is not None
        ]
        return list(dict.fromkeys([*found, *await self._store.joined(found)]))

    async def forget(self, identities: Sequence[bytes]) -> int:
        """Forget the clicks of these identities; returns how many were known.

        The decisions about their messages hold no identity and go with time. Raises :class:`StateUnavailableError`.
        """
        return await self._store.forget(identities)

    async def watch(self) -> None:
        """Look after the store: whether it is back, and what it holds; runs until cancelled."""
        await repeat(self._telemetry, "state", self._check, CHECK_SECONDS)

    async def _check(self) -> None:
        try:
            if self.health.down_since is not None:
                await self._store.check()
                self._restored()
            self._telemetry.emit(await _measured(self._store))
        except StateUnavailableError as error:
            self._failed(error)
        finally:
            self._lose_patience()

    async def _decide(self, queries: Sequence[SessionQuery]) -> tuple[list[SessionAnswer], bool]:
        """The answers, and whether they are this process's own."""
        health = self.health
        if health.down_since is None:
            try:
                return await self._store.decide(queries), False
            except StateUnavailableError as error:
                self._failed(error)
        self._lose_patience()
        if health.alone:
            return await self._store.decide_locally(queries), True
        raise StateUnavailableError(health.cause)

    def _failed(self, error: StateUnavailableError) -> None:
        health = self.health
        health.cause = str(error)
        if health.down_since is None:
            health.down_since = monotonic()
            self._telemetry.emit(StateFailed(health.cause, self._grace))

    def _lose_patience(self) -> None:
        health = self.health
        if health.alone or health.down_since is None or monotonic() - health.down_since < self._grace:
            return
        health.alone = True
        self._telemetry.emit(StateUndecided(health.cause, monotonic() - health.down_since))

    def _restored(self) -> None:
        since = self.health.down_since
        if since is not None:
            self._telemetry.emit(StateRestored(monotonic() - since))
        self.health.down_since, self.health.cause, self.health.alone = None, "", False

    def _report(
        self, questions: Sequence[Question], answers: Sequence[SessionAnswer], seconds: float, *, alone: bool
    ) -> None:
        decisions: Counter[str] = Counter()
        orders: Counter[str] = Counter()
        for question, answer in zip(questions, answers, strict=True):
            if answer.decision is not None:
                decisions[decision_label(answer, alone=alone)] += 1
            if question.order and not answer.replayed:
                orders[click_id_origin(question, answer)] += 1
        self._telemetry.emit(SessionsDecided(len(questions), decisions, orders, seconds))


def decision_label(answer: SessionAnswer, *, alone: bool = False) -> str:
    """What counts as the decision about a click candidate; ``alone`` when this process decided by itself."""
    if alone:
        return "undecided"
    return "replayed" if answer.replayed else str(answer.decision)


def click_id_origin(question: Question, answer: SessionAnswer) -> str:
    """Whether an order carried its click id, got the remembered one (stitched), or goes without."""
    if question.click_id is not None:
        return "carried"
    return "without" if answer.click_id is None else "stitched"


def visit_of(answer: SessionAnswer, *, alone: bool = False) -> Visit:
    """What an answer says about the visit; ``alone`` as above."""
    if answer.decision is None and answer.click_id is None:
        return NO_VISIT
    return Visit(answer.decision, answer.click_id, undecided=alone and answer.decision is not None)


async def _measured(store: SessionStore) -> StateMeasured:
    tally = await store.tally()
    return StateMeasured(tally.sizes, tally.capacities, tally.evicted, tally.late_clicks, tally.unsaved)
