"""How Go writes a value that it decoded from JSON: as JSON again, or printed into a form."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import msgspec

_LINE_SEPARATORS = (("\u2028".encode(), b"\\u2028"), ("\u2029".encode(), b"\\u2029"))

_PLAIN_INTEGERS = 2**53


def go_json(value: Any) -> bytes:
    """Encode a value (of JSON types or Structs) as Go's encoder does.

    Keys of structs keep their order, keys of maps are sorted, ``<``, ``>`` and ``&`` are escaped, and every number has
    been a float64, so that 12.0 becomes 12 and integers above 2**53 lose their last digits.
    Source: https://pkg.go.dev/encoding/json.
    """
    encoded = msgspec.json.encode(_as_go(value), order="deterministic")
    for plain, escaped in ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026"), *_LINE_SEPARATORS):
        encoded = encoded.replace(plain, escaped)
    return encoded


def go_time(seconds: float, timespec: Literal["milliseconds", "microseconds"] = "milliseconds") -> str:
    """Return a Unix time (seconds) as the UTC timestamp (RFC 3339 with ``Z``) that rudder-server writes."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=timespec).removesuffix("+00:00") + "Z"


def go_sprint(value: Any) -> str:
    """Print a decoded JSON value as Go's ``fmt.Sprint`` does, which is what the router puts in a form.

    Every number has been a float64: 1000000 becomes ``1e+06``. An object becomes ``map[a:1]`` and null ``<nil>``.
    Source: https://pkg.go.dev/fmt and ``router/network.go`` in https://github.com/rudderlabs/rudder-server.
    """
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return _printed_number(float(value))
        case dict():
            return "map[" + " ".join(f"{key}:{go_sprint(value[key])}" for key in sorted(value)) + "]"
        case list() | tuple():
            return "[" + " ".join(map(go_sprint, value)) + "]"
    return str(value)


def _as_go(value: Any) -> Any:
    match value:
        case dict():
            return {key: _as_go(item) for key, item in value.items()}
        case list() | tuple():
            return [_as_go(item) for item in value]
        case float():
            return _json_number(value)
        case int() if abs(value) > _PLAIN_INTEGERS:
            return _json_number(float(value))
        case msgspec.Struct():
            return _as_go_struct(value)
    return value


def _as_go_struct(value: msgspec.Struct) -> msgspec.Struct:
    # Only maps and untyped fields hold values from outside; the others are strings, flags and job ids.
    changed = {name: _as_go(item) for name in value.__struct_fields__ if isinstance(item := getattr(value, name), dict)}
    return msgspec.structs.replace(value, **changed) if changed else value


def _json_number(number: float) -> msgspec.Raw:
    magnitude = abs(number)
    if magnitude and not 1e-6 <= magnitude < 1e21:
        return msgspec.Raw(re.sub(r"e-0(\d)$", r"e-\1", repr(number)).encode())
    return msgspec.Raw(f"{Decimal(repr(number)):f}".removesuffix(".0").encode())


def _printed_number(number: float) -> str:
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    power = len(digits) + int(exponent) - 1
    if number == 0 or -4 <= power < 6:
        return f"{Decimal(repr(number)):f}".removesuffix(".0")
    fraction = "".join(map(str, digits[1:]))
    point = "." if fraction else ""
    return f"{'-' * sign}{digits[0]}{point}{fraction}e{power:+03d}"
