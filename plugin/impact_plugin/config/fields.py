"""The annotation of a key of the configuration file, and what is derived from it.

Checks, error messages, ``docs/reference``, ``--help`` and the bounds of the HTTP API all come from the annotation.
``msgspec.Meta`` has bounds and a description, but neither the meaning of 0 nor the fix of a mistake, and its errors
quote the value.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec

from impact_transformers import Secret

_UNQUOTED: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Setting(msgspec.Struct, frozen=True):
    """Annotates a field: ``port: Annotated[int, Setting("Port to listen on.", minimum=0, maximum=65535)] = 9090``.

    ``description`` is a sentence for the operator. Numbers lie between ``minimum`` and ``maximum``, both included, or
    above ``above``; ``zero_means`` says what 0 stands for. Strings and lists have at least ``min_length`` characters or
    items, and strings start with one of ``prefixes``. ``fix`` ends the error message. The default is always valid,
    whatever the bounds are.
    """

    description: str
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    zero_means: str = ""
    min_length: int = 0
    prefixes: tuple[str, ...] = ()
    fix: str = ""


class Field(msgspec.Struct, frozen=True):
    """A field of a section or table: its name, type, default and annotation."""

    name: str
    kind: Any
    default: Any
    setting: Setting

    @property
    def is_list(self) -> bool:
        """Whether its value is a list of strings."""
        return get_origin(self.kind) is tuple

    @property
    def holds_secrets(self) -> bool:
        """Whether its value must not be shown."""
        return self.kind is Secret or Secret in get_args(self.kind)

    @property
    def allowed(self) -> str:
        """Its valid values, in words."""
        setting = self.setting
        if get_origin(self.kind) is Literal:
            return f"one of {', '.join(get_args(self.kind))}"
        if self.is_list:
            return (
                f"a list of at least {setting.min_length} text value" if setting.min_length else "a list of text values"
            )
        if self.kind is bool:
            return "true or false"
        if isinstance(self.kind, UnionType):
            return "a table"
        if self.kind in (int, float):
            return _numbers("a whole number" if self.kind is int else "a number", setting, self.default)
        return _text(setting, self.default)

    def parse(self, value: Any) -> Any:
        """Convert a value to the field's type; raises :class:`ValueError`, which names what is valid, not the value."""
        try:
            parsed = msgspec.convert(value, self.kind, strict=False, dec_hook=_secret)
        except msgspec.ValidationError:
            parsed = None
        if parsed is None or not self._is_valid(parsed):
            fix = f"; {self.setting.fix}" if self.setting.fix else ""
            raise ValueError(f"must be {self.allowed}{fix}")
        return parsed

    def _is_valid(self, parsed: Any) -> bool:
        if parsed == self.default:
            return True
        setting = self.setting
        if isinstance(parsed, int | float):
            # In this form nan is not valid: it fails every comparison.
            return (
                (setting.minimum is None or parsed >= setting.minimum)
                and (setting.above is None or parsed > setting.above)
                and (setting.maximum is None or parsed <= setting.maximum)
            )
        text = parsed.reveal() if isinstance(parsed, Secret) else parsed
        return len(text) >= setting.min_length and (not setting.prefixes or text.startswith(setting.prefixes))


@cache
def fields_of(kind: type[msgspec.Struct]) -> Mapping[str, Field]:
    """The fields of a section or table that can be set: those annotated with a :class:`Setting`."""
    fields = {}
    for field in msgspec.structs.fields(kind):
        if get_origin(field.type) is Annotated:
            plain, *annotations = get_args(field.type)
            for setting in annotations:
                if isinstance(setting, Setting):
                    fields[field.name] = Field(field.name, plain, field.default, setting)
    return fields


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the known name that may have been meant, if any."""
    close = closest(given, known)
    return f"; did you mean {close}?" if close else ""


def closest(given: str, known: Iterable[str]) -> str:
    """The known name that is most similar to the given one; empty if none is similar."""
    return next(iter(difflib.get_close_matches(given[:64], list(known), 1)), "")


def quote_name(name: str) -> str:
    """A name in the file as errors show it: a plain one as it is, any other quoted and truncated."""
    return name if _UNQUOTED.fullmatch(name) else ascii(name[:64])


def comma_list(text: str) -> list[str]:
    """Split a string at its commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _secret(kind: type, value: Any) -> Any:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise ValueError("must be text")


def _numbers(kind: str, setting: Setting, default: Any) -> str:
    """The bounds in words."""
    minimum = None if setting.minimum is None else f"{setting.minimum:,}"
    maximum = None if setting.maximum is None else f"{setting.maximum:,}"
    if setting.above is not None:
        return f"{kind} above {setting.above:,}" + ("" if maximum is None else f" and at most {maximum}")
    if setting.zero_means and default == 0 and setting.minimum:
        return f"0 ({setting.zero_means}) or {kind} between {minimum} and {maximum}"
    if setting.zero_means and setting.minimum == 0:
        minimum = f"0 ({setting.zero_means})"
    if (setting.minimum, setting.maximum) == (0, 1):
        return f"{minimum} or {maximum}"
    return kind if minimum is None or maximum is None else f"{kind} between {minimum} and {maximum}"


def _text(setting: Setting, default: Any) -> str:
    if setting.prefixes:
        return f"text that starts with {' or '.join(setting.prefixes)}" + (", or empty" if default == "" else "")
    if setting.min_length:
        return f"text of at least {setting.min_length} characters"
    return "text"
