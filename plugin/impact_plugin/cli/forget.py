"""``impact-plugin forget``: delete everything that is kept about a person, through a running service or without one."""

import os
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from time import time
from typing import Any, Final

import aiohttp
import msgspec

from impact_plugin.cli.errors import CommandError
from impact_plugin.cli.exit_codes import DONE, UNUSABLE
from impact_plugin.cli.options import Config, Json, Quiet
from impact_plugin.cli.output import Output, counted
from impact_plugin.cli.target import operator_url
from impact_plugin.config.secrets import SECRET_FILE, load_or_create_secret
from impact_plugin.config.settings import LogSettings, ServerSettings, Settings, StateSettings, load_settings
from impact_plugin.config.sources import Routing, load_routing
from impact_plugin.errors import StateError, StateUnavailableError
from impact_plugin.files import is_held
from impact_plugin.ingest.deletion import MAX_IDS, ForgetReport, ForgetRequest, Forgetting, Program
from impact_plugin.sessions.sessions import Digests, Sessions
from impact_plugin.spool.sqlite_letters import open_letters
from impact_plugin.spool.sqlite_schema import FILE as SPOOL_FILE
from impact_plugin.spool.sqlite_schema import LOCK as SPOOL_LOCK
from impact_plugin.store.embedded import LOCK as SESSIONS_LOCK
from impact_plugin.store.embedded import open_store
from impact_plugin.telemetry import Telemetry, configure_logging
from impact_transformers import Secret
from impact_transformers.events import UNREADABLE

REPLY_SECONDS: Final = 600.0
"""How long to wait for the service: with millions of identities it needs minutes."""


async def forget(
    *,
    user: list[str] | None = None,
    anonymous: list[str] | None = None,
    account: list[str] | None = None,
    campaign: list[str] | None = None,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Delete what is kept about persons: remembered clicks, held events and dead letters.

    Anonymous ids that were joined to a user are deleted too. If the service is running, it deletes; if not, this
    command opens the files. You may repeat it at any time.

    Exit code 0: deleted, also if nothing was kept; 2: not everything could be reached.

    ```sh
    impact-plugin forget --user u-1 --anonymous a-1 --config impact.toml
    ```

    Parameters
    ----------
    user
        A user id; repeat the option for more.
    anonymous
        An anonymous id; repeat the option for more.
    account
        Account SID of a program that your file does not name, a router's for instance; repeat it for more, each with
        a campaign.
    campaign
        Campaign id of that program.
    """
    users, visitors = tuple(filter(None, user or ())), tuple(filter(None, anonymous or ()))
    if not users and not visitors:
        raise CommandError("--user: name a person, with --user ID or --anonymous ID")
    if len(account or ()) != len(campaign or ()):
        raise CommandError("--account: needs one --campaign each, and each --campaign an --account")
    output = Output(as_json=json, quiet=quiet)
    given = tuple(Program(*pair) for pair in zip(account or (), campaign or (), strict=True))
    settings, routing = load_settings(config, os.environ), load_routing(config, os.environ)
    configure_logging(LogSettings(level="error"))
    report = await _forget_all(settings, routing.programs, ForgetRequest(users, visitors, given), output)
    unknown = _unknown(routing, report, given)
    _print(output, report, unknown)
    return UNUSABLE if unknown else DONE


async def _forget_all(
    settings: Settings, programs: Collection[str], who: ForgetRequest, output: Output
) -> ForgetReport:
    """Have the service that holds the folder delete, or open the files."""
    folder = Path(settings.state.dir)
    if not folder.is_dir():
        raise StateError(folder, "does not exist; state.dir must be the folder of the service")
    try:
        if any(is_held(folder / lock) for lock in (SPOOL_LOCK, SESSIONS_LOCK)):
            return await _ask_service(settings.server, folder, who, output)
        return await _forget_here(settings, programs, who, output)
    except StateUnavailableError as error:
        raise CommandError(f"not everything was deleted: {error}; run the command again") from error


def _parts(who: ForgetRequest) -> list[ForgetRequest]:
    """Split the request into parts of the size that a service accepts."""
    pairs = [(True, id_) for id_ in who.users] + [(False, id_) for id_ in who.anonymous]
    parts = (pairs[start : start + MAX_IDS] for start in range(0, len(pairs), MAX_IDS))
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


async def _ask_service(server: ServerSettings, folder: Path, who: ForgetRequest, output: Output) -> ForgetReport:
    url = f"{operator_url(server)}/forget"
    timeout = aiohttp.ClientTimeout(total=REPLY_SECONDS, sock_connect=5)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as http:
            with output.progress("the service is deleting"):
                return _sum([await _post(http, url, part) for part in _parts(who)])
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise CommandError(
            f"{url}: the service that holds {folder} does not answer there ({type(error).__name__}); run this command "
            "with the service's settings (server.operator_host, server.operator_port), or stop the service first"
        ) from error


async def _post(http: aiohttp.ClientSession, url: str, who: ForgetRequest) -> ForgetReport:
    headers = {"Content-Type": "application/json"}
    async with http.post(url, data=msgspec.json.encode(who), headers=headers) as response:
        raw = await response.read()
    try:
        if response.status == 200:
            return msgspec.json.decode(raw, type=ForgetReport)
        message = msgspec.json.decode(raw, type=dict[str, Any]).get("error", "")
    except UNREADABLE as error:
        raise CommandError(
            f"{url}: replied {response.status} in an unknown form; is this the operator port?"
        ) from error
    raise CommandError(f"{url}: replied {response.status}: {message}")


async def _forget_here(
    settings: Settings, programs: Collection[str], who: ForgetRequest, output: Output
) -> ForgetReport:
    state, telemetry = settings.state, Telemetry()
    digests = Digests(_secret(state))
    async with AsyncExitStack() as stack:
        with output.progress("reading click memory"):
            store = await stack.enter_async_context(open_store(state, time))
        sessions = Sessions(store, digests, telemetry, state.grace_seconds, time)
        folder, letters = Path(state.dir), None
        if (folder / SPOOL_FILE).exists():
            letters = await stack.enter_async_context(open_letters(folder, time))
        chosen = {*programs, *(one.name for one in who.programs)}
        forgetting = Forgetting(sessions, letters, telemetry, lambda: chosen)
        with output.progress("deleting"):
            return _sum([await forgetting.forget(part.users, part.anonymous) for part in _parts(who)])


def _secret(state: StateSettings) -> Secret:
    """The secret of the digests; a new one would find nothing."""
    if state.secret:
        return state.secret
    folder = Path(state.dir)
    if not (folder / SECRET_FILE).exists():
        raise StateError(folder, "holds no state; state.dir must be the folder of the service")
    return load_or_create_secret(folder)


def _unknown(routing: Routing, report: ForgetReport, given: Sequence[Program]) -> str:
    """Say which programs could not be searched; "" for none."""
    fix = "name each that events may have had with --account SID --campaign ID"
    known = routing.destinations.items()
    templates = [name for name, one in known if one.destination is None or one.destination.program is None]
    if templates and not given:
        return f"{', '.join(templates)}: account and campaign come from each event and are unknown; {fix}"
    if not report.programs:
        return f"no destination is configured, and clicks are kept by account and campaign; {fix}"
    return ""


def _print(output: Output, report: ForgetReport, unknown: str) -> None:
    programs = counted(report.programs, "program")
    output.line(f"click memory: {report.identities} identities deleted, at {programs}")
    output.line(f"held events: {report.waiting} deleted")
    output.line(f"dead letters: {report.dead_letters} deleted")
    output.line(f"ledger of conversions: {report.ledger}")
    output.result({**msgspec.structs.asdict(report), "unknown": unknown})
    if unknown:
        output.warning(unknown)
