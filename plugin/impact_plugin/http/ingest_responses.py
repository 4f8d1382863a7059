"""The responses of the senders' port, chosen so that every sender reacts correctly.

A bad event is not an error of the request: for an error Jitsu retries the whole request for a day, and Kafka Connect
stops. Temporary failures are 429 or 503 with Retry-After, which all senders retry. We use no other statuses: Jitsu
treats 201 to 204 as failures, and Segment's SDKs treat 501 as permanent.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from aiohttp import web

from impact_plugin.errors import ImpactPluginError
from impact_plugin.http.replies import JSON
from impact_plugin.ingest.intake import ItemResult, Status
from impact_plugin.protocols.refusals import RefusalReason
from impact_transformers.normalize import redact_emails

MAX_RESULTS: Final = 100
MAX_DETAIL_CHARACTERS: Final = 200
"""Jitsu logs 255 characters of a response."""


class ItemReport(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One item that was not newly stored."""

    index: int
    message_id: str | None
    status: Status
    error: str = ""


class SingleReply(msgspec.Struct, frozen=True):
    """The request's only event is durable."""

    success: bool


class IngestReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The request is complete: do not retry it. ``more`` counts the results that are left out."""

    success: bool
    accepted: int
    rejected: int
    duplicates: int
    filtered: int
    results: list[ItemReport]
    more: int = 0


class IngestError(msgspec.Struct, frozen=True):
    """No event was accepted: ``error`` is the reason as one word, ``detail`` explains what to do."""

    success: bool
    error: str
    detail: str


class RejectedEventError(ImpactPluginError):
    """The only event of a request is unusable, and its source is ``strict``."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


STORED: Final = msgspec.json.encode(SingleReply(success=True))

STATUSES: Final[dict[RefusalReason, int]] = {
    RefusalReason.UNDECODABLE_BODY: 400,
    RefusalReason.UNKNOWN_KEY: 401,
    RefusalReason.WRONG_SIGNATURE: 401,
    RefusalReason.UNKNOWN_PATH: 404,
    RefusalReason.BODY_TOO_LARGE: 413,
    RefusalReason.BUSY: 429,
    RefusalReason.SPOOL_FULL: 429,
    RefusalReason.INTERNAL_ERROR: 500,
    RefusalReason.MEMORY: 503,
    RefusalReason.STATE_UNAVAILABLE: 503,
    RefusalReason.STOPPING: 503,
    RefusalReason.TOO_SLOW: 503,
}
"""The HTTP status of each refusal."""


def accepted_response(results: Sequence[ItemResult], *, single: bool) -> web.Response:
    """Return 200: the request is complete, and the body has the outcome of each item."""
    if single and results[0].status == "stored":
        return web.Response(body=STORED, content_type=JSON)
    counts = dict.fromkeys(("stored", "duplicate", "filtered", "rejected"), 0)
    reports: list[ItemReport] = []
    for index, result in enumerate(results):
        counts[result.status] += 1
        if result.status != "stored" and len(reports) < MAX_RESULTS:
            reports.append(ItemReport(index, result.message_id, result.status, _text(result)))
    reply = IngestReply(
        success=True,
        accepted=counts["stored"],
        rejected=counts["rejected"],
        duplicates=counts["duplicate"],
        filtered=counts["filtered"],
        results=reports,
        more=len(results) - counts["stored"] - len(reports),
    )
    return web.Response(body=msgspec.json.encode(reply), content_type=JSON)


def error_response(status: int, reason: str, detail: str, retry_seconds: int | None = None) -> web.Response:
    """Return an error: no event was accepted, and the sender may retry after ``retry_seconds``."""
    body = IngestError(success=False, error=reason, detail=redact_emails(detail)[:MAX_DETAIL_CHARACTERS])
    headers = {} if retry_seconds is None else {"Retry-After": str(retry_seconds)}
    return web.Response(body=msgspec.json.encode(body), status=status, headers=headers, content_type=JSON)


def _text(result: ItemResult) -> str:
    text = f"{result.reason}: {result.detail}" if result.detail else result.reason
    return redact_emails(text)[:MAX_DETAIL_CHARACTERS]
