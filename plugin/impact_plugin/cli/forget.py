"""``impact-plugin forget``: delete whatever is kept of a person, beside a running service or without one."""

import os
import sys
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from time import time
from typing import Annotated, Any, Final, TypeAlias

import aiohttp
import msgspec
from cyclopts import Parameter
from rich.console import Console

from impact_plugin.config.secrets import FILE as SECRET_FILE
from impact_plugin.config.secrets import read_or_make_secret
from impact_plugin.config.settings import LogSettings, ServerSettings, Settings, StateSettings, load_settings
from impact_plugin.config.sources import Routing, load_routing
from impact_plugin.errors import ImpactPluginError, StateError, StateUnavailableError
from impact_plugin.files import is_held
from impact_plugin.http.ingest_service import programs_of
from impact_plugin.ingest.deletion import MOST_IDS, ForgetReport, ForgetRequest, Forgetting, Program
from impact_plugin.sessions.sessions import Digests, Sessions
from impact_plugin.spool.sqlite_letters import open_letters
from impact_plugin.spool.sqlite_schema import FILE as SPOOL_FILE
from impact_plugin.spool.sqlite_schema import LOCK as SPOOL_LOCK
from impact_plugin.store.embedded import LOCK as SESSIONS_LOCK
from impact_plugin.store.embedded import open_store
from impact_plugin.telemetry import Telemetry, configure_logging
from impact_transformers import Secret
from impact_transformers.events import UNREADABLE

INCOMPLETE: Final = 2
"""Exit code when something could not be reached, or a program is not known."""

PATIENCE_SECONDS: Final = 600.0
"""A service with millions of identities looks at all of them."""

ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - nothing listens there
"""Where a service is asked that listens everywhere."""

Ids: TypeAlias = Annotated[list[str] | None, Parameter(negative=())]


class ForgetError(ImpactPluginError):
    """Not everything was deleted; the message says why."""


async def forget(
    *,
    user: Ids = None,
    anonymous: Ids = None,
    account: Ids = None,
    campaign: Ids = None,
    json: Annotated[bool, Parameter(negative=())] = False,
    config: Path | None = None,
) -> int:
    """Delete what is kept of persons: remembered clicks, events that wait, dead letters.

    Anonymous ids that were joined to a user go with them. A running service is asked to do it; without one the files
    are opened. Asking again is harmless.

    Exit code 0: everything was looked at, also where nothing was known; 2: not everything could be reached.

    Parameters
    ----------
    user
        A user id; may be repeated.
    anonymous
        An anonymous id; may be repeated.
    account
        Account SID of a program that no destination of the file names, a router's for instance; may be repeated, each
        with a campaign.
    campaign
        Campaign id of that program.
    json
        Print the report as one JSON object.
    config
        The service's TOML file: settings and destinations.
    """
    users, visitors = tuple(filter(None, user or ())), tuple(filter(None, anonymous or ()))
    if not users and not visitors:
        raise ForgetError("whom? give --user ID or --anonymous ID")
    if len(account or ()) != len(campaign or ()):
        raise ForgetError("each --account needs a --campaign, and each --campaign an --account")
    given = tuple(Program(*pair) for pair in zip(account or (), campaign or (), strict=True))
    settings, routing = load_settings(config, os.environ), load_routing(config, os.environ)
    configure_logging(LogSettings(level="error"))
    who = ForgetRequest(users, visitors, given)
    report = await _forget_all(settings, programs_of(routing), who)
    unknown = _unknown(routing, report, given)
    _print(report, unknown, json=json)
    return INCOMPLETE if unknown else 0


async def _forget_all(settings: Settings, programs: Collection[str], who: ForgetRequest) -> ForgetReport:
    """Through the service where one has the folder, else by ourselves."""
    folder = Path(settings.state.dir)
    if not folder.is_dir():
        raise StateError(folder, "there is no such folder; is state.dir that of the service?")
    try:
        if any(is_held(folder / lock) for lock in (SPOOL_LOCK, SESSIONS_LOCK)):
            return await _ask_service(settings.server, folder, who)
        return await _forget_here(settings, programs, who)
    except StateUnavailableError as error:
        raise ForgetError(f"not all was deleted, ask again: {error}") from error


def _parts(who: ForgetRequest) -> list[ForgetRequest]:
    """The request in parts that a service takes at a time."""
    pairs = [(True, id_) for id_ in who.users] + [(False, id_) for id_ in who.anonymous]
    parts = (pairs[start : start + MOST_IDS] for start in range(0, len(pairs), MOST_IDS))
    return [
        ForgetRequest(
            tuple(id_ for is_user, id_ in part if is_user),
            tuple(id_ for is_user, id_ in part if not is_user),
            who.programs,
        )
        for part in parts
    ]


def _sum(reports: Sequence[ForgetReport]) -> ForgetReport:
    return ForgetReport(
        sum(one.identities for one in reports),
        sum(one.waiting for one in reports),
        sum(one.dead_letters for one in reports),
        max(one.programs for one in reports),
    )


async def _ask_service(server: ServerSettings, folder: Path, who: ForgetRequest) -> ForgetReport:
    host = ANY_ADDRESS.get(server.operator_host, server.operator_host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{server.operator_port}/forget"
    timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS, sock_connect=5)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as http:
            return _sum([await _post(http, url, part) for part in _parts(who)])
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ForgetError(
            f"a service has {folder}, but {url} cannot be asked ({type(error).__name__}): give this command the "
            "service's settings (server.operator_host, server.operator_port), or stop the service and try again"
        ) from error


async def _post(http: aiohttp.ClientSession, url: str, who: ForgetRequest) -> ForgetReport:
    with _progress("the service looks for them"):
        headers = {"Content-Type": "application/json"}
        async with http.post(url, data=msgspec.json.encode(who), headers=headers) as response:
            raw = await response.read()
    try:
        if response.status == 200:
            return msgspec.json.decode(raw, type=ForgetReport)
        told = msgspec.json.decode(raw, type=dict[str, Any]).get("error", "")
    except UNREADABLE as error:
        raise ForgetError(f"{url}: answered {response.status} with something else; is a service there?") from error
    raise ForgetError(f"{url}: answered {response.status}: {told}")


async def _forget_here(settings: Settings, programs: Collection[str], who: ForgetRequest) -> ForgetReport:
    """Open what is kept, and delete."""
    state, telemetry = settings.state, Telemetry()
    digests = Digests(_secret(state))
    async with AsyncExitStack() as stack:
        with _progress("reading what is remembered"):
            store = await stack.enter_async_context(open_store(state, time))
        sessions = Sessions(store, digests, telemetry, state.grace_seconds, time)
        folder, letters = Path(state.dir), None
        if (folder / SPOOL_FILE).exists():
            letters = await stack.enter_async_context(open_letters(folder, time))
        forgetting = Forgetting(sessions, letters, telemetry)
        chosen = {*programs, *(one.name for one in who.programs)}
        with _progress("looking for them"):
            return _sum([await forgetting.forget(part.users, part.anonymous, chosen) for part in _parts(who)])


def _secret(state: StateSettings) -> Secret:
    """What keys the digests; one that is made now would find nothing."""
    if state.secret:
        return state.secret
    folder = Path(state.dir)
    if not (folder / SECRET_FILE).exists():
        raise StateError(folder, "there is no state here; is state.dir the folder of the service?")
    return read_or_make_secret(folder)


def _unknown(routing: Routing, report: ForgetReport, given: Sequence[Program]) -> str:
    """Which programs could not be looked at; "" for none."""
    option = "give --account SID --campaign ID for each that events may have had"
    known = routing.destinations.items()
    templates = [name for name, one in known if one.destination is None or one.destination.program is None]
    if templates and not given:
        return f"{', '.join(templates)} take values from each event, so account and campaign may depend on it; {option}"
    if not report.programs:
        return f"no destination is configured, so no program is known, and clicks are kept by program; {option}"
    return ""


def _print(report: ForgetReport, unknown: str, *, json: bool) -> None:
    if json:
        print(msgspec.json.encode({**msgspec.structs.asdict(report), "unknown": unknown}).decode())
    else:
        print(f"click memory: {report.identities} identities deleted, at {report.programs} programs")
        print(f"waiting events: {report.waiting} deleted")
        print(f"dead letters: {report.dead_letters} deleted")
        print(f"ledger of conversions: {report.ledger}")
    if unknown:
        print(f"impact-plugin: {unknown}", file=sys.stderr)


def _progress(text: str) -> Any:
    """A word on a terminal while something lasts."""
    return Console(stderr=True).status(text)
