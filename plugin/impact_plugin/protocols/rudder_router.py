"""``POST /routerTransform``: transforms a router worker's jobs, each in exactly one entry.

https://github.com/rudderlabs/rudder-server/blob/master/router/transformer/transformer.go
"""

import re
from contextlib import suppress
from typing import Final

import msgspec

from impact_plugin.delivery.endpoints import Endpoints
from impact_plugin.protocols.members import members
from impact_plugin.protocols.rudder_envelope import (
    BatchReader,
    RawBatch,
    RequestObject,
    TypedBatch,
    error_text,
    request_object,
    stat_tags,
    status_of,
    undecodable,
)
from impact_plugin.transformation.batch import (
    BatchTimer,
    RawJob,
    TransformContext,
    TransformedJob,
    TypedJob,
    record,
    transform_batch,
)
from impact_transformers import Send
from impact_transformers.events import UNREADABLE

UNAVAILABLE: Final = 429
"""The status for jobs that cannot be transformed now: the router retries it without limit."""


class _Addressed(msgspec.Struct, frozen=True, rename="camel"):
    dest_type: str = ""


class RouterSuccess(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A job with the request to send. ``destination`` is echoed because the router throttles by it."""

    batched_request: RequestObject
    metadata: tuple[msgspec.Raw]
    destination: msgspec.Raw
    status_code: int = 200
    batched: bool = False


class RouterFailure(msgspec.Struct, frozen=True, rename="camel"):
    """A job that was filtered (298), rejected (400) or should be retried (429, 500)."""

    metadata: tuple[msgspec.Raw]
    destination: msgspec.Raw
    status_code: int
    error: str
    stat_tags: dict[str, str]
    batched: bool = False


class _Request(msgspec.Struct, frozen=True):
    """The fields that tell a request object from an event, which has no endpoint, and a call as its type."""

    type: str
    endpoint: str


class RouterReady(msgspec.Struct, frozen=True, rename="camel"):
    """A job that the processor has already transformed."""

    batched_request: msgspec.Raw
    metadata: tuple[msgspec.Raw]
    destination: msgspec.Raw
    status_code: int = 200
    batched: bool = False


class _Output(msgspec.Struct, frozen=True):
    output: list[msgspec.Raw]


class RouterReply(msgspec.Struct, frozen=True):
    """The body of the response."""

    output: list[RouterSuccess | RouterFailure]


_AT_END: Final = re.compile(rb'"destType":"([A-Za-z0-9_-]+)"\}\s*\Z')
_reader: Final = BatchReader(TypedBatch, RawBatch)
_addressed: Final = msgspec.json.Decoder(_Addressed)
_requests: Final = msgspec.json.Decoder(_Request)
_encoder: Final = msgspec.json.Encoder()


def destination_type(body: bytes) -> str:
    """Return the jobs' destination type in lower case, without decoding the jobs."""
    # The router writes it last, and the final brace closes the outermost object: usually there is nothing to skip.
    at_end = _AT_END.search(body, max(0, len(body) - 128))
    if at_end is not None:
        return at_end[1].decode().lower()
    try:
        return _addressed.decode(body).dest_type.lower()
    except UNREADABLE as error:
        found = dict(members(body)).get("destType")
        if found is None:
            raise undecodable(error) from error
        return found.decode("utf-8", "replace").strip('"').lower()


async def handle(body: bytes, context: TransformContext) -> bytes:
    """Transform the jobs; returns the response body with an entry for every job. Raises :class:`EnvelopeError`."""
    timer = BatchTimer("router", body, context.telemetry)
    transformed = await transform_batch(_reader.read(body, context.destinations), context, timer.counts)
    record(context, "router", lambda: _reader.read_raw(body))
    return timer.report(_encoder.encode(RouterReply([_entry(one, context.endpoints) for one in transformed])))


async def handle_batch(body: bytes, context: TransformContext) -> bytes:
    """Transform the jobs of ``/batch``; returns the entries alone, without merging any jobs.

    Jobs that the processor has already transformed are returned unchanged.
    """
    batch = _reader.read_raw(body)
    ready = [_ready(job, batch.destination or job.destination) for job in batch.jobs]
    if None in ready:
        return msgspec.json.encode(msgspec.json.decode(await handle(body, context), type=_Output).output)
    return _encoder.encode(ready)


def _ready(job: TypedJob | RawJob, destination: msgspec.Raw) -> RouterReady | None:
    """Return the entry of a job that is already a request object, None for an event."""
    if not isinstance(job, RawJob):
        return None
    with suppress(*UNREADABLE):
        if _requests.decode(job.message).type == "REST":
            return RouterReady(job.message, (job.metadata,), destination)
    return None


def unavailable_reply(body: bytes, reason: str, *, batch: bool = False) -> bytes:
    """Return the response body for jobs that cannot be transformed now, here or upstream; the router retries each."""
    tags = {"errorCategory": "platform", "errorType": "retryable", "module": "destination", "feature": "router"}
    read = _reader.read_raw(body)
    output: list[RouterSuccess | RouterFailure] = [
        RouterFailure((job.metadata,), read.destination or job.destination, UNAVAILABLE, reason, tags)
        for job in read.jobs
    ]
    return _encoder.encode(output if batch else RouterReply(output))


def _entry(transformed: TransformedJob, endpoints: Endpoints) -> RouterSuccess | RouterFailure:
    outcome, metadata = transformed.outcome, (transformed.job.metadata,)
    if isinstance(outcome, Send):
        endpoint = endpoints.of(outcome.request, outcome.config)
        return RouterSuccess(request_object(outcome, endpoint), metadata, transformed.destination)
    tags = stat_tags(transformed, "router")
    return RouterFailure(metadata, transformed.destination, status_of(outcome), error_text(outcome), tags)
