"""Whether the world outside is as the settings say: names, certificates, clocks, credentials, neighbours, disks.

Nothing that is asked creates anything: credentials are tried with a conversion that has no parameters, which impact.com
refuses as such (400) once it has accepted the credentials.
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

from impact_plugin.config.destinations import KnownDestination
from impact_plugin.config.settings import Settings
from impact_plugin.delivery.endpoints import FORM_TYPE
from impact_plugin.units import MIB
from impact_transformers import Destination, DestinationConfig

Verdict: TypeAlias = Literal["good", "warning", "bad"]

SECONDS: Final = 5.0
MOST_SKEW_SECONDS: Final = 60.0
"""Event times ahead of impact.com's clock are refused or clamped; a minute is already wrong somewhere."""

_TLS_PORT: Final = 443


class Check(msgspec.Struct, frozen=True):
    """One look at the world: what, how it went, and what to do."""

    name: str
    verdict: Verdict
    detail: str


async def check_hosts(settings: Settings) -> list[Check]:
    """Names, certificates and clocks of impact.com's two hosts."""
    urls = dict.fromkeys((settings.impact.api_url, settings.impact.tracking_url))
    found = await asyncio.gather(*(_check_host(url) for url in urls))
    return [check for checks in found for check in checks]


async def check_credentials(destinations: Iterable[KnownDestination], settings: Settings) -> list[Check]:
    """Whether impact.com takes the credentials of every destination; each account is asked once."""
    configs: dict[tuple[str, str], tuple[str, DestinationConfig]] = {}
    for known in destinations:
        if isinstance(known.destination, Destination):
            config = known.destination.config
            configs.setdefault((config.account_sid, config.api_key.reveal()), (known.id, config))
    async with _client() as client:
        return [await _check_account(client, name, config, settings) for name, config in configs.values()]


async def check_neighbours(settings: Settings) -> list[Check]:
    """The stock transformer, and this service itself where it runs."""
    server = settings.server
    checks = []
    async with _client() as client:
        if settings.rudder.upstream:
            url = f"{settings.rudder.upstream.rstrip('/')}/features"
            checks.append(await _check_upstream(client, url))
        url = f"http://{_reachable(server.operator_host)}:{server.operator_port}/ready"
        checks.append(await _check_ready(client, url))
    return checks


async def check_state(settings: Settings) -> list[Check]:
    """The folder of the state, and its disk."""
    folder = Path(settings.state.dir)
    return [_check_folder(folder), _check_disk(folder, settings.spool.min_free_mb)]


def _client() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS), cookie_jar=aiohttp.DummyCookieJar())


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared


async def _check_host(url: str) -> list[Check]:
    host = urlsplit(url).hostname or ""
    try:
        loop = asyncio.get_running_loop()
        port = urlsplit(url).port or _TLS_PORT
        async with asyncio.timeout(SECONDS):
            addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        return [Check(f"name {host}", "bad", f"is not found ({_said(error)}): see the resolver, or the address")]
    checks = [Check(f"name {host}", "good", f"{len({entry[4][0] for entry in addresses})} addresses")]
    async with _client() as client:
        try:
            async with client.get(url, allow_redirects=False) as response:
                checks.append(Check(f"connection to {host}", "good", f"{_safety(url)}, answers {response.status}"))
                checks += _check_clock(host, response.headers.get("Date"))
        except aiohttp.ClientConnectorCertificateError as error:
            told = f"the certificate is not accepted ({_said(error)}): a proxy in between, or old root certificates?"
            checks.append(Check(f"connection to {host}", "bad", told))
        except (aiohttp.ClientError, OSError, TimeoutError, ssl.SSLError) as error:
            checks.append(Check(f"connection to {host}", "bad", f"fails ({_said(error)}): firewall, proxy, or outage"))
    return checks


def _safety(url: str) -> str:
    return "TLS, certificate verified" if url.startswith("https://") else "without TLS"


def _check_clock(host: str, date: str | None) -> list[Check]:
    skew = None
    with suppress(TypeError, ValueError):
        skew = time() - parsedate_to_datetime(date or "").timestamp()
    if skew is None:
        return []
    if abs(skew) <= MOST_SKEW_SECONDS:
        return [Check("clock", "good", f"within {max(1, round(abs(skew)))} s of {host}")]
    return [Check("clock", "bad", f"{round(abs(skew))} s {'ahead of' if skew > 0 else 'behind'} {host}: use NTP")]


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
        return Check(check, "bad", f"cannot be tried ({_said(error)})")
    if status in _REFUSED:
        return Check(check, "bad", f"{status}: {_REFUSED[status]}")
    if status in (400, 413, 415, 422):
        return Check(check, "good", "accepted")
    return Check(check, "warning", f"impact.com answers {status}: try again later")


_REFUSED: Final = {
    401: "wrong Account SID or Auth Token",
    403: "the token has no scope for Conversions, or was disabled",
    404: "there is no such Account SID",
    405: "there is no such Account SID",
}


async def _check_upstream(client: aiohttp.ClientSession, url: str) -> Check:
    name, otherwise = "stock transformer", "look at it, or correct rudder.upstream"
    try:
        async with client.get(url) as response:
            verdict: Verdict = "good" if response.status == 200 else "bad"
            return Check(name, verdict, f"answers {response.status}" + ("" if verdict == "good" else f": {otherwise}"))
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return Check(name, "bad", f"does not answer at {url} ({_said(error)}): {otherwise}")


async def _check_ready(client: aiohttp.ClientSession, url: str) -> Check:
    try:
        async with client.get(url) as response:
            told = msgspec.json.decode(await response.read(), type=_Ready)
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError):
        return Check("this service", "warning", f"does not run, or not at {url}")
    found = [*told.problems, *told.troubles]
    verdict: Verdict = "bad" if told.problems else "warning" if told.troubles else "good"
    return Check("this service", verdict, "; ".join(found) or "ready")


class _Ready(msgspec.Struct):
    problems: Sequence[str] = ()
    troubles: Sequence[str] = ()


def _check_folder(folder: Path) -> Check:
    if not folder.exists():
        return Check("state folder", "warning", f"{folder} is not there yet; it is made at the first start")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Check("state folder", "bad", f"{folder} cannot be written by this user")
    return Check("state folder", "good", str(folder))


def _check_disk(folder: Path, floor_mb: int) -> Check:
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free // MIB
    if free < floor_mb:
        return Check("disk", "bad", f"{free:,} MiB free, less than spool.min_free_mb ({floor_mb:,}): senders get 429")
    return Check("disk", "warning" if free < 4 * floor_mb else "good", f"{free:,} MiB free")


def _said(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or type(error).__name__)
