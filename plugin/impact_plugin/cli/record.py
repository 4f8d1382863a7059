"""``impact-plugin record``: record the traffic of a running service, without personal data, for a replay."""

import contextlib
import os
from pathlib import Path
from time import monotonic
from typing import Annotated, Final, TypeAlias

import aiohttp
from cyclopts import Parameter, validators

from impact_plugin.cli.errors import CommandError
from impact_plugin.cli.exit_codes import DONE
from impact_plugin.cli.options import Json, Quiet
from impact_plugin.cli.output import Output
from impact_plugin.cli.target import operator_url
from impact_plugin.config.settings import MAX_RECORDING_MB, MAX_RECORDING_MINUTES, ServerSettings
from impact_plugin.units import MIB, MINUTE_SECONDS

CONNECT_SECONDS: Final = 5.0
DEFAULT_URL: Final = operator_url(ServerSettings())

Minutes: TypeAlias = Annotated[float, Parameter(validator=validators.Number(gt=0, lte=MAX_RECORDING_MINUTES))]
Mebibytes: TypeAlias = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=MAX_RECORDING_MB))]


async def record(
    out: Path,
    *,
    url: str = DEFAULT_URL,
    minutes: Minutes = 5.0,
    max_mb: Mebibytes = 50,
    force: bool = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Record what routers and senders send to a running service, without personal data, for a replay.

    E-mail addresses are hashed, ids of persons and devices become keyed pseudonyms, IP addresses are cut, and
    credentials are left out. Click ids and order ids stay, so that a replay decides as the service did.

    The recording ends after --minutes, at --max-mb, or when you press Ctrl-C.

    Exit code 0: recorded; 2: the service does not answer, or the file cannot be written.

    ```sh
    impact-plugin record monday.ndjson.gz --minutes 60
    ```

    Parameters
    ----------
    out
        File to write, gzipped NDJSON that only you can read.
    url
        Address of the service's operator port.
    minutes
        How long to record, in minutes.
    max_mb
        How large the file may become, in MiB.
    force
        Replace an existing file.
    """
    output = Output(as_json=json, quiet=quiet)
    file = _create(out, replace=force)
    try:
        size = await _receive(file, url, minutes * MINUTE_SECONDS, max_mb, output)
    except (aiohttp.ClientConnectorError, TimeoutError, aiohttp.InvalidURL) as error:
        out.unlink()
        cause = type(error).__name__
        raise CommandError(f"{url}: the service does not answer ({cause}); start it, or correct --url") from error
    finally:
        os.close(file)
    output.line(f"{out}: {size / MIB:.2f} MiB; replay it with: impact-plugin replay {out}")
    output.result({"file": str(out), "bytes": size})
    return DONE


def _create(path: Path, *, replace: bool) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if replace else os.O_EXCL), 0o600)
    except FileExistsError:
        raise CommandError(f"{path}: already exists; --force replaces it") from None
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {error.strerror}") from error


async def _receive(file: int, url: str, seconds: float, max_mb: int, output: Output) -> int:
    """Write the recording and return its size; after a lost connection the file holds what arrived, and can be read."""
    size, began = 0, monotonic()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
    query = f"{url.rstrip('/')}/record?seconds={seconds:g}&mb={max_mb}"
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session, session.get(query) as response:
        if response.status != 200:
            text = (await response.text())[:200]
            raise CommandError(f"{url}: replied {response.status}: {text}; is this the operator port?")
        with output.progress("recording", seconds) as advance, contextlib.suppress(aiohttp.ClientPayloadError):
            async for piece in response.content.iter_any():
                os.write(file, piece)
                size += len(piece)
                advance(monotonic() - began, f"{size / MIB:.2f} MiB")
    return size
