"""Why an event is a dead letter, beyond reasons of the core and causes of deliveries; and what to do about it."""

from enum import StrEnum
from typing import Final

import msgspec

from impact_plugin.delivery.policy import CAUSES
from impact_transformers import REASONS


class Burial(StrEnum):
    """Reasons of the spool's own."""

    EXPIRED = "expired"
    UNREADABLE = "unreadable"
    FAULT = "fault"


class BurialFacts(msgspec.Struct, frozen=True):
    """What a reason means, and what the operator can do."""

    meaning: str
    fix: str


BURIALS: Final[dict[Burial, BurialFacts]] = {
    Burial.EXPIRED: BurialFacts(
        "The event waited for longer than spool.retention_days, mostly because impact.com or the account was shut.",
        "See /debug/limits for what keeps the account from sending; then retry.",
    ),
    Burial.UNREADABLE: BurialFacts(
        "What was stored cannot be read: the file was damaged or written by something else.",
        "Check the disk; if the event's text is still there, export it and send it again.",
    ),
    Burial.FAULT: BurialFacts(
        "A defect of this software met the event five times.",
        "Report it with the log's lines and the output of impact-plugin explain for the event; retry after an update.",
    ),
}


def facts_of(reason: str) -> BurialFacts:
    """What any reason of a dead letter means and what to do about it."""
    for burial, facts in BURIALS.items():
        if burial == reason:
            return facts
    for known, told in REASONS.items():
        if known == reason:
            return BurialFacts(told.meaning, told.fix)
    for cause, meaning in CAUSES.items():
        if cause == reason:
            return BurialFacts(meaning, "Correct what impact.com's answer names, then retry.")
    return BurialFacts("A reason of another version.", "See that version's documentation.")
