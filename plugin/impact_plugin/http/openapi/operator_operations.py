"""The operations of the operator's port; other ports share some of them."""

from typing import Final

from impact_plugin.config.settings import MAX_RECORDING_MB, MAX_RECORDING_MINUTES
from impact_plugin.http.openapi.operation import TEXT, DocumentedResponse, Operation, parameter
from impact_plugin.http.openapi.schemas import OPEN, Schema, having, ref
from impact_plugin.http.recording import CONTENT_TYPE as PACKED_LINES
from impact_plugin.http.recording import MAX_RECORDINGS
from impact_plugin.ingest.deletion import MAX_IDS

_SECONDS: Final[Schema] = {
    "type": "number",
    "exclusiveMinimum": 0,
    "maximum": MAX_RECORDING_MINUTES * 60,
    "default": 60,
}
_MEGABYTES: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": MAX_RECORDING_MB, "default": 50}

HEALTH: Final = Operation(
    id="health",
    summary="Check that the process is alive.",
    description="For liveness probes. The ingest port omits the version.",
    responses=(DocumentedResponse(200, "The process is alive.", ref("Health")),),
)
READY: Final = Operation(
    id="ready",
    summary="Check whether the service is ready for traffic.",
    description="For readiness probes and load balancers.",
    responses=(
        DocumentedResponse(200, "Ready.", ref("Ready")),
        DocumentedResponse(503, "Not ready; `problems` has the reasons.", ref("Ready")),
    ),
)
VERSION: Final = Operation(
    id="version",
    summary="Return the version.",
    description="The package's name and version.",
    responses=(DocumentedResponse(200, "The version.", ref("Version")),),
)
METRICS: Final = Operation(
    id="metrics",
    summary="Return metrics for Prometheus.",
    description="docs/reference/telemetry.md describes them.",
    responses=(DocumentedResponse(200, "Prometheus' text format 0.0.4.", {"type": "string"}, media=TEXT),),
)
DEBUG_LIMITS: Final = Operation(
    id="debugLimits",
    summary="Return the rate limits of every account: what waits, and why.",
    description="Lists recently used accounts. docs/delivery.md explains what to do about each gate.",
    responses=(DocumentedResponse(200, "The accounts.", ref("Limits")),),
)
FORGET: Final = Operation(
    id="forget",
    summary="Delete personal data.",
    description=f"At most {MAX_IDS} ids per request. Repeating a request is safe.",
    body=ref("ForgetRequest"),
    example={"users": ["u-1"], "anonymous": ["a-1"]},
    responses=(
        DocumentedResponse(200, "Deleted.", ref("ForgetReport")),
        DocumentedResponse(400, "The body is not as described, or has too many ids.", ref("Error")),
        DocumentedResponse(413, "The body is larger than 1 MiB; send fewer ids per request.", ref("Error")),
        DocumentedResponse(503, "Not everything could be deleted: retry.", ref("Error")),
    ),
)
RECORD: Final = Operation(
    id="record",
    summary="Record incoming events until the client disconnects.",
    description="A recording pseudonymizes persons; see docs/how-to/replay-a-missed-day.md.",
    parameters=(
        parameter("query", "seconds", _SECONDS, "The maximum duration.", example=1),
        parameter("query", "mb", _MEGABYTES, "The maximum size in MiB, compressed."),
    ),
    responses=(
        DocumentedResponse(
            200,
            "JSON lines, gzipped, until a limit is reached, the service shuts down or the client disconnects.",
            {"type": "string", "contentMediaType": PACKED_LINES},
            media=PACKED_LINES,
        ),
        DocumentedResponse(400, "A parameter is not a number, or out of range.", ref("Error")),
        DocumentedResponse(429, f"{MAX_RECORDINGS} recordings are in progress already.", ref("Error")),
    ),
)
OPENAPI: Final = Operation(
    id="openapi",
    summary="Return this document.",
    description="OpenAPI 3.1, for all three ports.",
    responses=(DocumentedResponse(200, "The document.", having(openapi={"type": "string"}, info=OPEN, paths=OPEN)),),
)
