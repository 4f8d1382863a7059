"""What an operator sets for the process: defaults, then a TOML file, then ``IMPACT_PLUGIN__SECTION__KEY`` variables."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from impact_plugin.errors import SettingsError
from impact_transformers import Secret

ENVIRONMENT_PREFIX: Final = "IMPACT_PLUGIN__"
ROUTING: Final = ("sources", "destinations")
"""Tables of the same file that are not settings of the process; see :mod:`impact_plugin.config.sources`."""

SHORTEST_SECRET: Final = 16
LEAST_MEMORY_MB: Final = 64
"""Less than a service needs that has done nothing yet would refuse everything."""

LONGEST_RECORDING_MINUTES: Final = 10_080
LARGEST_RECORDING_MB: Final = 10_240
LONGEST_QUEUE: Final = 1_000_000
"""Requests that wait are held in memory, a few kilobytes each."""
SPOOL_LIMITS: Final[dict[str, tuple[float, float]]] = {
    "max_events": (1000, 1_000_000_000),
    "max_mb": (1, 10_000_000),
    "min_free_mb": (0, 1_000_000),
    "retention_days": (0.01, 88),
    "dead_letter_days": (0.01, 400),
    "max_dead_letters": (1, 100_000_000),
    "seen_hours": (1, 720),
    "max_seen": (1000, 1_000_000_000),
    "timeout_seconds": (0.1, 10),
}
"""Events older than 88 days count for nothing at impact.com, so none is kept for longer."""

STATE_LIMITS: Final[dict[str, tuple[float, float]]] = {
    "decision_retention_hours": (24, 720),
    "click_memory_days": (1, 90),
    "max_claims": (1, 100_000_000),
    "max_identities": (1, 100_000_000),
    "max_answers": (1, 100_000_000),
    "max_orders": (1, 100_000_000),
    "order_memory_days": (1, 400),
    "grace_seconds": (0, 3600),
    "timeout_seconds": (0.1, 60),
}
"""A click window may last a day, so decisions must; and no setting may ask for more than a process can keep."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the sections: unknown keys are mistakes."""


class ServerSettings(Section, frozen=True):
    """Where the service listens."""

    host: str = "127.0.0.1"
    port: int = 9090
    operator_host: str = "127.0.0.1"
    operator_port: int = 9091
    ingest_host: str = "127.0.0.1"
    ingest_port: int = 9092
    max_body_mb: int = 200
    shutdown_grace_seconds: float = 20.0
    workers: int = 0
    max_memory_mb: int = 0


class ImpactSettings(Section, frozen=True):
    """impact.com's two hosts; replace them to send to a stand-in."""

    tracking_url: str = "https://trkapi.impact.com"
    api_url: str = "https://api.impact.com"


class RudderSettings(Section, frozen=True):
    """How RudderStack sees us."""

    upstream: str = ""
    destination_types: tuple[str, ...] = ("IMPACT",)
    router_transform: bool = True
    delete_users: bool = False


class DeliverySettings(Section, frozen=True):
    """Delivery on behalf of the router (``Router.IMPACT.transformerProxy=true``)."""

    timeout_seconds: float = 10.0
    connections: int = 512
    account_connections: int = 64
    max_waiting: int = 10_000
    ordering: Literal["lane", "none"] = "lane"
    dedup_window_hours: float = 24.0


class StateSettings(Section, frozen=True):
    """Where the service keeps what must outlive it: sessions, and the clicks of visitors."""

    dir: str = "./var"
    secret: Secret = Secret("")
    durability: Literal["power", "process"] = "power"
    decision_retention_hours: float = 96.0
    click_memory_days: float = 30.0
    max_claims: int = 5_000_000
    max_identities: int = 2_000_000
    max_answers: int = 2_000_000
    max_orders: int = 5_000_000
    order_memory_days: float = 90.0
    grace_seconds: float = 300.0
    timeout_seconds: float = 5.0


class SpoolSettings(Section, frozen=True):
    """Where events are kept that senders were told are safe, until impact.com has them; and dead letters."""

    max_events: int = 5_000_000
    max_mb: int = 10_240
    min_free_mb: int = 512
    retention_days: float = 7.0
    dead_letter_days: float = 30.0
    max_dead_letters: int = 1_000_000
    seen_hours: float = 96.0
    max_seen: int = 20_000_000
    timeout_seconds: float = 1.0


class RecordSettings(Section, frozen=True):
    """Whether the service records what it is asked, without persons, for a replay."""

    dir: str = ""
    minutes: float = 60.0
    max_mb: int = 100


class LogSettings(Section, frozen=True):
    """The service's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All sections."""

    server: ServerSettings = ServerSettings()
    impact: ImpactSettings = ImpactSettings()
    rudder: RudderSettings = RudderSettings()
    delivery: DeliverySettings = DeliverySettings()
    state: StateSettings = StateSettings()
    spool: SpoolSettings = SpoolSettings()
    record: RecordSettings = RecordSettings()
    log: LogSettings = LogSettings()


DESCRIPTIONS: Final[dict[str, str]] = {
    "server.host": "Address the router's port listens on.",
    "server.port": "Port for the router; 9090 is the stock transformer's.",
    "server.operator_host": "Address the operator's port listens on.",
    "server.operator_port": (
        "For /metrics, /debug/limits, /openapi.json, /health, /ready, /version; 9091 is the stock transformer's."
    ),
    "server.ingest_host": "Address the port for senders of events listens on.",
    "server.ingest_port": "Port of the Segment HTTP API and webhooks; opened when sources are configured.",
    "server.max_body_mb": "Largest request body in MiB after inflation; a larger one is answered 503 and counted.",
    "server.shutdown_grace_seconds": "How long a stopping service lets requests finish.",
    "server.workers": (
        "1 for a worker under a supervisor, which keeps the ports open while it is replaced; 0 for one process without."
    ),
    "server.max_memory_mb": "Resident MiB above which events are refused until it falls; 0 for no ceiling.",
    "impact.tracking_url": "Base of Page Loads, in transformed requests and in what the proxy may call.",
    "impact.api_url": "Base of Conversions, in transformed requests and in what the proxy may call.",
    "rudder.upstream": "URL of the stock transformer that gets every request that is not ours; empty for none.",
    "rudder.destination_types": "Destination definitions that are ours; in the environment, several with commas.",
    "rudder.router_transform": "Whether /features allows the router to transform at delivery time (/routerTransform).",
    "rudder.delete_users": "Whether /features tells the router to send us its users' deletions (/deleteUsers).",
    "delivery.timeout_seconds": (
        "How long impact.com may take for one request, and the router's patience when it names no RdProxy-Timeout."
    ),
    "delivery.connections": "Requests under way to impact.com at the same time, of all accounts together.",
    "delivery.account_connections": "The same for one account and endpoint; the limiter finds out how many are good.",
    "delivery.max_waiting": "Requests that may wait for leave to be sent, a quarter of them of one account.",
    "delivery.ordering": "lane: one request of a visitor at a time, in the order they came; none: as they come.",
    "delivery.dedup_window_hours": (
        "How long an order whose outcome is unknown may be sent again: impact.com's own OrderId window."
    ),
    "state.dir": "Folder for state; made at start, mode 0700.",
    "state.secret": "Keys the digests that stand for identifiers; empty: the key in state.dir/secret, which is made.",
    "state.durability": "What the embedded state survives: power loss, or (process) a killed process only, and faster.",
    "state.decision_retention_hours": "How long the same message gets the same decision and click id.",
    "state.click_memory_days": "How long clicks are remembered at most; see also a destination's referralWindowDays.",
    "state.max_claims": "Click keys kept; at capacity those seen longest ago go. About 150 bytes each.",
    "state.max_identities": "Visitors and users whose clicks are kept. About 250 bytes each.",
    "state.max_answers": "Messages whose click id is kept for a retry. About 100 bytes each.",
    "state.max_orders": "Conversions remembered, so that none is sent twice; at capacity the oldest go.",
    "state.order_memory_days": "How long a conversion that was sent is remembered.",
    "state.grace_seconds": "How long batches are refused while the state is down; then this process decides alone.",
    "state.timeout_seconds": "How long a batch waits for the state before it counts as down.",
    "spool.max_events": "Events that may wait to be delivered; beyond it senders are answered 429.",
    "spool.max_mb": "The same in MiB.",
    "spool.min_free_mb": "MiB that must stay free on the disk; below it senders are answered 429.",
    "spool.retention_days": "How long an event may wait; then it is a dead letter with the reason expired.",
    "spool.dead_letter_days": "How long dead letters are kept.",
    "spool.max_dead_letters": "How many dead letters are kept; the oldest go first.",
    "spool.seen_hours": "How long an event that comes again is known as a duplicate; Jitsu repeats for over a day.",
    "spool.max_seen": "How many events are known so; the oldest go first.",
    "spool.timeout_seconds": "How long the disk may take for a commit; then senders are answered 503 and come again.",
    "record.dir": "Folder in which the service records what it is asked from its start on; empty for not at all.",
    "record.minutes": "For how long such a recording goes on.",
    "record.max_mb": "How large it gets at most, compressed.",
    "log.level": "Least serious level to log.",
    "log.format": "json for machines, console for people.",
}
"""One sentence for each setting; the reference page and ``--help`` are made from it."""

REMOVED: Final[dict[str, str]] = {
    "state.url": "is no longer a setting: the state is kept in the folder state.dir, by one process; remove it"
}
"""Settings of earlier versions, and what to do instead."""


def load_settings(file: Path | None, environment: Mapping[str, str]) -> Settings:
    """Read and check the settings; raises :class:`SettingsError` naming what is wrong and where it came from."""
    tree = read_file(file) if file is not None else {}
    for kind in ROUTING:
        tree.pop(kind, None)
    for name, value in environment.items():
        section = name[len(ENVIRONMENT_PREFIX) :].partition("__")[0].lower()
        if name.upper().startswith(ENVIRONMENT_PREFIX) and section not in ROUTING:
            _place(tree, name, value)
    return make_settings(tree)


def make_settings(tree: Mapping[str, Any]) -> Settings:
    """Settings from sections of plain values; raises :class:`SettingsError` for the first that cannot be used."""
    for setting, instead in REMOVED.items():
        section, _, key = setting.partition(".")
        if isinstance(tree.get(section), Mapping) and key in tree[section]:
            raise SettingsError(f"{setting}: {instead}")
    try:
        settings = msgspec.convert(tree, Settings, strict=False, dec_hook=secret_from_text)
    except msgspec.ValidationError as error:
        raise SettingsError(f"settings: {error}") from error
    check_settings(settings)
    return settings


def read_file(file: Path) -> dict[str, Any]:
    """The tables of a TOML file; raises :class:`SettingsError`."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{file}: is not TOML: {error}") from error


def _place(tree: dict[str, Any], name: str, value: str) -> None:
    """Put one environment variable where it belongs; an unknown one is a mistake, not silence."""
    section, _, key = name[len(ENVIRONMENT_PREFIX) :].lower().partition("__")
    setting = f"{section}.{key}"
    if setting in REMOVED:
        raise SettingsError(f"{name}: {REMOVED[setting]}")
    if setting not in DESCRIPTIONS:
        raise SettingsError(f"{name}: there is no setting {setting}; see the README's table of settings")
    held = tree.setdefault(section, {})
    if not isinstance(held, dict):
        raise SettingsError(f"{section}: must be a section of the file, [{section}]")
    several = setting == "rudder.destination_types"
    held[key] = [part.strip() for part in value.split(",") if part.strip()] if several else value


def secret_from_text(kind: type, value: Any) -> Any:
    """Secrets come as text; anything else is told apart without showing it."""
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise ValueError("must be text")


def _check_state(state: StateSettings) -> None:
    secret = state.secret.reveal()
    if secret and len(secret) < SHORTEST_SECRET:
        raise SettingsError(f"state.secret: must have at least {SHORTEST_SECRET} characters; try openssl rand -hex 32")
    for name, (low, high) in STATE_LIMITS.items():
        if not low <= getattr(state, name) <= high:
            raise SettingsError(f"state.{name}: must be between {low:,} and {high:,}")


def _check_dedup_window(settings: Settings) -> None:
    hours, days = settings.delivery.dedup_window_hours, settings.state.order_memory_days
    # An order forgotten within the window would be sent once more after it.
    if not 0 <= hours <= days * 24:
        raise SettingsError(
            f"delivery.dedup_window_hours: must be between 0 and {days * 24:g}, state.order_memory_days"
        )


def _check_spool(spool: SpoolSettings) -> None:
    for name, (low, high) in SPOOL_LIMITS.items():
        if not low <= getattr(spool, name) <= high:
            raise SettingsError(f"spool.{name}: must be between {low:,} and {high:,}")


def _check_server(server: ServerSettings) -> None:
    for name in ("port", "operator_port", "ingest_port"):
        if not 0 <= getattr(server, name) <= 65535:
            raise SettingsError(f"server.{name}: must be between 0 (any free port) and 65535")
    if not 1 <= server.max_body_mb <= 2048:
        raise SettingsError("server.max_body_mb: must be between 1 and 2048")
    if server.max_memory_mb and not LEAST_MEMORY_MB <= server.max_memory_mb <= 1_000_000:
        raise SettingsError(f"server.max_memory_mb: must be 0 (no ceiling) or at least {LEAST_MEMORY_MB}")
    if server.workers > 1:
        raise SettingsError(
            "server.workers: must be 0 (no supervisor) or 1: one process owns the state in state.dir; several workers "
            "come with a later version"
        )
    if server.workers < 0:
        raise SettingsError("server.workers: must be 0 (no supervisor) or 1")


def _check_record(record: RecordSettings) -> None:
    if not 0 < record.minutes <= LONGEST_RECORDING_MINUTES:
        raise SettingsError(f"record.minutes: must be between 0 and {LONGEST_RECORDING_MINUTES:,}")
    if not 1 <= record.max_mb <= LARGEST_RECORDING_MB:
        raise SettingsError(f"record.max_mb: must be between 1 and {LARGEST_RECORDING_MB:,}")


def _check_delivery(delivery: DeliverySettings) -> None:
    if delivery.timeout_seconds <= 0 or delivery.connections < 1:
        raise SettingsError("delivery: timeout_seconds and connections must be greater than zero")
    if delivery.account_connections < 1:
        raise SettingsError("delivery.account_connections: must be greater than zero")
    if not 1 <= delivery.max_waiting <= LONGEST_QUEUE:
        raise SettingsError(f"delivery.max_waiting: must be between 1 and {LONGEST_QUEUE:,}")


def check_settings(settings: Settings) -> None:
    """Raise :class:`SettingsError` for the first setting that cannot be used."""
    _check_state(settings.state)
    for name in ("tracking_url", "api_url"):
        if not getattr(settings.impact, name).startswith(("https://", "http://")):
            raise SettingsError(f"impact.{name}: must start with https:// or http://")
    if settings.rudder.upstream and not settings.rudder.upstream.startswith(("https://", "http://")):
        raise SettingsError("rudder.upstream: must start with https:// or http://, or be empty")
    if not settings.rudder.destination_types:
        raise SettingsError("rudder.destination_types: must name at least one destination type")
    _check_server(settings.server)
    _check_delivery(settings.delivery)
    _check_spool(settings.spool)
    _check_record(settings.record)
    _check_dedup_window(settings)
