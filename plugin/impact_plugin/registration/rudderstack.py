"""The destination definition of RudderStack, made from the manifest.

``db-config.json`` (behaviour), ``schema.json`` (what the control plane lets an operator save) and ``ui-config.json``
(the form) are those of https://github.com/rudderlabs/rudder-integrations-config; a rudder-server that has no control
plane reads ``workspaceConfig.json`` instead.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from impact_plugin.config.manifest import Manifest
from impact_plugin.config.settings import ServerSettings
from impact_transformers import ConfigKey
from impact_transformers.configuration import KINDS, VARIABLE_PREFIX

DISPLAY_NAME: Final = "impact.com"
"""The built-in destination's, by which events name it in their ``integrations``."""

CLOUD: Final = "cloud"
SOURCE_TYPES: Final = (
    "android",
    "androidKotlin",
    "ios",
    "iosSwift",
    "web",
    "unity",
    "amp",
    "cloud",
    "warehouse",
    "reactnative",
    "flutter",
    "cordova",
    "shopify",
)
CONSENT_KEYS: Final = ("oneTrustCookieCategories", "ketchConsentPurposes", "consentManagement")
NAME: Final = re.compile(r"[a-zA-Z0-9_]{1,64}")
"""What rudder-server's database, the control plane and the names of variables take for the type of a destination."""

TEMPLATE_OR_VARIABLE: Final = r"(^\{\{.*\|\|(.*)\}\}$)|(^env[.].+)"
"""Any text of a configuration may come from each event, or from the environment."""

ROW_TEXT: Final = r".{0,255}"
ANY_TEXT: Final = r".{1,255}"
FORMLESS: Final = "sources"
"""The type of keys that are objects of lists: the control plane has no form for them."""

DRAFT: Final = "http://json-schema.org/draft-07/schema#"


def definition(manifest: Manifest, name: str, display_name: str) -> dict[str, Any]:
    """``db-config.json``."""
    return {
        "name": name,
        "displayName": display_name,
        "config": {
            "transformAtV1": "processor",
            "saveDestinationResponse": True,
            "includeKeys": list(CONSENT_KEYS),
            "excludeKeys": [],
            "supportedSourceTypes": list(SOURCE_TYPES),
            "supportedMessageTypes": {CLOUD: list(manifest.message_types)},
            "supportedConnectionModes": {source: [CLOUD] for source in SOURCE_TYPES},
            "destConfig": {
                "defaultConfig": [key.key for key in manifest.configuration],
                **{source: ["connectionMode", *CONSENT_KEYS] for source in SOURCE_TYPES},
            },
            "secretKeys": [key.key for key in manifest.configuration if key.secret],
        },
    }


def schema(manifest: Manifest) -> dict[str, Any]:
    """``schema.json``: JSON Schema draft-07, by which the control plane checks what an operator saves."""
    return {
        "configSchema": {
            "$schema": DRAFT,
            "type": "object",
            "required": [key.key for key in manifest.configuration if key.required],
            "properties": {
                **{key.key: _SCHEMAS[key.type](key) for key in manifest.configuration},
                "connectionMode": _by_source({"type": "string", "enum": [CLOUD]}),
                "oneTrustCookieCategories": _by_source(_rows(oneTrustCookieCategory=_text(ROW_TEXT))),
                "ketchConsentPurposes": _by_source(_rows(purpose=_text(ROW_TEXT))),
                "consentManagement": _by_source(_consent()),
            },
        }
    }


def form(manifest: Manifest) -> dict[str, Any]:
    """``ui-config.json``: the form, in two parts; keys without a kind of field for them are left out."""
    keys = [key for key in manifest.configuration if key.type != FORMLESS]
    return {
        "uiConfig": [
            {"title": "Connection Settings", "fields": [_field(key) for key in keys if key.required]},
            {"title": "Event Settings", "fields": [_field(key) for key in keys if not key.required]},
        ]
    }


def workspace(manifest: Manifest, name: str, display_name: str) -> dict[str, Any]:
    """``workspaceConfig.json`` with one source and one destination; what is to be replaced is in capital letters.

    Without a control plane rudder-server replaces no ``env.`` names, but we do, for names that may be read so.
    """
    destination = {
        "id": "dst-impact-1",
        "name": display_name,
        "enabled": True,
        "isProcessorEnabled": True,
        "workspaceId": "ws-local",
        "revisionId": "1",
        "transformations": [],
        "config": {
            key.key: f"env.{VARIABLE_PREFIX}AUTH_TOKEN" if key.secret else f"REPLACE_{_upper(key.key)}"
            for key in manifest.configuration
            if key.required
        },
        "destinationDefinition": {
            "id": "dstdef-impact",
            "name": name,
            "displayName": display_name,
            # rudder-server takes no notice of the control plane's form of this, an object.
            "config": {
                **_part(definition(manifest, name, display_name)["config"], "transformAtV1", "saveDestinationResponse"),
                "supportedMessageTypes": list(manifest.message_types),
            },
        },
    }
    source = {
        "id": "src-http-1",
        "name": "HTTP source",
        "writeKey": "REPLACE_WRITE_KEY",
        "enabled": True,
        "workspaceId": "ws-local",
        "config": {},
        "sourceDefinition": {"id": "srcdef-http", "name": "HTTP", "category": "", "type": CLOUD},
        "destinations": [destination],
    }
    return {"enableMetrics": False, "workspaceId": "ws-local", "sources": [source], "libraries": [], "connections": {}}


class Variable(msgspec.Struct, frozen=True):
    """One variable of rudder-server's environment, and why; ``optional`` ones are written commented out."""

    name: str
    value: str
    why: str
    optional: bool = False


def variables(name: str) -> tuple[Variable, ...]:
    """What rudder-server's environment should hold for a destination of this type.

    How keys become names: https://github.com/rudderlabs/rudder-go-kit/blob/main/config/config_env.go
    """
    typed = environment_name(name)
    throttle = f"RSERVER_ROUTER_THROTTLER_DELIVERY_{typed}_CONVERSIONS"
    return (
        Variable(
            "DEST_TRANSFORM_URL",
            f"http://127.0.0.1:{ServerSettings().port}",
            "The transformer of all destinations: us. What is not ours goes on to IMPACT_PLUGIN__RUDDER__UPSTREAM.",
        ),
        Variable(
            "RSERVER_TRANSFORMER_CLIENT_DISABLE_KEEP_ALIVES",
            "false",
            "Without it every request opens a connection of its own.",
        ),
        Variable(
            f"RSERVER_ROUTER_{typed}_TRANSFORMER_PROXY",
            "true",
            "We deliver: under impact.com's limits, each order once, errors told by what they are.",
        ),
        Variable(
            f"RSERVER_PROCESSOR_{typed}_TRANSFORM_AT",
            "router",
            "Transform at delivery: an order in the same instant as its landing gets its click id. Batches of 20, up to"
            " five seconds later.",
            optional=True,
        ),
        Variable(
            f"RSERVER_ROUTER_{typed}_RETRY_TIME_WINDOW",
            "720h",
            "For delivery by rudder-server itself: how long it tries again after a 5xx; three hours unless told.",
            optional=True,
        ),
        Variable(
            f"{throttle}_LIMIT",
            "10",
            "For delivery by rudder-server itself: at most so many conversions ... ; clicks and pageload work alike.",
            optional=True,
        ),
        Variable(f"{throttle}_TIME_WINDOW", "1s", "... in so much time.", optional=True),
        Variable(
            "RSERVER_BACKEND_CONFIG_CONFIG_FROM_FILE",
            "true",
            "Without a control plane: read the workspace from a file ...",
            optional=True,
        ),
        Variable(
            "RSERVER_BACKEND_CONFIG_CONFIG_JSONPATH",
            "/etc/rudderstack/workspaceConfig.json",
            "... which is this one.",
            optional=True,
        ),
    )


def environment_name(name: str) -> str:
    """A destination's type as it stands in the names of variables: a word begins at a capital after a small letter."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper()


def environment_file(found: Iterable[Variable]) -> str:
    """Variables as an environment file, each with what it is for."""
    blocks = [
        f"# {variable.why}\n{'# ' if variable.optional else ''}{variable.name}={variable.value}\n" for variable in found
    ]
    return "\n".join(blocks)


def files(manifest: Manifest, name: str, display_name: str) -> dict[str, str]:
    """Every file, by name."""
    trees = {
        "db-config.json": definition(manifest, name, display_name),
        "schema.json": schema(manifest),
        "ui-config.json": form(manifest),
        "workspaceConfig.json": workspace(manifest, name, display_name),
    }
    texts = {file: msgspec.json.format(msgspec.json.encode(tree), indent=2).decode() for file, tree in trees.items()}
    return {
        **{file: f"{text}\n" for file, text in texts.items()},
        "rudder-server.env": environment_file(variables(name)),
    }


def _upper(key: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).upper()


def _part(tree: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: tree[key] for key in keys}


def _pattern(own: str, *, optional: bool = False) -> str:
    return f"{TEMPLATE_OR_VARIABLE}|^({own})$" + ("|^$" if optional else "")


def _text(own: str, *, optional: bool = False) -> dict[str, Any]:
    return {"type": "string", "pattern": _pattern(own, optional=optional)}


def _own_pattern(key: ConfigKey) -> str:
    """The pattern of a key's text: its values, its pattern, or anything of a bearable length."""
    if key.values:
        return "|".join(map(re.escape, key.values))
    return key.pattern or ANY_TEXT


def _string(key: ConfigKey) -> dict[str, Any]:
    return _text(_own_pattern(key), optional=not key.required)


def _boolean(key: ConfigKey) -> dict[str, Any]:
    return {"type": "boolean", "default": key.default}


def _integer(key: ConfigKey) -> dict[str, Any]:
    bounds = {"minimum": key.minimum, "maximum": key.maximum}
    number = {"type": "integer", **{name: bound for name, bound in bounds.items() if bound is not None}}
    return {"anyOf": [number, _text("[0-9]{1,9}", optional=True)]}


def _names(key: ConfigKey) -> dict[str, Any]:
    own = _own_pattern(key) if key.values else ROW_TEXT
    return _rows(eventName=_text(own, optional=bool(key.values)))


def _mapping(_key: ConfigKey) -> dict[str, Any]:
    return _rows(**{"from": _text(ROW_TEXT), "to": _text(ROW_TEXT)})


def _event_types(_key: ConfigKey) -> dict[str, Any]:
    return _rows(
        eventName=_text(ROW_TEXT),
        id=_text("[0-9]{1,10}", optional=True),
        code=_text(".{0,64}"),
        kind=_text("|".join(KINDS), optional=True),
    )


def _sources(_key: ConfigKey) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}}


def _rows(**columns: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "object", "properties": columns}}


def _by_source(each: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict.fromkeys(SOURCE_TYPES, each)}


def _consent() -> dict[str, Any]:
    """What every destination's schema says of consent.

    https://www.rudderstack.com/docs/data-governance/consent-management/
    """
    item = {
        "type": "object",
        "properties": {
            "provider": {"type": "string", "enum": ["custom", "iubenda", "ketch", "oneTrust"], "default": "oneTrust"},
            "consents": _rows(consent=_text(ROW_TEXT)),
        },
        "allOf": [
            {
                "if": {"properties": {"provider": {"const": "custom"}}, "required": ["provider"]},
                "then": {
                    "properties": {"resolutionStrategy": {"type": "string", "enum": ["and", "or"]}},
                    "required": ["resolutionStrategy"],
                },
            }
        ],
    }
    return {"type": "array", "items": item}


_SCHEMAS: Final[dict[str, Callable[[ConfigKey], dict[str, Any]]]] = {
    "string": _string,
    "boolean": _boolean,
    "integer": _integer,
    "names": _names,
    "hosts": _names,
    "queries": _names,
    "strings": _names,
    "mapping": _mapping,
    "event_types": _event_types,
    "sources": _sources,
}


def _field(key: ConfigKey) -> dict[str, Any]:
    common = {"label": key.title, "value": key.key, "footerNote": key.description}
    if key.type == "boolean":
        return {"type": "checkbox", **common, "default": key.default}
    if key.type == "mapping":
        sides = {"labelLeft": "Path in the event", "labelRight": "impact.com parameter", "keyLeft": "from"}
        return {"type": "dynamicForm", **common, **sides, "keyRight": "to"}
    if key.type == "event_types":
        columns = [_column("eventName", "Event", ROW_TEXT), _column("id", "Id", "[0-9]{0,10}")]
        kinds = _select({"label": "Kind", "value": "kind"}, KINDS, KINDS[0])
        return {
            "type": "dynamicCustomForm",
            **common,
            "customFields": [*columns, _column("code", "Code", ".{0,64}"), kinds],
        }
    if key.type in ("names", "hosts", "queries", "strings"):
        return {"type": "dynamicCustomForm", **common, "customFields": [_column("eventName", key.title, ROW_TEXT)]}
    if key.values:
        return _select(common, key.values, str(key.default))
    return _input(key, common)


def _input(key: ConfigKey, common: dict[str, Any]) -> dict[str, Any]:
    own = "[0-9]{1,9}" if key.type == "integer" else _own_pattern(key)
    return {
        "type": "textInput",
        **common,
        "regex": _pattern(own, optional=not key.required),
        "regexErrorMessage": f"Invalid {key.title}",
        "required": key.required,
        "secret": key.secret,
        **({} if key.default is None else {"default": str(key.default)}),
    }


def _column(value: str, label: str, own: str) -> dict[str, Any]:
    return {"type": "textInput", "label": label, "value": value, "regex": _pattern(own), "required": False}


def _select(common: dict[str, Any], values: Iterable[str], default: str) -> dict[str, Any]:
    options = [{"name": value.replace("_", " "), "value": value} for value in values]
    chosen = next(option for option in options if option["value"] == default)
    return {"type": "singleSelect", **common, "options": options, "defaultOption": chosen, "required": False}
