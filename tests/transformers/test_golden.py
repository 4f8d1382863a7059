"""Whole events through the whole core: one folder of ``tests/golden`` a case, written by hand from the vendors' pages.

Imports the two installed packages and nothing else, so the same file proves a built wheel.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from impact_plugin.config.manifest import load_manifest
from impact_transformers import (
    NO_VISIT,
    REASONS,
    AnyDestination,
    ConfigurationError,
    Explanation,
    Outcome,
    Reason,
    Reject,
    Send,
    UndecodableEventError,
    Visit,
    compile_destination,
    decode_event,
    decode_object,
    explain,
    fields,
    prepare,
    transform,
)

GOLDEN: Final = Path(__file__).resolve().parents[1] / "golden"
CASES: Final = sorted(folder.name for folder in GOLDEN.iterdir() if folder.is_dir())
VARIABLES: Final = {"IMPACT_VAR_CAMPAIGN": "4242", "IMPACT_VAR_TOKEN": "token-from-the-environment"}
ELSEWHERE: Final = {Reason.TRANSFORM_FAULT}
"""Reasons that the service around the core gives, tested with it."""

TABLES: Final = {"page_load": fields.PAGE_LOAD, "conversion": fields.CONVERSION, "item": fields.ITEM}


class Case(msgspec.Struct, frozen=True):
    """One golden folder, read."""

    name: str
    event: bytes
    config: dict[str, Any]
    expected: dict[str, Any]
    visit: Visit = NO_VISIT


@cache
def read_case(name: str) -> Case:
    """Read the files of a case; ``visit.json`` is there where the sessions know something."""
    folder = GOLDEN / name
    visit = folder / "visit.json"
    return Case(
        name,
        (folder / "event.json").read_bytes(),
        json.loads((folder / "config.json").read_text(encoding="utf-8")),
        json.loads((folder / "expected.json").read_text(encoding="utf-8")),
        msgspec.json.decode(visit.read_bytes(), type=Visit) if visit.exists() else NO_VISIT,
    )


def destination_of(case: Case) -> AnyDestination:
    """Compile the destination of a case as the service does."""
    return compile_destination(case.config, load_manifest().configuration, VARIABLES)


def outcome_of(case: Case) -> Outcome:
    """Do with a case what the service does with an event."""
    try:
        destination = destination_of(case)
    except ConfigurationError as error:
        return Reject(Reason.CONFIGURATION, str(error))
    try:
        event = decode_event(case.event)
    except UndecodableEventError as error:
        return Reject(Reason.UNDECODABLE_EVENT, str(error))
    message = decode_object(case.event) if destination.reads_message else None
    return transform(event, destination, message, case.visit)


def as_expected(outcome: Outcome, expected: dict[str, Any]) -> dict[str, Any]:
    """Write an outcome in the form of ``expected.json``; notices and the question where the case names them."""
    if isinstance(outcome, Send):
        found = {"outcome": "send", "endpoint_path": outcome.request.endpoint_path, "form": dict(outcome.request.form)}
        return found | ({"notices": [notice.reason for notice in outcome.notices]} if "notices" in expected else {})
    return {"outcome": type(outcome).__name__.lower(), "reason": outcome.reason.value}


def expectation(case: Case) -> dict[str, Any]:
    """What a case expects of the outcome; the question is another matter, and ``why`` is for the reader."""
    return {key: value for key, value in case.expected.items() if key not in ("question", "why")}


@cache
def explanations() -> dict[str, Explanation]:
    """Explain every case that gets as far as the tables."""
    found = {}
    for name in CASES:
        case = read_case(name)
        try:
            message = decode_object(case.event)
            found[name] = explain(decode_event(case.event), destination_of(case), message, case.visit)
        except (ConfigurationError, UndecodableEventError):
            continue
    return found


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    """The event of the case becomes exactly the request, or the refusal, that the case expects."""
    case = read_case(name)

    assert expectation(case) == as_expected(outcome_of(case), case.expected)


@pytest.mark.parametrize("name", [name for name in CASES if "question" in read_case(name).expected])
def test_golden_question(name: str) -> None:
    """The event asks the sessions exactly what the case expects; fields that the case leaves out are not looked at."""
    case = read_case(name)
    expected = case.expected["question"]
    question = prepare(decode_event(case.event), destination_of(case), decode_object(case.event)).question
    found = None if question is None else {key: getattr(question, key) for key in expected or ()}

    assert expected == found


@pytest.mark.parametrize("name", CASES)
def test_golden_values_are_text(name: str) -> None:
    """No parameter is a JSON number: rudder-server prints those as floats, 1000000 as 1e+06."""
    form = read_case(name).expected.get("form", {})

    assert [] == [key for key, value in form.items() if not isinstance(value, str) or not value]


@pytest.mark.parametrize("name", CASES)
def test_golden_explanation_agrees(name: str) -> None:
    """``explain`` reports the very outcome, and each parameter sent is one of its steps with the value sent."""
    found = explanations().get(name)
    if found is None:
        assert read_case(name).expected["reason"] in (Reason.CONFIGURATION, Reason.UNDECODABLE_EVENT)
        return
    shown = {step.parameter: step.value for step in found.steps if step.value is not None}

    assert expectation(read_case(name)) == as_expected(found.outcome, read_case(name).expected)
    if isinstance(found.outcome, Send):
        assert dict(found.outcome.request.form) == shown


def test_every_row_is_filled_somewhere() -> None:
    """Each parameter of the tables is sent in at least one golden case, also those without paths of their own."""
    sent = {
        (kind, name.rstrip("0123456789") if name.startswith("Item") else name)
        for case in map(read_case, CASES)
        for kind in [case.expected.get("endpoint_path")]
        for name in case.expected.get("form", {})
    }
    endpoint = {"page_load": "pageload", "conversion": "conversions", "item": "conversions"}
    listed = {(endpoint[name], row.param) for name, table in TABLES.items() for row in table.rows}

    assert [] == sorted(listed - sent)


def test_every_reason_has_a_case() -> None:
    """Each reason for a skip or a reject is the outcome of at least one golden case."""
    met = {read_case(name).expected.get("reason") for name in CASES}

    assert [] == sorted(reason for reason in Reason if reason not in ELSEWHERE and reason.value not in met)


def test_every_reason_is_explained() -> None:
    """Each reason has its meaning and a fix for the docs."""
    assert set(Reason) == set(REASONS)
    assert [] == [reason for reason, facts in REASONS.items() if not facts.meaning or not facts.fix]


def test_every_switch_is_flipped() -> None:
    """Each key of the manifest, each alias and each of a key's values is used otherwise than by default."""
    configs = [read_case(name).config for name in CASES]
    missing = []
    for key in load_manifest().configuration:
        given = [config[name] for config in configs for name in (key.key, *key.aliases) if name in config]
        usual = key.default if isinstance(key.default, list) else [key.default]
        used = [one for value in given for one in (value if isinstance(value, list) else [value])]
        missing += [f"{name} is in no case" for name in key.aliases if not any(name in config for config in configs)]
        missing += [f"{key.key} is never {v}" for v in key.values if v not in usual and v not in used]
        if len({json.dumps(value) for value in (*given, key.default)}) < 2 or (key.required and len(given) < 2):
            missing.append(f"{key.key} is never flipped")

    assert [] == missing


def test_every_case_has_its_three_files_and_no_others() -> None:
    """A golden folder is event, config and expectation, and the visit where it matters; nothing else."""
    files = {"config.json", "event.json", "expected.json"}
    found = {name: {file.name for file in (GOLDEN / name).iterdir()} - {"visit.json"} for name in CASES}

    assert [] == [name for name in CASES if files != found[name]]
