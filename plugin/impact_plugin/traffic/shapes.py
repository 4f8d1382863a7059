"""Recorded events as requests of a router or a sender, made once and sent many times."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, TypeAlias

import msgspec

from impact_plugin.rudder.bodies import QueuedEvent, Route, processor_body, proxy_body, router_body
from impact_plugin.rudder.jobs import RequestJob
from impact_plugin.traffic.client import request_bytes
from impact_transformers.events import UNREADABLE

Via: TypeAlias = Literal["processor", "router", "proxy", "segment", "webhook"]
SENDERS: Final[tuple[Via, ...]] = ("segment", "webhook")
"""The ways into the service's own queue; by the others it answers a router."""

MARK: Final = "~00000~"
"""Part of ids, replaced by the number of the pass: the same traffic sent again must not look like retries."""

MARK_BYTES: Final = MARK.encode()
TIMES: Final = ("timestamp", "originalTimestamp", "sentAt", "receivedAt")
JSON: Final = {"Content-Type": "application/json"}
TRANSFORM: Final = {
    "Content-Type": "application/json; charset=utf-8",
    "User-Agent": "Go-http-client/1.1",
    "X-Feature-Gzip-Support": "?1",
    "X-Feature-Filter-Code": "?1",
}


class Shape(msgspec.Struct, frozen=True):
    """The form of requests: the way they take, their target, and their credentials."""

    via: Via
    host: str
    config: dict[str, Any]
    batch: int = 100
    key: str = ""
    source: str = ""
    destination_type: str = "IMPACT"
    now: float = 0.0


class Post(msgspec.Struct, frozen=True):
    """A request, and for a router the jobs that the reply must cover."""

    path: str
    headers: dict[str, str]
    body: bytes
    jobs: tuple[RequestJob, ...] = ()

    def to_bytes(self, host: str) -> bytes:
        """The bytes on the wire."""
        return request_bytes("POST", host, self.path, self.headers, self.body)


class Shaped(msgspec.Struct, frozen=True, gc=False):
    """A request with the mark in its ids, and the number of its events."""

    template: bytes
    events: int

    def of_pass(self, number: int) -> bytes:
        """The request for one pass over the traffic."""
        return self.template.replace(MARK_BYTES, b"~%05d~" % (number % 100_000))


def marked(event: Mapping[str, Any], place: int) -> dict[str, Any]:
    """Mark the ids of message, visitor and order, which become new in every pass."""
    changed = {**event, "messageId": f"{event.get('messageId') or place}{MARK}"}
    for name in ("anonymousId", "userId"):
        if event.get(name):
            changed[name] = f"{event[name]}{MARK}"
    properties = event.get("properties")
    if isinstance(properties, dict):
        orders = {name: f"{properties[name]}{MARK}" for name in ("order_id", "orderId") if properties.get(name)}
        changed["properties"] = {**properties, **orders}
    return changed


def shifted(events: Sequence[dict[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """Move the times of all events by the same span, so that the latest is now."""
    latest = max((at for event in events if (at := _time(event.get("timestamp"))) is not None), default=None)
    if latest is None:
        return list(events)
    by = now - latest
    return [{name: _moved(value, by) if name in TIMES else value for name, value in event.items()} for event in events]


def shape_all(events: Sequence[dict[str, Any]], shape: Shape) -> Iterator[Shaped]:
    """Make the requests, in order."""
    for first in range(0, len(events), shape.batch):
        some = events[first : first + shape.batch]
        if shape.via in SENDERS:
            made = ingest_post(some, shape)
        else:
            made = transform_post([QueuedEvent(number, event) for number, event in enumerate(some, first + 1)], shape)
        yield Shaped(made.to_bytes(shape.host), len(some))


def shape_proxied(requests: Iterable[Mapping[str, Any]], shape: Shape) -> Iterator[Shaped]:
    """Make deliveries of request objects that the service returned, one job each."""
    for number, request in enumerate(requests, 1):
        yield Shaped(proxy_post(request, number, shape).to_bytes(shape.host), 1)


def ingest_post(events: Sequence[dict[str, Any] | msgspec.Raw], shape: Shape) -> Post:
    """Make a request as a sender: to the Segment HTTP API, or to the webhook of the source."""
    if shape.via == "segment":
        basic = base64.b64encode(f"{shape.key}:".encode()).decode()
        headers = {**JSON, "Authorization": f"Basic {basic}"}
        return Post("/v1/batch", headers, msgspec.json.encode({"batch": events}))
    headers = {**JSON, "Authorization": f"Bearer {shape.key}"}
    return Post(f"/webhook/{shape.source}", headers, msgspec.json.encode(events))


def transform_post(queued: Sequence[QueuedEvent], shape: Shape) -> Post:
    """Make a transformation request as rudder-server's router or processor."""
    route = Route(shape.config, destination_type=shape.destination_type)
    if shape.via == "router":
        built = router_body(queued, route, now=shape.now, compacted=False)
        return Post("/routerTransform", TRANSFORM, built.body, built.jobs)
    built = processor_body(queued, route, now=shape.now, compacted=False)
    return Post(f"/v0/destinations/{shape.destination_type.lower()}", TRANSFORM, built.body, built.jobs)


def proxy_post(request: Mapping[str, Any], number: int, shape: Shape, attempt: int = 0) -> Post:
    """Make a delivery as rudder-server's router: one request object, as one job of this number."""
    route = Route(shape.config, destination_type=shape.destination_type)
    built = proxy_body(dict(request), [number], route, version="v1", attempt=attempt)
    headers = {**JSON, "RdProxy-Timeout": "10000"}
    return Post(f"/v1/destinations/{shape.destination_type.lower()}/proxy", headers, built.body, built.jobs)


def outputs(body: bytes) -> list[dict[str, Any]]:
    """Read the request objects from a reply to the processor."""
    try:
        entries = msgspec.json.decode(body)
    except UNREADABLE:
        return []
    return [entry["output"] for entry in entries if entry.get("statusCode") == 200]


def _time(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _moved(value: Any, by: timedelta) -> Any:
    at = _time(value)
    return value if at is None else (at + by).isoformat(timespec="milliseconds").replace("+00:00", "Z")
