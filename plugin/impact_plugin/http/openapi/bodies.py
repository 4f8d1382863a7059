"""The Structs that read and write the bodies of all endpoints: the schemas of the OpenAPI document are theirs."""

from typing import Final

import msgspec

from impact_plugin.delivery.limits.scheduler import LimitReport
from impact_plugin.http.ingest_answers import IngestError, IngestReply, SingleReply
from impact_plugin.http.openapi.schemas import ANYTHING, Schema
from impact_plugin.http.replies import ErrorReply, HealthReply, LimitsReply, ReadyReply, VersionReply
from impact_plugin.ingest.deletion import ForgetReport, ForgetRequest
from impact_plugin.protocols import rudder_processor, rudder_proxy, rudder_regulation, rudder_router
from impact_plugin.protocols.rudder_envelope import RawBatch
from impact_plugin.transformation.batch import RawJob
from impact_transformers.events import Event, Identify, Page, Screen, Track

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
