"""``GET /features``: what the router may ask of us, merged with what the stock transformer says.

The router waits for it before it starts, and asks again every ten seconds; so it is served from memory, and what the
stock transformer said last is kept in the state folder for a start without it.
https://github.com/rudderlabs/rudder-server/blob/master/services/transformer/features_impl.go
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from impact_plugin.config.settings import RudderSettings
from impact_plugin.files import write_whole
from impact_plugin.http.gateway import Gateway
from impact_plugin.tasks import beside
from impact_transformers.events import UNREADABLE

FILE: Final = "features.json"
REFRESH_SECONDS: Final = 5.0
"""Half of the router's own pause, so that an upgrade of the stock transformer shows as soon as it would without us."""

FLAGS: Final = ("supportTransformerProxyV1", "supportDestTransformCompactedPayloadV1")
"""They hold for all destinations: the router would send the stock transformer what an old one cannot read."""

SOURCE_FLAGS: Final = ("upgradedToSourceTransformV2", "supportSourceTransformV1")
"""rudder-server panics when neither of the two is true."""

UNKNOWN: Final[dict[str, Any]] = {"routerTransform": {}, "regulations": [], **dict.fromkeys(SOURCE_FLAGS, True)}
"""What every stock transformer of the last years can do."""

OWN: Final[dict[str, Any]] = {**UNKNOWN, **dict.fromkeys(FLAGS, True)}


class Features:
    """The reply, from the upstream's latest answer and our settings; the last good answer outlives the upstream."""

    def __init__(self, settings: RudderSettings, gateway: Gateway | None, folder: Path) -> None:
        self._settings = settings
        self._gateway = gateway
        self._file = folder / FILE
        self._base: dict[str, Any] | None = OWN if gateway is None else None
        if gateway is not None:
            with suppress(OSError):
                self._take(self._file.read_bytes())

    async def reply(self) -> bytes:
        """The body for the router; always one it can start with.

        Only while nothing is known of the upstream is it asked first: what the router hears at its own start about
        compacted bodies holds for as long as it runs.
        """
        if self._base is None:
            await self.refresh()
        base = UNKNOWN if self._base is None else self._base
        told = base.get("routerTransform")
        allowed = dict(told) if isinstance(told, dict) else {}
        for name in self._settings.destination_types:
            if self._settings.router_transform:
                allowed[name] = True
            else:
                allowed.pop(name, None)
        return msgspec.json.encode({**base, "routerTransform": allowed, "regulations": self._regulations(base)})

    async def refresh(self) -> None:
        """Ask the upstream; what cannot be used changes nothing."""
        raw = None if self._gateway is None else await self._gateway.features()
        if raw is not None and self._take(raw):
            with suppress(OSError):
                await anyio.to_thread.run_sync(write_whole, self._file, raw)

    async def watch(self) -> None:
        """Ask now and then, until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await self.refresh()

    def _take(self, raw: bytes) -> bool:
        """Keep what the upstream can do, and say whether it is news; what it does not name, it cannot."""
        try:
            found = msgspec.json.decode(raw)
        except UNREADABLE:
            return False
        if not isinstance(found, dict):
            return False
        # Without either flag the router would not start; the second is the older protocol, which all speak.
        known = any(found.get(flag) is True for flag in SOURCE_FLAGS)
        base = found if known else {**found, SOURCE_FLAGS[1]: True}
        news = base != self._base
        self._base = base
        return news

    def _regulations(self, base: dict[str, Any]) -> list[str]:
        """Whose users the router lets be deleted through us, beside what the upstream does."""
        told = base.get("regulations")
        ours = self._settings.destination_types
        names = told if isinstance(told, list) else []
        others = [name for name in names if isinstance(name, str) and name not in ours]
        return [*others, *ours] if self._settings.delete_users else others


@asynccontextmanager
async def open_features(settings: RudderSettings, gateway: Gateway | None, folder: Path) -> AsyncIterator[Features]:
    """Lend features that are asked for in the background while they are used."""
    features = Features(settings, gateway, folder)
    if gateway is None:
        yield features
        return
    async with beside(features.watch()):
        yield features
