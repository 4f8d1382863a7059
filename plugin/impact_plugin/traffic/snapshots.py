"""An interrupted replay, written down so that it can continue where it stopped."""

from collections import Counter
from pathlib import Path
from typing import Any, Final

import msgspec

from impact_plugin.files import write_whole
from impact_plugin.sessions.ageing import GenerationClock
from impact_plugin.traffic.comparison import Comparison, OutcomeChange
from impact_plugin.traffic.orders import OrderTally
from impact_plugin.traffic.reading import ReadingError
from impact_plugin.traffic.replay import ReplayRun, Sums
from impact_transformers.events import UNREADABLE

VERSION: Final = 6
_COUNTERS: Final = ("outcomes", "notices", "decisions", "orders", "hours")

Entries = list[tuple[int, list[tuple[bytes, bytes]]]]
"""By generation, earliest first."""


class RunState(msgspec.Struct, frozen=True):
    """The sums of one run, counters as lists of their items, its orders and its sessions."""

    sums: dict[str, Any]
    orders: OrderTally
    claims: Entries
    answers: Entries
    identities: Entries
    decision_clock: GenerationClock
    click_clock: GenerationClock


class Snapshot(msgspec.Struct, frozen=True):
    """The state of a replay: its files (by their fingerprints), its progress in events, and its runs."""

    version: int
    files: list[tuple[str, int, str]]
    events: int
    runs: list[RunState]
    changes: list[OutcomeChange]
    compared: int
    changed: int


def save(
    target: Path, files: list[tuple[str, int, str]], events: int, runs: list[ReplayRun], comparison: Comparison | None
) -> None:
    """Write the snapshot, whole or not at all; raises :class:`ReadingError`."""
    snapshot = Snapshot(
        VERSION,
        files,
        events,
        [_state_of(run) for run in runs],
        [] if comparison is None else list(comparison.changes.values()),
        0 if comparison is None else comparison.compared,
        0 if comparison is None else comparison.changed,
    )
    try:
        write_whole(target, msgspec.msgpack.encode(snapshot))
    except OSError as error:
        raise ReadingError(f"{target}: cannot be written: {error.strerror}") from error


def load(source: Path, files: list[tuple[str, int, str]], runs: list[ReplayRun], comparison: Comparison | None) -> int:
    """Restore the runs; returns how many events were done. Raises :class:`ReadingError`."""
    try:
        snapshot = msgspec.msgpack.decode(source.read_bytes(), type=Snapshot)
    except (OSError, *UNREADABLE) as error:
        raise ReadingError(f"{source}: cannot be read as an interrupted replay: {error}") from error
    if snapshot.version != VERSION or snapshot.files != files or len(snapshot.runs) != len(runs):
        raise ReadingError(
            f"{source}: belongs to a replay of other files or with other options; delete it to start from the beginning"
        )
    for run, state in zip(runs, snapshot.runs, strict=True):
        _restore(run, state)
    if comparison is not None:
        comparison.compared, comparison.changed = snapshot.compared, snapshot.changed
        comparison.changes = {(one.before, one.after, one.parameters): one for one in snapshot.changes}
    return snapshot.events


def _state_of(run: ReplayRun) -> RunState:
    engine, ageing = run.sessions.engine, run.sessions.ageing
    sums = {field: getattr(run.sums, field) for field in Sums.__struct_fields__ if field != "tally"}
    plain = {name: list(value.items()) if name in _COUNTERS else value for name, value in sums.items()}
    claims, answers, identities = (
        list(table.generations()) for table in (engine.claims, engine.answers, engine.identities)
    )
    return RunState(plain, run.sums.tally, claims, answers, identities, ageing.decision_clock, ageing.click_clock)


def _restore(run: ReplayRun, state: RunState) -> None:
    for name, value in state.sums.items():
        restored = Counter({_key(key): count for key, count in value}) if name in _COUNTERS else value
        setattr(run.sums, name, restored)
    run.sums.tally = state.orders
    engine = run.sessions.engine
    for table, entries in (
        (engine.claims, state.claims),
        (engine.answers, state.answers),
        (engine.identities, state.identities),
    ):
        for generation, some in entries:
            table.load(generation, some)
    run.sessions.ageing.decision_clock = state.decision_clock
    run.sessions.ageing.click_clock = state.click_clock


def _key(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key
