"""``GET /features``: what the router may ask of us, merged with what the stock transformer says.

The router waits for it before it starts, and asks again every ten seconds; so it is served from memory, and what the
stock transformer said last is kept in the state folder for a start without it.
https://github.com/rudderlabs/rudder-server/blob/master/services/transformer/features_impl.go
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from impact_plugin.config.settings import RudderSettings
from impact_plugin.files import write_whole
from impact_plugin.http.gateway import Upstream
from impact_plugin.process.background import repeat
from impact_plugin.telemetry import Telemetry
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
    """The reply, made of what is known of the upstream and of our settings."""

    def __init__(self, settings: RudderSettings, known: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        self._settings = settings
        self._known = known

    async def reply(self) -> bytes:
        """The body for the router; always one it can start with."""
        base = await self._known()
        offered = base.get("routerTransform")
        allowed = dict(offered) if isinstance(offered, dict) else {}
        for name in self._settings.destination_types:
            if self._settings.router_transform:
                allowed[name] = True
            else:
                allowed.pop(name, None)
        return msgspec.json.encode({**base, "routerTransform": allowed, "regulations": self._regulations(base)})

    def _regulations(self, base: dict[str, Any]) -> list[str]:
        """Whose users the router lets be deleted through us, beside what the upstream does."""
        offered = base.get("regulations")
        ours = self._settings.destination_types
        names = offered if isinstance(offered, list) else []
        others = [name for name in names if isinstance(name, str) and name not in ours]
        return [*others, *ours] if self._settings.delete_users else others


async def own_features() -> dict[str, Any]:
    """What we can do without an upstream."""
    return OWN


class UpstreamFeatures:
    """What the upstream can do, by its latest answer that could be used; it outlives the upstream in a file."""

    def __init__(self, upstream: Upstream, folder: Path, telemetry: Telemetry) -> None:
        self._upstream = upstream
        self._telemetry = telemetry
        self._file = folder / FILE
        self._latest: dict[str, Any] | None = None
        with suppress(OSError):
            self._take(self._file.read_bytes())

    async def known(self) -> dict[str, Any]:
        """The latest answer, with what every upstream can do in its place where there is none.

        Only while nothing is known is the upstream asked first: what the router hears at its own start about compacted
        bodies holds for as long as it runs.
        """
        if self._latest is None:
            await self.refresh()
        return UNKNOWN if self._latest is None else self._latest

    async def refresh(self) -> None:
        """Ask the upstream; what cannot be used changes nothing."""
        raw = await self._upstream.features()
        if raw is not None and self._take(raw):
            with suppress(OSError):
                await anyio.to_thread.run_sync(write_whole, self._file, raw)

    async def watch(self) -> None:
        """Ask again and again, until cancelled."""
        await repeat(self._telemetry, "features", self.refresh, REFRESH_SECONDS)

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
        latest = found if known else {**found, SOURCE_FLAGS[1]: True}
        news = latest != self._latest
        self._latest = latest
        return news
