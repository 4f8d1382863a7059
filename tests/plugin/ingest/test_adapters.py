"""Dialects and switches."""

from typing import Any

import pytest

from impact_plugin.ingest.adapters import ADAPTERS, merged, switched_off

NAMES = ("Impact", "impact.com")


@pytest.mark.parametrize(
    ("integrations", "expected"),
    [
        (None, False),
        ({}, False),
        ({"All": False}, True),
        ({"all": False}, True),
        ({"All": True}, False),
        ({"All": False, "IMPACT": True}, False),
        ({"All": False, "impact.com": {"option": 1}}, False),
        ({"Impact": False}, True),
        ({"Impact": False, "All": True}, True),
        ({"All": "no"}, False),
        ({"Another": False}, False),
    ],
)
def test_a_switch_of_our_own_goes_before_all(integrations: dict[str, Any] | None, expected: bool) -> None:
    """In any letter case; only false switches off."""
    assert expected == switched_off(integrations, NAMES)


def test_objects_are_merged_at_every_depth() -> None:
    """What lies above goes first, and neither is altered."""
    below, above = {"a": {"b": {"x": 1, "y": 1}}, "c": 1}, {"a": {"b": {"y": 2}}, "c": {"d": 1}}

    assert {"a": {"b": {"x": 1, "y": 2}}, "c": {"d": 1}} == merged(below, above)
    assert {"a": {"b": {"x": 1, "y": 1}}, "c": 1} == below


@pytest.mark.parametrize(
    ("name", "kind"), [("$pageview", "page"), ("$screen", "screen"), ("$identify", "identify"), ("Order", "track")]
)
def test_posthogs_body_is_an_event(name: str, kind: str) -> None:
    """Its own properties, which start with a dollar, find their places."""
    properties = {"$current_url": "https://s.example/", "$ip": "203.0.113.9", "$device_id": "d-1", "total": 5}
    event = {"uuid": "u-1", "event": name, "distinct_id": "p-1", "properties": properties, "timestamp": "t"}
    found = ADAPTERS["posthog"]({"event": event, "person": {"properties": {"plan": "x"}}})

    assert (kind, "u-1", "d-1", "t", {"total": 5}) == tuple(
        found[name] for name in ("type", "messageId", "anonymousId", "timestamp", "properties")
    )
    assert ("203.0.113.9", "https://s.example/", {"plan": "x"}) == (
        found["context"]["ip"],
        found["context"]["page"]["url"],
        found["context"]["traits"],
    )


def test_a_record_of_a_sync_is_its_row() -> None:
    """With an id of its own, or the record's."""
    adapt = ADAPTERS["jitsu_reverse_etl"]
    rows: list[dict[str, Any]] = [{"key": "k", "data": {}}, {"key": "k", "data": {"messageId": "m"}}]

    assert ["k", "m"] == [adapt(row)["messageId"] for row in rows]
