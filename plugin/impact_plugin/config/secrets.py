"""The secret that the digests of the session state are keyed with."""

import os
import secrets
from pathlib import Path
from typing import Final

from impact_plugin.errors import StateError
from impact_transformers import Secret

FILE: Final = "secret"
SHORTEST: Final = 16


def read_or_make_secret(folder: Path) -> Secret:
    """The secret in the folder, made on the first start, readable for its owner only.

    Without it what was stored can never be found again: losing the file empties the memory.
    """
    path = folder / FILE
    try:
        if not path.exists():
            _make(path)
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(path, f"the secret of the session state cannot be read or made: {error}") from error
    if len(text) < SHORTEST:
        raise StateError(path, "the secret is too short; restore the file, or delete it, which empties the memory")
    return Secret(text)


def _make(path: Path) -> None:
    """Write the file whole or not at all: half a secret would be another one."""
    unfinished = path.with_suffix(".new")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
