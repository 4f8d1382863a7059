"""From a page, screen, identify or unmapped track to a Page Load."""

from collections.abc import Mapping
from typing import Any

from impact_transformers.destination import Destination
from impact_transformers.event_date import settle_date
from impact_transformers.events import KnownEvent
from impact_transformers.outcome import Notice, Reason, RefusalError
from impact_transformers.requests import PAGE_LOAD_IDENTITIES, PageLoad


def assemble_page_load(
    event: KnownEvent, destination: Destination, message: Mapping[str, Any] | None, notices: list[Notice]
) -> PageLoad:
    """Fill the form; what must not be sent of the event is told in ``notices``."""
    form: dict[str, str] = {}
    destination.page_load.fill(event, message, form, "", notices)
    settle_date(form, event.received_at)
    if form.get("TrackingConsent") == "false":
        form.pop("CustomerEmail", None)
    return PageLoad(form)


def check_identity(form: Mapping[str, str]) -> None:
    """Raise :class:`RefusalError` when impact.com would have nobody to credit the visit to."""
    if "CustomProfileId" not in form and not any(name in form for name in PAGE_LOAD_IDENTITIES):
        raise RefusalError(
            Reason.MISSING_IDENTITY,
            f"a Page Load needs one of {', '.join(PAGE_LOAD_IDENTITIES)}",
            parameter="CustomProfileId",
            path="anonymousId",
        )
