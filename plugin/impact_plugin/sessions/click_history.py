"""Explains decisions: which earlier event decided a click, and which one brought a click id."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from impact_plugin.sessions.sessions import Digests
from impact_plugin.store.base import SessionAnswer, SessionQuery
from impact_plugin.store.table import GenerationTable
from impact_transformers import Decision, Question
from impact_transformers.clicks import SEPARATOR

START_BYTES: Final = 8


class EarlierEvent(msgspec.Struct, frozen=True, rename="camel"):
    """An earlier event in the files: its number, from 1, and its messageId."""

    event: int
    message_id: str | None


class ClickExplanation(msgspec.Struct, frozen=True):
    """How the sessions reached their decision.

    ``key`` identifies the click. ``start`` and ``end`` are those of the window that the click opened or fell into, and
    ``opener`` is the event that opened it. ``clicked`` is the event that brought ``click_id``, the remembered click id
    to send. ``asked`` is whether the event needed a remembered click id, ``replayed`` whether the same message was
    decided before.
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


NOT_ASKED: Final = ClickExplanation()
"""The explanation of an event without a question to the sessions."""


class ClickHistory:
    """Remembers which events made which decisions; its tables age like those of the engine."""

    def __init__(self, digests: Digests, capacity: int) -> None:
        self._digests = digests
        self._openers = GenerationTable(capacity)
        self._explanations = GenerationTable(capacity)
        self._click_events = GenerationTable(capacity)
        self.decisions = (self._openers, self._explanations)
        self.clicks = (self._click_events,)
        self._encode = msgspec.msgpack.Encoder().encode
        self._event_of = msgspec.msgpack.Decoder(EarlierEvent).decode
        self._explanation_of = msgspec.msgpack.Decoder(ClickExplanation).decode

    def explain(
        self,
        events: Sequence[EarlierEvent],
        questions: Sequence[Question],
        queries: Sequence[SessionQuery],
        answers: Sequence[SessionAnswer],
    ) -> list[ClickExplanation]:
        """Explain the decisions on the questions of one request."""
        # The engine writes all clicks of a request before it answers, and so must the history.
        for event, question in zip(events, questions, strict=True):
            if question.click_id is not None:
                self._keep_first(self._click_events, self._click_key(question.click_id), event)
        return [self._explain_one(*one) for one in zip(events, questions, queries, answers, strict=True)]

    def _explain_one(
        self, event: EarlierEvent, question: Question, query: SessionQuery, answer: SessionAnswer
    ) -> ClickExplanation:
        if answer.replayed:
            known = self._explanations.get(query.owner)
            if known is not None:
                return msgspec.structs.replace(self._explanation_of(known), replayed=True)
        explanation = self._explanation(event, question, query, answer)
        self._explanations.put(query.owner, self._encode(explanation))
        return explanation

    def _explanation(
        self, event: EarlierEvent, question: Question, query: SessionQuery, answer: SessionAnswer
    ) -> ClickExplanation:
        decided = answer.decision is not None
        opener = None
        if decided and query.key is not None:
            opener = self._opener(event, query.key, answer)
        click_event = None if answer.click_id is None else self._click_events.get(self._click_key(answer.click_id))
        return ClickExplanation(
            answer.decision,
            answer.replayed,
            () if question.key is None else tuple(question.key.split(SEPARATOR)),
            _moment(answer.start) if decided else None,
            _moment(answer.end) if decided else None,
            opener,
            question.asks,
            answer.click_id,
            None if click_event is None else self._event_of(click_event),
        )

    def _opener(self, event: EarlierEvent, key: bytes, answer: SessionAnswer) -> EarlierEvent | None:
        place = key + answer.start.to_bytes(START_BYTES, signed=True)
        if answer.decision is Decision.NEW and not answer.replayed:
            self._openers.put(place, self._encode(event))
            return event
        held = self._openers.get(place)
        if held is None:
            return None
        # Rewrite it, as the engine rewrites the window, so that both expire together.
        self._openers.put(place, held)
        return self._event_of(held)

    def _keep_first(self, table: GenerationTable, key: bytes, event: EarlierEvent) -> None:
        """Keep the first event under the key; later events with the same key renew it."""
        table.put(key, table.get(key) or self._encode(event))

    def _click_key(self, click_id: str) -> bytes:
        return self._digests.of(f"click{SEPARATOR}{click_id}")


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
