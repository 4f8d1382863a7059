"""From what an operator wrote to a :class:`DestinationConfig`, or a list of everything that is wrong with it.

The keys, their types and limits come from the plugin's manifest as :class:`ConfigKey` rows; this module knows the
types. RudderStack's control plane saves the same setting in several shapes (text or number, a bare value or one per
source type, ``[{"eventName": ...}]`` or names): all of them are read.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from impact_transformers.consent import parse_consent_path
from impact_transformers.currencies import CURRENCIES
from impact_transformers.event_names import AFTER_SALE
from impact_transformers.paths import NAMED_SOURCE, path_problem
from impact_transformers.secret import Secret
from impact_transformers.templates import TEMPLATE

KeyType: TypeAlias = Literal[
    "string",
    "boolean",
    "integer",
    "names",
    "hosts",
    "queries",
    "mapping",
    "event_types",
    "sources",
    "path",
    "consent_paths",
    "app_ids",
]
Kind: TypeAlias = Literal["action", "lead", "install", "page_load"]

KeyPart: TypeAlias = Literal["visitor", "click_id", "landing_url"]

KINDS: Final = ("action", "lead", "install", "page_load")
LATER_KINDS: Final = ("reversal", "modification")
LATER_KEYS: Final = ("reversalEventNames", "modificationEventNames", "refundEventNames")
DEEPEST: Final = 32
"""Levels a configuration may be nested; ours are four deep."""

CLICK_ID_PARAMETERS: Final = ("im_ref", "irclickid")
"""Names under which a landing URL carries the click id, unless the destination names others.

https://integrations.impact.com/integration-guides/for-brands/tracking-integrations/api-online-sale/introduction
"""

VARIABLE_PREFIX: Final = "IMPACT_VAR_"

ALIASES: Final = {"Oid": "OrderId", "Currency": "CurrencyCode"}
"""Second spellings of a parameter; sending both would be sending one thing twice.

https://integrations.impact.com/impact-brand/reference/the-conversion-object
"""

_HOST: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})+")
_QUERY: Final = re.compile(r"[^\s=&#?]+=[^\s=&#?]*(?:&[^\s=&#?]+=[^\s=&#?]*)*")

_PLACEHOLDER: Final = re.compile(
    r"(?:replace|change|your|insert|enter)[ _-]?(?:me|this|here|it)?(?:[ _-].*)?|todo|tbd|x{3,}|<.*>|\.{3}",
    re.IGNORECASE,
)
"""What examples hold where the operator's own value belongs."""

CREDENTIALS: Final = ("accountSID", "apiKey", "campaignId")
MAPPINGS: Final = ("rudderToImpactProperty", "productsMapping", "parameterSources")
"""Keys whose templates are values of parameters, not of the configuration."""

APP_PLATFORMS: Final = {"ios": "ios", "iosSwift": "ios", "android": "android", "androidKotlin": "android"}

_PARAMETER: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\{i\}[A-Za-z0-9_]*)?")

SOURCE_TYPES: Final = frozenset(
    (
        "amp",
        "android",
        "androidKotlin",
        "cloud",
        "cloudSource",
        "cordova",
        "flutter",
        "ios",
        "iosSwift",
        "reactnative",
        "shopify",
        "unity",
        "warehouse",
        "web",
    )
)


class ConfigKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One key of the destination's configuration, as the manifest describes it."""

    key: str
    type: KeyType
    title: str
    description: str
    default: Any = None
    required: bool = False
    secret: bool = False
    pattern: str | None = None
    minimum: int | None = None
    maximum: int | None = None
    values: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


class Problem(msgspec.Struct, frozen=True):
    """One mistake: where, and what to do about it."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class ConfigurationError(ValueError):
    """The configuration cannot be used; ``problems`` lists every mistake, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)


class EventType(msgspec.Struct, frozen=True):
    """What a named event is at impact.com: its kind, and its id or code where the operator gave one."""

    name: str
    kind: Kind = "action"
    id: str | None = None
    code: str | None = None


class Mapped(msgspec.Struct, frozen=True):
    """One row of a custom mapping: the value at ``source`` is sent as ``parameter``."""

    source: str
    parameter: str


class DestinationConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A destination as its operator configured it, every value in its final type."""

    account_sid: str = msgspec.field(name="accountSID")
    api_key: Secret
    campaign_id: str
    impact_app_id: str | dict[str, str] = ""
    event_type_id: str = ""
    enable_identify_events: bool = True
    enable_page_events: bool = True
    enable_screen_events: bool = True
    action_event_names: tuple[str, ...] = ()
    install_event_names: tuple[str, ...] = ()
    event_types: tuple[EventType, ...] = ()
    unmapped_track: Literal["page_load", "skip"] = "page_load"
    rudder_to_impact_property: tuple[Mapped, ...] = ()
    products_mapping: tuple[Mapped, ...] = ()
    parameter_sources: dict[str, tuple[str, ...]] = {}
    custom_parameters: tuple[str, ...] = ()
    order_amount: str = "auto"
    items_path: str = ""
    default_currency: str = ""
    default_category: str = "Uncategorized"
    email_as_customer_id: Literal["drop", "hash"] = "drop"
    consent_paths: tuple[str, ...] = ()
    consent_gate: Literal["off", "denied", "required", "rewards"] = "off"
    click_id_parameters: tuple[str, ...] = CLICK_ID_PARAMETERS
    tracking_domains: tuple[str, ...] = ()
    landing_rules: tuple[str, ...] = ()
    referrer_rules: tuple[str, ...] = ()
    click_key_parts: tuple[KeyPart, ...] = ("visitor", "click_id")
    click_window_minutes: int = 30
    click_window_type: Literal["rolling", "fixed"] = "rolling"
    repeated_clicks: Literal["page_load", "drop"] = "page_load"
    duplicate_orders: Literal["suppress", "send"] = "suppress"
    remembered_click: Literal["last", "first", "off"] = "last"
    referral_window_days: int = 30


class Templates(msgspec.Struct, frozen=True):
    """A configuration in which some values come from each event (``{{ event.path || "default" }}``)."""

    config: dict[str, Any]
    paths: tuple[str, ...]


def find_templates(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The templates in the configuration, in the order of the tree; empty for the ordinary, static one."""
    found: list[str] = []

    def visit(value: Any) -> Any:
        if isinstance(value, str) and TEMPLATE.fullmatch(value.strip()):
            found.append(value)
        return value

    _walk({key: value for key, value in config.items() if key not in MAPPINGS}, visit)
    return tuple(found)


def fill_templates(config: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """The configuration with each template replaced by its value."""
    filled: dict[str, Any] = _walk(config, lambda value: values.get(value, value) if isinstance(value, str) else value)
    return filled


def fill_variables(config: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    """The configuration with ``env.NAME`` replaced by the variable of that name.

    Only names that start with ``IMPACT_VAR_`` may be read: whoever writes a destination's configuration need not be
    someone who may read the process's secrets. Raises :class:`ConfigurationError`.
    """
    problems: list[Problem] = []

    def replace(value: Any) -> Any:
        if not isinstance(value, str) or not value.startswith("env."):
            return value
        name = value.removeprefix("env.").strip()
        if not name.startswith(VARIABLE_PREFIX):
            problems.append(Problem(value, f"only variables whose names start with {VARIABLE_PREFIX} can be used here"))
        elif name not in variables:
            problems.append(Problem(value, f"the variable {name} is not set in the service's environment"))
        return variables.get(name, value) if name.startswith(VARIABLE_PREFIX) else value

    filled: dict[str, Any] = _walk(config, replace)
    if problems:
        raise ConfigurationError(problems)
    return filled


def _walk(value: Any, visit: Callable[[Any], Any], depth: int = 0) -> Any:
    """The same tree with each leaf replaced by what ``visit`` makes of it."""
    if depth > DEEPEST:
        raise ConfigurationError([Problem("configuration", f"is nested more than {DEEPEST} levels deep")])
    if isinstance(value, Mapping):
        return {key: _walk(entry, visit, depth + 1) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_walk(entry, visit, depth + 1) for entry in value]
    return visit(value)


def parse_configuration(config: Mapping[str, Any], schema: Iterable[ConfigKey]) -> DestinationConfig:
    """Validate ``config`` against the manifest's keys; raises :class:`ConfigurationError` naming every mistake."""
    problems = [
        Problem(key, "reversal and modification events are not available yet; remove this key")
        for key in LATER_KEYS
        if config.get(key)
    ]
    values: dict[str, Any] = {}
    for key in schema:
        raw = _look_up(config, key)
        try:
            value = None if raw is None else _READERS[key.type](key, _unwrapped(key, raw))
        except ConfigurationError as error:
            problems.extend(error.problems)
            continue
        if value is None or value == "":
            if key.required:
                problems.append(Problem(key.key, f"is required: {key.description}"))
            value = key.default
        values[key.key] = value
    problems += _currency_problems(values.get("defaultCurrency"))
    problems += _placeholder_problems(values)
    problems += _after_sale_problems(values)
    if problems:
        raise ConfigurationError(problems)
    values["apiKey"] = Secret(values["apiKey"])
    return msgspec.convert({k: v for k, v in values.items() if v is not None}, DestinationConfig)


def _currency_problems(code: str | None) -> list[Problem]:
    return [] if not code or code in CURRENCIES else [Problem("defaultCurrency", f"{code} is not an ISO-4217 code")]


def _placeholder_problems(values: Mapping[str, Any]) -> list[Problem]:
    """Credentials that an example left to be filled in; the value is not shown, it may hold part of a secret."""
    return [
        Problem(key, "is a placeholder of an example: put in the account's own value")
        for key in CREDENTIALS
        if _PLACEHOLDER.fullmatch(str(values.get(key) or ""))
    ]


def _after_sale_problems(values: Mapping[str, Any]) -> list[Problem]:
    named = [(key, name) for key in ("actionEventNames", "installEventNames") for name in values.get(key) or ()]
    named += [("eventTypes", entry["name"]) for entry in values.get("eventTypes") or ()]
    return [
        Problem(key, f"{name!r} reports what became of an order: neither a visit nor a conversion; remove it")
        for key, name in named
        if name.casefold() in AFTER_SALE
    ]


def unknown_keys(config: Mapping[str, Any], schema: Iterable[ConfigKey]) -> list[str]:
    """Keys the manifest does not know; RudderStack adds its own (consent, connectionMode), so they are no error."""
    known = {name for key in schema for name in (key.key, *key.aliases)}
    return sorted(set(config) - known)


def _look_up(config: Mapping[str, Any], key: ConfigKey) -> Any:
    for name in (key.key, *key.aliases):
        value = config.get(name)
        if value is not None and value != "":
            return value
    return None


def _unwrapped(key: ConfigKey, value: Any) -> Any:
    return value if key.type == "app_ids" else _same_for_all_sources(key, value)


def _same_for_all_sources(key: ConfigKey, value: Any) -> Any:
    """Take a value out of ``{"web": ..., "cloud": ...}``, the form of RudderStack's own database."""
    if not isinstance(value, dict) or not value or not set(value) <= SOURCE_TYPES:
        return value
    entries = list(value.values())
    if any(entry != entries[0] for entry in entries):
        raise ConfigurationError([Problem(key.key, "has different values by source type; a destination needs one")])
    return entries[0]


def _read_string(key: ConfigKey, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigurationError([Problem(key.key, f"must be text, not {_type_name(value)}")])
    if isinstance(value, float) and not value.is_integer():
        raise ConfigurationError([Problem(key.key, "must be text or a whole number")])
    text = str(int(value)) if isinstance(value, float) else str(value).strip()
    if text and key.values and text not in key.values:
        raise ConfigurationError([Problem(key.key, f"must be one of {', '.join(key.values)}")])
    if text and key.pattern and not re.fullmatch(key.pattern, text):
        shown = "the value given" if key.secret else repr(text)
        raise ConfigurationError([Problem(key.key, f"{shown} does not fit the pattern {key.pattern}")])
    return text


def _read_boolean(key: ConfigKey, value: Any) -> bool:
    text = str(value).strip().lower()
    if text in ("true", "1"):
        return True
    if text in ("false", "0"):
        return False
    raise ConfigurationError([Problem(key.key, f"must be true or false, not {_type_name(value)}")])


def _read_integer(key: ConfigKey, value: Any) -> int:
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}", text):
        raise ConfigurationError([Problem(key.key, "must be a whole number")])
    low, high = key.minimum or 0, 10**9 if key.maximum is None else key.maximum
    if not low <= int(text) <= high:
        raise ConfigurationError([Problem(key.key, f"must be between {low} and {high}")])
    return int(text)


def _read_hosts(key: ConfigKey, value: Any) -> tuple[str, ...]:
    """Host names, each standing for its subdomains too; ``*.`` in front is understood."""
    hosts = tuple(name.lower().removeprefix("*.") for name in _read_names(key, value))
    _refuse_unlike(key, hosts, _HOST, "is not a host name such as go.shop.example.com (no scheme, no path)")
    return hosts


def _read_queries(key: ConfigKey, value: Any) -> tuple[str, ...]:
    """Rules such as ``utm_medium=affiliate``; ``&`` joins conditions of one rule, ``*`` is any text."""
    queries = _read_names(key, value)
    _refuse_unlike(
        key, queries, _QUERY, "is not a rule such as utm_medium=affiliate or utm_source=impact*&utm_medium=cpc"
    )
    return queries


def _refuse_unlike(key: ConfigKey, entries: Sequence[str], pattern: re.Pattern[str], problem: str) -> None:
    problems = [
        Problem(f"{key.key}[{index}]", f"{entry!r} {problem}")
        for index, entry in enumerate(entries)
        if not pattern.fullmatch(entry)
    ]
    if problems:
        raise ConfigurationError(problems)


def _read_names(key: ConfigKey, value: Any) -> tuple[str, ...]:
    """Names as ``[{"eventName": "A"}]``, ``["A"]`` or ``"A"``; blank rows of the form are ignored."""
    rows = [value] if isinstance(value, str) else value
    if not isinstance(rows, list):
        raise ConfigurationError([Problem(key.key, "must be a list of names")])
    names, problems = [], []
    for index, row in enumerate(rows):
        name = row.get("eventName") if isinstance(row, dict) else row
        if name is not None and not isinstance(name, str):
            problems.append(Problem(f"{key.key}[{index}]", f"must be text, not {_type_name(name)}"))
        elif name and key.values and name.strip() not in key.values:
            problems.append(Problem(f"{key.key}[{index}]", f"must be one of {', '.join(key.values)}"))
        elif name and name.strip():
            names.append(name.strip())
    if problems:
        raise ConfigurationError(problems)
    # An empty list where there is a default means "nothing of my own", as the empty rows of a form do.
    return tuple(dict.fromkeys(names)) or tuple(key.default or ())


def _read_path(key: ConfigKey, value: Any) -> str:
    path = _read_string(key, value)
    _refuse_odd_paths(key, [path] if path else [])
    return path


def _read_consent_paths(key: ConfigKey, value: Any) -> tuple[str, ...]:
    entries = _read_names(key, value)
    _refuse_odd_paths(key, [parse_consent_path(entry).path for entry in entries])
    return entries


def _refuse_odd_paths(key: ConfigKey, paths: Sequence[str]) -> None:
    """Refuse all but paths of the event: these are read from the event, not from a source that has a name."""
    problems = _path_problems(key.key, paths) + [
        Problem(key.key, f"{path!r} is not a path of the event such as context.consent.ads")
        for path in paths
        if path.startswith(NAMED_SOURCE)
    ]
    if problems:
        raise ConfigurationError(problems)


def _read_app_ids(key: ConfigKey, value: Any) -> str | dict[str, str]:
    """One id for every platform, or ``{"ios": "1", "android": "2"}``, also as RudderStack saves it by source type."""
    if not isinstance(value, dict):
        return _read_string(key, value)
    if not set(value) <= SOURCE_TYPES:
        raise ConfigurationError([Problem(key.key, 'must be an id, or an object such as {"ios": "1", "android": "2"}')])
    given = {name: _read_string(key, id_) for name, id_ in value.items() if id_}
    if len(set(given.values())) <= 1:
        return next(iter(given.values()), "")
    ids: dict[str, str] = {}
    for name, id_ in given.items():
        if name in APP_PLATFORMS and ids.setdefault(APP_PLATFORMS[name], id_) != id_:
            raise ConfigurationError(
                [Problem(f"{key.key}.{name}", f"differs from the other id for {APP_PLATFORMS[name]}")]
            )
    return ids


def _read_mapping(key: ConfigKey, value: Any) -> list[dict[str, str]]:
    """Rows ``{"from": path, "to": parameter}``, or one object ``{path: parameter}``; half-filled rows are mistakes."""
    rows = [{"from": path, "to": name} for path, name in value.items()] if isinstance(value, dict) else value
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigurationError([Problem(key.key, 'must be a list of {"from": path, "to": parameter}')])
    mapped, problems = [], []
    for index, row in enumerate(rows):
        source, parameter = (str(row.get(side) or "").strip() for side in ("from", "to"))
        if bool(source) != bool(parameter):
            problems.append(Problem(f"{key.key}[{index}]", "needs both from and to"))
        elif source and (not _PARAMETER.fullmatch(parameter) or ("{i}" in parameter and key.key != "productsMapping")):
            problems.append(Problem(f"{key.key}[{index}].to", f"{parameter!r} cannot be the name of a parameter"))
        elif source:
            mapped.append({"source": source, "parameter": ALIASES.get(parameter, parameter)})
    problems += _path_problems(key.key, [row["source"] for row in mapped])
    if problems:
        raise ConfigurationError(problems)
    return mapped


def _read_sources(key: ConfigKey, value: Any) -> dict[str, tuple[str, ...]]:
    """``{"OrderId": ["properties.cart.id"]}``: paths that replace a parameter's own; an empty list switches it off."""
    if not isinstance(value, dict):
        raise ConfigurationError([Problem(key.key, 'must be an object such as {"OrderId": ["properties.cart.id"]}')])
    problems: list[Problem] = []
    sources = {}
    for parameter, paths in value.items():
        listed = [paths] if isinstance(paths, str) else paths
        where = f"{key.key}.{parameter}"
        if isinstance(listed, list) and all(isinstance(path, str) for path in listed):
            problems += _path_problems(where, listed)
            sources[parameter] = tuple(listed)
        else:
            problems.append(Problem(where, "must be a list of paths"))
    if problems:
        raise ConfigurationError(problems)
    return sources


def _read_event_types(key: ConfigKey, value: Any) -> list[dict[str, Any]]:
    """``{"Signed Up": {"code": "SIGNUP", "kind": "lead"}}``, ``{"Signed Up": "4711"}``, or rows with ``eventName``."""
    entries, problems = [], []
    for where, name, row in _event_type_rows(key, value):
        problem = _event_type_problem(row) if name else "needs the event's name (eventName)"
        if problem:
            problems.append(Problem(where, problem))
        else:
            entries.append(_event_type(name, row))
    if problems:
        raise ConfigurationError(problems)
    return entries


def _event_type_rows(key: ConfigKey, value: Any) -> list[tuple[str, str, dict[str, Any]]]:
    """Place, event name and entry of each row, from an object by name or a list of rows."""
    if isinstance(value, dict):
        named = [(f"{key.key}.{name}", name, entry) for name, entry in value.items()]
    elif isinstance(value, list):
        rows = [row if isinstance(row, dict) else {} for row in value]
        named = [(f"{key.key}[{index}]", str(row.get("eventName") or ""), row) for index, row in enumerate(rows)]
    else:
        raise ConfigurationError([Problem(key.key, "must be an object of event names")])
    return [(where, name.strip(), row if isinstance(row, dict) else {"id": row}) for where, name, row in named]


def _event_type_problem(row: Mapping[str, Any]) -> str | None:
    kind = row.get("kind") or "action"
    unknown = set(row) - {"id", "code", "kind", "eventName"}
    if kind in LATER_KINDS:
        return f"the kind {kind} is not available yet"
    if kind not in KINDS:
        return f"kind must be one of {', '.join(KINDS)}"
    if unknown:
        return f"does not know {', '.join(sorted(unknown))}; use id or code, and kind"
    if row.get("id") and row.get("code"):
        return "has both id and code; impact.com takes exactly one"
    if row.get("id") and not re.fullmatch(r"\d{1,10}", str(row["id"]).strip()):
        return "id must be a whole number of at most 10 digits"
    if len(str(row.get("code") or "")) > 64:
        return "code must have at most 64 characters"
    return None


def _event_type(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    texts = {side: str(row[side]).strip() for side in ("id", "code") if row.get(side)}
    return {"name": name, "kind": row.get("kind") or "action", **texts}


def _path_problems(where: str, paths: Iterable[str]) -> list[Problem]:
    return [Problem(where, problem) for path in paths if (problem := path_problem(path)) is not None]


def _type_name(value: Any) -> str:
    names = {bool: "true or false", dict: "an object", list: "a list", str: "this text", int: "a number"}
    return names.get(type(value), type(value).__name__)


_READERS: Final = {
    "string": _read_string,
    "boolean": _read_boolean,
    "integer": _read_integer,
    "names": _read_names,
    "hosts": _read_hosts,
    "queries": _read_queries,
    "path": _read_path,
    "consent_paths": _read_consent_paths,
    "app_ids": _read_app_ids,
    "mapping": _read_mapping,
    "sources": _read_sources,
    "event_types": _read_event_types,
}
