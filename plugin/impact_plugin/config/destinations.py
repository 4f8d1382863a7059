"""Destinations as routers send them, compiled once a revision and kept as long as they are used."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from impact_plugin.config.manifest import load_manifest
from impact_transformers import AnyDestination, ConfigurationError, compile_destination
from impact_transformers.configuration import VARIABLE_PREFIX
from impact_transformers.events import UNREADABLE

CONCEALED: Final = "concealed"
"""Stands in recordings in the place of a credential."""

DEMONSTRATION: Final[dict[str, Any]] = {"accountSID": "IRdemoAccount", "apiKey": "demo-token", "campaignId": "23224"}
"""The configuration that commands use for events that name no destination, when you give none."""

CAPACITY: Final = 1024
"""How many compiled destinations are kept; the least recently used goes first and is compiled again when needed."""


class _Envelope(msgspec.Struct, frozen=True):
    """The router's destination object. rudder-server writes capitals; files and tests may write the rest."""

    id: str | None = msgspec.field(name="ID", default=None)
    workspace_id: str | None = msgspec.field(name="WorkspaceID", default=None)
    config: Any = msgspec.field(name="Config", default=None)


class KnownDestination(msgspec.Struct, frozen=True):
    """One destination, ready or refused; ``problem`` says why it is refused."""

    id: str
    workspace_id: str
    destination: AnyDestination | None
    problem: str | None = None
    written: bytes = b"{}"
    """What its operator wrote, without credentials: for recordings. Only of destinations of our own file."""

    @property
    def reads_message(self) -> bool:
        """Whether events must be decoded in full for it."""
        return self.destination is not None and self.destination.reads_message


class Destinations:
    """Compiles destinations on first sight; bounded, and keyed by the exact bytes the router sent."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = dict(variables)
        self._known: OrderedDict[bytes, KnownDestination] = OrderedDict()
        self._last: tuple[bytes, KnownDestination] | None = None

    def __len__(self) -> int:
        return len(self._known)

    def get(self, raw: msgspec.Raw) -> KnownDestination:
        """The destination that these bytes describe."""
        key = bytes(raw)
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._compile(key)
            if len(self._known) > CAPACITY:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        self._last = (key, known)
        return known

    def of_config(self, id_: str, config: Any) -> KnownDestination:
        """The destination of this id and configuration."""
        return self.get(msgspec.Raw(msgspec.json.encode({"ID": id_, "Config": config})))

    def _compile(self, raw: bytes) -> KnownDestination:
        try:
            envelope = msgspec.json.decode(raw, type=_Envelope)
        except UNREADABLE as error:
            return KnownDestination("", "", None, f"the destination object cannot be read: {error}")
        found, workspace = envelope.id or "", envelope.workspace_id or ""
        if not isinstance(envelope.config, dict):
            return KnownDestination(found, workspace, None, "the destination has no Config object")
        try:
            compiled = compile_destination(envelope.config, load_manifest().configuration, self._variables)
        except ConfigurationError as error:
            return KnownDestination(found, workspace, None, str(error))
        return KnownDestination(found, workspace, compiled)


def destination_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that ``env.NAME`` in a destination's configuration may use."""
    return {name: value for name, value in environment.items() if name.startswith(VARIABLE_PREFIX)}
