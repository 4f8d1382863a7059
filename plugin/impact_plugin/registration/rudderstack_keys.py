"""A key of the destination's configuration as RudderStack's schema and form describe it."""

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from impact_transformers import ConfigKey
from impact_transformers.configuration import APP_PLATFORMS, KINDS

TEMPLATE_OR_VARIABLE: Final = r"(^\{\{.*\|\|(.*)\}\}$)|(^env[.].+)"
"""Any text of a configuration may be a template that each event fills in, or the name of an environment variable."""

ROW_TEXT: Final = r".{0,255}"
ANY_TEXT: Final = r".{1,255}"
FORMLESS: Final = "sources"
"""The type of a key that holds an object of lists: no kind of field fits it."""

LISTS: Final = ("names", "hosts", "queries", "consent_paths")


def key_schema(key: ConfigKey) -> dict[str, Any]:
    """Return the JSON Schema of a key's value."""
    return _SCHEMAS[key.type](key)


def has_field(key: ConfigKey) -> bool:
    """Whether a kind of field fits the key; if not, you can set it in a ``workspaceConfig.json`` only."""
    return key.type != FORMLESS


def key_field(key: ConfigKey) -> dict[str, Any]:
    """Return the field of the form in which you set the key."""
    common = {"label": key.title, "value": key.key, "footerNote": key.description}
    match key.type:
        case "boolean":
            return {"type": "checkbox", **common, "default": key.default}
        case "mapping":
            sides = {"labelLeft": "Path in the event", "labelRight": "impact.com parameter"}
            return {"type": "dynamicForm", **common, **sides, "keyLeft": "from", "keyRight": "to"}
        case "event_types":
            return {"type": "dynamicCustomForm", **common, "customFields": _event_type_fields()}
        case kind if kind in LISTS:
            return {"type": "dynamicCustomForm", **common, "customFields": [_column("eventName", key.title, ROW_TEXT)]}
    return _select(common, key.values, str(key.default)) if key.values else _input(key, common)


def text(own: str, *, optional: bool = False) -> dict[str, Any]:
    """Return the schema of a text that matches a pattern of its ``own``, is a template or names a variable."""
    return {"type": "string", "pattern": _pattern(own, optional=optional)}


def rows(**columns: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a list of objects, by the schemas of their members."""
    return {"type": "array", "items": {"type": "object", "properties": columns}}


def _pattern(own: str, *, optional: bool = False) -> str:
    return f"{TEMPLATE_OR_VARIABLE}|^({own})$" + ("|^$" if optional else "")


def _own_pattern(key: ConfigKey) -> str:
    """Return the pattern of a key's text: its values, its pattern, or any text of a reasonable length."""
    if key.values:
        return "|".join(map(re.escape, key.values))
    return key.pattern or ANY_TEXT


def _string(key: ConfigKey) -> dict[str, Any]:
    return text(_own_pattern(key), optional=not key.required)


def _boolean(key: ConfigKey) -> dict[str, Any]:
    return {"type": "boolean", "default": key.default}


def _integer(key: ConfigKey) -> dict[str, Any]:
    bounds = {"minimum": key.minimum, "maximum": key.maximum}
    number = {"type": "integer", **{name: bound for name, bound in bounds.items() if bound is not None}}
    return {"anyOf": [number, text("[0-9]{1,9}", optional=True)]}


def _names(key: ConfigKey) -> dict[str, Any]:
    own = _own_pattern(key) if key.values else ROW_TEXT
    return rows(eventName=text(own, optional=bool(key.values)))


def _mapping(_key: ConfigKey) -> dict[str, Any]:
    return rows(**{"from": text(ROW_TEXT), "to": text(ROW_TEXT)})


def _event_types(_key: ConfigKey) -> dict[str, Any]:
    return rows(
        eventName=text(ROW_TEXT),
        id=text("[0-9]{1,10}", optional=True),
        code=text(".{0,64}"),
        kind=text("|".join(KINDS), optional=True),
    )


def _app_ids(key: ConfigKey) -> dict[str, Any]:
    one = text(_own_pattern(key), optional=True)
    return {"anyOf": [one, {"type": "object", "properties": dict.fromkeys(APP_PLATFORMS, one)}]}


def _sources(_key: ConfigKey) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}}


_SCHEMAS: Final[dict[str, Callable[[ConfigKey], dict[str, Any]]]] = {
    "string": _string,
    "boolean": _boolean,
    "integer": _integer,
    **dict.fromkeys(LISTS, _names),
    "mapping": _mapping,
    "event_types": _event_types,
    "path": _string,
    "app_ids": _app_ids,
    FORMLESS: _sources,
}


def _event_type_fields() -> list[dict[str, Any]]:
    return [
        _column("eventName", "Event", ROW_TEXT),
        _column("id", "Id", "[0-9]{0,10}"),
        _column("code", "Code", ".{0,64}"),
        _select({"label": "Kind", "value": "kind"}, KINDS, KINDS[0]),
    ]


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
