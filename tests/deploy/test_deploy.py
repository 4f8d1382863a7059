"""What stands under ``deploy/``: valid by its own schema, and in step with the code. No container engine is needed."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose
from prometheus_client import Metric

from impact_plugin.config.manifest import load_manifest
from impact_plugin.config.settings import Settings, load_settings
from impact_plugin.config.sources import make_routing
from impact_plugin.telemetry import METRICS, Telemetry
from impact_transformers.configuration import fill_variables, parse_configuration
from tests.queried import TARGET_LABELS, grouped, selectors

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = [DEPLOY / "compose.yaml", DEPLOY / "compose.jitsu.yaml"]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
UNIT = DEPLOY / "systemd" / "impact-plugin.service"
KUBERNETES = DEPLOY / "kubernetes" / "sidecar.yaml"
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]


def instructions(name: str) -> list[str]:
    """The arguments of every such instruction of the Dockerfile's last stage."""
    last = re.sub(r"\\\n\s*", "", DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :])
    return [line.removeprefix(f"{name} ").strip() for line in last.splitlines() if line.startswith(f"{name} ")]


def image_environment() -> dict[str, str]:
    """What the image sets."""
    return dict(line.split("=", 1) for line in instructions("ENV"))


def containers() -> list[dict[str, Any]]:
    """Ours and its neighbours in the Kubernetes manifest."""
    documents = yaml.safe_load_all(KUBERNETES.read_text(encoding="utf-8"))
    (workload,) = [document for document in documents if document["kind"] == "StatefulSet"]
    pod = workload["spec"]["template"]["spec"]
    return [*pod["initContainers"], *pod["containers"]]


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_compose_files_are_compose_files(file: Path) -> None:
    """By the Compose Specification. https://github.com/compose-spec/compose-spec"""
    interpolated = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", file.read_text(encoding="utf-8"))
    composed = PyCompose.from_yaml(interpolated)

    assert composed.services is not None
    assert "impact-plugin" in composed.services


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_our_container_may_do_little(file: Path) -> None:
    """No root file system to write to, no capabilities, ports on the loopback interface, time to drain."""
    service = yaml.safe_load(file.read_text(encoding="utf-8"))["services"]["impact-plugin"]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert int(service["stop_grace_period"].removesuffix("s")) > Settings().server.shutdown_grace_seconds + 5


def test_the_kubernetes_manifest_fits_its_schema() -> None:
    """Every document, strictly, by the schemas of a version that has native sidecars."""
    for document in yaml.safe_load_all(KUBERNETES.read_text(encoding="utf-8")):
        kubernetes_validate.validate(document, "1.31", strict=True)


def test_a_wrong_manifest_would_be_told() -> None:
    """The check checks."""
    documents = list(yaml.safe_load_all(KUBERNETES.read_text(encoding="utf-8")))
    documents[-1]["spec"]["template"]["spec"]["containers"][0]["prots"] = []

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(documents[-1], "1.31", strict=True)


def test_the_sidecar_has_probes_of_its_own() -> None:
    """Alive and ready are different questions, and the router starts after the first ready answer."""
    ours = containers()[0]
    probes = {name: ours[name]["httpGet"] for name in ("livenessProbe", "readinessProbe", "startupProbe")}

    assert {name: probe["path"] for name, probe in probes.items()} == {
        "livenessProbe": "/health",
        "readinessProbe": "/ready",
        "startupProbe": "/ready",
    }
    assert {probe["port"] for probe in probes.values()} == {"impact-ops"}
    assert ours["ports"] == [{"name": "impact-ops", "containerPort": 9091}]
    assert ours["restartPolicy"] == "Always"
    assert ours["securityContext"]["readOnlyRootFilesystem"] is True
    assert ours["securityContext"]["runAsUser"] == int(instructions("USER")[0].partition(":")[0])


def test_the_pod_waits_for_the_grace_period() -> None:
    """A pod that is killed earlier loses requests that were promised time."""
    documents = yaml.safe_load_all(KUBERNETES.read_text(encoding="utf-8"))
    (workload,) = [document for document in documents if document["kind"] == "StatefulSet"]

    assert workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > (
        Settings().server.shutdown_grace_seconds + 5
    )


def settings_of(variables: dict[str, str]) -> Settings:
    """The settings a deployment means; fails for a variable that is none."""
    return load_settings(None, {name: str(value) for name, value in variables.items()})


def test_every_deployment_sets_settings_that_exist() -> None:
    """The image, both compose files, the sidecar and the unit: a renamed setting fails here."""
    image = image_environment()
    compose = [yaml.safe_load(file.read_text(encoding="utf-8"))["services"]["impact-plugin"] for file in COMPOSE]
    unit = dict(
        line.removeprefix("Environment=").split("=", 1)
        for line in UNIT.read_text(encoding="utf-8").splitlines()
        if line.startswith("Environment=")
    )
    sidecar = {entry["name"]: entry["value"] for entry in containers()[0]["env"]}

    composed = [settings_of(image | one.get("environment", {})) for one in compose]
    assert composed[0].rudder.upstream == "http://transformer:9090"
    assert settings_of(image | sidecar).rudder.upstream == "http://127.0.0.1:9080"
    assert settings_of(unit).state.dir == "/var/lib/impact-plugin"
    assert settings_of(image).server.workers == 1
    assert settings_of(image | sidecar).server.operator_host == "0.0.0.0"


def test_the_demonstrations_configurations_can_be_used() -> None:
    """The workspace of one compose file, the routing file of the other."""
    rudder, jitsu = (yaml.safe_load(file.read_text(encoding="utf-8"))["configs"] for file in COMPOSE)
    workspace = json.loads(rudder["workspace"]["content"])
    config = workspace["sources"][0]["destinations"][0]["config"]
    toml = re.sub(r"file:/run/secrets/(\w+)", r"secret-of-the-tests-\1", jitsu["impact"]["content"])

    parse_configuration(fill_variables(config, {"IMPACT_VAR_AUTH_TOKEN": "demo-token"}), load_manifest().configuration)
    routing = make_routing(tomllib.loads(toml), {})
    assert set(routing.sources) == {"jitsu"}


def test_the_image_runs_what_is_in_the_wheel() -> None:
    """Its user is not root, its files are locked, nothing is fetched by a script, no curl."""
    assert instructions("USER") == ["10001:10001"]
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["impact-plugin"]
    assert json.loads(instructions("CMD")[0]) == ["serve"]
    assert DOCKERFILE.count("--require-hashes") == 2
    assert "curl" not in DOCKERFILE.lower()
    assert "wget" not in DOCKERFILE.lower()
    for lock in re.findall(r"requirements/\w+\.lock", DOCKERFILE):
        assert (ROOT / lock).exists()
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        assert all((ROOT / name).exists() for name in source.split())


def test_the_image_holds_the_versions_that_were_tested() -> None:
    """What the tests run with is what the image installs."""
    pins = {}
    for lock in ("dev", "build", "runtime"):
        text = (ROOT / "requirements" / f"{lock}.lock").read_text(encoding="utf-8")
        pins[lock] = dict(re.findall(r"^([a-z0-9_.-]+)==(\S+)", text, re.MULTILINE))

    for lock in ("build", "runtime"):
        assert pins[lock].items() <= pins["dev"].items(), lock


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """``systemd-analyze verify`` on the unit as it is, with a program where it says there is one."""
    program = tmp_path / "impact-plugin"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    text = UNIT.read_text(encoding="utf-8").replace("/opt/impact-plugin/bin/impact-plugin", str(program))
    unit = tmp_path / "impact-plugin.service"
    unit.write_text(text, encoding="utf-8")
    tool = shutil.which("systemd-analyze")
    assert tool is not None, "no systemd-analyze: run tools/install_servers.py (make test does)"

    def verify() -> str:
        done = subprocess.run([tool, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
        return f"{done.returncode} {done.stderr}" if "impact-plugin.service" in done.stderr or done.returncode else ""

    assert verify() == ""
    unit.write_text(text.replace("KillMode=mixed", "KillMode=gently"), encoding="utf-8")
    assert "kill mode" in verify()


def test_the_unit_stops_and_reloads_as_the_supervisor_expects() -> None:
    """SIGHUP to the supervisor alone, SIGTERM to it first, and longer than the grace period."""
    unit = dict(line.split("=", 1) for line in UNIT.read_text(encoding="utf-8").splitlines() if "=" in line[:40])

    assert unit["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert unit["KillMode"] == "mixed"
    assert int(unit["TimeoutStopSec"]) > Settings().server.shutdown_grace_seconds + 5
    assert "--workers 1" in unit["ExecStart"]


def known_series() -> dict[str, set[str]]:
    """Every series name Prometheus can have of us, with its labels."""
    families: list[Metric] = list(Telemetry().metrics.registry.collect())
    kinds = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    labels = {facts.name: set(facts.labels) for facts in METRICS}
    return {
        f"{family.name}{suffix}": labels[family.name] | ({"le"} if suffix == "_bucket" else set())
        for family in families
        for suffix in kinds[family.type]
    } | {"up": {"job", "instance"}}


def check_query(expression: str) -> None:
    """Assert that there are such series with such labels, and that a label it groups by is one of them."""
    series = known_series()
    asked = selectors(expression)
    assert asked, expression
    for one in asked:
        labels = {label for label, _, _ in one.matchers}
        assert labels <= series[one.series], f"{one} has only {series[one.series]}"
    assert grouped(expression) <= TARGET_LABELS.union(*(series[one.series] for one in asked)), expression


def test_a_wrong_query_would_be_told() -> None:
    """The check checks: a series that is none, a label that is none, and a label to group by that is none."""
    for wrong in ("impact_plugin_evnts_total", 'impact_plugin_events_total{result="x"}'):
        with pytest.raises((AssertionError, KeyError)):
            check_query(wrong)
    with pytest.raises(AssertionError):
        check_query("sum by (result) (impact_plugin_events_total)")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_there_is_and_says_what_to_do(rule: dict[str, Any]) -> None:
    """Names and labels exist, the severity is one of two, and the runbook has a section of its own."""
    check_query(rule["expr"])
    series = known_series()
    asked = selectors(rule["expr"])
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)

    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert anchor in {heading.lower() for heading in headings}
    for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
        assert label == "instance" or any(label in series[one.series] for one in asked)


SUDDEN = [rule for rule in RULES if re.match(r"increase\(\w+\{?", rule["expr"]) and "for" not in rule]


@pytest.mark.parametrize("rule", SUDDEN, ids=lambda rule: rule["alert"])
def test_an_alert_on_a_single_increment_sees_the_first_one(rule: dict[str, Any]) -> None:
    """A series with labels begins with its first increment, which ``increase`` does not see."""
    series, window = re.findall(r"increase\((.+?)\[(\w+)\]\)", rule["expr"])[0]
    labels = known_series()[selectors(series)[0].series]

    assert not labels or rule["expr"].endswith(f"> 0 or ({series} unless {series} offset {window}) > 0")


def test_prometheus_scrapes_the_operators_port_and_reads_the_alerts() -> None:
    """By the names of the compose file."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]

    assert config["rule_files"] == ["alerts.yml"]
    assert job["static_configs"] == [{"targets": [f"impact-plugin:{Settings().server.operator_port}"]}]
