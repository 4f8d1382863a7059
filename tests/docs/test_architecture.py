"""The page on the architecture tells the tree as it is."""

import re
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "plugin" / "impact_plugin"


def listed() -> list[str]:
    """The rooms of the page, in its order: folders with a slash, and the flat modules."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = text.partition("```text\nimpact_plugin/\n")[2].partition("```")[0]
    return re.findall(r"^  (\S+)", tree, re.MULTILINE)


def test_the_page_lists_every_room() -> None:
    """And no other."""
    modules = {path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    rooms = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}

    assert sorted(modules | rooms) == sorted(listed())


def test_each_room_stands_on_those_below_it() -> None:
    """In the order of the import contract."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (contract,) = (one for one in contracts if one.get("containers") == ["impact_plugin"])
    floors = {name: floor for floor, layer in enumerate(contract["layers"]) for name in layer.split(" | ")}
    order = [floors[room.removesuffix("/")] for room in listed()]

    assert contract["exhaustive"]
    assert sorted(order) == order
