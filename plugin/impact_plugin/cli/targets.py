"""A running service as the target of a command: where it is, and how requests to it look."""

import ipaddress
import socket
from pathlib import Path
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

from cyclopts import Parameter

from impact_plugin.cli.inputs import InputError, read_config
from impact_plugin.config.destinations import DEMONSTRATION
from impact_plugin.config.settings import ServerSettings
from impact_plugin.traffic.shapes import SENDERS, Shape, Via

Key: TypeAlias = Annotated[str, Parameter(env_var="IMPACT_PLUGIN_KEY")]
"""A source's key; in a variable no other user of the machine reads it off the list of processes."""


def address_of(option: str, url: str | None, via: Via, *, anywhere: bool) -> tuple[str, int]:
    """The numeric address and port that a URL stands for, by default the port of this machine that ``via`` asks for.

    Raises :class:`InputError`, which names ``option``, for what is no such URL or not this machine.
    """
    server = ServerSettings()
    default = f"http://127.0.0.1:{server.ingest_port if via in SENDERS else server.port}"
    try:
        parts = urlsplit(default if url is None else url)
        name, port = parts.hostname or "", 80 if parts.port is None else parts.port
        if parts.scheme != "http" or not name or not port or parts.path not in ("", "/"):
            raise InputError(f"{option}: must be http://HOST:PORT, the address of the service itself")
        host = str(socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise InputError(f"{option}: {name} is not found: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{option}: must be http://HOST:PORT, the address of the service itself: {error}") from error
    if not anywhere and not ipaddress.ip_address(host).is_loopback:
        raise InputError(f"{option}: {name} is not this machine; --anywhere allows it, if it is yours")
    return host, port


def shape_of(via: Via, address: tuple[str, int], destination: Path | None, batch: int, key: str, source: str) -> Shape:
    """How the requests look; raises :class:`InputError` for what a way needs and is not given."""
    if via in SENDERS and not key:
        raise InputError(f"--key: is needed with --via {via}: the source's key")
    if not _is_plain(key):
        raise InputError("--key: must have visible ASCII characters only; is there a line end in the variable?")
    if via == "webhook" and not source:
        raise InputError("--source: is needed with --via webhook: the source's name")
    if not _is_plain(source) or "/" in source:
        raise InputError("--source: must be the name of a source: letters, digits, - and _")
    config = DEMONSTRATION if destination is None else read_config(destination)
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return Shape(via, f"{host}:{address[1]}", config, batch, key, source)


def _is_plain(text: str) -> bool:
    return all("!" <= character <= "~" for character in text)
