"""A router's batch in our types, and the loop that transforms it without holding up the service."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from time import perf_counter
from typing import Any, Final, Literal

import msgspec

from impact_plugin.config.destinations import Destinations, KnownDestination
from impact_plugin.delivery.endpoints import Endpoints
from impact_plugin.recording.recorder import RecordedJob, Recorder
from impact_plugin.sessions.sessions import Sessions
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.faults import TransformFault
from impact_plugin.telemetry.events.transformation import BatchTransformed
from impact_transformers import (
    NO_VISIT,
    AnyEvent,
    DecodedEvent,
    Draft,
    Event,
    Outcome,
    Question,
    Reason,
    Reject,
    Send,
    UndecodableEventError,
    Visit,
    conclude,
    decode_event,
    decode_object,
    prepare,
)
from impact_transformers.events import UNREADABLE

LOOK_EVERY: Final = 32
"""Events between two looks at the clock."""

CONCLUDED: Final = 1024
"""Events concluded at a stretch; each takes less than a microsecond."""

TURN_SECONDS: Final = 0.005
"""How long a batch may keep the event loop: a large batch must not delay a small one, or /health, by much."""


EMPTY: Final = msgspec.Raw(b"{}")


class TypedJob(msgspec.Struct, frozen=True, gc=False):
    """One event of a batch, decoded with it. ``metadata`` is echoed as it came, byte for byte."""

    message: DecodedEvent
    metadata: msgspec.Raw
    destination: msgspec.Raw = EMPTY


class RawJob(msgspec.Struct, frozen=True, gc=False):
    """One event of a batch, to be decoded by itself: it is not well-formed, or is to be read whole."""

    message: msgspec.Raw = EMPTY
    metadata: msgspec.Raw = EMPTY
    destination: msgspec.Raw = EMPTY


class Batch(msgspec.Struct, frozen=True):
    """The events of one request; ``destination`` is the one of all of them, where it stands apart."""

    jobs: Sequence[TypedJob | RawJob]
    destination: msgspec.Raw | None = None


class TransformedJob(msgspec.Struct, frozen=True, gc=False):
    """One event of a batch with its outcome. ``destination`` is as the router wrote it."""

    job: TypedJob | RawJob
    destination: msgspec.Raw
    known: KnownDestination
    outcome: Outcome


class BatchCounts(msgspec.Struct, frozen=True):
    """How many events by (call, outcome, reason), where a request's outcome is its endpoint path; and the notices."""

    outcomes: Counter[tuple[str, str, str]]
    notices: Counter[str]


class TransformContext(msgspec.Struct, frozen=True):
    """What every batch is worked on with; without ``sessions`` every event stands for itself."""

    destinations: Destinations
    endpoints: Endpoints
    telemetry: Telemetry
    sessions: Sessions | None = None
    recorder: Recorder | None = None


class _Prepared(msgspec.Struct, frozen=True, gc=False):
    """One event of a batch that waits for what the sessions know."""

    job: TypedJob | RawJob
    destination: msgspec.Raw
    known: KnownDestination
    event: AnyEvent | None
    draft: Draft
    question: Question | None


class BatchTimer:
    """Times one batch and reports it when its reply is ready."""

    def __init__(self, protocol: Literal["processor", "router"], body: bytes, telemetry: Telemetry) -> None:
        self._protocol = protocol
        self._bytes_in = len(body)
        self._telemetry = telemetry
        self._started = perf_counter()
        self.counts = BatchCounts(Counter(), Counter())

    def report(self, reply: bytes) -> bytes:
        """Emit the one telemetry event of this batch."""
        seconds = perf_counter() - self._started
        outcomes, notices = self.counts.outcomes, self.counts.notices
        self._telemetry.emit(
            BatchTransformed(self._protocol, outcomes.total(), outcomes, notices, seconds, self._bytes_in, len(reply))
        )
        return reply


class _Destined(msgspec.Struct, frozen=True):
    """What a recording keeps of a destination."""

    id: str = msgspec.field(name="ID", default="")
    config: msgspec.Raw = msgspec.field(name="Config", default=EMPTY)


def record(desk: TransformContext, via: Literal["processor", "router"], read: Callable[[], Batch]) -> None:
    """Hand a batch over to whoever records; it is read once more, whole, and only then."""
    if desk.recorder is None or not desk.recorder.listening:
        return
    batch, told = read(), _told_destinations()
    jobs = [
        RecordedJob(job.message, (told(batch.destination or job.destination),))
        for job in batch.jobs
        if isinstance(job, RawJob)
    ]
    desk.recorder.take(via, jobs)


def _told_destinations() -> Callable[[msgspec.Raw], tuple[str, msgspec.Raw]]:
    """Reads destinations of one batch, which are few."""

    @cache
    def read(raw: bytes) -> tuple[str, msgspec.Raw]:
        try:
            known = msgspec.json.decode(raw, type=_Destined)
        except UNREADABLE:
            return "", EMPTY
        return known.id, known.config

    return lambda raw: read(bytes(raw))


async def transform_batch(batch: Batch, desk: TransformContext, counts: BatchCounts) -> list[TransformedJob]:
    """Give every job its outcome, in order; a fault in one is that one's alone.

    Raises :class:`StateUnavailableError` when the batch must come again because the session state is out of reach.
    """
    prepared = await _prepare_all(batch, desk)
    visits = None
    if desk.sessions is not None:
        visits = await desk.sessions.visits([one.question for one in prepared])
    done: list[TransformedJob] = []
    outcomes = counts.outcomes
    for number, one in enumerate(prepared):
        outcome = _conclude_one(one, NO_VISIT if visits is None else visits[number], desk.telemetry)
        done.append(TransformedJob(one.job, one.destination, one.known, outcome))
        if isinstance(outcome, Send):
            outcomes[type(one.event).__name__, outcome.request.endpoint_path, ""] += 1
            if outcome.notices:
                counts.notices.update(outcome.notices)
        else:
            outcomes[_call(one.event), type(outcome).__name__.lower(), outcome.reason] += 1
        if number % CONCLUDED == CONCLUDED - 1:
            await asyncio.sleep(0)
    return done


async def _prepare_all(batch: Batch, desk: TransformContext) -> list[_Prepared]:
    """Everything but the sessions, letting others have the event loop now and then."""
    prepared: list[_Prepared] = []
    shared = batch.destination
    raw = EMPTY if shared is None else shared
    known = desk.destinations.get(raw)
    turn = perf_counter()
    for number, job in enumerate(batch.jobs, 1):
        if shared is None:
            raw = job.destination
            known = desk.destinations.get(raw)
        event, draft = _prepare_one(job, known, desk.telemetry)
        question = None if desk.sessions is None else _question_of(draft, desk.telemetry)
        prepared.append(_Prepared(job, raw, known, event, draft, question))
        if number % LOOK_EVERY == 0 and perf_counter() - turn > TURN_SECONDS:
            await asyncio.sleep(0)
            turn = perf_counter()
    return prepared


def _prepare_one(
    job: TypedJob | RawJob, known: KnownDestination, telemetry: Telemetry
) -> tuple[AnyEvent | None, Draft]:
    event: AnyEvent | None = None
    message: dict[str, Any] | None = None
    try:
        if isinstance(job, TypedJob):
            event = job.message
        else:
            event = decode_event(job.message)
            message = decode_object(job.message)
        if known.destination is None:
            return event, Draft(Reject(Reason.CONFIGURATION, known.problem or ""))
        return event, prepare(event, known.destination, message)
    except UndecodableEventError as error:
        return event, Draft(Reject(Reason.UNDECODABLE_EVENT, str(error)))
    except Exception as error:  # noqa: BLE001 - the border of one event: a defect of ours is this event's error only
        return event, Draft(_fault(error, telemetry))


def _question_of(draft: Draft, telemetry: Telemetry) -> Question | None:
    try:
        return draft.question
    except Exception as error:  # noqa: BLE001 - the border of one event, as above; it is sent without its visit
        telemetry.emit(TransformFault(type(error).__name__, error))
        return None


def _conclude_one(one: _Prepared, visit: Visit, telemetry: Telemetry) -> Outcome:
    try:
        return conclude(one.draft, visit)
    except Exception as error:  # noqa: BLE001 - the border of one event, as above
        return _fault(error, telemetry)


def _fault(error: Exception, telemetry: Telemetry) -> Reject:
    telemetry.emit(TransformFault(type(error).__name__, error))
    return Reject(Reason.TRANSFORM_FAULT, f"{type(error).__name__} in the transformation")


def _call(event: AnyEvent | None) -> str:
    """The event's type as a metric label: bounded, whatever a sender writes there."""
    return type(event).__name__ if isinstance(event, Event) else "Other"
