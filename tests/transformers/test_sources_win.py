"""Every path of every mapping table is proved by a golden case or by an order of the table."""

from typing import Final

from impact_transformers import Send, fields
from tests.transformers.test_golden import TABLES, explanations, read_case
from tests.transformers.test_orders import ROWS, explained

READ: Final = {"order": fields.ORDER, "line": fields.LINE}
"""Tables of what is read of an order; what is sent of it follows from all of it."""


def winning_sources() -> set[tuple[str, str, str]]:
    """List (table, parameter, path) for each path that gave a golden case its value."""
    won = set()
    cases = [(found, read_case(name).config.get("consentPaths", [])) for name, found in explanations().items()]
    cases += [(explained(key), []) for key in ROWS]
    for found, consent_paths in cases:
        if not isinstance(found.outcome, Send):
            continue
        conversion = found.outcome.request.endpoint_path == "conversions"
        for step in found.steps:
            if step.path is None:
                continue
            item = step.parameter.startswith("Item")
            parameter = step.parameter.rstrip("0123456789") if item else step.parameter
            usual = "conversion" if conversion else "page_load"
            table = next(
                (name for name, table in READ.items() if parameter in table.names()), "item" if item else usual
            )
            if step.value is not None or table in READ:
                won.add((table, parameter, "destination.consentPaths" if step.path in consent_paths else step.path))
    return won


def test_every_source_of_every_row_wins_somewhere() -> None:
    """Each path of each mapping row is the one that gives the value in at least one golden case."""
    tables = {**TABLES, **READ}
    listed = {(name, row.param, path) for name, table in tables.items() for row in table.rows for path in row.sources}

    assert [] == sorted(listed - winning_sources())
