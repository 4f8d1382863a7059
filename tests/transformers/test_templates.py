"""Constants and templates in mappings."""

import pytest

from impact_transformers.paths import event_access, path_problem, template_access
from impact_transformers.templates import Placeholder, constant_of, is_template, pieces_of


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("'EU'", "EU"),
        ('"EU"', "EU"),
        (" 'a b' ", "a b"),
        ("''", ""),
        ("'EU", None),
        ("'EU\"", None),
        ("properties.region", None),
        ("'{{ properties.region }}'", None),
    ],
)
def test_constant_of(source: str, expected: str | None) -> None:
    """Text in quotes of one kind is a constant."""
    assert expected == constant_of(source)


def test_pieces() -> None:
    """Texts and places in order, with the default of each place."""
    source = "a {{ properties.x }}b{{event.traits.y || 'z'}}"

    assert is_template(source)
    assert ["a ", Placeholder("properties.x"), "b", Placeholder("traits.y", "z")] == [*pieces_of(source)]
    assert [Placeholder("x"), " end"] == [*pieces_of("{{ message.x }} end")]


@pytest.mark.parametrize(
    ("source", "fine"),
    [
        ("properties.x", True),
        ("@click_id", True),
        ("'any [thing'", True),
        ("{{ properties.x }} and {{ traits.y }}", True),
        ("{{ properties..x[ }}", False),
        ("properties.[", False),
    ],
)
def test_path_problem(source: str, fine: bool) -> None:
    """The paths in a template are looked at as others are."""
    assert fine == (path_problem(source) is None)


def test_a_template_of_the_whole_event() -> None:
    """One place that needs the event as it came makes the whole template need it."""
    assert template_access("{{ context.campaign.name }}", event_access).wide
    assert not template_access("{{ properties.x }}", event_access).wide
