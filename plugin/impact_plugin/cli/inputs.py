"""What commands are given: switches, and files, read so that every mistake is one line."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec
from cyclopts import Parameter

from impact_plugin.config.settings import SETTINGS
from impact_plugin.errors import ImpactPluginError
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
        path.write_text(text, encoding="utf-8")
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
