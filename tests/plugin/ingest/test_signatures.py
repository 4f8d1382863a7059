"""Signatures of webhooks, against ones that are computed independently."""

import base64
import gzip
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import pytest
from multidict import CIMultiDict
from standardwebhooks import Webhook

from impact_plugin.config.sources import Scheme, Signature
from impact_plugin.protocols.signatures import SignatureError, verify
from impact_transformers import Secret

NOW: Final = 1_790_000_000
BODY: Final = '{"type":"track","event":"Größe"}'.encode()
OLD: Final = "an-old-secret-0123456789"
NEW: Final = "a-new-secret-0123456789"
RAW: Final = bytes(range(32))
WHSEC: Final = "whsec_" + base64.b64encode(RAW).decode()


def signing(scheme: Scheme, *secrets: str, header: str = "", first_item: bool = False) -> Signature:
    """How a source has its requests signed."""
    return Signature(scheme, tuple(Secret(secret) for secret in secrets), header=header, first_item=first_item)


def refused(signature: Signature, headers: Mapping[str, str], body: bytes = BODY, now: float = NOW) -> str:
    """Why a request is refused; empty where it is taken."""
    try:
        verify(signature, CIMultiDict(headers), body, now)
    except SignatureError as error:
        return str(error)
    return ""


def sha1(secret: str, body: bytes) -> dict[str, str]:
    """The header of Segment's webhooks."""
    return {"x-signature": hmac.new(secret.encode(), body, hashlib.sha1).hexdigest()}


def jitsu(secret: str, body: bytes = BODY, at: int = NOW, name: str = "Jitsu-Signature") -> dict[str, str]:
    """The headers of Jitsu's webhooks."""
    signed = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return {name: signed, f"{name}-Timestamp": str(at)}


def standard(secret: str, body: bytes = BODY, at: int = NOW) -> dict[str, str]:
    """The headers of Standard Webhooks, by the package of its authors."""
    signed = Webhook(secret).sign("msg_1", datetime.fromtimestamp(at, UTC), body.decode())
    return {"Webhook-Id": "msg_1", "Webhook-Timestamp": str(at), "Webhook-Signature": signed}


def headers_of(scheme: Scheme, secret: str, body: bytes = BODY, at: int = NOW) -> dict[str, str]:
    """The headers of a request that is signed in the scheme."""
    if scheme == "segment_sha1":
        return sha1(secret, body)
    return jitsu(secret, body, at) if scheme == "jitsu_hmac" else standard(secret, body, at)


SECRETS: Final[dict[Scheme, tuple[str, str]]] = {
    "segment_sha1": (OLD, NEW),
    "jitsu_hmac": (OLD, NEW),
    "standard_webhooks": (WHSEC, "whsec_" + base64.b64encode(RAW[::-1]).decode()),
}
SCHEMES: Final = tuple(SECRETS)
TIMED: Final[tuple[Scheme, ...]] = ("jitsu_hmac", "standard_webhooks")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_of_several_secrets_is_taken(scheme: Scheme) -> None:
    """So that sender and receiver can exchange them one after the other."""
    signature = signing(scheme, *SECRETS[scheme])

    assert ["", ""] == [refused(signature, headers_of(scheme, secret)) for secret in SECRETS[scheme]]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("letters", [str.lower, str.upper])
def test_headers_are_found_in_any_letter_case(scheme: Scheme, letters: type[str]) -> None:
    """Proxies write them as they like."""
    headers = {letters(name): value for name, value in headers_of(scheme, SECRETS[scheme][0]).items()}

    assert "" == refused(signing(scheme, SECRETS[scheme][0]), headers)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_another_secret_is_refused(scheme: Scheme) -> None:
    """And nothing of either shows."""
    known, other = SECRETS[scheme]
    found = refused(signing(scheme, known), headers_of(scheme, other))

    assert "is wrong" in found
    assert not any(secret in found for secret in (known, other))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_body_that_was_altered_is_refused(scheme: Scheme) -> None:
    """A single byte is enough."""
    headers = headers_of(scheme, SECRETS[scheme][0])

    assert "is wrong" in refused(signing(scheme, SECRETS[scheme][0]), headers, BODY + b" ")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_request_that_is_not_signed_is_refused(scheme: Scheme) -> None:
    """The answer names the header that is missing."""
    assert "is missing" in refused(signing(scheme, SECRETS[scheme][0]), {})


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("value", ["x", "é", "\udcff", "v1,", "v1,\udcff", "v2,abc", "," * 1000, "v1,a " * 1000])
def test_what_is_no_signature_is_refused(scheme: Scheme, value: str) -> None:
    """Whatever it is, nothing else is raised."""
    headers = {**headers_of(scheme, SECRETS[scheme][0])}
    name = next(name for name in headers if name.lower().endswith("signature"))

    assert "is wrong" in refused(signing(scheme, SECRETS[scheme][0]), {**headers, name: value})


@pytest.mark.parametrize("scheme", TIMED)
@pytest.mark.parametrize(("off", "taken"), [(-301, False), (-300, True), (300, True), (301, False)])
def test_a_time_may_be_off_by_the_window(scheme: Scheme, off: int, taken: bool) -> None:
    """Into the past and into the future, and no further."""
    secret = SECRETS[scheme][0]
    found = refused(signing(scheme, secret), headers_of(scheme, secret, at=NOW + off))

    assert taken == (found == "")
    assert taken or "off by more than 300 s" in found


@pytest.mark.parametrize("scheme", TIMED)
@pytest.mark.parametrize("time", [None, "", "soon", "-1", "1.5", "٣", "9" * 13, "9" * 5000])
def test_a_time_that_is_none_is_refused(scheme: Scheme, time: str | None) -> None:
    """Without one, anybody could send the request again later."""
    secret = SECRETS[scheme][0]
    headers = {name: value for name, value in headers_of(scheme, secret).items() if not name.endswith("Timestamp")}
    name = "Jitsu-Signature-Timestamp" if scheme == "jitsu_hmac" else "webhook-timestamp"

    assert "must hold the time" in refused(
        signing(scheme, secret), headers if time is None else {**headers, name: time}
    )


def test_a_header_of_another_name_brings_its_time_along() -> None:
    """The time's header is named after the signature's."""
    headers = jitsu(OLD, name="X-Shop")

    assert "" == refused(signing("jitsu_hmac", OLD, header="X-Shop"), headers)


def test_standard_webhooks_under_the_names_of_svix() -> None:
    """Svix sends the same under svix-id, svix-timestamp and svix-signature."""
    headers = {name.replace("Webhook", "svix"): value for name, value in standard(WHSEC).items()}

    assert "" == refused(signing("standard_webhooks", WHSEC, header="svix-signature"), headers)


@pytest.mark.parametrize("secret", [WHSEC, WHSEC.removeprefix("whsec_"), WHSEC.rstrip("="), WHSEC[6:].rstrip("=")])
def test_a_standard_secret_is_the_same_with_any_prefix_and_padding(secret: str) -> None:
    """The configuration takes all of these spellings, so each must verify."""
    assert "" == refused(signing("standard_webhooks", secret), standard(WHSEC))


def test_one_of_several_standard_signatures_is_enough() -> None:
    """A sender that exchanges its secret signs with both."""
    headers = standard(WHSEC)
    headers["Webhook-Signature"] = f"v1a,other v1,wrong {headers['Webhook-Signature']}"

    assert "" == refused(signing("standard_webhooks", WHSEC), headers)


def test_the_compressed_bytes_are_what_is_signed() -> None:
    """A signature is over the bytes as they came."""
    packed = gzip.compress(BODY)

    assert "" == refused(signing("segment_sha1", OLD), sha1(OLD, packed), packed)
    assert "is wrong" in refused(signing("segment_sha1", OLD), sha1(OLD, BODY), packed)


@pytest.mark.parametrize("body", [b'[{"a":1},{"b":2}]', b' [ {"a":1} , {"b":2}]'])
def test_the_first_item_is_enough_only_where_that_is_said(body: bytes) -> None:
    """Segment's Webhooks (Actions) signs a batch by its first event."""
    headers = sha1(OLD, b'{"a":1}')

    assert "" == refused(signing("segment_sha1", OLD, first_item=True), headers, body)
    assert "is wrong" in refused(signing("segment_sha1", OLD), headers, body)


@pytest.mark.parametrize("body", [b"[]", b"{}", b"[", b"\xff", b"", b"[" * 100_000])
def test_a_body_without_a_first_item_is_refused(body: bytes) -> None:
    """Nothing else is raised."""
    assert "is wrong" in refused(signing("segment_sha1", OLD, first_item=True), sha1(OLD, b"x"), body)
