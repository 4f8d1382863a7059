"""What RudderStack's processor and router protocols share: reading batches, and parts of the response.

https://github.com/rudderlabs/rudder-server/blob/master/processor/types/types.go
"""

from typing import Final

import msgspec
from msgspec.structs import replace

from impact_plugin.config.destinations import Destinations
from impact_plugin.delivery.endpoints import Endpoint
from impact_plugin.errors import EnvelopeError
from impact_plugin.protocols.members import members
from impact_plugin.transformation.batch import EMPTY, Batch, RawJob, TransformedJob, TypedJob
from impact_transformers import REASONS, Reason, Reject, Send, Skip
from impact_transformers.events import UNREADABLE
from impact_transformers.normalize import redact_emails

API_VERSION: Final = {"apiVersion": "2"}
"""rudder-server panics when a 200 lacks this header, or when its value differs."""

COMPACTED: Final = "json+compactedv1"
FILTERED: Final = 298

STAT_CATEGORIES: Final[dict[str, dict[str, str]]] = {
    "configuration": {"errorCategory": "dataValidation", "errorType": "configuration"},
    "instrumentation": {"errorCategory": "dataValidation", "errorType": "instrumentation"},
    "unsupported": {"errorCategory": "platform", "errorType": "unsupported"},
    "fault": {"errorCategory": "transformation"},
}


class Ids(msgspec.Struct, frozen=True, rename="camel"):
    """The fields that we read of a job's metadata, and only when needed."""

    destination_id: str | None = None
    workspace_id: str | None = None


class Body(msgspec.Struct, frozen=True, gc=False):
    """The body formats of a request object; exactly one is set."""

    JSON: msgspec.Raw
    JSON_ARRAY: msgspec.Raw
    XML: msgspec.Raw
    FORM: dict[str, str]


class RequestObject(
    msgspec.Struct, frozen=True, gc=False, rename={"endpoint_path": "endpointPath", "user_id": "userId"}
):
    """The request for the router to send. https://github.com/rudderlabs/rudder-server/blob/master/utils/types/types.go"""

    endpoint: str
    endpoint_path: str
    headers: msgspec.Raw
    body: Body
    version: str = "1"
    type: str = "REST"
    method: str = "POST"
    params: msgspec.Raw = EMPTY
    files: msgspec.Raw = EMPTY
    user_id: str = ""


def request_object(send: Send, endpoint: Endpoint) -> RequestObject:
    """Return the request in the format of the router's delivery."""
    request = send.request
    body = Body(EMPTY, EMPTY, EMPTY, request.form)
    return RequestObject(endpoint.url, request.endpoint_path, endpoint.headers_json, body)


class TypedBatch(msgspec.Struct, frozen=True):
    """Jobs in an object; ``destinations`` by id when the body is compacted."""

    input: list[TypedJob]
    destinations: dict[str, msgspec.Raw] | None = None


class RawBatch(msgspec.Struct, frozen=True):
    """Like :class:`TypedBatch`, with its events not decoded yet."""

    input: list[RawJob]
    destinations: dict[str, msgspec.Raw] | None = None


class BatchReader:
    """Reads batches: typed if all events are well-formed, else event by event to isolate the malformed ones."""

    def __init__(
        self, typed: type[TypedBatch] | type[list[TypedJob]], raw: type[RawBatch] | type[list[RawJob]]
    ) -> None:
        self._typed = msgspec.json.Decoder(typed)
        self._raw = msgspec.json.Decoder(raw)

    def read(self, body: bytes, destinations: Destinations) -> Batch:
        """Decode the jobs; raises :class:`EnvelopeError` if the body does not follow the protocol."""
        try:
            batch = _batch_of(self._typed.decode(body))
        except UNREADABLE:
            return self.read_raw(body)
        return self.read_raw(body) if _reads_message(destinations, batch) else batch

    def read_raw(self, body: bytes) -> Batch:
        """Decode the jobs, but keep their events as bytes."""
        try:
            return _batch_of(self._raw.decode(body))
        except UNREADABLE as error:
            batch = _salvage(body)
            if batch is None:
                raise undecodable(error) from error
            return batch


def _salvage(body: bytes) -> Batch | None:
    """Return the jobs of a body that cannot be decoded as a whole, None if it is not a batch."""
    top = dict(members(body)) if body.lstrip()[:1] == b"{" else {"input": body}
    if not top.get("input", b"").lstrip().startswith(b"["):
        return None
    jobs = [_salvage_job(item) for _, item in members(top["input"])]
    if not jobs or not all(job.metadata != EMPTY for job in jobs):
        return None
    if "destinations" not in top:
        return Batch(jobs)
    apart = {key: msgspec.Raw(value) for key, value in members(top["destinations"])}
    return _batch_of(RawBatch(jobs, apart))


def _salvage_job(item: bytes) -> RawJob:
    parts = {key: msgspec.Raw(value) for key, value in members(item)}
    return RawJob(**{name: parts[name] for name in ("message", "metadata", "destination") if name in parts})


def _batch_of(body: TypedBatch | RawBatch | list[TypedJob] | list[RawJob]) -> Batch:
    """Return the jobs with their destinations, which a compacted body lists separately by id."""
    if isinstance(body, list):
        return Batch(body)
    apart = body.destinations
    if apart is None:
        return Batch(body.input)
    if len(apart) == 1:
        (only,) = apart.values()
        return Batch(body.input, only)
    jobs: list[TypedJob | RawJob] = []
    for job in body.input:
        raw = apart.get(_ids(job.metadata).destination_id or "", EMPTY)
        jobs.append(replace(job, destination=raw))
    return Batch(jobs)


def _reads_message(destinations: Destinations, batch: Batch) -> bool:
    """Whether a destination of the batch requires fully decoded events."""
    if batch.destination is not None:
        return destinations.get(batch.destination).reads_message
    return any(destinations.get(job.destination).reads_message for job in batch.jobs)


def _ids(metadata: msgspec.Raw) -> Ids:
    try:
        return msgspec.json.decode(metadata, type=Ids)
    except UNREADABLE:
        return Ids()


def stat_tags(transformed: TransformedJob, feature: str) -> dict[str, str]:
    """Return the router's labels for a failure, as the stock transformer does."""
    category = REASONS[_reason(transformed)].category
    ids = _ids(transformed.job.metadata)
    found = {"destinationId": ids.destination_id or transformed.known.id}
    found["workspaceId"] = ids.workspace_id or transformed.known.workspace_id
    return {
        **STAT_CATEGORIES.get(category, {}),
        "destType": "IMPACT",
        "module": "destination",
        "implementation": "native",
        "feature": feature,
        **{name: value for name, value in found.items() if value},
    }


def _reason(transformed: TransformedJob) -> Reason:
    assert not isinstance(transformed.outcome, Send)  # noqa: S101 - only failures have tags
    return transformed.outcome.reason


def error_text(outcome: Skip | Reject) -> str:
    """Return the sentence that operators see in the router's live events and logs."""
    detail = redact_emails(outcome.detail)
    if isinstance(outcome, Skip):
        return f"{detail} ({outcome.reason})"
    where = f"{outcome.parameter} from {outcome.path}: " if outcome.parameter and outcome.path else ""
    return f"{where}{detail} ({outcome.reason}). {outcome.fix}"


def status_of(outcome: Skip | Reject) -> int:
    """Return 298 for filtered and 400 for rejected events, and 500 for our defects, which the router retries."""
    if isinstance(outcome, Skip):
        return FILTERED
    return 500 if outcome.reason is Reason.TRANSFORM_FAULT else 400


def undecodable(error: Exception) -> EnvelopeError:
    """Return the error for a body that does not follow the protocol."""
    return EnvelopeError(f"undecodable_body: {error}")
