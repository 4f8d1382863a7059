"""What tells one order from another, whoever asks for its delivery."""

from collections.abc import Mapping
from typing import Final

from impact_plugin.delivery.pipeline import OrderIdentity

_EVENT_TYPES: Final = (("EventTypeId", "id"), ("ActionTrackerId", "id"), ("EventTypeCode", "code"))
"""The first two are one: https://integrations.impact.com/impact-brand/reference/submit-a-conversion"""

_ORDER_ID_MACRO: Final = "IR_AN_64_TS"
"""impact.com replaces it by an id of its own, another one each time: such an order has no identity."""


def order_identity(account: str, form: Mapping[str, str]) -> OrderIdentity | None:
    """The identity of an order; None where impact.com will refuse it or make up an id of its own."""
    order_id = form.get("OrderId")
    named = next(((kind, form[name]) for name, kind in _EVENT_TYPES if form.get(name)), None)
    if not order_id or named is None or order_id == _ORDER_ID_MACRO:
        return None
    return OrderIdentity(account, form.get("CampaignId", ""), ":".join(named), order_id)


def visitor_lane(form: Mapping[str, str]) -> str | None:
    """Whose requests go in order: of the visitor's ids the anonymous one first.

    The landing before the log-in and the order after it have only that in common.
    """
    return form.get("CustomProfileId") or form.get("CustomerId")
