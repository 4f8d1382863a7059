"""References in the values of a configuration file, ``${NAME}`` and ``file:``, which keep secrets out of it.

Errors never quote a value that comes from a reference, nor one that contains such a value.
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
MAX_SECRET_FILE_BYTES: Final = 65_536
"""Far more than any secret; a larger file is probably the wrong one."""

_REFERENCE: Final = re.compile(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)\})?")


class References:
    """Resolves references, and remembers their values."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._resolved: set[str] = set()

    def resolve(self, value: Any, path: str, *, files: bool = False) -> Any:
        """Resolve the references in a value, also within lists and tables; ``$${`` stands for a literal ``${``.

        ``${NAME}`` is replaced by that environment variable. With ``files``, a text that is ``file:/PATH`` as a whole
        is replaced by that file's text, stripped of white space; the path may contain ``${NAME}``. Replacements are not
        resolved again. Raises :class:`SettingsError` for a variable that is not set or a file that cannot be read.
        """
        return self._resolve(value, path, files, 0)

    def contributed_to(self, value: Any) -> bool:
        """Whether a resolved value contains something that comes from a reference."""
        return any(text in self._resolved for _, text in texts_with_paths(value))

    def _resolve(self, value: Any, path: str, files: bool, depth: int) -> Any:
        if depth > DEEPEST:
            raise SettingsError(Problem(f"{path[:80]}...", f"is nested more than {DEEPEST} levels deep"))
        if isinstance(value, str):
            return self._text(value, path, files)
        if isinstance(value, list):
            return [self._resolve(one, f"{path}[{index}]", files, depth + 1) for index, one in enumerate(value)]
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
            self._resolved.add(text)
        return text

    def _fill(self, text: str, path: str) -> str:
        def variable(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            name = match["name"]
            if name is None:
                message = "${NAME} must name an environment variable; write $${ for a plain ${"
                raise SettingsError(Problem(path, message))
            if name not in self._environment:
                raise SettingsError(Problem(path, f"the variable {name} is not set in the service's environment"))
            return self._environment[name]

        filled = _REFERENCE.sub(variable, text)
        # Bytes of the environment that are not UTF-8 become surrogates, which no request can carry.
        if any("\ud800" <= character <= "\udfff" for character in filled):
            raise SettingsError(Problem(path, "must be UTF-8 text"))
        return filled


def texts_with_paths(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a value, after its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from texts_with_paths(one, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from texts_with_paths(one, f"{path}.{quote_name(key)}")


def _read(name: str, written: str, path: str) -> str:
    """Read the text of a file; errors show its name as ``written``, because variables may be a part of it."""
    file, named = Path(name), on_one_line(written)
    if not file.is_absolute():
        raise SettingsError(Problem(path, f"{named} must have an absolute path, such as file:/run/secrets/name"))
    try:
        if not S_ISREG(file.stat().st_mode):
            raise SettingsError(Problem(path, f"{named} is not a file"))
        with file.open("rb") as opened:
            raw = opened.read(MAX_SECRET_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(Problem(path, f"{named} cannot be read: {error.strerror}")) from None
    except ValueError:
        raise SettingsError(Problem(path, f"{named} cannot be the name of a file")) from None
    if len(raw) > MAX_SECRET_FILE_BYTES:
        raise SettingsError(
            Problem(path, f"{named} has more than {MAX_SECRET_FILE_BYTES:,} bytes; it must hold one secret")
        )
    try:
        text = raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise SettingsError(Problem(path, f"{named} is not UTF-8 text")) from None
    if not text:
        raise SettingsError(Problem(path, f"{named} is empty"))
    return text


def on_one_line(text: str) -> str:
    """Text of the configuration file, escaped if necessary, so that it fits on one line."""
    return text if text.isprintable() else ascii(text)[1:-1]
