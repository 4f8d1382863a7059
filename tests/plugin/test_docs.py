"""The documentation says what the code does: generated pages are current, and what they rest on is complete."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cyclopts import App

from impact_plugin.__main__ import app
from impact_plugin.config.fields import fields_of
from impact_plugin.config.manifest import load_manifest
from impact_plugin.config.settings import SETTINGS, Settings
from impact_plugin.config.sources import Signature, Source
from impact_plugin.delivery.policy import CAUSES, Cause
from impact_plugin.http.routes import ROUTES
from impact_plugin.ingest.intake import SWITCHED_OFF
from impact_plugin.protocols.refusals import REFUSALS, RefusalReason
from impact_plugin.spool.reasons import DEAD_LETTER_REASONS, DeadLetterReason
from impact_plugin.telemetry import METRICS, TELEMETRY_EVENTS
from impact_transformers import NOTICES, REASONS, NoticeReason, Reason
from impact_transformers.fields import CONVERSION, ITEM, PAGE_LOAD
from impact_transformers.sources import NAMED

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def commands(command: App, *before: str) -> Iterator[tuple[tuple[str, ...], App]]:
    """Every command and its own, with the words that call it."""
    for name in command:
        if not name.startswith("-"):
            yield (*before, name), command[name]
            yield from commands(command[name], *before, name)


def test_every_setting_is_described() -> None:
    """A setting without a sentence in its annotation fails here: nobody could set it."""
    fields = {
        f"{section.name}.{field.name}"
        for section in msgspec.structs.fields(Settings)
        for field in msgspec.structs.fields(section.type)
    }

    assert fields == set(SETTINGS)
    assert [] == [name for name, field in SETTINGS.items() if not field.setting.description.endswith(".")]


def test_every_key_of_a_source_is_described() -> None:
    """But a source's name, which is its table's."""
    for kind in (Source, Signature):
        assert {field.name for field in msgspec.structs.fields(kind)} - {"name"} == set(fields_of(kind))


def test_every_reason_notice_and_cause_is_explained() -> None:
    """The closed lists are closed: nothing is counted that is not explained."""
    assert set(Reason) == set(REASONS)
    assert set(NoticeReason) == set(NOTICES)
    assert set(Cause) == set(CAUSES)
    assert set(DeadLetterReason) == set(DEAD_LETTER_REASONS)
    assert set(RefusalReason) == set(REFUSALS)


def entries(page: str) -> set[str]:
    """What a page of the reference has an entry for: a heading, a row of a table, a point of a list, each with text."""
    text = (REFERENCE / page).read_text(encoding="utf-8")
    headings = re.findall(r"^#{1,3} `?([^`\n]+?)`?\n\n(?=[^#\s])", text, re.MULTILINE)
    rows = re.findall(r"^\| `([^`]+)`(?:<br>`[^`]+`)?(?: \|[^|\n]*)+\| [^|\s][^|\n]* \|$", text, re.MULTILINE)
    points = re.findall(r"^- `([^`]+)`: \S", text, re.MULTILINE)
    return {*headings, *rows, *points}


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("reasons.md", [*Reason, *NoticeReason, *Cause, *DeadLetterReason, *RefusalReason, SWITCHED_OFF]),
        ("sources.md", [field.name for kind in (Source, Signature) for field in msgspec.structs.fields(kind)][1:]),
        ("settings.md", [f"[{section}] {name}" for section, _, name in (key.partition(".") for key in SETTINGS)]),
        ("telemetry.md", [facts.name + "_total" * (facts.kind == "counter") for facts in METRICS]),
        ("telemetry.md", [event.__name__ for event in TELEMETRY_EVENTS]),
        ("configuration.md", [key.key for key in load_manifest().configuration]),
        ("parameters.md", [row.param for table in (PAGE_LOAD, CONVERSION, ITEM) for row in table.rows]),
        ("parameters.md", [f"@{name}" for name in NAMED]),
        ("http.md", [f"{one.method} {one.path}" for routes in ROUTES.values() for one in routes]),
        ("commands.md", [" ".join(("impact-plugin", *words)) for words, _ in commands(app)]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_reference_has_an_entry_for_everything(page: str, names: list[str]) -> None:
    """Whatever an operator can meet: a name in passing is not enough."""
    assert names
    assert [] == sorted(set(names) - entries(page))


CALLED = [(words, command) for words, command in commands(app) if command.default_command is not None]


@pytest.mark.parametrize(("words", "command"), CALLED, ids=["_".join(words) for words, _ in CALLED])
def test_every_option_of_a_command_is_told(words: tuple[str, ...], command: App) -> None:
    """With a sentence of its own, in the section of its command."""
    text = (REFERENCE / "commands.md").read_text(encoding="utf-8")
    _, _, section = text.partition(f"\n## impact-plugin {' '.join(words)}\n")
    section = section.partition("\n## ")[0]
    for argument in command.assemble_argument_collection(parse_docstring=True):
        if argument.show:
            names = "|".join(map(re.escape, argument.names))
            assert re.search(rf"^│.* ({names}) ", section, re.MULTILINE), argument.names
            assert argument.parameter.help, argument.names


def test_a_name_in_passing_is_no_entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The tests above see a heading without a text, a row without a description, and a name in a sentence."""
    page = "# one\n\nSays `two`.\n\n## three\n\n## four\n\n| `five` | 1 |  |\n| `six` | 1 | Yes. |\n- `seven`: \n"
    (tmp_path / "page.md").write_text(page, encoding="utf-8")
    monkeypatch.setattr(sys.modules[__name__], "REFERENCE", tmp_path)

    assert entries("page.md") == {"one", "four", "six"}


def links() -> Iterator[tuple[str, str]]:
    """Every relative link of the pages, with the page it stands on."""
    for page in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            yield page.name, str((page.parent / target).relative_to(ROOT))


@pytest.mark.parametrize(("page", "target"), list(links()))
def test_links_lead_somewhere(page: str, target: str) -> None:
    """A link to a page that is not there helps nobody."""
    assert (ROOT / target).exists(), page
