"""Where an event carries the visitor's consent: a path to yes or no, or to a list of ids and the one that counts.

``context.consent.ads`` holds the answer itself. ``context.consentManagement.allowedConsentIds=C0004`` gives consent
when the list names the id, ``context.consentManagement.deniedConsentIds!=C0004`` when it does not; a list that is
missing tells nothing. https://www.rudderstack.com/docs/sources/event-streams/sdks/rudderstack-javascript-sdk/consent-manager/
"""

import re
from typing import Any, Final

import msgspec

_LISTED: Final = re.compile(r"(?P<path>[^=!]+?)\s*(?P<sign>!?=)\s*(?P<id>\S(?:.*\S)?)\s*", re.DOTALL)


class ConsentPath(msgspec.Struct, frozen=True):
    """One entry of ``consentPaths``. ``id`` is None where the path holds the answer itself."""

    path: str
    id: str | None = None
    denies: bool = False


def parse_consent_path(entry: str) -> ConsentPath:
    """Take an entry apart; whether its path is one is another question."""
    found = _LISTED.fullmatch(entry)
    return ConsentPath(found["path"], found["id"], found["sign"] == "!=") if found else ConsentPath(entry)


def listed_consent(value: Any, id_: str, denies: bool) -> bool | None:
    """What a list of ids, or a text of them with commas between, says about one; None for anything else."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list):
        return None
    named = any(isinstance(entry, str) and entry.strip() == id_ for entry in value)
    return named is not denies
