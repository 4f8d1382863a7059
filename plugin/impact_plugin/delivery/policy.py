"""What an answer of impact.com means for the event: a table, and one reader for the four shapes of error bodies.

Pure. The statuses are impact.com's: https://integrations.impact.com/impact-brand/reference/status-codes
"""

import html
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias

import msgspec

from impact_transformers.normalize import redact_emails

Result: TypeAlias = Literal["delivered", "retry", "rejected"]

MAX_TEXT: Final = 2000
"""How much of an answer is told to the router, in characters; it keeps 10 KB."""

UNCLEAR_ATTEMPTS: Final = 5
"""How often a 402 is tried again: the vendor says only that valid parameters failed."""


class Cause(StrEnum):
    """Why a delivery ended as it did; a metric label."""

    OK = "ok"
    BODY_ERROR = "body_error"
    REFUSED = "refused"
    CREDENTIALS = "credentials"
    UNCLEAR = "unclear"
    TRANSIENT = "transient"
    QUOTA = "quota"
    OVERLOAD = "overload"
    UNEXPECTED = "unexpected"
    NOT_SENT = "not_sent"
    AMBIGUOUS = "ambiguous"
    WAITING = "waiting"
    BUSY = "busy"
    STOPPING = "stopping"
    STATE_UNAVAILABLE = "state_unavailable"
    ORDER_UNDER_WAY = "order_under_way"
    DUPLICATE_ORDER = "duplicate_order"
    AMBIGUOUS_EXPIRED = "ambiguous_expired"
    FAULT = "fault"
    ENDPOINT_NOT_ALLOWED = "endpoint_not_allowed"
    EMAIL_IN_PARAMETER = "email_in_parameter"
    UNSUPPORTED_BODY = "unsupported_body"


CAUSES: Final[dict[Cause, str]] = {
    Cause.OK: "impact.com took the request.",
    Cause.BODY_ERROR: "The status said success and the body an error; the job is aborted with impact.com's words.",
    Cause.REFUSED: "impact.com refused a parameter (400, 413, 422); the job is aborted with its field errors.",
    Cause.CREDENTIALS: "401, 403, 404 or 405: the account's SID, token or scopes are wrong; the job is kept.",
    Cause.UNCLEAR: "402, which the vendor does not explain; tried five times, then aborted.",
    Cause.TRANSIENT: "408, 425 or a 5xx; tried again with the same OrderId.",
    Cause.QUOTA: "429; tried again.",
    Cause.OVERLOAD: "503; tried again.",
    Cause.UNEXPECTED: "A status impact.com does not document, a redirect for instance; tried again.",
    Cause.NOT_SENT: "No connection; nothing was sent, tried again.",
    Cause.AMBIGUOUS: "The connection ended after the request was written; tried again with the same OrderId.",
    Cause.WAITING: "Its turn did not come before the router's deadline; not sent. The text names the gate.",
    Cause.BUSY: "Too many requests wait already (`delivery.max_waiting`); not sent, tried again.",
    Cause.STOPPING: "The service is stopping; not sent, tried again.",
    Cause.STATE_UNAVAILABLE: "The ledger of conversions is out of reach; not sent, tried again.",
    Cause.ORDER_UNDER_WAY: "The same order is being sent already; tried again, which tells its outcome.",
    Cause.DUPLICATE_ORDER: "impact.com has the order already, of this event type; told as delivered, not sent again.",
    Cause.AMBIGUOUS_EXPIRED: (
        "Whether impact.com has the order was never known, and `delivery.dedup_window_hours` have passed; not sent "
        "again, kept by the router until it drains it. Look the order up at impact.com."
    ),
    Cause.FAULT: "A defect of ours met the request; see the log. Tried again.",
    Cause.ENDPOINT_NOT_ALLOWED: "The router asked for an address that is not impact.com's; aborted, nothing was sent.",
    Cause.EMAIL_IN_PARAMETER: "A parameter other than CustomerEmail held an address in clear; aborted, not sent.",
    Cause.UNSUPPORTED_BODY: "The request is not one form of text values; aborted, nothing was sent.",
}
"""What each cause means, for the documentation."""

NOT_TAKEN: Final = frozenset(
    {Cause.BODY_ERROR, Cause.REFUSED, Cause.CREDENTIALS, Cause.QUOTA, Cause.OVERLOAD, Cause.NOT_SENT}
)
"""After these impact.com does not have the conversion; after any other failure it may have it."""

PROCESSED: Final = frozenset({Cause.OK, Cause.BODY_ERROR, Cause.REFUSED, Cause.UNCLEAR})
"""impact.com processed the request, whatever it decided: its host, the credentials and the quota are all right."""


class ImpactAnswer(msgspec.Struct, frozen=True):
    """What came back: status, the beginning of the body, and the headers, whose names may be in any letter case."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


class NoAnswer(msgspec.Struct, frozen=True):
    """Nothing came back. ``written`` tells whether impact.com may have got the request all the same."""

    written: bool
    detail: str


class Verdict(msgspec.Struct, frozen=True):
    """What becomes of the event, why, and the sentence for whoever looks."""

    result: Result
    cause: Cause
    text: str


_TABLE: Final[dict[int, tuple[Result, Cause]]] = {
    400: ("rejected", Cause.REFUSED),
    401: ("retry", Cause.CREDENTIALS),
    402: ("retry", Cause.UNCLEAR),
    403: ("retry", Cause.CREDENTIALS),
    404: ("retry", Cause.CREDENTIALS),
    405: ("retry", Cause.CREDENTIALS),
    408: ("retry", Cause.TRANSIENT),
    413: ("rejected", Cause.REFUSED),
    422: ("rejected", Cause.REFUSED),
    425: ("retry", Cause.TRANSIENT),
    429: ("retry", Cause.QUOTA),
    503: ("retry", Cause.OVERLOAD),
}

_HINTS: Final = {
    Cause.CREDENTIALS: "check Account SID, Auth Token and the token's scopes",
    Cause.QUOTA: "impact.com's request quota is used up",
    Cause.UNEXPECTED: "an answer impact.com does not document",
}


def judge(answer: ImpactAnswer | NoAnswer, *, attempt: int = 0) -> Verdict:
    """The verdict on one delivery; ``attempt`` counts the earlier ones."""
    if isinstance(answer, NoAnswer):
        cause = Cause.AMBIGUOUS if answer.written else Cause.NOT_SENT
        return Verdict("retry", cause, f"{cause}: {answer.detail}")
    told = read_body(answer.body)
    if 200 <= answer.status < 300:
        if told.failed:
            return _verdict("rejected", Cause.BODY_ERROR, answer.status, told.text)
        return Verdict("delivered", Cause.OK, told.text)
    default: tuple[Result, Cause] = ("retry", Cause.TRANSIENT if answer.status >= 500 else Cause.UNEXPECTED)
    result, cause = _TABLE.get(answer.status, default)
    if cause is Cause.UNCLEAR and attempt >= UNCLEAR_ATTEMPTS:
        result = "rejected"
    return _verdict(result, cause, answer.status, told.text)


def held_back(cause: Cause, text: str) -> Verdict:
    """The verdict on what was not sent, or has no answer yet: it is to come again."""
    return Verdict("retry", cause, f"{cause}: {text}")


def _verdict(result: Result, cause: Cause, status: int, text: str) -> Verdict:
    hint = f" ({_HINTS[cause]})" if cause in _HINTS else ""
    return Verdict(result, cause, f"{cause}: impact.com answered {status}{hint}: {text}"[:MAX_TEXT])


class ParsedAnswer(msgspec.Struct, frozen=True):
    """What a body says: whether it reports an error, and its text without personal data."""

    failed: bool
    text: str


def read_body(body: bytes) -> ParsedAnswer:
    """Read a body in any of the shapes impact.com uses.

    ``{"Status","Message","Errors":[{"Field","Message"}]}``, ``{"Status","errors":[{"field","message"}]}``,
    ``{"errors","warnings"}`` and XML. https://integrations.impact.com/impact-brand/reference/errors
    """
    text = body.decode("utf-8", "replace").strip()
    if text.startswith("<"):
        return _read_xml(text)
    try:
        decoded = msgspec.json.decode(body) if body else {}
    except (msgspec.DecodeError, RecursionError):
        return ParsedAnswer(failed=False, text=_clean(text))
    if not isinstance(decoded, dict):
        return ParsedAnswer(failed=False, text=_clean(text))
    lowered = {key.lower(): value for key, value in decoded.items()}
    errors = _field_errors(lowered.get("errors"))
    failed = str(lowered.get("status", "")).upper() == "ERROR" or bool(errors)
    if not failed:
        return ParsedAnswer(failed=False, text=_clean(text))
    return ParsedAnswer(failed=True, text=_clean("; ".join([str(lowered.get("message") or "ERROR"), *errors])))


def _field_errors(errors: Any) -> list[str]:
    if not isinstance(errors, list):
        return []
    found = []
    for error in errors:
        lowered = {str(key).lower(): value for key, value in error.items()} if isinstance(error, dict) else {}
        if str(lowered.get("level", "ERROR")).upper() == "ERROR":
            found.append(f"{lowered.get('field') or 'request'}: {lowered.get('message') or error}")
    return found


def _read_xml(text: str) -> ParsedAnswer:
    """Read the legacy answer by its tags; a parser would have to be defended against hostile documents."""
    status = _tags(text, "Status")
    errors = [
        f"{(_tags(error, 'Field') or ['request'])[0]}: {(_tags(error, 'Message') or [''])[0]}"
        for error in _tags(text, "Error")
    ]
    failed = status[:1] == ["ERROR"] or bool(errors)
    message = (_tags(text, "Message") or ["ERROR"])[0]
    return ParsedAnswer(failed, _clean("; ".join([message, *errors]) if failed else text))


def _tags(text: str, name: str) -> list[str]:
    return [html.unescape(found).strip() for found in re.findall(rf"<{name}>(.*?)</{name}>", text[:65536], re.DOTALL)]


def _clean(text: str) -> str:
    return redact_emails(text[:MAX_TEXT])
