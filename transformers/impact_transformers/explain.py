"""Why an event became what it became: the outcome with, for each parameter, the path that won and the paths tried."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from impact_transformers.configuration import ConfigurationError, EventType
from impact_transformers.destination import AnyDestination, Destination
from impact_transformers.events import AnyEvent, Event, KnownEvent
from impact_transformers.order_value import OrderValue, value_order
from impact_transformers.outcome import Outcome, RefusalError, Reject, Send, Skip
from impact_transformers.trail import Step
from impact_transformers.transform import conversion_kind, transform
from impact_transformers.visit import NO_VISIT, Visit

NOTES: Final = {"OrderId": "derived from the messageId", "ClickId": "remembered from the visitor's earlier click"}
"""Where a value comes from that no path of the event gave."""

READ: Final = frozenset({"amount", "discount", "pieces", "products"})
"""Rules for what is read of an order, which is sent only as far as the decision about its amount has it."""


class Explanation(msgspec.Struct, frozen=True):
    """The outcome and the steps that led to it; ``steps`` is empty where no table was consulted.

    ``amount`` says how it was found what an order is worth: ``step 1: subtotal 22.50 is total - tax - shipping``.
    """

    outcome: Outcome
    steps: tuple[Step, ...] = ()
    amount: str | None = None


def explain(
    event: AnyEvent, destination: AnyDestination, message: Mapping[str, Any], visit: Visit = NO_VISIT
) -> Explanation:
    """Do what ``transform`` does, and show the working."""
    return explain_outcome(transform(event, destination, message, visit), event, destination, message)


def explain_outcome(
    outcome: Outcome, event: AnyEvent, destination: AnyDestination, message: Mapping[str, Any]
) -> Explanation:
    """Show the working that led the event to its outcome."""
    if not isinstance(event, Event) or isinstance(outcome, Skip):
        return Explanation(outcome)
    try:
        static = destination.for_event(message)
    except ConfigurationError:
        return Explanation(outcome)
    kind = conversion_kind(event, static)
    form = outcome.request.form if isinstance(outcome, Send) else {}
    value = None if kind is None else _value(event, kind, static, message, form.get("CurrencyCode"))
    steps = tuple(_trace(event, static, message, value))
    if isinstance(outcome, Reject):
        return Explanation(outcome, steps)
    amount = None if value is None or value.net is None else str(value.net)
    return Explanation(outcome, _as_sent(steps, form, amount), amount)


def _value(
    event: KnownEvent, kind: EventType, destination: Destination, message: Mapping[str, Any], currency: str | None
) -> OrderValue:
    try:
        return value_order(event, kind, destination, message, currency)
    except RefusalError:
        return OrderValue({}, (), None)


def _trace(
    event: KnownEvent, destination: Destination, message: Mapping[str, Any] | None, value: OrderValue | None
) -> Iterator[Step]:
    """How each parameter that the tables know came about, in the order the request is built."""
    if value is None:
        yield from destination.page_load.trace(event, message)
        return
    yield from destination.conversion.trace(event, message)
    yield from destination.order.trace(event, message)
    for number, one in enumerate(value.sent, 1):
        yield from destination.item.trace(one.product, None, str(number))
        for step in destination.line.trace(one.product, None):
            yield msgspec.structs.replace(step, parameter=f"{step.parameter}{number}")


def _as_sent(steps: tuple[Step, ...], form: Mapping[str, str], amount: str | None) -> tuple[Step, ...]:
    """The steps in the light of the request: what was left out on purpose, and what no table knows."""
    known = {step.parameter for step in steps}
    seen = tuple(
        _read(step, form.get(step.parameter), amount) if step.rule in READ else _in_light_of(step, form)
        for step in steps
    )
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


def _read(step: Step, sent: str | None, amount: str | None) -> Step:
    """The step of something that was read of the order, with what was sent after the decision about its amount."""
    note = None if step.value is None else "read, not sent"
    if sent is not None and step.rule == "pieces":
        note = "default" if step.value is None else None
    elif sent is not None:
        note = amount if step.value != sent else None
    return msgspec.structs.replace(step, value=sent, note=note)


def _in_light_of(step: Step, form: Mapping[str, str]) -> Step:
    sent = form.get(step.parameter)
    if sent == step.value:
        return step
    if sent is None:
        why = (
            "the visitor denied consent" if step.parameter == "CustomerEmail" else "it must not stand beside the others"
        )
        return msgspec.structs.replace(step, value=None, note=f"left out: {why}")
    note = NOTES.get(step.parameter, "default")
    if step.parameter == "EventDate" and step.value is not None:
        note = "when it was received, which was before that"
    return msgspec.structs.replace(step, value=sent, note=note)
