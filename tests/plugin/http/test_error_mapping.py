"""Errors of request handlers, as the refusals that clients get."""

import msgspec
import pytest
from aiohttp import web
from aiohttp.http_exceptions import TransferEncodingError

from impact_plugin.errors import EnvelopeError, StateUnavailableError
from impact_plugin.http.error_mapping import refusal_of
from impact_plugin.protocols.refusals import RefusalReason, RefusedError
from impact_plugin.spool.base import SpoolFullError

REFUSALS = [
    (RefusedError(RefusalReason.BUSY, "busy", 1), RefusalReason.BUSY, "busy", 1),
    (web.HTTPRequestEntityTooLarge(max_size=1, actual_size=2), RefusalReason.BODY_TOO_LARGE, "send less", None),
    (EnvelopeError("not a batch"), RefusalReason.UNDECODABLE_BODY, "not a batch", None),
    (web.RequestPayloadError("a@example.com"), RefusalReason.UNREADABLE_BODY, "RequestPayloadError", None),
    (TransferEncodingError("a@example.com"), RefusalReason.UNREADABLE_BODY, "TransferEncodingError", None),
    (SpoolFullError("full", 7), RefusalReason.SPOOL_FULL, "full", 7),
    (StateUnavailableError("locked"), RefusalReason.STATE_UNAVAILABLE, "locked", 5),
]


@pytest.mark.parametrize(
    ("error", "reason", "detail", "seconds"), REFUSALS, ids=[type(case[0]).__name__ for case in REFUSALS]
)
def test_an_error_becomes_a_refusal(error: Exception, reason: RefusalReason, detail: str, seconds: int | None) -> None:
    """With a detail that never quotes the body."""
    refused = refusal_of(error, too_large="send less", unreadable=RefusalReason.UNREADABLE_BODY)
    assert refused is not None
    assert (reason, detail, seconds) == (refused.reason, refused.detail, refused.retry_seconds)


@pytest.mark.parametrize("error", [KeyError("x"), msgspec.DecodeError("x"), RecursionError()])
def test_a_defect_is_not_a_refusal(error: Exception) -> None:
    """It must not become a 400, after which a sender drops its events."""
    assert refusal_of(error, unreadable=RefusalReason.UNDECODABLE_BODY) is None
