"""Why the spool itself makes an event a dead letter."""

from enum import StrEnum
from typing import Final

import msgspec


class DeadLetterReason(StrEnum):
    """Reasons of the spool's own."""

    EXPIRED = "expired"
    UNREADABLE = "unreadable"
    FAULT = "fault"


class DeadLetterFacts(msgspec.Struct, frozen=True):
    """What a reason means, and what the operator can do."""

    meaning: str
    fix: str


DEAD_LETTER_REASONS: Final[dict[DeadLetterReason, DeadLetterFacts]] = {
    DeadLetterReason.EXPIRED: DeadLetterFacts(
        "The event waited for longer than spool.retention_days, mostly because impact.com or the account was shut.",
        "See /debug/limits for what keeps the account from sending; then retry.",
    ),
    DeadLetterReason.UNREADABLE: DeadLetterFacts(
        "What was stored cannot be read: the file was damaged or written by something else.",
        "Check the disk; if the event's text is still there, export it and send it again.",
    ),
    DeadLetterReason.FAULT: DeadLetterFacts(
        "A defect of this software met the event five times.",
        "Report it with the log's lines and the output of impact-plugin explain for the event; retry after an update.",
    ),
}
