"""What an operator sets for the process: defaults, then a TOML file, then ``IMPACT_PLUGIN__SECTION__KEY`` variables.

A setting is one field here; everything that is said and checked of it stands in its annotation. Rules that concern
several settings are functions below.
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from impact_plugin.config.fields import Field, Setting, closest, comma_list, did_you_mean, fields_of, quote_name
from impact_plugin.errors import SettingsError
from impact_transformers import Secret
from impact_transformers.configuration import Problem

ENVIRONMENT_PREFIX: Final = "IMPACT_PLUGIN__"
ROUTING: Final = ("sources", "destinations")
"""Tables of the same file that are not settings of the process; see :mod:`impact_plugin.config.sources`."""

REMOVED: Final[Mapping[str, str]] = MappingProxyType(
    {"state.url": "is no longer a setting: the state is kept in the folder state.dir, by one process; remove it"}
)
"""Settings of earlier versions, and what to do about them."""

LONGEST_RECORDING_MINUTES: Final = 10_080
LARGEST_RECORDING_MB: Final = 10_240

_URL: Final = ("https://", "http://")
_NONE: Final[Mapping[str, str]] = MappingProxyType({})

_Written: TypeAlias = Mapping[str, tuple[str, Any]]
"""By setting: where it stands (the setting itself for the file, a variable, an option), and its value."""


class ServerSettings(msgspec.Struct, frozen=True):
    """Where the service listens."""

    host: Annotated[str, Setting("Address the router's port listens on.")] = "127.0.0.1"
    port: Annotated[
        int,
        Setting("Port for the router; 9090 is the stock transformer's.", least=0, most=65_535, zero="any free port"),
    ] = 9090
    operator_host: Annotated[str, Setting("Address the operator's port listens on.")] = "127.0.0.1"
    operator_port: Annotated[
        int,
        Setting(
            "For /metrics, /debug/limits, /openapi.json, /health, /ready, /version; 9091 is the stock transformer's.",
            least=0,
            most=65_535,
            zero="any free port",
        ),
    ] = 9091
    ingest_host: Annotated[str, Setting("Address the port for senders of events listens on.")] = "127.0.0.1"
    ingest_port: Annotated[
        int,
        Setting(
            "Port of the Segment HTTP API and webhooks; opened when sources are configured.",
            least=0,
            most=65_535,
            zero="any free port",
        ),
    ] = 9092
    max_body_mb: Annotated[
        int,
        Setting(
            "Largest request body in MiB after inflation; a larger one is answered 503 and counted.",
            least=1,
            most=2048,
        ),
    ] = 200
    shutdown_grace_seconds: Annotated[
        float, Setting("How long a stopping service lets requests finish.", least=0, most=3600)
    ] = 20.0
    workers: Annotated[
        int,
        Setting(
            "1: a worker under a supervisor, which keeps the ports open while the worker is replaced, when it dies and "
            "on SIGHUP; 0: one process without a supervisor.",
            least=0,
            most=1,
            zero="no supervisor",
            fix="one process owns the state in state.dir, several workers come with a later version",
        ),
    ] = 0
    max_memory_mb: Annotated[
        int,
        # Less than a service needs that has done nothing yet would refuse everything.
        Setting(
            "Resident MiB above which events are refused until it falls; 0 for no ceiling.",
            least=64,
            most=1_000_000,
            zero="no ceiling",
        ),
    ] = 0


class ImpactSettings(msgspec.Struct, frozen=True):
    """impact.com's two hosts; replace them to send to a stand-in."""

    tracking_url: Annotated[
        str,
        Setting("Base of Page Loads, in transformed requests and in what the proxy may call.", prefixes=_URL),
    ] = "https://trkapi.impact.com"
    api_url: Annotated[
        str,
        Setting("Base of Conversions, in transformed requests and in what the proxy may call.", prefixes=_URL),
    ] = "https://api.impact.com"


class RudderSettings(msgspec.Struct, frozen=True):
    """How RudderStack sees us."""

    upstream: Annotated[
        str,
        Setting(
            "URL of the stock transformer that gets every request that is not ours; empty for none.", prefixes=_URL
        ),
    ] = ""
    destination_types: Annotated[
        tuple[str, ...],
        Setting("Destination definitions that are ours; in the environment, several with commas.", shortest=1),
    ] = ("IMPACT",)
    router_transform: Annotated[
        bool, Setting("Whether /features allows the router to transform at delivery time (/routerTransform).")
    ] = True
    delete_users: Annotated[
        bool, Setting("Whether /features tells the router to send us its users' deletions (/deleteUsers).")
    ] = False


class DeliverySettings(msgspec.Struct, frozen=True):
    """Delivery on behalf of the router (``Router.IMPACT.transformerProxy=true``)."""

    timeout_seconds: Annotated[
        float,
        Setting(
            "How long impact.com may take for one request, and the router's patience when it names no RdProxy-Timeout.",
            above=0,
            most=3600,
        ),
    ] = 10.0
    connections: Annotated[
        int,
        Setting(
            "Requests under way to impact.com at the same time, of all accounts together.", least=1, most=1_000_000
        ),
    ] = 512
    account_connections: Annotated[
        int,
        Setting(
            "The same for one account and endpoint; the limiter finds out how many are good.", least=1, most=1_000_000
        ),
    ] = 64
    max_waiting: Annotated[
        int,
        # They are held in memory, a few kilobytes each.
        Setting(
            "Requests that may wait for leave to be sent, a quarter of them of one account.", least=1, most=1_000_000
        ),
    ] = 10_000
    ordering: Annotated[
        Literal["lane", "none"],
        Setting("lane: one request of a visitor at a time, in the order they came; none: as they come."),
    ] = "lane"
    dedup_window_hours: Annotated[
        float,
        Setting(
            "How long an order whose outcome is unknown may be sent again: impact.com's own OrderId window.",
            least=0,
            most=9600,
        ),
    ] = 24.0


class StateSettings(msgspec.Struct, frozen=True):
    """Where the service keeps what must outlive it: sessions, and the clicks of visitors."""

    dir: Annotated[str, Setting("Folder for state; made at start, mode 0700.")] = "./var"
    secret: Annotated[
        Secret,
        Setting(
            "Keys the digests that stand for identifiers; empty: the key in state.dir/secret, which is made.",
            shortest=16,
            fix="try openssl rand -hex 32",
        ),
    ] = Secret("")
    durability: Annotated[
        Literal["power", "process"],
        Setting("What the state survives: power loss, or (process) a killed process only, and faster."),
    ] = "power"
    decision_retention_hours: Annotated[
        float,
        # A click window may last a day, so decisions must.
        Setting("How long the same message gets the same decision and click id.", least=24, most=720),
    ] = 96.0
    click_memory_days: Annotated[
        float,
        Setting(
            "How long clicks are remembered at most; see also a destination's referralWindowDays.", least=1, most=90
        ),
    ] = 30.0
    max_claims: Annotated[
        int,
        Setting(
            "Click keys kept; at capacity those seen longest ago go. About 150 bytes each.", least=1, most=100_000_000
        ),
    ] = 5_000_000
    max_identities: Annotated[
        int,
        Setting("Visitors and users whose clicks are kept. About 250 bytes each.", least=1, most=100_000_000),
    ] = 2_000_000
    max_answers: Annotated[
        int,
        Setting("Messages whose click id is kept for a retry. About 100 bytes each.", least=1, most=100_000_000),
    ] = 2_000_000
    max_orders: Annotated[
        int,
        Setting(
            "Conversions remembered, so that none is sent twice; at capacity the oldest go.", least=1, most=100_000_000
        ),
    ] = 5_000_000
    order_memory_days: Annotated[
        float, Setting("How long a conversion that was sent is remembered.", least=1, most=400)
    ] = 90.0
    grace_seconds: Annotated[
        float,
        Setting(
            "How long batches are refused while the state is down; then this process decides alone.", least=0, most=3600
        ),
    ] = 300.0
    timeout_seconds: Annotated[
        float, Setting("How long a batch waits for the state before it counts as down.", least=0.1, most=60)
    ] = 5.0


class SpoolSettings(msgspec.Struct, frozen=True):
    """Where events are kept that senders were told are safe, until impact.com has them; and dead letters."""

    max_events: Annotated[
        int,
        Setting(
            "Events that may wait to be delivered; beyond it senders are answered 429.", least=1000, most=1_000_000_000
        ),
    ] = 5_000_000
    max_mb: Annotated[int, Setting("The same in MiB.", least=1, most=10_000_000)] = 10_240
    min_free_mb: Annotated[
        int,
        Setting("MiB that must stay free on the disk; below it senders are answered 429.", least=0, most=1_000_000),
    ] = 512
    retention_days: Annotated[
        float,
        # Events older than 88 days count for nothing at impact.com.
        Setting("How long an event may wait; then it is a dead letter with the reason expired.", least=0.01, most=88),
    ] = 7.0
    dead_letter_days: Annotated[float, Setting("How long dead letters are kept.", least=0.01, most=400)] = 30.0
    max_dead_letters: Annotated[
        int, Setting("How many dead letters are kept; the oldest go first.", least=1, most=100_000_000)
    ] = 1_000_000
    seen_hours: Annotated[
        float,
        Setting(
            "How long an event that comes again is known as a duplicate; Jitsu repeats for over a day.",
            least=1,
            most=720,
        ),
    ] = 96.0
    max_seen: Annotated[
        int, Setting("How many events are known so; the oldest go first.", least=1000, most=1_000_000_000)
    ] = 20_000_000
    timeout_seconds: Annotated[
        float,
        Setting(
            "How long the disk may take for a commit; then senders are answered 503 and come again.",
            least=0.1,
            most=10,
        ),
    ] = 1.0


class RecordSettings(msgspec.Struct, frozen=True):
    """Whether the service records what it is asked, without persons, for a replay."""

    dir: Annotated[
        str,
        Setting("Folder in which the service records what it is asked from its start on; empty for not at all."),
    ] = ""
    minutes: Annotated[
        float, Setting("For how long such a recording goes on.", above=0, most=LONGEST_RECORDING_MINUTES)
    ] = 60.0
    max_mb: Annotated[int, Setting("How large it gets at most, compressed.", least=1, most=LARGEST_RECORDING_MB)] = 100


class LogSettings(msgspec.Struct, frozen=True):
    """The service's own log, on standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Setting("Least serious level to log.")] = "info"
    format: Annotated[Literal["json", "console"], Setting("json for machines, console for people.")] = "json"


class Settings(msgspec.Struct, frozen=True):
    """All sections."""

    server: ServerSettings = ServerSettings()
    impact: ImpactSettings = ImpactSettings()
    rudder: RudderSettings = RudderSettings()
    delivery: DeliverySettings = DeliverySettings()
    state: StateSettings = StateSettings()
    spool: SpoolSettings = SpoolSettings()
    record: RecordSettings = RecordSettings()
    log: LogSettings = LogSettings()


SECTIONS: Final[Mapping[str, type[msgspec.Struct]]] = MappingProxyType(
    {section.name: section.type for section in msgspec.structs.fields(Settings)}
)
SETTINGS: Final[Mapping[str, Field]] = MappingProxyType(
    {f"{section}.{name}": field for section, kind in SECTIONS.items() for name, field in fields_of(kind).items()}
)
"""Every setting, as ``section.key``."""


def variable_of(setting: str) -> str:
    """The environment variable of a setting."""
    return f"{ENVIRONMENT_PREFIX}{setting.replace('.', '__').upper()}"


def load_settings(file: Path | None, environment: Mapping[str, str], options: Mapping[str, Any] = _NONE) -> Settings:
    """Settings from a file, variables and options, the later ones winning over those before.

    ``options`` are those of the command line by setting; None was not given. Raises :class:`SettingsError` with every
    mistake and where it stands.
    """
    return make_settings({} if file is None else read_file(file), environment, options)


def make_settings(
    tree: Mapping[str, Any], environment: Mapping[str, str] = _NONE, options: Mapping[str, Any] = _NONE
) -> Settings:
    """The same from the tables of a file."""
    problems: list[Problem] = []
    written = {**_in_file(tree, problems), **_in_environment(environment, problems), **_in_options(options)}
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    wrong = set()
    for setting, (path, value) in written.items():
        section, _, key = setting.partition(".")
        try:
            values[section][key] = SETTINGS[setting].read(value)
        except ValueError as error:
            problems.append(Problem(path, str(error)))
            wrong.add(setting)
    sections: dict[str, Any] = {section: kind(**values[section]) for section, kind in SECTIONS.items()}
    settings = Settings(**sections)
    problems += _contradictions(settings, wrong)
    if problems:
        raise SettingsError(*problems)
    return settings


def read_file(file: Path) -> dict[str, Any]:
    """The tables of a TOML file; raises :class:`SettingsError`."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(Problem(str(file), f"cannot be read: {error.strerror}")) from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(Problem(str(file), f"is not TOML: {error}")) from error


def _in_file(tree: Mapping[str, Any], problems: list[Problem]) -> _Written:
    """What the sections of the file hold; keys and sections that do not exist are problems."""
    found = {}
    for section, table in tree.items():
        if section in ROUTING:
            continue
        if section not in SECTIONS:
            close = did_you_mean(section, (*SECTIONS, *ROUTING))
            problems.append(Problem(quote_name(section), f"there is no such section{close}"))
        elif not isinstance(table, Mapping):
            problems.append(Problem(section, f"must be a section of the file, [{section}]"))
        else:
            for key, value in table.items():
                setting = f"{section}.{key}"
                if setting in SETTINGS:
                    found[setting] = (setting, value)
                else:
                    problems.append(_unknown_key(section, key))
    return found


def _unknown_key(section: str, key: str) -> Problem:
    instead = REMOVED.get(f"{section}.{key}")
    close = did_you_mean(key, fields_of(SECTIONS[section]))
    return Problem(f"{section}.{quote_name(key)}", instead or f"there is no such setting{close}")


def _in_environment(environment: Mapping[str, str], problems: list[Problem]) -> _Written:
    """What variables set; one of ours that sets nothing is a problem, since it would do nothing in silence."""
    found = {}
    for variable, text in environment.items():
        section, _, key = variable[len(ENVIRONMENT_PREFIX) :].lower().partition("__")
        if not variable.upper().startswith(ENVIRONMENT_PREFIX) or section in ROUTING:
            continue
        setting = f"{section}.{key}"
        if setting in SETTINGS:
            found[setting] = (variable, comma_list(text) if SETTINGS[setting].is_list else text)
        else:
            problems.append(_unknown_variable(variable, setting))
    return found


def _unknown_variable(variable: str, setting: str) -> Problem:
    close = closest(setting, SETTINGS)
    hint = f"did you mean {variable_of(close)}?" if close else "docs/reference/settings.md lists all"
    return Problem(variable, REMOVED.get(setting) or f"there is no such setting; {hint}")


def _in_options(options: Mapping[str, Any]) -> _Written:
    given = {setting: value for setting, value in options.items() if value is not None}
    return {setting: (f"--{setting.partition('.')[2].replace('_', '-')}", value) for setting, value in given.items()}


def _contradictions(settings: Settings, wrong: set[str]) -> Iterator[Problem]:
    """Settings that are good each by itself, and not together; not of those that are ``wrong`` anyway."""
    if wrong.isdisjoint({"delivery.dedup_window_hours", "state.order_memory_days"}):
        yield from _dedup_window_problems(settings)


def _dedup_window_problems(settings: Settings) -> Iterator[Problem]:
    hours, days = settings.delivery.dedup_window_hours, settings.state.order_memory_days
    # An order forgotten within the window would be sent once more after it.
    if hours > days * 24:
        told = f"must be at most {days * 24:g}, the hours of state.order_memory_days"
        yield Problem("delivery.dedup_window_hours", told)
