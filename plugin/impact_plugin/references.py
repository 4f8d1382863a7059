"""``${NAME}`` and ``file:`` in the values of a configuration file: secrets need not stand in it.

What a reference leads to is never quoted in an error.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from impact_plugin.errors import SettingsError

FILE_PREFIX: Final = "file:"
LONGEST_FILE: Final = 65_536
_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^}]*)\}")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def resolve(value: Any, path: str, environment: Mapping[str, str], *, files: bool) -> Any:
    """The value with ``${NAME}`` replaced by variables (``$${`` stands for itself), in lists and tables too.

    With ``files`` a text that is ``file:PATH`` as a whole becomes that file's text, white space around it taken off.
    Raises :class:`SettingsError` naming the place, for a variable that is not set or a file that cannot be read.
    """
    if isinstance(value, str):
        filled = _fill(value, path, environment)
        return _read(filled, path) if files and filled.startswith(FILE_PREFIX) else filled
    if isinstance(value, list):
        return [resolve(one, f"{path}[{place}]", environment, files=files) for place, one in enumerate(value)]
    if isinstance(value, Mapping):
        return {name: resolve(one, f"{path}.{name}", environment, files=files) for name, one in value.items()}
    return value


def _fill(text: str, path: str, environment: Mapping[str, str]) -> str:
    def variable(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "${"
        if not _NAME.fullmatch(name):
            raise SettingsError(f"{path}: ${{...}} must name an environment variable; write $${{ for a plain ${{")
        if name not in environment:
            raise SettingsError(f"{path}: the environment variable {name} is not set")
        return environment[name]

    return _REFERENCE.sub(variable, text)


def _read(reference: str, path: str) -> str:
    file = Path(reference.removeprefix(FILE_PREFIX))
    try:
        with file.open("rb") as opened:
            raw = opened.read(LONGEST_FILE + 1)
        text = raw.decode("utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{path}: {file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path}: {file} is not a text file") from error
    if not text or len(raw) > LONGEST_FILE:
        raise SettingsError(f"{path}: {file} must hold one value of at most {LONGEST_FILE:,} bytes")
    return text
