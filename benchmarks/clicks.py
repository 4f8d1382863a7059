"""The memory of clicks and of kept answers: bytes and look-ups. Each function is called in a process of its own."""

from typing import Literal

import msgspec

from benchmarks import queries
from benchmarks.claims import SAMPLED_BATCHES, Stopwatch
from benchmarks.fresh import resident_bytes
from impact_plugin.store.base import CALL_SIZE
from impact_plugin.store.engine import LATE_CLICK_ORDERS, Engine


class Kept(msgspec.Struct, frozen=True):
    """What entries of one kind take; a look-up finds the click id and keeps the answer, a replay finds the answer."""

    kind: str
    entries: int
    bytes_per_entry: float
    write_ns: float
    turn_ms: float
    look_up_ns: float | None = None
    replay_ns: float | None = None


def measure_clicks(identities: int, clicks_each: int) -> Kept:
    """Identities with so many clicks each, then the orders of some."""
    engine = Engine(queries.ROOMY, int(queries.RETENTION_SECONDS * 1000))
    before, batches, writing = resident_bytes(), identities // CALL_SIZE, Stopwatch()
    for batch in range(batches):
        for number in range(clicks_each):
            writing.decide(engine, queries.clicks(batch, number))
    held, grown = len(engine.identities), resident_bytes() - before
    sample = list(queries.sampled(batches, min(SAMPLED_BATCHES, batches)))
    looking, replaying = Stopwatch(), Stopwatch()
    for watch in (looking, replaying):
        for batch in sample:
            watch.decide(engine, queries.orders(batch))
    name = "click" if clicks_each == 1 else "clicks"
    return Kept(
        f"identity with {clicks_each} {name}",
        held,
        grown / held,
        writing.ns,
        writing.longest_ms,
        looking.ns,
        replaying.ns,
    )


def measure_answers(count: int, *, with_click_id: bool) -> Kept:
    """Kept answers of orders of visitors who clicked, or of strangers."""
    engine = Engine(queries.ROOMY, int(queries.RETENTION_SECONDS * 1000))
    batches = count // CALL_SIZE
    visitors: Literal["visitor", "stranger"] = "visitor" if with_click_id else "stranger"
    # What else grows with orders is full before memory is looked at: clicks, and who is watched for a late one.
    earlier = LATE_CLICK_ORDERS // CALL_SIZE + 1
    for batch in range(batches + earlier if with_click_id else 0):
        engine.write(queries.clicks(batch))
        engine.take_changes()
    for batch in range(batches, batches + earlier):
        Stopwatch().decide(engine, queries.orders(batch, visitors=visitors))
    before, held_before, writing = resident_bytes(), len(engine.answers), Stopwatch()
    for batch in range(batches):
        writing.decide(engine, queries.orders(batch, visitors=visitors))
    held, grown = len(engine.answers) - held_before, resident_bytes() - before
    return Kept(
        f"answer {'with a' if with_click_id else 'without'} click id",
        held,
        grown / held,
        writing.ns,
        writing.longest_ms,
    )
