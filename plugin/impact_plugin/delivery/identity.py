"""Identities within a form: the order, so that it is sent once, and the visitor, so that requests keep their order."""

from collections.abc import Mapping
from typing import Final

from impact_plugin.delivery.pipeline import OrderIdentity

_EVENT_TYPES: Final = (("EventTypeId", "id"), ("ActionTrackerId", "id"), ("EventTypeCode", "code"))
"""The first two are synonyms: https://integrations.impact.com/impact-brand/reference/submit-a-conversion"""

_ORDER_ID_MACRO: Final = "IR_AN_64_TS"
"""impact.com replaces it with a new id each time, so such an order has no identity."""


def order_identity(account: str, form: Mapping[str, str]) -> OrderIdentity | None:
    """The identity of an order; None if impact.com will refuse it or assign an id of its own."""
    order_id = form.get("OrderId")
    event_type = next((f"{kind}:{form[name]}" for name, kind in _EVENT_TYPES if form.get(name)), None)
    if not order_id or event_type is None or order_id == _ORDER_ID_MACRO:
        return None
    return OrderIdentity(account, form.get("CampaignId", ""), event_type, order_id)


def visitor_lane(form: Mapping[str, str]) -> str | None:
    """The lane of a request: the visitor's anonymous id if there is one, otherwise the user id.

    The landing before a login and the order after it have only the anonymous id in common.
    """
    return form.get("CustomProfileId") or form.get("CustomerId")
