"""``impact-plugin validate``: every mistake of a configuration, with its path, before anything is started."""

import os
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from impact_plugin.cli.checks import Check, check_credentials, check_hosts
from impact_plugin.cli.errors import CommandError
from impact_plugin.cli.exit_codes import DONE, FAILED, UNUSABLE
from impact_plugin.cli.options import Json, Quiet
from impact_plugin.cli.output import SEVERITY_STYLES, Output, counted
from impact_plugin.config.settings import Settings
from impact_plugin.config.validation import Finding, Validated, validate_destinations, validate_service
from impact_transformers.events import UNREADABLE

OFFLINE: Final = 3


class _Report(msgspec.Struct, frozen=True):
    findings: tuple[Finding, ...]
    checks: tuple[Check, ...]


async def validate(
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    *,
    deny_warnings: bool = False,
    online: bool = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Check a configuration without starting anything: every mistake, with its path and a suggestion.

    Exit code 0: no errors; 1: warnings, with --deny-warnings; 2: errors; 3: impact.com does not answer or refuses the
    credentials, with --online.

    ```sh
    impact-plugin validate impact.toml --online
    impact-plugin validate workspaceConfig.json --deny-warnings
    ```

    Parameters
    ----------
    config
        Your TOML file; or a JSON file: a router's workspaceConfig.json, or the configuration of one destination.
        Without a file only the environment variables are checked.
    deny_warnings
        Fail on warnings too, for CI.
    online
        Check names, certificates, clock and credentials against impact.com as well; it creates nothing there.
    """
    output = Output(as_json=json, quiet=quiet)
    validated = _validated(config)
    checks = await _online_checks(validated) if online else []
    for finding in validated.findings:
        output.line(str(finding), SEVERITY_STYLES[finding.severity])
    for check in checks:
        output.line(str(check), SEVERITY_STYLES[check.severity])
    output.result(_Report(validated.findings, tuple(checks)))
    return _conclude(output, validated, checks, deny_warnings=deny_warnings)


def _validated(config: Path | None) -> Validated:
    if config is None or config.suffix != ".json":
        return validate_service(config, os.environ)
    findings = validate_destinations(_read_json(config), os.environ)
    return Validated(findings, Settings())


def _read_json(path: Path) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes())
    except (OSError, *UNREADABLE) as error:
        raise CommandError(f"{path}: cannot be read as JSON: {error}") from error


async def _online_checks(validated: Validated) -> list[Check]:
    if validated.settings is None:
        return []
    known = validated.routing.destinations.values() if validated.routing is not None else ()
    return [*await check_hosts(validated.settings), *await check_credentials(known, validated.settings)]


def _conclude(output: Output, validated: Validated, checks: list[Check], *, deny_warnings: bool) -> int:
    errors = sum(finding.severity == "error" for finding in validated.findings)
    warnings = len(validated.findings) - errors
    failed = sum(check.severity == "error" for check in checks)
    if errors or warnings or failed:
        failures = f", {counted(failed, 'failed check')}" if checks else ""
        output.line(f"{counted(errors, 'error')}, {counted(warnings, 'warning')}{failures}")
    else:
        output.line("ok: no mistakes found", SEVERITY_STYLES["ok"])
    if errors:
        return UNUSABLE
    if failed:
        return OFFLINE
    return FAILED if warnings and deny_warnings else DONE
