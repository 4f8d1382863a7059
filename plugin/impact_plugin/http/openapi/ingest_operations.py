"""The operations of the senders' port."""

from typing import Final

from impact_plugin.http.openapi.examples import ORDER
from impact_plugin.http.openapi.operation import DocumentedResponse, Operation, parameter
from impact_plugin.http.openapi.schemas import ANYTHING, OPEN, Schema, array, either, ref
from impact_plugin.protocols.segment_api import BATCH

_RETRY: Final = {"Retry-After": "Seconds to wait before retrying."}
_TAKEN: Final = "the body has the outcome of each event. Do not retry"
_UNKNOWN: Final = DocumentedResponse(404, "There is no such source.", ref("IngestError"), name="Unknown")
_REFUSALS: Final = (
    DocumentedResponse(
        400,
        "The body is not JSON, or its only event is unusable and the source is `strict`.",
        ref("IngestError"),
        name="Unusable",
    ),
    DocumentedResponse(
        401, "No source has the key, or the signature is wrong.", ref("IngestError"), name="Unauthorized"
    ),
    DocumentedResponse(
        413, "The body or the event is too large; send smaller batches.", ref("IngestError"), name="TooLarge"
    ),
    DocumentedResponse(
        429, "The service is at capacity. No event was accepted: retry.", ref("IngestError"), _RETRY, name="NoRoom"
    ),
    DocumentedResponse(
        500, "A defect of impact-plugin, see its log. No event was accepted: retry.", ref("IngestError"), name="Defect"
    ),
    DocumentedResponse(
        503,
        "The service is shutting down, short of memory, slow, or cannot store events: retry.",
        ref("IngestError"),
        _RETRY,
        name="NotNow",
    ),
)


def _ingest_responses(reply: Schema) -> tuple[DocumentedResponse, ...]:
    return (DocumentedResponse(200, f"Durable; {_TAKEN}.", reply), *_REFUSALS)


_CALL_SCHEMAS: Final = {"track": "TrackCall", "page": "PageCall", "screen": "ScreenCall", "identify": "IdentifyCall"}
_BATCH_BODY: Final[Schema] = {
    "type": "object",
    "required": ["batch"],
    "properties": {
        "batch": array(OPEN),
        "context": {"type": ["object", "null"]},
        "integrations": {"type": ["object", "null"]},
        "sentAt": ANYTHING,
        "writeKey": ANYTHING,
    },
}


def call_operation(word: str, call: str) -> Operation:
    """Return the operation of a call of the Segment HTTP API; ``word`` is its name in the path."""
    many = call == BATCH
    single = {"allOf": [ref(_CALL_SCHEMAS.get(call, "AnyCall")), {"properties": {"writeKey": ANYTHING}}]}
    also = f" Same as /v1/{call}." if word != call else ""
    return Operation(
        id=f"ingest_{word}",
        summary="Store a batch of events." if many else f"Store one {call} call.",
        description=f"Segment HTTP API.{also} Accepts gzip and deflate; ignores the media type.",
        body=_BATCH_BODY if many else single,
        example={"batch": [ORDER]} if many else {**ORDER, "type": call},
        responses=_ingest_responses(ref("IngestReply") if many else either(ref("SingleReply"), ref("IngestReply"))),
        secured="segment_api",
    )


_SOURCE: Final = parameter(
    "path", "source", {"type": "string"}, "The name of a source in the configuration.", example="shop"
)
_TOKEN: Final = parameter("path", "token", {"type": "string"}, "A key of the source.")


def webhook_operation(method: str, *, with_token: bool) -> Operation:
    """Return the operation of a webhook, with the source's key in the path or elsewhere."""
    return Operation(
        id=f"webhook_{method.lower()}{'_with_token' if with_token else ''}",
        summary="Store the events of a webhook.",
        description=(
            "One event, an array of events, JSON lines, or an object with events in `batch`, `events` or `records`, in "
            "the format of the source's adapter. PUT and PATCH work like POST."
        ),
        parameters=(_SOURCE, _TOKEN) if with_token else (_SOURCE,),
        body=either(OPEN, array(OPEN)),
        example=ORDER,
        responses=(*_ingest_responses(either(ref("SingleReply"), ref("IngestReply"))), _UNKNOWN),
        secured="webhook",
    )
