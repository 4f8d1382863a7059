"""The operations of the router's port."""

from typing import Final

from impact_plugin.http.features import FLAGS, SOURCE_FLAGS
from impact_plugin.http.openapi.examples import CONFIG, JOB, PROXY
from impact_plugin.http.openapi.operation import DocumentedAnswer, Operation, parameter
from impact_plugin.http.openapi.schemas import OPEN, Schema, array, either, having, ref
from impact_plugin.protocols.rudder_envelope import API_VERSION, COMPACTED

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
_TYPE: Final = parameter(
    "path",
    "type",
    {"type": "string", "enum": ["impact"]},
    "A name of the setting rudder.destination_types, in any case.",
)
_TIMEOUT: Final = parameter(
    "header", "RdProxy-Timeout", {"type": "string"}, "Milliseconds after which the router gives up; we answer before."
)
_FORMAT: Final = parameter(
    "header", "X-Content-Format", {"type": "string", "enum": [COMPACTED]}, "Says that the body is compacted."
)

_ENTRIES: Final = either(ref("RouterSuccess"), ref("RouterReady"), ref("RouterFailure"))
_ADDRESSED: Final[Schema] = {"allOf": [ref("Jobs"), {"properties": {"destType": {"type": "string"}}}]}
_FEATURES: Final[Schema] = having(routerTransform=OPEN, regulations=array({"type": "string"}))
_FLAGS: Final[Schema] = {"properties": {name: {"type": "boolean"} for name in (*FLAGS, *SOURCE_FLAGS)}}

FEATURES: Final = Operation(
    id="features",
    summary="What the router may ask of us.",
    description="Merged with what the upstream transformer says; rudder-server does not start without it.",
    answers=(
        DocumentedAnswer(200, "Flags of protocols, and types by protocol.", {"allOf": [_FEATURES, _FLAGS]}),
        _COME_AGAIN,
    ),
)
TRANSFORM_FOR_PROCESSOR: Final = Operation(
    id="transformForProcessor",
    summary="A processor's batch: what is to be sent for each event.",
    description="A list of jobs, or with the header X-Content-Format an object with the destinations apart.",
    parameters=(_TYPE, _FORMAT),
    body=either(array(ref("Job")), ref("Jobs")),
    example=[JOB],
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
)
TRANSFORM_FOR_ROUTER: Final = Operation(
    id="transformForRouter",
    summary="A router worker's jobs: what is to be sent for each.",
    description="Jobs with another `destType` are the upstream transformer's, whose answer comes back as it is.",
    body=_ADDRESSED,
    example={"input": [JOB], "destType": "impact"},
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
)
TRANSFORM_FOR_BATCH: Final = Operation(
    id="transformForBatch",
    summary="As /routerTransform, for jobs that the router would put together.",
    description="Nothing is put together. Jobs that the processor has transformed already stay as they are.",
    body=_ADDRESSED,
    example={"input": [JOB], "destType": "impact"},
    answers=(
        DocumentedAnswer(200, "The entries of /routerTransform alone.", array(_ENTRIES), _OUR_VERSION),
        _COME_AGAIN,
    ),
)
DELETE_USERS: Final = Operation(
    id="deleteUsers",
    summary="The regulation worker asks that persons be deleted.",
    description="All jobs are for one type; another's are passed on. The status is the worst of theirs.",
    body=array(ref("DeletionJob")),
    example=[{"destType": "IMPACT", "config": CONFIG, "userAttributes": [{"userId": "u-1"}]}],
    answers=(
        DocumentedAnswer(200, "All of it is done.", array(ref("DeletionReply")), _OUR_VERSION),
        DocumentedAnswer(
            400,
            "A configuration does not name one program; it comes again.",
            array(ref("DeletionReply")),
            _OUR_VERSION,
        ),
        DocumentedAnswer(500, "The state is out of reach; it comes again.", array(ref("DeletionReply")), _OUR_VERSION),
        _COME_AGAIN,
    ),
)
DELIVER_V0: Final = Operation(
    id="deliverV0",
    summary="Deliver one request to impact.com; one fate for all its jobs.",
    description="`metadata` is one object.",
    parameters=(_TYPE, _TIMEOUT),
    body={"allOf": [ref("ProxyRequest"), {"properties": {"metadata": OPEN}}]},
    example={**PROXY, "metadata": JOB["metadata"]},
    answers=(
        DocumentedAnswer(200, "Delivered.", having(output=ref("ProxyOutputV0")), _OUR_VERSION),
        DocumentedAnswer(
            400, "Never to be sent: the router aborts the jobs.", having(output=ref("ProxyOutputV0")), _OUR_VERSION
        ),
        DocumentedAnswer(429, "To be sent again, without limit.", having(output=ref("ProxyOutputV0")), _OUR_VERSION),
        _COME_AGAIN,
    ),
)
DELIVER_V1: Final = Operation(
    id="deliverV1",
    summary="Deliver one request to impact.com; a fate for each of its jobs.",
    description="`metadata` is a list, an object for each job.",
    parameters=(_TYPE, _TIMEOUT),
    body={"allOf": [ref("ProxyRequest"), {"properties": {"metadata": array(OPEN)}}]},
    example={**PROXY, "metadata": [JOB["metadata"]]},
    answers=(
        DocumentedAnswer(
            200,
            "The fate of every job is its `statusCode`: 200 delivered, 400 to be aborted, 429 to be sent again.",
            having(output=ref("ProxyOutputV1")),
            _OUR_VERSION,
        ),
        _COME_AGAIN,
    ),
)
