"""The port of the spool: events that a sender was told are safe, until impact.com has them or nobody ever will.

**Put.** A batch is on disk, or with the server, before ``put`` returns. An event whose ``seen`` digest was put within
``seen_hours`` is a duplicate and is not stored again: senders repeat what was answered already, for days.

**Take.** A row is taken by one process at a time, oldest due first, and given again only after it was released, after
``later``, or after that process has died. Rows of one lane (a visitor) are given in the order they were put: with a row
come the earlier ones of its lane that are due, and while one of those waits to be tried again, the row waits as long. A
lane with more than ``LANE_LENGTH`` rows, or whose first row has failed for ``LANE_SECONDS``, loses its order and is
counted, so that one visitor never holds a shop up; it has its order again when neither is so for the first of its rows.

**Settle.** ``done``, ``later`` and ``bury`` never wait and never fail; they are written in order, within a moment. If
the process dies before, the row is taken once more, and the ledger of conversions knows what was sent.

Times are milliseconds since 1970.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from impact_plugin.errors import ImpactPluginError

LANE_LENGTH: Final = 200
LANE_SECONDS: Final = 900.0

MAX_DETAIL: Final = 2000
"""Characters of what impact.com said that a dead letter keeps."""


class DeadLetterCause(msgspec.Struct, frozen=True, gc=False):
    """Why an event is a dead letter, what was sent for it last and what impact.com said to that, without secrets.

    ``reason`` is a :class:`impact_transformers.Reason`, a :class:`impact_plugin.delivery.policy.Cause`, or one of
    :class:`impact_plugin.spool.reasons.Burial`.
    """

    reason: str
    detail: str
    request: bytes = b""


class NewRow(msgspec.Struct, frozen=True, gc=False):
    """One event for one destination. ``visit`` is opaque; ``people`` are digests of whom it is about, for deletion.

    ``urgent`` rows are conversions. With a ``death`` it is a dead letter from the start.
    """

    destination: str
    payload: bytes
    visit: bytes = b""
    urgent: bool = False
    lane: bytes | None = None
    people: tuple[bytes, ...] = ()
    order_id: str | None = None
    death: DeadLetterCause | None = None


class NewEvent(msgspec.Struct, frozen=True, gc=False):
    """One event with its rows; ``seen`` is the digest of what makes it the same event when it comes again."""

    source: str
    seen: bytes
    received: int
    rows: tuple[NewRow, ...]


class SpoolRow(msgspec.Struct, frozen=True, gc=False):
    """A row that was taken. ``attempt`` counts the tries that failed; the first of them was at ``failing_since``."""

    number: int
    source: str
    destination: str
    payload: bytes
    visit: bytes
    urgent: bool
    lane: bytes | None
    received: int
    attempt: int = 0
    failing_since: int | None = None


class DeadLetter(msgspec.Struct, frozen=True):
    """An event that will not be delivered unless somebody says so. ``died`` is when that was decided."""

    number: int
    source: str
    destination: str
    reason: str
    detail: str
    received: int
    died: int
    attempts: int
    order_id: str | None
    payload: bytes
    request: bytes


class DeadLetterFilter(msgspec.Struct, frozen=True):
    """Which dead letters are meant; None matches all. ``since`` and ``until`` bound ``died``."""

    numbers: tuple[int, ...] | None = None
    reason: str | None = None
    source: str | None = None
    destination: str | None = None
    order_id: str | None = None
    since: int | None = None
    until: int | None = None


class Forgotten(msgspec.Struct, frozen=True):
    """How many rows and dead letters of a person were deleted."""

    waiting: int
    dead: int


class SpoolTally(msgspec.Struct, frozen=True):
    """What a spool holds, and what it did since the last look (``expired``, ``unordered``, ``evicted``).

    ``oldest`` is when the oldest waiting row was received. ``evicted`` are dead letters, and entries of what was seen,
    dropped before their time because there were too many.
    """

    waiting: Mapping[str, int]
    dead: int
    bytes: int
    capacity_rows: int
    capacity_bytes: int
    oldest: int | None
    seen: int
    expired: int = 0
    unordered: int = 0
    evicted: int = 0


class SpoolFullError(ImpactPluginError):
    """There is no room; the message says which limit. The sender is to come again after ``seconds``."""

    def __init__(self, text: str, seconds: int) -> None:
        super().__init__(text)
        self.seconds = seconds


class Spool(Protocol):
    """One backend; calls may overlap. All but the settling ones raise ``StateUnavailableError``."""

    async def put(self, events: Sequence[NewEvent]) -> list[bool]:
        """Make the events durable, all or none; True for each stored now, False for a duplicate.

        Of two equal ones in a call the second is the duplicate. Raises :class:`SpoolFullError`.
        """

    async def take(self, destination: str, *, urgent: bool, limit: int) -> list[SpoolRow]:
        """Take rows that are due, about ``limit`` of them, those of one lane in order."""

    def release(self, rows: Sequence[SpoolRow]) -> None:
        """Give rows back untried."""

    def holds(self, row: SpoolRow) -> bool:
        """Whether a row that was taken is still there: not once the person it is about was forgotten."""

    def done(self, row: SpoolRow) -> None:
        """The row needs nothing more."""

    def later(self, row: SpoolRow, due: int, *, failed: bool) -> None:
        """Try the row again at ``due``, and the later ones of its lane not before; ``failed`` counts an attempt."""

    def bury(self, row: SpoolRow, death: DeadLetterCause) -> None:
        """Make a dead letter of the row."""

    async def flush(self) -> None:
        """Return when everything settled so far is written."""

    async def forget(self, people: Sequence[bytes]) -> Forgotten:
        """Delete the rows and dead letters about any of these people, overwriting what they held."""

    def letters(self, which: DeadLetterFilter) -> AsyncIterator[DeadLetter]:
        """The dead letters meant, oldest first; a snapshot page at a time."""

    async def retry(self, which: DeadLetterFilter) -> int:
        """Let dead letters be due now, as if they had just been received; how many."""

    async def purge(self, which: DeadLetterFilter) -> int:
        """Delete dead letters; how many."""

    async def check(self) -> None:
        """Raise ``StateUnavailableError`` unless the spool can be written; what waits is written first."""

    async def tally(self) -> SpoolTally:
        """What is held, and what happened since the last call."""
