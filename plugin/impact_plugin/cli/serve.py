"""``impact-plugin serve``."""

import os
import signal
from pathlib import Path

import anyio
import msgspec

from impact_plugin.app import run_service
from impact_plugin.settings import Settings, load_settings
from impact_plugin.telemetry import configure_logging


async def serve(
    *,
    host: str | None = None,
    port: int | None = None,
    operator_port: int | None = None,
    config: Path | None = None,
) -> None:
    """Serve the router's protocol until interrupted.

    Parameters
    ----------
    host
        Address to listen on, both ports; default 127.0.0.1.
    port
        Port for the router; default 9090.
    operator_port
        Port for metrics and health; default 9091.
    config
        TOML file with settings; see the README's table.
    """
    settings = _with_options(load_settings(config, os.environ), host, port, operator_port)
    configure_logging(settings.log)
    # Signals are held before the port opens: whoever waits for it may stop the service at once.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with run_service(settings, os.environ):
            async for _ in signals:
                return


def _with_options(settings: Settings, host: str | None, port: int | None, operator_port: int | None) -> Settings:
    """Options on the command line win over file and environment."""
    given = {"host": host, "operator_host": host, "port": port, "operator_port": operator_port}
    chosen = {name: value for name, value in given.items() if value is not None}
    return msgspec.structs.replace(settings, server=msgspec.structs.replace(settings.server, **chosen))
