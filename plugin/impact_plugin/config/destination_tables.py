"""Compiles the tables ``[destinations.NAME]`` of the file, which have the keys of RudderStack's configuration.

A mistake in a router's configuration rejects its events one by one; a mistake in our own file refuses the whole file.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from impact_plugin.config.destinations import CONCEALED, KnownDestination
from impact_plugin.config.fields import did_you_mean, quote_name
from impact_plugin.config.manifest import load_manifest
from impact_plugin.config.references import References, on_one_line, texts_with_paths
from impact_plugin.config.variables import VariablePath, comma_list_or_json, parse_json
from impact_plugin.errors import SettingsError
from impact_transformers import ConfigKey, ConfigurationError, compile_destination
from impact_transformers.configuration import LATER_KEYS, Problem, fill_variables, unknown_keys

_PARSERS: Final = {
    "names": comma_list_or_json,
    "hosts": comma_list_or_json,
    "queries": comma_list_or_json,
    "strings": comma_list_or_json,
    "mapping": parse_json,
    "event_types": parse_json,
    "sources": parse_json,
}
"""How a variable is parsed, by the type of its key; other types are parsed from text anyway."""

_SHARED_NAMES: Final[dict[str, tuple[str, ...]]] = {"mapping": ("rudderToImpactProperty", "productsMapping")}
"""The keys that a problem may be about, where its path begins with another name than that of its key."""


def destination_variable_paths() -> Iterator[VariablePath]:
    """The keys of a destination that variables can set."""
    for key in load_manifest().configuration:
        for spelling in (key.key, *key.aliases):
            yield VariablePath((spelling,), _PARSERS.get(key.type, str), replaces=(key.key, *key.aliases))


def compile_table(
    name: str,
    table: Mapping[str, Any],
    references: References,
    variables: Mapping[str, str],
    compiled: Mapping[bytes, KnownDestination],
) -> tuple[bytes, KnownDestination]:
    """Compile a table; returns a digest of it and its destination, which is that in ``compiled`` if nothing changed.

    Raises :class:`SettingsError` with the path of every mistake.
    """
    path, schema = f"destinations.{name}", load_manifest().configuration
    unknown = {key for key in unknown_keys(table, schema) if key not in LATER_KEYS}
    problems = [*_unknown_key_problems(path, unknown)]
    secrets = {spelling for key in schema if key.secret for spelling in (key.key, *key.aliases)}
    known_keys = {key: value for key, value in table.items() if key not in unknown}
    config = _resolve(path, known_keys, references, secrets, problems)
    try:
        filled = fill_variables(config, variables)
        digest = hashlib.blake2b(msgspec.json.encode((name, filled), order="deterministic")).digest()
        written = msgspec.json.encode({key: CONCEALED if key in secrets else value for key, value in filled.items()})
        known = compiled.get(digest) or KnownDestination(
            name, "", compile_destination(filled, schema, variables), None, written
        )
    except ConfigurationError as error:
        problems += [_redact(path, problem, config, references) for problem in error.problems]
    if problems:
        # Without a cause, which may quote a secret.
        raise SettingsError(*problems)
    return digest, known


def _resolve(
    path: str, table: Mapping[str, Any], references: References, secrets: set[str], problems: list[Problem]
) -> dict[str, Any]:
    """Resolve the references in a table; raises :class:`SettingsError` with the broken ones and ``problems``."""
    config = {}
    broken: list[Problem] = []
    for key, value in table.items():
        try:
            config[key] = references.resolve(value, f"{path}.{quote_name(key)}", files=key in secrets)
        except SettingsError as error:
            broken += error.problems
    if broken:
        raise SettingsError(*problems, *broken)
    return config


def _unknown_key_problems(path: str, unknown: Iterable[str]) -> Iterator[Problem]:
    known = [spelling for key in load_manifest().configuration for spelling in (key.key, *key.aliases)]
    for key in sorted(unknown):
        yield Problem(f"{path}.{quote_name(key)}", f"there is no such key{did_you_mean(key, known)}")


def _redact(path: str, problem: Problem, config: Mapping[str, Any], references: References) -> Problem:
    """The problem at its place below ``path``, without secrets and without values that come from references."""
    place, message = _place_and_message(problem, config, references)
    return Problem(on_one_line(f"{path}.{place}" if place else path), on_one_line(message))


def _place_and_message(problem: Problem, config: Mapping[str, Any], references: References) -> tuple[str, str]:
    head = re.match(r"\w*", problem.path)
    keys = _keys_and_values(head[0] if head else "", config)
    if keys:
        hidden = any(not key.secret and _has_reference(value, references) for key, value in keys)
        return problem.path, _hidden_message(keys[0][0]) if hidden else problem.message
    if problem.path in LATER_KEYS:
        return problem.path, problem.message
    # The path of a problem may be a value instead: a template or env.NAME.
    for name, value in config.items():
        for place, text in texts_with_paths(value, name):
            if text == problem.path:
                key = _key_of(name)
                hidden = references.contributed_to(text) or (
                    key is not None and key.secret and not text.startswith("env.")
                )
                return place, _hidden_message(key) if hidden else problem.message
    return "", "a value that comes from a variable cannot be used"


def _hidden_message(key: ConfigKey | None) -> str:
    pattern = f"; it must fit {key.pattern}" if key is not None and key.pattern else ""
    return f"the value cannot be used (not shown, it is a secret or comes from a reference){pattern}"


def _has_reference(value: Any, references: References) -> bool:
    return references.contributed_to(value) or any(text.startswith("env.") for _, text in texts_with_paths(value))


def _keys_and_values(name: str, config: Mapping[str, Any]) -> list[tuple[ConfigKey, Any]]:
    """The keys of this name, each with its values in the table under all of its spellings."""
    keys = [key for each in _SHARED_NAMES.get(name, (name,)) if (key := _key_of(each)) is not None]
    return [(key, [config.get(spelling) for spelling in (key.key, *key.aliases)]) for key in keys]


def _key_of(name: str) -> ConfigKey | None:
    found = (key for key in load_manifest().configuration if name in (key.key, *key.aliases))
    return next(found, None)
