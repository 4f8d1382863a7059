"""``impact-plugin doctor``: check what the service depends on, in a summary without secrets for whoever helps you."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import msgspec

from impact_plugin import __version__
from impact_plugin.cli.checks import Check, check_credentials, check_hosts, check_services, check_state
from impact_plugin.cli.exit_codes import DONE, FAILED, UNUSABLE
from impact_plugin.cli.options import Config, Json, Quiet
from impact_plugin.cli.output import SEVERITY_STYLES, Output, counted
from impact_plugin.config.settings import Settings
from impact_plugin.config.validation import Finding, Validated, validate_service
from impact_transformers import Secret

PACKAGES: Final = ("aiohttp", "msgspec", "structlog")


class _Summary(msgspec.Struct, frozen=True):
    version: str
    python: str
    system: str
    packages: dict[str, str]
    settings: dict[str, Any]
    sources: int
    destinations: int
    findings: tuple[Finding, ...]
    checks: list[Check]


async def doctor(*, config: Config = None, json: Json = False, quiet: Quiet = False) -> int:
    """Check names, certificates, clock, disk, credentials and the running service, for a request for help.

    You can paste the output into an issue: it holds neither secrets nor account ids. Nothing is created anywhere.

    Exit code 0: everything is ok; 1: a check failed; 2: the configuration cannot be used, see validate.

    ```sh
    impact-plugin doctor --config impact.toml
    ```
    """
    output = Output(as_json=json, quiet=quiet)
    validated = validate_service(config, os.environ)
    checks = [] if validated.settings is None else await _all_checks(validated, validated.settings, output)
    summary = _summary(validated, checks)
    _print(output, summary)
    output.result(summary)
    if validated.settings is None:
        return UNUSABLE
    return FAILED if any(check.severity == "error" for check in checks) else DONE


def _print(output: Output, summary: _Summary) -> None:
    output.line(f"impact-plugin {summary.version}, Python {summary.python}, {summary.system}", "bold")
    output.line(", ".join(f"{name} {number}" for name, number in summary.packages.items()))
    output.line(f"{counted(summary.sources, 'source')}, {counted(summary.destinations, 'destination')}")
    for name, value in summary.settings.items():
        output.line(f"  {name} = {msgspec.json.encode(value).decode()}")
    for finding in summary.findings:
        output.line(str(finding), SEVERITY_STYLES[finding.severity])
    for check in summary.checks:
        output.line(str(check), SEVERITY_STYLES[check.severity])


async def _all_checks(validated: Validated, settings: Settings, output: Output) -> list[Check]:
    known = validated.routing.destinations.values() if validated.routing is not None else ()
    pending = (
        check_hosts(settings),
        check_credentials(known, settings),
        check_services(settings),
        check_state(settings),
    )
    checks: list[Check] = []
    with output.progress("checking", len(pending)) as advance:
        for number, check in enumerate(pending, 1):
            checks += await check
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
        validated.findings,
        checks,
    )


def _changed(settings: Settings) -> dict[str, Any]:
    """The settings that differ from their defaults; of a secret only that it is set."""
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
