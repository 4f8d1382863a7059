"""``impact-plugin validate``: every mistake of a configuration, with its path, before anything is started."""

import os
from pathlib import Path
from typing import Any, Final

import msgspec

from impact_plugin.cli.inputs import Flag, InputError
from impact_plugin.cli.online_checks import Check, check_credentials, check_hosts
from impact_plugin.cli.output import STYLES, Output
from impact_plugin.config.settings import Settings
from impact_plugin.config.validation import Finding, Validated, validate_destinations, validate_service
from impact_transformers.events import UNREADABLE

DENIED: Final = 1
UNUSABLE: Final = 2
OFFLINE: Final = 3


class _Report(msgspec.Struct, frozen=True):
    findings: tuple[Finding, ...]
    checks: tuple[Check, ...]


async def validate(
    file: Path | None = None,
    *,
    deny_warnings: Flag = False,
    online: Flag = False,
    json: Flag = False,
    quiet: Flag = False,
) -> int:
    """Tell every mistake in settings, sources, destinations and variables, with its path and what was meant.

    Exit code 0: good; 1: only warnings, and they are denied; 2: errors; 3: impact.com cannot be reached or refuses
    credentials (--online).

    Parameters
    ----------
    file
        The service's TOML file; or JSON: a workspaceConfig.json, or one destination's configuration. Without it the
        variables of the environment are looked at.
    deny_warnings
        Warnings count as errors, for CI.
    online
        Also ask impact.com: names, certificates, clock, and the credentials of every destination. Nothing is created.
    json
        Print one JSON object.
    quiet
        Print nothing; the exit code tells.
    """
    look = Output(as_json=json, quiet=quiet)
    validated = _validated(file)
    checks: list[Check] = []
    if online and validated.settings is not None:
        checks += await check_hosts(validated.settings)
        known = validated.routing.destinations.values() if validated.routing is not None else ()
        checks += await check_credentials(known, validated.settings)
    for finding in validated.findings:
        look.line(str(finding), STYLES[finding.severity])
    for check in checks:
        look.line(f"{check.verdict}: {check.name}: {check.detail}", STYLES[check.verdict])
    look.result(_Report(validated.findings, tuple(checks)))
    return _summed_up(look, validated, checks, deny=deny_warnings)


def _validated(file: Path | None) -> Validated:
    if file is None or file.suffix != ".json":
        return validate_service(file, os.environ)
    findings = validate_destinations(_read_json(file), os.environ)
    return Validated(findings, Settings())


def _read_json(file: Path) -> Any:
    try:
        return msgspec.json.decode(file.read_bytes())
    except (OSError, *UNREADABLE) as error:
        raise InputError(f"{file}: cannot be read as JSON: {error}") from error


def _summed_up(look: Output, validated: Validated, checks: list[Check], *, deny: bool) -> int:
    errors = sum(finding.severity == "error" for finding in validated.findings)
    warnings = len(validated.findings) - errors
    bad = sum(check.verdict == "bad" for check in checks)
    if not errors and not warnings and not bad:
        look.line("good: no mistakes found", "green")
    else:
        look.line(f"{errors} errors, {warnings} warnings" + (f", {bad} checks failed" if checks else ""))
    if errors:
        return UNUSABLE
    if bad:
        return OFFLINE
    return DENIED if warnings and deny else 0
