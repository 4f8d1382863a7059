"""The answers of the port for senders, which each of them understands.

What is wrong with a single event is no error of the request: senders repeat a whole request for it, Jitsu for a day,
and Kafka Connect stops. Whatever may be better later is 429 or 503 with Retry-After, which all of them repeat. Other
statuses are never used: Jitsu takes 201 to 204 for a failure, and Segment's SDKs 501 for a final one.
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
"""Jitsu's log shows 255 characters of an answer."""


class ItemReport(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One item that was not simply stored."""

    index: int
    message_id: str | None
    status: Status
    error: str = ""


class SingleReply(msgspec.Struct, frozen=True):
    """The one event of the request is durable."""

    success: bool


class IngestReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The request is done with, and must not come again. ``more`` counts the results that are left out."""

    success: bool
    accepted: int
    rejected: int
    duplicates: int
    filtered: int
    results: list[ItemReport]
    more: int = 0


class IngestError(msgspec.Struct, frozen=True):
    """Nothing of the request was taken: the reason as one word, and what there is to do about it."""

    success: bool
    error: str
    detail: str


class RejectedEventError(ImpactPluginError):
    """The one event of a request cannot be used, and its source is ``strict``."""

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
"""The status of a refusal."""


def taken_answer(results: Sequence[ItemResult], *, single: bool) -> web.Response:
    """200: all of it is done with, and the body says what became of each item."""
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


def error_answer(status: int, reason: str, detail: str, retry_seconds: int | None = None) -> web.Response:
    """Nothing was taken; with ``retry_seconds`` the sender is to repeat the request after them."""
    body = IngestError(success=False, error=reason, detail=redact_emails(detail)[:MAX_DETAIL_CHARACTERS])
    headers = {} if retry_seconds is None else {"Retry-After": str(retry_seconds)}
    return web.Response(body=msgspec.json.encode(body), status=status, headers=headers, content_type=JSON)


def _text(result: ItemResult) -> str:
    text = f"{result.reason}: {result.detail}" if result.detail else result.reason
    return redact_emails(text)[:MAX_DETAIL_CHARACTERS]
