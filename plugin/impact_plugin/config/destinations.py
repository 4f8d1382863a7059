"""Destinations as routers send them, each revision compiled once and cached."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from impact_plugin.config.manifest import load_manifest
from impact_transformers import AnyDestination, ConfigurationError, compile_destination
from impact_transformers.configuration import VARIABLE_PREFIX
from impact_transformers.events import UNREADABLE

CONCEALED: Final = "concealed"
"""Replaces credentials in recordings."""

DEMONSTRATION: Final[dict[str, Any]] = {"accountSID": "IRdemoAccount", "apiKey": "demo-token", "campaignId": "23224"}
"""The configuration that commands use if you give none, for events without a destination."""

MAX_CACHED: Final = 1024
"""Compiled destinations in the cache; the least recently used is dropped first, and compiled again when needed."""


class _Envelope(msgspec.Struct, frozen=True):
    """The router's destination object, with the capitals of rudder-server."""

    id: str | None = msgspec.field(name="ID", default=None)
    workspace_id: str | None = msgspec.field(name="WorkspaceID", default=None)
    config: Any = msgspec.field(name="Config", default=None)


class KnownDestination(msgspec.Struct, frozen=True):
    """One destination, compiled; or None and the ``problem`` of its configuration."""

    id: str
    workspace_id: str
    destination: AnyDestination | None
    problem: str | None = None
    written: bytes = b"{}"
    """Its configuration as written, without credentials, for recordings; only for destinations of our own file."""

    @property
    def reads_message(self) -> bool:
        """Whether its mapping reads the whole message, so that events must be decoded in full."""
        return self.destination is not None and self.destination.reads_message


class Destinations:
    """A bounded cache of compiled destinations, keyed by the exact bytes that the router sent."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = dict(variables)
        self._known: OrderedDict[bytes, KnownDestination] = OrderedDict()
        self._last: tuple[bytes, KnownDestination] | None = None

    def __len__(self) -> int:
        return len(self._known)

    def get(self, raw: msgspec.Raw) -> KnownDestination:
        """The destination described by these bytes."""
        key = bytes(raw)
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._compile(key)
            if len(self._known) > MAX_CACHED:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        self._last = (key, known)
        return known

    def of_config(self, id_: str, config: Any) -> KnownDestination:
        """The destination with this id and configuration."""
        return self.get(msgspec.Raw(msgspec.json.encode({"ID": id_, "Config": config})))

    def _compile(self, raw: bytes) -> KnownDestination:
        try:
            envelope = msgspec.json.decode(raw, type=_Envelope)
        except UNREADABLE as error:
            return KnownDestination("", "", None, f"the destination object cannot be read: {error}")
        id_, workspace = envelope.id or "", envelope.workspace_id or ""
        if not isinstance(envelope.config, dict):
            return KnownDestination(id_, workspace, None, "the destination has no Config object")
        try:
            compiled = compile_destination(envelope.config, load_manifest().configuration, self._variables)
        except ConfigurationError as error:
            return KnownDestination(id_, workspace, None, str(error))
        return KnownDestination(id_, workspace, compiled)


def destination_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that ``env.NAME`` may refer to in the configuration of a destination."""
    return {name: value for name, value in environment.items() if name.startswith(VARIABLE_PREFIX)}
