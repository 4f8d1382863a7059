"""``GET /features``: our capabilities, merged with those of the stock transformer.

The router polls it every ten seconds and does not start without it. We therefore serve it from memory, and keep the
stock transformer's latest response in the state folder in case it is down when we start.
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
"""Half of the router's polling interval: an upgraded stock transformer shows up as soon as it would without us."""

FLAGS: Final = ("supportTransformerProxyV1", "supportDestTransformCompactedPayloadV1")
"""They apply to all destinations: we must not set them on behalf of an old stock transformer."""

SOURCE_FLAGS: Final = ("upgradedToSourceTransformV2", "supportSourceTransformV1")
"""rudder-server panics when neither of the two is true."""

UNKNOWN: Final[dict[str, Any]] = {"routerTransform": {}, "regulations": [], **dict.fromkeys(SOURCE_FLAGS, True)}
"""What every recent stock transformer supports."""

OWN: Final[dict[str, Any]] = {**UNKNOWN, **dict.fromkeys(FLAGS, True)}


class Features:
    """Builds the response from the upstream's features and our settings."""

    def __init__(self, settings: RudderSettings, known: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        self._settings = settings
        self._known = known

    async def body(self) -> bytes:
        """Return the response body; the router can always start with it."""
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
        """Destination types for which the router sends user deletions: the upstream's, and ours if enabled."""
        offered = base.get("regulations")
        own = self._settings.destination_types
        names = offered if isinstance(offered, list) else []
        others = [name for name in names if isinstance(name, str) and name not in own]
        return [*others, *own] if self._settings.delete_users else others


async def own_features() -> dict[str, Any]:
    """Return our own features, for a service without an upstream."""
    return OWN


class UpstreamFeatures:
    """The upstream's features, from its latest usable response, which is also kept in a file."""

    def __init__(self, upstream: Upstream, folder: Path, telemetry: Telemetry) -> None:
        self._upstream = upstream
        self._telemetry = telemetry
        self._file = folder / FILE
        self._latest: dict[str, Any] | None = None
        with suppress(OSError):
            self._take(self._file.read_bytes())

    async def known(self) -> dict[str, Any]:
        """Return the latest features, or those that every upstream supports if there are none yet.

        Queries the upstream first only while nothing is known: the router decides about compacted bodies at its own
        start, for as long as it runs.
        """
        if self._latest is None:
            await self.refresh()
        return UNKNOWN if self._latest is None else self._latest

    async def refresh(self) -> None:
        """Query the upstream; ignores unusable responses."""
        raw = await self._upstream.features()
        if raw is not None and self._take(raw):
            with suppress(OSError):
                await anyio.to_thread.run_sync(write_whole, self._file, raw)

    async def watch(self) -> None:
        """Query the upstream periodically, until cancelled."""
        await repeat(self._telemetry, "features", self.refresh, REFRESH_SECONDS)

    def _take(self, raw: bytes) -> bool:
        """Keep the features if they are usable; returns whether they changed."""
        try:
            found = msgspec.json.decode(raw)
        except UNREADABLE:
            return False
        if not isinstance(found, dict):
            return False
        # The router needs one of the flags to start. The second stands for the older protocol, which all support.
        known = any(found.get(flag) is True for flag in SOURCE_FLAGS)
        latest = found if known else {**found, SOURCE_FLAGS[1]: True}
        changed = latest != self._latest
        self._latest = latest
        return changed
