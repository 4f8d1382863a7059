"""Request bodies as impact.com reads them: forms or JSON objects of text parameters.

Source: https://integrations.impact.com/brand-api-reference/readme/requests
"""

from decimal import Decimal
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from impact_plugin.testing.impact_rules import RuleViolation, violation

_FORM_TYPE: Final = "application/x-www-form-urlencoded"

_JSON_TYPE: Final = "application/json"


class Form(msgspec.Struct, frozen=True):
    """A decoded request body: its parameters as texts, and what is wrong with it."""

    fields: dict[str, str]
    problems: tuple[RuleViolation, ...] = ()


def parse_body(content_type: str | None, body: bytes) -> Form:
    """Decode a form or a JSON body into text parameters; an unreadable body is a problem, never an exception.

    https://integrations.impact.com/brand-api-reference/readme/requests
    """
    if content_type is None:
        return _unreadable("Content-Type", f"missing; send {_FORM_TYPE}")
    media_type, _, options = content_type.lower().partition(";")
    if "charset" in options and "utf-8" not in options:
        return _unreadable("Content-Type", "the charset must be UTF-8")
    match media_type.strip():
        case "application/x-www-form-urlencoded":
            return _parse_form(body)
        case "application/json":
            return _parse_json(body)
        case _:
            return _unreadable("Content-Type", f"must be {_FORM_TYPE} or {_JSON_TYPE}")


def _unreadable(field: str, message: str) -> Form:
    return Form({}, (violation(field, message),))


def _parse_form(body: bytes) -> Form:
    try:
        text = body.decode("utf-8")
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict") if text else []
    except ValueError:
        return _unreadable("body", "is not a UTF-8 form")
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return Form(fields)
    names = [name for name, _ in pairs]
    return Form(fields, tuple(violation(name, "sent more than once") for name in fields if names.count(name) > 1))


def _parse_json(body: bytes) -> Form:
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _unreadable("body", "is not JSON")
    if not isinstance(content, dict):
        return _unreadable("body", "must be a JSON object")
    nested = tuple(
        violation(name, "must be text, a number or a boolean")
        for name, value in content.items()
        if isinstance(value, dict | list)
    )
    return Form({name: _as_text(value) for name, value in content.items()}, nested)


def _as_text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return format(Decimal(repr(value)), "f")
        case _:
            return str(value)
