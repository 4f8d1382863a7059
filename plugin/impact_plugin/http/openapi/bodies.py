"""The Structs of all request and response bodies, from which the OpenAPI document gets its schemas."""

from typing import Final

import msgspec

from impact_plugin.delivery.limits.scheduler import LimitReport
from impact_plugin.http.ingest_responses import IngestError, IngestReply, SingleReply
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
"""Structs of request bodies, under their names in the document."""

RESPONSES: Final[dict[str, type[msgspec.Struct]]] = {
    "ProcessorSuccess": rudder_processor.ProcessorSuccess,
    "ProcessorFailure": rudder_processor.ProcessorFailure,
    "RouterSuccess": rudder_router.RouterSuccess,
    "RouterReady": rudder_router.RouterReady,
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
"""Structs of response bodies, under their names in the document."""

DESCRIPTIONS: Final[dict[str, str]] = {
    "Job": (
        "One event of a batch. `message` is an event of the Segment spec in the router's dialect, `destination` holds "
        "the configuration under `Config`, and `metadata` is returned byte for byte; the router defines both."
    ),
    "Jobs": "Jobs in an object. In a compacted body `destinations` has the destinations by id, and the jobs have none.",
    "AnyCall": "The fields of all calls that are read. An event may have others, which are kept.",
}
"""Descriptions for API users, in place of docstrings meant for maintainers."""

FOREIGN: Final[dict[tuple[str, str], Schema]] = {("ProxyRequest", "metadata"): ANYTHING}
"""Raw JSON that is not always an object."""
