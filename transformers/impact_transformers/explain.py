"""Why an event became what it became: the outcome with, for each parameter, the path that won and the paths tried."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from impact_transformers.configuration import ConfigurationError
from impact_transformers.destination import AnyDestination
from impact_transformers.events import AnyEvent, Event
from impact_transformers.outcome import Outcome, Send, Skip
from impact_transformers.trail import Step
from impact_transformers.transform import conversion_kind, trace_event, transform
from impact_transformers.visit import NO_VISIT, Visit

NOTES: Final = {"OrderId": "derived from the messageId", "ClickId": "remembered from the visitor's earlier click"}
"""Where a value comes from that no path of the event gave."""


class Explanation(msgspec.Struct, frozen=True):
    """The outcome and the steps that led to it; ``steps`` is empty where no table was consulted."""

    outcome: Outcome
    steps: tuple[Step, ...] = ()


def explain(
    event: AnyEvent, destination: AnyDestination, message: Mapping[str, Any], visit: Visit = NO_VISIT
) -> Explanation:
    """Do what ``transform`` does, and show the working."""
    outcome = transform(event, destination, message, visit)
    return Explanation(outcome, steps_to(outcome, event, destination, message))


def steps_to(
    outcome: Outcome, event: AnyEvent, destination: AnyDestination, message: Mapping[str, Any]
) -> tuple[Step, ...]:
    """The steps that led the event to its outcome; none where no table was consulted."""
    if not isinstance(event, Event) or isinstance(outcome, Skip):
        return ()
    try:
        static = destination.for_event(message)
    except ConfigurationError:
        return ()
    steps = tuple(trace_event(event, conversion_kind(event, static), static, message))
    return _as_sent(steps, outcome.request.form) if isinstance(outcome, Send) else steps


def _as_sent(steps: tuple[Step, ...], form: Mapping[str, str]) -> tuple[Step, ...]:
    """The steps in the light of the request: what was left out on purpose, and what no table knows."""
    known = {step.parameter for step in steps}
    seen = tuple(_in_light_of(step, form) for step in steps)
    made = tuple(
        Step(
            name,
            "decided",
            (),
            value,
            "from the destination's event types" if name.startswith("EventType") else "default",
        )
        for name, value in form.items()
        if name not in known
    )
    return seen + made


def _in_light_of(step: Step, form: Mapping[str, str]) -> Step:
    sent = form.get(step.parameter)
    if sent == step.value:
        return step
    if sent is None:
        note = "left out: items and an order amount are never sent together"
        return msgspec.structs.replace(step, value=None, note=note)
    note = NOTES.get(step.parameter, "default")
    return msgspec.structs.replace(step, value=sent, note=note)
