"""Converts senders' dialects to the core's event format, and evaluates an event's ``integrations``.

An adapter converts one JSON object to another. RudderStack, Jitsu and Segment need none: the core reads their dialects.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from impact_plugin.config.sources import Adapter
from impact_plugin.errors import ImpactPluginError

Adapt: TypeAlias = Callable[[Mapping[str, Any]], dict[str, Any]]


class UnadaptableError(ImpactPluginError):
    """The object does not follow the dialect; the message says what is missing."""


def switched_off(integrations: Mapping[str, Any] | None, names: Collection[str]) -> bool:
    """Whether the event's ``integrations`` disable us: a switch under one of ``names`` takes precedence over ``All``.

    https://segment.com/docs/connections/spec/common/#integrations
    """
    if not integrations:
        return False
    own = {name.casefold() for name in names}
    enabled = True
    for name, value in integrations.items():
        if name.casefold() in own:
            return value is False
        if name.casefold() == "all":
            enabled = value is not False
    return not enabled


def content_id(message: Mapping[str, Any]) -> str:
    """Derive an id from the content of an event without one, ignoring the times that its sender updates on a retry."""
    content = {name: value for name, value in message.items() if name not in ("sentAt", "receivedAt", "messageId")}
    digest = hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()
    return f"content-{digest[:40]}"


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge both objects recursively; ``above`` takes precedence."""
    found = dict(below)
    for name, value in above.items():
        known = found.get(name)
        both = isinstance(known, Mapping) and isinstance(value, Mapping)
        found[name] = merged(known, value) if both else value  # type: ignore[arg-type]
    return found


def _posthog(body: Mapping[str, Any]) -> dict[str, Any]:
    """PostHog's webhook: ``{"event": {...}, "person": {...}}``. https://posthog.com/docs/cdp/destinations/webhook"""
    event = body.get("event")
    if not isinstance(event, Mapping):
        raise UnadaptableError("PostHog's webhook has an object under event; do not change its body")
    properties = _object(event.get("properties"))
    person = _object(_object(body.get("person")).get("properties"))
    name = event.get("event")
    url = event.get("url") if name == "$pageview" else None
    return {
        "type": {"$pageview": "page", "$screen": "screen", "$identify": "identify"}.get(str(name), "track"),
        "event": name,
        "messageId": event.get("uuid"),
        "anonymousId": properties.get("$device_id") or event.get("distinct_id"),
        "userId": properties.get("$user_id"),
        "timestamp": event.get("timestamp"),
        "properties": {key: value for key, value in properties.items() if not key.startswith("$")},
        "context": {
            "ip": properties.get("$ip"),
            "userAgent": properties.get("$raw_user_agent"),
            "page": {"url": properties.get("$current_url") or url, "referrer": properties.get("$referrer")},
            "traits": person,
        },
    }


def _tracardi(body: Mapping[str, Any]) -> dict[str, Any]:
    """Tracardi's HTTP connector: ``{"data": {...}, "changes": []}``. https://docs.tracardi.com"""
    data = body.get("data")
    if not isinstance(data, Mapping):
        raise UnadaptableError("Tracardi's connector has an object under data; map the event there")
    return dict(data)


def _jitsu_reverse_etl(body: Mapping[str, Any]) -> dict[str, Any]:
    """One record of Jitsu's syncs: the row is the event, and its idempotency key the message id.

    Refuses deleted rows: they are neither a request to delete a person nor the reversal of an order.
    https://docs.jitsu.com
    """
    data = body.get("data")
    if not isinstance(data, Mapping):
        raise UnadaptableError("a record of Jitsu's syncs has an object under data")
    if body.get("operation") == "delete":
        raise UnadaptableError("a deleted row is not an event; configure the sync to send upserts only")
    return {"messageId": body.get("idempotencyKey") or body.get("key"), **data}


def _unchanged(body: Mapping[str, Any]) -> dict[str, Any]:
    return dict(body)


ADAPTERS: Final[dict[Adapter, Adapt]] = {
    "segment": _unchanged,
    "posthog": _posthog,
    "tracardi": _tracardi,
    "jitsu_reverse_etl": _jitsu_reverse_etl,
}


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
