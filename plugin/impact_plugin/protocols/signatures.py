"""Verifies the signatures of webhooks, over the bytes as received.

Comparisons take constant time, and every secret is tried, so that you can rotate secrets without downtime.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping
from typing import Final

import msgspec

from impact_plugin.config.sources import Scheme, Signature
from impact_plugin.errors import ImpactPluginError
from impact_transformers import Secret

HEADERS: Final[dict[Scheme, str]] = {
    "segment_sha1": "X-Signature",
    "jitsu_hmac": "Jitsu-Signature",
    "standard_webhooks": "webhook-signature",
}
_WHSEC: Final = "whsec_"


class SignatureError(ImpactPluginError):
    """The signature is missing or wrong; the message names the header and contains no secrets."""


def verify(signature: Signature, headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Raise :class:`SignatureError` unless one of the secrets signed the body; ``now`` is in seconds since 1970.

    ``headers`` must ignore letter case. ``body`` is the body before decompression, which is what senders sign.
    """
    check = {"segment_sha1": _segment, "jitsu_hmac": _jitsu, "standard_webhooks": _standard}[signature.scheme]
    name = signature.header or HEADERS[signature.scheme]
    given = headers.get(name)
    if not given:
        raise SignatureError(f"the header {name} is missing: let the sender sign its requests ({signature.scheme})")
    check(signature, headers, given.strip(), body, now)


def _segment(signature: Signature, _headers: Mapping[str, str], given: str, body: bytes, _now: float) -> None:
    """Hex HMAC-SHA1 of the body. https://segment.com/docs/connections/destinations/catalog/webhooks/

    The Actions webhook signs only the first of several events:
    https://github.com/segmentio/action-destinations/blob/main/packages/destination-actions/src/destinations/webhook
    """
    bodies = [body, *(_first_item(body) if signature.first_item else ())]
    expected = [_hex(secret, one, "sha1") for secret in signature.secrets for one in bodies]
    _compare(signature, expected, [given.lower()])


def _jitsu(signature: Signature, headers: Mapping[str, str], given: str, body: bytes, now: float) -> None:
    """Hex HMAC-SHA256 of ``time.body``, with the time (seconds) in another header.

    Jitsu can omit the time; we refuse such requests, because anyone could replay them later.
    https://github.com/jitsucom/jitsu/tree/newjitsu/libs/destination-functions/src/functions
    """
    name = f"{signature.header or HEADERS['jitsu_hmac']}-Timestamp"
    time = headers.get(name, "").strip()
    _check_time(signature, name, time, now)
    signed = time.encode() + b"." + body
    _compare(signature, [_hex(secret, signed, "sha256") for secret in signature.secrets], [given.lower()])


def _standard(signature: Signature, headers: Mapping[str, str], given: str, body: bytes, now: float) -> None:
    """``v1,`` and base64 of HMAC-SHA256 of ``id.time.body``; several are separated by spaces.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """
    prefix = (signature.header or HEADERS["standard_webhooks"]).removesuffix("signature")
    time = headers.get(f"{prefix}timestamp", "").strip()
    _check_time(signature, f"{prefix}timestamp", time, now)
    message_id = headers.get(f"{prefix}id", "")
    signed = b".".join((message_id.encode("utf-8", "replace"), time.encode(), body))
    expected = [
        base64.b64encode(hmac.digest(_webhook_key(secret), signed, "sha256")).decode() for secret in signature.secrets
    ]
    _compare(signature, expected, [one.removeprefix("v1,") for one in given.split() if one.startswith("v1,")])


def _compare(signature: Signature, expected: list[str], given: list[str]) -> None:
    found = False
    for one in expected:
        for other in given[:16]:
            found |= hmac.compare_digest(one.encode(), other.encode("utf-8", "replace"))
    if not found:
        name = signature.header or HEADERS[signature.scheme]
        raise SignatureError(f"the signature in {name} is wrong: compare the secrets, and let no proxy alter the body")


def _check_time(signature: Signature, name: str, time: str, now: float) -> None:
    if not (time.isascii() and time.isdigit() and len(time) <= 12):
        raise SignatureError(f"the header {name} must hold the time in seconds: let the sender sign it")
    if abs(now - int(time)) > signature.window_seconds:
        window = f"{signature.window_seconds:g} s"
        raise SignatureError(f"the time in {name} is off by more than {window}: compare the clocks")


def _hex(secret: Secret, body: bytes, digest: str) -> str:
    return hmac.digest(secret.reveal().encode(), body, digest).hex()


def _webhook_key(secret: Secret) -> bytes:
    """Decode the base64 key, with or without the prefix ``whsec_`` and padding.

    A secret that is not base64 is the key itself.
    """
    text = secret.reveal().removeprefix(_WHSEC)
    encoded = text.rstrip("=")
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        return text.encode()


def _first_item(body: bytes) -> list[bytes]:
    """Return the first element of an array, byte for byte."""
    try:
        items = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return [bytes(items[0]).strip()] if items else []
