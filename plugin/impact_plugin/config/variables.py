"""Variables that win over the file, such as ``IMPACT_PLUGIN__SOURCES__NAME__KEY`` and those of destinations."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from impact_plugin.config.settings import ENVIRONMENT_PREFIX
from impact_plugin.errors import SettingsError
from impact_transformers.events import UNREADABLE

SEPARATOR: Final = "__"

Tables: TypeAlias = dict[str, dict[str, dict[str, Any]]]
"""By kind, then by name: what the file says of each source and each destination."""


class VariablePath(msgspec.Struct, frozen=True):
    """Where a variable belongs in its table and how it is read; ``instead`` are other spellings, which it replaces."""

    path: tuple[str, ...]
    read: Callable[[str], Any]
    instead: tuple[str, ...] = ()


def several(text: str) -> list[str]:
    """Texts with commas between them."""
    return [part.strip() for part in text.split(",") if part.strip()]


def several_or_json(text: str) -> Any:
    """Texts with commas between them, or JSON; raises :class:`ValueError`."""
    return as_json(text) if text.lstrip().startswith(("[", "{")) else several(text)


def as_json(text: str) -> Any:
    """JSON; raises :class:`ValueError`."""
    try:
        return msgspec.json.decode(text)
    except (*UNREADABLE, UnicodeEncodeError):
        # The decoder's own message could quote the value.
        raise ValueError("must be JSON") from None


def place_variables(
    tables: Tables, environment: Mapping[str, str], places: Mapping[str, Iterable[VariablePath]]
) -> None:
    """Put the variables of each kind where they belong; names are matched without case, and ``_`` matches ``-``.

    A source or destination that the file does not have is made. Raises :class:`SettingsError` naming the variable.
    """
    known = {kind: {_spelled(place.path): place for place in found} for kind, found in places.items()}
    for variable, value in environment.items():
        if variable.upper().startswith(ENVIRONMENT_PREFIX):
            kind, *rest = variable[len(ENVIRONMENT_PREFIX) :].split(SEPARATOR)
            if kind.lower() in tables:
                _put(tables[kind.lower()], known[kind.lower()], variable, rest, value)


def meant(given: str, known: Iterable[str]) -> str:
    """The end of an error about a name that is not known: what it could have meant."""
    close = difflib.get_close_matches(given[:64], list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


def _spelled(path: Iterable[str]) -> str:
    return SEPARATOR.join(path).upper()


def _put(
    held: dict[str, dict[str, Any]], known: Mapping[str, VariablePath], variable: str, rest: list[str], value: str
) -> None:
    name, *path = rest or [""]
    if not name or not path:
        kind = variable[len(ENVIRONMENT_PREFIX) :].partition(SEPARATOR)[0].upper()
        raise SettingsError(f"{variable}: must be {ENVIRONMENT_PREFIX}{kind}{SEPARATOR}NAME{SEPARATOR}KEY")
    place = known.get(_spelled(path))
    if place is None:
        raise SettingsError(f"{variable}: there is no key {_spelled(path)}{meant(_spelled(path), known)}")
    table = held.setdefault(_name(held, name, variable), {})
    for spelling in place.instead:
        table.pop(spelling, None)
    for part in place.path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise SettingsError(f"{variable}: {part} must be a table of the file, not a value")
    try:
        table[place.path[-1]] = place.read(value)
    except ValueError as error:
        raise SettingsError(f"{variable}: {error}") from None


def _name(held: Iterable[str], given: str, variable: str) -> str:
    """The name in the file that a variable means, else a new one."""
    found = [name for name in held if _fold(name) == _fold(given)]
    if len(found) > 1:
        raise SettingsError(f"{variable}: could mean {' or '.join(found)}; rename one of them")
    return found[0] if found else given.lower()


def _fold(name: str) -> str:
    return name.lower().replace("-", "_")
