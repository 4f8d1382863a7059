"""The ingest half of the service, put together: spool, intake, drain, the senders' port, and deletion of persons."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from impact_plugin.config.settings import Settings
from impact_plugin.config.sources import Routing, RoutingFile
from impact_plugin.delivery.pipeline import Deliveries
from impact_plugin.errors import SettingsError
from impact_plugin.http.ingest import Forget, IngestApp
from impact_plugin.http.operator import Readiness
from impact_plugin.ingest.deletion import ForgetReport, Forgetting
from impact_plugin.ingest.drain import Drain, open_drain
from impact_plugin.ingest.intake import Intake
from impact_plugin.sessions.sessions import Digests
from impact_plugin.spool.base import Spool
from impact_plugin.spool.sqlite import open_sqlite_spool
from impact_plugin.spool.sqlite_schema import FILE
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.ingest import RoutingLoaded, RoutingRefused
from impact_plugin.transformation.batch import TransformContext
from impact_transformers.configuration import Problem


class Ingest:
    """What the composition root needs of it; ``app`` is None where no sources are configured."""

    def __init__(
        self,
        routing: RoutingFile,
        forgetting: Forgetting,
        telemetry: Telemetry,
        drain: Drain | None,
        app: IngestApp | None,
    ) -> None:
        self._routing = routing
        self._forgetting = forgetting
        self._telemetry = telemetry
        self._drain = drain
        self.app = app

    async def forget(
        self, users: Sequence[str], anonymous: Sequence[str], programs: Collection[str] = ()
    ) -> ForgetReport:
        """Delete persons at these programs and at those of all configured destinations."""
        return await self._forgetting.forget(users, anonymous, {*programs, *programs_of(self._routing.current)})

    def reload(self) -> None:
        """Read sources and destinations again; a file that cannot be used changes nothing."""
        try:
            changed = self._routing.reload()
        except SettingsError as error:
            self._telemetry.emit(RoutingRefused(str(error)))
            return
        if self.app is None and self._routing.current.sources:
            self._telemetry.emit(RoutingRefused("the port for senders opens at the next start: restart the service"))
        told_loaded(self._routing.current, self._telemetry, changed)
        if self._drain is not None:
            self._drain.wake()

    def stop(self) -> None:
        """Let no stored event begin to be sent."""
        if self._drain is not None:
            self._drain.stopping = True


async def open_ingest(
    settings: Settings,
    routing: RoutingFile,
    digests: Digests,
    desk: TransformContext,
    deliveries: Deliveries,
    readiness: Readiness,
    clock: Callable[[], float],
    stack: AsyncExitStack,
) -> Ingest:
    """Open the spool where there are sources, or events of earlier ones, and deliver from it until the stack ends."""
    telemetry, sessions = desk.telemetry, desk.sessions
    if sessions is None:
        raise SettingsError(Problem("sources", "events of senders need the session state"))
    if not routing.current.sources and not (Path(settings.state.dir) / FILE).exists():
        return Ingest(routing, Forgetting(sessions, None, telemetry), telemetry, None, None)
    spool = await stack.enter_async_context(open_sqlite_spool(settings.spool, settings.state, clock))
    forgetting = Forgetting(sessions, spool, telemetry)
    drain = Drain(lambda: routing.current, spool, deliveries, sessions, desk.endpoints, telemetry, clock)
    await stack.enter_async_context(open_drain(drain, settings.server.shutdown_grace_seconds))
    readiness.watches.append(drain.trouble)
    told_loaded(routing.current, telemetry, ())
    ingest = Ingest(routing, forgetting, telemetry, drain, None)
    if routing.current.sources:
        ingest.app = _make_app(routing, desk, spool, digests, drain, readiness, clock, ingest.forget)
    return ingest


def _make_app(
    routing: RoutingFile,
    desk: TransformContext,
    spool: Spool,
    digests: Digests,
    drain: Drain,
    readiness: Readiness,
    clock: Callable[[], float],
    forget: Forget,
) -> IngestApp:
    if desk.sessions is None:
        raise SettingsError(Problem("sources", "events of senders need the session state"))
    intake = Intake(
        lambda: routing.current,
        desk.sessions,
        spool,
        digests,
        drain.telemetry,
        clock,
        drain.wake,
        drain.report,
    )
    intake.recorder = desk.recorder
    return IngestApp(lambda: routing.current, intake.take, forget, readiness, drain.telemetry, clock)


def told_loaded(routing: Routing, telemetry: Telemetry, changed: tuple[str, ...]) -> None:
    """Say what is configured now."""
    telemetry.emit(RoutingLoaded(len(routing.sources), len(routing.destinations), changed))


def programs_of(routing: Routing) -> set[str]:
    """Account and campaign of every destination that names one program."""
    found = (known.destination for known in routing.destinations.values())
    return {one.program for one in found if one is not None and one.program is not None}
