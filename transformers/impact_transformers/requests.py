"""The two requests impact.com is sent, as form fields in the vendor's spelling.

Every value is a string: rudder-server prints a JSON number in a form as a Go float, which turns 1000000 into ``1e+06``.
"""

from typing import Literal, TypeAlias

import msgspec

PageLoadLabel: TypeAlias = Literal["clicks", "pageload"]


class PageLoad(msgspec.Struct, frozen=True, gc=False):
    """``POST /PageLoad``. https://integrations.impact.com/impact-brand/reference/create-a-pageload

    ``endpoint_path`` is the label routers and metrics use; impact.com receives the same request for both.
    """

    form: dict[str, str]
    endpoint_path: PageLoadLabel = "pageload"


class Conversion(msgspec.Struct, frozen=True, gc=False):
    """``POST /Advertisers/{AccountSID}/Conversions``.

    https://integrations.impact.com/impact-brand/reference/submit-a-conversion
    """

    form: dict[str, str]
    endpoint_path: Literal["conversions"] = "conversions"


Request: TypeAlias = PageLoad | Conversion

PAGE_LOAD_IDENTITIES = ("CustomProfileId", "CustomerId", "ClickId", "GoogAId", "AndroidId", "AppleIfa", "AppleIfv")
"""A Page Load needs one of these. https://integrations.impact.com/impact-brand/reference/create-a-pageload"""

ATTRIBUTION_KEYS = (
    "CustomProfileId",
    "CustomerId",
    "ClickId",
    "CustomClickId",
    "OrderPromoCode",
    "PromoCode",
    "MediaId",
    "MediaPartnerId",
    "UniqueUrl",
    "CallerId",
    "GoogAId",
    "AndroidId",
    "AppleIfa",
    "AppleIfv",
)
"""A Conversion needs one of these. https://integrations.impact.com/impact-brand/docs/attribution-data"""

EVENT_IDENTIFIERS = ("EventTypeId", "ActionTrackerId", "EventTypeCode")
"""A Conversion names its event type by exactly one of these.

https://integrations.impact.com/impact-brand/reference/submit-a-conversion
"""

ORDER_AMOUNTS = ("Amount", "OrderSubTotalPostDiscount", "OrderSubTotalPreDiscount", "OrderSubtotal")
"""Order-level money that must not stand beside items or a discount.

https://integrations.impact.com/impact-brand/docs/order-level-data
"""
