"""Bodies as rudder-server sends them, made from the recorded day, and the context they are transformed with."""

import importlib.util
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, TypeAlias

import msgspec

from impact_plugin.config.destinations import Destinations
from impact_plugin.config.settings import ImpactSettings, LogSettings
from impact_plugin.delivery.endpoints import Endpoints
from impact_plugin.protocols import rudder_processor, rudder_router
from impact_plugin.recording.recorder import Recorder
from impact_plugin.rudder.bodies import QueuedEvent, Route, message, processor_body, router_body
from impact_plugin.rudder.go import go_json
from impact_plugin.telemetry import Telemetry, configure_logging
from impact_plugin.transformation.batch import TransformContext
from impact_transformers import NO_VISIT, KnownEvent, Question, Visit

Answer: TypeAlias = Callable[[bytes], Awaitable[bytes]]

MAKE_DAY: Final = Path(__file__).resolve().parents[1] / "tools" / "make_day.py"
NOW: Final = 1_789_000_000.0
"""The time at which the bodies are built: a fixed one, so that every run measures the same bytes."""

SEED: Final = 20260910


class Kind(msgspec.Struct, frozen=True):
    """One of the four shapes in which a batch arrives."""

    protocol: Literal["processor", "router"]
    compacted: bool

    @property
    def name(self) -> str:
        """How the tables call it."""
        return f"{self.protocol} {'compacted' if self.compacted else 'plain'}"


KINDS: Final = (
    Kind("processor", compacted=False),
    Kind("processor", compacted=True),
    Kind("router", compacted=False),
    Kind("router", compacted=True),
)


class Day(msgspec.Struct, frozen=True):
    """The recorded events in a fixed mixed order, and those of them that the typed decoder takes."""

    events: list[dict[str, Any]]
    well_formed: list[dict[str, Any]]

    @property
    def left_out(self) -> int:
        """How many events take the event-by-event path; one of them sends its whole batch there."""
        return len(self.events) - len(self.well_formed)


@cache
def _make_day() -> ModuleType:
    """The script that made the day: tools are no package, so it is imported from its file."""
    spec = importlib.util.spec_from_file_location("benchmarked_make_day", MAKE_DAY)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(MAKE_DAY)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def read_day() -> Day:
    """Read the day and mix it, so that every batch holds the day's mixture of calls and not that of one hour."""
    events: list[dict[str, Any]] = _make_day().read_day()
    random.Random(SEED).shuffle(events)
    decoder = msgspec.json.Decoder(KnownEvent)
    well_formed = [event for event in events if _decodes(decoder, go_json(message(QueuedEvent(0, event), NOW)))]
    return Day(events, well_formed)


def _decodes(decoder: msgspec.json.Decoder[KnownEvent], raw: bytes) -> bool:
    try:
        decoder.decode(raw)
    except msgspec.DecodeError:
        return False
    return True


def make_bodies(events: Sequence[dict[str, Any]], kind: Kind, batch: int) -> list[bytes]:
    """Full batches only: what does not fill the last one is left out."""
    route = Route(_make_day().DESTINATION_CONFIG, transform_at=kind.protocol)
    build = processor_body if kind.protocol == "processor" else router_body
    queued = [QueuedEvent(number, event) for number, event in enumerate(events, 1)]
    return [
        build(queued[start : start + batch], route, now=NOW, compacted=kind.compacted).body
        for start in range(0, len(queued) - batch + 1, batch)
    ]


class NoVisits:
    """In the place of sessions: asked nothing, and answers at once."""

    takes_questions = False

    async def visits(self, questions: Sequence[Question | None]) -> list[Visit]:
        """No visit for any event."""
        return [NO_VISIT] * len(questions)


def make_context() -> TransformContext:
    """A context as the service has it, without session state; log lines below ``error`` are dropped."""
    configure_logging(LogSettings(level="error"))
    sessions: Any = NoVisits()
    return TransformContext(Destinations({}), Endpoints(ImpactSettings()), Telemetry(), sessions, Recorder(b"key"))


def answerer(kind: Kind, context: TransformContext) -> Answer:
    """The service's own function for a body of this kind."""
    if kind.protocol == "router":
        return lambda body: rudder_router.handle(body, context)
    return lambda body: rudder_processor.handle(body, context, compacted=kind.compacted)
