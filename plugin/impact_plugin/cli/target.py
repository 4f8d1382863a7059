"""A running service as the target of a command: its address, and the form of requests to it."""

import ipaddress
import socket
from pathlib import Path
from typing import Annotated, Final, TypeAlias
from urllib.parse import urlsplit

from cyclopts import Parameter

from impact_plugin.cli.destinations import read_configuration
from impact_plugin.cli.errors import CommandError
from impact_plugin.config.destinations import DEMONSTRATION
from impact_plugin.config.settings import ServerSettings
from impact_plugin.traffic.shapes import SENDERS, Shape, Via

SourceKey: TypeAlias = Annotated[
    str, Parameter(env_var="IMPACT_PLUGIN_KEY", help="A key of the source, for segment and webhook.")
]
"""In a variable, other users of the machine do not see the key in the list of processes."""

SourceName: TypeAlias = Annotated[str, Parameter(help="Name of the source, for webhook.")]
Anywhere: TypeAlias = Annotated[bool, Parameter(help="Allow an address outside this machine.")]

URL_FORM: Final = "must be http://HOST:PORT, the address of the service itself"


ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - nothing listens there
"""Where to reach a service that listens on all addresses."""


def operator_url(server: ServerSettings) -> str:
    """Where a command on the service's machine reaches its operator port."""
    host = ANY_ADDRESS.get(server.operator_host, server.operator_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{server.operator_port}"


def parse_address(url: str | None, via: Via, *, anywhere: bool) -> tuple[str, int]:
    """Resolve --url to a numeric address and a port; without one, the port of this machine that ``via`` uses.

    Raises :class:`CommandError` for another form of URL, and for another machine unless ``anywhere`` allows it.
    """
    server = ServerSettings()
    default = f"http://127.0.0.1:{server.ingest_port if via in SENDERS else server.port}"
    try:
        parts = urlsplit(default if url is None else url)
        name, port = parts.hostname or "", 80 if parts.port is None else parts.port
        if parts.scheme != "http" or not name or not port or parts.path not in ("", "/"):
            raise CommandError(f"--url: {URL_FORM}")
        host = str(socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise CommandError(f"--url: {name} is not found: {error.strerror}") from error
    except ValueError as error:
        raise CommandError(f"--url: {URL_FORM}: {error}") from error
    if not anywhere and not ipaddress.ip_address(host).is_loopback:
        raise CommandError(f"--url: {name} is not this machine; if it is yours, allow it with --anywhere")
    return host, port


def make_shape(via: Via, address: tuple[str, int], destination: str | None, batch: int, key: str, source: str) -> Shape:
    """Put together the form of the requests; raises :class:`CommandError` for what ``via`` needs and is missing."""
    if via in SENDERS and not key:
        raise CommandError(f"--key: required with --via {via}: a key of the source")
    if not _is_visible(key):
        raise CommandError("--key: must have visible ASCII characters only; does the variable end with a line break?")
    if via == "webhook" and not source:
        raise CommandError("--source: required with --via webhook: the name of the source")
    if not _is_visible(source) or "/" in source:
        raise CommandError("--source: must be the name of a source: letters, digits, - and _")
    config = DEMONSTRATION if destination is None else read_configuration(Path(destination))
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return Shape(via, f"{host}:{address[1]}", config, batch, key, source)


def _is_visible(text: str) -> bool:
    return all("!" <= character <= "~" for character in text)
