"""The secret key of the digests in the session state."""

import secrets
from pathlib import Path
from typing import Final

from impact_plugin.errors import StateError
from impact_plugin.files import write_whole
from impact_transformers import Secret

SECRET_FILE: Final = "secret"  # noqa: S105 - the name of a file
MIN_SECRET_LENGTH: Final = 16


def load_or_create_secret(folder: Path) -> Secret:
    """Load the secret from the folder; the first start creates it, readable by its owner only.

    Without it nothing that was stored can be found again: losing the file resets the session state.
    """
    path = folder / SECRET_FILE
    try:
        if not path.exists():
            # A partly written secret would be another secret.
            write_whole(path, secrets.token_hex(32).encode(), private=True)
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(path, f"the secret of the session state cannot be read or created: {error}") from error
    if len(text) < MIN_SECRET_LENGTH:
        raise StateError(
            path, "the secret is too short; restore the file, or delete it, which resets the session state"
        )
    return Secret(text)
