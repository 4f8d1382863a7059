"""Records the traffic of a running service: only while somebody asks for it, and within limits of time and size."""

import gzip
import io
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from time import time
from typing import Any, Final

import msgspec
from anyio import Event, current_time

from impact_plugin import __version__
from impact_plugin.config.destinations import CONCEALED
from impact_plugin.config.manifest import load_manifest
from impact_plugin.process.shutdown import Shutdown
from impact_plugin.recording.lines import VERSION, DestinationLine, EndLine, EventLine, Header, Line
from impact_plugin.recording.pseudonyms import Pseudonyms
from impact_transformers.events import UNREADABLE

PENDING: Final = 10_000
"""Events that may wait to be written; more are left out and counted: a recording must not slow the router down."""

CHUNK: Final = 50
"""Events that are written at a time, in some ten milliseconds, before others get their turn."""

WAIT_SECONDS: Final = 1.0
"""How long a recording waits for events before it writes what the compression holds back."""


class RecordedJob(msgspec.Struct, frozen=True, gc=False):
    """An event of a request, as it was received, and the destinations that it goes to, as (id, configuration)."""

    event: bytes | msgspec.Raw
    to: tuple[tuple[str, msgspec.Raw], ...]


class _ReceivedJob(msgspec.Struct, frozen=True, gc=False):
    at: int
    via: str
    request: int
    job: RecordedJob


class Recording:
    """A recording in progress.

    ``left_out`` counts the events that arrived too fast for it. ``cause`` says why it ended by itself: ``time``,
    ``size`` or ``the service stops``; it is empty before that.
    """

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self.left_out = 0
        self.cause = ""
        self._writer = _Writer(pseudonyms)
        self._pending: deque[_ReceivedJob] = deque()
        self._arrived = Event()

    @property
    def size(self) -> int:
        """How many bytes the recording has so far."""
        return self._writer.size

    def put(self, job: _ReceivedJob) -> None:
        """Take a job, or count it if too many are pending."""
        if len(self._pending) >= PENDING:
            self.left_out += 1
            return
        self._pending.append(job)
        self._arrived.set()

    def close(self) -> None:
        """Free what the recording holds; its last piece may not have been read."""
        self._writer.close()

    async def pieces(self, seconds: float, max_bytes: int, shutdown: Shutdown) -> AsyncGenerator[bytes, None]:
        """Yield the recording piece by piece as gzipped lines, until a limit is reached or the service stops.

        The last piece holds the line that says why it ended; without it the file can be read all the same.
        """
        yield self._writer.write([Header(VERSION, datetime.now(UTC).isoformat(timespec="seconds"), __version__)])
        deadline, events = current_time() + seconds, 0
        while not self.cause:
            jobs = await self._next_jobs(min(deadline - current_time(), WAIT_SECONDS), shutdown)
            events += len(jobs)
            yield self._writer.write_jobs(jobs)
            if shutdown.begun:
                self.cause = "the service stops"
            elif self.size >= max_bytes:
                self.cause = "size"
            elif current_time() >= deadline:
                self.cause = "time"
        self.left_out += len(self._pending)
        yield self._writer.write([EndLine(events, self.left_out, self.cause)]) + self._writer.close()

    async def _next_jobs(self, seconds: float, shutdown: Shutdown) -> list[_ReceivedJob]:
        """Return pending jobs, after waiting for the first; none if none arrives in time, or the service stops."""
        if not self._pending:
            self._arrived = Event()
            with shutdown.cancels(seconds):
                await self._arrived.wait()
        return [self._pending.popleft() for _ in range(min(CHUNK, len(self._pending)))]


class Recorder:
    """Where protocols and intake put the traffic, as long as something records it."""

    def __init__(self, key: bytes) -> None:
        self._pseudonyms = Pseudonyms(key)
        self._recordings: set[Recording] = set()
        self._requests = 0

    @property
    def listening(self) -> bool:
        """Whether there is a recording; without one, there is no need to call :meth:`take`."""
        return bool(self._recordings)

    def take(self, via: str, jobs: Iterable[RecordedJob]) -> None:
        """Put the jobs of a request into all recordings."""
        self._requests += 1
        at = int(time() * 1000)
        for job in jobs:
            received = _ReceivedJob(at, via, self._requests, job)
            for recording in self._recordings:
                recording.put(received)

    @contextmanager
    def recording(self) -> Iterator[Recording]:
        """Put the traffic into a new recording until the block ends."""
        recording = Recording(self._pseudonyms)
        self._recordings.add(recording)
        try:
            yield recording
        finally:
            self._recordings.discard(recording)
            recording.close()


class _Writer:
    """Makes lines and compresses them; ``size`` is how many bytes they have so far."""

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self.size = 0
        self._pseudonyms = pseudonyms
        self._buffer = io.BytesIO()
        self._packer = gzip.GzipFile(fileobj=self._buffer, mode="wb", compresslevel=5, mtime=0)
        self._configurations: dict[str, bytes] = {}
        self._encode = msgspec.json.Encoder().encode

    def write_jobs(self, jobs: Iterable[_ReceivedJob]) -> bytes:
        """Write jobs, each after those of its destinations that are new or have changed."""
        lines: list[Line] = []
        for received in jobs:
            for id_, config in received.job.to:
                if self._configurations.get(id_) != bytes(config):
                    self._configurations[id_] = bytes(config)
                    lines.append(DestinationLine(id_, without_credentials(config)))
            to = tuple(id_ for id_, _ in received.job.to)
            event = self._without_persons(received.job.event)
            lines.append(EventLine(received.at, received.via, received.request, to, event))
        return self.write(lines)

    def write(self, lines: Iterable[Line]) -> bytes:
        """Write lines; returns the compressed bytes."""
        for line in lines:
            self._packer.write(self._encode(line) + b"\n")
        self._packer.flush()
        return self._new_bytes()

    def close(self) -> bytes:
        """End the file; returns its last bytes."""
        self._packer.close()
        return self._new_bytes()

    def _new_bytes(self) -> bytes:
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
        # Whatever an unreadable event holds may be personal data: the recording only shows that there was one.
        return msgspec.Raw(self._encode(CONCEALED))


def without_credentials(config: msgspec.Raw) -> dict[str, Any]:
    """Return the configuration with its secrets replaced."""
    try:
        decoded = msgspec.json.decode(config)
    except UNREADABLE:
        return {}
    secret = {name for key in load_manifest().configuration if key.secret for name in (key.key, *key.aliases)}
    return {key: CONCEALED if key in secret and value else value for key, value in decoded.items()}
