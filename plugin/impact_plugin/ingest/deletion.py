"""Deletion of a person: whatever is kept of them, wherever it is kept, and a word about what was done.

The ledger of conversions needs none: it holds keyed digests of orders, and nothing of whoever made them.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import msgspec

from impact_plugin.ingest.intake import Item, Unusable
from impact_plugin.sessions.sessions import Sessions
from impact_plugin.spool.base import Forgotten, Spool
from impact_plugin.spool.sqlite_letters import Letters
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.ingest import PersonForgotten
from impact_transformers import conceal_emails
from impact_transformers.clicks import SEPARATOR
from impact_transformers.events import UNREADABLE
from impact_transformers.normalize import as_text

NO_PROGRAM: Final = ""
"""Stored events that never reached a program are found by digests of none."""

MAX_IDS: Final = 1000
NOTHING: Final = Forgotten(0, 0)


class Program(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An account and a campaign of it: what clicks are remembered for."""

    account: str
    campaign: str

    @property
    def name(self) -> str:
        """As the sessions write it."""
        return self.account + SEPARATOR + self.campaign


class ForgetRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom to forget: the body of the operator port's ``POST /forget``.

    ``programs`` are those beside the configured destinations', such as a router's.
    """

    users: tuple[str, ...] = ()
    anonymous: tuple[str, ...] = ()
    programs: tuple[Program, ...] = ()


class ForgetReport(msgspec.Struct, frozen=True):
    """What was deleted: remembered identities, events that waited, and dead letters; at how many programs."""

    identities: int
    waiting: int
    dead_letters: int
    programs: int = 0
    ledger: str = "holds digests of orders only, nothing of a person"


class _Message(msgspec.Struct, frozen=True, rename="camel"):
    type: Any = None
    user_id: Any = None
    anonymous_id: Any = None


_messages: Final = msgspec.json.Decoder(_Message)


class Forgetting:
    """Deletes persons; ``configured`` gives the programs of every destination, as the sessions write them.

    Without events of senders there is no ``spool``.
    """

    def __init__(
        self,
        sessions: Sessions,
        spool: Spool | Letters | None,
        telemetry: Telemetry,
        configured: Callable[[], Collection[str]],
    ) -> None:
        self._sessions = sessions
        self._spool = spool
        self._telemetry = telemetry
        self._configured = configured

    async def forget(self, users: Sequence[str], anonymous: Sequence[str], more: Collection[str] = ()) -> ForgetReport:
        """Forget these ids, and the anonymous ones that were joined to the users; again and again is harmless.

        At the programs of the configured destinations, and at ``more``.

        Raises :class:`StateUnavailableError` when something could not be reached: then it is to be asked again.
        """
        programs = {*self._configured(), *more}
        given = [id_ for id_ in (*users, *anonymous) if id_]
        # An address is stored concealed by the ingest port, and as it came by the router's.
        ids = list(dict.fromkeys([*given, *map(conceal_emails, given)]))
        identities = await self._sessions.identities([*programs, NO_PROGRAM], ids)
        # The sessions last: only they know who was joined, and whoever has to ask again needs that again.
        removed = NOTHING if self._spool is None else await self._spool.forget(identities)
        known = await self._sessions.forget(identities)
        self._telemetry.emit(PersonForgotten(known, removed.waiting, removed.dead))
        return ForgetReport(known, removed.waiting, removed.dead, len(programs))


def deletion_of(item: Item | Unusable) -> tuple[list[str], list[str]] | None:
    """Whose deletion a message asks for. https://segment.com/docs/connections/destinations/catalog/webhooks/"""
    if isinstance(item, Unusable) or item.type is not None or b"delete" not in bytes(item.payload).lower():
        return None
    try:
        message = _messages.decode(item.payload)
    except UNREADABLE:
        return None
    if not isinstance(message.type, str) or message.type.strip().lower() != "delete":
        return None
    user, anonymous = as_text(message.user_id), as_text(message.anonymous_id)
    return ([user] if user else [], [anonymous] if anonymous else [])
