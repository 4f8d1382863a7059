"""Everything that can be said about settings, sources and destinations without starting anything.

The service refuses the first mistake it meets. Whoever edits a file wants all of them, and the things that are no
mistakes and yet not what was meant.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from impact_plugin.config.manifest import load_manifest
from impact_plugin.config.settings import (
    DESCRIPTIONS,
    ENVIRONMENT_PREFIX,
    REMOVED,
    ROUTING,
    Settings,
    load_settings,
    make_settings,
    read_file,
)
from impact_plugin.config.sources import Routing, make_routing
from impact_plugin.config.variables import meant
from impact_plugin.errors import ManifestError, SettingsError
from impact_transformers import ConfigurationError, Destination, DestinationConfig, compile_destination
from impact_transformers.configuration import VARIABLE_PREFIX, unknown_keys
from impact_transformers.fields import CONVERSION, ITEM, PAGE_LOAD

Severity: TypeAlias = Literal["error", "warning"]

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1", "0.0.0.0"})  # noqa: S104 - compared, not listened on
NO_SUCH_KEY: Final = "there is no such key"
MOST_UNKNOWN: Final = 64
"""Unknown keys of one table that are told."""

TOGETHER: Final = ("MediaId", "MediaPartnerId")
"""impact.com takes one of them.

https://integrations.impact.com/impact-brand/reference/submit-a-conversion
"""


class Finding(msgspec.Struct, frozen=True):
    """One thing to look at: the path of the key, and what to do."""

    severity: Severity
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.path}: {self.message}"


class Validated(msgspec.Struct, frozen=True):
    """What was found; settings and routing where they can be used."""

    findings: tuple[Finding, ...]
    settings: Settings | None = None
    routing: Routing | None = None


def validate_service(file: Path | None, environment: Mapping[str, str]) -> Validated:
    """Look at the manifest, the service's file and its variables."""
    findings = list(_manifest_findings())
    try:
        tree = {} if file is None else read_file(file)
    except SettingsError as error:
        return Validated((*findings, _error(error)))
    setting_findings, settings = _setting_findings(file, tree, environment)
    routing_findings, routing = _routing_findings(tree, environment)
    findings += [*setting_findings, *routing_findings]
    if settings is not None:
        findings += _settings_warnings(settings)
    if routing is not None:
        findings += _routing_warnings(routing, tree, settings)
    return Validated(tuple(findings), settings, routing)


def validate_destinations(tree: Any, environment: Mapping[str, str]) -> tuple[Finding, ...]:
    """Look at a destination's configuration, or at all of ours in a ``workspaceConfig.json``."""
    found = [*_destinations_of(tree)]
    if not found:
        return (Finding("error", "$", "holds no configuration of a destination of ours"),)
    return tuple(finding for path, config in found for finding in _configuration_findings(path, config, environment))


def _manifest_findings() -> Iterator[Finding]:
    try:
        load_manifest()
    except ManifestError as error:
        yield Finding("error", "manifest.json", str(error).removeprefix("manifest.json: "))


def _error(error: Exception, path: str = "") -> Finding:
    """The finding for a message that begins with the path of its key."""
    head, separator, rest = str(error).partition(": ")
    return Finding("error", head, rest) if separator and " " not in head else Finding("error", path or "$", str(error))


def _setting_findings(
    file: Path | None, tree: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[list[Finding], Settings | None]:
    """Every mistake of every setting, and the settings where there is none."""
    try:
        return [], load_settings(file, environment)
    except SettingsError as whole:
        findings = [*_tree_findings(tree)]
        findings += [
            found
            for variable, value in environment.items()
            if variable.upper().startswith(ENVIRONMENT_PREFIX)
            for found in _variable_findings(variable, value)
        ]
        # Each by itself may be good, and together they contradict each other.
        return findings or [_error(whole)], None


def _tree_findings(tree: Mapping[str, Any]) -> Iterator[Finding]:
    sections = {name.partition(".")[0] for name in DESCRIPTIONS}
    for name, table in tree.items():
        if name in ROUTING:
            continue
        if name not in sections:
            yield Finding("error", name, f"there is no such section{meant(name, {*sections, *ROUTING})}")
        elif not isinstance(table, dict):
            yield Finding("error", name, f"must be a section of the file, [{name}]")
        else:
            yield from _section_findings(name, table)


def _section_findings(section: str, table: Mapping[str, Any]) -> Iterator[Finding]:
    known = [name.partition(".")[2] for name in DESCRIPTIONS if name.startswith(f"{section}.")]
    for key, value in table.items():
        if (setting := f"{section}.{key}") in REMOVED:
            yield Finding("error", setting, REMOVED[setting])
            continue
        if key not in known:
            yield Finding("error", f"{section}.{key}", f"there is no such setting{meant(key, known)}")
            continue
        try:
            make_settings({section: {key: value}})
        except SettingsError as error:
            if not _needs_others(str(error), f"{section}.{key}"):
                yield Finding("error", f"{section}.{key}", _without_path(str(error)))


def _needs_others(message: str, path: str) -> bool:
    """Whether the mistake is one of another setting, which the file may well set right."""
    head = message.partition(": ")[0]
    return "." in head and " " not in head and head != path


def _without_path(message: str) -> str:
    head, separator, rest = message.partition(": ")
    return rest.partition(" - at ")[0] if separator and " " not in head else message


def _variable_findings(variable: str, value: str) -> Iterator[Finding]:
    section, _, key = variable[len(ENVIRONMENT_PREFIX) :].lower().partition("__")
    if section in ROUTING:
        return
    setting = f"{section}.{key}"
    if setting in REMOVED:
        yield Finding("error", variable, REMOVED[setting])
        return
    if setting not in DESCRIPTIONS:
        close = meant(setting, DESCRIPTIONS).replace("did you mean ", f"did you mean {ENVIRONMENT_PREFIX}")
        yield Finding("error", variable, f"there is no such setting{_as_variable(close)}")
        return
    try:
        load_settings(None, {variable: value})
    except SettingsError as error:
        if not _needs_others(str(error), setting):
            yield Finding("error", variable, _without_path(str(error)))


def _as_variable(close: str) -> str:
    head, separator, name = close.rpartition(ENVIRONMENT_PREFIX)
    return f"{head}{separator}{name[:-1].upper().replace('.', '__')}?" if separator else close


def _routing_findings(tree: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[list[Finding], Routing | None]:
    """Every mistake of every table, and the routing where there is none."""
    try:
        return [], make_routing(tree, environment)
    except SettingsError as whole:
        findings = [*_table_findings(tree, environment)]
        return findings or [*_split(whole)], None


def _table_findings(tree: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[Finding]:
    """The mistakes of each table by itself; variables for other tables are left out."""
    destinations, sources = (tree.get(kind) for kind in ("destinations", "sources"))
    usable: dict[str, Any] = {}
    for name, table in destinations.items() if isinstance(destinations, dict) else ():
        found = [*_destination_findings(name, table, _variables_for(environment, "destinations", name))]
        yield from found
        if not found:
            usable[name] = table
    every = {name: usable.get(name, _PLACEHOLDER) for name in destinations} if isinstance(destinations, dict) else {}
    for name, table in sources.items() if isinstance(sources, dict) else ():
        try:
            make_routing(
                {"destinations": every, "sources": {name: table}}, _variables_for(environment, "sources", name)
            )
        except SettingsError as error:
            yield from _split(error)


def _destination_findings(name: str, table: Any, variables: Mapping[str, str]) -> Iterator[Finding]:
    """A key that is not known hides the mistakes of the others: they are looked for without it."""
    rest = dict(table) if isinstance(table, dict) else table
    for _ in range(MOST_UNKNOWN):
        try:
            make_routing({"destinations": {name: rest}}, variables)
        except SettingsError as error:
            findings = [*_split(error)]
        else:
            return
        yield from findings
        key = findings[0].path.rpartition(".")[2]
        if NO_SUCH_KEY not in findings[0].message or not isinstance(rest, dict) or key not in rest:
            return
        del rest[key]


_PLACEHOLDER: Final = {"accountSID": "IRplaceholder", "apiKey": "placeholder", "campaignId": "1"}
"""In the place of a destination with mistakes of its own, so that a source's can be seen."""


def _variables_for(environment: Mapping[str, str], kind: str, name: str) -> dict[str, str]:
    def concerns(variable: str) -> bool:
        parts = variable.upper().removeprefix(ENVIRONMENT_PREFIX).split("__")
        same = parts[1:2] == [name.upper().replace("-", "_")]
        return parts[0].lower() not in ROUTING or (parts[0].lower() == kind and same)

    return {
        variable: value
        for variable, value in environment.items()
        if not variable.upper().startswith(ENVIRONMENT_PREFIX) or concerns(variable)
    }


def _split(error: SettingsError) -> Iterator[Finding]:
    """One message may hold several mistakes, each with its path."""
    pending = ""
    for part in str(error).split("; "):
        if pending and not part.startswith(("sources.", "destinations.")):
            pending += f"; {part}"
            continue
        if pending:
            yield _error(SettingsError(pending))
        pending = part
    yield _error(SettingsError(pending))


def _settings_warnings(settings: Settings) -> Iterator[Finding]:
    upstream = urlsplit(settings.rudder.upstream)
    if upstream.hostname in LOOPBACK and upstream.port == settings.server.port:
        yield Finding("warning", "rudder.upstream", "is this service's own address: requests would go round in circles")
    folder = Path(settings.state.dir)
    if str(folder).startswith(("/tmp/", "/var/tmp/")):  # noqa: S108 - warned of, not used
        yield Finding("warning", "state.dir", "is in a folder for temporary files: what is there may be cleaned away")


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
        feeds = routing.feeds(source)
        programs = Counter(one.destination.program for one in feeds if one.destination is not None)
        for program, count in programs.items():
            if program is not None and count > 1:
                path = f"sources.{source.name}.destinations"
                yield Finding(
                    "warning", path, f"{count} destinations are the same program: its events would go there twice"
                )


def _destinations_of(tree: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Configurations in a file: of a workspace, of a destination as routers write it, or bare."""
    if not isinstance(tree, dict):
        return
    ours = {load_manifest().destination_type.lower()}
    for number, source in enumerate(tree["sources"] if isinstance(tree.get("sources"), list) else ()):
        for place, one in enumerate(source.get("destinations", ()) if isinstance(source, dict) else ()):
            definition = one.get("destinationDefinition", {}) if isinstance(one, dict) else {}
            if str(definition.get("name", "")).lower() in ours and isinstance(one.get("config"), dict):
                yield f"sources[{number}].destinations[{place}].config", one["config"]
    if "sources" not in tree:
        found = tree.get("Config", tree.get("config", tree))
        if isinstance(found, dict):
            yield "config", found


def _configuration_findings(path: str, config: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[Finding]:
    schema = load_manifest().configuration
    variables = {name: value for name, value in environment.items() if name.startswith(VARIABLE_PREFIX)}
    known = [spelling for key in schema for spelling in (key.key, *key.aliases)]
    for key in unknown_keys(config, schema):
        # The control plane adds keys of its own; only what looks like one of ours is worth a word.
        close = meant(key, known)
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
    """What is no mistake and yet not what was meant."""
    both = {name.lower() for name in config.action_event_names} & {name.lower() for name in config.install_event_names}
    for name in sorted(both):
        yield Finding("warning", f"{path}.installEventNames", f"{name!r} is an action event too; it will be an action")
    if config.event_type_id and not any(one.kind == "install" for one in config.event_types):
        told = f"installs go to event type {config.event_type_id} too, as actions do; give them their own"
        if config.install_event_names:
            yield Finding("warning", f"{path}.eventTypeId", told)
    if str(written.get("enableEmailHashing", "")).lower() == "false":
        yield Finding("warning", f"{path}.enableEmailHashing", "has no effect: e-mails are always hashed")
    if config.consent_gate != "off" and not config.consent_paths:
        told = "holds back events by their consent, but consentPaths names no place for it"
        yield Finding("warning", f"{path}.consentGate", told)
    parameters = [*PAGE_LOAD.names(), *CONVERSION.names(), *ITEM.names()]
    for name in config.parameter_sources:
        if name not in parameters:
            yield Finding("warning", f"{path}.parameterSources.{name}", f"is no parameter{meant(name, parameters)}")
    mapped = {row.parameter for row in config.rudder_to_impact_property}
    if mapped >= set(TOGETHER):
        yield Finding("warning", f"{path}.rudderToImpactProperty", f"impact.com takes one of {' and '.join(TOGETHER)}")
