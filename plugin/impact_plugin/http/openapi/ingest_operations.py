"""The operations of the port for senders."""

from typing import Final

from impact_plugin.http.openapi.examples import ORDER
from impact_plugin.http.openapi.operation import DocumentedAnswer, Operation, parameter
from impact_plugin.http.openapi.schemas import ANYTHING, OPEN, Schema, array, either, ref
from impact_plugin.protocols.segment_api import BATCH

_RETRY: Final = {"Retry-After": "Seconds after which to send the same again."}
_TAKEN: Final = "what became of each event is in the body. Do not send it again"
_UNKNOWN: Final = DocumentedAnswer(404, "No such source.", ref("IngestError"), name="Unknown")
_REFUSALS: Final = (
    DocumentedAnswer(
        400,
        "Not JSON, or a single event that cannot be used at a source with `strict`.",
        ref("IngestError"),
        name="Unusable",
    ),
    DocumentedAnswer(401, "No source has the key, or the signature is wrong.", ref("IngestError"), name="Unauthorized"),
    DocumentedAnswer(
        413, "The body or the event is too large; smaller ones may be taken.", ref("IngestError"), name="TooLarge"
    ),
    DocumentedAnswer(
        429, "No room now, nothing was taken: send the same again.", ref("IngestError"), _RETRY, name="NoRoom"
    ),
    DocumentedAnswer(
        500, "A defect of impact-plugin; see its log, and send the same again.", ref("IngestError"), name="Defect"
    ),
    DocumentedAnswer(
        503,
        "It stops, is out of memory, slow, or cannot store: send the same again.",
        ref("IngestError"),
        _RETRY,
        name="NotNow",
    ),
)


def _ingest_answers(reply: Schema) -> tuple[DocumentedAnswer, ...]:
    return (DocumentedAnswer(200, f"Durable; {_TAKEN}.", reply), *_REFUSALS)


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
    """A call of the Segment HTTP API; ``word`` is what the path says for it."""
    many = call == BATCH
    single = {"allOf": [ref(_CALL_SCHEMAS.get(call, "AnyCall")), {"properties": {"writeKey": ANYTHING}}]}
    also = f" The same as /v1/{call}." if word != call else ""
    return Operation(
        id=f"ingest_{word}",
        summary="Events of any calls." if many else f"One {call} call.",
        description=f"Segment HTTP API.{also} gzip and deflate are understood; the media type is not looked at.",
        body=_BATCH_BODY if many else single,
        example={"batch": [ORDER]} if many else {**ORDER, "type": call},
        answers=_ingest_answers(ref("IngestReply") if many else either(ref("SingleReply"), ref("IngestReply"))),
        secured="segment_api",
    )


_SOURCE: Final = parameter("path", "source", {"type": "string"}, "A source of the configuration file.", example="shop")
_TOKEN: Final = parameter("path", "token", {"type": "string"}, "A key of the source.")


def webhook_operation(method: str, *, with_token: bool) -> Operation:
    """Events of a webhook, with the source's key in the path or elsewhere."""
    return Operation(
        id=f"webhook_{method.lower()}{'_with_token' if with_token else ''}",
        summary="Events of a webhook.",
        description=(
            "An event, a list of them, lines of JSON, or an object that holds events in `batch`, `events` or "
            "`records`; in the dialect of the source's adapter. PUT and PATCH are as POST."
        ),
        parameters=(_SOURCE, _TOKEN) if with_token else (_SOURCE,),
        body=either(OPEN, array(OPEN)),
        example=ORDER,
        answers=(*_ingest_answers(either(ref("SingleReply"), ref("IngestReply"))), _UNKNOWN),
        secured="webhook",
    )
