"""Events without e-mail addresses, for whoever writes events down: what they become at impact.com stays the same."""

import re
from collections.abc import Mapping
from typing import Any, Final

from impact_transformers.normalize import conceal_address, conceal_emails

_SUSPECT: Final = re.compile(rb"@|%(?:25)*40|\\u00[24][05]", re.IGNORECASE)
"""What an address has, as it stands in JSON: the sign itself, percent-encoded, or escaped."""

_ADDRESS_KEYS: Final = frozenset({"email", "customeremail", "customer_email"})
"""Values of these keys are hashed whole, as the rule for CustomerEmail does, also without a top-level domain."""


def may_hold_email(raw: bytes) -> bool:
    """Whether the JSON text may hold an address: False is certain, and found without decoding."""
    return _SUSPECT.search(raw) is not None


def conceal(value: Any) -> Any:
    """The decoded JSON with every address concealed, in keys too; what holds none is the same.

    Raises :class:`RecursionError` for values nested without end.
    """
    if isinstance(value, str):
        return conceal_emails(value)
    if isinstance(value, list):
        return [conceal(entry) for entry in value]
    if isinstance(value, Mapping):
        return {conceal_emails(key): _concealed(key, entry) for key, entry in value.items()}
    return value


def _concealed(key: str, entry: Any) -> Any:
    if isinstance(entry, str) and "@" in entry and key.lower() in _ADDRESS_KEYS:
        return conceal_address(entry)
    return conceal(entry)
