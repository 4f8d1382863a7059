"""``manifest.json`` is refused when it is wrong, and its keys are the configuration's."""

from typing import Any, Final

import msgspec
import pytest

from impact_plugin import __version__
from impact_plugin.config.manifest import MESSAGE_TYPES, load_manifest, parse_manifest
from impact_transformers import DestinationConfig

WITHOUT_EFFECT: Final = {"enableEmailHashing"}
"""Accepted from the built-in destination, and nothing else."""


def manifest(**changes: Any) -> bytes:
    """Write the installed manifest with these fields changed."""
    return msgspec.json.encode({**msgspec.to_builtins(load_manifest()), **changes})


def with_keys(*keys: dict[str, Any]) -> bytes:
    """Write a manifest whose configuration has these keys."""
    texts = {"title": "T", "description": "D", "type": "string"}
    return manifest(configuration=[{**texts, **key} for key in keys])


def test_the_installed_one() -> None:
    """The manifest of this installation can be used, and says what the package is."""
    found = load_manifest()

    assert ("impact-plugin", __version__, "IMPACT") == (found.name, found.version, found.destination_type)
    assert set(MESSAGE_TYPES) == set(found.message_types)
    assert found == parse_manifest(manifest())


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "manifest.json"),
        (b"[]", "object"),
        (b"{}", "missing required field"),
        (manifest(version="99.0.0"), f"version is 99.0.0, the package's is {__version__}"),
        (manifest(name="other"), "name"),
        (manifest(colour="blue"), "unknown field"),
        (manifest(capabilities=["fly"]), "fly"),
        (manifest(message_types=["group"]), "group"),
        (manifest(title=7), "title"),
        (with_keys({"key": "a"}, {"key": "a"}), "named twice: a"),
        (with_keys({"key": "a"}, {"key": "b", "aliases": ["a"]}), "named twice: a"),
        (with_keys({"key": "a", "aliases": ["a"]}), "named twice: a"),
        (with_keys({"key": "a", "default": "x", "values": ["y", "z"]}), "default of a is not among its values"),
        (with_keys({"key": "a", "secret": True, "default": "x"}), "secret a must not have a default"),
        (with_keys({"key": "a", "type": "colour"}), "colour"),
        (with_keys({"key": "a", "colour": "blue"}), "unknown field"),
        (with_keys({}), "key"),
        (b'{"name":"\xff"}', "manifest.json"),
    ],
)
def test_refused(raw: bytes, message: str) -> None:
    """Each mistake raises the manifest's error, naming the file and the mistake."""
    with pytest.raises(Exception, match=r"manifest\.json") as caught:
        parse_manifest(raw)

    assert "ManifestError" == type(caught.value).__name__
    assert message in str(caught.value)


def test_every_key_is_a_field() -> None:
    """Each key of the manifest arrives in the configuration, and each field comes from a key."""
    keys = {key.key for key in load_manifest().configuration}
    fields = {field.encode_name for field in msgspec.structs.fields(DestinationConfig)}

    assert keys - WITHOUT_EFFECT == fields


def test_every_key_is_described() -> None:
    """Each key has a title and a full sentence for the docs."""
    keys = load_manifest().configuration

    assert [] == [key.key for key in keys if not key.title or not key.description.endswith(".")]


def test_the_defaults_are_the_fields_own() -> None:
    """Manifest and Struct do not disagree about a default."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(DestinationConfig)}
    wrong = []
    for key in load_manifest().configuration:
        if key.key in WITHOUT_EFFECT or key.required:
            continue
        field = fields[key.key]
        own = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        given = "" if key.default is None else tuple(key.default) if isinstance(key.default, list) else key.default
        wrong += [key.key] if own != given else []

    assert [] == wrong


def test_only_three_keys_are_required_and_one_is_secret() -> None:
    """Account SID, Auth Token and Campaign ID; the token is the secret."""
    keys = load_manifest().configuration

    assert ["accountSID", "apiKey", "campaignId"] == [key.key for key in keys if key.required]
    assert ["apiKey"] == [key.key for key in keys if key.secret]
