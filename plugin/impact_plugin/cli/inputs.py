"""What commands are given: switches, and files, read so that every mistake is one line."""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec
from cyclopts import Parameter

from impact_plugin.config.destinations import Destinations, KnownDestination, destination_variables
from impact_plugin.config.settings import ROUTING, SETTINGS, read_file
from impact_plugin.config.sources import load_routing
from impact_plugin.errors import ImpactPluginError
from impact_plugin.files import write_whole
from impact_transformers.events import UNREADABLE

Flag: TypeAlias = Annotated[bool, Parameter(negative=())]
"""A switch without a --no- of its own."""


def setting_option(setting: str) -> Parameter:
    """An option that sets ``setting``; its help is what is said of the setting."""
    field = SETTINGS[setting]
    return Parameter(help=f"{field.setting.description} {field.values.capitalize()}; default {field.default}.")


class InputError(ImpactPluginError):
    """A file cannot be used; the message names it and says why."""


def write_text(path: Path, text: str) -> None:
    """Write a file; raises :class:`InputError`."""
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def read_config(path: Path) -> dict[str, Any]:
    """A destination's configuration, JSON or TOML; also within a destination as routers write it."""
    try:
        text = path.read_text(encoding="utf-8")
        config = tomllib.loads(text) if path.suffix == ".toml" else msgspec.json.decode(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, *UNREADABLE) as error:
        raise InputError(f"{path}: cannot be read as a configuration: {error}") from error
    if isinstance(config, dict):
        found = config.get("Config", config.get("config", config))
        return found if isinstance(found, dict) else config
    raise InputError(f"{path}: must hold one object with the destination's keys")


def read_destinations(path: Path | None) -> list[KnownDestination]:
    """The destination of a configuration's file, or all destinations of the service's TOML file; none without a file.

    Raises :class:`InputError` for a configuration that cannot be used.
    """
    if path is None:
        return []
    if path.suffix == ".toml" and any(kind in read_file(path) for kind in ROUTING):
        return [*load_routing(path, os.environ).destinations.values()]
    known = Destinations(destination_variables(os.environ)).of_config(path.stem, read_config(path))
    if known.destination is None:
        raise InputError(f"{path}: the configuration cannot be used: {known.problem}")
    return [known]
