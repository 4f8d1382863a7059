"""Destinations as routers send them: compiled once a revision, bounded, refused with every mistake named."""

from typing import Any

import msgspec
import pytest

from impact_plugin.config.destinations import MAX_CACHED, Destinations
from impact_plugin.config.manifest import load_manifest
from impact_transformers import Destination, DynamicDestination


def raw(config: Any, **rest: Any) -> msgspec.Raw:
    """A destination object as the router writes it."""
    return msgspec.Raw(msgspec.json.encode({"ID": "d-1", "WorkspaceID": "ws-1", "Config": config, **rest}))


def test_the_same_bytes_are_compiled_once(config: dict[str, Any]) -> None:
    """A batch costs one compilation, and so do the thousand after it."""
    known = Destinations({})
    first, again = known.get(raw(config)), known.get(raw(config))

    assert first is again
    assert (first.id, first.workspace_id) == ("d-1", "ws-1")
    assert len(known) == 1


def test_a_new_revision_is_compiled_anew(config: dict[str, Any]) -> None:
    """An operator's change works with the very next batch, and the old revision does not linger in its place."""
    known = Destinations({})
    before, after = known.get(raw(config)), known.get(raw({**config, "campaignId": "1"}))

    assert isinstance(before.destination, Destination)
    assert isinstance(after.destination, Destination)
    assert (before.destination.config.campaign_id, after.destination.config.campaign_id) == ("23224", "1")


def test_memory_is_bounded_and_the_least_used_goes_first(config: dict[str, Any]) -> None:
    """Whatever number of destinations comes by, a fixed number is kept."""
    known = Destinations({})
    kept = known.get(raw({}, ID="first"))
    for number in range(MAX_CACHED):
        known.get(raw({}, ID=str(number)))
        if number % 100 == 0:
            assert known.get(raw({}, ID="first")) is kept

    assert len(known) == MAX_CACHED
    assert known.get(raw({}, ID="first")) is kept


def test_every_mistake_is_named_at_once() -> None:
    """An operator corrects the configuration in one go."""
    problem = Destinations({}).get(raw({"campaignId": "abc", "unmappedTrack": "maybe", "eventTypeId": "x"})).problem

    assert problem is not None
    for key in ("accountSID", "apiKey", "campaignId", "unmappedTrack", "eventTypeId"):
        assert f"{key}: " in problem


def test_a_token_is_never_quoted_in_a_problem() -> None:
    """The error is shown in the router's live events, where more people read than may know the token."""
    problem = Destinations({}).get(raw({"accountSID": "bad sid!", "apiKey": "test-token-secret"})).problem

    assert problem is not None
    assert "test-token-secret" not in problem


@pytest.mark.parametrize(
    ("bytes_", "expected"),
    [
        (b"null", "cannot be read"),
        (b"[]", "cannot be read"),
        (b'"d-1"', "cannot be read"),
        (b"{}", "no Config object"),
        (b'{"ID":"d-1","Config":null}', "no Config object"),
        (b'{"ID":"d-1","Config":[]}', "no Config object"),
        (b'{"ID":7,"Config":{}}', "cannot be read"),
        (b'{"ID":"d-1","Config":' + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"}", "cannot be read|nested more than"),
        (b'{"ID":"d-1","Config":{"campaignId":' + b"9" * 5000 + b"}}", "cannot be read"),
    ],
    ids=["null", "list", "text", "empty", "null config", "list config", "numeric id", "deep", "huge number"],
)
def test_what_is_no_destination_has_a_problem(bytes_: bytes, expected: str) -> None:
    """Nothing a router could send in place of a destination raises."""
    known = Destinations({}).get(msgspec.Raw(bytes_))

    assert known.destination is None
    assert any(words in (known.problem or "") for words in expected.split("|"))


ODD_VALUES: list[Any] = [
    None, True, 0, -1, 2**63, 1.5, 1e300, "", " ", "x" * 300, "\x00", "{{ a || }}", "env.", "env.X", [], [None], [1],
    [[]], [{}], [{"eventName": 1}], [{"eventName": {}}], [{"from": 1, "to": []}], [{"from": "a..b[", "to": "X"}], {},
    {"": ""}, {"a": None}, {"a": 1}, {"a": []}, {"a": [1]}, {"a": {"kind": []}}, {"a": {"id": {}, "kind": "lead"}},
    {"web": 1, "cloud": 2}, {"web": {}, "cloud": {}},
]  # fmt: skip


@pytest.mark.parametrize("key", [key.key for key in load_manifest().configuration])
def test_no_value_of_any_key_raises(config: dict[str, Any], key: str) -> None:
    """Whatever stands in a configuration, the destination is usable or has a problem; nothing else happens."""
    for value in ODD_VALUES:
        known = Destinations({}).get(raw({**config, key: value}))

        assert (known.destination is None) == (known.problem is not None), value


def test_variables_of_the_service_fill_in(config: dict[str, Any]) -> None:
    """``env.IMPACT_VAR_*`` keeps the token out of the router's database."""
    known = Destinations({"IMPACT_VAR_TOKEN": "from-the-environment"}).get(
        raw({**config, "apiKey": "env.IMPACT_VAR_TOKEN"})
    )

    assert isinstance(known.destination, Destination)
    assert known.destination.config.api_key.reveal() == "from-the-environment"


@pytest.mark.parametrize(
    ("written", "expected"),
    [("env.IMPACT_VAR_ABSENT", "IMPACT_VAR_ABSENT is not set"), ("env.PATH", "start with IMPACT_VAR_")],
)
def test_other_variables_do_not(config: dict[str, Any], written: str, expected: str) -> None:
    """Whoever may write a configuration may not read the process's environment."""
    known = Destinations({"IMPACT_VAR_TOKEN": "x", "PATH": "/bin"}).get(raw({**config, "apiKey": written}))

    assert known.destination is None
    assert any(words in (known.problem or "") for words in expected.split("|"))


def test_templates_make_a_dynamic_destination(config: dict[str, Any]) -> None:
    """``{{ event.path || default }}`` is resolved for each event."""
    known = Destinations({}).get(raw({**config, "campaignId": "{{ event.properties.program || 1 }}"}))

    assert isinstance(known.destination, DynamicDestination)
    assert known.problem is None
