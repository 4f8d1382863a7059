"""Events without persons in them that still become the same requests: equal identifiers stay equal, rules still hold.

E-mails become their SHA-1, as impact.com gets them. Identifiers, names and numbers of persons become keyed digests of a
like form; addresses on the network lose their last part; click ids, order ids, amounts and pages stay.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from hmac import digest
from typing import Any, Final

from impact_transformers import conceal

IDENTIFIERS: Final = frozenset(
    {
        "userid", "anonymousid", "previousid", "rudderid", "groupid", "user_id", "anonymous_id", "deviceid",
        "advertisingid", "distinct_id", "$device_id",
    }
)  # fmt: skip
"""Keys whose values stand for a person or a device, wherever they are."""

DEVICE_KEYS: Final = frozenset({"id", "token", "name"})
PERSON_KEYS: Final = frozenset(
    {
        "name", "firstname", "first_name", "lastname", "last_name", "username", "phone", "phonenumber", "phone_number",
        "birthday", "street", "address1", "address2", "avatar", "id",
    }
)  # fmt: skip
"""Keys of traits and of addresses that tell who somebody is. Where somebody lives stays as far as the town."""

ADDRESS_KEYS: Final = frozenset({"ip", "request_ip", "requestip", "$ip"})
LONGEST_ID: Final = 64
"""What is longer is refused by a rule, and must stay so."""

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NOBODY: Final = frozenset("0-")
_HASHED: Final = re.compile(r"[0-9a-f]{40}(@sha1\.invalid)?")


class Pseudonyms:
    """Replaces what tells who somebody is; the same key gives the same pseudonyms."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def event(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The event without persons."""
        concealed: dict[str, Any] = conceal(message)
        return self._object(concealed, "")

    def of(self, value: str) -> str:
        """The pseudonym of an identifier: of a like form and length, so that every rule treats it alike."""
        if not value.strip() or set(value) <= _NOBODY or _HASHED.fullmatch(value):
            return value
        hexed = digest(self._key, value.encode("utf-8", "replace"), "sha256").hex()
        if _UUID.fullmatch(value):
            return f"{hexed[:8]}-{hexed[8:12]}-4{hexed[13:16]}-8{hexed[17:20]}-{hexed[20:32]}"
        short = f"p-{hexed[:24]}"
        return short if len(value) <= LONGEST_ID else short.ljust(len(value), "x")

    def _object(self, value: Mapping[str, Any], within: str) -> dict[str, Any]:
        return {key: self._entry(key, entry, within) for key, entry in value.items()}

    def _entry(self, key: str, entry: Any, within: str) -> Any:
        name = key.lower()
        if isinstance(entry, Mapping):
            return self._object(entry, name if name != "address" else within)
        if isinstance(entry, list):
            return [self._entry(key, one, within) for one in entry]
        replace = self._rule(name, within)
        if replace is None or isinstance(entry, bool) or not isinstance(entry, str | int | float):
            return entry
        return replace(str(entry))

    def _rule(self, name: str, within: str) -> Callable[[str], str] | None:
        if name in ADDRESS_KEYS:
            return shortened
        if name in IDENTIFIERS:
            return self.of
        if within == "device" and name in DEVICE_KEYS:
            return self.of
        return self.of if within == "traits" and name in PERSON_KEYS else None


def shortened(address: str) -> str:
    """An address on the network without its last part: 24 bits of IPv4, 48 of IPv6; what is none stays away."""
    try:
        parsed = ipaddress.ip_address(address.strip())
    except ValueError:
        return "" if not address.strip() else "concealed"
    bits = 24 if parsed.version == 4 else 48
    return str(ipaddress.ip_network((parsed, bits), strict=False).network_address)
