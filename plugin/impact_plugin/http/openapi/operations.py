"""Every endpoint of the three ports: what it takes, which answers it has, and what each means to whoever asks.

The data that the OpenAPI document is made of. The schemas are those of the Structs that read and write the bodies.
"""

from typing import Any, Final, Literal, TypeAlias

import msgspec

from impact_plugin.config.settings import MAX_RECORDING_MB, MAX_RECORDING_MINUTES
from impact_plugin.delivery.limits.scheduler import LimitReport
from impact_plugin.http.features import FLAGS, SOURCE_FLAGS
from impact_plugin.http.ingest import WEBHOOK_METHODS, IngestError, IngestReply, SingleReply
from impact_plugin.http.openapi.schemas import ANYTHING, OPEN, Schema, array, either, having, ref
from impact_plugin.http.operator import ErrorReply, HealthReply, LimitsReply, ReadyReply, VersionReply
from impact_plugin.http.recording import CONTENT_TYPE as PACKED_LINES
from impact_plugin.http.recording import MOST as MOST_RECORDINGS
from impact_plugin.ingest.deletion import MOST_IDS, ForgetReport, ForgetRequest
from impact_plugin.protocols import rudder_processor, rudder_proxy, rudder_regulation, rudder_router
from impact_plugin.protocols.rudder_envelope import API_VERSION, COMPACTED, RawBatch
from impact_plugin.protocols.segment_api import BATCH, CALLS
from impact_plugin.transformation.batch import RawJob
from impact_transformers.events import Event, Identify, Page, Screen, Track

Port: TypeAlias = Literal["router", "operator", "ingest"]

JSON: Final = "application/json"
TEXT: Final = "text/plain"

REQUESTS: Final[dict[str, type[msgspec.Struct]]] = {
    "Job": RawJob,
    "Jobs": RawBatch,
    "ProxyRequest": rudder_proxy.ProxyRequest,
    "DeletionJob": rudder_regulation.DeletionJob,
    "ForgetRequest": ForgetRequest,
    "TrackCall": Track,
    "PageCall": Page,
    "ScreenCall": Screen,
    "IdentifyCall": Identify,
    "AnyCall": Event,
}
"""Structs that read bodies, under their names in the document."""

REPLIES: Final[dict[str, type[msgspec.Struct]]] = {
    "ProcessorSuccess": rudder_processor.ProcessorSuccess,
    "ProcessorFailure": rudder_processor.ProcessorFailure,
    "RouterSuccess": rudder_router.RouterSuccess,
    "RouterReady": rudder_router.Ready,
    "RouterFailure": rudder_router.RouterFailure,
    "ProxyOutputV0": rudder_proxy.ProxyOutputV0,
    "ProxyOutputV1": rudder_proxy.ProxyOutputV1,
    "ProxyJob": rudder_proxy.ProxyJobReply,
    "DeletionReply": rudder_regulation.DeletionReply,
    "Health": HealthReply,
    "Ready": ReadyReply,
    "Version": VersionReply,
    "Limits": LimitsReply,
    "LimitReport": LimitReport,
    "ForgetReport": ForgetReport,
    "Error": ErrorReply,
    "IngestReply": IngestReply,
    "SingleReply": SingleReply,
    "IngestError": IngestError,
}
"""Structs that write bodies."""

DESCRIPTIONS: Final[dict[str, str]] = {
    "Job": (
        "One event of a batch. `message` is an event of the Segment spec in the router's dialect, `destination` holds "
        "the configuration under `Config`, and `metadata` comes back byte for byte: both are the router's, and open."
    ),
    "Jobs": "Jobs in an object; `destinations` by id where the body is compacted, and then the jobs have none.",
    "AnyCall": "What all calls have in common, and what of it is read. Whatever else an event has is kept.",
}
"""Where the Struct's own words are for whoever maintains it."""

FOREIGN: Final[dict[tuple[str, str], Schema]] = {("ProxyRequest", "metadata"): ANYTHING}
"""Raw JSON that is not always an object."""


class DocumentedAnswer(msgspec.Struct, frozen=True):
    """A status, what it means to whoever asked, and its body and headers (name and meaning).

    Those that many operations have, have a name too.
    """

    status: int
    meaning: str
    schema: Schema
    headers: dict[str, str] = {}
    media: str = JSON
    name: str = ""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A method on a path. ``secured`` where the keys of sources are asked for."""

    id: str
    ports: tuple[Port, ...]
    method: str
    path: str
    summary: str
    description: str
    answers: tuple[DocumentedAnswer, ...]
    body: Schema | None = None
    example: Any = None
    parameters: tuple[Schema, ...] = ()
    secured: Literal["", "segment_api", "webhook"] = ""


def _parameter(place: str, name: str, schema: Schema, description: str, **more: Any) -> Schema:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": description,
        "schema": schema,
        **more,
    }


_OUR_VERSION: Final = {"apiVersion": f"Always {API_VERSION['apiVersion']}; rudder-server panics without it."}
_COME_AGAIN: Final = DocumentedAnswer(
    503,
    "Not taken, and nothing is lost: the body is not of the protocol or too large, something of ours is out of reach, "
    "the process is above its memory or stops, or the request is for an upstream transformer that is not there. "
    "rudder-server waits and sends the same again, for as long as it takes.",
    ref("Error"),
    {
        "X-Rudder-Should-Retry": "Always true: the processor is to send the batch again.",
        "X-Rudder-Error-Reason": "The reason as one word, as in the log and the metrics.",
    },
    name="ComeAgain",
)
_TYPE: Final = _parameter(
    "path",
    "type",
    {"type": "string", "enum": ["impact"]},
    "A name of the setting rudder.destination_types, in any case.",
)
_TIMEOUT: Final = _parameter(
    "header", "RdProxy-Timeout", {"type": "string"}, "Milliseconds after which the router gives up; we answer before."
)
_FORMAT: Final = _parameter(
    "header", "X-Content-Format", {"type": "string", "enum": [COMPACTED]}, "Says that the body is compacted."
)

_SECONDS: Final[Schema] = {
    "type": "number",
    "exclusiveMinimum": 0,
    "maximum": MAX_RECORDING_MINUTES * 60,
    "default": 60,
}
_MEGABYTES: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": MAX_RECORDING_MB, "default": 50}

_ORDER: Final = {
    "type": "track",
    "event": "Order Completed",
    "messageId": "m-1",
    "anonymousId": "a-1",
    "timestamp": "2026-09-10T10:00:00.000Z",
    "properties": {"order_id": "o-1", "total": 25.0, "currency": "EUR"},
}
_CONFIG: Final = {"accountSID": "IRtest", "apiKey": "token", "campaignId": "23224"}
_JOB: Final = {
    "message": _ORDER,
    "metadata": {"jobId": 1, "destinationId": "d-1", "workspaceId": "w-1"},
    "destination": {"ID": "d-1", "Config": _CONFIG},
}
_PROXY: Final = {
    "endpoint": "https://api.impact.com/Advertisers/IRtest/Conversions",
    "method": "POST",
    "headers": {"Authorization": "Basic SVJ0ZXN0OnRva2Vu"},
    "body": {
        "FORM": {
            "CampaignId": "23224",
            "ActionTrackerId": "56446",
            "EventDate": "2026-09-10T10:00:00Z",
            "OrderId": "o-1",
            "CustomProfileId": "a-1",
        }
    },
}
_ENTRIES: Final = either(ref("RouterSuccess"), ref("RouterReady"), ref("RouterFailure"))
_ADDRESSED: Final[Schema] = {"allOf": [ref("Jobs"), {"properties": {"destType": {"type": "string"}}}]}
_FEATURES: Final[Schema] = having(routerTransform=OPEN, regulations=array({"type": "string"}))
_FLAGS: Final[Schema] = {"properties": {name: {"type": "boolean"} for name in (*FLAGS, *SOURCE_FLAGS)}}

_BOTH: Final[tuple[Operation, ...]] = (
    Operation(
        id="health",
        ports=("router", "operator", "ingest"),
        method="get",
        path="/health",
        summary="Whether the process answers.",
        description="For liveness probes. The ingest port does not tell the version.",
        answers=(DocumentedAnswer(200, "The process answers.", ref("Health")),),
    ),
    Operation(
        id="ready",
        ports=("router", "operator"),
        method="get",
        path="/ready",
        summary="Whether traffic is welcome.",
        description="For readiness probes and balancers.",
        answers=(
            DocumentedAnswer(200, "Send traffic here.", ref("Ready")),
            DocumentedAnswer(503, "Send no traffic here: `problems` says why.", ref("Ready")),
        ),
    ),
    Operation(
        id="version",
        ports=("router", "operator"),
        method="get",
        path="/version",
        summary="What is installed.",
        description="The package's name and version.",
        answers=(DocumentedAnswer(200, "The version.", ref("Version")),),
    ),
)

_ROUTER: Final[tuple[Operation, ...]] = (
    Operation(
        id="features",
        ports=("router",),
        method="get",
        path="/features",
        summary="What the router may ask of us.",
        description="Merged with what the upstream transformer says; rudder-server does not start without it.",
        answers=(
            DocumentedAnswer(200, "Flags of protocols, and types by protocol.", {"allOf": [_FEATURES, _FLAGS]}),
            _COME_AGAIN,
        ),
    ),
    Operation(
        id="transformForProcessor",
        ports=("router",),
        method="post",
        path="/v0/destinations/{type}",
        summary="A processor's batch: what is to be sent for each event.",
        description="A list of jobs, or with the header X-Content-Format an object with the destinations apart.",
        parameters=(_TYPE, _FORMAT),
        body=either(array(ref("Job")), ref("Jobs")),
        example=[_JOB],
        answers=(
            DocumentedAnswer(
                200,
                "An entry for every event, in their order; what became of each is its `statusCode`: 200 to be sent, "
                "298 filtered, 400 its own fault, 500 ours. Nothing that is wrong with an event changes the status.",
                array(either(ref("ProcessorSuccess"), ref("ProcessorFailure"))),
                _OUR_VERSION,
            ),
            _COME_AGAIN,
        ),
    ),
    Operation(
        id="transformForRouter",
        ports=("router",),
        method="post",
        path="/routerTransform",
        summary="A router worker's jobs: what is to be sent for each.",
        description="Jobs with another `destType` are the upstream transformer's, whose answer comes back as it is.",
        body=_ADDRESSED,
        example={"input": [_JOB], "destType": "impact"},
        answers=(
            DocumentedAnswer(
                200,
                "Every job in one entry; its `statusCode` is 200 to be sent, 298 filtered, 400 its own fault, 429 or "
                "500 to come again.",
                having(output=array(_ENTRIES)),
                _OUR_VERSION,
            ),
            _COME_AGAIN,
        ),
    ),
    Operation(
        id="transformForBatch",
        ports=("router",),
        method="post",
        path="/batch",
        summary="As /routerTransform, for jobs that the router would put together.",
        description="Nothing is put together. Jobs that the processor has transformed already stay as they are.",
        body=_ADDRESSED,
        example={"input": [_JOB], "destType": "impact"},
        answers=(
            DocumentedAnswer(200, "The entries of /routerTransform alone.", array(_ENTRIES), _OUR_VERSION),
            _COME_AGAIN,
        ),
    ),
    Operation(
        id="deleteUsers",
        ports=("router",),
        method="post",
        path="/deleteUsers",
        summary="The regulation worker asks that persons be deleted.",
        description="All jobs are for one type; another's are passed on. The status is the worst of theirs.",
        body=array(ref("DeletionJob")),
        example=[{"destType": "IMPACT", "config": _CONFIG, "userAttributes": [{"userId": "u-1"}]}],
        answers=(
            DocumentedAnswer(200, "All of it is done.", array(ref("DeletionReply")), _OUR_VERSION),
            DocumentedAnswer(
                400,
                "A configuration does not name one program; it comes again.",
                array(ref("DeletionReply")),
                _OUR_VERSION,
            ),
            DocumentedAnswer(
                500, "The state is out of reach; it comes again.", array(ref("DeletionReply")), _OUR_VERSION
            ),
            _COME_AGAIN,
        ),
    ),
    Operation(
        id="deliverV0",
        ports=("router",),
        method="post",
        path="/v0/destinations/{type}/proxy",
        summary="Deliver one request to impact.com; one fate for all its jobs.",
        description="`metadata` is one object.",
        parameters=(_TYPE, _TIMEOUT),
        body={"allOf": [ref("ProxyRequest"), {"properties": {"metadata": OPEN}}]},
        example={**_PROXY, "metadata": _JOB["metadata"]},
        answers=(
            DocumentedAnswer(200, "Delivered.", having(output=ref("ProxyOutputV0")), _OUR_VERSION),
            DocumentedAnswer(
                400, "Never to be sent: the router aborts the jobs.", having(output=ref("ProxyOutputV0")), _OUR_VERSION
            ),
            DocumentedAnswer(
                429, "To be sent again, without limit.", having(output=ref("ProxyOutputV0")), _OUR_VERSION
            ),
            _COME_AGAIN,
        ),
    ),
    Operation(
        id="deliverV1",
        ports=("router",),
        method="post",
        path="/v1/destinations/{type}/proxy",
        summary="Deliver one request to impact.com; a fate for each of its jobs.",
        description="`metadata` is a list, an object for each job.",
        parameters=(_TYPE, _TIMEOUT),
        body={"allOf": [ref("ProxyRequest"), {"properties": {"metadata": array(OPEN)}}]},
        example={**_PROXY, "metadata": [_JOB["metadata"]]},
        answers=(
            DocumentedAnswer(
                200,
                "The fate of every job is its `statusCode`: 200 delivered, 400 to be aborted, 429 to be sent again.",
                having(output=ref("ProxyOutputV1")),
                _OUR_VERSION,
            ),
            _COME_AGAIN,
        ),
    ),
)

_OPERATOR: Final[tuple[Operation, ...]] = (
    Operation(
        id="metrics",
        ports=("operator",),
        method="get",
        path="/metrics",
        summary="Metrics, for Prometheus.",
        description="Each is described in docs/reference/telemetry.md.",
        answers=(DocumentedAnswer(200, "Prometheus' text format 0.0.4.", {"type": "string"}, media=TEXT),),
    ),
    Operation(
        id="debugLimits",
        ports=("operator",),
        method="get",
        path="/debug/limits",
        summary="The limits of every account, what waits, and why.",
        description="Accounts that something was sent for lately; what to do about each gate is in docs/delivery.md.",
        answers=(DocumentedAnswer(200, "The accounts.", ref("Limits")),),
    ),
    Operation(
        id="forget",
        ports=("operator",),
        method="post",
        path="/forget",
        summary="Delete what is kept of persons.",
        description=f"At most {MOST_IDS} ids at a time. Asking again does no harm.",
        body=ref("ForgetRequest"),
        example={"users": ["u-1"], "anonymous": ["a-1"]},
        answers=(
            DocumentedAnswer(200, "Deleted.", ref("ForgetReport")),
            DocumentedAnswer(400, "Not understood, or too many ids.", ref("Error")),
            DocumentedAnswer(413, "The body has more than 1 MiB; send fewer ids at a time.", ref("Error")),
            DocumentedAnswer(503, "Something could not be reached: not all was deleted, ask again.", ref("Error")),
        ),
    ),
    Operation(
        id="record",
        ports=("operator",),
        method="get",
        path="/record",
        summary="Record what comes in, while the connection lasts.",
        description="Persons are pseudonyms in a recording; see docs/how-to/replay-a-missed-day.md.",
        parameters=(
            _parameter("query", "seconds", _SECONDS, "How long.", example=1),
            _parameter("query", "mb", _MEGABYTES, "How large, in MiB as packed."),
        ),
        answers=(
            DocumentedAnswer(
                200,
                "Lines of JSON, packed by gzip, until time or size are used up, the service stops or the caller hangs "
                "up.",
                {"type": "string", "contentMediaType": PACKED_LINES},
                media=PACKED_LINES,
            ),
            DocumentedAnswer(400, "A parameter is not a number, or not within its bounds.", ref("Error")),
            DocumentedAnswer(429, f"{MOST_RECORDINGS} recordings are under way.", ref("Error")),
        ),
    ),
    Operation(
        id="openapi",
        ports=("operator",),
        method="get",
        path="/openapi.json",
        summary="This document.",
        description="OpenAPI 3.1, for all three ports.",
        answers=(DocumentedAnswer(200, "The document.", having(openapi={"type": "string"}, info=OPEN, paths=OPEN)),),
    ),
)

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


def _segment(path: str, word: str, call: str) -> Operation:
    """A call of the Segment HTTP API; ``word`` is what the path says for it."""
    many = call == BATCH
    single = {"allOf": [ref(_CALL_SCHEMAS.get(call, "AnyCall")), {"properties": {"writeKey": ANYTHING}}]}
    also = f" The same as /v1/{call}." if word != call else ""
    return Operation(
        id=f"ingest_{word}",
        ports=("ingest",),
        method="post",
        path=path,
        summary="Events of any calls." if many else f"One {call} call.",
        description=f"Segment HTTP API.{also} gzip and deflate are understood; the media type is not looked at.",
        body=_BATCH_BODY if many else single,
        example={"batch": [_ORDER]} if many else {**_ORDER, "type": call},
        answers=_ingest_answers(ref("IngestReply") if many else either(ref("SingleReply"), ref("IngestReply"))),
        secured="segment_api",
    )


_SOURCE: Final = _parameter("path", "source", {"type": "string"}, "A source of the configuration file.", example="shop")
_TOKEN: Final = _parameter("path", "token", {"type": "string"}, "A key of the source.")


def _webhook(method: str, path: str, name: str, parameters: tuple[Schema, ...]) -> Operation:
    return Operation(
        id=name,
        ports=("ingest",),
        method=method.lower(),
        path=path,
        summary="Events of a webhook.",
        description=(
            "An event, a list of them, lines of JSON, or an object that holds events in `batch`, `events` or "
            "`records`; in the dialect of the source's adapter. PUT and PATCH are as POST."
        ),
        parameters=parameters,
        body=either(OPEN, array(OPEN)),
        example=_ORDER,
        answers=(*_ingest_answers(either(ref("SingleReply"), ref("IngestReply"))), _UNKNOWN),
        secured="webhook",
    )


_INGEST: Final[tuple[Operation, ...]] = (
    *(_segment(f"/v1/{word}", word, call) for word, call in CALLS.items()),
    # OpenAPI has one operation for a path, and the router's port has a /batch; a slash at the end makes no difference.
    _segment("/batch/", "batch_unversioned", BATCH),
    *(_webhook(method, "/webhook/{source}", f"webhook_{method.lower()}", (_SOURCE,)) for method in WEBHOOK_METHODS),
    *(
        _webhook(method, "/webhook/{source}/{token}", f"webhook_{method.lower()}_with_token", (_SOURCE, _TOKEN))
        for method in WEBHOOK_METHODS
    ),
)

OPERATIONS: Final[tuple[Operation, ...]] = (*_BOTH, *_ROUTER, *_OPERATOR, *_INGEST)
"""All of them."""
