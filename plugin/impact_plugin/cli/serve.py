"""``impact-plugin serve``."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import anyio
import msgspec

from impact_plugin.app import run_service
from impact_plugin.config.settings import Settings, check_settings, load_settings
from impact_plugin.config.sources import RoutingFile
from impact_plugin.process.supervisor import supervise
from impact_plugin.process.worker import Worker, assigned
from impact_plugin.tasks import beside
from impact_plugin.telemetry import Telemetry, configure_logging

SWITCH_SECONDS: Final = 0.001
"""How long the event loop may keep a thread that writes to disk from going on; five times as long unless told."""


async def serve(
    *,
    host: str | None = None,
    port: int | None = None,
    operator_port: int | None = None,
    ingest_port: int | None = None,
    workers: int | None = None,
    config: Path | None = None,
) -> int:
    """Serve the router's protocol until interrupted.

    Parameters
    ----------
    host
        Address to listen on, all ports; default 127.0.0.1.
    port
        Port for the router; default 9090.
    operator_port
        Port for metrics and health; default 9091.
    ingest_port
        Port for senders of events, opened when there are sources; default 9092.
    workers
        1: serve by a worker under a supervisor, which keeps the ports open while the worker is replaced: at once when
        it dies, and on SIGHUP by a process with code and settings of now. Default 0: one process without a supervisor.
    config
        TOML file with settings, sources and destinations; read again on SIGHUP, without a supervisor as far as the
        latter two go.
    """
    numbers = {"port": port, "operator_port": operator_port, "ingest_port": ingest_port, "workers": workers}
    settings = _with_options(load_settings(config, os.environ), host, numbers)
    configure_logging(settings.log)
    worker = assigned(os.environ)
    if worker is None and settings.server.workers:
        return await _supervise(settings, config)
    return await _serve(settings, config, worker)


async def _serve(settings: Settings, config: Path | None, worker: Worker | None) -> int:
    sys.setswitchinterval(SWITCH_SECONDS)
    # Signals are held before the port opens: whoever waits for it may stop the service at once.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        routing = RoutingFile(config, os.environ)
        if worker is not None and not await worker.leave():
            return 0
        running = run_service(settings, os.environ, routing=routing, worker=worker)
        async with running as service, beside(_follow(worker)):
            async for number in signals:
                if number != signal.SIGHUP:
                    break
                service.reload()
    return 0


async def _follow(worker: Worker | None) -> None:
    """Say that requests are taken, and end with the supervisor: another one may need the ports and the state."""
    if worker is not None:
        await worker.ready()
        await worker.abandoned()
        signal.raise_signal(signal.SIGTERM)


async def _supervise(settings: Settings, config: Path | None) -> int:
    routing = RoutingFile(config, os.environ).current
    arguments = ["serve", *(["--config", str(config)] if config else [])]
    return await supervise(settings.server, arguments, Telemetry(), ingest=bool(routing.sources))


def _with_options(settings: Settings, host: str | None, numbers: Mapping[str, int | None]) -> Settings:
    """Options on the command line win over file and environment; the result is checked like both."""
    given: dict[str, str | int | None] = {"host": host, "operator_host": host, "ingest_host": host, **numbers}
    chosen = {name: value for name, value in given.items() if value is not None}
    changed = msgspec.structs.replace(settings, server=msgspec.structs.replace(settings.server, **chosen))
    check_settings(changed)
    return changed
