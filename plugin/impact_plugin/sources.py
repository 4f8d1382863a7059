"""Who may hand events over and where they go: the ``[sources.NAME]`` and ``[destinations.NAME]`` of the file.

A destination has the keys of RudderStack's configuration. ``IMPACT_PLUGIN__SOURCES__NAME__KEY`` and
``IMPACT_PLUGIN__DESTINATIONS__NAME__KEY`` override the file; ``${NAME}`` stands for an environment variable, and
``file:PATH`` for a secret in a file.
"""

import difflib
import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec

from impact_plugin.destinations import KnownDestination
from impact_plugin.errors import SettingsError
from impact_plugin.manifest import load_manifest
from impact_plugin.references import resolve
from impact_plugin.settings import ENVIRONMENT_PREFIX, read_file, secret_from_text
from impact_transformers import ConfigurationError, Secret, compile_destination
from impact_transformers.configuration import VARIABLE_PREFIX

Adapter: TypeAlias = Literal["segment", "posthog", "tracardi", "jitsu_reverse_etl"]
Scheme: TypeAlias = Literal["segment_sha1", "jitsu_hmac", "standard_webhooks"]
Authentication: TypeAlias = Literal["key", "bearer", "basic", "header", "url_token", "none"]

SHORTEST_KEY: Final = 16
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_KEY: Final = re.compile(r"[!-9;-~]{16,256}")
"""Printable, without a colon: Jitsu cuts the values of its headers at one.

https://github.com/jitsucom/jitsu/blob/newjitsu/libs/core-functions/src/functions/webhook-destination.ts
"""

_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
LIMITS: Final[dict[str, tuple[float, float]]] = {
    "max_event_kb": (1, 32_768),
    "max_batch_mb": (1, 64),
    "max_webhook_mb": (1, 512),
}
LONGEST_WINDOW: Final = 86_400.0


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a sender signs its requests; every secret is tried, so that they can be exchanged one by one."""

    scheme: Scheme
    secrets: tuple[Secret, ...]
    header: str = ""
    window_seconds: float = 300.0
    first_item: bool = False


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sender of events, or several that share its keys."""

    name: str = ""
    keys: tuple[Secret, ...] = ()
    destinations: tuple[str, ...] = ()
    adapter: Adapter = "segment"
    authentication: Authentication = "key"
    header: str = ""
    signature: Signature | None = None
    integrations: tuple[str, ...] = ("IMPACT", "Impact", "impact.com", "Impact Partnership Cloud")
    max_event_kb: int = 256
    max_batch_mb: int = 4
    max_webhook_mb: int = 32
    strict: bool = False

    def has_key(self, key: str) -> bool:
        """Whether this is one of the source's keys; takes as long for a wrong one as for a right one."""
        given = key.encode("utf-8", "replace")
        found = False
        for known in self.keys:
            found |= hmac.compare_digest(known.reveal().encode(), given)
        return found


SOURCE_KEYS: Final[dict[str, str]] = {
    "keys": "Keys that senders present, 16 characters or more, without colons; several, so that they can be exchanged.",
    "destinations": "Names of the destinations that get its events; all of them unless told.",
    "adapter": "The dialect: segment (also RudderStack's and Jitsu's), posthog, tracardi or jitsu_reverse_etl.",
    "authentication": (
        "Where a webhook finds the key: key (any of the places), bearer, basic, header, url_token; or none, if signed."
    ),
    "header": "Name of the header that holds the key, for authentication header.",
    "signature": "How requests are signed, see below; none unless told.",
    "integrations": "Names under which an event's integrations object may switch us on and off.",
    "max_event_kb": "Largest event in KiB; a larger one is a dead letter, cut.",
    "max_batch_mb": "Largest body on the Segment HTTP API in MiB, inflated.",
    "max_webhook_mb": "Largest body on its webhook in MiB, inflated; Jitsu's batches have twenty.",
    "strict": "Answer 400 to a single event that cannot be used: for senders that show it and do not repeat it.",
}
SIGNATURE_KEYS: Final[dict[str, str]] = {
    "scheme": "segment_sha1, jitsu_hmac or standard_webhooks.",
    "secrets": "Secrets shared with the sender; several, so that they can be exchanged.",
    "header": "Name of the header, where it is not the scheme's own.",
    "window_seconds": "How old a signed time may be, for schemes that sign one.",
    "first_item": "Also accept a signature of the first item of an array only, as Segment's Actions webhook makes it.",
}


class Routing(msgspec.Struct, frozen=True):
    """Sources and destinations, ready for use."""

    sources: Mapping[str, Source] = {}
    destinations: Mapping[str, KnownDestination] = {}
    keys: Mapping[bytes, str] = {}
    salt: bytes = b""

    def feeds(self, source: Source) -> tuple[KnownDestination, ...]:
        """The destinations that get the source's events."""
        return tuple(self.destinations[name] for name in source.destinations or self.destinations)

    def source_of_key(self, key: str) -> Source | None:
        """The source that has this key; a digest is looked up, so that the time it takes tells nothing of the keys."""
        name = self.keys.get(_digest(key, self.salt))
        return None if name is None else self.sources[name]


class RoutingFile:
    """The file that is read again on SIGHUP; ``current`` is what was last read from it and could be used."""

    def __init__(self, file: Path | None, environment: Mapping[str, str]) -> None:
        self._file = file
        self._environment = environment
        self.current = load_routing(file, environment)

    def reload(self) -> tuple[str, ...]:
        """Read the file again; returns the names of what is not as before.

        Raises :class:`SettingsError` for a file that cannot be used; the one before stays in force.
        """
        before, after = self.current, load_routing(self._file, self._environment)
        self.current = after
        return (*_changed(before.sources, after.sources), *_changed(before.destinations, after.destinations))


def load_routing(file: Path | None, environment: Mapping[str, str]) -> Routing:
    """Read and check sources and destinations; raises :class:`SettingsError` with the path of the first mistake."""
    tree = read_file(file) if file is not None else {}
    return make_routing(tree, environment)


def make_routing(tree: Mapping[str, Any], environment: Mapping[str, str]) -> Routing:
    """Sources and destinations from tables of plain values."""
    tables = {kind: _tables(tree, kind) for kind in ("sources", "destinations")}
    for name, value in environment.items():
        _place(tables, name, value)
    destinations = {
        name: _destination(name, table, environment) for name, table in sorted(tables["destinations"].items())
    }
    sources = {name: _source(name, table, environment) for name, table in sorted(tables["sources"].items())}
    for source in sources.values():
        _check_source(source, destinations)
    salt = os.urandom(16)
    return Routing(sources, destinations, _index(sources.values(), salt), salt)


def _tables(tree: Mapping[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    held = tree.get(kind, {})
    if not isinstance(held, dict):
        raise SettingsError(f"{kind}: must be tables of the file, [{kind}.NAME]")
    for name, table in held.items():
        if not _NAME.fullmatch(name):
            raise SettingsError(
                f"{kind}.{name[:64]}: a name must be of small letters, digits, _ and -, at most 64 of them"
            )
        if not isinstance(table, dict):
            raise SettingsError(f"{kind}.{name}: must be a table, [{kind}.{name}]")
    return {name: dict(table) for name, table in held.items()}


def _place(tables: dict[str, dict[str, dict[str, Any]]], variable: str, value: str) -> None:
    """Put one environment variable where it belongs."""
    kind, _, rest = variable[len(ENVIRONMENT_PREFIX) :].partition("__")
    if not variable.upper().startswith(ENVIRONMENT_PREFIX) or kind.lower() not in tables:
        return
    given, *keys = rest.lower().split("__")
    held = tables[kind.lower()]
    name = next((known for known in held if known.replace("-", "_") == given), given)
    if not _NAME.fullmatch(name) or not keys:
        raise SettingsError(f"{variable}: must be {ENVIRONMENT_PREFIX}{kind.upper()}__NAME__KEY")
    table = held.setdefault(name, {})
    if kind.lower() == "destinations":
        known_keys = {key.key.lower(): key.key for key in load_manifest().configuration}
        table[known_keys.get(keys[0], keys[0])] = _value(value)
        return
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise SettingsError(f"{variable}: {key} is no table in the file")
    several = keys[-1] in ("keys", "destinations", "integrations", "secrets")
    table[keys[-1]] = [part.strip() for part in value.split(",") if part.strip()] if several else value


def _value(text: str) -> Any:
    """The value of a destination's key: lists and tables as JSON, all else as text, which every key reads."""
    if text.startswith(("[", "{")):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            return text
    return text


def _destination(name: str, table: Mapping[str, Any], environment: Mapping[str, str]) -> KnownDestination:
    path = f"destinations.{name}"
    keys = load_manifest().configuration
    secret = {spelling for key in keys if key.secret for spelling in (key.key, *key.aliases)}
    known = [spelling for key in keys for spelling in (key.key, *key.aliases)]
    for key in table:
        if key not in known:
            raise SettingsError(f"{path}.{key}: there is no such key{_meant(key, known)}")
    filled = {key: resolve(value, f"{path}.{key}", environment, files=key in secret) for key, value in table.items()}
    variables = {key: value for key, value in environment.items() if key.startswith(VARIABLE_PREFIX)}
    try:
        return KnownDestination(name, "", compile_destination(filled, keys, variables))
    except ConfigurationError as error:
        raise SettingsError(f"{path}.{error}") from error


def _source(name: str, table: Mapping[str, Any], environment: Mapping[str, str]) -> Source:
    path = f"sources.{name}"
    _check_keys(path, table, SOURCE_KEYS)
    signature = table.get("signature")
    if isinstance(signature, dict):
        _check_keys(f"{path}.signature", signature, SIGNATURE_KEYS)
    filled = {
        key: resolve(value, f"{path}.{key}", environment, files=key in ("keys", "signature"))
        for key, value in table.items()
    }
    try:
        return msgspec.convert({**filled, "name": name}, Source, strict=False, dec_hook=secret_from_text)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{path}: {error}") from error


def _check_keys(path: str, table: Mapping[str, Any], known: Mapping[str, str]) -> None:
    for key in table:
        if key not in known:
            raise SettingsError(f"{path}.{key}: there is no such key{_meant(key, known)}")


def _meant(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _check_source(source: Source, destinations: Mapping[str, KnownDestination]) -> None:
    path = f"sources.{source.name}"
    if not destinations:
        raise SettingsError(f"{path}: there is no destination for its events; add [destinations.NAME]")
    for name in source.destinations:
        if name not in destinations:
            raise SettingsError(f"{path}.destinations: there is no destination {name}{_meant(name, destinations)}")
    _check_authentication(source, path)
    if source.strict and source.adapter == "jitsu_reverse_etl":
        raise SettingsError(f"{path}.strict: Jitsu's syncs stop at a 400; leave it off and look at the dead letters")
    for key, (low, high) in LIMITS.items():
        if not low <= getattr(source, key) <= high:
            raise SettingsError(f"{path}.{key}: must be between {low:g} and {high:g}")
    if source.signature is not None:
        _check_signature(source.signature, f"{path}.signature")


def _check_authentication(source: Source, path: str) -> None:
    for place, key in enumerate(source.keys):
        if not _KEY.fullmatch(key.reveal()):
            raise SettingsError(
                f"{path}.keys[{place}]: must have 16 to 256 printable characters, no colon among them; "
                "try openssl rand -hex 32"
            )
    if source.authentication == "none" and source.signature is None:
        raise SettingsError(f"{path}.authentication: none is for signed requests only; add a signature")
    if source.authentication != "none" and not source.keys:
        raise SettingsError(f"{path}.keys: must hold at least one key")
    if source.authentication == "header" and not _HEADER.fullmatch(source.header):
        raise SettingsError(f"{path}.header: must name the header that holds the key")


def _check_signature(signature: Signature, path: str) -> None:
    if not signature.secrets or not all(signature.secrets):
        raise SettingsError(f"{path}.secrets: must hold at least one secret")
    if not 1 <= signature.window_seconds <= LONGEST_WINDOW:
        raise SettingsError(f"{path}.window_seconds: must be between 1 and {LONGEST_WINDOW:g}")
    if signature.header and not _HEADER.fullmatch(signature.header):
        raise SettingsError(f"{path}.header: must be the name of a header")
    if signature.first_item and signature.scheme != "segment_sha1":
        raise SettingsError(f"{path}.first_item: is for segment_sha1 only")


def _index(sources: Iterable[Source], salt: bytes) -> dict[bytes, str]:
    """The sources by digests of their keys."""
    found: dict[bytes, str] = {}
    for source in sources:
        for place, key in enumerate(source.keys):
            digest = _digest(key.reveal(), salt)
            other = found.setdefault(digest, source.name)
            if other != source.name:
                raise SettingsError(f"sources.{source.name}.keys[{place}]: is a key of sources.{other} too")
    return found


def _digest(key: str, salt: bytes) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "replace"), key=salt, digest_size=16).digest()


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]
