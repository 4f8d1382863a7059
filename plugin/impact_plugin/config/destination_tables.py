"""``[destinations.NAME]`` of the file, compiled: the keys of RudderStack's configuration, with stricter manners.

What comes from a router is refused event by event; what stands in our own file is refused with the file.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from impact_plugin.config.destinations import CONCEALED, KnownDestination
from impact_plugin.config.fields import did_you_mean, quote_name
from impact_plugin.config.manifest import load_manifest
from impact_plugin.config.references import References, on_one_line, texts
from impact_plugin.config.variables import VariablePath, as_json, comma_list_or_json
from impact_plugin.errors import SettingsError
from impact_transformers import ConfigKey, ConfigurationError, compile_destination
from impact_transformers.configuration import LATER_KEYS, Problem, fill_variables, unknown_keys

_READERS: Final = {
    "names": comma_list_or_json,
    "hosts": comma_list_or_json,
    "queries": comma_list_or_json,
    "strings": comma_list_or_json,
    "mapping": as_json,
    "event_types": as_json,
    "sources": as_json,
}
"""How a variable's text is read, by type of the key; the rest are read from text as they are."""

_ELSEWHERE: Final[dict[str, tuple[str, ...]]] = {"mapping": ("rudderToImpactProperty", "productsMapping")}
"""Mistakes that are told under another name than that of their key."""


def destination_places() -> Iterator[VariablePath]:
    """Where variables belong in the table of a destination."""
    for key in load_manifest().configuration:
        for spelling in (key.key, *key.aliases):
            yield VariablePath((spelling,), _READERS.get(key.type, str), instead=(key.key, *key.aliases))


def compile_table(
    name: str,
    table: Mapping[str, Any],
    references: References,
    variables: Mapping[str, str],
    compiled: Mapping[bytes, KnownDestination],
) -> tuple[bytes, KnownDestination]:
    """The destination that a table describes, and a digest of the table; what is in ``compiled`` is not made again.

    Raises :class:`SettingsError` with the path of every mistake.
    """
    path, schema = f"destinations.{name}", load_manifest().configuration
    unknown = {key for key in unknown_keys(table, schema) if key not in LATER_KEYS}
    problems = [*_unknown_key_problems(path, unknown)]
    secret = {spelling for key in schema if key.secret for spelling in (key.key, *key.aliases)}
    known_keys = {key: value for key, value in table.items() if key not in unknown}
    config = _resolved(path, known_keys, references, secret, problems)
    try:
        filled = fill_variables(config, variables)
        mark = hashlib.blake2b(msgspec.json.encode((name, filled), order="deterministic")).digest()
        written = msgspec.json.encode({key: CONCEALED if key in secret else value for key, value in filled.items()})
        destination = compiled.get(mark)
        known = destination or KnownDestination(name, "", compile_destination(filled, schema, variables), None, written)
    except ConfigurationError as error:
        problems += [_told(path, problem, config, references) for problem in error.problems]
    if problems:
        # Without a cause, which may quote what must not be shown.
        raise SettingsError(*problems)
    return mark, known


def _resolved(
    path: str, table: Mapping[str, Any], references: References, secret: set[str], problems: list[Problem]
) -> dict[str, Any]:
    """The table with its references resolved; raises :class:`SettingsError` where one leads nowhere."""
    config = {}
    broken: list[Problem] = []
    for key, value in table.items():
        try:
            config[key] = references.resolve(value, f"{path}.{quote_name(key)}", files=key in secret)
        except SettingsError as error:
            broken += error.problems
    if broken:
        raise SettingsError(*problems, *broken)
    return config


def _unknown_key_problems(path: str, unknown: Iterable[str]) -> Iterator[Problem]:
    known = [spelling for key in load_manifest().configuration for spelling in (key.key, *key.aliases)]
    for key in sorted(unknown):
        yield Problem(f"{path}.{quote_name(key)}", f"there is no such key{did_you_mean(key, known)}")


def _told(path: str, problem: Problem, config: Mapping[str, Any], references: References) -> Problem:
    """The mistake and its place below ``path``, without what a reference led to and without a secret."""
    place, message = _place_and_message(problem, config, references)
    return Problem(on_one_line(f"{path}.{place}" if place else path), on_one_line(message))


def _place_and_message(problem: Problem, config: Mapping[str, Any], references: References) -> tuple[str, str]:
    head = re.match(r"\w*", problem.path)
    concerned = _concerned(head[0] if head else "", config)
    if concerned:
        hidden = any(not key.secret and _led_to(value, references) for key, value in concerned)
        return problem.path, _refused(concerned[0][0]) if hidden else problem.message
    if problem.path in LATER_KEYS:
        return problem.path, problem.message
    # A mistake may give a value, a template or env.NAME, in the place of its path.
    for name, value in config.items():
        for place, text in texts(value, name):
            if text == problem.path:
                key = _key_of(name)
                hidden = references.led_to(text) or (key is not None and key.secret and not text.startswith("env."))
                return place, _refused(key) if hidden else problem.message
    return "", "a value that a variable leads to cannot be used"


def _refused(key: ConfigKey | None) -> str:
    pattern = f"; it must fit {key.pattern}" if key is not None and key.pattern else ""
    return f"the value cannot be used (not shown, it is a secret or comes from a reference){pattern}"


def _led_to(value: Any, references: References) -> bool:
    return references.led_to(value) or any(text.startswith("env.") for _, text in texts(value))


def _concerned(name: str, config: Mapping[str, Any]) -> list[tuple[ConfigKey, Any]]:
    """The keys that a mistake is about, and what the table holds under any of their spellings."""
    keys = [key for each in _ELSEWHERE.get(name, (name,)) if (key := _key_of(each)) is not None]
    return [(key, [config.get(spelling) for spelling in (key.key, *key.aliases)]) for key in keys]


def _key_of(name: str) -> ConfigKey | None:
    found = (key for key in load_manifest().configuration if name in (key.key, *key.aliases))
    return next(found, None)
