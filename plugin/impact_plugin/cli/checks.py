"""Checks of what the service depends on: names, certificates, clocks, credentials, disks and other services.

No check creates anything: credentials are tried with a conversion that has no parameters, which impact.com refuses for
that (400) once it has accepted the credentials.
https://integrations.impact.com/impact-brand/reference/submit-a-conversion
"""

import asyncio
import os
import shutil
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterable, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import time
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

import aiohttp
import msgspec

from impact_plugin.cli.target import operator_url
from impact_plugin.config.destinations import KnownDestination
from impact_plugin.config.settings import Settings
from impact_plugin.delivery.endpoints import FORM_TYPE
from impact_plugin.units import MIB
from impact_transformers import Destination, DestinationConfig

Severity: TypeAlias = Literal["ok", "warning", "error"]

TIMEOUT_SECONDS: Final = 5.0
MAX_SKEW_SECONDS: Final = 60.0
"""impact.com refuses or clamps event times ahead of its clock; a minute already means that a clock is not kept."""

_TLS_PORT: Final = 443


class Check(msgspec.Struct, frozen=True):
    """The result of one check: of what, how it went, and what to do about it."""

    name: str
    severity: Severity
    detail: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.name}: {self.detail}"


async def check_hosts(settings: Settings) -> list[Check]:
    """Resolve and connect to both hosts of impact.com, and compare their clocks with this machine's."""
    urls = dict.fromkeys((settings.impact.api_url, settings.impact.tracking_url))
    found = await asyncio.gather(*(_check_host(url) for url in urls))
    return [check for checks in found for check in checks]


async def check_credentials(destinations: Iterable[KnownDestination], settings: Settings) -> list[Check]:
    """Try the credentials of every destination at impact.com, each account once."""
    configs: dict[tuple[str, str], tuple[str, DestinationConfig]] = {}
    for known in destinations:
        if isinstance(known.destination, Destination):
            config = known.destination.config
            configs.setdefault((config.account_sid, config.api_key.reveal()), (known.id, config))
    async with _client() as client:
        return [await _check_account(client, name, config, settings) for name, config in configs.values()]


async def check_services(settings: Settings) -> list[Check]:
    """Ask the stock transformer, where one is configured, and the service itself, where it runs."""
    checks = []
    async with _client() as client:
        if settings.rudder.upstream:
            url = f"{settings.rudder.upstream.rstrip('/')}/features"
            checks.append(await _check_upstream(client, url))
        checks.append(await _check_ready(client, f"{operator_url(settings.server)}/ready"))
    return checks


async def check_state(settings: Settings) -> list[Check]:
    """Check the folder of the state, and the space on its disk."""
    folder = Path(settings.state.dir)
    return [_check_folder(folder), _check_disk(folder, settings.spool.min_free_mb)]


def _client() -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    return aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())


async def _check_host(url: str) -> list[Check]:
    host = urlsplit(url).hostname or ""
    try:
        loop = asyncio.get_running_loop()
        port = urlsplit(url).port or _TLS_PORT
        async with asyncio.timeout(TIMEOUT_SECONDS):
            addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        return [Check(f"name {host}", "error", f"not found ({_cause(error)}): check the DNS resolver and the address")]
    checks = [Check(f"name {host}", "ok", f"{len({entry[4][0] for entry in addresses})} addresses")]
    async with _client() as client:
        try:
            async with client.get(url, allow_redirects=False) as response:
                checks.append(Check(f"connection to {host}", "ok", f"{_security(url)}, status {response.status}"))
                checks += _check_clock(host, response.headers.get("Date"))
        except aiohttp.ClientConnectorCertificateError as error:
            detail = f"certificate refused ({_cause(error)}): check for a proxy in between or old root certificates"
            checks.append(Check(f"connection to {host}", "error", detail))
        except (aiohttp.ClientError, OSError, TimeoutError, ssl.SSLError) as error:
            detail = f"failed ({_cause(error)}): check firewall and proxy, or wait for the end of an outage"
            checks.append(Check(f"connection to {host}", "error", detail))
    return checks


def _security(url: str) -> str:
    return "TLS, certificate verified" if url.startswith("https://") else "without TLS"


def _check_clock(host: str, date: str | None) -> list[Check]:
    skew = None
    with suppress(TypeError, ValueError):
        skew = time() - parsedate_to_datetime(date or "").timestamp()
    if skew is None:
        return []
    if abs(skew) <= MAX_SKEW_SECONDS:
        return [Check("clock", "ok", f"within {max(1, round(abs(skew)))} s of {host}")]
    return [Check("clock", "error", f"{round(abs(skew))} s {'ahead of' if skew > 0 else 'behind'} {host}: use NTP")]


async def _check_account(
    client: aiohttp.ClientSession, name: str, config: DestinationConfig, settings: Settings
) -> Check:
    url = f"{settings.impact.api_url.rstrip('/')}/Advertisers/{config.account_sid}/Conversions"
    credentials = b64encode(f"{config.account_sid}:{config.api_key.reveal()}".encode()).decode()
    headers = {"Authorization": f"Basic {credentials}", "Accept": "application/json", "Content-Type": FORM_TYPE}
    check = f"credentials of {name}"
    try:
        async with client.post(url, data=b"", headers=headers, allow_redirects=False) as response:
            status = response.status
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return Check(check, "error", f"could not be tried ({_cause(error)})")
    if status in _REFUSALS:
        return Check(check, "error", f"{status}: {_REFUSALS[status]}")
    if status in (400, 413, 415, 422):
        return Check(check, "ok", "accepted")
    return Check(check, "warning", f"impact.com replied {status}: try again later")


_REFUSALS: Final = {
    401: "wrong Account SID or Auth Token",
    403: "the token lacks the scope for Conversions, or was disabled",
    404: "no such Account SID",
    405: "no such Account SID",
}


async def _check_upstream(client: aiohttp.ClientSession, url: str) -> Check:
    name, fix = "stock transformer", "start it, or correct rudder.upstream"
    try:
        async with client.get(url) as response:
            if response.status == 200:
                return Check(name, "ok", "status 200")
            return Check(name, "error", f"status {response.status} from {url}: {fix}")
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return Check(name, "error", f"no reply from {url} ({_cause(error)}): {fix}")


async def _check_ready(client: aiohttp.ClientSession, url: str) -> Check:
    try:
        async with client.get(url) as response:
            ready = msgspec.json.decode(await response.read(), type=_Ready)
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError):
        return Check("this service", "warning", f"not running, or not at {url}")
    severity: Severity = "error" if ready.problems else "warning" if ready.troubles else "ok"
    return Check("this service", severity, "; ".join([*ready.problems, *ready.troubles]) or "ready")


class _Ready(msgspec.Struct):
    problems: Sequence[str] = ()
    troubles: Sequence[str] = ()


def _check_folder(folder: Path) -> Check:
    if not folder.exists():
        return Check("state folder", "warning", f"{folder} does not exist; the service creates it when it first starts")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Check("state folder", "error", f"this user cannot write to {folder}")
    return Check("state folder", "ok", str(folder))


def _check_disk(folder: Path, floor_mb: int) -> Check:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free // MIB
    if free < floor_mb:
        detail = f"{free:,} MiB free, less than spool.min_free_mb ({floor_mb:,}): senders get 429"
        return Check("disk", "error", detail)
    return Check("disk", "warning" if free < 4 * floor_mb else "ok", f"{free:,} MiB free")


def _cause(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or type(error).__name__)
