"""How Go prints values."""

from typing import Any

import pytest

from impact_plugin.rudder.go import go_sprint


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (1000000, "1e+06"),
        (1234567.89, "1.23456789e+06"),
        (9217374917471, "9.217374917471e+12"),
        ({"a": 1}, "map[a:1]"),
        (None, "<nil>"),
        (332, "332"),
        (-12.5, "-12.5"),
        (999999, "999999"),
        (0, "0"),
        (100000.0, "100000"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (-2e21, "-2e+21"),
        (True, "true"),
        (False, "false"),
        (["a", 1, None, True], "[a 1 <nil> true]"),
        ({"b": 1, "a": {"c": "x"}}, "map[a:map[c:x] b:1]"),
        ("1e6", "1e6"),
    ],
)
def test_values_are_printed_as_go_prints_them(value: Any, printed: str) -> None:
    """Numbers from a million up turn to exponents, objects to maps and null to nil, as Go itself was seen to do."""
    assert printed == go_sprint(value)
