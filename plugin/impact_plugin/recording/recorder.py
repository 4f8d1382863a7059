"""Captures what a running service is asked: only while somebody records, and never more than was allowed."""

import gzip
import io
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from time import time
from typing import Any, Final

import msgspec
from anyio import Event, current_time, move_on_after

from impact_plugin import __version__
from impact_plugin.config.destinations import CONCEALED
from impact_plugin.config.manifest import load_manifest
from impact_plugin.recording.lines import VERSION, DestinationLine, EndLine, EventLine, Header, Line
from impact_plugin.recording.pseudonyms import Pseudonyms
from impact_transformers.events import UNREADABLE

PENDING: Final = 10_000
"""Events that may wait to be written; more are left out and counted: recording must not slow the router down."""

CHUNK: Final = 500


class RecordedJob(msgspec.Struct, frozen=True, gc=False):
    """One event of a request, as it came, and the destinations it goes to as (id, configuration)."""

    event: bytes | msgspec.Raw
    to: tuple[tuple[str, msgspec.Raw], ...]


class _Taken(msgspec.Struct, frozen=True, gc=False):
    at: int
    via: str
    request: int
    job: RecordedJob


class Recording:
    """What one listener still has to write."""

    def __init__(self) -> None:
        self.left_out = 0
        self._pending: deque[_Taken] = deque()
        self._arrived = Event()

    def put(self, taken: _Taken) -> None:
        """Keep it, or count it where too many wait already."""
        if len(self._pending) >= PENDING:
            self.left_out += 1
            return
        self._pending.append(taken)
        self._arrived.set()

    async def take(self, seconds: float) -> list[_Taken]:
        """What is there, once there is something; none when nothing came in time."""
        if not self._pending:
            self._arrived = Event()
            with move_on_after(seconds):
                await self._arrived.wait()
        return [self._pending.popleft() for _ in range(min(CHUNK, len(self._pending)))]


class Recorder:
    """Where protocols hand over what came, if anybody listens."""

    def __init__(self, key: bytes) -> None:
        self._pseudonyms = Pseudonyms(key)
        self._recordings: set[Recording] = set()
        self._requests = 0

    @property
    def listening(self) -> bool:
        """Whether it is worth the while to hand anything over."""
        return bool(self._recordings)

    def take(self, via: str, jobs: Iterable[RecordedJob]) -> None:
        """Keep the events of one request for whoever records."""
        self._requests += 1
        at = int(time() * 1000)
        for job in jobs:
            for recording in self._recordings:
                recording.put(_Taken(at, via, self._requests, job))

    async def record(
        self, seconds: float, most_bytes: int, stops: Callable[[], bool]
    ) -> AsyncGenerator[tuple[bytes, EndLine | None], None]:
        """Gzipped lines as they come, for so long and so many bytes at most, then the line that says why it ended."""
        writer = _Writer(self._pseudonyms)
        with self._listened() as recording:
            yield writer.write([_header()]), None
            deadline = current_time() + seconds
            cause, events = "time", 0
            while (left := deadline - current_time()) > 0:
                taken = await recording.take(min(left, 1.0))
                if stops():
                    cause = "the service stops"
                    break
                events += len(taken)
                yield writer.events(taken), None
                if writer.size >= most_bytes:
                    cause = "size"
                    break
            end = EndLine(events, recording.left_out, cause)
            yield writer.write([end]) + writer.close(), end

    @contextmanager
    def _listened(self) -> Iterator[Recording]:
        recording = Recording()
        self._recordings.add(recording)
        try:
            yield recording
        finally:
            self._recordings.discard(recording)


def _header() -> Header:
    return Header(VERSION, datetime.now(UTC).isoformat(timespec="seconds"), __version__)


class _Writer:
    """Makes lines and packs them."""

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self.size = 0
        self._pseudonyms = pseudonyms
        self._buffer = io.BytesIO()
        self._packer = gzip.GzipFile(fileobj=self._buffer, mode="wb", compresslevel=5, mtime=0)
        self._told: dict[str, bytes] = {}
        self._encode = msgspec.json.Encoder().encode

    def events(self, taken: Iterable[_Taken]) -> bytes:
        """The events, and before them the destinations that are new or have changed."""
        lines: list[Line] = []
        for one in taken:
            for id_, config in one.job.to:
                if self._told.get(id_) != bytes(config):
                    self._told[id_] = bytes(config)
                    lines.append(DestinationLine(id_, without_credentials(config)))
            to = tuple(id_ for id_, _ in one.job.to)
            lines.append(EventLine(one.at, one.via, one.request, to, self._without_persons(one.job.event)))
        return self.write(lines)

    def write(self, lines: Iterable[Line]) -> bytes:
        """The packed lines, as far as they are ready to be sent."""
        for line in lines:
            self._packer.write(self._encode(line) + b"\n")
        self._packer.flush()
        return self._taken()

    def close(self) -> bytes:
        """The end of the file."""
        self._packer.close()
        return self._taken()

    def _taken(self) -> bytes:
        packed = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        self.size += len(packed)
        return packed

    def _without_persons(self, raw: bytes | msgspec.Raw) -> msgspec.Raw:
        try:
            message = msgspec.json.decode(raw)
            if isinstance(message, dict):
                return msgspec.Raw(self._encode(self._pseudonyms.event(message)))
        except UNREADABLE:
            pass
        # Nobody knows what stands in something that cannot be read: only that it was there is kept.
        return msgspec.Raw(self._encode(CONCEALED))


def without_credentials(config: msgspec.Raw) -> dict[str, Any]:
    """The configuration with something else in the place of secrets."""
    try:
        found = msgspec.json.decode(config)
    except UNREADABLE:
        return {}
    secret = {name for key in load_manifest().configuration if key.secret for name in (key.key, *key.aliases)}
    return {key: CONCEALED if key in secret and value else value for key, value in found.items()}
