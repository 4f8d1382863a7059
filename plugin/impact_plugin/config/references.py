"""``${NAME}`` and ``file:`` in the values of a configuration file: secrets need not stand in it.

What a reference leads to is never quoted in an error, nor is a value of which it is a part.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final

from impact_plugin.config.fields import quote_name
from impact_plugin.errors import SettingsError
from impact_transformers.configuration import DEEPEST, Problem

FILE_PREFIX: Final = "file:"
LONGEST_FILE: Final = 65_536
"""Bytes; what Kubernetes and systemd hand over as a secret is smaller by far."""

_REFERENCE: Final = re.compile(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)\})?")


class References:
    """Replaces references, and remembers what they led to."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._found: set[str] = set()

    def resolve(self, value: Any, path: str, *, files: bool = False) -> Any:
        """The value with ``${NAME}`` replaced by variables (``$${`` stands for ``${``), in lists and tables too.

        With ``files`` a text that is ``file:/PATH`` as a whole becomes that file's text, white space around it taken
        off; ``${NAME}`` may be a part of the path. What is put in is not read for references again. Raises
        :class:`SettingsError` naming the place, for a variable that is not set or a file that cannot be read.
        """
        return self._resolve(value, path, files, 0)

    def led_to(self, value: Any) -> bool:
        """Whether the value, resolved, holds something that a reference led to."""
        return any(leaf in self._found for _, leaf in texts(value))

    def _resolve(self, value: Any, path: str, files: bool, depth: int) -> Any:
        if depth > DEEPEST:
            raise SettingsError(Problem(f"{path[:80]}...", f"is nested more than {DEEPEST} levels deep"))
        if isinstance(value, str):
            return self._text(value, path, files)
        if isinstance(value, list):
            return [self._resolve(one, f"{path}[{place}]", files, depth + 1) for place, one in enumerate(value)]
        if isinstance(value, dict):
            return {
                key: self._resolve(one, f"{path}.{quote_name(key)}", files, depth + 1) for key, one in value.items()
            }
        return value

    def _text(self, written: str, path: str, files: bool) -> str:
        text = self._fill(written, path)
        if files and written.startswith(FILE_PREFIX):
            text = _read(text.removeprefix(FILE_PREFIX), written, path)
        if text != written and text.strip():
            self._found.add(text)
        return text

    def _fill(self, text: str, path: str) -> str:
        def variable(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            name = match["name"]
            if name is None:
                told = "${NAME} must name an environment variable; write $${ for a plain ${"
                raise SettingsError(Problem(path, told))
            if name not in self._environment:
                raise SettingsError(Problem(path, f"the variable {name} is not set in the service's environment"))
            return self._environment[name]

        filled = _REFERENCE.sub(variable, text)
        # Bytes of the environment that are not UTF-8 come as surrogates, which nothing could be sent with.
        if any("\ud800" <= character <= "\udfff" for character in filled):
            raise SettingsError(Problem(path, "must be UTF-8 text"))
        return filled


def texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a value, with its place."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for place, one in enumerate(value):
            yield from texts(one, f"{path}[{place}]")
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from texts(one, f"{path}.{quote_name(key)}")


def _read(name: str, written: str, path: str) -> str:
    """The text of a file; errors show its name as it was written, since variables may be a part of it."""
    file, named = Path(name), on_one_line(written)
    if not file.is_absolute():
        raise SettingsError(Problem(path, f"{named} must have an absolute path, such as file:/run/secrets/name"))
    try:
        if not S_ISREG(file.stat().st_mode):
            raise SettingsError(Problem(path, f"{named} is not a file"))
        with file.open("rb") as opened:
            raw = opened.read(LONGEST_FILE + 1)
    except OSError as error:
        raise SettingsError(Problem(path, f"{named} cannot be read: {error.strerror}")) from None
    except ValueError:
        raise SettingsError(Problem(path, f"{named} cannot be the name of a file")) from None
    if len(raw) > LONGEST_FILE:
        raise SettingsError(Problem(path, f"{named} has more than {LONGEST_FILE:,} bytes; it must hold one secret"))
    try:
        text = raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise SettingsError(Problem(path, f"{named} is not UTF-8 text")) from None
    if not text:
        raise SettingsError(Problem(path, f"{named} is empty"))
    return text


def on_one_line(text: str) -> str:
    """A text of the file on one line."""
    return text if text.isprintable() else ascii(text)[1:-1]
