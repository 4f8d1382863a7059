"""The composition root: the only module that connects the parts to a running service."""

import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache, partial
from pathlib import Path
from time import monotonic, time

import msgspec
from anyio import CancelScope
from anyio.abc import TaskGroup

from impact_plugin import __version__
from impact_plugin.config.destinations import Destinations, destination_variables
from impact_plugin.config.manifest import load_manifest
from impact_plugin.config.secrets import load_or_create_secret
from impact_plugin.config.settings import Settings
from impact_plugin.config.sources import RoutingFile
from impact_plugin.delivery.client import DeliveryClient, open_delivery_client
from impact_plugin.delivery.endpoints import Endpoints
from impact_plugin.delivery.pipeline import Deliveries
from impact_plugin.errors import SettingsError
from impact_plugin.http.features import Features, UpstreamFeatures, own_features
from impact_plugin.http.gateway import Upstream, open_upstream
from impact_plugin.http.ingest import IngestApp
from impact_plugin.http.openapi.document import document_json
from impact_plugin.http.operator import OperatorApp
from impact_plugin.http.readiness import Readiness
from impact_plugin.http.recording import Recordings, recording_file
from impact_plugin.http.router import RouterApp
from impact_plugin.ingest.deletion import Forgetting
from impact_plugin.ingest.drain import Drain
from impact_plugin.ingest.intake import Intake
from impact_plugin.ingest.reloading import RoutingReload, report_loaded
from impact_plugin.orders.embedded_ledger import open_ledger
from impact_plugin.orders.ledger import Ledger
from impact_plugin.process.background import open_background, run_guarded
from impact_plugin.process.listening import Port, Sockets, bind_all, serve_ports, url_of
from impact_plugin.process.memory import MemoryWatch
from impact_plugin.process.shutdown import Shutdown
from impact_plugin.process.worker import Worker
from impact_plugin.protocols.rudder_proxy import Proxy
from impact_plugin.recording.recorder import Recorder
from impact_plugin.sessions.sessions import Digests, Sessions
from impact_plugin.spool.base import Spool
from impact_plugin.spool.sqlite import open_sqlite_spool
from impact_plugin.spool.sqlite_schema import FILE as SPOOL_FILE
from impact_plugin.store.base import SessionStore
from impact_plugin.store.embedded import open_store
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.process import ServiceStarted, ServiceStopping
from impact_plugin.telemetry.events.sessions import StateLoaded
from impact_plugin.transformation.batch import TransformContext
from impact_plugin.units import MIB
from impact_transformers.configuration import Problem


class Service(msgspec.Struct, frozen=True):
    """A running service and its URLs; ``ingest_url`` is empty without configured sources.

    ``reload`` reloads sources and destinations.
    """

    url: str
    operator_url: str
    ingest_url: str
    telemetry: Telemetry
    reload: Callable[[], None]


@asynccontextmanager
async def run_service(
    settings: Settings,
    environment: Mapping[str, str],
    clock: Callable[[], float] = time,
    routing: RoutingFile | None = None,
    worker: Worker | None = None,
) -> AsyncIterator[Service]:
    """Serve until the block ends, then shut down gracefully within the grace period.

    ``clock`` returns seconds since 1970. With sources in ``routing`` the senders' port opens too. A ``worker`` provides
    listening sockets; without one they are opened according to the settings. The same task must enter and exit the
    block.
    """
    load_manifest()
    _make_folder(Path(settings.state.dir))
    async with AsyncExitStack() as stack:
        # Closes in reverse order: resources outlive the tasks that use them, and the tasks outlive the ports.
        resources = await _open_resources(settings, clock, routing or RoutingFile(None, {}), stack)
        tasks = await stack.enter_async_context(open_background())
        parts = _Parts(resources, environment, tasks, supervised=worker is not None)
        sockets = worker.sockets if worker else bind_all(settings.server, ingest=parts.ingest is not None)
        grace_seconds = settings.server.shutdown_grace_seconds
        # The first port to open and the last to close: readiness and metrics are there until the end.
        await stack.enter_async_context(serve_ports([parts.operator_port(sockets)], grace_seconds))
        parts.start()
        stack.push_async_callback(parts.finish)
        await stack.enter_async_context(serve_ports(parts.traffic_ports(sockets), grace_seconds))
        stack.callback(parts.stop)
        service = parts.describe(sockets)
        resources.telemetry.emit(
            ServiceStarted(
                service.url, service.operator_url, service.ingest_url, __version__, worker.restarts if worker else 0
            )
        )
        if worker is not None:
            tasks.start_soon(worker.end_with_supervisor)
        yield service


class _Resources(msgspec.Struct, frozen=True):
    """The configuration and resources of a service, open from before its first task until after its last.

    ``spool`` is None without sources and stored events of former sources, ``recording`` if the settings request none.
    """

    settings: Settings
    clock: Callable[[], float]
    routing: RoutingFile
    telemetry: Telemetry
    digests: Digests
    store: SessionStore
    ledger: Ledger
    spool: Spool | None
    client: DeliveryClient
    upstream: Upstream
    recording: Path | None


async def _open_resources(
    settings: Settings, clock: Callable[[], float], routing: RoutingFile, stack: AsyncExitStack
) -> _Resources:
    """Open all resources, and load the state, which every request needs."""
    telemetry, folder, started = Telemetry(), Path(settings.state.dir), monotonic()
    digests = Digests(settings.state.secret or load_or_create_secret(folder))
    store = await stack.enter_async_context(open_store(settings.state, clock))
    telemetry.emit(StateLoaded((await store.tally()).sizes, monotonic() - started))
    ledger = await stack.enter_async_context(open_ledger(settings.state, settings.delivery, clock))
    client = await stack.enter_async_context(open_delivery_client())
    upstream = await stack.enter_async_context(open_upstream(settings.rudder.upstream, telemetry))
    spool = None
    if routing.current.sources or (folder / SPOOL_FILE).exists():
        spool = await stack.enter_async_context(open_sqlite_spool(settings.spool, settings.state, clock))
        report_loaded(routing.current, telemetry)
    recording = recording_file(settings.record) if settings.record.dir else None
    return _Resources(settings, clock, routing, telemetry, digests, store, ledger, spool, client, upstream, recording)


class _Parts:
    """The parts of a service, each built from the ones before it; ``ingest`` is None without configured sources."""

    def __init__(
        self, resources: _Resources, environment: Mapping[str, str], tasks: TaskGroup, *, supervised: bool
    ) -> None:
        settings, clock, telemetry = resources.settings, resources.clock, resources.telemetry
        digests, spool = resources.digests, resources.spool
        self._resources = resources
        self._tasks = tasks
        self._shutdown = Shutdown(settings.server.shutdown_grace_seconds)
        self._memory = MemoryWatch(
            settings.server.max_memory_mb * MIB, telemetry, _end_this_process if supervised else None
        )
        self._sessions = Sessions(resources.store, digests, telemetry, settings.state.grace_seconds, clock)
        self._deliveries = Deliveries(
            settings.delivery, resources.client, resources.ledger, digests.of, telemetry, clock
        )
        self._forgetting = Forgetting(self._sessions, spool, telemetry, lambda: resources.routing.current.programs)
        self._recorder = Recorder(digests.of("pseudonyms"))
        self._recordings = Recordings(self._recorder, telemetry, self._shutdown)
        self._endpoints = Endpoints(settings.impact)
        self._drain = None if spool is None else self._make_drain(spool)
        self._readiness = self._make_readiness()
        self._operator = self._make_operator()
        self._router = self._make_router(environment)
        self.ingest = self._make_ingest(spool, self._drain)

    def _make_drain(self, spool: Spool) -> Drain:
        resources = self._resources
        return Drain(
            lambda: resources.routing.current,
            spool,
            self._deliveries,
            self._sessions,
            self._endpoints,
            resources.telemetry,
            resources.clock,
        )

    def _make_readiness(self) -> Readiness:
        watches = () if self._drain is None else (self._drain.trouble,)
        folder = Path(self._resources.settings.state.dir)
        return Readiness(folder, self._sessions.health, self._shutdown, self._memory, watches)

    def _make_operator(self) -> OperatorApp:
        settings = self._resources.settings
        return OperatorApp(
            self._readiness,
            self._resources.telemetry,
            self._deliveries.report,
            self._forgetting.forget,
            self._recordings.serve,
            cache(lambda: document_json(settings)),
        )

    def _make_router(self, environment: Mapping[str, str]) -> RouterApp:
        resources = self._resources
        settings, telemetry, upstream = resources.settings, resources.telemetry, resources.upstream
        return RouterApp(
            settings,
            TransformContext(
                Destinations(destination_variables(environment)),
                self._endpoints,
                telemetry,
                self._sessions,
                self._recorder,
            ),
            Proxy(settings, self._deliveries, telemetry),
            self._make_features(),
            upstream,
            self._readiness,
            self._forgetting.forget,
        )

    def _make_features(self) -> Features:
        """Return the features; those of an upstream are polled in the background."""
        resources = self._resources
        settings, upstream = resources.settings, resources.upstream
        if not upstream.is_configured:
            return Features(settings.rudder, own_features)
        known = UpstreamFeatures(upstream, Path(settings.state.dir), resources.telemetry)
        self._tasks.start_soon(known.watch)
        return Features(settings.rudder, known.known)

    def _make_ingest(self, spool: Spool | None, drain: Drain | None) -> IngestApp | None:
        resources = self._resources
        if spool is None or drain is None or not resources.routing.current.sources:
            return None
        intake = Intake(
            lambda: resources.routing.current,
            self._sessions,
            spool,
            resources.digests,
            resources.telemetry,
            resources.clock,
            drain,
            self._recorder,
        )
        return IngestApp(
            lambda: resources.routing.current,
            intake.take,
            self._forgetting.forget,
            self._readiness,
            self._shutdown,
            resources.telemetry,
            self._tasks,
            resources.clock,
        )

    def start(self) -> None:
        """Start the background tasks."""
        resources = self._resources
        for watch in (self._memory.watch, self._sessions.watch, self._deliveries.run):
            self._tasks.start_soon(watch)
        if self._drain is not None:
            self._tasks.start_soon(self._drain.run, self._tasks)
        if resources.recording is not None:
            write = partial(self._recordings.write, resources.recording, resources.settings.record)
            self._tasks.start_soon(run_guarded, resources.telemetry, "recording", write)

    def operator_port(self, sockets: Sockets) -> Port:
        """Return the operator's application with its socket."""
        return Port(self._operator.application(), sockets.operator)

    def traffic_ports(self, sockets: Sockets) -> list[Port]:
        """Return the applications for the router and for senders with their sockets."""
        found = [Port(self._router.application(), sockets.router)]
        if self.ingest is not None and sockets.ingest is not None:
            found.append(Port(self.ingest.application(), sockets.ingest))
        return found

    def describe(self, sockets: Sockets) -> Service:
        """Return the service that listens on these sockets."""
        telemetry, routing = self._resources.telemetry, self._resources.routing
        changed = () if self._drain is None else (self._drain.wake,)
        reload = RoutingReload(routing, telemetry, changed, serves_senders=self.ingest is not None)
        ingest_url = "" if sockets.ingest is None else url_of(sockets.ingest)
        return Service(url_of(sockets.router), url_of(sockets.operator), ingest_url, telemetry, reload)

    def stop(self) -> None:
        """Begin the shutdown: refuse waiting requests so that clients retry, and let those in flight finish."""
        if self._shutdown.begun:
            return
        self._shutdown.begin()
        if self._drain is not None:
            self._drain.stop()
        self._deliveries.stop()
        self._resources.telemetry.emit(ServiceStopping(self._shutdown.grace_seconds))

    async def finish(self) -> None:
        """Wait for requests in flight for the rest of the grace period; the others are cancelled with the tasks."""
        self.stop()
        with CancelScope(shield=True):
            if self._drain is not None:
                await self._drain.finish(self._shutdown.seconds_left())
            await self._deliveries.drain(self._shutdown.seconds_left())


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(Problem("state.dir", f"{folder} cannot be created: {error.strerror}")) from error


def _end_this_process() -> None:
    """Shut down a supervised process that stays above its memory limit; the supervisor replaces it."""
    signal.raise_signal(signal.SIGTERM)
