"""Registration: files from the manifest that RudderStack takes as they are, and guides that agree with the recipes."""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft7Validator

from impact_plugin.__main__ import app
from impact_plugin.cli.errors import CommandError
from impact_plugin.config.manifest import load_manifest
from impact_plugin.config.settings import Settings
from impact_plugin.config.sources import make_routing
from impact_plugin.registration import rudderstack_environment, senders
from impact_transformers.configuration import parse_configuration

ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "deploy" / "rudderstack"
SAMPLES = ROOT / "tests" / "samples" / "rudderstack"
FILES = ["db-config.json", "schema.json", "ui-config.json", "workspaceConfig.json", "rudder-server.env"]

STOCK: dict[str, Any] = {
    "accountSID": "IRtestSID",
    "apiKey": "npPeGJ6_gAvfCs-XAYkh~dpWTJ",
    "campaignId": "23224",
    "impactAppId": "2323",
    "eventTypeId": "56446",
    "enableEmailHashing": True,
    "rudderToImpactProperty": [{"from": "properties.profit", "to": "Money1"}],
    "productsMapping": [{"from": "variant", "to": "ItemCategory"}],
    "enableIdentifyEvents": False,
    "enablePageEvents": True,
    "enableScreenEvents": True,
    "actionEventNames": [{"eventName": "Product Purchased"}],
    "installEventNames": [{"eventName": "App Installed"}],
    "connectionMode": {"web": "cloud"},
    "oneTrustCookieCategories": {"web": [{"oneTrustCookieCategory": "C0001"}]},
    "consentManagement": {"cloud": [{"provider": "custom", "resolutionStrategy": "or", "consents": []}]},
}
"""What an operator of the built-in destination has saved."""


def run(*words: str) -> int:
    """Run the command and return its exit code."""
    code = app(["register", *words], exit_on_error=False, result_action="return_value")
    assert code is None or isinstance(code, int)
    return code or 0


def generated(name: str) -> Any:
    """A generated JSON file, decoded."""
    return msgspec.json.decode((COMMITTED / name).read_bytes())


def test_the_files_are_those_that_are_committed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever looks at the repository sees what the command writes."""
    assert run("rudderstack", "--out", str(tmp_path / "made" / "here")) == 0
    written = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "made" / "here").iterdir()}

    assert written == {name: (COMMITTED / name).read_text(encoding="utf-8") for name in FILES}
    assert capsys.readouterr().out.count("wrote ") == len(FILES)


def test_the_definition_is_one_the_control_plane_takes() -> None:
    """By the rules of its schema of definitions: no key of its own making, and none missing.

    https://github.com/rudderlabs/rudder-integrations-config/blob/main/src/schemas/destinations/db-config-schema.json
    """
    definition = generated("db-config.json")
    config = definition["config"]
    known = {
        "transformAtV1", "saveDestinationResponse", "includeKeys", "excludeKeys", "supportedSourceTypes",
        "supportedMessageTypes", "supportedConnectionModes", "destConfig", "secretKeys",
    }  # fmt: skip

    assert set(definition) == {"name", "displayName", "config"}
    assert (definition["name"], definition["displayName"]) == ("IMPACT", "impact.com")
    assert re.fullmatch(r"[a-zA-Z0-9_ .\-()/]+", definition["displayName"])
    assert set(config) <= known
    assert config["transformAtV1"] in {"processor", "router", "none"}
    assert config["supportedMessageTypes"] == {"cloud": ["identify", "page", "screen", "track"]}
    assert config["secretKeys"] == ["apiKey"]
    assert set(config["destConfig"]) - {"defaultConfig"} == set(config["supportedSourceTypes"])
    assert all(len(set(keys)) == len(keys) > 0 for keys in config["destConfig"].values())


def test_every_key_of_the_manifest_can_be_saved_and_filled_in() -> None:
    """Definition, schema and form name the same keys; the form lacks only what it has no field for."""
    keys = [key.key for key in load_manifest().configuration]
    properties = generated("schema.json")["configSchema"]["properties"]
    fields = [field for part in generated("ui-config.json")["uiConfig"] for field in part["fields"]]

    assert generated("db-config.json")["config"]["destConfig"]["defaultConfig"] == keys
    assert [key for key in properties if key in keys] == keys
    assert {field["value"] for field in fields} == set(keys) - {"parameterSources"}
    assert [field["value"] for field in fields if field.get("secret")] == ["apiKey"]
    assert all(field["label"] and field["footerNote"] for field in fields)


def test_the_schema_is_a_schema() -> None:
    """Draft-07, as the control plane expects."""
    Draft7Validator.check_schema(generated("schema.json")["configSchema"])


def mistakes(config: dict[str, Any]) -> list[str]:
    """Where the schema finds fault."""
    found = Draft7Validator(generated("schema.json")["configSchema"]).iter_errors(config)
    return sorted(mistake.json_path for mistake in found)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"apiKey": "env.IMPACT_VAR_TOKEN", "campaignId": "{{ event.context.campaign || 23224 }}"},
        {"impactAppId": "", "eventTypeId": ""},
        {
            "eventTypes": [
                {"eventName": "Signed Up", "code": "SIGNUP", "kind": "lead"},
                {"eventName": "x", "id": "4711"},
            ]
        },
        {"clickWindowMinutes": "45", "referralWindowDays": 60, "repeatedClicks": "drop", "defaultCurrency": "EUR"},
        {"trackingDomains": [{"eventName": "go.shop.example"}], "clickKeyParts": [{"eventName": "visitor"}]},
        {"parameterSources": {"OrderId": ["properties.cart.id"]}, "consentPaths": [{"eventName": "context.consent"}]},
    ],
)
def test_what_the_control_plane_saves_works_here(more: dict[str, Any]) -> None:
    """A configuration that passes the schema, the built-in destination's included, is one we can use."""
    config = {**STOCK, **more}
    plain = {key: value for key, value in config.items() if not str(value).startswith(("env.", "{{"))}

    assert mistakes(config) == []
    parse_configuration({**STOCK, **plain}, load_manifest().configuration)


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"accountSID": None}, "$.accountSID"),
        ({"accountSID": "with space"}, "$.accountSID"),
        ({"campaignId": "twelve"}, "$.campaignId"),
        ({"campaignId": 23224}, "$.campaignId"),
        ({"enablePageEvents": "yes"}, "$.enablePageEvents"),
        ({"repeatedClicks": "forget"}, "$.repeatedClicks"),
        ({"clickWindowMinutes": 0}, "$.clickWindowMinutes"),
        ({"actionEventNames": ["Product Purchased"]}, "$.actionEventNames[0]"),
        ({"eventTypes": [{"eventName": "x", "kind": "refund"}]}, "$.eventTypes[0].kind"),
        ({"connectionMode": {"web": "device"}}, "$.connectionMode.web"),
        ({"consentManagement": {"web": [{"provider": "custom"}]}}, "$.consentManagement.web[0]"),
    ],
)
def test_what_would_not_work_is_not_saved(more: dict[str, Any], where: str) -> None:
    """The control plane refuses it and shows the field."""
    assert mistakes({**STOCK, **more}) == [where]


@pytest.mark.parametrize("key", ["accountSID", "apiKey", "campaignId"])
def test_a_missing_key_is_told_and_no_value_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    """Exit code 1, and a line a mistake; the token appears nowhere."""
    file = tmp_path / "config.json"
    file.write_bytes(msgspec.json.encode({**STOCK, key: None, "enablePageEvents": "yes", "eventTypeId": "secret word"}))
    missing = tmp_path / "missing.json"
    missing.write_bytes(msgspec.json.encode({name: value for name, value in STOCK.items() if name != key}))

    assert run("rudderstack", "--check", str(file)) == 1
    assert run("rudderstack", "--check", str(missing)) == 1
    told = capsys.readouterr().out
    assert f"$.{key}: does not fit" in told
    assert f"'{key}' is a required property" in told
    assert "secret word" not in told
    assert STOCK["apiKey"] not in told


def test_a_good_configuration_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON, TOML, or a destination as rudder-server writes it; and nothing is written."""
    files = {
        "plain.json": msgspec.json.encode(STOCK),
        "destination.json": msgspec.json.encode({"ID": "d", "Config": STOCK}),
        "plain.toml": b'accountSID = "IRtest"\napiKey = "token"\ncampaignId = "1"\n',
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

        assert run("rudderstack", "--check", str(tmp_path / name), "--out", str(tmp_path / "out")) == 0
    assert capsys.readouterr().out.count("would save it") == len(files)
    assert not (tmp_path / "out").exists()


def test_without_the_extra_the_check_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing the files needs nothing."""
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    file = tmp_path / "config.json"
    file.write_bytes(msgspec.json.encode(STOCK))

    assert run("rudderstack", "--out", str(tmp_path)) == 0
    with pytest.raises(CommandError, match=re.escape("impact-plugin[register]")):
        run("rudderstack", "--check", str(file))


def test_the_workspace_is_one_rudder_server_reads() -> None:
    """It has what the sample of a working file has, message types as a list, and a configuration we can use."""
    sample = msgspec.json.decode((SAMPLES / "workspaceConfig.json").read_bytes())
    made = generated("workspaceConfig.json")
    (source,), (ours,) = made["sources"], made["sources"][0]["destinations"]
    (known,), (theirs,) = sample["sources"], sample["sources"][0]["destinations"]

    assert set(made) <= set(sample)
    assert set(source) <= set(known)
    assert set(ours) <= set(theirs)
    assert ours["isProcessorEnabled"] is ours["enabled"] is source["enabled"] is True
    assert ours["destinationDefinition"]["config"]["supportedMessageTypes"] == ["identify", "page", "screen", "track"]
    assert ours["config"]["apiKey"] == "env.IMPACT_VAR_AUTH_TOKEN"
    assert ours["config"] == {
        **ours["config"],
        "accountSID": "REPLACE_ACCOUNT_SID",
        "campaignId": "REPLACE_CAMPAIGN_ID",
    }


def test_a_type_of_its_own_gets_a_name_of_its_own(tmp_path: Path) -> None:
    """Two definitions of one display name would shadow each other in the integrations of events."""
    run("rudderstack", "--out", str(tmp_path), "--type", "ImpactEU")
    definition = msgspec.json.decode((tmp_path / "db-config.json").read_bytes())
    environment = (tmp_path / "rudder-server.env").read_text(encoding="utf-8")

    assert (definition["name"], definition["displayName"]) == ("ImpactEU", "impact.com (ImpactEU)")
    assert "RSERVER_ROUTER_IMPACT_EU_TRANSFORMER_PROXY=true" in environment
    run("rudderstack", "--out", str(tmp_path), "--type", "ImpactEU", "--display-name", "Partners")
    assert msgspec.json.decode((tmp_path / "db-config.json").read_bytes())["displayName"] == "Partners"


@pytest.mark.parametrize("name", ["", "with space", "IMPACT-EU", "x" * 65, "ÄÖ"])
def test_a_name_that_rudder_server_cannot_use_is_refused(tmp_path: Path, name: str) -> None:
    """The message says which letters do."""
    with pytest.raises(CommandError, match="letters, digits"):
        run("rudderstack", "--out", str(tmp_path), f"--type={name}")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(CommandError, match="cannot be written"):
        run("rudderstack", "--out", str(tmp_path / "file"))


def test_the_routers_environment_explains_itself() -> None:
    """Every variable has a comment of its own, and those that need a decision are not switched on."""
    text = (COMMITTED / "rudder-server.env").read_text(encoding="utf-8")
    blocks = [block.splitlines() for block in text.strip().split("\n\n")]
    on = {line.partition("=")[0] for block in blocks for line in block if not line.startswith("#")}

    assert all(len(block) == 2 and block[0].startswith("# ") for block in blocks)
    assert on == {
        "DEST_TRANSFORM_URL",
        "RSERVER_TRANSFORMER_CLIENT_DISABLE_KEEP_ALIVES",
        "RSERVER_ROUTER_IMPACT_TRANSFORMER_PROXY",
    }
    assert rudderstack_environment.environment_name("IMPACT") == "IMPACT"


@pytest.mark.parametrize("router", ["jitsu", "segment"])
def test_the_guides_say_what_the_recipes_say(router: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Field by field; and their sources are ones the service takes."""
    recipe = (ROOT / "docs" / "recipes" / f"{router}.md").read_text(encoding="utf-8").replace("`", "")
    run(router)
    printed = capsys.readouterr().out

    for guide in senders.GUIDES[router]:
        for name, value in guide.fields:
            assert f"| {name} | {value} |" in recipe
            assert value in printed
        tree = tomllib.loads(re.sub(r"\$\{\w+\}", "a-key-of-sixteen-letters", guide.source))
        destination = tomllib.loads(senders.DESTINATION.replace("file:/run/secrets/impact_token", "token"))
        destination["destinations"]["impact"]["accountSID"] = "IRtest"
        routing = make_routing({**tree, **destination}, {})
        assert len(routing.sources) == 1


def test_the_guides_name_the_port_of_the_settings() -> None:
    """A default that moves takes them along."""
    assert f":{Settings().server.ingest_port}/v1" in senders.text("jitsu")
