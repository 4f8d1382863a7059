"""``manifest.json``, the description of the plugin, as validated Structs."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from impact_plugin import __version__
from impact_plugin.errors import ManifestError
from impact_transformers import ConfigKey

Capability: TypeAlias = Literal[
    "transform", "sessions", "delivery", "ingest", "deletion", "pass_through", "dynamic_configuration"
]

MESSAGE_TYPES = ("identify", "page", "screen", "track")


class Protocol(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A wire protocol, and the path where the plugin serves it."""

    name: str
    versions: tuple[str, ...]
    path: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Identity, protocols and capabilities of the plugin, and the configuration schema of a destination."""

    name: Literal["impact-plugin"]
    version: str
    title: str
    description: str
    homepage: str
    license: str
    destination_type: str
    protocols: tuple[Protocol, ...]
    capabilities: tuple[Capability, ...]
    message_types: tuple[Literal["identify", "page", "screen", "track"], ...]
    configuration: tuple[ConfigKey, ...]


def parse_manifest(raw: bytes) -> Manifest:
    """Decode and validate a manifest; raises :class:`ManifestError`, which names the mistake."""
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"manifest.json: {error}") from error
    if manifest.version != __version__:
        raise ManifestError(f"manifest.json: version is {manifest.version}, the package's is {__version__}")
    names = [name for key in manifest.configuration for name in (key.key, *key.aliases)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ManifestError(f"manifest.json: configuration keys are named twice: {', '.join(repeated)}")
    for key in manifest.configuration:
        if key.values and not _default_values(key.default) <= {None, *key.values}:
            raise ManifestError(f"manifest.json: the default of {key.key} is not among its values")
        if key.secret and key.default is not None:
            raise ManifestError(f"manifest.json: the secret {key.key} must not have a default")
    return manifest


def _default_values(default: object) -> set[object]:
    return set(default) if isinstance(default, list) else {default}


@cache
def load_manifest() -> Manifest:
    """Load the manifest of this installation, from the wheel or else from the top of the source tree."""
    packaged = files("impact_plugin").joinpath("manifest.json")
    if packaged.is_file():
        return parse_manifest(packaged.read_bytes())
    return parse_manifest((Path(__file__).parents[3] / "manifest.json").read_bytes())
