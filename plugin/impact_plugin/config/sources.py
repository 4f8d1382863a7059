"""Who may hand events over and where they go: the ``[sources.NAME]`` and ``[destinations.NAME]`` of the file.

A destination has the keys of RudderStack's configuration. Variables win over the file, see
:mod:`impact_plugin.config.variables`; secrets may stand elsewhere, see :mod:`impact_plugin.config.references`.
"""

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args, get_origin

import msgspec

from impact_plugin.config.destination_tables import compile_table, destination_places
from impact_plugin.config.destinations import KnownDestination
from impact_plugin.config.references import References, shown
from impact_plugin.config.settings import ROUTING, read_file, secret_from_text
from impact_plugin.config.variables import Tables, VariablePath, meant, place_variables, several
from impact_plugin.errors import SettingsError
from impact_transformers import Secret
from impact_transformers.configuration import VARIABLE_PREFIX

Adapter: TypeAlias = Literal["segment", "posthog", "tracardi", "jitsu_reverse_etl"]
Scheme: TypeAlias = Literal["segment_sha1", "jitsu_hmac", "standard_webhooks"]
Authentication: TypeAlias = Literal["key", "bearer", "basic", "header", "url_token", "none"]

LIMITS: Final[dict[str, tuple[int, int]]] = {
    "max_event_kb": (1, 32_768),
    "max_batch_mb": (1, 64),
    "max_webhook_mb": (1, 512),
}
SHORTEST_KEY: Final = 16
LONGEST_KEY: Final = 256
MOST_KEYS: Final = 16
"""Of a source: every request is compared with all of them."""

MOST_SHOWN: Final = 10
"""Names in an error."""

SHORTEST_BINARY_SECRET: Final = 24
"""Bytes of a Standard Webhooks secret.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

LONGEST_WINDOW: Final = 86_400

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_PRINTABLE: Final = re.compile(r"[!-~]*")
_URL_SAFE: Final = re.compile(r"[A-Za-z0-9._~-]*")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
"""A token, https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2"""

_SALT: Final = os.urandom(32)
"""Of this process: with digests nobody can foresee, the time of a look-up tells nothing about keys."""


class Signature(msgspec.Struct, frozen=True):
    """How a sender signs its requests; every secret is tried, so that they can be exchanged one by one."""

    scheme: Scheme
    secrets: tuple[Secret, ...]
    header: str = ""
    window_seconds: float = 300.0
    first_item: bool = False


class Source(msgspec.Struct, frozen=True):
    """One sender of events, or several that share its keys."""

    name: str
    keys: tuple[Secret, ...] = ()
    adapter: Adapter = "segment"
    authentication: Authentication = "key"
    header: str = ""
    signature: Signature | None = None
    destinations: tuple[str, ...] = ()
    max_event_kb: int = 256
    max_batch_mb: int = 4
    max_webhook_mb: int = 32
    strict: bool = False
    integrations: tuple[str, ...] = ("Impact", "impact.com", "Impact Partnership Cloud", "IMPACT")

    def has_key(self, key: str) -> bool:
        """Whether this is one of the source's keys; takes as long for a wrong one as for a right one."""
        given = _digest(key)
        found = False
        for known in self.keys:
            found |= hmac.compare_digest(_digest(known.reveal()), given)
        return found


SOURCE_KEYS: Final[dict[str, str]] = {
    "keys": (
        "Keys that senders present: 16 to 256 printable characters, without spaces and colons (Jitsu cuts header "
        "values at one). Several, so that they can be exchanged. A key belongs to one source."
    ),
    "adapter": "The dialect: segment (also of RudderStack and Jitsu), posthog, tracardi or jitsu_reverse_etl.",
    "authentication": (
        "Where its webhook looks for the key: key (any of the places), bearer, basic, header, url_token; "
        "none only where requests are signed, and then without keys."
    ),
    "header": "The header that holds the key; only with authentication header.",
    "destinations": "Names of the destinations that get its events; all of them unless told.",
    "max_event_kb": (
        "Largest event in KiB, 1 to 32768; a larger one is a dead letter, cut, and a single call of the Segment HTTP "
        "API is answered 413."
    ),
    "max_batch_mb": "Largest body on the Segment HTTP API in MiB after inflation, 1 to 64.",
    "max_webhook_mb": "Largest body on its webhook in MiB after inflation, 1 to 512; a batch of Jitsu may have twenty.",
    "strict": (
        "Answer 400 to a single event that cannot be used, so that the failure shows at the sender. For Segment and "
        "PostHog only: Jitsu sends again what gets a 400, its reverse ETL gives up all records of the request, and "
        "Kafka Connect stops. Refused with the adapter jitsu_reverse_etl and the scheme jitsu_hmac."
    ),
    "integrations": "Names under which the integrations object of an event may switch us off.",
    "signature": "How requests to its webhook are signed: the table [sources.NAME.signature], see below.",
}
"""What each key of a source means; the reference page is made from it."""

SIGNATURE_KEYS: Final[dict[str, str]] = {
    "scheme": (
        "segment_sha1 (Segment and Customer.io), jitsu_hmac (Jitsu), or standard_webhooks (PostHog, Svix and others)."
    ),
    "secrets": (
        "Secrets shared with the sender, 16 characters or more; for standard_webhooks as issued, base64 with or "
        "without whsec_ in front. Several, so that they can be exchanged."
    ),
    "header": "The header that holds the signature, where it is not the scheme's own.",
    "window_seconds": "How far a signed time may be off, 1 to 86400; segment_sha1 signs no time.",
    "first_item": (
        "Also take an array of which only the first item is signed, as Segment's Webhooks (Actions) does in batches: "
        "whoever sees one such request can send others. Only with segment_sha1."
    ),
}
"""The same for its signature."""


class Routing(msgspec.Struct, frozen=True):
    """Sources and destinations, ready for use."""

    sources: Mapping[str, Source] = {}
    destinations: Mapping[str, KnownDestination] = {}
    _names: dict[bytes, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._names.update(
            (_digest(key.reveal()), source.name) for source in self.sources.values() for key in source.keys
        )

    def feeds(self, source: Source) -> tuple[KnownDestination, ...]:
        """The destinations that get the source's events, in the order of the file."""
        # A source from before the file was read again may name a destination that is gone.
        names = source.destinations or self.destinations
        return tuple(self.destinations[name] for name in names if name in self.destinations)

    def source_of_key(self, key: str) -> Source | None:
        """The source that has this key; digests are looked up, so that the time it takes tells nothing of the keys."""
        name = self._names.get(_digest(key))
        return None if name is None else self.sources[name]


class RoutingFile:
    """The file that is read again on SIGHUP; ``current`` is what was last read from it and could be used."""

    def __init__(self, file: Path | None, environment: Mapping[str, str]) -> None:
        self._file = file
        self._environment = environment
        self._compiled: dict[bytes, KnownDestination] = {}
        self.current, self._compiled = self._read()

    def reload(self) -> tuple[str, ...]:
        """Read the file again; returns what is not as before, such as ``sources.shop added``.

        Destinations that did not change stay the same objects. Raises :class:`SettingsError` for a file that cannot be
        used; the one before stays in force. Blocks: it reads files and compiles.
        """
        before = self.current
        self.current, self._compiled = self._read()
        return (
            *_changes("sources", before.sources, self.current.sources),
            *_changes("destinations", before.destinations, self.current.destinations),
        )

    def _read(self) -> tuple[Routing, dict[bytes, KnownDestination]]:
        return _make(_tree(self._file), self._environment, self._compiled)


def load_routing(file: Path | None, environment: Mapping[str, str]) -> Routing:
    """Read and check sources and destinations; raises :class:`SettingsError` with the path of the mistake."""
    return make_routing(_tree(file), environment)


def make_routing(tree: Mapping[str, Any], environment: Mapping[str, str]) -> Routing:
    """Sources and destinations from tables of plain values; raises :class:`SettingsError`."""
    return _make(tree, environment, {})[0]


def _tree(file: Path | None) -> dict[str, Any]:
    return {} if file is None else read_file(file)


def _make(
    tree: Mapping[str, Any], environment: Mapping[str, str], compiled: Mapping[bytes, KnownDestination]
) -> tuple[Routing, dict[bytes, KnownDestination]]:
    """The routing, and its destinations by digests of their tables; those in ``compiled`` are not made again."""
    tables: Tables = {kind: _tables(tree, kind) for kind in ROUTING}
    place_variables(tables, environment, {"sources": _source_places(), "destinations": destination_places()})
    for kind, held in tables.items():
        _check_names(kind, held)
    references = References(environment)
    variables = {name: value for name, value in environment.items() if name.startswith(VARIABLE_PREFIX)}
    made = dict(
        compile_table(name, table, references, variables, compiled) for name, table in tables["destinations"].items()
    )
    destinations = {known.id: known for known in made.values()}
    sources = {name: _source(name, table, references) for name, table in tables["sources"].items()}
    for source in sources.values():
        _check_source(source, destinations)
    _check_keys_apart(sources.values())
    return Routing(sources, destinations), made


def _tables(tree: Mapping[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    held = tree.get(kind, {})
    if not isinstance(held, dict):
        raise SettingsError(f"{kind}: must be tables of the file, [{kind}.NAME]")
    for name, table in held.items():
        if not isinstance(table, dict):
            raise SettingsError(f"{kind}.{shown(name)}: must be a table of the file, [{kind}.NAME]")
    # Tables within tables too, since variables are put into them.
    return {
        name: {key: dict(value) if isinstance(value, dict) else value for key, value in table.items()}
        for name, table in held.items()
    }


def _check_names(kind: str, names: Iterable[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise SettingsError(
                f"{kind}.{shown(name)}: a name must be of small letters, digits, _ and -, start with a letter or "
                "digit, and have at most 64 characters"
            )


def _source_places() -> Iterator[VariablePath]:
    """Where variables belong in the table of a source."""
    for kind, start in ((Source, ()), (Signature, ("signature",))):
        for field in msgspec.structs.fields(kind):
            if field.name not in ("name", "signature"):
                yield VariablePath((*start, field.name), several if get_origin(field.type) is tuple else str)


def _source(name: str, table: Mapping[str, Any], references: References) -> Source:
    path = f"sources.{name}"
    _check_known(path, table, SOURCE_KEYS)
    written = {key: value for key, value in table.items() if key != "signature"}
    values = _values(Source, path, written, references, files="keys")
    if "signature" in table:
        values["signature"] = _signature(f"{path}.signature", table["signature"], references)
    return Source(name, **values)


def _signature(path: str, table: Any, references: References) -> Signature:
    if not isinstance(table, dict):
        raise SettingsError(f"{path}: must be a table, with a scheme and secrets")
    _check_known(path, table, SIGNATURE_KEYS)
    for key in ("scheme", "secrets"):
        if key not in table:
            raise SettingsError(f"{path}.{key}: is required")
    return Signature(**_values(Signature, path, table, references, files="secrets"))


def _check_known(path: str, table: Mapping[str, Any], known: Mapping[str, str]) -> None:
    for key in table:
        if key not in known:
            raise SettingsError(f"{path}.{shown(key)}: there is no such key{meant(key, known)}")


def _values(
    kind: type[msgspec.Struct], path: str, table: Mapping[str, Any], references: References, files: str
) -> dict[str, Any]:
    """The values of a table in their types, references resolved; secrets, which may be in files, under ``files``."""
    types = {field.name: field.type for field in msgspec.structs.fields(kind)}
    values = {}
    for key, value in table.items():
        resolved = references.resolve(value, f"{path}.{key}", files=key == files)
        try:
            values[key] = msgspec.convert(resolved, types[key], strict=False, dec_hook=secret_from_text)
        except msgspec.ValidationError:
            # Without its cause, which may quote the value.
            raise SettingsError(f"{path}.{key}: {_expected(types[key])}") from None
    return values


def _expected(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"must be one of {', '.join(get_args(kind))}"
    if get_origin(kind) is tuple:
        return "must be a list of texts"
    return {int: "must be a whole number", float: "must be a number", bool: "must be true or false"}.get(
        kind, "must be text"
    )


def _check_source(source: Source, destinations: Mapping[str, KnownDestination]) -> None:
    path = f"sources.{source.name}"
    if not destinations:
        raise SettingsError(f"{path}: there is no destination for its events; add [destinations.NAME]")
    for place, name in enumerate(source.destinations):
        if name not in destinations:
            # Not shown, since a reference may have led to it.
            others = meant(name, destinations) or f"; there is {', '.join([*destinations][:MOST_SHOWN])}"
            raise SettingsError(f"{path}.destinations[{place}]: there is no destination of that name{others}")
        if name in source.destinations[:place]:
            raise SettingsError(f"{path}.destinations[{place}]: {name} is named twice")
    _check_authentication(source, path)
    for key, (low, high) in LIMITS.items():
        if not low <= getattr(source, key) <= high:
            raise SettingsError(f"{path}.{key}: must be between {low:,} and {high:,}")
    if not all(name.strip() for name in source.integrations):
        raise SettingsError(f"{path}.integrations: must not hold an empty name")
    if source.signature is not None:
        _check_signature(source.signature, f"{path}.signature")
    _check_strict(source, path)


def _check_authentication(source: Source, path: str) -> None:
    if source.authentication == "none" and source.signature is None:
        raise SettingsError(f"{path}.authentication: none is for signed requests only; add {path}.signature")
    if source.authentication == "none" and source.keys:
        raise SettingsError(f"{path}.keys: are not asked for with authentication none; remove them, or choose key")
    if source.authentication != "none" and not 1 <= len(source.keys) <= MOST_KEYS:
        raise SettingsError(f"{path}.keys: must hold 1 to {MOST_KEYS} keys; openssl rand -hex 32 makes one")
    if source.authentication == "header" and not source.header:
        raise SettingsError(f"{path}.header: must name the header that holds the key")
    if source.authentication != "header" and source.header:
        raise SettingsError(
            f"{path}.header: is for authentication header only; for signatures, {path}.signature.header"
        )
    _check_header(source.header, f"{path}.header")
    for place, key in enumerate(source.keys):
        problem = _key_problem(key.reveal(), source.authentication)
        if problem:
            raise SettingsError(f"{path}.keys[{place}]: {problem}")


def _key_problem(key: str, authentication: Authentication) -> str | None:
    """What speaks against a key.

    Jitsu's webhooks end the value of a header at a second colon:
    https://github.com/jitsucom/jitsu/blob/2db0796c15d6b415fbc8ec8b6fc0b02646acf8aa/libs/destination-functions/src/functions/webhook-destination.ts
    """
    if not SHORTEST_KEY <= len(key) <= LONGEST_KEY:
        return f"must have {SHORTEST_KEY} to {LONGEST_KEY} characters; openssl rand -hex 32 makes one"
    if ":" in key:
        return "must not have a colon: Jitsu cuts the values of headers there"
    if not _PRINTABLE.fullmatch(key):
        return "must be of printable ASCII characters, without spaces"
    if authentication == "url_token" and not _URL_SAFE.fullmatch(key):
        return "must be of letters, digits and . _ ~ - where it is part of a URL"
    return None


def _check_header(name: str, path: str) -> None:
    if name and not _HEADER.fullmatch(name):
        raise SettingsError(f"{path}: must be the name of a header, such as X-Signature")


def _check_signature(signature: Signature, path: str) -> None:
    if not 1 <= len(signature.secrets) <= MOST_KEYS:
        raise SettingsError(f"{path}.secrets: must hold 1 to {MOST_KEYS} secrets")
    for place, secret in enumerate(signature.secrets):
        problem = _secret_problem(secret.reveal(), signature.scheme)
        if problem:
            raise SettingsError(f"{path}.secrets[{place}]: {problem}")
    if not 1 <= signature.window_seconds <= LONGEST_WINDOW:
        raise SettingsError(f"{path}.window_seconds: must be between 1 and {LONGEST_WINDOW:,}")
    _check_header(signature.header, f"{path}.header")
    if signature.first_item and signature.scheme != "segment_sha1":
        raise SettingsError(f"{path}.first_item: is for segment_sha1 only; the others sign all of an array")


def _secret_problem(secret: str, scheme: Scheme) -> str | None:
    if scheme != "standard_webhooks":
        return None if len(secret) >= SHORTEST_KEY else f"must have at least {SHORTEST_KEY} characters"
    encoded = secret.removeprefix("whsec_").rstrip("=")
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        return "must be base64, with or without whsec_ in front"
    size = SHORTEST_BINARY_SECRET
    return None if len(raw) >= size else f"must be base64 of at least {size} bytes; was all of it copied?"


def _check_strict(source: Source, path: str) -> None:
    """Refuse a 400 where it does harm.

    A request of Jitsu's reverse ETL holds many records, and a 400 gives up all of them; its webhooks come again:
    https://github.com/jitsucom/jitsu/blob/401709fbb6f1db6c183b06a61f4362eb73438680/libs/destination-functions/src/functions/webhook/deliver.ts
    """
    if source.strict and source.adapter == "jitsu_reverse_etl":
        raise SettingsError(
            f"{path}.strict: must be false, Jitsu's reverse ETL gives up all records of a refused request"
        )
    if source.strict and source.signature is not None and source.signature.scheme == "jitsu_hmac":
        raise SettingsError(f"{path}.strict: must be false, Jitsu sends again what is refused")


def _check_keys_apart(sources: Iterable[Source]) -> None:
    owners: dict[Secret, str] = {}
    for source in sources:
        for place, key in enumerate(source.keys):
            owner = owners.setdefault(key, f"sources.{source.name}.keys[{place}]")
            if owner != f"sources.{source.name}.keys[{place}]":
                raise SettingsError(
                    f"sources.{source.name}.keys[{place}]: is the same as {owner}; a key must have one owner"
                )


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), key=_SALT, digest_size=32).digest()


def _changes(kind: str, before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[str]:
    for name in {**before, **after}:
        if name not in before:
            yield f"{kind}.{name} added"
        elif name not in after:
            yield f"{kind}.{name} removed"
        elif before[name] is not after[name] and not (kind == "sources" and before[name] == after[name]):
            yield f"{kind}.{name} changed"
