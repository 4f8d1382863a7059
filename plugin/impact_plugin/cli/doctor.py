"""``impact-plugin doctor``: look at the world around the service, and sum it up for whoever is asked for help."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import msgspec

from impact_plugin import __version__
from impact_plugin.cli.inputs import Flag
from impact_plugin.cli.online_checks import Check, check_credentials, check_hosts, check_neighbours, check_state
from impact_plugin.cli.output import STYLES, Output
from impact_plugin.config.settings import Settings
from impact_plugin.config.validation import Validated, validate_service
from impact_transformers import Secret

ILL: Final = 1
UNUSABLE: Final = 2
PACKAGES: Final = ("aiohttp", "msgspec", "structlog")


class _Summary(msgspec.Struct, frozen=True):
    version: str
    python: str
    system: str
    packages: dict[str, str]
    settings: dict[str, Any]
    sources: int
    destinations: int
    findings: list[str]
    checks: list[Check]


async def doctor(*, config: Path | None = None, json: Flag = False, quiet: Flag = False) -> int:
    """Look at names, certificates, clock, disk, state, neighbours and credentials, and sum it up without secrets.

    What is printed can be pasted into an issue: secrets are not in it, nor account ids. Nothing is created anywhere.

    Exit code 0: all is well; 1: something is not; 2: the configuration cannot be used, see validate.

    Parameters
    ----------
    config
        The service's TOML file.
    json
        Print one JSON object.
    quiet
        Print nothing; the exit code tells.
    """
    look = Output(as_json=json, quiet=quiet)
    validated = validate_service(config, os.environ)
    checks = [] if validated.settings is None else await _all_checks(validated, validated.settings, look)
    summary = _summary(validated, checks)
    look.line(f"impact-plugin {summary.version}, Python {summary.python}, {summary.system}", "bold")
    look.line(", ".join(f"{name} {number}" for name, number in summary.packages.items()))
    look.line(f"{summary.sources} sources, {summary.destinations} destinations")
    for name, value in summary.settings.items():
        look.line(f"  {name} = {msgspec.json.encode(value).decode()}")
    for told in summary.findings:
        look.line(told, STYLES[told.partition(":")[0]])
    for check in checks:
        look.line(f"{check.verdict}: {check.name}: {check.detail}", STYLES[check.verdict])
    look.result(summary)
    if validated.settings is None:
        return UNUSABLE
    return ILL if any(check.verdict == "bad" for check in checks) else 0


async def _all_checks(validated: Validated, settings: Settings, look: Output) -> list[Check]:
    known = validated.routing.destinations.values() if validated.routing is not None else ()
    looks = (
        check_hosts(settings),
        check_credentials(known, settings),
        check_neighbours(settings),
        check_state(settings),
    )
    checks: list[Check] = []
    with look.progress("looking around", len(looks)) as advance:
        for number, one in enumerate(looks, 1):
            checks += await one
            advance(number)
    return checks


def _summary(validated: Validated, checks: list[Check]) -> _Summary:
    routing = validated.routing
    return _Summary(
        __version__,
        platform.python_version(),
        f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} cores, {sys.platform}",
        {name: number for name in PACKAGES if (number := _version(name))},
        _changed(validated.settings) if validated.settings is not None else {},
        0 if routing is None else len(routing.sources),
        0 if routing is None else len(routing.destinations),
        [str(finding) for finding in validated.findings],
        checks,
    )


def _changed(settings: Settings) -> dict[str, Any]:
    """What is not as it is by default; that a secret is set, and not which."""
    default, found = Settings(), {}
    for section in msgspec.structs.fields(Settings):
        ours, theirs = getattr(settings, section.name), getattr(default, section.name)
        for field in msgspec.structs.fields(section.type):
            value = getattr(ours, field.name)
            if value != getattr(theirs, field.name):
                found[f"{section.name}.{field.name}"] = "(set)" if isinstance(value, Secret) else value
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
