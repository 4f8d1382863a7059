"""Which conversions are duplicates to impact.com: those of an order that it received shortly before."""

from collections.abc import Mapping
from typing import Final

from impact_plugin.testing.impact_parameters import EVENT_TYPES, canonical

GENERATED_ORDER_ID: Final = "IR_AN_64_TS"
"""A macro for which impact.com generates an order id, so that no two are equal."""


class DuplicateOrders:
    """Remembers order ids for ``window`` seconds, at most ``maxlen``; a window of None remembers none.

    An order id is unique within an event type:
    https://integrations.impact.com/impact-brand/reference/submit-a-conversion
    """

    def __init__(self, window: float | None, maxlen: int) -> None:
        self._window = window
        self._maxlen = maxlen
        self._first_seen: dict[tuple[str, str], float] = {}

    def add(self, fields: Mapping[str, str], now: float) -> bool:
        """Remember the order of a conversion; returns whether it is a duplicate."""
        order_id = canonical(fields, "OrderId")
        if self._window is None or order_id is None or order_id == GENERATED_ORDER_ID:
            return False
        key = (next((fields[name] for name in EVENT_TYPES if name in fields), ""), order_id)
        first = self._first_seen.get(key)
        if first is not None and now - first < self._window:
            return True
        self._first_seen.pop(key, None)
        self._first_seen[key] = now
        if len(self._first_seen) > self._maxlen:
            del self._first_seen[next(iter(self._first_seen))]
        return False

    def clear(self) -> None:
        """Forget all orders."""
        self._first_seen.clear()
