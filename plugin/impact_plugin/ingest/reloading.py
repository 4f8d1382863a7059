"""Reloads the sources and destinations of a running service."""

from collections.abc import Callable, Sequence

from impact_plugin.config.sources import Routing, RoutingFile
from impact_plugin.errors import SettingsError
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.ingest import RoutingLoaded, RoutingRefused


class RoutingReload:
    """Reloads the configuration file, and emits telemetry about it.

    ``changed`` is called after a successful reload. ``serves_senders`` is whether the senders' port is open.
    """

    def __init__(
        self, routing: RoutingFile, telemetry: Telemetry, changed: Sequence[Callable[[], None]], *, serves_senders: bool
    ) -> None:
        self._routing = routing
        self._telemetry = telemetry
        self._changed = changed
        self._serves_senders = serves_senders

    def __call__(self) -> None:
        """Reload the file; an invalid one changes nothing."""
        try:
            changes = self._routing.reload()
        except SettingsError as error:
            self._telemetry.emit(RoutingRefused(str(error)))
            return
        if self._routing.current.sources and not self._serves_senders:
            self._telemetry.emit(RoutingRefused("the senders' port opens only at start: restart the service"))
        report_loaded(self._routing.current, self._telemetry, changes)
        for call in self._changed:
            call()


def report_loaded(routing: Routing, telemetry: Telemetry, changes: tuple[str, ...] = ()) -> None:
    """Emit the current configuration."""
    telemetry.emit(RoutingLoaded(len(routing.sources), len(routing.destinations), changes))
