"""The options that several commands share: one name, one meaning and one sentence of help each."""

from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import Parameter

from impact_plugin.config.settings import SETTINGS

Config: TypeAlias = Annotated[
    Path | None, Parameter(name=["--config", "-c"], help="Your TOML file with settings, sources and destinations.")
]
Destination: TypeAlias = Annotated[str | None, Parameter(name=["--destination", "-d"])]
"""Which destination; each command says in which forms."""

Json: TypeAlias = Annotated[bool, Parameter(help="Print the result as one JSON document.")]
Quiet: TypeAlias = Annotated[bool, Parameter(help="Print nothing but errors; the exit code tells the result.")]


def setting_option(setting: str) -> Parameter:
    """An option that overrides ``setting``, with the description of the setting as its help."""
    field = SETTINGS[setting]
    return Parameter(help=f"{field.setting.description} {field.allowed.capitalize()}; default {field.default}.")
