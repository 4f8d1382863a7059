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
    AFTER_SALE = "after_sale"
    UNDECODABLE_EVENT = "undecodable_event"
    MISSING_TYPE = "missing_type"
    CONFIGURATION = "configuration"
    MISSING_IDENTITY = "missing_identity"
    MISSING_ATTRIBUTION_KEY = "missing_attribution_key"
    MISSING_ORDER_ID = "missing_order_id"
    MISSING_EVENT_TYPE = "missing_event_type"
    INVALID_AMOUNT = "invalid_amount"
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
    Reason.AFTER_SALE: ReasonFacts(
        "filtered",
        "The event reports what became of an order (a refund, a cancellation, a change): no visit and no new order.",
        "Nothing to do; impact.com's own reversals and modifications are not sent yet.",
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
    Reason.MISSING_EVENT_TYPE: ReasonFacts(
        "instrumentation",
        "The event's name cannot be the code of an event type, and the destination gives it neither id nor code.",
        "Give the event an id or a code in eventTypes; a code has at most 64 characters and holds no e-mail address.",
    ),
    Reason.INVALID_AMOUNT: ReasonFacts(
        "instrumentation",
        "The order's amount cannot be read, and no other field tells what the order is worth.",
        "Send a number, or text such as 1234.50, at the path that the error names; then send the order again.",
    ),
    Reason.TRANSFORM_FAULT: ReasonFacts(
        "fault",
        "A defect of this software; the event was fine until shown otherwise.",
        "Report it with the output of impact-plugin explain for this event.",
    ),
}


class NoticeReason(StrEnum):
    """What an operator should know about a request that is sent all the same: a metric label, as :class:`Reason` is."""

    EVENT_DATE_MISSING = "event_date_missing"
    OLD_EVENT = "old_event"
    PARAMETER_DROPPED = "parameter_dropped"
    ORDER_ID_DIGESTED = "order_id_digested"
    AMOUNT_AMBIGUOUS = "amount_ambiguous"
    AMOUNT_UNREADABLE = "amount_unreadable"
    AMOUNT_MISSING = "amount_missing"
    AMOUNT_NEGATIVE = "amount_negative"
    AMOUNTS_DISAGREE = "amounts_disagree"
    ITEMS_ADJUSTED = "items_adjusted"
    ITEMS_INCOMPLETE = "items_incomplete"
    CURRENCY_MISSING = "currency_missing"
    SEVERAL_COUPONS = "several_coupons"
    LOOKS_LIKE_ORDER = "looks_like_order"
    UNDECIDED = "undecided"


NOTICES: Final[dict[NoticeReason, str]] = {
    NoticeReason.EVENT_DATE_MISSING: "The event holds no usable time; EventDate is NOW.",
    NoticeReason.OLD_EVENT: "Received over 88 days after it happened; impact.com ignores such rows in files.",
    NoticeReason.PARAMETER_DROPPED: "A value that impact.com would not take was left out, and the rest was sent.",
    NoticeReason.ORDER_ID_DIGESTED: "The order id is too long or holds an e-mail address; its digest stands for it.",
    NoticeReason.AMOUNT_AMBIGUOUS: "A separator may mean thousands or decimals, and nothing in the order tells which.",
    NoticeReason.AMOUNT_UNREADABLE: "An amount cannot be read and counts as missing.",
    NoticeReason.AMOUNT_MISSING: "The order carries no amount; it was sent without one.",
    NoticeReason.AMOUNT_NEGATIVE: "The order's amount is negative; 0.00 was sent.",
    NoticeReason.AMOUNTS_DISAGREE: "The order's fields do not tell one amount for certain; orderAmount can settle it.",
    NoticeReason.ITEMS_ADJUSTED: "The items do not sum to the order's amount; each was sent with its share of it.",
    NoticeReason.ITEMS_INCOMPLETE: "A product has no readable price, no name, or is no object.",
    NoticeReason.CURRENCY_MISSING: "The order names no usable currency; impact.com takes the account's.",
    NoticeReason.SEVERAL_COUPONS: "The order names several coupons; the first one was sent.",
    NoticeReason.LOOKS_LIKE_ORDER: "A track that became a visit has an order id and an amount: is it an order?",
    NoticeReason.UNDECIDED: "The session state was out of reach; one process decided alone about click and click id.",
}


class Notice(msgspec.Struct, frozen=True, gc=False):
    """One thing to know about a request that is sent all the same.

    ``detail`` tells of this event and holds no personal data; ``parameter`` is impact.com's name and ``path`` the place
    in the event, where they apply.
    """

    reason: NoticeReason
    detail: str = ""
    parameter: str | None = None
    path: str | None = None

    def __str__(self) -> str:
        place = " from ".join(part for part in (self.parameter, self.path) if part)
        return ": ".join(part for part in (self.reason.value, place, self.detail or NOTICES[self.reason]) if part)


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


class UnusableValueError(Exception):
    """Raised by a rule for a value that must not be sent: it is left out with a notice, and the next path is tried.

    ``instead`` is what the rule offers to send in its place.
    """

    def __init__(
        self, detail: str, reason: NoticeReason = NoticeReason.PARAMETER_DROPPED, *, instead: str | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.reason = reason
        self.instead = instead

    def as_notice(self, parameter: str, path: str) -> Notice:
        """What is told about it, now that it is known where the value stood."""
        return Notice(self.reason, self.detail, parameter, path)


class RefusalError(Exception):
    """Raised for an event that must not be sent at all; ``transform`` turns it into a Reject."""

    def __init__(self, reason: Reason, detail: str, *, parameter: str, path: str) -> None:
        super().__init__(detail)
        self.reject = Reject(reason, detail, parameter=parameter, path=path)
