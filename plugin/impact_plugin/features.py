"""``GET /features``: what the router may ask of us, merged with what the stock transformer says.

https://github.com/rudderlabs/rudder-server/blob/master/services/transformer/features_impl.go
"""

from typing import Any, Final

import msgspec

from impact_plugin.gateway import Gateway
from impact_plugin.settings import RudderSettings
from impact_transformers.events import UNREADABLE

OWN: Final[dict[str, Any]] = {
    "routerTransform": {},
    "regulations": [],
    "supportSourceTransformV1": True,
    "upgradedToSourceTransformV2": True,
    "supportTransformerProxyV1": True,
    "supportDestTransformCompactedPayloadV1": True,
}
SOURCE_FLAGS: Final = ("upgradedToSourceTransformV2", "supportSourceTransformV1")
"""rudder-server panics when neither of the two is true."""


class Features:
    """The reply, from the upstream's latest answer and our settings; the last good answer outlives the upstream."""

    def __init__(self, settings: RudderSettings, gateway: Gateway | None) -> None:
        self._settings = settings
        self._gateway = gateway
        self._base: dict[str, Any] = OWN

    async def reply(self) -> bytes:
        """The body for the router; always one it can start with."""
        if self._gateway is not None:
            self._remember(await self._gateway.features())
        told = self._base.get("routerTransform")
        allowed = dict(told) if isinstance(told, dict) else {}
        for name in self._settings.destination_types:
            if self._settings.router_transform:
                allowed[name] = True
            else:
                allowed.pop(name, None)
        return msgspec.json.encode({**self._base, "routerTransform": allowed, "regulations": self._regulations()})

    def _regulations(self) -> list[Any]:
        """Whose users the router lets be deleted through us, beside what the upstream does."""
        told = self._base.get("regulations")
        ours = self._settings.destination_types
        others = [name for name in told if name not in ours] if isinstance(told, list) else []
        return [*others, *ours] if self._settings.delete_users else others

    def _remember(self, raw: bytes | None) -> None:
        """Keep what the upstream can do; what it does not name, it cannot."""
        try:
            found = msgspec.json.decode(raw) if raw else None
        except UNREADABLE:
            return
        if isinstance(found, dict):
            # Without either flag the router would not start; the second is the older protocol, which all speak.
            known = any(found.get(flag) is True for flag in SOURCE_FLAGS)
            self._base = found if known else {**found, SOURCE_FLAGS[1]: True}
