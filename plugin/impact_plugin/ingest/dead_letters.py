"""Looks up the reasons of dead letters."""

from impact_plugin.delivery.policy import CAUSES
from impact_plugin.spool.reasons import DEAD_LETTER_REASONS, DeadLetterFacts
from impact_transformers import REASONS


def facts_of(reason: str) -> DeadLetterFacts:
    """Return what a dead letter's reason means and how to fix it."""
    for own, facts in DEAD_LETTER_REASONS.items():
        if own == reason:
            return facts
    for known, reason_facts in REASONS.items():
        if known == reason:
            return DeadLetterFacts(reason_facts.meaning, reason_facts.fix)
    for cause, meaning in CAUSES.items():
        if cause == reason:
            return DeadLetterFacts(meaning, "Correct what impact.com's response names, then retry.")
    return DeadLetterFacts("A reason of another version.", "See that version's documentation.")
