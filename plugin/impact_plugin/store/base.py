"""The port of the session state: what is asked of it, what it answers, and what every backend must keep to.

**Claims.** A click key holds windows of event time, ``[start, end)``, each with the message that opened it. For a
candidate: if its message opened a window of the key, the answer is NEW again (a retry); else, if its time lies in a
window, REPEAT, and that window is extended to ``time + window``, unless windows are ``fixed``; else NEW, and it opens a
window.

**Clicks.** An identity holds its newest clicks, ordered by event time. A click is written to the anonymous and to the
user identity of the event that carries it. ``joins`` notes that the user was identified on the anonymous identity, and
copies those of its clicks after which nobody else was identified there; a click that arrives after the identification
it precedes is copied the same way.

**Answers.** An asking event gets the last (or first) click not after it and not older than its referral window, of
either identity; of two at the same time the anonymous identity's. The answer is kept with the message (``keeps``) and
given again for ``retention``.

Of one call, everything is written before anything is read, so a landing and its order may come in any order.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from impact_transformers import Decision

CALL_SIZE: Final = 256
"""Queries a backend takes in one turn: one round trip, or one uninterrupted stretch of the event loop."""

NEWEST_CLICKS: Final = 8
"""How many clicks an identity remembers; the oldest go first."""

NEWEST_USERS: Final = 8
"""How many identifications an anonymous identity remembers."""

NEWEST_WINDOWS: Final = 64
"""How many windows a click key holds; the oldest go first."""


class SessionQuery(msgspec.Struct, frozen=True, gc=False):
    """A :class:`impact_transformers.Question` in digests; times and lengths in milliseconds."""

    owner: bytes
    time: int
    key: bytes | None = None
    window: int = 0
    click_id: str | None = None
    anonymous: bytes | None = None
    user: bytes | None = None
    asks: bool = False
    joins: bool = False
    order: bool = False
    keeps: bool = False
    referral: int = 0
    first: bool = False
    fixed: bool = False


class SessionAnswer(msgspec.Struct, frozen=True, gc=False):
    """The decision about a candidate and the click id for an asking event.

    ``replayed`` tells that the message was known. ``start`` and ``end`` are of the window that a candidate opened or
    fell into, where the backend still knows them.
    """

    decision: Decision | None = None
    click_id: str | None = None
    replayed: bool = False
    start: int = 0
    end: int = 0


class StoreTally(msgspec.Struct, frozen=True):
    """What a store holds by kind, and what it did since the last look: bounded names, for the metrics.

    ``evicted`` counts entries dropped although they had not expired, ``late_clicks`` orders that got no click id and
    whose visitor's click arrived afterwards, ``unsaved`` changes that could not be written in time and live in memory
    only.
    """

    sizes: Mapping[str, int]
    capacities: Mapping[str, int]
    evicted: Mapping[str, int]
    late_clicks: int = 0
    unsaved: int = 0


class SessionStore(Protocol):
    """One backend. Calls of several batches may overlap; each sees those that began before it, or is seen by them."""

    async def decide(self, queries: Sequence[SessionQuery]) -> list[SessionAnswer]:
        """SessionAnswer each query, having made the answers durable; raises :class:`StateUnavailableError`."""

    async def decide_locally(self, queries: Sequence[SessionQuery]) -> list[SessionAnswer]:
        """Answer from what this process knows, without waiting for the state, which takes the changes in later."""

    async def forget(self, identities: Sequence[bytes]) -> int:
        """Delete the clicks and identifications of these identities; returns how many were known."""

    async def joined(self, identities: Sequence[bytes]) -> list[bytes]:
        """The anonymous identities on which any of these users was identified, as far as it is remembered."""

    async def check(self) -> None:
        """Raise :class:`StateUnavailableError` unless the state can be reached and written; catches up when it can."""

    async def tally(self) -> StoreTally:
        """What is held, and what happened since the last call."""
