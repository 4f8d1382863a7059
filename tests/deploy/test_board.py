"""The Grafana board: it asks for what there is, and every panel says what it shows."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.test_deploy import check_query
from tests.queried import grouped, selectors

DEPLOY = Path(__file__).parents[2] / "deploy"
BOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "impact-plugin.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_for_what_there_is(panel: dict[str, Any]) -> None:
    """Names and labels exist, its legend tells its lines apart, and it says what it shows."""
    for target in panel["targets"]:
        check_query(target["expr"])
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) == grouped(target["expr"]) - {"le"}
        assert target["expr"].count('instance=~"$instance"') == len(selectors(target["expr"]))
    assert panel["description"]


def test_panels_do_not_cover_each_other() -> None:
    """Every one has its own place on the grid of 24 columns."""
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def test_the_data_source_and_the_instances_can_be_chosen() -> None:
    """No address of anybody's is built in."""
    variables = {variable["name"]: variable for variable in BOARD["templating"]["list"]}

    assert set(variables) == {"datasource", "instance"}
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${datasource}"}
    assert "impact_plugin_build_info" in variables["instance"]["query"]["query"]


def test_grafana_is_provisioned_with_it() -> None:
    """Its files point to the containers and paths of the compose file."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    folder = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text(encoding="utf-8"))["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "impact-plugin.yml").read_text(encoding="utf-8"))["providers"]
    mounts = dict(volume.removesuffix(":ro").split(":") for volume in compose["grafana"]["volumes"])

    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in compose
    assert mounts["./grafana/impact-plugin.json"].startswith(provider["options"]["path"])
    assert all((DEPLOY / mount).exists() for mount in mounts)
