"""The operations of the router's port."""

from typing import Final

from impact_plugin.http.features import FLAGS, SOURCE_FLAGS
from impact_plugin.http.openapi.examples import CONFIG, JOB, PROXY
from impact_plugin.http.openapi.operation import DocumentedResponse, Operation, parameter
from impact_plugin.http.openapi.schemas import OPEN, Schema, array, either, having, ref
from impact_plugin.protocols.rudder_envelope import API_VERSION, COMPACTED

_OUR_VERSION: Final = {"apiVersion": f"Always {API_VERSION['apiVersion']}; rudder-server panics without it."}
_UNAVAILABLE: Final = DocumentedResponse(
    503,
    "Refused, and no event is lost: the body is invalid or too large, the state is unavailable, the process exceeds "
    "its memory limit or is shutting down, or the request is for an upstream transformer that is missing or "
    "unreachable. rudder-server backs off and retries without limit.",
    ref("Error"),
    {
        "X-Rudder-Should-Retry": "Always true: makes the processor retry the batch.",
        "X-Rudder-Error-Reason": "The reason as one word, as in the log and the metrics.",
    },
    name="Unavailable",
)
_TYPE: Final = parameter(
    "path",
    "type",
    {"type": "string", "enum": ["impact"]},
    "A destination type from the setting rudder.destination_types, in any letter case.",
)
_TIMEOUT: Final = parameter(
    "header",
    "RdProxy-Timeout",
    {"type": "string"},
    "The router's timeout in milliseconds; the service responds before it expires.",
)
_FORMAT: Final = parameter(
    "header", "X-Content-Format", {"type": "string", "enum": [COMPACTED]}, "Marks the body as compacted."
)

_ENTRIES: Final = either(ref("RouterSuccess"), ref("RouterReady"), ref("RouterFailure"))
_ADDRESSED: Final[Schema] = {"allOf": [ref("Jobs"), {"properties": {"destType": {"type": "string"}}}]}
_FEATURES: Final[Schema] = having(routerTransform=OPEN, regulations=array({"type": "string"}))
_FLAGS: Final[Schema] = {"properties": {name: {"type": "boolean"} for name in (*FLAGS, *SOURCE_FLAGS)}}

FEATURES: Final = Operation(
    id="features",
    summary="Return the capabilities of the transformer.",
    description="Merged with those of the upstream transformer. rudder-server does not start without them.",
    responses=(
        DocumentedResponse(
            200,
            "Protocol flags, and the destination types that use the router transform and user deletion.",
            {"allOf": [_FEATURES, _FLAGS]},
        ),
        _UNAVAILABLE,
    ),
)
TRANSFORM_FOR_PROCESSOR: Final = Operation(
    id="transformForProcessor",
    summary="Transform a processor's batch: returns the request to send for each event.",
    description="The body is an array of jobs; with the header X-Content-Format an object with separate destinations.",
    parameters=(_TYPE, _FORMAT),
    body=either(array(ref("Job")), ref("Jobs")),
    example=[JOB],
    responses=(
        DocumentedResponse(
            200,
            "One entry for each event, in order. Its `statusCode` is 200 (to be sent), 298 (filtered), 400 (rejected) "
            "or 500 (a defect of impact-plugin). A bad event never changes the status of the response.",
            array(either(ref("ProcessorSuccess"), ref("ProcessorFailure"))),
            _OUR_VERSION,
        ),
        _UNAVAILABLE,
    ),
)
TRANSFORM_FOR_ROUTER: Final = Operation(
    id="transformForRouter",
    summary="Transform a router worker's jobs: returns the request to send for each.",
    description="Jobs with another `destType` are passed through to the upstream transformer.",
    body=_ADDRESSED,
    example={"input": [JOB], "destType": "impact"},
    responses=(
        DocumentedResponse(
            200,
            "One entry for each job. Its `statusCode` is 200 (to be sent), 298 (filtered), 400 (rejected), or 429 or "
            "500 (retry).",
            having(output=array(_ENTRIES)),
            _OUR_VERSION,
        ),
        _UNAVAILABLE,
    ),
)
TRANSFORM_FOR_BATCH: Final = Operation(
    id="transformForBatch",
    summary="Transform jobs that the router wants to send in batches.",
    description="Never merges jobs. Returns jobs that the processor has already transformed unchanged.",
    body=_ADDRESSED,
    example={"input": [JOB], "destType": "impact"},
    responses=(
        DocumentedResponse(
            200, "The entries of /routerTransform, without the enclosing object.", array(_ENTRIES), _OUR_VERSION
        ),
        _UNAVAILABLE,
    ),
)
DELETE_USERS: Final = Operation(
    id="deleteUsers",
    summary="Delete users on behalf of the regulation worker.",
    description="All jobs are for one destination type; other types are passed through. The status is the worst one.",
    body=array(ref("DeletionJob")),
    example=[{"destType": "IMPACT", "config": CONFIG, "userAttributes": [{"userId": "u-1"}]}],
    responses=(
        DocumentedResponse(200, "All users are deleted.", array(ref("DeletionReply")), _OUR_VERSION),
        DocumentedResponse(
            400,
            "A configuration does not name one program; the regulation worker retries.",
            array(ref("DeletionReply")),
            _OUR_VERSION,
        ),
        DocumentedResponse(
            500, "The state is unavailable; the regulation worker retries.", array(ref("DeletionReply")), _OUR_VERSION
        ),
        _UNAVAILABLE,
    ),
)
DELIVER_V0: Final = Operation(
    id="deliverV0",
    summary="Deliver one request to impact.com; one status for all its jobs.",
    description="`metadata` is one object.",
    parameters=(_TYPE, _TIMEOUT),
    body={"allOf": [ref("ProxyRequest"), {"properties": {"metadata": OPEN}}]},
    example={**PROXY, "metadata": JOB["metadata"]},
    responses=(
        DocumentedResponse(200, "Delivered.", having(output=ref("ProxyOutputV0")), _OUR_VERSION),
        DocumentedResponse(
            400, "Permanently rejected: the router aborts the jobs.", having(output=ref("ProxyOutputV0")), _OUR_VERSION
        ),
        DocumentedResponse(
            429,
            "Failed temporarily: the router retries without limit.",
            having(output=ref("ProxyOutputV0")),
            _OUR_VERSION,
        ),
        _UNAVAILABLE,
    ),
)
DELIVER_V1: Final = Operation(
    id="deliverV1",
    summary="Deliver one request to impact.com; one status for each of its jobs.",
    description="`metadata` is an array with one object for each job.",
    parameters=(_TYPE, _TIMEOUT),
    body={"allOf": [ref("ProxyRequest"), {"properties": {"metadata": array(OPEN)}}]},
    example={**PROXY, "metadata": [JOB["metadata"]]},
    responses=(
        DocumentedResponse(
            200,
            "The `statusCode` of each job is 200 (delivered), 400 (permanently rejected) or 429 (retry).",
            having(output=ref("ProxyOutputV1")),
            _OUR_VERSION,
        ),
        _UNAVAILABLE,
    ),
)
