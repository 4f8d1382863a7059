"""One function for each rule by which a value becomes the text of a form field.

A rule takes whatever JSON value was found and returns the text to send, or None when the value is of no use (the next
path is tried), or raises :class:`UnusableValueError` when it must neither be sent nor silently left out. The factories
at the end bind a rule to the limits of its row. Sizes: https://integrations.impact.com/impact-brand/reference/requests
"""

import hashlib
import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote, unquote

from impact_transformers.amounts import Reading, read_amount, rounded
from impact_transformers.currencies import CURRENCIES
from impact_transformers.outcome import NoticeReason, UnusableValueError

Rule: TypeAlias = Callable[[Any], str | None]
Overlong: TypeAlias = Literal["cut", "drop", "keep"]

_NO_PART: Final = r"\s@/:;,?&=<>()\"\\%"
"""Characters that end an address, as a class: what may stand around one in a URL or a sentence."""

_DOMAIN: Final = rf"[^{_NO_PART}]+\.[^\W\d_]{{2,}}"
_EMAIL: Final = re.compile(rf"(?<=[^{_NO_PART}])@{_DOMAIN}")
_ENCODED_EMAIL: Final = re.compile(rf"(?:@|%(?:25)*40){_DOMAIN}", re.IGNORECASE)
_LOCAL_PART: Final = re.compile(rf"(?:[^{_NO_PART}]|%)*\Z")
_CONCEALED: Final = re.compile(r"([0-9a-f]{40})@sha1\.invalid")
_HASHED: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SPACE: Final = re.compile(r"\s")
_PUBLIC_IPV4: Final = re.compile(
    r"(?!0|10\.|127\.|169\.254\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|22[4-9]|2[3-5]\d)"
    r"(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}"
)
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_ZEROED_ID: Final = frozenset("0-")
_CENT: Final = Decimal("0.01")
FIRST_YEAR: Final = 2000
LAST_YEAR: Final = 2200
_MILLISECONDS: Final = 100_000_000_000
_OLD: Final = timedelta(days=88)
_LONGEST_LOCAL_PART: Final = 256
REDACTED: Final = "redacted"


def holds_email(text: str) -> bool:
    """Tell whether an address stands in ``text`` in clear, or percent-encoded as in a URL within a URL."""
    if "@" not in text and "%" not in text:
        return False
    seen = text
    for _ in range(3):
        if _EMAIL.search(seen):
            return True
        decoded = unquote(seen)
        if decoded == seen:
            return False
        seen = decoded
    return _EMAIL.search(seen) is not None


def redact_emails(text: str) -> str:
    """The text with every address, encoded or not, replaced by ``redacted``."""
    if "@" not in text and "%" not in text:
        return text
    pieces: list[str] = []
    end = 0
    for found in _ENCODED_EMAIL.finditer(text):
        before = text[end : found.start()]
        local = _LOCAL_PART.search(before[-_LONGEST_LOCAL_PART:])
        length = len(local.group()) if local else 0
        if length:
            pieces += [before[: len(before) - length], REDACTED]
            end = found.end()
    redacted = "".join([*pieces, text[end:]])
    # What is encoded so oddly that it was not found goes with the whole query; what remains then is not worth keeping.
    if holds_email(redacted):
        redacted = redacted.split("?", 1)[0].split("#", 1)[0]
    return "" if holds_email(redacted) else redacted


def conceal_address(address: str) -> str:
    """An address that stands for this one and tells nothing: its SHA-1 at a domain that nobody can have.

    To every rule it is an address, and :func:`email` finds the SHA-1 in it, so an event that was concealed becomes the
    same request as before. https://www.rfc-editor.org/rfc/rfc2606#section-2
    """
    text = address.strip().lower()
    return text if _CONCEALED.fullmatch(text) else f"{_sha1(text)}@sha1.invalid"


def conceal_emails(text: str) -> str:
    """The text with every address, encoded or not, concealed as :func:`conceal_address` does."""
    if "@" not in text and "%" not in text:
        return text
    pieces: list[str] = []
    end = 0
    for found in _ENCODED_EMAIL.finditer(text):
        local = _LOCAL_PART.search(text[end : found.start()][-_LONGEST_LOCAL_PART:])
        length = len(local.group()) if local else 0
        if length:
            start = found.start() - length
            pieces += [text[end:start], conceal_address(_decoded(text[start : found.end()]))]
            end = found.end()
    concealed = "".join([*pieces, text[end:]])
    return redact_emails(text) if holds_email(_CONCEALED.sub("", concealed)) else concealed


def _decoded(text: str) -> str:
    """Percent-encoding taken off, as often as URLs stand in URLs."""
    for _ in range(3):
        text = unquote(text)
    return text


def as_text(value: Any) -> str | None:
    """A JSON leaf as text: numbers in full, never with an exponent; None for empty values, objects and lists."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f").removesuffix(".0")
    return None


def email(value: Any) -> str | None:
    """SHA-1 of the address, stripped and lower-cased; what is a SHA-1 or SHA-256 already passes.

    https://integrations.impact.com/integration-guides/for-brands/tracking-integrations/impact.com-customer-email-hashing-explained
    """
    if not isinstance(value, str):
        return None
    text = value.strip().lower()
    if "@" in text:
        concealed = _CONCEALED.fullmatch(text)
        return concealed[1] if concealed else _sha1(text)
    return text if _HASHED.fullmatch(text) else None


def email_sha1(value: Any) -> str | None:
    """As :func:`email`, without SHA-256, which is not documented for Page Loads.

    https://integrations.impact.com/impact-brand/reference/create-a-pageload
    """
    text = email(value)
    if text is not None and len(text) == 64:
        raise UnusableValueError("is a SHA-256; a Page Load takes only the SHA-1 of an address")
    return text


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def url(value: Any) -> str | None:
    """An absolute URL in full length (cutting could cut the click id), with e-mail addresses taken out."""
    if not isinstance(value, str):
        return None
    text = value.strip()
    if " " in text or "\n" in text or "\t" in text:
        text = _SPACE.sub(lambda space: quote(space[0]), text)
    # Nearly every URL is a web page's; the pattern is for the deep links of apps.
    if not text.startswith(("https://", "http://")) and not _URL.fullmatch(text):
        return None
    return redact_emails(text) or None if "@" in text or "%" in text else text


def ip_address(value: Any) -> str | None:
    """A public address; a private one belongs to a proxy or a server, never to the visitor."""
    return _public_address(value.strip()) if isinstance(value, str) else None


# A visitor sends many events in a row, and reading an address takes longer than most rules together.
@lru_cache(maxsize=4096)
def _public_address(text: str) -> str | None:
    if _PUBLIC_IPV4.fullmatch(text):
        return text
    try:
        address = ipaddress.IPv6Address(text.split("%", 1)[0])
    except ValueError:
        return None
    if address.ipv4_mapped is not None:
        return ip_address(str(address.ipv4_mapped))
    hidden = address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
    return None if hidden or text.lower().startswith(("fc", "fd")) else str(address)


def date(value: Any) -> str | None:
    """ISO-8601 with an offset; a time without one is UTC; epochs in seconds or milliseconds are understood."""
    try:
        if isinstance(value, str):
            text = value.strip()
            moment = datetime.fromisoformat(text)
            if not FIRST_YEAR <= moment.year < LAST_YEAR:
                return None
            if text[10:11] == "T" and moment.tzinfo is not None:
                return text
            return moment.isoformat() + ("Z" if moment.tzinfo is None else "")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        seconds = value / 1000 if value > _MILLISECONDS else value
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    if not FIRST_YEAR <= moment.year < LAST_YEAR:
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def is_old(happened: str, received: str) -> bool:
    """Whether an event was received over 88 days after it happened; both in the form that :func:`date` gives.

    https://help.impact.com/en/support/solutions/articles/48001232601
    """
    usable = date(received)
    if usable is None:
        return False
    return datetime.fromisoformat(usable) - datetime.fromisoformat(happened) > _OLD


def currency(value: Any) -> str | None:
    """An ISO-4217 code in capitals; nothing else, because money in an unknown currency is not money."""
    text = as_text(value)
    if text is None:
        return None
    code = text.upper()
    if code not in CURRENCIES:
        raise UnusableValueError(f"{redact_emails(text)[:16]!r} is not an ISO-4217 currency code")
    return code


def truth(value: Any) -> str | None:
    """``true`` or ``false`` from the spellings of consent platforms; None for anything else."""
    text = (as_text(value) or "").lower()
    if text in ("true", "1", "yes", "granted", "allow", "opt_in"):
        return "true"
    return "false" if text in ("false", "0", "no", "denied", "deny", "opt_out") else None


def customer_status(value: Any) -> str | None:
    """``NEW`` for true and ``EXISTING`` for false, else the text as it is.

    https://integrations.impact.com/impact-brand/reference/the-conversion-object
    """
    if isinstance(value, bool):
        return "NEW" if value else "EXISTING"
    return _short_text(value)


def first_text(value: Any) -> str | None:
    """The text, or the first one in a list or an object: shops write a product's categories in all three ways."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        value = next((entry for entry in value if as_text(entry) is not None), None)
    return _short_text(value)


def coupon(value: Any) -> str | None:
    """The code of a coupon; of several the first one, with a notice. Each is a text or an object with its code."""
    if not isinstance(value, list):
        return _short_text(value.get("code") if isinstance(value, Mapping) else value)
    codes = [code for entry in value if (code := coupon(None if isinstance(entry, list) else entry)) is not None]
    if len(codes) > 1:
        detail = f"{', '.join(codes)[:255]}; impact.com takes one"
        raise UnusableValueError(detail, NoticeReason.SEVERAL_COUPONS, instead=codes[0])
    return codes[0] if codes else None


def money_of(digits: int) -> Rule:
    """An amount with two decimals, at most ``digits`` before the point."""
    limit = 10.0**digits

    def money(value: Any) -> str | None:
        # The usual price is a float or int with at most two decimals: no Decimal is needed to write it.
        kind = type(value)
        if kind is int and -limit < value < limit:
            return f"{value}.00"
        if kind is float and -limit < value < limit:
            text = f"{value:.2f}"
            if float(text) == value:
                return text
        found = read_amount(value)
        if isinstance(found, str):
            raise UnusableValueError(f"cannot be read as an amount: {found}")
        return None if found is None else _as_money(found, digits)

    return money


def _as_money(reading: Reading, digits: int) -> str:
    amount = rounded(reading.amount(), _CENT)
    if amount.adjusted() >= digits:
        raise UnusableValueError(f"has more than {digits} digits before the point")
    return str(amount) if amount else "0.00"


def text_of(limit: int, overlong: Overlong) -> Rule:
    """Text of at most ``limit`` characters; longer text is cut, left out or kept as ``overlong`` says.

    Text that holds an e-mail address is left out: those belong into CustomerEmail only, as a digest.
    """

    def text(value: Any) -> str | None:
        found = value.strip() if type(value) is str else as_text(value)
        if not found:
            return None
        if ("@" in found or "%" in found) and holds_email(found):
            raise UnusableValueError("holds an e-mail address in clear")
        if len(found) <= limit or overlong == "keep":
            return found
        if overlong == "cut":
            return found[:limit].rstrip()
        raise UnusableValueError(f"has {len(found)} characters; at most {limit} are allowed")

    return text


def identifier_of(limit: int, overlong: Overlong) -> Rule:
    """As :func:`text_of`, for ids: true and false are no ids."""
    text = text_of(limit, overlong)

    def identifier(value: Any) -> str | None:
        return None if isinstance(value, bool) else text(value)

    return identifier


def visitor_id_of(limit: int, *, hash_emails: bool) -> Rule:
    """An id of a person. An e-mail used as an id is left out, or sent as its SHA-1 where the operator chose that."""
    identifier = identifier_of(limit, "drop")

    def visitor_id(value: Any) -> str | None:
        if type(value) is str:
            found = value.strip()
            if "@" not in found and "%" not in found and 0 < len(found) <= limit:
                return found
            if holds_email(found):
                if not hash_emails:
                    raise UnusableValueError("is an e-mail address; emailAsCustomerId says what becomes of it")
                return email(unquote(found))
        return identifier(value) if value else None

    return visitor_id


def advertising_id_of(limit: int) -> Rule:
    """A device or advertising id; the all-zero one that limited ad tracking gives is no id."""
    identifier = identifier_of(limit, "drop")

    def advertising_id(value: Any) -> str | None:
        text = identifier(value)
        return None if text is None or set(text) <= _ZEROED_ID else text

    return advertising_id


def integer_of(digits: int) -> Rule:
    """A whole number of at most ``digits`` digits."""

    def integer(value: Any) -> str | None:
        text = None if isinstance(value, bool) else as_text(value)
        if text is not None and not (len(text) <= digits and text.isascii() and text.isdigit()):
            raise UnusableValueError(f"is no whole number of at most {digits} digits")
        return text

    return integer


def readable(value: Any) -> str | None:
    """Free text from a device, such as a user agent, in full length and with e-mail addresses taken out."""
    if not isinstance(value, str):
        return None
    found = value.strip()
    if "@" in found or "%" in found:
        found = redact_emails(found)
    return found or None


_short_text: Final = text_of(255, "cut")
