"""Which destinations the events of files go to."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from impact_plugin.config.destinations import DEMONSTRATION, Destinations, KnownDestination
from impact_plugin.traffic.reading import TrafficEvent


class TrafficDestinations:
    """The given destinations, else those that an event names or brings, else a demonstration account.

    A configuration that cannot be used rejects its events, as in the service. ``variables`` are those that ``env.NAME``
    in a configuration may use.
    """

    def __init__(self, variables: Mapping[str, str], given: Sequence[KnownDestination] = ()) -> None:
        self._compiled = Destinations(variables)
        self._given = tuple(given)
        self._recorded: dict[str, KnownDestination] = {}
        self._demonstration: tuple[KnownDestination, ...] = ()

    @property
    def read_messages(self) -> bool:
        """Whether a given destination needs events decoded in full."""
        return any(known.reads_message for known in self._given)

    def configure(self, id_: str, config: dict[str, Any]) -> KnownDestination:
        """Take note of how a recording configures a destination from here on."""
        known = self._recorded[id_] = self._compiled.of_config(id_, config)
        return known

    def of(self, event: TrafficEvent) -> tuple[KnownDestination, ...]:
        """The destinations of an event."""
        if self._given:
            return self._chosen(event)
        if event.to:
            return tuple(self._recorded[id_] for id_ in event.to if id_ in self._recorded)
        if event.config is not msgspec.UNSET:
            return (self._compiled.of_config("", event.config),)
        if not self._demonstration:
            self._demonstration = (self._compiled.of_config("demonstration", DEMONSTRATION),)
        return self._demonstration

    def _chosen(self, event: TrafficEvent) -> tuple[KnownDestination, ...]:
        """Of several given destinations, those that the event names."""
        if event.to and len(self._given) > 1:
            named = tuple(known for known in self._given if known.id in event.to)
            return named or self._given[:1]
        return self._given
