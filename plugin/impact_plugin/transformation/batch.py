"""A router's batch in our types, and the loop that transforms it without holding up the service."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from time import perf_counter
from typing import Final, Literal

import msgspec
from anyio.lowlevel import checkpoint

from impact_plugin.config.destinations import Destinations, KnownDestination
from impact_plugin.delivery.endpoints import Endpoints
from impact_plugin.recording.recorder import RecordedJob, Recorder
from impact_plugin.sessions.sessions import Sessions
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.transformation import BatchTransformed
from impact_plugin.transformation.step import PreparedEvent, TransformStep, faults_to, outcome_word
from impact_transformers import DecodedEvent, Outcome, Send
from impact_transformers.events import UNREADABLE

CLOCK_INTERVAL: Final = 32
"""Events between two readings of the clock."""

CONCLUDED_AT_ONCE: Final = 1024
"""Events concluded without a pause; each takes less than a microsecond."""

PAUSE_AFTER_SECONDS: Final = 0.005
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
    """What every batch is transformed with."""

    destinations: Destinations
    endpoints: Endpoints
    telemetry: Telemetry
    sessions: Sessions
    recorder: Recorder


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


class _RecordedDestination(msgspec.Struct, frozen=True):
    """What a recording keeps of a destination."""

    id: str = msgspec.field(name="ID", default="")
    config: msgspec.Raw = msgspec.field(name="Config", default=EMPTY)


def record(context: TransformContext, via: Literal["processor", "router"], read: Callable[[], Batch]) -> None:
    """Hand the batch to the recorder; while somebody records, and only then, it is read once more, whole."""
    if not context.recorder.listening:
        return
    batch, destination_of = read(), _recorded_destinations()
    jobs = [
        RecordedJob(job.message, (destination_of(batch.destination or job.destination),))
        for job in batch.jobs
        if isinstance(job, RawJob)
    ]
    context.recorder.take(via, jobs)


def _recorded_destinations() -> Callable[[msgspec.Raw], tuple[str, msgspec.Raw]]:
    """Reads the destinations of one batch, which are few, each once."""

    @cache
    def read(raw: bytes) -> tuple[str, msgspec.Raw]:
        try:
            known = msgspec.json.decode(raw, type=_RecordedDestination)
        except UNREADABLE:
            return "", EMPTY
        return known.id, known.config

    return lambda raw: read(bytes(raw))


async def transform_batch(batch: Batch, context: TransformContext, counts: BatchCounts) -> list[TransformedJob]:
    """Give every job its outcome, in order; a fault in one is that one's alone.

    Raises :class:`StateUnavailableError` when the session state is out of reach and the router must send the batch
    again.
    """
    step = TransformStep(faults_to(context.telemetry), context.sessions.takes_questions)
    prepared = await _prepare_all(batch, context.destinations, step)
    visits = await context.sessions.visits([one.question for one in prepared])
    transformed: list[TransformedJob] = []
    outcomes, shared = counts.outcomes, batch.destination
    for number, one in enumerate(prepared):
        job = batch.jobs[number]
        outcome = step.conclude(one, visits[number])
        transformed.append(TransformedJob(job, job.destination if shared is None else shared, one.known, outcome))
        if isinstance(outcome, Send):
            outcomes[type(one.event).__name__, outcome.request.endpoint_path, ""] += 1
            if outcome.notices:
                counts.notices.update(outcome.notices)
        else:
            outcomes[one.call, outcome_word(outcome), outcome.reason] += 1
        if number % CONCLUDED_AT_ONCE == CONCLUDED_AT_ONCE - 1:
            await checkpoint()
    return transformed


async def _prepare_all(batch: Batch, destinations: Destinations, step: TransformStep) -> list[PreparedEvent]:
    """Everything but the sessions, pausing now and then for other requests."""
    prepared: list[PreparedEvent] = []
    shared = batch.destination
    known = destinations.get(EMPTY if shared is None else shared)
    turn = perf_counter()
    for number, job in enumerate(batch.jobs, 1):
        if shared is None:
            known = destinations.get(job.destination)
        message = job.message
        if isinstance(message, msgspec.Raw):
            prepared.append(step.read(message, known))
        else:
            prepared.append(step.prepare(message, known))
        if number % CLOCK_INTERVAL == 0 and perf_counter() - turn > PAUSE_AFTER_SECONDS:
            await checkpoint()
            turn = perf_counter()
    return prepared
