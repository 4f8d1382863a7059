"""The types of a router's batch, and the loop that transforms it without blocking the event loop."""

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
"""The clock is read once per this many events."""

CONCLUDED_PER_TURN: Final = 1024
"""Events concluded between two yields to the event loop; each takes less than a microsecond."""

PAUSE_AFTER_SECONDS: Final = 0.005
"""How long a batch may block the event loop: a large one must not delay small ones, or /health, by much."""

EMPTY: Final = msgspec.Raw(b"{}")


class TypedJob(msgspec.Struct, frozen=True, gc=False):
    """One event of a batch, decoded together with it. ``metadata`` is echoed byte for byte."""

    message: DecodedEvent
    metadata: msgspec.Raw
    destination: msgspec.Raw = EMPTY


class RawJob(msgspec.Struct, frozen=True, gc=False):
    """One event of a batch, to be decoded separately: it is malformed, or needed in full."""

    message: msgspec.Raw = EMPTY
    metadata: msgspec.Raw = EMPTY
    destination: msgspec.Raw = EMPTY


class Batch(msgspec.Struct, frozen=True):
    """The events of one request; ``destination`` is set if the request has one destination for all of them."""

    jobs: Sequence[TypedJob | RawJob]
    destination: msgspec.Raw | None = None


class TransformedJob(msgspec.Struct, frozen=True, gc=False):
    """One event of a batch with its outcome. ``destination`` is the router's JSON."""

    job: TypedJob | RawJob
    destination: msgspec.Raw
    known: KnownDestination
    outcome: Outcome


class BatchCounts(msgspec.Struct, frozen=True):
    """Counts events by (call, outcome, reason), with the endpoint path as the outcome of a request; and notices."""

    outcomes: Counter[tuple[str, str, str]]
    notices: Counter[str]


class TransformContext(msgspec.Struct, frozen=True):
    """The dependencies of transforming a batch."""

    destinations: Destinations
    endpoints: Endpoints
    telemetry: Telemetry
    sessions: Sessions
    recorder: Recorder


class BatchTimer:
    """Times one batch, and reports it when its response is ready."""

    def __init__(self, protocol: Literal["processor", "router"], body: bytes, telemetry: Telemetry) -> None:
        self._protocol = protocol
        self._bytes_in = len(body)
        self._telemetry = telemetry
        self._started = perf_counter()
        self.counts = BatchCounts(Counter(), Counter())

    def report(self, body: bytes) -> bytes:
        """Emit the telemetry event of this batch; returns the response body unchanged."""
        seconds = perf_counter() - self._started
        outcomes, notices = self.counts.outcomes, self.counts.notices
        self._telemetry.emit(
            BatchTransformed(self._protocol, outcomes.total(), outcomes, notices, seconds, self._bytes_in, len(body))
        )
        return body


class _RecordedDestination(msgspec.Struct, frozen=True):
    """The fields of a destination that a recording contains."""

    id: str = msgspec.field(name="ID", default="")
    config: msgspec.Raw = msgspec.field(name="Config", default=EMPTY)


def record(context: TransformContext, via: Literal["processor", "router"], read: Callable[[], Batch]) -> None:
    """Hand the batch to the recorder while a recording is in progress; this decodes it again, in full."""
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
    """Return a function that decodes a batch's destinations, which are few, once each."""

    @cache
    def read(raw: bytes) -> tuple[str, msgspec.Raw]:
        try:
            known = msgspec.json.decode(raw, type=_RecordedDestination)
        except UNREADABLE:
            return "", EMPTY
        return known.id, known.config

    return lambda raw: read(bytes(raw))


async def transform_batch(batch: Batch, context: TransformContext, counts: BatchCounts) -> list[TransformedJob]:
    """Return every job with its outcome, in order; a defect in one affects no other.

    Raises :class:`StateUnavailableError` if the session state is unavailable and the router must retry the batch.
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
                counts.notices.update(notice.reason for notice in outcome.notices)
        else:
            outcomes[one.call, outcome_word(outcome), outcome.reason] += 1
        if number % CONCLUDED_PER_TURN == CONCLUDED_PER_TURN - 1:
            await checkpoint()
    return transformed


async def _prepare_all(batch: Batch, destinations: Destinations, step: TransformStep) -> list[PreparedEvent]:
    """Prepare all jobs, yielding to other requests periodically."""
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
