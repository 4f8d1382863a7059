"""The mistakes of ``make mutants``: which are made, what they are called, and which are known to survive."""

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from mutants import KNOWN, read_known
from mutations import Mutant, all_mutants, code_mutants, row_mutants

ROOT = Path(__file__).parents[2]
ROWS = """source = "https://example.com/"

[[parameter]]
param = "OrderId"
from = ["properties.order_id", "properties.id"]
as = "order_id"
max = 64
why = "The order."

[[parameter]]
param = "Note"
from = ["@note"]
as = "text"
required = true
why = "A note."
"""


def changes(source: str) -> list[str]:
    """What is changed in a module."""
    return [one.what for one in code_mutants("module.py", source)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("return a < b", ["return a < b -> return None", "a < b -> a <= b"]),
        ("return a is None", ["return a is None -> return None", "a is None -> a is not None"]),
        ("return a and b", ["return a and b -> return None", "a and b -> a or b"]),
        ("return not a", ["return not a -> return None", "not a -> a"]),
        ("return -a", ["return -a -> return None", "-a -> a"]),
        ("return a + 1", ["return a + 1 -> return None", "a + 1 -> a - 1", "1 -> 2"]),
        ("return a if b else c", ["return a if b else c -> return None", "a if b else c -> a", "a if b else c -> c"]),
        ("a += b", ["a += b -> a -= b"]),
        ("a = True", ["True -> False"]),
        ("a = 'b'", ["'b' -> 'bXX'"]),
        ("f(a)", ["f(a) -> pass"]),
        ("a = max(b, c)", ["max(b, c) -> min(b, c)"]),
        ("a = [b for b in c if d]", ["for b in c if d -> for b in c"]),
        ("if a:\n  b = c", ["if a -> if not a"]),
        ("while a < b:\n  break", ["a < b -> a <= b", "break -> continue"]),
    ],
)
def test_what_is_changed_in_a_function(source: str, expected: list[str]) -> None:
    """One place at a time."""
    body = "\n".join(f"    {line}" for line in source.splitlines())

    assert expected == changes(f"def f(a, b, c, d):\n{body}\n")


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    '''Text.'''\n    return None",
        "def f(a: int) -> int:\n    raise ValueError('a text for people')",
        "A: TypeAlias = Literal['a', 'b']",
        "class A(Struct, frozen=True):\n    '''Text.'''",
    ],
)
def test_what_is_left_alone(source: str) -> None:
    """Texts for people, annotations, types, and the options of classes."""
    assert [] == changes(source)


def test_a_table_loses_its_entries_one_by_one() -> None:
    """And its values change."""
    assert ["'a' -> (nothing)", "2 -> (nothing)", "'a' -> 'aXX'", "2 -> 3"] == changes("TABLE: Final = ('a', 2)")
    assert ["'a' -> (nothing)", "'a' -> 'aXX'", "1 -> 2"] == changes("TABLE = {'a': 1}")


def run(mutant: Mutant) -> dict[str, object]:
    """What a module defines with a mistake in it."""
    made: dict[str, object] = {}
    exec(mutant.code(), made)  # noqa: S102 - two lines of this test
    return made


def test_the_mistake_is_in_the_code_and_in_no_other() -> None:
    """Each mutant is compiled from the module as it was, less one thing."""
    mutants = code_mutants("module.py", "A = 1\nB = 2\n")

    assert [(2, 2), (1, 3)] == [(run(one)["A"], run(one)["B"]) for one in mutants]
    assert [(2, 2), (1, 3)] == [(run(one)["A"], run(one)["B"]) for one in mutants]


def test_a_mutant_keeps_its_id_when_the_rest_of_the_file_changes() -> None:
    """So a run goes on after an edit, and tries what was edited only; the second of its kind is another one."""
    before = code_mutants("module.py", "def f(a):\n    return a + 1\n")
    after = code_mutants("module.py", "B = 3\n\n\ndef f(a):\n    return a + 1\n")
    twice = code_mutants("module.py", "def f(a):\n    return (a + 1) * (a + 1)\n")

    assert {one.id for one in before} < {one.id for one in after}
    assert len(twice) == len({one.id for one in twice})


def test_what_is_changed_in_a_row() -> None:
    """Dropped, shorter and exchanged paths, another rule, limits one up and down."""
    mutants = row_mutants("mappings/table.toml", ROWS)

    assert [
        "the row -> (nothing)",
        "properties.order_id -> (nothing)",
        "properties.order_id -> properties",
        "properties.id -> (nothing)",
        "properties.id -> properties",
        "properties.order_id, properties.id -> properties.id, properties.order_id",
        "as order_id -> text",
        "max 64 -> 63",
        "max 64 -> 65",
    ] == [one.what for one in mutants if one.place == "OrderId"]
    assert ["the row -> (nothing)", "@note -> (nothing)", "as text -> identifier", "required true -> (nothing)"] == [
        one.what for one in mutants if one.place == "Note"
    ]
    assert 'from = ["properties.id", "properties.order_id"]\nas = "order_id"\nmax = 64' in mutants[5].text
    assert "OrderId" not in mutants[0].text
    assert "Note" in mutants[0].text


def test_the_mistakes_of_the_core_can_be_made() -> None:
    """A few of each kind compile; there are thousands, each with an id of its own."""
    mutants = all_mutants()

    assert len(mutants) > 3000
    assert len(mutants) == len({one.id for one in mutants})
    for one in Random(1).sample(  # noqa: S311 - a choice, no secret
        [one for one in mutants if one.kind != "row"], 100
    ):
        one.code()


def test_the_known_survivors_are_mutants_of_today() -> None:
    """An entry whose code is gone is gone, too; each has a reason."""
    today = {(one.file, one.place, one.what) for one in all_mutants()}
    known = read_known(KNOWN)

    assert [] == sorted(known.keys() - today)
    assert [] == [key for key, one in known.items() if len(one.why.split()) < 4]


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_a_sample_of_the_mistakes_is_noticed(tmp_path: Path) -> None:
    """A hundred of them; ``make mutants`` makes all."""
    command = [
        sys.executable,
        str(ROOT / "tools" / "mutants.py"),
        "--sample",
        "100",
        "--state",
        str(tmp_path / "state"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
