"""Sessions for files of events: the service's rules on an empty state, which expires by event time."""

from collections.abc import Sequence
from typing import Final

import msgspec

from impact_plugin.config.settings import StateSettings
from impact_plugin.sessions.ageing import Ageing
from impact_plugin.sessions.click_history import NOT_ASKED, ClickExplanation, ClickHistory, EarlierEvent
from impact_plugin.sessions.sessions import Digests
from impact_plugin.store.base import SessionAnswer, SessionQuery
from impact_plugin.store.engine import Capacities, Engine
from impact_transformers import Question, Secret
from impact_transformers.clicks import MINUTE_MS
from impact_transformers.normalize import as_text

RETENTION_MS: Final = int(StateSettings().decision_retention_hours * 60) * MINUTE_MS
CAPACITY: Final = 5_000_000
SECRET: Final = Secret("replay")
"""Digests must stay the same when an interrupted replay continues. They save memory; they protect nothing here."""


class AskingEvent(msgspec.Struct, frozen=True, gc=False):
    """An event with a question: its number, from 1, its message id, and when a recording says that it was received."""

    question: Question
    number: int
    message_id: str | int | float | bool | None
    received: int | None


class OfflineAnswer(msgspec.Struct, frozen=True, gc=False):
    """The answer to one question, with its explanation if the sessions explain."""

    answer: SessionAnswer
    explanation: ClickExplanation = NOT_ASKED


class OfflineSessions:
    """Sessions that answer the questions of files of events, request by request.

    With ``ages`` they forget by the times of the events. With ``explains`` they remember which events decided, at the
    cost of memory, and explain every answer.
    """

    def __init__(self, *, ages: bool, explains: bool = False) -> None:
        self.engine = Engine(Capacities(CAPACITY, CAPACITY, CAPACITY), RETENTION_MS)
        self._digests = Digests(SECRET)
        self._history = ClickHistory(self._digests, CAPACITY) if explains else None
        decisions, clicks = [self.engine.claims, self.engine.answers], [self.engine.identities]
        if self._history is not None:
            decisions += self._history.decisions
            clicks += self._history.clicks
        self.ageing = Ageing(decisions, clicks, RETENTION_MS, on=ages)

    def answer(self, asking: Sequence[AskingEvent]) -> list[OfflineAnswer]:
        """Answer the questions of one request, which are decided together, as the service does."""
        if not asking:
            return []
        queries = [self._digests.query(one.question, one.received) for one in asking]
        answers = self.engine.write(queries)
        self.engine.read(queries, answers)
        self.engine.take_changes()
        found = self._explained(asking, queries, answers)
        for query in queries:
            self.ageing.note(query.time)
        return found

    def _explained(
        self, asking: Sequence[AskingEvent], queries: Sequence[SessionQuery], answers: Sequence[SessionAnswer]
    ) -> list[OfflineAnswer]:
        if self._history is None:
            return [OfflineAnswer(answer) for answer in answers]
        events = [EarlierEvent(one.number, as_text(one.message_id)) for one in asking]
        explanations = self._history.explain(events, [one.question for one in asking], queries, answers)
        return [OfflineAnswer(*one) for one in zip(answers, explanations, strict=True)]
