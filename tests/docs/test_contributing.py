"""What contributors are given: places that exist, hooks and forms that can be read, and nothing that is fetched."""

import re
from pathlib import Path
from typing import Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
PLACES: Final = (ROOT, ROOT / "plugin" / "impact_plugin", ROOT / "transformers" / "impact_transformers")
"""Where a path on the pages may begin."""

IS_PATH: Final = re.compile(r"[\w.*<>/-]+(?:/|\.(?:py|toml|json|yml|md|lock))?")
FORMS: Final = sorted((ROOT / ".github").rglob("*.yml"))


def paths_of(page: Path) -> list[str]:
    """The code spans that are files or folders."""
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page.read_text(encoding="utf-8"))
    return [one for one in spans if IS_PATH.fullmatch(one) and ("/" in one or re.search(r"\.(py|toml|json|yml)$", one))]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_file_that_is_named_exists(page: str) -> None:
    """A table of where to add something is worth nothing when it names the places of last year."""
    found = paths_of(ROOT / page)
    # A name in angle brackets stands for any.
    patterns = {one: re.sub(r"<\w+>", "*", one).rstrip("/") for one in found}
    missing = [one for one, pattern in patterns.items() if not any(any(place.glob(pattern)) for place in PLACES)]

    assert found
    assert [] == missing


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", ".github/pull_request_template.md"])
def test_every_target_that_is_named_exists(page: str) -> None:
    """In a code span or a block of commands."""
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)make ([a-z]+)\b", text, re.MULTILINE))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

    assert set() == named - targets


def test_the_hooks_use_the_environment_of_the_project() -> None:
    """Local hooks only, whose programs ``make`` has installed."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))

    assert ["local"] == [one["repo"] for one in hooks["repos"]]
    for hook in hooks["repos"][0]["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")


def test_the_hooks_are_a_part_of_the_check() -> None:
    """What a hook runs, ``make check`` runs too: a commit that passes there passes here."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    check = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\ncheck:")[2].partition("\n\n")[0]
    programs = {hook["entry"].removeprefix(".venv/bin/").replace(" --force-exclude", "") for hook in hooks}

    assert [] == sorted(program for program in programs if f"$(BIN)/{program}" not in check)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_a_form_can_be_read(form: Path) -> None:
    """Every field has an id of its own and a label."""
    fields = [one for one in yaml.safe_load(form.read_text(encoding="utf-8")).get("body", []) if "id" in one]

    assert len({one["id"] for one in fields}) == len(fields)
    assert all(one["attributes"]["label"] for one in fields)
