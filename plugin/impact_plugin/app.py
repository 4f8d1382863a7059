"""The composition root: settings in, a listening service out."""

import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from time import monotonic, time

import msgspec

from impact_plugin import __version__
from impact_plugin.config.destinations import Destinations, destination_variables
from impact_plugin.config.manifest import load_manifest
from impact_plugin.config.secrets import read_or_make_secret
from impact_plugin.config.settings import ServerSettings, Settings, StateSettings
from impact_plugin.config.sources import RoutingFile
from impact_plugin.delivery.client import DeliveryClient
from impact_plugin.delivery.endpoints import Endpoints
from impact_plugin.delivery.pipeline import Deliveries, open_deliveries
from impact_plugin.errors import SettingsError
from impact_plugin.http.features import open_features
from impact_plugin.http.gateway import Gateway
from impact_plugin.http.ingest_service import open_ingest
from impact_plugin.http.openapi.document import document_json
from impact_plugin.http.operator import Operations, Readiness
from impact_plugin.http.recording import Recordings, open_recordings
from impact_plugin.http.router import RouterApp
from impact_plugin.orders.embedded_ledger import open_ledger
from impact_plugin.process.listening import bind_all, listen
from impact_plugin.process.memory import MemoryWatch
from impact_plugin.process.worker import Worker
from impact_plugin.protocols.rudder_proxy import Proxy
from impact_plugin.protocols.rudder_regulation import Forget
from impact_plugin.recording.recorder import Recorder
from impact_plugin.sessions.sessions import Digests, Sessions, open_sessions
from impact_plugin.store.embedded import open_store
from impact_plugin.tasks import beside
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.process import ServiceStarted, ServiceStopping
from impact_plugin.telemetry.events.sessions import StateLoaded
from impact_plugin.transformation.batch import TransformContext
from impact_transformers.configuration import Problem


class Service(msgspec.Struct, frozen=True):
    """A running service and where it listens."""

    url: str
    operator_url: str
    telemetry: Telemetry
    ingest_url: str = ""
    reload: Callable[[], None] = lambda: None


@asynccontextmanager
async def run_service(
    settings: Settings,
    environment: Mapping[str, str],
    clock: Callable[[], float] | None = None,
    routing: RoutingFile | None = None,
    worker: Worker | None = None,
) -> AsyncIterator[Service]:
    """Listen until the block ends, then finish what is under way within the grace period.

    ``clock`` tells seconds since 1970; the machine's, unless told. With sources in ``routing`` their port opens too.
    A ``worker`` brings sockets that listen already; without one they are opened as the settings say.
    """
    clock = clock or time
    routing = routing or RoutingFile(None, {})
    load_manifest()
    state_dir = Path(settings.state.dir)
    _make_folder(state_dir)
    telemetry = Telemetry()
    async with AsyncExitStack() as stack:
        digests = Digests(settings.state.secret or read_or_make_secret(state_dir))
        sessions = await _open_sessions(settings.state, digests, telemetry, clock, stack)
        deliveries = await _open_deliveries(settings, digests, telemetry, clock, stack)
        readiness = Readiness(state_dir, sessions.health)
        readiness.memory = await _watch_memory(settings.server, telemetry, worker, stack)
        readiness.watches.append(readiness.memory.trouble)
        desk = _make_desk(settings, environment, sessions, telemetry, Recorder(digests.of("pseudonyms")))
        ingest = await open_ingest(settings, routing, digests, desk, deliveries, readiness, clock, stack)
        recordings = await _open_recordings(settings, desk, readiness, stack)
        describe = cache(lambda: document_json(settings))
        operations = Operations(readiness, telemetry, deliveries.report, ingest.forget, recordings.serve, describe)
        router = await _make_router_app(settings, desk, deliveries, operations, readiness, ingest.forget, stack)
        server = settings.server
        grace = server.shutdown_grace_seconds
        sockets = worker.sockets if worker else bind_all(server, ingest=ingest.app is not None)
        url = await listen(stack, router.application(), sockets.router, grace)
        operator_url = await listen(stack, operations.operator_app(), sockets.operator, grace)
        ingest_url = ""
        if ingest.app is not None and sockets.ingest is not None:
            ingest_url = await listen(stack, ingest.app.application(), sockets.ingest, grace)
        telemetry.emit(ServiceStarted(url, operator_url, ingest_url, __version__, worker.restarts if worker else 0))
        try:
            yield Service(url, operator_url, telemetry, ingest_url, ingest.reload)
        finally:
            readiness.stopping.set()
            ingest.stop()
            deliveries.stop()
            telemetry.emit(ServiceStopping(grace))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(Problem("state.dir", f"{folder} cannot be made: {error.strerror}")) from error


async def _open_sessions(
    settings: StateSettings,
    digests: Digests,
    telemetry: Telemetry,
    clock: Callable[[], float],
    stack: AsyncExitStack,
) -> Sessions:
    """The session state, loaded; before the port opens, because a batch cannot be answered without it."""
    started = monotonic()
    store = await stack.enter_async_context(open_store(settings, clock))
    telemetry.emit(StateLoaded((await store.tally()).sizes, monotonic() - started))
    return await stack.enter_async_context(open_sessions(store, digests, telemetry, settings.grace_seconds, clock))


async def _open_deliveries(
    settings: Settings, digests: Digests, telemetry: Telemetry, clock: Callable[[], float], stack: AsyncExitStack
) -> Deliveries:
    """The delivery engine on its ledger; it ends before them, after the ports."""
    ledger = await stack.enter_async_context(open_ledger(settings.state, settings.delivery, clock))
    client = await stack.enter_async_context(DeliveryClient())
    deliveries = Deliveries(settings.delivery, client, ledger, digests.of, telemetry, clock)
    return await stack.enter_async_context(open_deliveries(deliveries, settings.server.shutdown_grace_seconds))


async def _watch_memory(
    server: ServerSettings, telemetry: Telemetry, worker: Worker | None, stack: AsyncExitStack
) -> MemoryWatch:
    """The watch over this process's memory; a supervised one that stays above its ceiling makes room for another."""
    give_up = (lambda: signal.raise_signal(signal.SIGTERM)) if worker else None
    memory = MemoryWatch(server.max_memory_mb * 1024 * 1024, telemetry, give_up)
    await stack.enter_async_context(beside(memory.watch()))
    return memory


async def _open_recordings(
    settings: Settings, desk: TransformContext, readiness: Readiness, stack: AsyncExitStack
) -> Recordings:
    if desk.recorder is None:
        raise RuntimeError("a service has a recorder")
    recordings = open_recordings(desk.recorder, settings.record, desk.telemetry, readiness.stopping)
    return await stack.enter_async_context(recordings)


def _make_desk(
    settings: Settings,
    environment: Mapping[str, str],
    sessions: Sessions,
    telemetry: Telemetry,
    recorder: Recorder,
) -> TransformContext:
    variables = destination_variables(environment)
    return TransformContext(Destinations(variables), Endpoints(settings.impact), telemetry, sessions, recorder)


async def _make_router_app(
    settings: Settings,
    desk: TransformContext,
    deliveries: Deliveries,
    operations: Operations,
    readiness: Readiness,
    forget: Forget,
    stack: AsyncExitStack,
) -> RouterApp:
    telemetry = desk.telemetry
    upstream = settings.rudder.upstream
    gateway = await stack.enter_async_context(Gateway(upstream, telemetry)) if upstream else None
    proxy = Proxy(settings, deliveries, telemetry)
    features = await stack.enter_async_context(open_features(settings.rudder, gateway, Path(settings.state.dir)))
    return RouterApp(settings, desk, proxy, features, gateway, operations, readiness, forget)
