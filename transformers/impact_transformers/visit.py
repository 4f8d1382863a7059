"""What the core asks of whoever keeps the sessions, and the answer it is given: plain values, both ways."""

from enum import StrEnum
from typing import Final

import msgspec


class Decision(StrEnum):
    """Whether a click candidate is a unique click."""

    NEW = "new"
    REPEAT = "repeat"


class Visit(msgspec.Struct, frozen=True, gc=False):
    """What is known about the visit that an event belongs to.

    ``decision`` is None for an event that is no candidate, ``click_id`` the remembered one for an event that asked.
    ``undecided`` tells that the shared memory was out of reach, so the answer is one process's own.
    """

    decision: Decision | None = None
    click_id: str | None = None
    undecided: bool = False


NO_VISIT: Final = Visit()
"""For an event of which nothing is known but itself."""


class Question(msgspec.Struct, frozen=True, gc=False):
    """One event's business with the sessions, in clear: whoever stores any of it makes digests first.

    ``message`` owns the answer: asked again, it is given again. ``time`` is in milliseconds since 1970, clamped already
    when ``received`` is known; None means now. ``key`` is set for click candidates, ``click_id`` when the event carries
    one. ``asks`` tells that a remembered click id is wanted, ``joins`` that the anonymous visitor is now known to be
    the user, ``order`` that it is a Conversion. Windows are in milliseconds; ``first`` wants the first click, not the
    last. A ``fixed`` window ends when it was to end, a rolling one is extended by each click within it. ``forgets``
    tells that the visitor denied consent: what is remembered of the identities goes. ``names_both`` tells that the
    event itself carries both identities, which joins them as an identify call does.
    """

    program: str
    message: str
    time: int | None
    received: int | None
    key: str | None
    click_id: str | None
    anonymous_id: str | None
    user_id: str | None
    asks: bool
    joins: bool
    order: bool
    window_ms: int
    referral_ms: int
    first: bool
    fixed: bool = False
    forgets: bool = False
    names_both: bool = False
