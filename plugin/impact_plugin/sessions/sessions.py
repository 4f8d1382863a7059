"""Answers events' questions from the session state, using digests of identifiers, and handles a failed store.

One call of the store serves a batch. While the store is unavailable we refuse batches, so that the router keeps them,
but only for the grace period: after that this process decides alone, because one waiting destination blocks all
destinations of the router's processor.
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
"""120 bits, keyed: no collisions among a billion messages, and useless without the secret."""

CACHED_DIGESTS: Final = 65_536
CHECK_SECONDS: Final = 1.0


class Digests:
    """Computes keyed digests of identifiers; the same in all processes that share the secret."""

    def __init__(self, secret: Secret) -> None:
        # blake2b takes keys of at most 64 bytes; operators may write longer ones.
        key = hashlib.blake2b(secret.reveal().encode(), digest_size=64).digest()
        self._hash = hashlib.blake2b(key=key, digest_size=DIGEST_BYTES)
        self._known: dict[tuple[str, str, str], bytes] = {}

    def of(self, text: str) -> bytes:
        """Return the digest of a text."""
        digest = self._hash.copy()
        digest.update(text.encode("utf-8", "surrogatepass"))
        return digest.digest()

    def of_identity(self, kind: str, program: str, id_: str) -> bytes:
        """Return the digest of an identity; cached, because a visitor sends many consecutive events."""
        known = self._known.get((kind, program, id_))
        if known is None:
            if len(self._known) >= CACHED_DIGESTS:
                self._known.clear()
            known = self._known[kind, program, id_] = self.of(SEPARATOR.join((kind, program, id_)))
        return known

    def identities(
        self, program: str, anonymous_id: str | None, user_id: str | None
    ) -> tuple[bytes | None, bytes | None]:
        """Return the digests of the anonymous and the user identity at a program."""
        return (
            None if anonymous_id is None else self.of_identity("anonymous", program, anonymous_id),
            None if user_id is None else self.of_identity("user", program, user_id),
        )

    def query(self, question: Question, now: int | None) -> SessionQuery:
        """Return the question with digests and a definite time; ``now`` is in ms, None for events of files."""
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
            # A time from our clock differs on a retry: recognize the message, so that it is not written again.
            question.asks or question.received is None,
            question.referral_ms,
            question.first,
            question.fixed,
        )


class Health(msgspec.Struct):
    """The store's health: unavailable since when (monotonic seconds) and why, and whether we decide alone."""

    down_since: float | None = None
    cause: str = ""
    alone: bool = False


class Sessions:
    """Answers the questions of batches, and tracks the health of the store."""

    takes_questions: ClassVar[bool] = True
    """Whether events need questions; a stand-in for sessions may save their cost, a third of a transformation."""

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
        """Return the visit of each event, in order; raises :class:`StateUnavailableError` within the grace period."""
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
        """Return digests of ids at programs, each as a user id and as an anonymous id, and of the joined identities.

        Callers may not know which kind an id is. Raises :class:`StateUnavailableError`.
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

        Decisions about their messages contain no identity, and expire. Raises :class:`StateUnavailableError`.
        """
        return await self._store.forget(identities)

    async def watch(self) -> None:
        """Check and measure the store every second, until cancelled."""
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
            self._end_grace()

    async def _decide(self, queries: Sequence[SessionQuery]) -> tuple[list[SessionAnswer], bool]:
        """Return the answers, and whether this process decided alone."""
        health = self.health
        if health.down_since is None:
            try:
                return await self._store.decide(queries), False
            except StateUnavailableError as error:
                self._failed(error)
        self._end_grace()
        if health.alone:
            return await self._store.decide_locally(queries), True
        raise StateUnavailableError(health.cause)

    def _failed(self, error: StateUnavailableError) -> None:
        health = self.health
        health.cause = str(error)
        if health.down_since is None:
            health.down_since = monotonic()
            self._telemetry.emit(StateFailed(health.cause, self._grace))

    def _end_grace(self) -> None:
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
    """Return the metric label of a decision about a click candidate; ``alone`` if this process decided alone."""
    if alone:
        return "undecided"
    return "replayed" if answer.replayed else str(answer.decision)


def click_id_origin(question: Question, answer: SessionAnswer) -> str:
    """Return whether an order carried its click id, got the remembered one (stitched), or has none."""
    if question.click_id is not None:
        return "carried"
    return "without" if answer.click_id is None else "stitched"


def visit_of(answer: SessionAnswer, *, alone: bool = False) -> Visit:
    """Return the visit for an answer; ``alone`` if this process decided alone."""
    if answer.decision is None and answer.click_id is None:
        return NO_VISIT
    return Visit(answer.decision, answer.click_id, undecided=alone and answer.decision is not None)


async def _measured(store: SessionStore) -> StateMeasured:
    tally = await store.tally()
    return StateMeasured(tally.sizes, tally.capacities, tally.evicted, tally.late_clicks, tally.unsaved)
