"""Names of track events that are known without configuration, in all the spellings that libraries make of them."""

from itertools import product
from typing import Final

ORDER_COMPLETED: Final = "Order Completed"
APPLICATION_INSTALLED: Final = "Application Installed"


def _spellings(*words: str) -> frozenset[str]:
    """The words in both orders, with a blank, an underscore or nothing before, between and after them.

    As Segment's own libraries match: ``/^[ _]?completed[ _]?order[ _]?$|^[ _]?order[ _]?completed[ _]?$/i``.
    https://github.com/segmentio/analytics-events
    """
    gaps = ("", " ", "_")
    return frozenset(
        f"{before}{first}{between}{second}{after}".strip()
        for word in words
        for first, second in (("order", word), (word, "order"))
        for before, between, after in product(gaps, gaps, gaps)
    )


ORDER_ALIASES: Final = _spellings("completed")
"""``Order Completed`` as any library writes it, in lower case."""

AFTER_SALE: Final = _spellings("refunded", "cancelled", "canceled", "updated")
"""What happened to an order later, in lower case: reversals and modifications, never visits and never conversions."""

NOT_ORDERS: Final = frozenset(
    {
        "checkout started",
        "checkout step viewed",
        "checkout step completed",
        "payment info entered",
        "coupon entered",
        "coupon applied",
        "coupon denied",
        "coupon removed",
    }
)
"""Events that carry an order id and amounts before there is an order, in lower case.

https://segment.com/docs/connections/spec/ecommerce/v2/
"""
