"""The rules of the port on tables in memory: no I/O and no clock, so that the same code decides and explains.

Values are packed into bytes, because five million claims must fit into a process: a Python tuple of three numbers takes
five times the room.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

from impact_plugin.store.base import (
    NEWEST_CLICKS,
    NEWEST_USERS,
    NEWEST_WINDOWS,
    SessionAnswer,
    SessionQuery,
)
from impact_plugin.store.table import GenerationTable
from impact_transformers import Decision
from impact_transformers.clicks import EARLIEST_MS

WINDOW_BYTES: Final = 15
START_BITS: Final = 43
LENGTH_BITS: Final = 32
OPENER_BYTES: Final = 5
"""A window is start (ms since 1970), length (ms) and the first bytes of its opener's digest.

Within one key forty bits of a keyed digest tell a handful of messages apart; two million keys with four messages each
would see one mistake in a hundred thousand years of traffic.
"""

LONGEST: Final = (1 << LENGTH_BITS) - 1
LATE_CLICK_ORDERS: Final = 65_536
"""How many identities of orders without a click id are watched for a click that comes late."""

_START_MASK: Final = (1 << START_BITS) - 1
_LENGTH_MASK: Final = (1 << LENGTH_BITS) - 1
_OPENER_SHIFT: Final = START_BITS + LENGTH_BITS

_KINDS: Final[dict[bytes, Decision | None]] = {b"": None, b"-": None, b"N": Decision.NEW, b"R": Decision.REPEAT}
_LETTERS: Final[dict[Decision | None, bytes]] = {None: b"-", Decision.NEW: b"N", Decision.REPEAT: b"R"}


class Remembered(msgspec.Struct, array_like=True, gc=False):
    """What is known of an identity: clicks as (time, id) and, for an anonymous one, identifications as (time, user)."""

    clicks: list[tuple[int, str]]
    users: list[tuple[int, bytes]]


class Capacities(msgspec.Struct, frozen=True):
    """How many entries of each kind are kept."""

    claims: int
    identities: int
    answers: int


class Changes(msgspec.Struct):
    """What was written since the last look: to be made durable. An identity that was forgotten is None."""

    claims: dict[bytes, bytes]
    answers: dict[bytes, bytes]
    identities: dict[bytes, bytes | None]

    def __bool__(self) -> bool:
        return bool(self.claims or self.answers or self.identities)


class Engine:
    """Decides; ``retention`` is for how long, in milliseconds, windows must answer retries."""

    def __init__(self, capacities: Capacities, retention: int) -> None:
        self.claims = GenerationTable(capacities.claims)
        self.answers = GenerationTable(capacities.answers)
        self.identities = GenerationTable(capacities.identities)
        self.late_clicks = 0
        self._retention = retention
        self._changes = Changes({}, {}, {})
        self._without_click: dict[bytes, int] = {}
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Remembered).decode

    def take_changes(self) -> Changes:
        """The changes since the last call."""
        changes, self._changes = self._changes, Changes({}, {}, {})
        return changes

    def write(self, queries: Sequence[SessionQuery]) -> list[SessionAnswer]:
        """Decide about the candidates and write all clicks and joins; answers of asking events are still open."""
        found = []
        kept = self.answers.get
        for query in queries:
            raw = kept(query.owner) if query.keeps else None
            if raw is not None:
                found.append(_unpacked(raw))
                continue
            found.append(NOTHING if query.key is None else self._claim(query, query.key))
            if query.click_id is not None:
                self._record(query, query.click_id)
            if query.joins:
                self._join(query)
        return found

    def read(self, queries: Sequence[SessionQuery], answers: list[SessionAnswer]) -> None:
        """Answer the asking events, in place, and keep the answers with their messages."""
        for index, query in enumerate(queries):
            if not query.keeps:
                continue
            answer = answers[index]
            raw = self.answers.get(query.owner) if answer.replayed else None
            answers[index] = self._answer(query, answer) if raw is None else _unpacked(raw)

    def forget(self, identities: Sequence[bytes]) -> int:
        """Delete what is known of the identities; returns how many were known."""
        forgotten = 0
        for identity in identities:
            self._without_click.pop(identity, None)
            if self.identities.pop(identity):
                forgotten += 1
            self._changes.identities[identity] = None
        return forgotten

    def joined(self, entries: Iterable[tuple[bytes, bytes]], identities: Collection[bytes]) -> list[bytes]:
        """Of these entries the anonymous identities on which any of the users was identified."""
        found = []
        for identity, raw in entries:
            # The bytes are searched first: most entries name none of them, and reading takes ten times as long.
            if any(user in raw for user in identities):
                users = {user for _, user in self._decode(raw).users}
                found += [identity] if not users.isdisjoint(identities) else []
        return found

    def _answer(self, query: SessionQuery, answer: SessionAnswer) -> SessionAnswer:
        click_id = self._choose(query) if query.asks else None
        raw = b""
        if click_id is not None or answer.decision is not None:
            raw = _LETTERS[answer.decision] + (click_id or "").encode()
        kept = self.answers.add(query.owner, raw)
        if kept is not None:
            # The same message stands twice in the batch.
            return _unpacked(kept)
        if query.asks and query.order and click_id is None:
            self._watch(query)
        self._changes.answers[query.owner] = raw
        if click_id is None:
            return answer
        return SessionAnswer(answer.decision, click_id, answer.replayed, answer.start, answer.end)

    def _claim(self, query: SessionQuery, key: bytes) -> SessionAnswer:
        """The rule of the windows; see the port."""
        held = self.claims.get(key) or b""
        opener = int.from_bytes(query.owner[:OPENER_BYTES])
        time = query.time
        inside = -1
        for at in range(0, len(held), WINDOW_BYTES):
            packed = int.from_bytes(held[at : at + WINDOW_BYTES])
            start = packed & _START_MASK
            end = start + ((packed >> START_BITS) & _LENGTH_MASK)
            if packed >> _OPENER_SHIFT == opener:
                return SessionAnswer(Decision.NEW, None, replayed=True, start=start, end=end)
            if start <= time < end:
                inside = at
        if inside >= 0:
            return self._extend(query, key, held, inside)
        self._put_claim(key, self._live(held, time) + _pack(time, query.window, opener))
        return SessionAnswer(Decision.NEW, None, replayed=False, start=time, end=time + query.window)

    def _extend(self, query: SessionQuery, key: bytes, held: bytes, at: int) -> SessionAnswer:
        packed = int.from_bytes(held[at : at + WINDOW_BYTES])
        start = packed & _START_MASK
        length = (packed >> START_BITS) & _LENGTH_MASK
        if not query.fixed:
            length = min(max(length, query.time + query.window - start), LONGEST)
        window = _pack(start, length, packed >> _OPENER_SHIFT)
        # Written even when nothing grew: the key was seen, and lives on.
        self._put_claim(key, held[:at] + window + held[at + WINDOW_BYTES :])
        return SessionAnswer(Decision.REPEAT, None, replayed=False, start=start, end=start + length)

    def _live(self, held: bytes, time: int) -> bytes:
        """The windows that a retry may still ask for, at most so many that one more fits."""
        if not held:
            return held
        windows = [held[at : at + WINDOW_BYTES] for at in range(0, len(held), WINDOW_BYTES)]
        # A message may have been received a day after the time at which it counts.
        live = [window for window in windows if _end(window) > time - self._retention - EARLIEST_MS]
        self.claims.evicted += max(0, len(live) - (NEWEST_WINDOWS - 1))
        return b"".join(live[-(NEWEST_WINDOWS - 1) :])

    def _put_claim(self, key: bytes, value: bytes) -> None:
        self.claims.put(key, value)
        self._changes.claims[key] = value

    def _record(self, query: SessionQuery, click_id: str) -> None:
        """Write the click to the identities of the event, and to the user that was identified since."""
        owners = [identity for identity in (query.anonymous, query.user) if identity is not None]
        if query.anonymous is not None:
            owners += _joined(self._recall(query.anonymous).users, query.time)
        missed = [self._remember(identity, query.time, click_id) for identity in dict.fromkeys(owners)]
        self.late_clicks += any(missed)

    def _remember(self, identity: bytes, time: int, click_id: str) -> bool:
        """Write the click to one identity; tells whether an order of it went without."""
        known = self._recall(identity)
        clicks = with_click(known.clicks, time, click_id)
        if clicks != known.clicks:
            self._put_identity(identity, Remembered(clicks, known.users))
        asked = self._without_click.get(identity)
        if asked is not None and time <= asked:
            del self._without_click[identity]
            return True
        return False

    def _join(self, query: SessionQuery) -> None:
        """Note who the anonymous visitor is, and copy the clicks after which nobody else was identified there."""
        anonymous, user = query.anonymous, query.user
        if anonymous is None or user is None:
            return
        known = self._recall(anonymous)
        if (query.time, user) not in known.users:
            users = sorted([*known.users, (query.time, user)])[-NEWEST_USERS:]
            known = Remembered(known.clicks, users)
            self._put_identity(anonymous, known)
        late = [self._remember(user, time, id_) for time, id_ in known.clicks if user in _joined(known.users, time)]
        self.late_clicks += any(late)

    def _choose(self, query: SessionQuery) -> str | None:
        best: tuple[int, str] | None = None
        for identity in (query.anonymous, query.user):
            if identity is None or (raw := self.identities.get(identity)) is None:
                continue
            for click in self._decode(raw).clicks:
                if not query.time - query.referral <= click[0] <= query.time:
                    continue
                if best is None or (click[0] < best[0] if query.first else click[0] > best[0]):
                    best = click
        return None if best is None else best[1]

    def _watch(self, query: SessionQuery) -> None:
        """Notice it when a click arrives later that this order should have had."""
        for identity in (query.anonymous, query.user):
            if identity is not None:
                self._without_click[identity] = query.time
        while len(self._without_click) > LATE_CLICK_ORDERS:
            del self._without_click[next(iter(self._without_click))]

    def _recall(self, identity: bytes) -> Remembered:
        raw = self.identities.get(identity)
        return Remembered([], []) if raw is None else self._decode(raw)

    def _put_identity(self, identity: bytes, known: Remembered) -> None:
        raw = self._encode(known)
        self.identities.put(identity, raw)
        self._changes.identities[identity] = raw


NOTHING: Final = SessionAnswer()
KNOWN_NOTHING: Final = SessionAnswer(replayed=True)


def _unpacked(raw: bytes) -> SessionAnswer:
    if not raw:
        return KNOWN_NOTHING
    return SessionAnswer(_KINDS[raw[:1]], raw[1:].decode() or None, replayed=True)


def with_click(clicks: Sequence[tuple[int, str]], time: int, click_id: str) -> list[tuple[int, str]]:
    """The newest clicks in order of time, with one more.

    When there are too many, the middle one of three in a row with the same id goes before the oldest does: sites that
    keep the id in every URL would push all others out.
    """
    if (time, click_id) in clicks:
        return list(clicks)
    merged = sorted([*clicks, (time, click_id)])
    if len(merged) > NEWEST_CLICKS:
        inner = range(1, len(merged) - 1)
        same = (at for at in inner if merged[at - 1][1] == merged[at][1] == merged[at + 1][1])
        del merged[next(same, 0)]
    return merged


def _joined(users: Sequence[tuple[int, bytes]], time: int) -> list[bytes]:
    """The user to whom an anonymous click of this time belongs: identified since then, and nobody else was."""
    since = {user for at, user in users if at >= time}
    return [user for user in since if all(at <= time for at, other in users if other != user)]


def _pack(start: int, length: int, opener: int) -> bytes:
    packed = opener << _OPENER_SHIFT | min(length, LONGEST) << START_BITS | start
    return packed.to_bytes(WINDOW_BYTES)


def _end(window: bytes) -> int:
    packed = int.from_bytes(window)
    return (packed & _START_MASK) + ((packed >> START_BITS) & _LENGTH_MASK)
