"""Settings: defaults, file, environment, their order, and mistakes that are named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from impact_plugin.config.settings import SECTIONS, SETTINGS, Settings, load_settings, make_settings
from impact_plugin.errors import SettingsError
from impact_transformers import Secret

TESTS = Path(__file__).parents[2]
Load = Callable[..., Settings]

FLIPPED: dict[str, tuple[str, Any]] = {
    "server.host": ("0.0.0.0", "0.0.0.0"),
    "server.port": ("8080", 8080),
    "server.operator_host": ("::1", "::1"),
    "server.operator_port": ("8081", 8081),
    "server.ingest_host": ("0.0.0.0", "0.0.0.0"),
    "server.ingest_port": ("8082", 8082),
    "server.max_body_mb": ("5", 5),
    "server.shutdown_grace_seconds": ("1.5", 1.5),
    "server.workers": ("1", 1),
    "server.max_memory_mb": ("512", 512),
    "impact.tracking_url": ("http://127.0.0.1:1", "http://127.0.0.1:1"),
    "impact.api_url": ("http://127.0.0.1:2", "http://127.0.0.1:2"),
    "rudder.upstream": ("http://stock:9090", "http://stock:9090"),
    "rudder.destination_types": ("IMPACT, IMPACT_EU,", ("IMPACT", "IMPACT_EU")),
    "rudder.router_transform": ("false", False),
    "rudder.delete_users": ("true", True),
    "delivery.timeout_seconds": ("3", 3.0),
    "delivery.connections": ("7", 7),
    "delivery.account_connections": ("5", 5),
    "delivery.max_waiting": ("200", 200),
    "delivery.ordering": ("none", "none"),
    "delivery.dedup_window_hours": ("6", 6.0),
    "state.dir": ("/srv/state", "/srv/state"),
    "state.secret": ("0123456789abcdef", Secret("0123456789abcdef")),
    "state.durability": ("process", "process"),
    "state.decision_retention_hours": ("48", 48.0),
    "state.click_memory_days": ("7", 7.0),
    "state.max_claims": ("1000", 1000),
    "state.max_identities": ("2000", 2000),
    "state.max_answers": ("3000", 3000),
    "state.max_orders": ("4000", 4000),
    "state.order_memory_days": ("40", 40.0),
    "state.grace_seconds": ("0", 0.0),
    "state.timeout_seconds": ("0.5", 0.5),
    "spool.max_events": ("2000", 2000),
    "spool.max_mb": ("20", 20),
    "spool.min_free_mb": ("0", 0),
    "spool.retention_days": ("3", 3.0),
    "spool.dead_letter_days": ("60", 60.0),
    "spool.max_dead_letters": ("10", 10),
    "spool.seen_hours": ("48", 48.0),
    "spool.max_seen": ("5000", 5000),
    "spool.timeout_seconds": ("0.5", 0.5),
    "log.level": ("debug", "debug"),
    "record.dir": ("/srv/recordings", "/srv/recordings"),
    "record.minutes": ("1.5", 1.5),
    "record.max_mb": ("7", 7),
    "log.format": ("console", "console"),
}
"""By setting: what an operator writes in the environment, and what the service then reads."""

BEHAVIOUR: dict[str, str] = {
    "server.host": "test_router_port.py::test_listens_where_the_settings_say",
    "server.port": "test_router_port.py::test_listens_where_the_settings_say",
    "server.operator_host": "test_router_port.py::test_listens_where_the_settings_say",
    "server.operator_port": "test_router_port.py::test_listens_where_the_settings_say",
    "server.ingest_host": "test_spool_settings.py::test_the_senders_port_is_where_the_settings_say",
    "server.ingest_port": "test_spool_settings.py::test_the_senders_port_is_where_the_settings_say",
    "server.max_body_mb": "test_router_port.py::test_a_body_over_the_limit_is_asked_for_again",
    "server.shutdown_grace_seconds": "test_operator.py::test_a_stopping_service_waits_for_the_grace_period_only",
    "server.workers": "test_supervisor.py::test_a_worker_that_dies_is_replaced_by_the_one_prepared",
    "record.dir": "test_recording.py::test_a_setting_records_from_the_start_on",
    "record.minutes": "test_recording.py::test_a_setting_records_from_the_start_on",
    "record.max_mb": "test_recording.py::test_a_recording_does_not_get_larger_than_it_may",
    "server.max_memory_mb": "test_memory.py::test_the_processor_is_asked_to_come_again",
    "impact.tracking_url": "test_endpoints.py::test_addresses_come_from_the_settings",
    "impact.api_url": "test_endpoints.py::test_addresses_come_from_the_settings",
    "rudder.upstream": "test_gateway.py::test_a_request_that_is_not_ours_reaches_the_upstream_as_it_was",
    "rudder.destination_types": "test_router_port.py::test_other_destination_types_can_be_ours",
    "rudder.router_transform": "test_features.py::test_router_transform_can_be_switched_off",
    "rudder.delete_users": "test_features.py::test_deletions_are_asked_for_where_the_setting_says_so",
    "delivery.timeout_seconds": "test_proxy.py::test_without_a_deadline_the_setting_bounds_the_delivery",
    "delivery.connections": "test_client.py::test_connections_are_bounded",
    "delivery.account_connections": "test_deliveries.py::test_one_account_has_so_many_under_way",
    "delivery.max_waiting": "test_deliveries.py::test_too_many_that_wait_are_told_to_come_again",
    "delivery.ordering": "test_deliveries.py::test_a_visitors_requests_go_in_order_unless_told_otherwise",
    "delivery.dedup_window_hours": "test_ledger_settings.py::test_the_window_decides_how_long_an_order_is_sent_again",
    "state.dir": "test_operator.py::test_the_state_folder_is_made_for_the_service_alone",
    "state.secret": "test_state.py::test_another_secret_finds_nothing",
    "state.durability": "test_state.py::test_durability_decides_how_a_commit_is_written",
    "state.decision_retention_hours": "test_state.py::test_decisions_expire_after_their_retention",
    "state.click_memory_days": "test_state.py::test_clicks_are_forgotten_after_their_days",
    "state.max_claims": "test_state.py::test_capacities_bound_what_is_kept",
    "state.max_identities": "test_state.py::test_capacities_bound_what_is_kept",
    "state.max_answers": "test_state.py::test_capacities_bound_what_is_kept",
    "state.max_orders": "test_ledger_settings.py::test_the_capacity_bounds_what_is_kept",
    "state.order_memory_days": "test_ledger_settings.py::test_orders_are_forgotten_after_their_days",
    "state.grace_seconds": "test_state.py::test_the_grace_period_decides_how_long_batches_are_refused",
    "state.timeout_seconds": "test_state.py::test_a_slow_state_is_waited_for_so_long",
    "spool.max_events": "test_spool_settings.py::test_as_many_events_as_allowed_may_wait",
    "spool.max_mb": "test_spool_settings.py::test_as_many_bytes_as_allowed_may_wait",
    "spool.min_free_mb": "test_spool_settings.py::test_some_of_the_disk_stays_free",
    "spool.retention_days": "test_spool_settings.py::test_events_wait_for_so_many_days",
    "spool.dead_letter_days": "test_spool_settings.py::test_dead_letters_are_kept_for_so_many_days",
    "spool.max_dead_letters": "test_spool_settings.py::test_so_many_dead_letters_are_kept",
    "spool.seen_hours": "test_spool_settings.py::test_duplicates_are_known_for_so_many_hours",
    "spool.max_seen": "test_spool_settings.py::test_so_many_duplicates_are_known",
    "spool.timeout_seconds": "test_spool_settings.py::test_the_disk_is_waited_for_so_long",
    "log.level": "test_telemetry.py::test_the_level_decides_what_is_written",
    "log.format": "test_telemetry.py::test_lines_are_json_or_for_people",
}
"""By setting: the test that flips it and sees the service behave otherwise."""


def setting_names() -> list[str]:
    """Every setting as ``section.key``, read from the types themselves."""
    return [
        f"{section.name}.{field.name}"
        for section in msgspec.structs.fields(Settings)
        for field in msgspec.structs.fields(section.type)
    ]


def value_of(settings: Settings, name: str) -> Any:
    """The value of ``section.key``."""
    section, key = name.split(".")
    return getattr(getattr(settings, section), key)


def test_every_setting_is_described_and_has_a_test_that_flips_it() -> None:
    """A setting that is not documented, or that no test turns, is not a setting."""
    names = sorted(setting_names())

    assert sorted(SETTINGS) == names
    assert sorted(FLIPPED) == names
    assert sorted(BEHAVIOUR) == names


@pytest.mark.parametrize("place", sorted(set(BEHAVIOUR.values())))
def test_the_tests_that_flip_settings_exist(place: str) -> None:
    """The table above points at tests that are there."""
    file, _, name = place.partition("::")
    texts = [found.read_text(encoding="utf-8") for found in TESTS.rglob(file)]

    assert any(f"def {name}(" in text for text in texts)


@pytest.mark.parametrize("name", sorted(FLIPPED))
def test_a_variable_changes_its_setting_and_no_other(name: str) -> None:
    """``IMPACT_PLUGIN__SECTION__KEY`` sets exactly that key."""
    written, expected = FLIPPED[name]
    settings = load_settings(None, {f"IMPACT_PLUGIN__{name.replace('.', '__').upper()}": written})
    changed = {other for other in setting_names() if value_of(settings, other) != value_of(Settings(), other)}

    assert value_of(settings, name) == expected
    assert changed == {name}


@pytest.mark.parametrize("name", sorted(FLIPPED))
def test_a_file_changes_its_setting(tmp_path: Path, name: str) -> None:
    """The same keys work in a TOML file, with TOML's own types."""
    _, expected = FLIPPED[name]
    section, key = name.split(".")
    value = expected.reveal() if isinstance(expected, Secret) else expected
    file = tmp_path / "settings.toml"
    file.write_text(f"[{section}]\n{key} = {msgspec.json.encode(value).decode()}\n", encoding="utf-8")

    assert value_of(load_settings(file, {}), name) == expected


def test_defaults_work_without_anything(load: Load) -> None:
    """Nothing set means the stock transformer's ports, loopback only, and impact.com's own hosts."""
    settings = load()

    assert settings == Settings()
    assert (settings.server.host, settings.server.port, settings.server.operator_port) == ("127.0.0.1", 9090, 9091)
    assert settings.impact.api_url == "https://api.impact.com"
    assert settings.impact.tracking_url == "https://trkapi.impact.com"


def test_environment_wins_over_file_which_wins_over_defaults(tmp_path: Path, load: Load) -> None:
    """The more specific place wins, key by key."""
    file = tmp_path / "settings.toml"
    file.write_text('[server]\nport = 1\noperator_port = 2\n[log]\nlevel = "debug"\n', encoding="utf-8")
    settings = load(file, SERVER__PORT="3")

    assert (settings.server.port, settings.server.operator_port, settings.log.level) == (3, 2, "debug")
    assert settings.server.host == "127.0.0.1"


def test_variables_of_others_are_left_alone() -> None:
    """Only our prefix is read; the rest of an environment is nobody's mistake."""
    assert load_settings(None, {"PATH": "/bin", "IMPACT_VAR_TOKEN": "x", "IMPACT_PLUGIN": "y"}) == Settings()


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"SERVER__PORTS": "1"}, "IMPACT_PLUGIN__SERVER__PORT?"),
        ({"SERVICE__PORT": "1"}, "IMPACT_PLUGIN__SERVER__PORT?"),
        ({"NOTHING": "1"}, "docs/reference/settings.md"),
        ({"SERVER__PORT__X": "1"}, "IMPACT_PLUGIN__SERVER__PORT?"),
    ],
)
def test_an_unknown_variable_is_refused_by_name(load: Load, variables: dict[str, str], named: str) -> None:
    """A mistyped variable does not do nothing in silence: the error names it and where to look."""
    with pytest.raises(SettingsError) as refused:
        load(**variables)

    assert str(refused.value).startswith(f"IMPACT_PLUGIN__{next(iter(variables))}: there is no such setting; ")
    assert str(refused.value).endswith((f"did you mean {named}", f"{named} lists all"))


def test_the_setting_that_chose_a_server_for_the_state_is_refused(tmp_path: Path, load: Load) -> None:
    """A file or a variable of an earlier version: the error names it and says what to do, without its value."""
    file = tmp_path / "settings.toml"
    file.write_text('[state]\nurl = "redis://user:password@127.0.0.1:6379"\n', encoding="utf-8")

    with pytest.raises(SettingsError) as of_file:
        load(file)
    with pytest.raises(SettingsError) as of_variable:
        load(STATE__URL="embedded:")

    assert str(of_file.value) == (
        "state.url: is no longer a setting: the state is kept in the folder state.dir, by one process; remove it"
    )
    assert str(of_variable.value) == f"IMPACT_PLUGIN__STATE__URL: {str(of_file.value).partition(': ')[2]}"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[server]\nprot = 1\n", "server.prot: there is no such setting; did you mean port?"),
        ("[sever]\nport = 1\n", "sever: there is no such section; did you mean server?"),
        ('[server]\nport = "many"\n', "server.port: must be a whole number between 0 (any free port) and 65,535"),
        ('[log]\nlevel = "loud"\n', "log.level: must be one of debug, info, warning, error"),
        ("server = 5\n", "server: must be a section of the file, [server]"),
        ("[server\n", "is not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, named: str) -> None:
    """Unknown keys and sections, wrong types and broken TOML are told with their place."""
    file = tmp_path / "settings.toml"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(SettingsError) as refused:
        load_settings(file, {})

    assert named in str(refused.value)


def test_a_section_that_is_no_table_is_named_also_with_variables(tmp_path: Path, load: Load) -> None:
    """``server = 5`` in the file stays the operator's mistake when a variable sets a key of that section."""
    file = tmp_path / "settings.toml"
    file.write_text("server = 5\n", encoding="utf-8")

    with pytest.raises(SettingsError) as refused:
        load(file, SERVER__PORT="1")

    assert "server" in str(refused.value)


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    """The error says which file and what is wrong with it."""
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")

    with pytest.raises(SettingsError, match=r"absent\.toml: cannot be read"):
        load_settings(tmp_path / "absent.toml", {})
    with pytest.raises(SettingsError, match=r"binary\.toml: is not TOML"):
        load_settings(binary, {})


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"SERVER__PORT": "many"}, "must be a whole number between 0 (any free port) and 65,535"),
        ({"SERVER__PORT": "65536"}, "must be a whole number between 0 (any free port) and 65,535"),
        ({"SERVER__MAX_BODY_MB": "0"}, "must be a whole number between 1 and 2,048"),
        ({"SERVER__MAX_BODY_MB": "2049"}, "must be a whole number between 1 and 2,048"),
        ({"SERVER__MAX_MEMORY_MB": "63"}, "must be 0 (no ceiling) or a whole number between 64 and 1,000,000"),
        ({"SERVER__MAX_MEMORY_MB": "-1"}, "must be 0 (no ceiling) or a whole number between 64 and 1,000,000"),
        ({"SERVER__WORKERS": "-1"}, "must be 0 (no supervisor) or 1; one process owns the state in state.dir"),
        ({"SERVER__WORKERS": "2"}, "must be 0 (no supervisor) or 1; one process owns the state in state.dir"),
        ({"SERVER__SHUTDOWN_GRACE_SECONDS": "-1"}, "must be a number between 0 and 3,600"),
        ({"SERVER__SHUTDOWN_GRACE_SECONDS": "nan"}, "must be a number between 0 and 3,600"),
        ({"RUDDER__ROUTER_TRANSFORM": "maybe"}, "must be true or false"),
        ({"RUDDER__UPSTREAM": "stock:9090"}, "must be text that starts with https:// or http://, or empty"),
        ({"RUDDER__DESTINATION_TYPES": " , "}, "must be a list of at least 1 text value"),
        ({"IMPACT__TRACKING_URL": "trkapi.impact.com"}, "must be text that starts with https:// or http://"),
        ({"IMPACT__API_URL": "ftp://api.impact.com"}, "must be text that starts with https:// or http://"),
        ({"IMPACT__API_URL": ""}, "must be text that starts with https:// or http://"),
        ({"RECORD__MINUTES": "0"}, "must be a number above 0 and at most 10,080"),
        ({"RECORD__MINUTES": "10081"}, "must be a number above 0 and at most 10,080"),
        ({"RECORD__MAX_MB": "0"}, "must be a whole number between 1 and 10,240"),
        ({"DELIVERY__TIMEOUT_SECONDS": "0"}, "must be a number above 0 and at most 3,600"),
        ({"DELIVERY__CONNECTIONS": "0"}, "must be a whole number between 1 and 1,000,000"),
        ({"DELIVERY__MAX_WAITING": "1000001"}, "must be a whole number between 1 and 1,000,000"),
        ({"DELIVERY__DEDUP_WINDOW_HOURS": "-1"}, "must be a number between 0 and 9,600"),
        ({"STATE__SECRET": "15-characters.."}, "must be text of at least 16 characters; try openssl rand -hex 32"),
        ({"STATE__ORDER_MEMORY_DAYS": "0.5"}, "must be a number between 1 and 400"),
        ({"STATE__MAX_ORDERS": "0"}, "must be a whole number between 1 and 100,000,000"),
        ({"LOG__LEVEL": "verbose"}, "must be one of debug, info, warning, error"),
    ],
)
def test_a_value_that_cannot_work_is_refused(load: Load, variables: dict[str, str], named: str) -> None:
    """The service does not start with a value it cannot use, and says where it stands and what would do."""
    with pytest.raises(SettingsError) as refused:
        load(**variables)
    [(name, value)] = variables.items()

    assert str(refused.value).startswith(f"IMPACT_PLUGIN__{name}: {named}")
    assert value not in str(refused.value).removeprefix(f"IMPACT_PLUGIN__{name}: {named}") or len(value) < 4


BOUNDS = [
    (name, bound)
    for name, field in SETTINGS.items()
    for bound in (field.setting.minimum, field.setting.maximum)
    if bound is not None
]


@pytest.mark.parametrize(("name", "bound"), BOUNDS)
def test_the_ends_of_a_range_belong_to_it(name: str, bound: float) -> None:
    """And what lies beyond does not, unless it is the default."""
    field = SETTINGS[name]
    beyond = bound - 1 if bound == field.setting.minimum else bound + 1

    assert bound == field.parse(bound)
    if beyond != field.default:
        with pytest.raises(ValueError, match="must be"):
            field.parse(beyond)


def test_defaults_can_be_used() -> None:
    """Whoever writes down what holds anyway changes nothing."""
    written = {
        section: {key: value.reveal() if isinstance(value, Secret) else value for key, value in keys.items()}
        for section, keys in ((name, msgspec.structs.asdict(getattr(Settings(), name))) for name in SECTIONS)
    }

    assert Settings() == make_settings(written)


def test_settings_that_contradict_each_other_are_refused(load: Load) -> None:
    """An order must not be forgotten while it may still be sent again."""
    with pytest.raises(SettingsError) as refused:
        load(STATE__ORDER_MEMORY_DAYS="1", DELIVERY__DEDUP_WINDOW_HOURS="25")

    assert str(refused.value) == (
        "delivery.dedup_window_hours: must be at most 24, the hours of state.order_memory_days"
    )


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    """Of file, variables and options, each where it stands; what another place sets right is no mistake."""
    file = tmp_path / "settings.toml"
    text = "[server]\nport = -1\noperator_port = -1\nprot = 1\n[log]\nlevel = 'loud'\n[state]\nmax_claims = 0\n"
    file.write_text(text, encoding="utf-8")
    environment = {"IMPACT_PLUGIN__LOG__LEVEL": "quiet", "IMPACT_PLUGIN__STATE__MAX_CLAIMS": "1"}
    with pytest.raises(SettingsError) as refused:
        load_settings(file, environment, {"server.operator_port": 70_000, "server.workers": None})

    assert [problem.path for problem in refused.value.problems] == [
        "server.prot",
        "server.port",
        "--operator-port",
        "IMPACT_PLUGIN__LOG__LEVEL",
    ]
    assert str(refused.value) == "; ".join(map(str, refused.value.problems))
