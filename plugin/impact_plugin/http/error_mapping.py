"""Maps the errors that request handlers raise to refusals, for the router's and the senders' port."""

from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from impact_plugin.errors import EnvelopeError, StateUnavailableError
from impact_plugin.protocols.refusals import RefusalReason, RefusedError
from impact_plugin.spool.base import SpoolFullError

DEFECT: Final = "a defect of impact-plugin; see its log"
STATE_RETRY_SECONDS: Final = 5


def refusal_of(error: Exception, *, too_large: str = "", unreadable: RefusalReason) -> RefusedError | None:
    """Return the refusal for an error of a request handler, None for a defect of ours.

    ``too_large`` is the detail for a body that is too large, by default the error's own text. ``unreadable`` is the
    reason for a body that broke off or violates HTTP.
    """
    match error:
        case RefusedError():
            return error
        case web.HTTPRequestEntityTooLarge():
            detail = too_large or error.text or "the body is too large"
            return RefusedError(RefusalReason.BODY_TOO_LARGE, detail)
        case EnvelopeError():
            return RefusedError(RefusalReason.UNDECODABLE_BODY, str(error))
        case web.RequestPayloadError() | HttpProcessingError():
            return RefusedError(unreadable, type(error).__name__)
        case SpoolFullError():
            return RefusedError(RefusalReason.SPOOL_FULL, str(error), error.seconds)
        case StateUnavailableError():
            return RefusedError(RefusalReason.STATE_UNAVAILABLE, str(error), STATE_RETRY_SECONDS)
        case _:
            return None
