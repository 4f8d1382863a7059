"""Settings of the process: defaults, then a TOML file, then ``IMPACT_PLUGIN__SECTION__KEY`` variables.

Each setting is one field, whose annotation has its description and bounds. Rules about several settings together are
functions below.
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

import msgspec

from impact_plugin.config.fields import Field, Setting, did_you_mean, fields_of, quote_name
from impact_plugin.config.variables import ROUTING_TABLES, Given, settings_in_environment
from impact_plugin.errors import SettingsError
from impact_transformers import Secret
from impact_transformers.configuration import Problem

REMOVED_SETTINGS: Final[Mapping[str, str]] = MappingProxyType(
    {"state.url": "is no longer a setting: the state is kept in the folder state.dir, by one process; remove it"}
)
"""Settings of earlier versions, and what to do if the file still has them."""

MAX_RECORDING_MINUTES: Final = 10_080
MAX_RECORDING_MB: Final = 10_240

_URL_PREFIXES: Final = ("https://", "http://")
_EMPTY: Final[Mapping[str, str]] = MappingProxyType({})


class ServerSettings(msgspec.Struct, frozen=True):
    """Where the service listens."""

    host: Annotated[str, Setting("Address to listen on for the router.")] = "127.0.0.1"
    port: Annotated[
        int,
        Setting(
            "Port for the router; the stock transformer uses 9090.",
            minimum=0,
            maximum=65_535,
            zero_means="any free port",
        ),
    ] = 9090
    operator_host: Annotated[str, Setting("Address to listen on for the operator.")] = "127.0.0.1"
    operator_port: Annotated[
        int,
        Setting(
            "Port for /metrics, /debug/limits, /openapi.json, /health, /ready and /version.",
            minimum=0,
            maximum=65_535,
            zero_means="any free port",
        ),
    ] = 9091
    ingest_host: Annotated[str, Setting("Address to listen on for senders of events.")] = "127.0.0.1"
    ingest_port: Annotated[
        int,
        Setting(
            "Port for the Segment HTTP API and webhooks; opened only if sources are configured.",
            minimum=0,
            maximum=65_535,
            zero_means="any free port",
        ),
    ] = 9092
    max_body_mb: Annotated[
        int,
        Setting(
            "Maximum size of a request body in MiB, decompressed; a larger one is answered 503 and counted.",
            minimum=1,
            maximum=2048,
        ),
    ] = 200
    shutdown_grace_seconds: Annotated[
        float, Setting("How long a stopping service waits for requests in flight.", minimum=0, maximum=3600)
    ] = 20.0
    workers: Annotated[
        int,
        Setting(
            "1: a worker under a supervisor, which keeps the ports open while it replaces a worker that died, or on "
            "SIGHUP; 0: one process without a supervisor.",
            minimum=0,
            maximum=1,
            zero_means="no supervisor",
            fix="one process owns the state in state.dir; several workers are not supported yet",
        ),
    ] = 0
    max_memory_mb: Annotated[
        int,
        # Below this, even an idle service would refuse everything.
        Setting(
            "Resident memory in MiB above which events are refused until it falls; 0 for no ceiling.",
            minimum=64,
            maximum=1_000_000,
            zero_means="no ceiling",
        ),
    ] = 0


class ImpactSettings(msgspec.Struct, frozen=True):
    """The two hosts of impact.com; change them to send to a stand-in."""

    tracking_url: Annotated[
        str,
        Setting("Base URL of Page Loads, in transformed requests and for the proxy.", prefixes=_URL_PREFIXES),
    ] = "https://trkapi.impact.com"
    api_url: Annotated[
        str,
        Setting("Base URL of Conversions, in transformed requests and for the proxy.", prefixes=_URL_PREFIXES),
    ] = "https://api.impact.com"


class RudderSettings(msgspec.Struct, frozen=True):
    """How the service presents itself to RudderStack."""

    upstream: Annotated[
        str,
        Setting(
            "URL of the stock transformer, which gets every request for other destinations; empty for none.",
            prefixes=_URL_PREFIXES,
        ),
    ] = ""
    destination_types: Annotated[
        tuple[str, ...],
        Setting(
            "Destination types that this service handles; separate several with commas in the environment.",
            min_length=1,
        ),
    ] = ("IMPACT",)
    router_transform: Annotated[
        bool, Setting("Whether /features allows the router to transform at delivery time (/routerTransform).")
    ] = True
    delete_users: Annotated[
        bool, Setting("Whether /features lets the router send requests to delete users (/deleteUsers).")
    ] = False


class DeliverySettings(msgspec.Struct, frozen=True):
    """Delivery on behalf of the router (``Router.IMPACT.transformerProxy=true``)."""

    timeout_seconds: Annotated[
        float,
        Setting(
            "Timeout of a request to impact.com, and of a delivery if the router sends no RdProxy-Timeout.",
            above=0,
            maximum=3600,
        ),
    ] = 10.0
    connections: Annotated[
        int,
        Setting(
            "Maximum number of requests to impact.com in flight, of all accounts together.",
            minimum=1,
            maximum=1_000_000,
        ),
    ] = 512
    account_connections: Annotated[
        int,
        Setting(
            "The same for one account and endpoint; the limiter finds the best number below it.",
            minimum=1,
            maximum=1_000_000,
        ),
    ] = 64
    max_waiting: Annotated[
        int,
        # Each takes a few kilobytes of memory.
        Setting(
            "Maximum number of requests waiting for a permit; one account may have a quarter of them.",
            minimum=1,
            maximum=1_000_000,
        ),
    ] = 10_000
    ordering: Annotated[
        Literal["lane", "none"],
        Setting("lane: requests of one visitor go one at a time, in order of arrival; none: in any order."),
    ] = "lane"
    dedup_window_hours: Annotated[
        float,
        Setting(
            "How long an order whose outcome is unknown may be resent; the default is impact.com's own OrderId window.",
            minimum=0,
            maximum=9600,
        ),
    ] = 24.0


class StateSettings(msgspec.Struct, frozen=True):
    """Where the service keeps its state: sessions, clicks and the ledger of orders."""

    dir: Annotated[str, Setting("Folder for the state; created at the start with mode 0700.")] = "./var"
    secret: Annotated[
        Secret,
        Setting(
            "Key of the digests of identifiers; if empty, the service creates one in state.dir/secret.",
            min_length=16,
            fix="try openssl rand -hex 32",
        ),
    ] = Secret("")
    durability: Annotated[
        Literal["power", "process"],
        Setting("power: the state survives a power failure; process: only a killed process, but commits are faster."),
    ] = "power"
    decision_retention_hours: Annotated[
        float,
        # A click window may last a day, so decisions must last as long.
        Setting("How long a repeated message gets the same decision and click id.", minimum=24, maximum=720),
    ] = 96.0
    click_memory_days: Annotated[
        float,
        Setting(
            "Maximum time to remember clicks; see also referralWindowDays of a destination.", minimum=1, maximum=90
        ),
    ] = 30.0
    max_claims: Annotated[
        int,
        Setting(
            "Maximum number of click keys; the least recently seen are dropped first. About 150 bytes each.",
            minimum=1,
            maximum=100_000_000,
        ),
    ] = 5_000_000
    max_identities: Annotated[
        int,
        Setting(
            "Maximum number of visitors and users whose clicks are kept. About 250 bytes each.",
            minimum=1,
            maximum=100_000_000,
        ),
    ] = 2_000_000
    max_answers: Annotated[
        int,
        Setting(
            "Maximum number of messages whose click id is kept for a retry. About 100 bytes each.",
            minimum=1,
            maximum=100_000_000,
        ),
    ] = 2_000_000
    max_orders: Annotated[
        int,
        Setting(
            "Maximum number of conversions remembered, so that none is sent twice; the oldest are dropped first.",
            minimum=1,
            maximum=100_000_000,
        ),
    ] = 5_000_000
    order_memory_days: Annotated[
        float, Setting("How long a sent conversion is remembered.", minimum=1, maximum=400)
    ] = 90.0
    grace_seconds: Annotated[
        float,
        Setting(
            "How long batches are refused while the state is down; after that the process decides without it.",
            minimum=0,
            maximum=3600,
        ),
    ] = 300.0
    timeout_seconds: Annotated[
        float, Setting("How long a batch waits for the state before the state counts as down.", minimum=0.1, maximum=60)
    ] = 5.0


class SpoolSettings(msgspec.Struct, frozen=True):
    """The spool: events that were acknowledged to their senders, until impact.com has them; and dead letters."""

    max_events: Annotated[
        int,
        Setting(
            "Maximum number of undelivered events; beyond it senders are answered 429.",
            minimum=1000,
            maximum=1_000_000_000,
        ),
    ] = 5_000_000
    max_mb: Annotated[
        int,
        Setting(
            "Maximum size of the undelivered events in MiB; beyond it senders are answered 429.",
            minimum=1,
            maximum=10_000_000,
        ),
    ] = 10_240
    min_free_mb: Annotated[
        int,
        Setting("Minimum free disk space in MiB; below it senders are answered 429.", minimum=0, maximum=1_000_000),
    ] = 512
    retention_days: Annotated[
        float,
        # impact.com ignores events older than 88 days.
        Setting(
            "How long an event may wait; after that it is a dead letter with the reason expired.",
            minimum=0.01,
            maximum=88,
        ),
    ] = 7.0
    dead_letter_days: Annotated[float, Setting("How long dead letters are kept.", minimum=0.01, maximum=400)] = 30.0
    max_dead_letters: Annotated[
        int, Setting("Maximum number of dead letters; the oldest are dropped first.", minimum=1, maximum=100_000_000)
    ] = 1_000_000
    seen_hours: Annotated[
        float,
        Setting(
            "How long a repeated event is recognized as a duplicate; Jitsu repeats events for over a day.",
            minimum=1,
            maximum=720,
        ),
    ] = 96.0
    max_seen: Annotated[
        int,
        Setting(
            "Maximum number of events recognized so; the oldest are dropped first.", minimum=1000, maximum=1_000_000_000
        ),
    ] = 20_000_000
    timeout_seconds: Annotated[
        float,
        Setting(
            "How long a commit to disk may take; after that senders are answered 503 and retry.",
            minimum=0.1,
            maximum=10,
        ),
    ] = 1.0


class RecordSettings(msgspec.Struct, frozen=True):
    """Whether the service records its traffic, without personal data, for a replay."""

    dir: Annotated[
        str,
        Setting("Folder for a recording of the traffic from the start on; empty for no recording."),
    ] = ""
    minutes: Annotated[float, Setting("How long this recording continues.", above=0, maximum=MAX_RECORDING_MINUTES)] = (
        60.0
    )
    max_mb: Annotated[
        int, Setting("Maximum size of this recording in MiB, compressed.", minimum=1, maximum=MAX_RECORDING_MB)
    ] = 100


class LogSettings(msgspec.Struct, frozen=True):
    """The service's own log, on standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Setting("Minimum level to log.")] = "info"
    format: Annotated[Literal["json", "console"], Setting("json: one object per line; console: for people.")] = "json"


class Settings(msgspec.Struct, frozen=True):
    """All sections of settings."""

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


def load_settings(file: Path | None, environment: Mapping[str, str], options: Mapping[str, Any] = _EMPTY) -> Settings:
    """Load settings from a file, variables and options; options override variables, which override the file.

    ``options`` are those of the command line, by setting; None stands for not given. Raises :class:`SettingsError` with
    every mistake and its place.
    """
    return make_settings({} if file is None else read_file(file), environment, options)


def make_settings(
    tree: Mapping[str, Any], environment: Mapping[str, str] = _EMPTY, options: Mapping[str, Any] = _EMPTY
) -> Settings:
    """Make settings from the tables of a file, variables and options; see :func:`load_settings`."""
    problems: list[Problem] = []
    given = {
        **_in_file(tree, problems),
        **settings_in_environment(environment, SETTINGS, REMOVED_SETTINGS, problems),
        **_in_options(options),
    }
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    invalid = set()
    for setting, (path, value) in given.items():
        section, _, key = setting.partition(".")
        try:
            values[section][key] = SETTINGS[setting].parse(value)
        except ValueError as error:
            problems.append(Problem(path, str(error)))
            invalid.add(setting)
    sections: dict[str, Any] = {section: kind(**values[section]) for section, kind in SECTIONS.items()}
    settings = Settings(**sections)
    problems += _contradictions(settings, invalid)
    if problems:
        raise SettingsError(*problems)
    return settings


def read_file(file: Path) -> dict[str, Any]:
    """Read the tables of a TOML file; raises :class:`SettingsError`."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(Problem(str(file), f"cannot be read: {error.strerror}")) from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(Problem(str(file), f"is not TOML: {error}")) from error


def _in_file(tree: Mapping[str, Any], problems: list[Problem]) -> Given:
    """Settings given in the file; adds a problem for each unknown key and section."""
    given = {}
    for section, table in tree.items():
        if section in ROUTING_TABLES:
            continue
        if section not in SECTIONS:
            close = did_you_mean(section, (*SECTIONS, *ROUTING_TABLES))
            problems.append(Problem(quote_name(section), f"there is no such section{close}"))
        elif not isinstance(table, Mapping):
            problems.append(Problem(section, f"must be a section of the file, [{section}]"))
        else:
            for key, value in table.items():
                setting = f"{section}.{key}"
                if setting in SETTINGS:
                    given[setting] = (setting, value)
                else:
                    problems.append(_unknown_key(section, key))
    return given


def _unknown_key(section: str, key: str) -> Problem:
    instead = REMOVED_SETTINGS.get(f"{section}.{key}")
    close = did_you_mean(key, fields_of(SECTIONS[section]))
    return Problem(f"{section}.{quote_name(key)}", instead or f"there is no such setting{close}")


def _in_options(options: Mapping[str, Any]) -> Given:
    return {
        setting: (f"--{setting.partition('.')[2].replace('_', '-')}", value)
        for setting, value in options.items()
        if value is not None
    }


def _contradictions(settings: Settings, invalid: set[str]) -> Iterator[Problem]:
    """Problems of settings that are valid by themselves but not together, unless one of them is ``invalid`` anyway."""
    if invalid.isdisjoint({"delivery.dedup_window_hours", "state.order_memory_days"}):
        yield from _dedup_window_problems(settings)


def _dedup_window_problems(settings: Settings) -> Iterator[Problem]:
    hours, days = settings.delivery.dedup_window_hours, settings.state.order_memory_days
    # An order that is forgotten within the window would be sent again after it.
    if hours > days * 24:
        message = f"must be at most {days * 24:g}, the hours of state.order_memory_days"
        yield Problem("delivery.dedup_window_hours", message)
