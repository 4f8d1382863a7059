"""The secret that the digests of the session state are keyed with."""

import secrets
from pathlib import Path
from typing import Final

from impact_plugin.errors import StateError
from impact_plugin.files import write_whole
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
            # Half a secret would be another one.
            write_whole(path, secrets.token_hex(32).encode(), private=True)
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(path, f"the secret of the session state cannot be read or made: {error}") from error
    if len(text) < SHORTEST:
        raise StateError(path, "the secret is too short; restore the file, or delete it, which empties the memory")
    return Secret(text)
