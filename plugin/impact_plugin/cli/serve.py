"""``impact-plugin serve``: run the service, in this process or in a worker under a supervisor."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Final

import anyio

from impact_plugin.app import run_service
from impact_plugin.cli.options import Config, setting_option
from impact_plugin.config.settings import Settings, load_settings
from impact_plugin.config.sources import RoutingFile
from impact_plugin.process.supervisor import supervise
from impact_plugin.process.worker import Worker, assigned
from impact_plugin.telemetry import Telemetry, configure_logging

SWITCH_SECONDS: Final = 0.001
"""How long the event loop may keep a thread that writes to disk waiting; Python's default is five times as long."""


async def serve(
    *,
    host: str | None = None,
    port: Annotated[int | None, setting_option("server.port")] = None,
    operator_port: Annotated[int | None, setting_option("server.operator_port")] = None,
    ingest_port: Annotated[int | None, setting_option("server.ingest_port")] = None,
    workers: Annotated[int | None, setting_option("server.workers")] = None,
    config: Config = None,
) -> int:
    """Run the service until you interrupt it.

    It answers routers, and senders of events if your file has sources. Options override variables, and variables
    override the file. On SIGHUP it reads sources and destinations again; with a supervisor also settings and code.

    ```sh
    impact-plugin serve --config impact.toml
    impact-plugin serve --config impact.toml --host 0.0.0.0 --workers 1
    ```

    Parameters
    ----------
    host
        Address that all ports listen on; default 127.0.0.1.
    """
    options = {
        "server.host": host,
        "server.operator_host": host,
        "server.ingest_host": host,
        "server.port": port,
        "server.operator_port": operator_port,
        "server.ingest_port": ingest_port,
        "server.workers": workers,
    }
    settings = load_settings(config, os.environ, options)
    configure_logging(settings.log)
    worker = assigned(os.environ)
    if worker is None and settings.server.workers:
        return await _supervise(settings, config)
    return await _serve(settings, config, worker)


async def _serve(settings: Settings, config: Path | None, worker: Worker | None) -> int:
    sys.setswitchinterval(SWITCH_SECONDS)
    # Signals are caught before the port opens: a script that waits for the port may stop the service at once.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        routing = RoutingFile(config, os.environ)
        if worker is not None and not await worker.wait_for_go():
            return 0
        async with run_service(settings, os.environ, routing=routing, worker=worker) as service:
            async for number in signals:
                if number != signal.SIGHUP:
                    break
                service.reload()
    return 0


async def _supervise(settings: Settings, config: Path | None) -> int:
    routing = RoutingFile(config, os.environ).current
    arguments = ["serve", *(["--config", str(config)] if config else [])]
    return await supervise(settings.server, arguments, Telemetry(), ingest=bool(routing.sources))
