"""Who may send events and where they go: the tables ``[sources.NAME]`` and ``[destinations.NAME]`` of the file.

A destination has the keys of RudderStack's configuration. Variables override the file, see
:mod:`impact_plugin.config.variables`; secrets may be references, see :mod:`impact_plugin.config.references`.
"""

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from impact_plugin.config.destination_tables import compile_table, destination_variable_paths
from impact_plugin.config.destinations import KnownDestination, destination_variables
from impact_plugin.config.fields import Setting, comma_list, did_you_mean, fields_of, quote_name
from impact_plugin.config.references import References
from impact_plugin.config.settings import read_file
from impact_plugin.config.variables import ROUTING_TABLES, Tables, VariablePath, apply_variables
from impact_plugin.errors import SettingsError
from impact_transformers import Secret
from impact_transformers.configuration import Problem

Adapter: TypeAlias = Literal["segment", "posthog", "tracardi", "jitsu_reverse_etl"]
Scheme: TypeAlias = Literal["segment_sha1", "jitsu_hmac", "standard_webhooks"]
Authentication: TypeAlias = Literal["key", "bearer", "basic", "header", "url_token", "none"]

MIN_KEY_LENGTH: Final = 16
MAX_KEY_LENGTH: Final = 256
MAX_KEYS: Final = 16
"""Keys of a source; each request is compared with all of them."""

MAX_SHOWN_NAMES: Final = 10
"""Names that an error message lists."""

MIN_BINARY_SECRET_BYTES: Final = 24
"""Minimum of a Standard Webhooks secret.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_PRINTABLE: Final = re.compile(r"[!-~]*")
_URL_SAFE: Final = re.compile(r"[A-Za-z0-9._~-]*")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
"""A token, https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2"""

_SALT: Final = os.urandom(32)
"""Random for each process, so that digests are unpredictable and the time of a lookup reveals nothing about keys."""


class Signature(msgspec.Struct, frozen=True):
    """How a sender signs its requests; every secret is tried, so that you can rotate them."""

    scheme: Annotated[
        Scheme,
        Setting("segment_sha1 (Segment and Customer.io), jitsu_hmac (Jitsu), or standard_webhooks (PostHog, Svix)."),
    ]
    secrets: Annotated[
        tuple[Secret, ...],
        Setting(
            "Secrets shared with the sender, 16 characters or more; for standard_webhooks as issued, base64 with or "
            "without whsec_ in front. You may list several, in order to rotate them."
        ),
    ]
    header: Annotated[str, Setting("The header with the signature, if it is not the scheme's own.")] = ""
    window_seconds: Annotated[
        float,
        Setting(
            "Maximum difference between the signed time and now; segment_sha1 signs no time.", minimum=1, maximum=86_400
        ),
    ] = 300.0
    first_item: Annotated[
        bool,
        Setting(
            "Also accept an array of which only the first item is signed, as Segment's Webhooks (Actions) signs "
            "batches: anyone who sees one such request can forge others. Only with segment_sha1."
        ),
    ] = False


class Source(msgspec.Struct, frozen=True):
    """One sender of events, or several that share its keys."""

    name: str
    keys: Annotated[
        tuple[Secret, ...],
        Setting(
            "Keys that senders present: 16 to 256 printable characters, without spaces and colons (Jitsu cuts header "
            "values at one). You may list several, in order to rotate them. A key belongs to one source."
        ),
    ] = ()
    adapter: Annotated[
        Adapter,
        Setting("The dialect: segment (also for RudderStack and Jitsu), posthog, tracardi or jitsu_reverse_etl."),
    ] = "segment"
    authentication: Annotated[
        Authentication,
        Setting(
            "Where the webhook expects the key: key (any of the following), bearer, basic, header, url_token; "
            "none only if requests are signed, and then without keys."
        ),
    ] = "key"
    header: Annotated[str, Setting("The header with the key; only with authentication header.")] = ""
    signature: Annotated[
        Signature | None,
        Setting("How requests to the webhook are signed: the table [sources.NAME.signature], see below."),
    ] = None
    destinations: Annotated[
        tuple[str, ...], Setting("Names of the destinations that get its events; all destinations by default.")
    ] = ()
    max_event_kb: Annotated[
        int,
        Setting(
            "Maximum size of an event in KiB; a larger one becomes a dead letter, truncated, and a single call of the "
            "Segment HTTP API is answered 413.",
            minimum=1,
            maximum=32_768,
        ),
    ] = 256
    max_batch_mb: Annotated[
        int, Setting("Maximum size of a body on the Segment HTTP API in MiB, decompressed.", minimum=1, maximum=64)
    ] = 4
    max_webhook_mb: Annotated[
        int,
        Setting(
            "Maximum size of a body on the webhook in MiB, decompressed; a batch of Jitsu may have 20.",
            minimum=1,
            maximum=512,
        ),
    ] = 32
    strict: Annotated[
        bool,
        Setting(
            "Answer 400 to a single unusable event, so that the sender shows the failure. Only for Segment and "
            "PostHog: Jitsu retries after a 400, its reverse ETL drops all records of the request, and Kafka Connect "
            "stops. Not allowed with the adapter jitsu_reverse_etl or the scheme jitsu_hmac."
        ),
    ] = False
    integrations: Annotated[
        tuple[str, ...], Setting("Names by which the integrations object of an event may exclude impact.com.")
    ] = ("Impact", "impact.com", "Impact Partnership Cloud", "IMPACT")

    def has_key(self, key: str) -> bool:
        """Whether this is one of the source's keys, in constant time."""
        given = _digest(key)
        matches = False
        for known in self.keys:
            matches |= hmac.compare_digest(_digest(known.reveal()), given)
        return matches


class Routing(msgspec.Struct, frozen=True):
    """Sources and destinations, validated."""

    sources: Mapping[str, Source] = {}
    destinations: Mapping[str, KnownDestination] = {}
    _names_by_digest: dict[bytes, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._names_by_digest.update(
            (_digest(key.reveal()), source.name) for source in self.sources.values() for key in source.keys
        )

    def destinations_of(self, source: Source) -> tuple[KnownDestination, ...]:
        """The destinations that get the source's events, in the order of the file."""
        # A source from before a reload may name a destination that was removed since.
        names = source.destinations or self.destinations
        return tuple(self.destinations[name] for name in names if name in self.destinations)

    @property
    def programs(self) -> set[str]:
        """Account and campaign of every destination that names one program."""
        found = (known.destination for known in self.destinations.values())
        return {one.program for one in found if one is not None and one.program is not None}

    def source_of_key(self, key: str) -> Source | None:
        """The source that has this key, looked up by digest, so that its time reveals nothing about the keys."""
        name = self._names_by_digest.get(_digest(key))
        return None if name is None else self.sources[name]


class RoutingFile:
    """The configuration file, reloaded on SIGHUP; ``current`` is the last valid routing."""

    def __init__(self, file: Path | None, environment: Mapping[str, str]) -> None:
        self._file = file
        self._environment = environment
        self._compiled: dict[bytes, KnownDestination] = {}
        self.current, self._compiled = self._read()

    def reload(self) -> tuple[str, ...]:
        """Reload the file; returns the changes, such as ``sources.shop added``.

        Unchanged destinations stay the same objects. Raises :class:`SettingsError` if the file is not valid, and keeps
        the current routing. Blocks: it reads files and compiles.
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
    """Load sources and destinations from a file; raises :class:`SettingsError` with every mistake and its path."""
    return make_routing(_tree(file), environment)


def make_routing(tree: Mapping[str, Any], environment: Mapping[str, str]) -> Routing:
    """Make sources and destinations from the tables of a file; raises :class:`SettingsError`."""
    return _make(tree, environment, {})[0]


def _tree(file: Path | None) -> dict[str, Any]:
    return {} if file is None else read_file(file)


def _make(
    tree: Mapping[str, Any], environment: Mapping[str, str], compiled: Mapping[bytes, KnownDestination]
) -> tuple[Routing, dict[bytes, KnownDestination]]:
    """The routing, and its destinations by the digests of their tables; those in ``compiled`` are reused."""
    problems: list[Problem] = []
    tables: Tables = {kind: _tables(tree, kind, problems) for kind in ROUTING_TABLES}
    paths = {"sources": _source_variable_paths(), "destinations": destination_variable_paths()}
    problems += apply_variables(tables, environment, paths)
    named = {kind: _well_named(kind, held, problems) for kind, held in tables.items()}
    references = References(environment)
    variables = destination_variables(environment)
    made: dict[bytes, KnownDestination] = {}
    for name, table in named["destinations"].items():
        try:
            digest, known = compile_table(name, table, references, variables, compiled)
            made[digest] = known
        except SettingsError as error:
            problems += error.problems
    sources = dict(_sources(named["sources"], tables["destinations"], references, problems))
    problems += _shared_key_problems(sources.values())
    if problems:
        raise SettingsError(*problems)
    return Routing(sources, {known.id: known for known in made.values()}), made


def _tables(tree: Mapping[str, Any], kind: str, problems: list[Problem]) -> dict[str, dict[str, Any]]:
    held = tree.get(kind, {})
    if not isinstance(held, dict):
        problems.append(Problem(kind, f"must be tables of the file, [{kind}.NAME]"))
        return {}
    problems += [
        Problem(f"{kind}.{quote_name(name)}", f"must be a table of the file, [{kind}.NAME]")
        for name, table in held.items()
        if not isinstance(table, dict)
    ]
    # Nested tables are copied too, because variables are set in them.
    return {
        name: {key: dict(value) if isinstance(value, dict) else value for key, value in table.items()}
        for name, table in held.items()
        if isinstance(table, dict)
    }


def _well_named(kind: str, tables: Mapping[str, dict[str, Any]], problems: list[Problem]) -> dict[str, dict[str, Any]]:
    """The tables whose names are valid, also in paths and URLs."""
    message = (
        "a name must be of small letters, digits, _ and -, start with a letter or digit, and have at most 64 characters"
    )
    problems += [Problem(f"{kind}.{quote_name(name)}", message) for name in tables if not _NAME.fullmatch(name)]
    return {name: table for name, table in tables.items() if _NAME.fullmatch(name)}


def _source_variable_paths() -> Iterator[VariablePath]:
    """The keys of a source that variables can set."""
    for kind, start in ((Source, ()), (Signature, ("signature",))):
        for field in fields_of(kind).values():
            if field.name != "signature":
                yield VariablePath((*start, field.name), comma_list if field.is_list else str)


def _sources(
    tables: Mapping[str, Mapping[str, Any]],
    destinations: Collection[str],
    references: References,
    problems: list[Problem],
) -> Iterator[tuple[str, Source]]:
    """The sources that can be parsed; adds a problem for every mistake."""
    for name, table in tables.items():
        mistakes: list[Problem] = []
        source = _source(name, table, references, mistakes)
        if not mistakes:
            mistakes += _source_problems(source, destinations)
            yield name, source
        problems += mistakes


def _source(name: str, table: Mapping[str, Any], references: References, problems: list[Problem]) -> Source:
    path = f"sources.{name}"
    written = {key: value for key, value in table.items() if key != "signature"}
    values = _values(Source, path, written, references, problems)
    if "signature" in table:
        values["signature"] = _signature(f"{path}.signature", table["signature"], references, problems)
    return Source(name, **values)


def _signature(path: str, table: Any, references: References, problems: list[Problem]) -> Signature | None:
    if not isinstance(table, dict):
        problems.append(Problem(path, "must be a table, with a scheme and secrets"))
        return None
    values = _values(Signature, path, table, references, problems)
    missing = [key for key in ("scheme", "secrets") if key not in table]
    problems += [Problem(f"{path}.{key}", "is required") for key in missing]
    return Signature(**values) if {"scheme", "secrets"} <= values.keys() else None


def _values(
    kind: type[msgspec.Struct],
    path: str,
    table: Mapping[str, Any],
    references: References,
    problems: list[Problem],
) -> dict[str, Any]:
    """Parse the values of a table after resolving references; secrets may be in files."""
    fields, values = fields_of(kind), {}
    for key, value in table.items():
        field = fields.get(key)
        if field is None:
            close = did_you_mean(key, fields)
            problems.append(Problem(f"{path}.{quote_name(key)}", f"there is no such key{close}"))
            continue
        try:
            values[key] = field.parse(references.resolve(value, f"{path}.{key}", files=field.holds_secrets))
        except SettingsError as error:
            problems += error.problems
        except ValueError as error:
            problems.append(Problem(f"{path}.{key}", str(error)))
    return values


def _source_problems(source: Source, destinations: Collection[str]) -> Iterator[Problem]:
    path = f"sources.{source.name}"
    if not destinations:
        yield Problem(path, "there is no destination for its events; add [destinations.NAME]")
    for index, name in enumerate(source.destinations if destinations else ()):
        if name not in destinations:
            # The name is not shown, because it may come from a reference.
            known = [quote_name(one) for one in destinations]
            others = did_you_mean(name, known) or f"; there is {', '.join(known[:MAX_SHOWN_NAMES])}"
            yield Problem(f"{path}.destinations[{index}]", f"there is no destination of that name{others}")
        elif name in source.destinations[:index]:
            yield Problem(f"{path}.destinations[{index}]", f"{name} is named twice")
    yield from _authentication_problems(source, path)
    if not all(name.strip() for name in source.integrations):
        yield Problem(f"{path}.integrations", "must not hold an empty name")
    if source.signature is not None:
        yield from _signature_problems(source.signature, f"{path}.signature")
    yield from _strict_problems(source, path)


def _authentication_problems(source: Source, path: str) -> Iterator[Problem]:
    signed_only = source.authentication == "none"
    if signed_only and source.signature is None:
        yield Problem(f"{path}.authentication", f"none is for signed requests only; add {path}.signature")
    if signed_only and source.keys:
        message = "are not asked for with authentication none; remove them, or choose key"
        yield Problem(f"{path}.keys", message)
    if not signed_only and not 1 <= len(source.keys) <= MAX_KEYS:
        yield Problem(f"{path}.keys", f"must hold 1 to {MAX_KEYS} keys; openssl rand -hex 32 makes one")
    if source.authentication == "header" and not source.header:
        yield Problem(f"{path}.header", "must name the header that holds the key")
    if source.authentication != "header" and source.header:
        message = f"is for authentication header only; for signatures, {path}.signature.header"
        yield Problem(f"{path}.header", message)
    yield from _header_problems(source.header, f"{path}.header")
    for index, key in enumerate(source.keys):
        problem = _key_problem(key.reveal(), source.authentication)
        if problem:
            yield Problem(f"{path}.keys[{index}]", problem)


def _key_problem(key: str, authentication: Authentication) -> str | None:
    """Why a key is not valid; None if it is.

    Jitsu's webhooks cut the value of a header at a second colon:
    https://github.com/jitsucom/jitsu/blob/2db0796c15d6b415fbc8ec8b6fc0b02646acf8aa/libs/destination-functions/src/functions/webhook-destination.ts
    """
    if not MIN_KEY_LENGTH <= len(key) <= MAX_KEY_LENGTH:
        return f"must have {MIN_KEY_LENGTH} to {MAX_KEY_LENGTH} characters; openssl rand -hex 32 makes one"
    if ":" in key:
        return "must not have a colon: Jitsu cuts the values of headers there"
    if not _PRINTABLE.fullmatch(key):
        return "must be of printable ASCII characters, without spaces"
    if authentication == "url_token" and not _URL_SAFE.fullmatch(key):
        return "must be of letters, digits and . _ ~ - where it is part of a URL"
    return None


def _header_problems(name: str, path: str) -> Iterator[Problem]:
    if name and not _HEADER.fullmatch(name):
        yield Problem(path, "must be the name of a header, such as X-Signature")


def _signature_problems(signature: Signature, path: str) -> Iterator[Problem]:
    if not 1 <= len(signature.secrets) <= MAX_KEYS:
        yield Problem(f"{path}.secrets", f"must hold 1 to {MAX_KEYS} secrets")
    for index, secret in enumerate(signature.secrets):
        problem = _secret_problem(secret.reveal(), signature.scheme)
        if problem:
            yield Problem(f"{path}.secrets[{index}]", problem)
    yield from _header_problems(signature.header, f"{path}.header")
    if signature.first_item and signature.scheme != "segment_sha1":
        yield Problem(f"{path}.first_item", "is for segment_sha1 only; the others sign all of an array")


def _secret_problem(secret: str, scheme: Scheme) -> str | None:
    if scheme != "standard_webhooks":
        return None if len(secret) >= MIN_KEY_LENGTH else f"must have at least {MIN_KEY_LENGTH} characters"
    encoded = secret.removeprefix("whsec_").rstrip("=")
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        return "must be base64, with or without whsec_ in front"
    minimum = MIN_BINARY_SECRET_BYTES
    return None if len(raw) >= minimum else f"must be base64 of at least {minimum} bytes; was all of it copied?"


def _strict_problems(source: Source, path: str) -> Iterator[Problem]:
    """Refuse ``strict`` where a 400 does harm.

    A request of Jitsu's reverse ETL has many records, all of which a 400 drops; its webhooks are retried:
    https://github.com/jitsucom/jitsu/blob/401709fbb6f1db6c183b06a61f4362eb73438680/libs/destination-functions/src/functions/webhook/deliver.ts
    """
    if source.strict and source.adapter == "jitsu_reverse_etl":
        message = "must be false, Jitsu's reverse ETL drops all records of a refused request"
        yield Problem(f"{path}.strict", message)
    if source.strict and source.signature is not None and source.signature.scheme == "jitsu_hmac":
        yield Problem(f"{path}.strict", "must be false, Jitsu retries what is refused")


def _shared_key_problems(sources: Iterable[Source]) -> Iterator[Problem]:
    owners: dict[Secret, str] = {}
    for source in sources:
        for index, key in enumerate(source.keys):
            path = f"sources.{source.name}.keys[{index}]"
            owner = owners.setdefault(key, path)
            if owner != path:
                yield Problem(path, f"is the same as {owner}; a key must have one owner")


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
