"""``POST /v0/destinations/impact``: a processor's batch in, one entry for each event out.

https://github.com/rudderlabs/rudder-server/blob/master/processor/internal/transformer/destination_transformer/destination_transformer.go
"""

from typing import Final

import msgspec

from impact_plugin.batch import Desk, Done, RawJob, TypedJob, Watch, record, transform_batch
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
from impact_plugin.wire import Endpoints
from impact_transformers import Send


class Success(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """An event the router is to deliver."""

    output: RequestObject
    metadata: msgspec.Raw
    status_code: int = 200


class Failure(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An event that was filtered (298) or failed."""

    metadata: msgspec.Raw
    status_code: int
    error: str
    stat_tags: dict[str, str] = {}


_plain: Final = BatchReader(list[TypedJob], list[RawJob])
_compacted: Final = BatchReader(TypedBatch, RawBatch)
_encoder: Final = msgspec.json.Encoder()


async def answer(body: bytes, desk: Desk, *, compacted: bool) -> bytes:
    """Transform a batch and encode the reply, an entry for every event; raises :class:`EnvelopeError`."""
    watch = Watch("processor", body, desk.telemetry)
    reader = _compacted if compacted else _plain
    done = await transform_batch(reader.read(body, desk.destinations), desk, watch.counts)
    record(desk, "processor", lambda: reader.read_raw(body))
    return watch.report(_encoder.encode([_entry(one, desk.endpoints) for one in done]))


def _entry(done: Done, endpoints: Endpoints) -> Success | Failure:
    outcome = done.outcome
    if isinstance(outcome, Send):
        endpoint = endpoints.of(outcome.request, outcome.config)
        return Success(request_object(outcome, endpoint), done.job.metadata)
    tags = stat_tags(done, "processor")
    return Failure(done.job.metadata, status_of(outcome), error_text(outcome), tags)
