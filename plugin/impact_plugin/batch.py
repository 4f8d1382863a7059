"""A router's batch in our types, and the loop that transforms it without holding up the service."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from time import perf_counter
from typing import Any, Final, Literal

import msgspec

from impact_plugin.destinations import Destinations, KnownDestination
from impact_plugin.telemetry import BatchTransformed, Telemetry, TransformFault
from impact_plugin.wire import Endpoints
from impact_transformers import (
    AnyEvent,
    KnownEvent,
    Outcome,
    Reason,
    Reject,
    Send,
    UndecodableEventError,
    decode_event,
    decode_object,
    transform,
)

YIELD_EVERY: Final = 50
"""Events between two turns of the event loop: a large batch must not delay a small one, or /health, by much."""


class Job(msgspec.Struct, frozen=True):
    """One event of a batch. ``message`` is decoded already, or raw where it must be read whole or piece by piece.

    ``metadata`` is echoed as it came, byte for byte.
    """

    message: AnyEvent | msgspec.Raw
    metadata: msgspec.Raw
    destination: msgspec.Raw


class Done(msgspec.Struct, frozen=True):
    """One event of a batch with its outcome."""

    job: Job
    destination: KnownDestination
    outcome: Outcome


class Counts(msgspec.Struct, frozen=True):
    """How many events by (call, outcome, reason), where a request's outcome is its endpoint path; and the notices."""

    outcomes: Counter[tuple[str, str, str]]
    notices: Counter[str]


class Desk(msgspec.Struct, frozen=True):
    """What every batch is worked on with."""

    destinations: Destinations
    endpoints: Endpoints
    telemetry: Telemetry


class Watch:
    """Times one batch and reports it when its reply is ready."""

    def __init__(self, protocol: Literal["processor", "router"], body: bytes, telemetry: Telemetry) -> None:
        self._protocol = protocol
        self._bytes_in = len(body)
        self._telemetry = telemetry
        self._started = perf_counter()
        self.counts = Counts(Counter(), Counter())

    def report(self, reply: bytes) -> bytes:
        """Emit the one telemetry event of this batch."""
        seconds = perf_counter() - self._started
        outcomes, notices = self.counts.outcomes, self.counts.notices
        self._telemetry.emit(
            BatchTransformed(self._protocol, outcomes.total(), outcomes, notices, seconds, self._bytes_in, len(reply))
        )
        return reply


async def transform_batch(jobs: Sequence[Job], desk: Desk, counts: Counts) -> list[Done]:
    """Give every job its outcome, in order; a fault in one is that one's alone."""
    done: list[Done] = []
    for number, job in enumerate(jobs, 1):
        known = desk.destinations.get(job.destination)
        event, outcome = _transform_one(job, known, desk.telemetry)
        done.append(Done(job, known, outcome))
        if isinstance(outcome, Send):
            counts.outcomes[type(event).__name__, outcome.request.endpoint_path, ""] += 1
            for notice in outcome.notices:
                counts.notices[notice] += 1
        else:
            counts.outcomes[_call(event), type(outcome).__name__.lower(), outcome.reason] += 1
        if number % YIELD_EVERY == 0:
            await asyncio.sleep(0)
    return done


def _transform_one(job: Job, known: KnownDestination, telemetry: Telemetry) -> tuple[AnyEvent | None, Outcome]:
    event: AnyEvent | None = None
    try:
        message: dict[str, Any] | None = None
        if isinstance(job.message, msgspec.Raw):
            event = decode_event(job.message)
            message = decode_object(job.message)
        else:
            event = job.message
        if known.destination is None:
            return event, Reject(Reason.CONFIGURATION, known.problem or "")
        return event, transform(event, known.destination, message)
    except UndecodableEventError as error:
        return event, Reject(Reason.UNDECODABLE_EVENT, str(error))
    except Exception as error:  # noqa: BLE001 - the border of one event: a defect of ours is this event's error only
        telemetry.emit(TransformFault(type(error).__name__, error))
        return event, Reject(Reason.TRANSFORM_FAULT, f"{type(error).__name__} in the transformation")


def _call(event: AnyEvent | None) -> str:
    """The event's type as a metric label: bounded, whatever a sender writes there."""
    return type(event).__name__ if isinstance(event, KnownEvent) else "Other"
