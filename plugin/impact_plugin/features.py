"""``GET /features``: what the router may ask of us, merged with what the stock transformer says.

https://github.com/rudderlabs/rudder-server/blob/master/services/transformer/features_impl.go
"""

from typing import Any, Final

import msgspec

from impact_plugin.gateway import Gateway
from impact_plugin.settings import RudderSettings

OWN: Final[dict[str, Any]] = {
    "routerTransform": {},
    "regulations": [],
    "supportSourceTransformV1": True,
    "upgradedToSourceTransformV2": True,
    "supportTransformerProxyV1": True,
    "supportDestTransformCompactedPayloadV1": True,
}
"""rudder-server panics when neither of the two source flags is true."""


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
        allowed = dict(self._base.get("routerTransform") or {})
        for name in self._settings.destination_types:
            if self._settings.router_transform:
                allowed[name] = True
            else:
                allowed.pop(name, None)
        return msgspec.json.encode({**OWN, **self._base, "routerTransform": allowed})

    def _remember(self, raw: bytes | None) -> None:
        try:
            found = msgspec.json.decode(raw) if raw else None
        except msgspec.DecodeError:
            return
        if isinstance(found, dict):
            # An old upstream may lack the source flags, but not both: without either the router would not start.
            flags = ("supportSourceTransformV1", "upgradedToSourceTransformV2")
            self._base = found if any(found.get(flag) is True for flag in flags) else {**found, flags[1]: True}
