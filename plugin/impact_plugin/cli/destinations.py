"""Which destinations a command is about: files with a configuration, and destinations of your TOML file."""

import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from impact_plugin.cli.errors import CommandError
from impact_plugin.config.destinations import Destinations, KnownDestination, destination_variables
from impact_plugin.config.settings import read_file
from impact_plugin.config.sources import load_routing
from impact_plugin.config.variables import ROUTING_TABLES
from impact_transformers.events import UNREADABLE


def read_configuration(path: Path) -> dict[str, Any]:
    """Read the configuration of one destination, JSON or TOML, bare or inside a destination as routers write it.

    Raises :class:`CommandError`.
    """
    try:
        text = path.read_text(encoding="utf-8")
        config = tomllib.loads(text) if path.suffix == ".toml" else msgspec.json.decode(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, *UNREADABLE) as error:
        raise CommandError(f"{path}: cannot be read as a configuration: {error}") from error
    if isinstance(config, dict):
        found = config.get("Config", config.get("config", config))
        return found if isinstance(found, dict) else config
    raise CommandError(f"{path}: must hold one object with the destination's keys")


def read_destinations(chosen: str | None, config: Path | None) -> list[KnownDestination]:
    """Read the chosen destination: one of ``config`` by its name, or a file with a configuration.

    Without a choice these are all destinations of ``config``, if it has any. A file may be another TOML file of the
    service; then its destinations are meant. Raises :class:`CommandError` for a configuration that cannot be used.
    """
    known = {} if config is None or not _has_routing(config) else load_routing(config, os.environ).destinations
    if chosen is None:
        return [*known.values()]
    if chosen in known:
        return [known[chosen]]
    path = Path(chosen)
    if config is not None and not path.exists():
        names = ", ".join(known) or "none"
        raise CommandError(
            f"--destination: {chosen} is neither a file nor a destination of {config}, which has {names}"
        )
    return _read_file(path)


def _read_file(path: Path) -> list[KnownDestination]:
    if path.suffix == ".toml" and _has_routing(path):
        return [*load_routing(path, os.environ).destinations.values()]
    known = Destinations(destination_variables(os.environ)).of_config(path.stem, read_configuration(path))
    if known.destination is None:
        raise CommandError(f"{path}: the configuration cannot be used: {known.problem}")
    return [known]


def _has_routing(path: Path) -> bool:
    return any(kind in read_file(path) for kind in ROUTING_TABLES)
