"""Batches: order, one fault apart from the rest, turns of the event loop, and the tally."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from impact_plugin.config.destinations import Destinations
from impact_plugin.config.settings import ImpactSettings
from impact_plugin.delivery.endpoints import Endpoints
from impact_plugin.recording.recorder import Recorder
from impact_plugin.telemetry import Telemetry
from impact_plugin.transformation.batch import (
    CLOCK_INTERVAL,
    Batch,
    BatchTimer,
    RawJob,
    TransformContext,
    transform_batch,
)
from impact_transformers import NO_VISIT, Question, Reason, Reject, Send, Skip, Visit


class NoVisits:
    """In the place of sessions: asked nothing."""

    takes_questions = False

    async def visits(self, questions: Sequence[Question | None]) -> list[Visit]:
        """No visit for any event."""
        return [NO_VISIT] * len(questions)


@pytest.fixture(name="context")
def context_fixture() -> TransformContext:
    """Lend what a batch is transformed with."""
    sessions: Any = NoVisits()
    return TransformContext(Destinations({}), Endpoints(ImpactSettings()), Telemetry(), sessions, Recorder(b"key"))


def job(message: Any, config: dict[str, Any], number: int = 1) -> RawJob:
    """One job as a reader makes it from a body."""
    destination = msgspec.json.encode({"ID": "d-1", "WorkspaceID": "ws-1", "Config": config})
    return RawJob(
        msgspec.Raw(msgspec.json.encode(message)),
        msgspec.Raw(msgspec.json.encode({"jobId": number})),
        msgspec.Raw(destination),
    )


def counted(context: TransformContext) -> dict[tuple[str, str, str], float]:
    """The events counted so far, by call, outcome and reason."""
    return {
        (sample.labels["call"], sample.labels["outcome"], sample.labels["reason"]): sample.value
        for metric in context.telemetry.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "impact_plugin_events_total"
    }


async def test_outcomes_come_in_the_order_of_the_jobs(
    context: TransformContext, page: dict[str, Any], order: dict[str, Any], config: dict[str, Any]
) -> None:
    """Every job has one outcome, at its own place, whatever became of its neighbours."""
    messages = [page, {"type": "group"}, order, {"type": "page"}, "text", None]
    timer = BatchTimer("processor", b"", context.telemetry)
    done = await transform_batch(
        Batch([job(message, config, n) for n, message in enumerate(messages)]), context, timer.counts
    )
    timer.report(b"")

    assert [type(one.outcome) for one in done] == [Send, Skip, Send, Reject, Reject, Reject]
    assert [msgspec.json.decode(one.job.metadata)["jobId"] for one in done] == list(range(6))
    assert counted(context) == {
        ("Page", "pageload", ""): 1,
        ("Other", "filtered", Reason.UNSUPPORTED_TYPE): 1,
        ("Track", "conversions", ""): 1,
        ("Page", "rejected", Reason.MISSING_IDENTITY): 1,
        ("Other", "rejected", Reason.UNDECODABLE_EVENT): 2,
    }


async def test_a_defect_is_its_own_events_fault(
    context: TransformContext, page: dict[str, Any], config: dict[str, Any], spoil: Callable[..., None]
) -> None:
    """An exception in the transformation rejects one event as a fault of ours, counts it, and goes no further."""
    spoil(KeyError("jane@example.com"))
    jobs = [job(page, config), job({**page, "messageId": "m-bad"}, config), job(page, config)]
    done = await transform_batch(Batch(jobs), context, BatchTimer("processor", b"", context.telemetry).counts)

    assert [type(one.outcome) for one in done] == [Send, Reject, Send]
    assert done[1].outcome == Reject(Reason.TRANSFORM_FAULT, "KeyError in the transformation")
    assert context.telemetry.metrics.registry.get_sample_value("impact_plugin_faults_total", {"where": "event"}) == 1


async def test_a_large_batch_lets_others_have_their_turn(
    context: TransformContext, page: dict[str, Any], config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a thousand events are transformed, another task runs again and again."""
    monkeypatch.setattr("impact_plugin.transformation.batch.PAUSE_AFTER_SECONDS", 0.0)
    turns = 0
    finished = asyncio.Event()

    async def other() -> None:
        nonlocal turns
        while not finished.is_set():
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await transform_batch(
        Batch([job(page, config)] * 1000), context, BatchTimer("processor", b"", context.telemetry).counts
    )
    finished.set()
    await task

    assert turns >= 1000 // CLOCK_INTERVAL - 1


async def test_a_report_tells_sizes_and_counts_once(context: TransformContext, config: dict[str, Any]) -> None:
    """The one report of a batch moves the histogram by one batch."""
    timer = BatchTimer("router", b"12345", context.telemetry)
    await transform_batch(Batch([job({"type": "group"}, config)] * 3), context, timer.counts)
    value = context.telemetry.metrics.registry.get_sample_value

    assert timer.report(b"reply") == b"reply"
    assert value("impact_plugin_batch_events_count", {"protocol": "router"}) == 1
    assert value("impact_plugin_batch_events_sum", {"protocol": "router"}) == 3


@pytest.mark.parametrize("kind", ["x" * 5000, "jane@example.com", "\u0000", "Page "])
async def test_the_call_in_the_tally_is_bounded(context: TransformContext, config: dict[str, Any], kind: str) -> None:
    """A sender decides on the type of an event, but not on the labels of our metrics."""
    timer = BatchTimer("processor", b"", context.telemetry)
    await transform_batch(Batch([job({"type": kind, "anonymousId": "a"}, config)]), context, timer.counts)
    timer.report(b"")

    assert {call for call, _, _ in counted(context)} <= {"Other", "Page"}
