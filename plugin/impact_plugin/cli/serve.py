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
from impact_plugin.settings import Settings, load_settings
from impact_plugin.sources import RoutingFile
from impact_plugin.telemetry import configure_logging

SWITCH_SECONDS: Final = 0.001
"""How long the event loop may keep a thread that writes to disk from going on; five times as long unless told."""


async def serve(
    *,
    host: str | None = None,
    port: int | None = None,
    operator_port: int | None = None,
    ingest_port: int | None = None,
    config: Path | None = None,
) -> None:
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
    config
        TOML file with settings, sources and destinations; read again on SIGHUP, as far as the latter two go.
    """
    ports = {"port": port, "operator_port": operator_port, "ingest_port": ingest_port}
    sys.setswitchinterval(SWITCH_SECONDS)
    settings = _with_options(load_settings(config, os.environ), host, ports)
    configure_logging(settings.log)
    # Signals are held before the port opens: whoever waits for it may stop the service at once.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        routing = RoutingFile(config, os.environ)
        async with run_service(settings, os.environ, routing=routing) as service:
            async for number in signals:
                if number != signal.SIGHUP:
                    return
                service.reload()


def _with_options(settings: Settings, host: str | None, ports: Mapping[str, int | None]) -> Settings:
    """Options on the command line win over file and environment."""
    given: dict[str, str | int | None] = {"host": host, "operator_host": host, "ingest_host": host, **ports}
    chosen = {name: value for name, value in given.items() if value is not None}
    return msgspec.structs.replace(settings, server=msgspec.structs.replace(settings.server, **chosen))
