"""Deletes a person's data from the sessions and the spool, and reports what was deleted.

The ledger of conversions holds keyed digests of orders and no personal data, so there is nothing to delete.
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
"""Identities of stored events that never reached a program are digests with this one."""

MAX_IDS: Final = 1000
NOTHING: Final = Forgotten(0, 0)


class Program(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A campaign of an account: the scope in which clicks are remembered."""

    account: str
    campaign: str

    @property
    def name(self) -> str:
        """The program as the sessions store it."""
        return self.account + SEPARATOR + self.campaign


class ForgetRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The persons to forget: the body of the operator port's ``POST /forget``.

    ``programs`` adds programs to those of the configured destinations, for example a router's.
    """

    users: tuple[str, ...] = ()
    anonymous: tuple[str, ...] = ()
    programs: tuple[Program, ...] = ()


class ForgetReport(msgspec.Struct, frozen=True):
    """The numbers of deleted identities, waiting events and dead letters, and of the programs searched."""

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
    """Deletes personal data.

    ``configured`` returns the programs of every destination, as the sessions store them. ``spool`` is None in a service
    without senders.
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
        """Forget these ids, and the anonymous ids that were joined to the users. Idempotent.

        Searches the programs of the configured destinations, and ``more``.

        Raises :class:`StateUnavailableError` when something could not be deleted; the caller must retry.
        """
        programs = {*self._configured(), *more}
        given = [id_ for id_ in (*users, *anonymous) if id_]
        # The ingest port stores an e-mail address concealed, the router's port as received.
        ids = list(dict.fromkeys([*given, *map(conceal_emails, given)]))
        identities = await self._sessions.identities([*programs, NO_PROGRAM], ids)
        # The sessions come last: a retry needs the joined identities, which only they know.
        removed = NOTHING if self._spool is None else await self._spool.forget(identities)
        known = await self._sessions.forget(identities)
        self._telemetry.emit(PersonForgotten(known, removed.waiting, removed.dead))
        return ForgetReport(known, removed.waiting, removed.dead, len(programs))


def deletion_of(item: Item | Unusable) -> tuple[list[str], list[str]] | None:
    """Return the ids that a deletion message names, None for other messages. https://segment.com/docs/connections/destinations/catalog/webhooks/"""
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
