"""Validates settings, sources and destinations without starting the service.

Errors are mistakes with which the service does not start. Warnings are about valid configuration that probably does not
do what you mean.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from impact_plugin.config.destinations import Destinations, KnownDestination, destination_variables
from impact_plugin.config.fields import did_you_mean, quote_name
from impact_plugin.config.manifest import load_manifest
from impact_plugin.config.settings import Settings, make_settings, read_file
from impact_plugin.config.sources import Routing, make_routing
from impact_plugin.errors import ManifestError, SettingsError
from impact_transformers import ConfigurationError, Destination, DestinationConfig, compile_destination
from impact_transformers.configuration import unknown_keys
from impact_transformers.event_names import APPLICATION_INSTALLED

Severity: TypeAlias = Literal["error", "warning"]

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1", "0.0.0.0"})  # noqa: S104 - compared, not listened on
EXCLUSIVE: Final = ("MediaId", "MediaPartnerId")
"""Parameters of which impact.com accepts only one.

https://integrations.impact.com/impact-brand/reference/submit-a-conversion
"""


class Finding(msgspec.Struct, frozen=True):
    """An error or warning: the path of the key, and what to do."""

    severity: Severity
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.path}: {self.message}"


class Validated(msgspec.Struct, frozen=True):
    """The findings, and the settings and the routing if they are valid."""

    findings: tuple[Finding, ...]
    settings: Settings | None = None
    routing: Routing | None = None


def validate_service(file: Path | None, environment: Mapping[str, str]) -> Validated:
    """Validate the manifest, the file of the service and its environment variables."""
    findings = list(_manifest_findings())
    try:
        tree = {} if file is None else read_file(file)
    except SettingsError as error:
        return Validated((*findings, *_errors(error)))
    settings, routing = None, None
    try:
        settings = make_settings(tree, environment)
        findings += _settings_warnings(settings)
    except SettingsError as error:
        findings += _errors(error)
    try:
        routing = make_routing(tree, environment)
        findings += _routing_warnings(routing, tree, settings)
    except SettingsError as error:
        findings += _errors(error)
    return Validated(tuple(findings), settings, routing)


def validate_destinations(tree: Any, environment: Mapping[str, str]) -> tuple[Finding, ...]:
    """Validate the configuration of a destination, or of all that are ours in a ``workspaceConfig.json``."""
    configurations = [*_configurations_in(tree)]
    if not configurations:
        return (Finding("error", "$", "holds no configuration of a destination of ours"),)
    return tuple(
        finding for path, config in configurations for finding in _configuration_findings(path, config, environment)
    )


def destinations_in(tree: Any, environment: Mapping[str, str]) -> dict[str, KnownDestination]:
    """Compile what :func:`validate_destinations` validates, by path."""
    compiled = Destinations(destination_variables(environment))
    return {path: compiled.of_config(path, config) for path, config in _configurations_in(tree)}


def _manifest_findings() -> Iterator[Finding]:
    try:
        load_manifest()
    except ManifestError as error:
        yield Finding("error", "manifest.json", str(error).removeprefix("manifest.json: "))


def _errors(error: SettingsError) -> Iterator[Finding]:
    for problem in error.problems:
        yield Finding("error", problem.path, problem.message)


def _settings_warnings(settings: Settings) -> Iterator[Finding]:
    upstream = urlsplit(settings.rudder.upstream)
    if upstream.hostname in LOOPBACK and upstream.port == settings.server.port:
        yield Finding("warning", "rudder.upstream", "is this service's own address: requests would loop")
    folder = Path(settings.state.dir)
    if str(folder).startswith(("/tmp/", "/var/tmp/")):  # noqa: S108 - warned of, not used
        yield Finding("warning", "state.dir", "is in a folder for temporary files: the system may delete it")


def _routing_warnings(routing: Routing, tree: Mapping[str, Any], settings: Settings | None) -> Iterator[Finding]:
    tables = tree.get("destinations", {})
    for name, known in routing.destinations.items():
        if isinstance(known.destination, Destination):
            table = tables.get(name, {}) if isinstance(tables, dict) else {}
            yield from _config_warnings(f"destinations.{name}", known.destination.config, table)
            days = known.destination.config.referral_window_days
            if settings is not None and days > settings.state.click_memory_days:
                path = f"destinations.{name}.referralWindowDays"
                yield Finding("warning", path, f"is {days}, but state.click_memory_days forgets clicks before that")
    for source in routing.sources.values():
        destinations = routing.destinations_of(source)
        programs = Counter(one.destination.program for one in destinations if one.destination is not None)
        for program, count in programs.items():
            if program is not None and count > 1:
                path = f"sources.{source.name}.destinations"
                yield Finding(
                    "warning", path, f"{count} destinations are the same program: its events would go there twice"
                )


def _configurations_in(tree: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Configurations in a file: those of a workspace, that of a router's destination object, or a bare one."""
    if not isinstance(tree, dict):
        return
    ours = {load_manifest().destination_type.lower()}
    for number, source in enumerate(tree["sources"] if isinstance(tree.get("sources"), list) else ()):
        for index, one in enumerate(source.get("destinations", ()) if isinstance(source, dict) else ()):
            definition = one.get("destinationDefinition", {}) if isinstance(one, dict) else {}
            if str(definition.get("name", "")).lower() in ours and isinstance(one.get("config"), dict):
                yield f"sources[{number}].destinations[{index}].config", one["config"]
    if "sources" not in tree:
        found = tree.get("Config", tree.get("config", tree))
        if isinstance(found, dict):
            yield "config", found


def _configuration_findings(path: str, config: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[Finding]:
    schema = load_manifest().configuration
    variables = destination_variables(environment)
    known = [spelling for key in schema for spelling in (key.key, *key.aliases)]
    for key in unknown_keys(config, schema):
        # The control plane adds keys of its own, so only a key that resembles one of ours is reported.
        close = did_you_mean(key, known)
        if close:
            yield Finding("warning", f"{path}.{key}", f"there is no such key{close}")
    try:
        compiled = compile_destination(config, schema, variables)
    except ConfigurationError as error:
        for problem in error.problems:
            yield Finding("error", f"{path}.{problem.path}", problem.message)
        return
    if isinstance(compiled, Destination):
        yield from _config_warnings(path, compiled.config, config)


def _config_warnings(path: str, config: DestinationConfig, written: Mapping[str, Any]) -> Iterator[Finding]:
    """Warnings about valid configuration that probably does not do what you mean."""
    both = {name.lower() for name in config.action_event_names} & {name.lower() for name in config.install_event_names}
    for name in sorted(both):
        yield Finding("warning", f"{path}.installEventNames", f"{name!r} is an action event too; it will be an action")
    if config.event_type_id:
        entries = {one.name.casefold() for one in config.event_types}
        for name in (APPLICATION_INSTALLED, *config.install_event_names):
            if name.casefold() not in entries:
                message = (
                    f"is for actions; {name!r} goes to the event type whose code is its name, unless it has an entry"
                )
                yield Finding("warning", f"{path}.eventTypeId", message)
    yield from _event_type_warnings(f"{path}.eventTypes", config)
    if str(written.get("enableEmailHashing", "")).lower() == "false":
        yield Finding("warning", f"{path}.enableEmailHashing", "has no effect: e-mails are always hashed")
    if config.consent_gate != "off" and not config.consent_paths:
        message = "filters events by consent, but consentPaths does not say where it is"
        yield Finding("warning", f"{path}.consentGate", message)
    if config.repeated_clicks == "drop":
        message = "drops page loads that impact.com's tracking efficacy counts; page_load sends them as what they are"
        yield Finding("warning", f"{path}.repeatedClicks", message)
    mapped = {row.parameter for row in config.rudder_to_impact_property}
    if mapped >= set(EXCLUSIVE):
        yield Finding("warning", f"{path}.rudderToImpactProperty", f"impact.com takes one of {' and '.join(EXCLUSIVE)}")


def _event_type_warnings(path: str, config: DestinationConfig) -> Iterator[Finding]:
    """Entries that would book an install or a lead as an order, or an install as an action without an order id."""
    installs = {name.casefold() for name in (APPLICATION_INSTALLED, *config.install_event_names)}
    for entry in config.event_types:
        if entry.kind in {"install", "lead"} and entry.id and entry.id == config.event_type_id:
            message = f"is of kind {entry.kind}, but {entry.id} is the event type of actions (eventTypeId)"
            yield Finding("warning", f"{path}.{quote_name(entry.name)}", message)
        elif entry.kind == "action" and entry.name.casefold() in installs:
            message = "is an action, which needs an order id of its own; write kind = install for an install"
            yield Finding("warning", f"{path}.{quote_name(entry.name)}", message)
