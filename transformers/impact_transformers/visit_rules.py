"""How the sessions decide: unique clicks, whose a click is, the click id of an order, and what a withdrawal leaves.

Pure rules over the rows of one key. The keeper of the sessions loads the rows, applies these rules, and saves what they
return. Identities and messages are digests; times and lengths are in milliseconds. Clicks, identifications and
withdrawals may arrive in any order. What was decided at an arrival stands: the first of two clicks of one window, and a
click that was copied to a user when nobody else was known to have been identified after it.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from impact_transformers.visit import Decision

NEWEST_CLICKS: Final = 8
"""How many clicks an identity remembers; the oldest go first."""

NEWEST_USERS: Final = 8
"""How many identifications an anonymous identity remembers."""


class Window(msgspec.Struct, frozen=True, gc=False):
    """The time from a unique click on, ``[start, end)``, in which others with its key are repeats."""

    start: int
    end: int
    opener: bytes
    """The message of the click."""


class Click(msgspec.Struct, frozen=True, gc=False, order=True):
    """A click that is remembered; ``anonymous`` is the identity it was made under, also when a user's row holds it."""

    time: int
    click_id: str
    anonymous: bytes | None = None


class Identified(msgspec.Struct, frozen=True, gc=False, order=True):
    """Somebody was identified on an anonymous identity."""

    time: int
    user: bytes


class IdentityMemory(msgspec.Struct, frozen=True):
    """What is remembered of one identity, in order of time.

    ``users`` were identified on it, if it is an anonymous one. ``withdrawn`` is the time of the last withdrawal of
    consent; nothing up to it is remembered.
    """

    clicks: tuple[Click, ...] = ()
    users: tuple[Identified, ...] = ()
    withdrawn: int | None = None


NOTHING: Final = IdentityMemory()


def decide_click(
    windows: Sequence[Window], opener: bytes, time: int, length: int, *, fixed: bool
) -> tuple[Decision, tuple[Window, ...]]:
    """Decide whether a click is unique; returns the key's windows as they are afterwards.

    The message that opened a window gets the same answer again. A repeat extends a rolling window, not a fixed one.
    """
    if any(window.opener == opener for window in windows):
        return Decision.NEW, tuple(windows)
    for at in reversed(range(len(windows))):
        held = windows[at]
        if held.start <= time < held.end:
            end = held.end if fixed else max(held.end, time + length)
            return Decision.REPEAT, (*windows[:at], Window(held.start, end, held.opener), *windows[at + 1 :])
    return Decision.NEW, (*windows, Window(time, time + length, opener))


def with_click(known: IdentityMemory, click: Click) -> IdentityMemory:
    """Remember a click, unless consent was withdrawn since.

    When there are too many, the middle one of three in a row with the same id goes before the oldest does: sites that
    keep the id in every URL would push all others out.
    """
    if click in known.clicks or _is_withdrawn(known, click.time):
        return known
    clicks = sorted([*known.clicks, click])
    if len(clicks) > NEWEST_CLICKS:
        threes = zip(clicks, clicks[1:], clicks[2:], strict=False)
        same = (at for at, three in enumerate(threes, 1) if len({one.click_id for one in three}) == 1)
        del clicks[next(same, 0)]
    return IdentityMemory(tuple(clicks), known.users, known.withdrawn)


def with_user(known: IdentityMemory, time: int, user: bytes) -> IdentityMemory:
    """Remember that a user was identified on the anonymous identity: any event that names both does that."""
    identified = Identified(time, user)
    if identified in known.users or _is_withdrawn(known, time):
        return known
    users = sorted([*known.users, identified])[-NEWEST_USERS:]
    return IdentityMemory(known.clicks, tuple(users), known.withdrawn)


def belongs_to(known: IdentityMemory, user: bytes, time: int) -> bool:
    """Whether a click on the anonymous identity is the user's: identified then or later, and nobody else since."""
    identified = any(one.user == user and one.time >= time for one in known.users)
    return identified and not any(one.user != user and one.time > time for one in known.users)


def users_at(known: IdentityMemory, time: int) -> tuple[bytes, ...]:
    """The users to whom a click on the anonymous identity belongs, and is written too: one, seldom none or several."""
    return tuple(user for user in sorted({one.user for one in known.users}) if belongs_to(known, user, time))


def clicks_of(known: IdentityMemory, user: bytes) -> tuple[Click, ...]:
    """The clicks of the anonymous identity that belong to the user, and are copied at an identification."""
    return tuple(click for click in known.clicks if belongs_to(known, user, click.time))


def withdrawn(known: IdentityMemory, time: int) -> IdentityMemory:
    """Forget what was remembered of an identity up to the withdrawal of its consent, and what arrives of that time."""
    latest = time if known.withdrawn is None else max(time, known.withdrawn)
    return IdentityMemory(
        tuple(click for click in known.clicks if click.time > latest),
        tuple(one for one in known.users if one.time > latest),
        latest,
    )


def without_clicks_of(known: IdentityMemory, anonymous: bytes, time: int) -> IdentityMemory:
    """Forget the clicks that a user has from an anonymous identity whose consent was withdrawn."""
    left = tuple(click for click in known.clicks if click.anonymous != anonymous or click.time > time)
    return IdentityMemory(left, known.users, known.withdrawn)


def chosen(identities: Iterable[IdentityMemory], time: int, referral: int, *, first: bool) -> str | None:
    """The click id of an event at this time: the last click (or first) before it that is not too old.

    Of two clicks at the same time the earlier identity's is chosen; the anonymous one comes first.
    """
    best: Click | None = None
    for known in identities:
        for click in known.clicks:
            if not time - referral <= click.time <= time:
                continue
            if best is None or (click.time < best.time if first else click.time > best.time):
                best = click
    return None if best is None else best.click_id


def _is_withdrawn(known: IdentityMemory, time: int) -> bool:
    return known.withdrawn is not None and time <= known.withdrawn
