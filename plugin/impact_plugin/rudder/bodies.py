"""The bodies that rudder-server sends to a transformer, built from events and a destination's configuration.

Their bytes are as Go writes them, see :func:`~impact_plugin.rudder.go.go_json`.

Sources, all in https://github.com/rudderlabs/rudder-server: ``processor/types/types.go``, ``router/types/types.go``,
``backend-config/types.go``, ``processor/integrations/integrations.go`` and ``router/transformer/transformer.go``.
"""

import hashlib
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from impact_plugin.rudder.go import go_json, go_time
from impact_plugin.rudder.jobs import RequestJob

_DYNAMIC = re.compile(r"\{\{.*\|\|.*\}\}", re.DOTALL)


class Route(msgspec.Struct, frozen=True):
    """A source connected to a destination, with what the workspace configuration says about both."""

    config: dict[str, Any]
    destination_id: str = "dst-impact-1"
    destination_type: str = "IMPACT"
    destination_name: str = "Impact (local)"
    display_name: str = "impact.com"
    source_id: str = "src-http-1"
    source_name: str = "Local HTTP source"
    source_type: str = "HTTP"
    workspace_id: str = "ws-local"
    transform_at: Literal["processor", "router"] = "processor"


class QueuedEvent(msgspec.Struct, frozen=True):
    """An event as a job: its id, the attempts so far, and the time of the first (RFC 3339; empty for none)."""

    job_id: int
    event: dict[str, Any]
    attempt: int = 0
    first_attempted_at: str = ""


class Built(msgspec.Struct, frozen=True):
    """A request body, and its jobs as the checks of the reply need them."""

    body: bytes
    jobs: tuple[RequestJob, ...]


class _Definition(msgspec.Struct, rename="pascal"):
    id: str = msgspec.field(name="ID")
    name: str
    display_name: str
    config: dict[str, Any]


class _Destination(msgspec.Struct, rename="pascal"):
    id: str = msgspec.field(name="ID")
    name: str
    destination_definition: _Definition
    config: msgspec.Raw
    enabled: bool
    workspace_id: str = msgspec.field(name="WorkspaceID")
    transformations: list[dict[str, Any]]
    is_processor_enabled: bool
    revision_id: str = msgspec.field(name="RevisionID")
    has_dynamic_config: bool = msgspec.field(name="hasDynamicConfig")


class _Connection(msgspec.Struct, rename="camel"):
    source_id: str
    destination_id: str
    enabled: bool
    config: dict[str, Any] | None
    processor_enabled: bool


class _ProcessorMetadata(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    job_id: int
    workspace_id: str
    rudder_id: str = ""
    received_at: str = ""
    message_id: str
    event_name: str = ""
    event_type: str = ""
    source_id: str
    original_source_id: str
    source_definition_id: str = ""
    source_name: str
    source_type: str
    source_category: str
    instance_id: str = ""
    destination_id: str
    destination_name: str
    destination_type: str
    destination_definition_id: str = ""


class _RouterMetadata(msgspec.Struct, rename="camel"):
    user_id: str
    job_id: int
    source_id: str
    source_category: str
    destination_id: str
    attempt_num: int
    received_at: str
    created_at: str
    first_attempted_at: str
    transform_at: str
    workspace_id: str
    secret: None
    worker_assigned_time: str
    dont_batch: bool
    traceparent: str


class _ProxyMetadata(msgspec.Struct, rename="camel"):
    job_id: int
    attempt_num: int
    user_id: str
    source_id: str
    destination_id: str
    workspace_id: str
    secret: None
    dont_batch: bool


class _Compact(msgspec.Struct):
    message: msgspec.Raw
    metadata: msgspec.Raw


class _RouterEvent(_Compact):
    destination: msgspec.Raw
    connection: msgspec.Raw


class _ProcessorEvent(_RouterEvent):
    libraries: None
    credentials: None


class _CompactedProcessorBody(msgspec.Struct):
    input: list[_Compact]
    destinations: dict[str, msgspec.Raw]
    connections: dict[str, msgspec.Raw]


class _PlainRouterBody(msgspec.Struct, rename="camel"):
    input: list[_RouterEvent]
    dest_type: str


class _CompactedRouterBody(msgspec.Struct, rename="camel"):
    input: list[_Compact]
    dest_type: str
    destinations: dict[str, msgspec.Raw]
    connections: dict[str, msgspec.Raw]


class _ProxyBody(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    type: str
    endpoint: str
    endpoint_path: str = ""
    method: str
    user_id: str
    headers: Any
    params: Any
    body: Any
    files: Any
    metadata: list[msgspec.Raw] | msgspec.Raw
    destination_config: Any


def destination_json(route: Route) -> bytes:
    """Return the ``destination`` object that accompanies every event of a route."""
    definition = _Definition(
        id=f"dstdef-{route.destination_type.lower()}",
        name=route.destination_type,
        display_name=route.display_name,
        config={
            "saveDestinationResponse": True,
            "supportedMessageTypes": ["identify", "track", "page", "screen"],
            "transformAtV1": route.transform_at,
        },
    )
    destination = _Destination(
        id=route.destination_id,
        name=route.destination_name,
        destination_definition=definition,
        config=msgspec.Raw(go_json(route.config)),
        enabled=True,
        workspace_id=route.workspace_id,
        transformations=[],
        is_processor_enabled=True,
        revision_id="rev-1",
        has_dynamic_config=_is_dynamic(route.config),
    )
    return go_json(destination)


def message(queued: QueuedEvent, now: float) -> dict[str, Any]:
    """Return an event with what the gateway and the processor add to it: ids, four times, the sender's IP address.

    ``now`` is a Unix time in seconds. Keys that the event already has stay as they are.
    """
    at = go_time(now)
    user = _user_key(queued.event)
    added = {
        "messageId": f"m-{queued.job_id}",
        "originalTimestamp": at,
        "receivedAt": at,
        "request_ip": "127.0.0.1",
        "rudderId": str(uuid.UUID(bytes=hashlib.md5(user.encode(), usedforsecurity=False).digest(), version=4)),
        "sentAt": at,
        "timestamp": at,
    }
    return added | queued.event


def processor_body(queued: Sequence[QueuedEvent], route: Route, *, now: float, compacted: bool) -> Built:
    """Build the body of ``POST /v0/destinations/<type>``; a compacted body has destination and connection only once.

    The connection has only zero values, as in the real processor, whose configuration has no connections.
    """
    jobs, compact = [], []
    for item in queued:
        event = message(item, now)
        metadata = go_json(_processor_metadata(item.job_id, event, route))
        jobs.append(RequestJob(item.job_id, metadata))
        compact.append(_Compact(msgspec.Raw(go_json(event)), msgspec.Raw(metadata)))
    destination = msgspec.Raw(destination_json(route))
    connection = msgspec.Raw(go_json(_Connection("", "", enabled=False, config=None, processor_enabled=False)))
    if compacted:
        by_id, by_pair = {route.destination_id: destination}, {_pair(route): connection}
        return Built(msgspec.json.encode(_CompactedProcessorBody(compact, by_id, by_pair)), tuple(jobs))
    plain = [_ProcessorEvent(one.message, one.metadata, destination, connection, None, None) for one in compact]
    return Built(msgspec.json.encode(plain), tuple(jobs))


def router_body(queued: Sequence[QueuedEvent], route: Route, *, now: float, compacted: bool) -> Built:
    """Build the body of ``POST /routerTransform``, in which ``destType`` follows ``input`` and is in lower case."""
    destination = destination_json(route)
    jobs, compact = [], []
    for item in queued:
        event = message(item, now)
        metadata = go_json(_router_metadata(item, event, route, now))
        jobs.append(RequestJob(item.job_id, metadata, destination))
        compact.append(_Compact(msgspec.Raw(go_json(event)), msgspec.Raw(metadata)))
    kind, raw = route.destination_type.lower(), msgspec.Raw(destination)
    linked = _Connection(route.source_id, route.destination_id, enabled=True, config={}, processor_enabled=True)
    connection = msgspec.Raw(go_json(linked))
    if compacted:
        body = _CompactedRouterBody(compact, kind, {route.destination_id: raw}, {_pair(route): connection})
        return Built(msgspec.json.encode(body), tuple(jobs))
    plain = [_RouterEvent(one.message, one.metadata, raw, connection) for one in compact]
    return Built(msgspec.json.encode(_PlainRouterBody(plain, kind)), tuple(jobs))


def proxy_body(
    request: Mapping[str, Any],
    job_ids: Sequence[int],
    route: Route,
    *,
    version: Literal["v0", "v1"] = "v1",
    attempt: int = 0,
) -> Built:
    """Build the body of ``POST /<version>/destinations/<type>/proxy`` for a request object and its jobs.

    The router does not forward the request object's own ``version``; v0 has the metadata of the first job only.
    """
    jobs = tuple(RequestJob(job_id, go_json(_proxy_metadata(job_id, attempt, route))) for job_id in job_ids)
    metadata = [msgspec.Raw(job.metadata) for job in jobs]
    body = _ProxyBody(
        type=request["type"],
        endpoint=request.get("endpoint") or "",
        endpoint_path=request.get("endpointPath") or "",
        method=request.get("method") or "",
        user_id=request.get("userId") or "",
        headers=request.get("headers"),
        params=request.get("params"),
        body=request.get("body"),
        files=request.get("files"),
        metadata=metadata if version == "v1" else metadata[0],
        destination_config=route.config,
    )
    return Built(go_json(body), jobs)


def _pair(route: Route) -> str:
    return f"{route.source_id}:{route.destination_id}"


def _user_key(event: Mapping[str, Any]) -> str:
    # The anonymous id of the header (none here), that of the event, the user id: jobs with equal keys stay in order.
    return f"<<>>{event.get('anonymousId') or ''}<<>>{event.get('userId') or ''}"


def _processor_metadata(job_id: int, event: Mapping[str, Any], route: Route) -> _ProcessorMetadata:
    return _ProcessorMetadata(
        job_id=job_id,
        workspace_id=route.workspace_id,
        rudder_id=_user_key(event),
        received_at=event["receivedAt"],
        message_id=event["messageId"],
        event_name=_text(event.get("event")),
        event_type=_text(event.get("type")),
        source_id=route.source_id,
        original_source_id="",
        source_definition_id=f"srcdef-{route.source_type.lower()}",
        source_name=route.source_name,
        source_type=route.source_type,
        source_category="",
        instance_id="1",
        destination_id=route.destination_id,
        destination_name=route.destination_name,
        destination_type=route.destination_type,
        destination_definition_id=f"dstdef-{route.destination_type.lower()}",
    )


def _router_metadata(queued: QueuedEvent, event: Mapping[str, Any], route: Route, now: float) -> _RouterMetadata:
    return _RouterMetadata(
        user_id=_user_key(event),
        job_id=queued.job_id,
        source_id=route.source_id,
        source_category="",
        destination_id=route.destination_id,
        attempt_num=queued.attempt,
        received_at=event["receivedAt"],
        created_at=go_time(now),
        first_attempted_at=queued.first_attempted_at,
        transform_at="router",
        workspace_id=route.workspace_id,
        secret=None,
        worker_assigned_time=go_time(now, "microseconds"),
        dont_batch=False,
        traceparent="",
    )


def _proxy_metadata(job_id: int, attempt: int, route: Route) -> _ProxyMetadata:
    return _ProxyMetadata(
        job_id=job_id,
        attempt_num=attempt,
        user_id="",
        source_id=route.source_id,
        destination_id=route.destination_id,
        workspace_id=route.workspace_id,
        secret=None,
        dont_batch=False,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _is_dynamic(value: Any) -> bool:
    match value:
        case str():
            return bool(_DYNAMIC.search(value))
        case dict():
            return any(map(_is_dynamic, value.values()))
        case list():
            return any(map(_is_dynamic, value))
    return False
