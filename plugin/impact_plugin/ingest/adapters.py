"""Dialects of senders, renamed to the one event that the core reads; and the switches that an event carries.

An adapter takes one JSON object and gives one. RudderStack, Jitsu and Segment need none: the core reads them all.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from impact_plugin.config.sources import Adapter
from impact_plugin.errors import ImpactPluginError

Adapt: TypeAlias = Callable[[Mapping[str, Any]], dict[str, Any]]


class UnadaptableError(ImpactPluginError):
    """The object is not of the dialect; the message says what is missing."""


def switched_off(integrations: Mapping[str, Any] | None, names: Collection[str]) -> bool:
    """Whether the event's ``integrations`` keep it from us: a switch of our own goes before ``All``.

    https://segment.com/docs/connections/spec/common/#integrations
    """
    if not integrations:
        return False
    ours = {name.casefold() for name in names}
    everybody = True
    for name, value in integrations.items():
        if name.casefold() in ours:
            return value is False
        if name.casefold() == "all":
            everybody = value is not False
    return not everybody


def content_id(message: Mapping[str, Any]) -> str:
    """An id for an event without one: of what it says, but for the times that its sender renews at the next try."""
    said = {name: value for name, value in message.items() if name not in ("sentAt", "receivedAt", "messageId")}
    digest = hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()
    return f"content-{digest[:40]}"


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both objects in one, and ``above`` goes first; objects within are merged the same way."""
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
        raise UnadaptableError("PostHog's webhook has an object under event; leave its body as it comes")
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
    """One record of Jitsu's syncs: the row is the event, its idempotency key the message's.

    A deleted row is no person's wish to be deleted, and no order's reversal either, so it is refused.
    https://docs.jitsu.com
    """
    data = body.get("data")
    if not isinstance(data, Mapping):
        raise UnadaptableError("a record of Jitsu's syncs has an object under data")
    if body.get("operation") == "delete":
        raise UnadaptableError("a deleted row is no event; let the sync send upserts only")
    return {"messageId": body.get("idempotencyKey") or body.get("key"), **data}


def _as_it_is(body: Mapping[str, Any]) -> dict[str, Any]:
    return dict(body)


ADAPTERS: Final[dict[Adapter, Adapt]] = {
    "segment": _as_it_is,
    "posthog": _posthog,
    "tracardi": _tracardi,
    "jitsu_reverse_etl": _jitsu_reverse_etl,
}


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
