"""``impact-plugin record``: write down what a running service is asked, without persons, for a replay."""

import contextlib
import os
from pathlib import Path
from time import monotonic
from typing import Annotated, Final, TypeAlias

import aiohttp
from cyclopts import Parameter, validators

from impact_plugin.cli.inputs import Flag, InputError
from impact_plugin.cli.output import Output
from impact_plugin.config.settings import LARGEST_RECORDING_MB, LONGEST_RECORDING_MINUTES, ServerSettings
from impact_plugin.units import MIB, MINUTE_SECONDS

CONNECT_SECONDS: Final = 5.0

Minutes: TypeAlias = Annotated[float, Parameter(validator=validators.Number(gt=0, lte=LONGEST_RECORDING_MINUTES))]
Mebibytes: TypeAlias = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=LARGEST_RECORDING_MB))]


async def record(
    out: Path,
    *,
    url: str = f"http://127.0.0.1:{ServerSettings().operator_port}",
    minutes: Minutes = 5.0,
    max_mb: Mebibytes = 50,
    force: Flag = False,
    quiet: Flag = False,
) -> int:
    """Record what a running service is asked by routers and senders, until the time or the size is up, or Ctrl-C.

    E-mails are hashed, identifiers of persons and devices replaced by keyed pseudonyms, addresses on the network cut;
    click ids and order ids stay, so that a replay decides the same. Credentials are not in it.

    Exit code 0: written; 2: the service cannot be asked, or the file not be written.

    Parameters
    ----------
    out
        The file, gzipped NDJSON; only its owner can read it.
    url
        The operator's address of the service.
    minutes
        For how long.
    max_mb
        How large the file may get.
    force
        Replace a file that is there.
    quiet
        Print nothing.
    """
    look = Output(quiet=quiet)
    try:
        opened = os.open(out, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL), 0o600)
    except FileExistsError:
        raise InputError(f"{out}: is there already; --force replaces it") from None
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}") from error
    try:
        size = await _receive(opened, url, minutes * MINUTE_SECONDS, max_mb, look)
    except (aiohttp.ClientConnectorError, TimeoutError, aiohttp.InvalidURL) as error:
        out.unlink()
        raise InputError(f"{url}: the service does not answer there ({type(error).__name__}); see --url") from error
    finally:
        os.close(opened)
    look.line(f"{out}: {size / MIB:.2f} MiB; look at it with impact-plugin replay {out}")
    return 0


async def _receive(opened: int, url: str, seconds: float, max_mb: int, look: Output) -> int:
    """Write what comes; a connection that breaks leaves what was written, which can be read."""
    size, began = 0, monotonic()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
    asked = f"{url.rstrip('/')}/record?seconds={seconds:g}&mb={max_mb}"
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session, session.get(asked) as response:
        if response.status != 200:
            raise InputError(f"{url}: answers {response.status}: {(await response.text())[:200]}")
        with look.progress("recording", seconds) as advance, contextlib.suppress(aiohttp.ClientPayloadError):
            async for piece in response.content.iter_any():
                os.write(opened, piece)
                size += len(piece)
                advance(monotonic() - began, f"{size / MIB:.2f} MiB")
    return size
