"""Where consent stands in an event, as an answer or in a list of ids."""

from typing import Any

import pytest

from impact_transformers.consent import ConsentPath, listed_consent, parse_consent_path


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("context.consent.ads", ConsentPath("context.consent.ads")),
        ("context.allowed=C0004", ConsentPath("context.allowed", "C0004")),
        ("context.denied != C0004 ", ConsentPath("context.denied", "C0004", denies=True)),
        ("context.allowed = Marketing Partners", ConsentPath("context.allowed", "Marketing Partners")),
        ("context.allowed=", ConsentPath("context.allowed=")),
    ],
)
def test_an_entry(entry: str, expected: ConsentPath) -> None:
    """A path, or a path with the id that counts."""
    assert expected == parse_consent_path(entry)


@pytest.mark.parametrize(
    ("value", "granted", "denied"),
    [
        (["C0003", "C0004"], True, False),
        (["C0003"], False, True),
        ([], False, True),
        ([4, None, " C0004 "], True, False),
        (",C0001,C0004,", True, False),
        ("", False, True),
        (None, None, None),
        ({"C0004": True}, None, None),
        (True, None, None),
    ],
)
def test_a_list(value: Any, granted: bool | None, denied: bool | None) -> None:
    """Named in a list of granted ids is consent, in one of denied ids is none; no list tells nothing."""
    assert granted == listed_consent(value, "C0004", denies=False)
    assert denied == listed_consent(value, "C0004", denies=True)
