"""Environment variables: settings (``IMPACT_PLUGIN__SECTION__KEY``), and keys of sources and destinations.

Variables override the file. A variable with our prefix that means nothing is a mistake, because it would be ignored.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from impact_plugin.config.fields import Field, closest, comma_list, did_you_mean
from impact_transformers.configuration import Problem
from impact_transformers.events import UNREADABLE

ENVIRONMENT_PREFIX: Final = "IMPACT_PLUGIN__"
SEPARATOR: Final = "__"

ROUTING_TABLES: Final = ("sources", "destinations")
"""Tables of the same file that are not settings; see :mod:`impact_plugin.config.sources`."""

Given: TypeAlias = Mapping[str, tuple[str, Any]]
"""By setting: where it was given (the setting itself for the file, a variable, an option), and its value."""

Tables: TypeAlias = dict[str, dict[str, dict[str, Any]]]
"""The table of each source and destination, by kind (``sources``, ``destinations``) and name."""


class VariablePath(msgspec.Struct, frozen=True):
    """The path of a key in its table, how a variable for it is parsed, and the other spellings that it ``replaces``."""

    path: tuple[str, ...]
    parse: Callable[[str], Any]
    replaces: tuple[str, ...] = ()


def variable_of(setting: str) -> str:
    """The environment variable of a setting."""
    return f"{ENVIRONMENT_PREFIX}{setting.replace('.', SEPARATOR).upper()}"


def settings_in_environment(
    environment: Mapping[str, str],
    settings: Mapping[str, Field],
    removed: Mapping[str, str],
    problems: list[Problem],
) -> Given:
    """Settings given by variables; adds a problem for each unknown one and each one of an earlier version."""
    given = {}
    for variable, text in environment.items():
        section, _, key = variable[len(ENVIRONMENT_PREFIX) :].lower().partition(SEPARATOR)
        if not variable.upper().startswith(ENVIRONMENT_PREFIX) or section in ROUTING_TABLES:
            continue
        setting = f"{section}.{key}"
        if setting in settings:
            given[setting] = (variable, comma_list(text) if settings[setting].is_list else text)
        else:
            problems.append(Problem(variable, removed.get(setting) or _unknown_setting(setting, settings)))
    return given


def _unknown_setting(setting: str, settings: Iterable[str]) -> str:
    close = closest(setting, settings)
    hint = f"did you mean {variable_of(close)}?" if close else "docs/reference/settings.md lists all"
    return f"there is no such setting; {hint}"


def comma_list_or_json(text: str) -> Any:
    """Parse text as JSON if it starts with a bracket, otherwise as a comma list; raises :class:`ValueError`."""
    return parse_json(text) if text.lstrip().startswith(("[", "{")) else comma_list(text)


def parse_json(text: str) -> Any:
    """Parse JSON; raises :class:`ValueError`."""
    try:
        return msgspec.json.decode(text)
    except (*UNREADABLE, UnicodeEncodeError):
        # The decoder's own message may quote the value.
        raise ValueError("must be JSON") from None


def apply_variables(
    tables: Tables, environment: Mapping[str, str], paths: Mapping[str, Iterable[VariablePath]]
) -> list[Problem]:
    """Set the variables of each kind in ``tables``; names are matched without case, and ``_`` matches ``-``.

    Adds sources and destinations that the file does not have. Returns a problem for each variable that is not valid.
    """
    problems: list[Problem] = []
    known = {kind: {_spelled(one.path): one for one in of_kind} for kind, of_kind in paths.items()}
    for variable, value in environment.items():
        if variable.upper().startswith(ENVIRONMENT_PREFIX):
            kind, *rest = variable[len(ENVIRONMENT_PREFIX) :].split(SEPARATOR)
            if kind.lower() in tables:
                try:
                    _set(tables[kind.lower()], known[kind.lower()], variable, rest, value)
                except ValueError as error:
                    problems.append(Problem(variable, str(error)))
    return problems


def _spelled(path: Iterable[str]) -> str:
    return SEPARATOR.join(path).upper()


def _set(
    tables: dict[str, dict[str, Any]], known: Mapping[str, VariablePath], variable: str, rest: list[str], value: str
) -> None:
    """Set one variable in its table; raises :class:`ValueError`, which does not show the value."""
    name, *path = rest or [""]
    if not name or not path:
        kind = variable[len(ENVIRONMENT_PREFIX) :].partition(SEPARATOR)[0].upper()
        raise ValueError(f"must be {ENVIRONMENT_PREFIX}{kind}{SEPARATOR}NAME{SEPARATOR}KEY")
    found = known.get(_spelled(path))
    if found is None:
        raise ValueError(f"there is no key {_spelled(path)}{did_you_mean(_spelled(path), known)}")
    table = tables.setdefault(_name(tables, name), {})
    for spelling in found.replaces:
        table.pop(spelling, None)
    for part in found.path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ValueError(f"{part} must be a table of the file, not a value")  # noqa: TRY004 - of a variable's value
    table[found.path[-1]] = found.parse(value)


def _name(known: Iterable[str], given: str) -> str:
    """The name in the file that a variable refers to, otherwise a new one."""
    found = [name for name in known if _fold(name) == _fold(given)]
    if len(found) > 1:
        raise ValueError(f"could mean {' or '.join(found)}; rename one of them")
    return found[0] if found else given.lower()


def _fold(name: str) -> str:
    return name.lower().replace("-", "_")
