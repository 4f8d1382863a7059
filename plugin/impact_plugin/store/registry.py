"""The one setting that chooses a backend, ``state.url``, and what each needs."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from impact_plugin.errors import StateError
from impact_plugin.settings import StateSettings
from impact_plugin.store.base import SessionStore
from impact_plugin.store.embedded import EmbeddedSettings, open_embedded
from impact_plugin.store.engine import Capacities

EMBEDDED: Final = "embedded:"
HOUR_SECONDS: Final = 3600.0
DAY_SECONDS: Final = 24 * HOUR_SECONDS


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
        raise StateError("state.url: a server needs the extra: pip install 'impact-plugin[redis]'") from error
    server = RedisSettings(settings.url, capacities, retention, referral, settings.timeout_seconds)
    async with open_redis(server) as shared:
        yield shared
