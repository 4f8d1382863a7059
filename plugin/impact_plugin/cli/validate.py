"""``impact-plugin validate``: every mistake of a configuration, with its path, before anything is started."""

import os
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from impact_plugin.cli.checks import Check, check_credentials, check_hosts
from impact_plugin.cli.errors import CommandError
from impact_plugin.cli.exit_codes import DONE, FAILED, UNUSABLE
from impact_plugin.cli.faults import log_faults_once
from impact_plugin.cli.options import Json, Quiet
from impact_plugin.cli.output import SEVERITY_STYLES, Output, counted
from impact_plugin.config.destinations import destination_variables
from impact_plugin.config.settings import Settings
from impact_plugin.config.validation import (
    Finding,
    Validated,
    destinations_in,
    validate_destinations,
    validate_service,
)
from impact_plugin.traffic.advice import OrderAdvice, findings_of, read_orders, remarks_on
from impact_plugin.traffic.destinations import TrafficDestinations
from impact_plugin.traffic.reading import Traffic
from impact_transformers.conventions import AUTO
from impact_transformers.events import UNREADABLE

OFFLINE: Final = 3
SHOWN_FITS: Final = 5


class _Report(msgspec.Struct, frozen=True):
    findings: tuple[Finding, ...]
    checks: tuple[Check, ...]
    orders: tuple[OrderAdvice, ...]


async def validate(
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    *,
    deny_warnings: bool = False,
    online: bool = False,
    orders: Path | None = None,
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
    orders
        File of events, as for replay: tells which orderAmount fits the orders in it, with the share, and which events
        look like an order and have no entry.
    """
    output = Output(as_json=json, quiet=quiet)
    validated = _validated(config)
    checks = await _online_checks(validated) if online else []
    advice = [] if orders is None else _read_orders(orders, config, validated)
    advised = tuple(finding for path, one in advice for finding in findings_of(one, path))
    validated = msgspec.structs.replace(validated, findings=(*validated.findings, *advised))
    for path, one in advice:
        _print_advice(output, path, one)
    for finding in validated.findings:
        output.line(str(finding), SEVERITY_STYLES[finding.severity])
    for check in checks:
        output.line(str(check), SEVERITY_STYLES[check.severity])
    output.result(_Report(validated.findings, tuple(checks), tuple(one for _, one in advice)))
    return _conclude(output, validated, checks, deny_warnings=deny_warnings)


def _validated(config: Path | None) -> Validated:
    if config is None or config.suffix != ".json":
        return validate_service(config, os.environ)
    findings = validate_destinations(_read_json(config), os.environ)
    return Validated(findings, Settings())


def _read_orders(file: Path, config: Path | None, validated: Validated) -> list[tuple[str, OrderAdvice]]:
    """What the orders in the file say, with the path of the destination that reads them."""
    if any(finding.severity == "error" for finding in validated.findings):
        # Destinations that cannot be used read no orders.
        return []
    if config is not None and config.suffix == ".json":
        known = {path: (path, one) for path, one in destinations_in(_read_json(config), os.environ).items()}
    else:
        routing = {} if validated.routing is None else validated.routing.destinations
        known = {name: (f"destinations.{name}", one) for name, one in routing.items()}
    given = [one for _, one in known.values()]
    destinations = TrafficDestinations(destination_variables(os.environ), given)
    found = read_orders(Traffic([file]), destinations, log_faults_once())
    return [(known[one.destination][0] if one.destination in known else one.destination, one) for one in found]


def _print_advice(output: Output, path: str, one: OrderAdvice) -> None:
    for remark in remarks_on(one):
        output.line(f"{path}: {remark}")
    fits = [*one.advice.fits[:SHOWN_FITS]]
    if one.order_amount != AUTO and one.configured not in fits:
        fits.append(one.configured)
    if one.advice.telling:
        rows = [(fit.convention, f"{fit.orders:,}", one.share(fit)) for fit in fits]
        output.table(("orderAmount", "fits orders", "share"), rows)


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
