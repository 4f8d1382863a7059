"""``impact-plugin validate``: every mistake with its path, what was meant, and exit codes that a pipeline can use."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from impact_plugin.__main__ import app
from impact_plugin.cli.errors import CommandError
from impact_plugin.config.validation import validate_destinations, validate_service
from impact_plugin.testing.fake_impact import FakeImpact

NO_LONGER = "is no longer a setting: the state is kept in the folder state.dir, by one process; remove it"
SAMPLES = Path(__file__).parents[2] / "samples" / "rudderstack"
GOOD = """
[sources.shop]
keys = ["a-key-of-sixteen-letters"]
[destinations.eu]
accountSID = "IRtest"
apiKey = "test-token-secret"
campaignId = "23224"
"""

Write = Callable[[str], Path]


@pytest.fixture(name="write")
def write_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Lend a writer of the service's file, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        file = tmp_path / "impact.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return write


def run(*words: str) -> int:
    """Call the command in this process."""
    code = app(["validate", *words], result_action="return_value")
    assert isinstance(code, int)
    return code


def found(file: Path | None, environment: dict[str, str] | None = None) -> list[str]:
    """Every finding as a line."""
    return [str(finding) for finding in validate_service(file, environment or {}).findings]


def test_a_good_file_has_no_findings(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0, also with warnings denied."""
    file = write(GOOD)

    assert found(file) == []
    assert run(str(file)) == 0
    assert run(str(file), "--deny-warnings") == 0
    assert "ok: no mistakes found" in capsys.readouterr().out


def test_every_mistake_is_told_and_not_the_first_only(write: Write) -> None:
    """Of settings, sections, sources and destinations, each by its path."""
    file = write(
        """
[server]
prot = 1
max_body_mb = 0
[state]
url = "redis://127.0.0.1:6379"
[sttae]
dir = "x"
[log]
level = "loud"
[sources.shop]
keys = ["short"]
[sources.app]
keys = ["a-key-of-sixteen-letters"]
destination = ["eu"]
[destinations.eu]
accountSID = "IRtest"
apiKey = "test-token-secret"
campaignId = "twelve"
evntTypeId = "1"
rpeatedClicks = "drop"
"""
    )

    assert sorted(found(file)) == sorted(
        [
            "error: server.prot: there is no such setting; did you mean port?",
            "error: server.max_body_mb: must be a whole number between 1 and 2,048",
            f"error: state.url: {NO_LONGER}",
            "error: sttae: there is no such section; did you mean state?",
            "error: log.level: must be one of debug, info, warning, error",
            "error: sources.shop.keys[0]: must have 16 to 256 characters; openssl rand -hex 32 makes one",
            "error: sources.app.destination: there is no such key; did you mean destinations?",
            "error: destinations.eu.evntTypeId: there is no such key; did you mean eventTypeId?",
            "error: destinations.eu.rpeatedClicks: there is no such key; did you mean repeatedClicks?",
            "error: destinations.eu.campaignId: 'twelve' does not fit the pattern [0-9]{1,10}",
        ]
    )


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("IMPACT_PLUGIN__SERVER__PROT", "1", "there is no such setting; did you mean IMPACT_PLUGIN__SERVER__PORT?"),
        ("IMPACT_PLUGIN__NOTHING", "1", "there is no such setting; docs/reference/settings.md lists all"),
        (
            "IMPACT_PLUGIN__STATE__URL",
            "embedded:",
            NO_LONGER,
        ),
        ("IMPACT_PLUGIN__SERVER__PORT", "99999", "must be a whole number between 0 (any free port) and 65,535"),
        ("IMPACT_PLUGIN__SERVER__PORT", "many", "must be a whole number between 0 (any free port) and 65,535"),
    ],
)
def test_variables_are_looked_at_too(variable: str, value: str, expected: str) -> None:
    """Each by its own name, also without a file."""
    assert found(None, {variable: value}) == [f"error: {variable}: {expected}"]


def test_settings_that_contradict_each_other_are_told(write: Write) -> None:
    """Each alone would do: the mistake is in the pair."""
    file = write("[state]\norder_memory_days = 1\n[delivery]\ndedup_window_hours = 48\n")

    assert found(file) == [
        "error: delivery.dedup_window_hours: must be at most 24, the hours of state.order_memory_days",
    ]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            'installEventNames = ["x"]\nactionEventNames = ["X"]',
            "destinations.eu.installEventNames: 'x' is an action event too; it will be an action",
        ),
        (
            'eventTypeId = "7"',
            (
                "destinations.eu.eventTypeId: is for actions; 'Application Installed' goes to the event type whose "
                "code is its name, unless it has an entry"
            ),
        ),
        (
            'repeatedClicks = "drop"',
            (
                "destinations.eu.repeatedClicks: drops page loads that impact.com's tracking efficacy counts; "
                "page_load sends them as what they are"
            ),
        ),
        (
            'eventTypeId = "7"\n[destinations.eu.eventTypes]\n"Application Installed" = { id = "7", kind = "install" }',
            (
                "destinations.eu.eventTypes.'Application Installed': is of kind install, but 7 is the event type of "
                "actions (eventTypeId)"
            ),
        ),
        (
            '[destinations.eu.eventTypes]\n"Application Installed" = "8"',
            (
                "destinations.eu.eventTypes.'Application Installed': is an action, which needs an order id of its own; "
                "write kind = install for an install"
            ),
        ),
        ("enableEmailHashing = false", "destinations.eu.enableEmailHashing: has no effect: e-mails are always hashed"),
        (
            'consentGate = "required"',
            "destinations.eu.consentGate: filters events by consent, but consentPaths does not say where it is",
        ),
        (
            'rudderToImpactProperty = { "properties.a" = "MediaId", "properties.b" = "MediaPartnerId" }',
            "destinations.eu.rudderToImpactProperty: impact.com takes one of MediaId and MediaPartnerId",
        ),
        (
            "referralWindowDays = 60",
            "destinations.eu.referralWindowDays: is 60, but state.click_memory_days forgets clicks before that",
        ),
        (
            '[destinations.twin]\naccountSID = "IRtest"\napiKey = "t"\ncampaignId = "23224"',
            "sources.shop.destinations: 2 destinations are the same program: its events would go there twice",
        ),
        (
            '[rudder]\nupstream = "http://127.0.0.1:9090"',
            "rudder.upstream: is this service's own address: requests would loop",
        ),
        (
            '[state]\ndir = "/tmp/state"',
            "state.dir: is in a folder for temporary files: the system may delete it",
        ),
    ],
)
def test_what_is_no_mistake_and_not_what_was_meant_is_a_warning(write: Write, more: str, expected: str) -> None:
    """Exit code 0, and 1 where warnings are denied."""
    file = write(GOOD + more)

    assert found(file) == [f"warning: {expected}"]
    assert run(str(file)) == 0
    assert run(str(file), "--deny-warnings") == 1


def test_a_file_that_is_no_toml_is_one_error(write: Write) -> None:
    """With exit code 2, as errors have."""
    file = write("[server\n")

    assert len(found(file)) == 1
    assert run(str(file), "--quiet") == 2


@pytest.mark.parametrize("where", ["workspace", "destination", "bare"])
def test_a_routers_configuration_is_looked_at(tmp_path: Path, where: str) -> None:
    """A workspaceConfig.json, a destination as the router writes it, or the configuration alone."""
    workspace = json.loads((SAMPLES / "workspaceConfig.json").read_text(encoding="utf-8"))
    destination = workspace["sources"][0]["destinations"][0]
    destination["config"] |= {"campaignId": "twelve", "repeatedClick": "drop"}
    tree = {"workspace": workspace, "destination": {"Config": destination["config"]}, "bare": destination["config"]}
    path = "sources[0].destinations[0].config" if where == "workspace" else "config"
    file = tmp_path / "config.json"
    file.write_text(json.dumps(tree[where]), encoding="utf-8")

    assert [str(one) for one in validate_destinations(tree[where], {})] == [
        f"warning: {path}.repeatedClick: there is no such key; did you mean repeatedClicks?",
        f"error: {path}.campaignId: 'twelve' does not fit the pattern [0-9]{{1,10}}",
    ]
    assert run(str(file)) == 2


@pytest.mark.parametrize("tree", [[], {"sources": []}, {"sources": [{"destinations": []}]}, 5])
def test_a_file_without_a_destination_of_ours_is_told(tree: Any) -> None:
    """Silence would be taken for praise."""
    (finding,) = validate_destinations(tree, {})

    assert finding.message == "holds no configuration of a destination of ours"


def test_what_is_no_json_is_one_line(tmp_path: Path) -> None:
    """And exit code 2, by way of the command's own errors."""
    file = tmp_path / "broken.json"
    file.write_text("{", encoding="utf-8")

    with pytest.raises(CommandError, match="cannot be read as JSON"):
        run(str(file))


def test_json_is_one_object_without_secrets(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """For programs."""
    file = write(GOOD.replace("23224", "twelve") + "enablePageEvent = true\n")
    run(str(file), "--json")
    printed = capsys.readouterr().out
    report = json.loads(printed)

    assert {finding["path"] for finding in report["findings"]} == {
        "destinations.eu.enablePageEvent",
        "destinations.eu.campaignId",
    }
    assert "test-token-secret" not in printed


@pytest.mark.parametrize(
    ("token", "forbidden", "code", "expected"),
    [
        ("test-token-secret", False, 0, "ok: credentials of eu: accepted"),
        ("another", False, 3, "error: credentials of eu: 401: wrong Account SID or Auth Token"),
        ("test-token-secret", True, 3, "error: credentials of eu: 403: the token lacks the scope"),
    ],
)
async def test_online_asks_impact_and_creates_nothing(
    write: Write, capsys: pytest.CaptureFixture[str], token: str, forbidden: bool, code: int, expected: str
) -> None:
    """Names, connection, clock and credentials; what arrives is no conversion."""
    async with FakeImpact(auth_token=token, forbidden=forbidden) as impact:
        file = write(f'{GOOD}[impact]\ntracking_url = "{impact.url}"\napi_url = "{impact.url}"\n')
        result = await app.run_async(["validate", str(file), "--online"], result_action="return_value")
        conversions = [call for call in impact.conversions if call.status == 200]

    printed = capsys.readouterr().out
    assert result == code, printed
    assert expected in printed
    assert "ok: clock: within" in printed
    assert conversions == []


async def test_online_tells_who_cannot_be_reached(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """A closed port, and a name that does not exist; exit code 3."""
    file = write(f'{GOOD}[impact]\ntracking_url = "http://no-such-host.invalid"\napi_url = "http://127.0.0.1:9"\n')
    result = await app.run_async(["validate", str(file), "--online"], result_action="return_value")
    printed = capsys.readouterr().out

    assert result == 3
    assert "error: name no-such-host.invalid: not found" in printed
    assert "error: connection to 127.0.0.1: failed" in printed
    assert "error: credentials of eu: could not be tried" in printed
