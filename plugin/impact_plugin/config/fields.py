"""What is said of a key of our file, once: in the annotation of its field.

Checks, error messages, ``docs/reference``, ``--help`` and the bounds of the HTTP API are made from it. ``msgspec.Meta``
has bounds and a description, but neither what 0 stands for nor what to do about a mistake, and msgspec's errors quote
the value.
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
    """Annotates a field: ``port: Annotated[int, Setting("Port to listen on.", least=0, most=65535)] = 9090``.

    ``description`` is a sentence for the operator. Numbers lie between ``least`` and ``most``, both included, or above
    ``above``; ``zero`` says what 0 stands for. Texts and lists have at least ``shortest`` characters or entries, and
    texts start with one of ``prefixes``. ``fix`` ends the error. The default always fits, whatever the bounds are.
    """

    description: str
    least: float | None = None
    most: float | None = None
    above: float | None = None
    zero: str = ""
    shortest: int = 0
    prefixes: tuple[str, ...] = ()
    fix: str = ""


class Field(msgspec.Struct, frozen=True):
    """A field of a section or table: its name, its type, its default, and what its annotation says."""

    name: str
    kind: Any
    default: Any
    setting: Setting

    @property
    def is_list(self) -> bool:
        """Whether it holds several texts."""
        return get_origin(self.kind) is tuple

    @property
    def holds_secrets(self) -> bool:
        """Whether what it holds must not be shown."""
        return self.kind is Secret or Secret in get_args(self.kind)

    @property
    def values(self) -> str:
        """What it may hold, in words."""
        setting = self.setting
        if get_origin(self.kind) is Literal:
            return f"one of {', '.join(get_args(self.kind))}"
        if self.is_list:
            return f"a list of at least {setting.shortest} text" if setting.shortest else "a list of texts"
        if self.kind is bool:
            return "true or false"
        if isinstance(self.kind, UnionType):
            return "a table"
        if self.kind in (int, float):
            return _numbers("a whole number" if self.kind is int else "a number", setting, self.default)
        return _texts(setting, self.default)

    def read(self, value: Any) -> Any:
        """The value in the field's type; raises :class:`ValueError` saying what it must be, without quoting it."""
        try:
            found = msgspec.convert(value, self.kind, strict=False, dec_hook=_secret)
        except msgspec.ValidationError:
            found = None
        if found is None or not self._fits(found):
            fix = f"; {self.setting.fix}" if self.setting.fix else ""
            raise ValueError(f"must be {self.values}{fix}")
        return found

    def _fits(self, found: Any) -> bool:
        if found == self.default:
            return True
        setting = self.setting
        if isinstance(found, int | float):
            # Written so that a number that is none (nan) does not fit.
            return (
                (setting.least is None or found >= setting.least)
                and (setting.above is None or found > setting.above)
                and (setting.most is None or found <= setting.most)
            )
        text = found.reveal() if isinstance(found, Secret) else found
        return len(text) >= setting.shortest and (not setting.prefixes or text.startswith(setting.prefixes))


@cache
def fields_of(kind: type[msgspec.Struct]) -> Mapping[str, Field]:
    """The fields of a section or table that can be set: those whose annotation holds a :class:`Setting`."""
    found = {}
    for field in msgspec.structs.fields(kind):
        if get_origin(field.type) is Annotated:
            plain, *notes = get_args(field.type)
            for setting in notes:
                if isinstance(setting, Setting):
                    found[field.name] = Field(field.name, plain, field.default, setting)
    return found


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The end of an error about a name that is not known: the name it may have been meant for."""
    close = closest(given, known)
    return f"; did you mean {close}?" if close else ""


def closest(given: str, known: Iterable[str]) -> str:
    """The known name that is most like the given one; empty where none is."""
    return next(iter(difflib.get_close_matches(given[:64], list(known), 1)), "")


def quote_name(name: str) -> str:
    """A name of the file as errors show it: one of the usual kind as it is, any other quoted and cut."""
    return name if _UNQUOTED.fullmatch(name) else ascii(name[:64])


def comma_list(text: str) -> list[str]:
    """The texts between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _secret(kind: type, value: Any) -> Any:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise ValueError("must be text")


def _numbers(kind: str, setting: Setting, default: Any) -> str:
    """The bounds in words."""
    least = None if setting.least is None else f"{setting.least:,}"
    most = None if setting.most is None else f"{setting.most:,}"
    if setting.above is not None:
        return f"{kind} above {setting.above:,}" + ("" if most is None else f" and at most {most}")
    if setting.zero and default == 0 and setting.least:
        return f"0 ({setting.zero}) or {kind} between {least} and {most}"
    if setting.zero and setting.least == 0:
        least = f"0 ({setting.zero})"
    if (setting.least, setting.most) == (0, 1):
        return f"{least} or {most}"
    return kind if least is None or most is None else f"{kind} between {least} and {most}"


def _texts(setting: Setting, default: Any) -> str:
    if setting.prefixes:
        return f"text that starts with {' or '.join(setting.prefixes)}" + (", or empty" if default == "" else "")
    if setting.shortest:
        return f"text of at least {setting.shortest} characters"
    return "text"
