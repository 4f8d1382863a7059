"""The one setting that chooses a backend, ``state.url``, and what each needs."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from impact_plugin.config.settings import DeliverySettings, StateSettings
from impact_plugin.errors import StateError
from impact_plugin.orders.embedded_ledger import EmbeddedLedgerSettings, open_embedded_ledger
from impact_plugin.orders.ledger import Ledger
from impact_plugin.store.base import SessionStore
from impact_plugin.store.embedded import EmbeddedSettings, open_embedded
from impact_plugin.store.engine import Capacities

EMBEDDED: Final = "embedded:"
HOUR_SECONDS: Final = 3600.0
DAY_SECONDS: Final = 24 * HOUR_SECONDS
SHORTEST_LEASE: Final = 120.0
"""Seconds that an attempt to send an order counts as in flight, at least: routers name deadlines of up to a minute."""

NO_CLIENT: Final = "state.url: a server needs the extra: pip install 'impact-plugin[redis]'"


@asynccontextmanager
async def open_store(settings: StateSettings, now: Callable[[], float]) -> AsyncIterator[SessionStore]:
    """Open the backend that the settings name; raises :class:`StateError` when it cannot be used."""
    capacities = Capacities(settings.max_claims, settings.max_identities, settings.max_answers)
    retention = settings.decision_retention_hours * HOUR_SECONDS
    referral = settings.click_memory_days * DAY_SECONDS
    if settings.url.reveal() == EMBEDDED:
        embedded = EmbeddedSettings(
            Path(settings.dir), capacities, retention, referral, settings.timeout_seconds, settings.durability
        )
        async with open_embedded(embedded, now) as store:
            yield store
        return
    try:
        from impact_plugin.store.redis import RedisSettings, open_redis  # noqa: PLC0415 - an extra: most do without it
    except ImportError as error:
        raise StateError(NO_CLIENT) from error
    server = RedisSettings(settings.url, capacities, retention, referral, settings.timeout_seconds)
    async with open_redis(server) as shared:
        yield shared


@asynccontextmanager
async def open_ledger(
    settings: StateSettings, delivery: DeliverySettings, now: Callable[[], float]
) -> AsyncIterator[Ledger]:
    """Open the ledger of orders at the place that the settings name; raises :class:`StateError` when it cannot be used.

    ``now`` is the time in seconds since 1970.
    """
    retention = settings.order_memory_days * DAY_SECONDS
    window = delivery.dedup_window_hours * HOUR_SECONDS
    lease, timeout = max(SHORTEST_LEASE, 2 * delivery.timeout_seconds), settings.timeout_seconds
    if settings.url.reveal() == EMBEDDED:
        folder, durability = Path(settings.dir), settings.durability
        embedded = EmbeddedLedgerSettings(folder, settings.max_orders, retention, window, lease, timeout, durability)
        async with open_embedded_ledger(embedded, now) as ledger:
            yield ledger
        return
    try:
        from impact_plugin.store.redis_ledger import (  # noqa: PLC0415 - an extra: most do without it
            RedisLedgerSettings,
            open_redis_ledger,
        )
    except ImportError as error:
        raise StateError(NO_CLIENT) from error
    async with open_redis_ledger(RedisLedgerSettings(settings.url, retention, window, lease, timeout), now) as shared:
        yield shared
