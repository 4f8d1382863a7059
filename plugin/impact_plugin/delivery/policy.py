"""Decides what a response of impact.com means for the event: a table of statuses, and a parser of error bodies.

Pure. impact.com documents the statuses: https://integrations.impact.com/impact-brand/reference/status-codes
"""

import html
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias

import msgspec

from impact_transformers.normalize import redact_emails

Result: TypeAlias = Literal["delivered", "retry", "rejected"]

MAX_TEXT_LENGTH: Final = 2000
"""Characters of a response that are passed on to the router, which keeps 10 KB."""

MAX_XML_LENGTH: Final = 65_536
"""Characters of a legacy response that are searched for tags."""

MAX_UNCLEAR_RETRIES: Final = 5
"""Retries after a 402, of which impact.com says only that valid parameters failed."""


class Cause(StrEnum):
    """Why a delivery has its result; a metric label."""

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
    Cause.OK: "impact.com accepted the request.",
    Cause.BODY_ERROR: "The status says success, but the body reports an error; the job is aborted with its message.",
    Cause.REFUSED: "impact.com refused a parameter (400, 413, 422); the job is aborted with the field errors.",
    Cause.CREDENTIALS: "401, 403, 404 or 405: the account's SID, token or scopes are wrong; retried.",
    Cause.UNCLEAR: "402, which impact.com does not explain; retried five times, then aborted.",
    Cause.TRANSIENT: "408, 425 or a 5xx; retried with the same OrderId.",
    Cause.QUOTA: "429; retried.",
    Cause.OVERLOAD: "503; retried.",
    Cause.UNEXPECTED: "A status that impact.com does not document, such as a redirect; retried.",
    Cause.NOT_SENT: "No connection, so nothing was sent; retried.",
    Cause.AMBIGUOUS: "The connection ended after the request was written; retried with the same OrderId.",
    Cause.WAITING: "There was no permit before the router's deadline; not sent, retried. The text names the gate.",
    Cause.BUSY: "Too many requests are waiting (`delivery.max_waiting`); not sent, retried.",
    Cause.STOPPING: "The service is stopping; not sent, retried.",
    Cause.STATE_UNAVAILABLE: "The ledger of conversions is not available; not sent, retried.",
    Cause.ORDER_UNDER_WAY: "The same order is being sent; retried, which then reports its outcome.",
    Cause.DUPLICATE_ORDER: "impact.com already has the order with this event type; reported as delivered, not resent.",
    Cause.AMBIGUOUS_EXPIRED: (
        "It is unknown whether impact.com has the order, and `delivery.dedup_window_hours` have passed; not resent, "
        "and kept by the router until its retention ends. Look the order up at impact.com."
    ),
    Cause.FAULT: "A bug of this service; see the log. Retried.",
    Cause.ENDPOINT_NOT_ALLOWED: "The request is for an address that is not impact.com's; aborted, nothing was sent.",
    Cause.EMAIL_IN_PARAMETER: "A parameter other than CustomerEmail has an e-mail address in clear; aborted, not sent.",
    Cause.UNSUPPORTED_BODY: "The body is not a form of text values; aborted, nothing was sent.",
}
"""What each cause means, for the documentation."""

NOT_RECORDED: Final = frozenset(
    {Cause.BODY_ERROR, Cause.REFUSED, Cause.CREDENTIALS, Cause.QUOTA, Cause.OVERLOAD, Cause.NOT_SENT}
)
"""Causes after which impact.com does not have the conversion; after any other failure it may have it."""

PROCESSED: Final = frozenset({Cause.OK, Cause.BODY_ERROR, Cause.REFUSED, Cause.UNCLEAR})
"""Causes after which host, credentials and quota are known to be fine: impact.com decided on the request itself."""


class ImpactResponse(msgspec.Struct, frozen=True):
    """A response: its status, the beginning of its body, and its headers, with names in any letter case."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


class NoResponse(msgspec.Struct, frozen=True):
    """No response; ``written`` says whether impact.com may have received the request nevertheless."""

    written: bool
    detail: str


class Verdict(msgspec.Struct, frozen=True):
    """The result for the event, its cause, and a sentence for the operator."""

    result: Result
    cause: Cause
    text: str


_VERDICTS_BY_STATUS: Final[dict[int, tuple[Result, Cause]]] = {
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
    Cause.UNEXPECTED: "impact.com does not document this status",
}


def judge(response: ImpactResponse | NoResponse, *, attempt: int = 0) -> Verdict:
    """The verdict on one attempt; ``attempt`` is the number of earlier ones."""
    if isinstance(response, NoResponse):
        cause = Cause.AMBIGUOUS if response.written else Cause.NOT_SENT
        return Verdict("retry", cause, f"{cause}: {response.detail}")
    status, body = response.status, parse_response_body(response.body)
    if 200 <= status < 300:
        if body.failed:
            return _verdict("rejected", Cause.BODY_ERROR, status, body.text)
        return Verdict("delivered", Cause.OK, body.text)
    default: tuple[Result, Cause] = ("retry", Cause.TRANSIENT if status >= 500 else Cause.UNEXPECTED)
    result, cause = _VERDICTS_BY_STATUS.get(status, default)
    if cause is Cause.UNCLEAR and attempt >= MAX_UNCLEAR_RETRIES:
        result = "rejected"
    return _verdict(result, cause, status, body.text)


def held_back(cause: Cause, text: str) -> Verdict:
    """The verdict on a request that was not sent or has no response yet: retry."""
    return Verdict("retry", cause, f"{cause}: {text}")


def _verdict(result: Result, cause: Cause, status: int, text: str) -> Verdict:
    hint = f" ({_HINTS[cause]})" if cause in _HINTS else ""
    return Verdict(result, cause, f"{cause}: impact.com answered {status}{hint}: {text}"[:MAX_TEXT_LENGTH])


class ParsedBody(msgspec.Struct, frozen=True):
    """Whether a body reports an error, and its text without personal data."""

    failed: bool
    text: str


def parse_response_body(body: bytes) -> ParsedBody:
    """Parse a body in any of the shapes that impact.com uses.

    ``{"Status","Message","Errors":[{"Field","Message"}]}``, ``{"Status","errors":[{"field","message"}]}``,
    ``{"errors","warnings"}`` and XML. https://integrations.impact.com/impact-brand/reference/errors
    """
    text = body.decode("utf-8", "replace").strip()
    if text.startswith("<"):
        return _parse_xml(text)
    try:
        decoded = msgspec.json.decode(body) if body else {}
    except (msgspec.DecodeError, RecursionError):
        return ParsedBody(failed=False, text=_clean(text))
    if not isinstance(decoded, dict):
        return ParsedBody(failed=False, text=_clean(text))
    lowered = {key.lower(): value for key, value in decoded.items()}
    errors = _field_errors(lowered.get("errors"))
    failed = str(lowered.get("status", "")).upper() == "ERROR" or bool(errors)
    if not failed:
        return ParsedBody(failed=False, text=_clean(text))
    return ParsedBody(failed=True, text=_clean("; ".join([str(lowered.get("message") or "ERROR"), *errors])))


def _field_errors(errors: Any) -> list[str]:
    if not isinstance(errors, list):
        return []
    found = []
    for error in errors:
        lowered = {str(key).lower(): value for key, value in error.items()} if isinstance(error, dict) else {}
        if str(lowered.get("level", "ERROR")).upper() == "ERROR":
            found.append(f"{lowered.get('field') or 'request'}: {lowered.get('message') or error}")
    return found


def _parse_xml(text: str) -> ParsedBody:
    """Parse a legacy response by its tags; an XML parser would need protection against hostile documents."""
    status = _tags(text, "Status")
    errors = [
        f"{(_tags(error, 'Field') or ['request'])[0]}: {(_tags(error, 'Message') or [''])[0]}"
        for error in _tags(text, "Error")
    ]
    failed = status[:1] == ["ERROR"] or bool(errors)
    message = (_tags(text, "Message") or ["ERROR"])[0]
    return ParsedBody(failed, _clean("; ".join([message, *errors]) if failed else text))


def _tags(text: str, name: str) -> list[str]:
    return [
        html.unescape(found).strip()
        for found in re.findall(rf"<{name}>(.*?)</{name}>", text[:MAX_XML_LENGTH], re.DOTALL)
    ]


def _clean(text: str) -> str:
    return redact_emails(text[:MAX_TEXT_LENGTH])
