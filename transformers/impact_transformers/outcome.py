"""What becomes of one event: exactly one of Send, Skip, Reject, each with a reason from one closed list."""

from enum import StrEnum
from typing import Final, Literal, TypeAlias

import msgspec

from impact_transformers.configuration import DestinationConfig
from impact_transformers.requests import Request


class Reason(StrEnum):
    """Why an event was skipped or rejected: a metric label, a log key and a heading in the docs at once."""

    UNSUPPORTED_TYPE = "unsupported_type"
    IDENTIFY_DISABLED = "identify_disabled"
    PAGE_DISABLED = "page_disabled"
    SCREEN_DISABLED = "screen_disabled"
    UNMAPPED_TRACK = "unmapped_track"
    CONSENT_DENIED = "consent_denied"
    REPEATED_CLICK = "repeated_click"
    UNDECODABLE_EVENT = "undecodable_event"
    MISSING_TYPE = "missing_type"
    CONFIGURATION = "configuration"
    MISSING_IDENTITY = "missing_identity"
    MISSING_ATTRIBUTION_KEY = "missing_attribution_key"
    MISSING_ORDER_ID = "missing_order_id"
    INVALID_CURRENCY = "invalid_currency"
    INVALID_VALUE = "invalid_value"
    EMAIL_IN_PARAMETER = "email_in_parameter"
    TOO_LONG = "too_long"
    INCOMPLETE_ITEM = "incomplete_item"
    AMOUNT_CONFLICT = "amount_conflict"
    TRANSFORM_FAULT = "transform_fault"


Category: TypeAlias = Literal["filtered", "configuration", "instrumentation", "unsupported", "fault"]


class ReasonFacts(msgspec.Struct, frozen=True):
    """What the docs, ``explain`` and the router are told about a :class:`Reason`."""

    category: Category
    meaning: str
    fix: str


REASONS: Final[dict[Reason, ReasonFacts]] = {
    Reason.UNSUPPORTED_TYPE: ReasonFacts(
        "filtered",
        "The call is not one impact.com has a use for (group, alias and the like).",
        "Nothing to do; or stop routing this call to the destination.",
    ),
    Reason.IDENTIFY_DISABLED: ReasonFacts(
        "filtered",
        "identify calls are switched off for this destination.",
        "Set enableIdentifyEvents to true if the visitor's identifiers should reach impact.com.",
    ),
    Reason.PAGE_DISABLED: ReasonFacts(
        "filtered",
        "page calls are switched off for this destination.",
        "Set enablePageEvents to true: impact.com attributes by page loads on every page.",
    ),
    Reason.SCREEN_DISABLED: ReasonFacts(
        "filtered",
        "screen calls are switched off for this destination.",
        "Set enableScreenEvents to true if app opens should reach impact.com.",
    ),
    Reason.UNMAPPED_TRACK: ReasonFacts(
        "filtered",
        "The track call is named in no list and unmappedTrack is skip.",
        "Name the event in actionEventNames, installEventNames or eventTypes, or set unmappedTrack to page_load.",
    ),
    Reason.CONSENT_DENIED: ReasonFacts(
        "filtered",
        "The consent gate is on and the event does not carry the visitor's consent.",
        "Nothing to do if the visitor refused; else check consentPaths against what the events carry.",
    ),
    Reason.REPEATED_CLICK: ReasonFacts(
        "filtered",
        "The landing repeats a click of the same visitor within its window, and repeatedClicks is drop.",
        "Nothing to do; or set repeatedClicks to page_load, so that impact.com sees every page.",
    ),
    Reason.UNDECODABLE_EVENT: ReasonFacts(
        "instrumentation",
        "The event is not one readable JSON object.",
        "Find the sender of this event and let it send one JSON object an event.",
    ),
    Reason.MISSING_TYPE: ReasonFacts(
        "instrumentation",
        "The event has no type.",
        "Set type to page, screen, identify or track.",
    ),
    Reason.CONFIGURATION: ReasonFacts(
        "configuration",
        "The destination's configuration cannot be used.",
        "Correct the key that the error names, then re-send what was rejected meanwhile.",
    ),
    Reason.MISSING_IDENTITY: ReasonFacts(
        "instrumentation",
        "A Page Load needs a visitor: no anonymousId, userId, click id or device id was found.",
        "Let the SDK send anonymousId or userId.",
    ),
    Reason.MISSING_ATTRIBUTION_KEY: ReasonFacts(
        "instrumentation",
        "A Conversion needs a key to attribute it by: no click id, customer id, profile id, promo code or device id.",
        "Send anonymousId or userId with the event, or a click id in properties.clickId.",
    ),
    Reason.MISSING_ORDER_ID: ReasonFacts(
        "instrumentation",
        "An action needs an order id of its own; a lead or install needs at least a messageId to derive one from.",
        "Send properties.order_id, or name the path under parameterSources.OrderId.",
    ),
    Reason.INVALID_CURRENCY: ReasonFacts(
        "instrumentation",
        "The currency is not an ISO-4217 code.",
        "Send a three-letter code such as EUR in properties.currency.",
    ),
    Reason.INVALID_VALUE: ReasonFacts(
        "instrumentation",
        "A value cannot be written in the form its parameter needs.",
        "Send the value in the form that the error names.",
    ),
    Reason.EMAIL_IN_PARAMETER: ReasonFacts(
        "instrumentation",
        "A parameter other than CustomerEmail would carry an e-mail address in clear.",
        "Send something else at the path named; e-mails belong in traits.email, where they are hashed.",
    ),
    Reason.TOO_LONG: ReasonFacts(
        "instrumentation",
        "An identifier is longer than impact.com accepts; cutting it would make it another identifier.",
        "Send a shorter identifier at the path that the error names.",
    ),
    Reason.INCOMPLETE_ITEM: ReasonFacts(
        "instrumentation",
        "A product lacks its sku, price or whole quantity, and the order has no amount to report instead.",
        "Send sku, price and quantity for every product, or the order's subtotal or total.",
    ),
    Reason.AMOUNT_CONFLICT: ReasonFacts(
        "configuration",
        "Two parameters would report the same money twice: ItemPrice and ItemSubTotal, or items and an amount.",
        "Map only one of the two; switch a default off with an empty list under parameterSources.",
    ),
    Reason.TRANSFORM_FAULT: ReasonFacts(
        "fault",
        "A defect of this software; the event was fine until shown otherwise.",
        "Report it with the output of impact-plugin explain for this event.",
    ),
}


class Notice(StrEnum):
    """What an operator should know about a request that is sent all the same."""

    EVENT_DATE_MISSING = "event_date_missing"
    OLD_EVENT = "old_event"
    ITEMS_INCOMPLETE = "items_incomplete"
    UNDECIDED = "undecided"


NOTICES: Final[dict[Notice, str]] = {
    Notice.EVENT_DATE_MISSING: "The event holds no usable time; EventDate is NOW.",
    Notice.OLD_EVENT: "The event was received over 88 days after it happened; impact.com ignores such rows in files.",
    Notice.ITEMS_INCOMPLETE: "A product lacks sku, price or a whole quantity; the order's amount stands for the items.",
    Notice.UNDECIDED: "The session state was out of reach: the click and its id were decided by one process alone.",
}


class Send(msgspec.Struct, frozen=True, gc=False):
    """The event deserves this one request; ``config`` tells whose account it is for."""

    request: Request
    config: DestinationConfig
    notices: tuple[Notice, ...] = ()


class Skip(msgspec.Struct, frozen=True):
    """The event needs no request, and that is as it should be."""

    reason: Reason
    detail: str


class Reject(msgspec.Struct, frozen=True):
    """The event needs a request that impact.com would refuse, or that would harm somebody.

    ``parameter`` is impact.com's name and ``path`` the place in the event, where they apply.
    """

    reason: Reason
    detail: str
    parameter: str | None = None
    path: str | None = None

    @property
    def fix(self) -> str:
        """What the operator can do about it."""
        return REASONS[self.reason].fix


Outcome: TypeAlias = Send | Skip | Reject


class RefusalError(Exception):
    """Raised by a normalisation rule for a value that must not be sent; ``transform`` turns it into a Reject."""

    def __init__(self, reason: Reason, detail: str, *, parameter: str | None = None, path: str | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.parameter = parameter
        self.path = path

    def at(self, parameter: str, path: str) -> "RefusalError":
        """The same refusal, knowing where it happened."""
        return RefusalError(self.reason, self.detail, parameter=parameter, path=path)

    def as_reject(self) -> Reject:
        """The outcome this refusal leads to."""
        return Reject(self.reason, self.detail, parameter=self.parameter, path=self.path)
