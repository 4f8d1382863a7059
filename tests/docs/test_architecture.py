"""The page on the architecture tells the tree as it is."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "architecture.md"
PACKAGE: Final = ROOT / "plugin" / "impact_plugin"


def test_the_page_lists_every_room() -> None:
    """Folders with a slash, and the flat modules."""
    tree = PAGE.read_text(encoding="utf-8").partition("```text\nimpact_plugin/\n")[2].partition("```")[0]
    listed = re.findall(r"^  (\S+)", tree, re.MULTILINE)
    modules = {path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    rooms = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}

    assert sorted(modules | rooms) == sorted(listed)
