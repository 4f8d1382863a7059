"""Replaces personal data in events that are recorded, such that the events still become the same requests.

Equal identifiers stay equal, and every rule treats a pseudonym as it treats the original. E-mail addresses become their
SHA-1, as impact.com gets them. Identifiers, names and phone numbers of persons become keyed digests of a similar form.
IP addresses lose their last part. Click ids, order ids, amounts and pages stay.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from hmac import digest
from typing import Any, Final

from impact_transformers import conceal

IDENTIFIERS: Final = frozenset(
    {"userid", "anonymousid", "previousid", "rudderid", "groupid", "deviceid", "advertisingid", "distinctid"}
)
"""Keys whose values identify a person or a device, wherever they are. All keys here are without case and separators."""

PERSON_KEYS: Final = frozenset(
    {
        "firstname", "middlename", "lastname", "fullname", "username", "phone", "phonenumber", "telephone", "mobile",
        "birthday", "birthdate", "dateofbirth", "dob", "street", "address", "address1", "address2", "address3",
        "avatar",
    }
)  # fmt: skip
"""Keys that say who somebody is or where they live, wherever they are. Town and postal code stay."""

PERSONS: Final = frozenset(
    {
        "traits", "usertraits", "userproperties", "user", "customer", "recipient", "contact", "externalid",
        "address", "billing", "billingaddress", "shipping", "shippingaddress",
    }
)  # fmt: skip
"""Objects about a person: in them, and in what they hold, a name or an id is a person's."""

AMBIGUOUS_KEYS: Final = frozenset({"name", "id"})
DEVICE_KEYS: Final = frozenset({"id", "token", "name"})
IP_KEYS: Final = frozenset({"ip", "requestip"})
MAX_ID_LENGTH: Final = 64
"""A rule refuses longer identifiers, so their pseudonyms are longer too."""

_SEPARATORS: Final = str.maketrans("", "", "_-$ ")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_ZEROS: Final = frozenset("0-")
_HASHED: Final = re.compile(r"[0-9a-f]{40}(@sha1\.invalid)?")


class Pseudonyms:
    """Replaces personal data; the same key gives the same pseudonyms."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def event(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return the event without personal data."""
        concealed: dict[str, Any] = conceal(message)
        return self._object(concealed, "", person=False)

    def of(self, value: str) -> str:
        """Return the pseudonym of an identifier, of a similar form and length, so that rules treat it alike.

        Empty values, zeros (the advertising id of who does not want to be tracked) and hashes stay as they are.
        """
        if not value.strip() or set(value) <= _ZEROS or _HASHED.fullmatch(value):
            return value
        hexed = digest(self._key, value.encode("utf-8", "replace"), "sha256").hex()
        if _UUID.fullmatch(value):
            return f"{hexed[:8]}-{hexed[8:12]}-4{hexed[13:16]}-8{hexed[17:20]}-{hexed[20:32]}"
        short = f"p-{hexed[:24]}"
        return short if len(value) <= MAX_ID_LENGTH else short.ljust(len(value), "x")

    def _object(self, value: Mapping[str, Any], parent: str, *, person: bool) -> dict[str, Any]:
        person = person or parent in PERSONS
        return {key: self._entry(_normalized(key), entry, parent, person=person) for key, entry in value.items()}

    def _entry(self, key: str, entry: Any, parent: str, *, person: bool) -> Any:
        if isinstance(entry, Mapping):
            return self._object(entry, key, person=person)
        if isinstance(entry, list):
            return [self._entry(key, one, parent, person=person) for one in entry]
        replace = self._replacement(key, parent, person=person)
        if replace is None or isinstance(entry, bool) or not isinstance(entry, str | int | float):
            return entry
        return replace(str(entry))

    def _replacement(self, key: str, parent: str, *, person: bool) -> Callable[[str], str] | None:
        if key in IP_KEYS:
            return truncated
        identifies = (
            key in IDENTIFIERS
            or key in PERSON_KEYS
            or (person and key in AMBIGUOUS_KEYS)
            or (parent == "device" and key in DEVICE_KEYS)
        )
        return self.of if identifies else None


def truncated(address: str) -> str:
    """Return an IP address without its last part: 24 bits of IPv4, 48 of IPv6; any other text is concealed."""
    try:
        parsed = ipaddress.ip_address(address.strip())
    except ValueError:
        return "" if not address.strip() else "concealed"
    bits = 24 if parsed.version == 4 else 48
    return str(ipaddress.ip_network((parsed, bits), strict=False).network_address)


def _normalized(key: str) -> str:
    """Return a key as it is in the sets above: ``firstName``, ``first_name`` and ``First Name`` are the same."""
    return key.lower() if key.isalnum() else key.translate(_SEPARATORS).lower()
