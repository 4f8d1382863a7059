"""The operations of the operator's port, some of which other ports have too."""

from typing import Final

from impact_plugin.config.settings import MAX_RECORDING_MB, MAX_RECORDING_MINUTES
from impact_plugin.http.openapi.operation import TEXT, DocumentedAnswer, Operation, parameter
from impact_plugin.http.openapi.schemas import OPEN, Schema, having, ref
from impact_plugin.http.recording import CONTENT_TYPE as PACKED_LINES
from impact_plugin.http.recording import MOST as MOST_RECORDINGS
from impact_plugin.ingest.deletion import MOST_IDS

_SECONDS: Final[Schema] = {
    "type": "number",
    "exclusiveMinimum": 0,
    "maximum": MAX_RECORDING_MINUTES * 60,
    "default": 60,
}
_MEGABYTES: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": MAX_RECORDING_MB, "default": 50}

HEALTH: Final = Operation(
    id="health",
    summary="Whether the process answers.",
    description="For liveness probes. The ingest port does not tell the version.",
    answers=(DocumentedAnswer(200, "The process answers.", ref("Health")),),
)
READY: Final = Operation(
    id="ready",
    summary="Whether traffic is welcome.",
    description="For readiness probes and balancers.",
    answers=(
        DocumentedAnswer(200, "Send traffic here.", ref("Ready")),
        DocumentedAnswer(503, "Send no traffic here: `problems` says why.", ref("Ready")),
    ),
)
VERSION: Final = Operation(
    id="version",
    summary="What is installed.",
    description="The package's name and version.",
    answers=(DocumentedAnswer(200, "The version.", ref("Version")),),
)
METRICS: Final = Operation(
    id="metrics",
    summary="Metrics, for Prometheus.",
    description="Each is described in docs/reference/telemetry.md.",
    answers=(DocumentedAnswer(200, "Prometheus' text format 0.0.4.", {"type": "string"}, media=TEXT),),
)
DEBUG_LIMITS: Final = Operation(
    id="debugLimits",
    summary="The limits of every account, what waits, and why.",
    description="Accounts that something was sent for lately; what to do about each gate is in docs/delivery.md.",
    answers=(DocumentedAnswer(200, "The accounts.", ref("Limits")),),
)
FORGET: Final = Operation(
    id="forget",
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
)
RECORD: Final = Operation(
    id="record",
    summary="Record what comes in, while the connection lasts.",
    description="Persons are pseudonyms in a recording; see docs/how-to/replay-a-missed-day.md.",
    parameters=(
        parameter("query", "seconds", _SECONDS, "How long.", example=1),
        parameter("query", "mb", _MEGABYTES, "How large, in MiB as packed."),
    ),
    answers=(
        DocumentedAnswer(
            200,
            "Lines of JSON, packed by gzip, until time or size are used up, the service stops or the caller hangs up.",
            {"type": "string", "contentMediaType": PACKED_LINES},
            media=PACKED_LINES,
        ),
        DocumentedAnswer(400, "A parameter is not a number, or not within its bounds.", ref("Error")),
        DocumentedAnswer(429, f"{MOST_RECORDINGS} recordings are under way.", ref("Error")),
    ),
)
OPENAPI: Final = Operation(
    id="openapi",
    summary="This document.",
    description="OpenAPI 3.1, for all three ports.",
    answers=(DocumentedAnswer(200, "The document.", having(openapi={"type": "string"}, info=OPEN, paths=OPEN)),),
)
