"""Exit codes that mean the same for every command; a command with others names them in its help."""

from typing import Final

DONE: Final = 0
FAILED: Final = 1
"""The command ran, and not everything is as it should be: a failed check, a rejected event, nothing that matched."""

UNUSABLE: Final = 2
"""An option, a file, a setting or a service cannot be used; standard error says which, why and what to do."""

INTERRUPTED: Final = 3
"""Somebody stopped the command."""
