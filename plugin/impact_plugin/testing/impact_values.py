"""Whether impact.com accepts the value of a parameter, by the parameter's kind and size."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote

from impact_plugin.testing.impact_parameters import Kind, Parameter
from impact_transformers.currencies import CURRENCIES

# How Go and JavaScript print a value that was not meant to be text; no shop has such names.
_PRINTED_OBJECTS: Final = ("<nil>", "map[", "[object ")

_MOST_ENCODINGS: Final = 3

_DECIMAL: Final = re.compile(r"-?([0-9]+)(?:\.([0-9]+))?")

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:[^\s]+")

_HASH: Final = re.compile(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}")

_MAIL_DOMAIN: Final = re.compile(r"(?:[\w\-]+\.)+[^\W\d_]{2,}")

_MAIL_LOCAL_MARKS: Final = frozenset("!#$%&'*+-/=?^_`{|}~.\"")

_URL_MARKS: Final = frozenset("/?&=#")


def value_refusal(value: str, parameter: Parameter) -> str | None:
    """Return why impact.com refuses a value, or None if it accepts it."""
    if not value or value.isspace():
        return "must not be empty; leave the parameter out"
    if value.startswith(_PRINTED_OBJECTS):
        return "is a printed object, not a value"
    if ("@" in value or "%" in value) and find_clear_email(value):
        return "holds an e-mail address in clear"
    return _KIND_CHECKS[parameter.kind](value, parameter)


def find_clear_email(value: str) -> bool:
    """Whether a text holds an e-mail address, also one in a URL that is percent-encoded up to three times."""
    for _ in range(_MOST_ENCODINGS):
        if "@" in value and _has_address(value):
            return True
        if "%" not in value:
            return False
        value = unquote(value)
    return _has_address(value)


def _refuse_text(value: str, parameter: Parameter) -> str | None:
    if parameter.size is not None and len(value) > parameter.size:
        return f"may have at most {parameter.size} characters"
    return None


def _refuse_uri(value: str, parameter: Parameter) -> str | None:
    return _refuse_text(value, parameter) if _SCHEME.fullmatch(value) else "must be a URI with its scheme"


def _refuse_integer(value: str, parameter: Parameter) -> str | None:
    if not (value.isascii() and value.isdigit()):
        return "must be an integer"
    return (
        f"may have at most {parameter.size} digits"
        if parameter.size is not None and len(value) > parameter.size
        else None
    )


def _refuse_decimal(value: str, parameter: Parameter) -> str | None:
    number = _DECIMAL.fullmatch(value)
    if number is None:
        return "must be a plain decimal number"
    if parameter.size is not None and len(number[1]) > parameter.size:
        return f"may have at most {parameter.size} digits before the point"
    return f"may have at most {parameter.decimals} decimals" if len(number[2] or "") > parameter.decimals else None


def _refuse_boolean(value: str, _: Parameter) -> str | None:
    return None if value in ("true", "false") else "must be true or false"


def _refuse_event_date(value: str, _: Parameter) -> str | None:
    if value == "NOW":
        return None
    moment = _moment(value) if value[10:11] == "T" else None
    return "must be ISO 8601 with a time and an offset, or NOW" if moment is None or moment.tzinfo is None else None


def _refuse_date(value: str, _: Parameter) -> str | None:
    return "must be ISO 8601" if _moment(value) is None else None


def _refuse_currency(value: str, _: Parameter) -> str | None:
    return None if value in CURRENCIES else "must be an ISO 4217 code in upper case"


def _refuse_email(value: str, _: Parameter) -> str | None:
    return None if _HASH.fullmatch(value) else "must be a SHA-1 or SHA-256 in hexadecimal"


def _moment(value: str) -> datetime | None:
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


_KIND_CHECKS: Final[Mapping[Kind, Callable[[str, Parameter], str | None]]] = MappingProxyType(
    {
        Kind.TEXT: _refuse_text,
        Kind.URI: _refuse_uri,
        Kind.INTEGER: _refuse_integer,
        Kind.DECIMAL: _refuse_decimal,
        Kind.BOOLEAN: _refuse_boolean,
        Kind.EVENT_DATE: _refuse_event_date,
        Kind.DATE: _refuse_date,
        Kind.CURRENCY: _refuse_currency,
        Kind.EMAIL_HASH: _refuse_email,
    }
)


def _has_address(value: str) -> bool:
    # Only around each "@": an expression over a whole URL would take time quadratic in its length.
    at = value.find("@")
    while at != -1:
        before = value[at - 1 : at]
        is_local = before.isalnum() or (before in _MAIL_LOCAL_MARKS and before not in _URL_MARKS)
        if before and is_local and _MAIL_DOMAIN.match(value, at + 1):
            return True
        at = value.find("@", at + 1)
    return False
