"""impact.com's answers to page loads and conversions, by its published rules.

Sources:

- https://integrations.impact.com/impact-brand/reference/create-a-pageload
- https://integrations.impact.com/impact-brand/reference/submit-a-conversion
- https://integrations.impact.com/impact-brand/reference/errors
"""

import base64
import binascii
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qs, urlsplit

import msgspec

from impact_plugin.testing.impact_forms import Form
from impact_plugin.testing.impact_responses import FakeAnswer, failure
from impact_plugin.testing.impact_rules import Report, RuleViolation, check_conversion, check_page_load, violation

PAGE_LOAD_PATH: Final = "/PageLoad"


class ReceivedRequest(msgspec.Struct, frozen=True):
    """A request as it was received; ``received_at`` is in seconds since 1970."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: dict[str, str]
    authorization: str | None
    wants_xml: bool
    form: Form
    received_at: float

    @property
    def account_sid(self) -> str | None:
        """The account of a conversions path; None for every other path."""
        match self.path.split("/"):
            case ["", "Advertisers", sid, "Conversions"] if sid:
                return sid
            case _:
                return None


class ImpactAnswers:
    """Answers requests as impact.com does; :class:`~impact_plugin.testing.FakeImpact` explains the parameters."""

    def __init__(self, *, auth_token: str | None, forbidden: bool, strict: bool) -> None:
        self.auth_token = auth_token
        self._forbidden = forbidden
        self._strict = strict

    def answer(self, request: ReceivedRequest) -> FakeAnswer:
        """Return the answer to a request."""
        sid = request.account_sid
        if sid is None and request.path != PAGE_LOAD_PATH:
            return FakeAnswer(404, failure("Not Found"))
        if request.method != "POST":
            return FakeAnswer(405, failure("Method Not Allowed"), headers={"Allow": "POST"})
        if sid is not None and (denial := self._denial(sid, request.authorization)) is not None:
            return denial
        report = self._check(request)
        if not report.errors:
            return FakeAnswer(200, acceptance(request, report.warnings), accepted=True)
        if sid is None:
            return FakeAnswer(400, {"errors": report.errors, "warnings": report.warnings})
        return FakeAnswer(400, {"Status": "ERROR", "errors": report.errors})

    def _denial(self, sid: str, authorization: str | None) -> FakeAnswer | None:
        """Check HTTP Basic: https://integrations.impact.com/agency-v3/readme/status-and-error-codes ."""
        user, token = credentials(authorization)
        if user != sid or not token or self.auth_token not in (None, token):
            content = failure("Authentication failed", "Authorization", "HTTP Basic with AccountSID and AuthToken")
            return FakeAnswer(401, content, headers={"WWW-Authenticate": 'Basic realm="impact.com"'})
        if self._forbidden:
            content = failure("Access denied", "Authorization", "the token has no scope for this endpoint")
            return FakeAnswer(403, content)
        return None

    def _check(self, request: ReceivedRequest) -> Report:
        is_page_load = request.path == PAGE_LOAD_PATH
        form = request.form
        problems = [*form.problems]
        # https://integrations.impact.com/impact-brand/reference/versioning allows this one in the query.
        problems += [violation(name, "belongs in the body") for name in request.query if name != "IrVersion"]
        if is_page_load and self._strict and request.authorization is not None:
            problems.append(violation("Authorization", "the tracking host needs no credentials; do not send it any"))
        if problems and not form.fields:
            return Report(tuple(problems))
        report = check_page_load(form.fields, strict=self._strict) if is_page_load else check_conversion(form.fields)
        return Report((*problems, *report.errors), report.warnings)


def acceptance(request: ReceivedRequest, warnings: tuple[RuleViolation, ...] = ()) -> dict[str, object]:
    """Return the content of the answer to a request that impact.com accepts."""
    if request.path != PAGE_LOAD_PATH:
        submission = f"/Advertisers/{request.account_sid}/APISubmissions/A-{uuid.uuid4()}"
        return {"Status": "QUEUED", "QueuedUri": submission}
    landing_page = _landing_page(request.form.fields.get("PageUrl", ""))
    return {
        **({"landingPage": landing_page} if landing_page else {}),
        "clickId": str(uuid.uuid4()),
        "sessionStart": datetime.fromtimestamp(request.received_at, UTC).isoformat(timespec="seconds"),
        "warnings": warnings,
    }


def credentials(authorization: str | None) -> tuple[str, str]:
    """Return user and password of HTTP Basic; two empty texts for anything else."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return user, password


def _landing_page(page_url: str) -> str | None:
    """Return where a tracking link (``/c/<partner>/<ad>/<program>``) leads; None for every other address."""
    if "/c/" not in page_url:
        return None
    try:
        parts = urlsplit(page_url)
    except ValueError:
        return None
    match parts.path.split("/"):
        case ["", "c", partner, ad, program] if f"{partner}{ad}{program}".isdigit():
            return parse_qs(parts.query).get("u", ["https://www.example.com/"])[0]
        case _:
            return None
