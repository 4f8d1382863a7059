"""The documentation says what the code does: generated pages are current, and what they rest on is complete."""

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from impact_plugin.dead_letters import BURIALS, Burial
from impact_plugin.delivery.policy import CAUSES, Cause
from impact_plugin.settings import DESCRIPTIONS, Settings
from impact_plugin.sources import SIGNATURE_KEYS, SOURCE_KEYS, Signature, Source
from impact_plugin.telemetry import METRICS, TELEMETRY_EVENTS
from impact_transformers import NOTICES, REASONS, Notice, Reason

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def test_every_setting_is_described() -> None:
    """A setting without a sentence fails here, as does a sentence without a setting."""
    fields = {
        f"{section.name}.{field.name}"
        for section in msgspec.structs.fields(Settings)
        for field in msgspec.structs.fields(section.type)
    }

    assert fields == set(DESCRIPTIONS)


def test_every_key_of_a_source_is_described() -> None:
    """And nothing is described that is no key; a source's name is its table's."""
    described = {Source: SOURCE_KEYS, Signature: SIGNATURE_KEYS}
    for kind, keys in described.items():
        fields = {field.name for field in msgspec.structs.fields(kind)} - {"name"}

        assert fields == set(keys)


def test_every_reason_notice_and_cause_is_explained() -> None:
    """The closed lists are closed: nothing is counted that is not explained."""
    assert set(Reason) == set(REASONS)
    assert set(Notice) == set(NOTICES)
    assert set(Cause) == set(CAUSES)
    assert set(Burial) == set(BURIALS)


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("reasons.md", [*Reason, *Notice, *Cause]),
        ("reasons.md", [*Burial]),
        ("sources.md", [field.name for kind in (Source, Signature) for field in msgspec.structs.fields(kind)][1:]),
        ("settings.md", [key.partition(".")[2] for key in DESCRIPTIONS]),
        ("telemetry.md", [facts.name for facts in METRICS]),
        ("telemetry.md", [event.__name__ for event in TELEMETRY_EVENTS]),
    ],
)
def test_the_reference_names_everything(page: str, names: list[str]) -> None:
    """Whatever an operator can meet has an entry in the reference."""
    text = (REFERENCE / page).read_text(encoding="utf-8")

    assert [] == [name for name in names if name not in text]


def links() -> Iterator[tuple[str, str]]:
    """Every relative link of the pages, with the page it stands on."""
    for page in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            yield page.name, str((page.parent / target).relative_to(ROOT))


@pytest.mark.parametrize(("page", "target"), list(links()))
def test_links_lead_somewhere(page: str, target: str) -> None:
    """A link to a page that is not there helps nobody."""
    assert (ROOT / target).exists(), page
