"""Sessions of a file of events, read in order: the service's own rules on an empty memory, and their reasons."""

import secrets
from datetime import UTC, datetime
from typing import Final

import msgspec

from impact_plugin.sessions.sessions import Digests
from impact_plugin.store.base import SessionAnswer, SessionQuery
from impact_plugin.store.engine import Capacities, Engine
from impact_transformers import NO_VISIT, Decision, Question, Secret, Visit
from impact_transformers.clicks import MINUTE_MS, SEPARATOR

CAPACITY: Final = 5_000_000
RETENTION_MS: Final = 96 * 60 * MINUTE_MS


class EarlierEvent(msgspec.Struct, frozen=True, rename="camel"):
    """An earlier event of the file: its number, from 1, and its messageId."""

    event: int
    message_id: str | None


class ClickExplanation(msgspec.Struct, frozen=True):
    """How the sessions came to their answer.

    ``key`` is what makes the click its own; ``start`` and ``end`` are of the window it opened or fell into, ``opener``
    the event that opened it. ``clicked`` is the event that brought the click id that is sent.
    """

    decision: Decision | None = None
    replayed: bool = False
    key: tuple[str, ...] = ()
    start: str | None = None
    end: str | None = None
    opener: EarlierEvent | None = None
    asked: bool = False
    click_id: str | None = None
    clicked: EarlierEvent | None = None


class OfflineSessions:
    """Answers the questions of one file, one after the other."""

    def __init__(self) -> None:
        self._engine = Engine(Capacities(CAPACITY, CAPACITY, CAPACITY), RETENTION_MS)
        self._digests = Digests(Secret(secrets.token_hex()))
        self._openers: dict[tuple[bytes | None, int], EarlierEvent] = {}
        self._clicks: dict[str, EarlierEvent] = {}
        self._stories: dict[bytes, ClickExplanation] = {}

    def visit(self, question: Question | None, this: EarlierEvent) -> tuple[Visit, ClickExplanation]:
        """The visit of an event, and the story of the answer."""
        if question is None:
            return NO_VISIT, ClickExplanation()
        query = self._digests.query(question, None)
        answers = self._engine.write([query])
        self._engine.read([query], answers)
        self._engine.take_changes()
        (answer,) = answers
        if question.click_id is not None:
            self._clicks.setdefault(question.click_id, this)
        told = self._stories.get(query.owner)
        if told is None:
            told = self._stories[query.owner] = self._story(question, query, answer, this)
        else:
            told = msgspec.structs.replace(told, replayed=True)
        return Visit(answer.decision, answer.click_id), told

    def _story(
        self, question: Question, query: SessionQuery, answer: SessionAnswer, this: EarlierEvent
    ) -> ClickExplanation:
        if answer.decision is Decision.NEW:
            self._openers[query.key, answer.start] = this
        decided = answer.decision is not None
        return ClickExplanation(
            answer.decision,
            False,
            () if question.key is None else tuple(question.key.split(SEPARATOR)),
            _moment(answer.start) if decided else None,
            _moment(answer.end) if decided else None,
            self._openers.get((query.key, answer.start)),
            question.asks,
            answer.click_id,
            None if answer.click_id is None else self._clicks.get(answer.click_id),
        )


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
