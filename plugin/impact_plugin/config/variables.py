"""Variables that win over the file, such as ``IMPACT_PLUGIN__SOURCES__NAME__KEY`` and those of destinations."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from impact_plugin.config.fields import comma_list, did_you_mean
from impact_plugin.config.settings import ENVIRONMENT_PREFIX
from impact_transformers.configuration import Problem
from impact_transformers.events import UNREADABLE

SEPARATOR: Final = "__"

Tables: TypeAlias = dict[str, dict[str, dict[str, Any]]]
"""By kind, then by name: what the file says of each source and each destination."""


class VariablePath(msgspec.Struct, frozen=True):
    """Where a variable belongs in its table and how it is read; ``instead`` are other spellings, which it replaces."""

    path: tuple[str, ...]
    read: Callable[[str], Any]
    instead: tuple[str, ...] = ()


def comma_list_or_json(text: str) -> Any:
    """Texts with commas between them, or JSON; raises :class:`ValueError`."""
    return as_json(text) if text.lstrip().startswith(("[", "{")) else comma_list(text)


def as_json(text: str) -> Any:
    """JSON; raises :class:`ValueError`."""
    try:
        return msgspec.json.decode(text)
    except (*UNREADABLE, UnicodeEncodeError):
        # The decoder's own message could quote the value.
        raise ValueError("must be JSON") from None


def place_variables(
    tables: Tables, environment: Mapping[str, str], places: Mapping[str, Iterable[VariablePath]]
) -> list[Problem]:
    """Put the variables of each kind where they belong; names are matched without case, and ``_`` matches ``-``.

    A source or destination that the file does not have is made. Returns the variables that cannot be used.
    """
    problems: list[Problem] = []
    known = {kind: {_spelled(place.path): place for place in found} for kind, found in places.items()}
    for variable, value in environment.items():
        if variable.upper().startswith(ENVIRONMENT_PREFIX):
            kind, *rest = variable[len(ENVIRONMENT_PREFIX) :].split(SEPARATOR)
            if kind.lower() in tables:
                try:
                    _put(tables[kind.lower()], known[kind.lower()], variable, rest, value)
                except ValueError as error:
                    problems.append(Problem(variable, str(error)))
    return problems


def _spelled(path: Iterable[str]) -> str:
    return SEPARATOR.join(path).upper()


def _put(
    held: dict[str, dict[str, Any]], known: Mapping[str, VariablePath], variable: str, rest: list[str], value: str
) -> None:
    """Put one variable where it belongs; raises :class:`ValueError`, which does not show the value."""
    name, *path = rest or [""]
    if not name or not path:
        kind = variable[len(ENVIRONMENT_PREFIX) :].partition(SEPARATOR)[0].upper()
        raise ValueError(f"must be {ENVIRONMENT_PREFIX}{kind}{SEPARATOR}NAME{SEPARATOR}KEY")
    place = known.get(_spelled(path))
    if place is None:
        raise ValueError(f"there is no key {_spelled(path)}{did_you_mean(_spelled(path), known)}")
    table = held.setdefault(_name(held, name), {})
    for spelling in place.instead:
        table.pop(spelling, None)
    for part in place.path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ValueError(f"{part} must be a table of the file, not a value")  # noqa: TRY004 - of a variable's value
    table[place.path[-1]] = place.read(value)


def _name(held: Iterable[str], given: str) -> str:
    """The name in the file that a variable means, else a new one."""
    found = [name for name in held if _fold(name) == _fold(given)]
    if len(found) > 1:
        raise ValueError(f"could mean {' or '.join(found)}; rename one of them")
    return found[0] if found else given.lower()


def _fold(name: str) -> str:
    return name.lower().replace("-", "_")
