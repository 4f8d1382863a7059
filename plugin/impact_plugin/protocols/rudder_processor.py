"""``POST /v0/destinations/impact``: transforms a processor's batch, one entry for each event.

https://github.com/rudderlabs/rudder-server/blob/master/processor/internal/transformer/destination_transformer/destination_transformer.go
"""

from typing import Final

import msgspec

from impact_plugin.delivery.endpoints import Endpoints
from impact_plugin.protocols.rudder_envelope import (
    BatchReader,
    RawBatch,
    RequestObject,
    TypedBatch,
    error_text,
    request_object,
    stat_tags,
    status_of,
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


class ProcessorSuccess(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """An event for the router to deliver."""

    output: RequestObject
    metadata: msgspec.Raw
    status_code: int = 200


class ProcessorFailure(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An event that was filtered (298) or failed."""

    metadata: msgspec.Raw
    status_code: int
    error: str
    stat_tags: dict[str, str] = {}


_plain: Final = BatchReader(list[TypedJob], list[RawJob])
_compacted: Final = BatchReader(TypedBatch, RawBatch)
_encoder: Final = msgspec.json.Encoder()


async def handle(body: bytes, context: TransformContext, *, compacted: bool) -> bytes:
    """Transform a batch; returns the response body with an entry for every event. Raises :class:`EnvelopeError`."""
    timer = BatchTimer("processor", body, context.telemetry)
    reader = _compacted if compacted else _plain
    transformed = await transform_batch(reader.read(body, context.destinations), context, timer.counts)
    record(context, "processor", lambda: reader.read_raw(body))
    return timer.report(_encoder.encode([_entry(one, context.endpoints) for one in transformed]))


def _entry(transformed: TransformedJob, endpoints: Endpoints) -> ProcessorSuccess | ProcessorFailure:
    outcome = transformed.outcome
    if isinstance(outcome, Send):
        endpoint = endpoints.of(outcome.request, outcome.config)
        return ProcessorSuccess(request_object(outcome, endpoint), transformed.job.metadata)
    tags = stat_tags(transformed, "processor")
    return ProcessorFailure(transformed.job.metadata, status_of(outcome), error_text(outcome), tags)
