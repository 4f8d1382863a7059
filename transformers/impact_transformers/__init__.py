"""From Segment-spec events to impact.com requests: pure functions over immutable values.

>>> from impact_transformers import compile_destination, decode_event, transform

``decode_event`` reads one event in any router's dialect, ``compile_destination`` what an operator configured, and
``transform`` answers with exactly one of :class:`Send`, :class:`Skip` and :class:`Reject`.
"""

from impact_transformers.conceal import conceal, may_hold_email
from impact_transformers.configuration import ConfigKey, ConfigurationError, DestinationConfig, Problem
from impact_transformers.destination import AnyDestination, Destination, DynamicDestination, compile_destination
from impact_transformers.events import (
    AnyEvent,
    DecodedEvent,
    Event,
    Identify,
    KnownEvent,
    Page,
    Screen,
    Track,
    UndecodableEventError,
    Unsupported,
    decode_event,
    decode_leniently,
    decode_object,
)
from impact_transformers.explain import Explanation, explain
from impact_transformers.normalize import conceal_emails, holds_email
from impact_transformers.normalize import email as hash_email
from impact_transformers.outcome import (
    NOTICES,
    REASONS,
    Notice,
    NoticeReason,
    Outcome,
    Reason,
    ReasonFacts,
    Reject,
    Send,
    Skip,
)
from impact_transformers.requests import Conversion, PageLoad, Request
from impact_transformers.secret import Secret
from impact_transformers.transform import Draft, conclude, prepare, transform
from impact_transformers.visit import NO_VISIT, Decision, Question, Visit

__all__ = [
    "NOTICES",
    "NO_VISIT",
    "REASONS",
    "AnyDestination",
    "AnyEvent",
    "ConfigKey",
    "ConfigurationError",
    "Conversion",
    "Decision",
    "DecodedEvent",
    "Destination",
    "DestinationConfig",
    "Draft",
    "DynamicDestination",
    "Event",
    "Explanation",
    "Identify",
    "KnownEvent",
    "Notice",
    "NoticeReason",
    "Outcome",
    "Page",
    "PageLoad",
    "Problem",
    "Question",
    "Reason",
    "ReasonFacts",
    "Reject",
    "Request",
    "Screen",
    "Secret",
    "Send",
    "Skip",
    "Track",
    "UndecodableEventError",
    "Unsupported",
    "Visit",
    "compile_destination",
    "conceal",
    "conceal_emails",
    "conclude",
    "decode_event",
    "decode_leniently",
    "decode_object",
    "explain",
    "hash_email",
    "holds_email",
    "may_hold_email",
    "prepare",
    "transform",
]
