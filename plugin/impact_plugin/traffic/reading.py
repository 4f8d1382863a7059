"""Read files of events line by line: recordings, exports, dumps and request bodies of routers, gzipped or not."""

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import msgspec

from impact_plugin.errors import ImpactPluginError
from impact_plugin.recording.lines import DestinationLine, EndLine, Header
from impact_transformers import AnyEvent, DecodedEvent
from impact_transformers.events import UNREADABLE

GZIP: Final = b"\x1f\x8b"
FINGERPRINT_BYTES: Final = 64 * 1024
RECORDED: Final = b'{"line":'
MAX_DOCUMENT_BYTES: Final = 512 * 1024 * 1024
"""Size of a file that is one JSON document instead of lines: it must be read as a whole."""

MAX_LINE_BYTES: Final = 64 * 1024 * 1024

Source: TypeAlias = Path | BinaryIO
"""A file, or a stream such as standard input; both are closed after reading."""


class ReadingError(ImpactPluginError):
    """A file cannot be read; the message names it and says why."""


class TrafficEvent(msgspec.Struct, frozen=True, gc=False):
    """One event as the file has it, with what the file says about it.

    ``at`` is when a recording received it (ms since 1970), ``request`` numbers events that came together, ``to`` are
    ids of destinations, and ``config`` is the configuration that the event brings itself, as its router wrote it.
    ``event`` is set if decoding it came for free.
    """

    message: msgspec.Raw
    at: int | None = None
    via: str = ""
    request: int | None = None
    to: tuple[str, ...] = ()
    config: Any = msgspec.UNSET
    event: AnyEvent | None = None


class RecordedDestination(msgspec.Struct, frozen=True):
    """What a recording says about a destination, from here on."""

    id: str
    config: dict[str, Any]


class _Recorded(msgspec.Struct, frozen=True, gc=False, tag_field="line", tag="event"):
    """A line together with its decoded event."""

    at: int
    via: str
    request: int
    to: tuple[str, ...]
    event: DecodedEvent


class _RawRecorded(msgspec.Struct, frozen=True, gc=False, tag_field="line", tag="event"):
    at: int
    via: str
    request: int
    to: tuple[str, ...]
    event: msgspec.Raw


class _Routed(msgspec.Struct, frozen=True):
    """An element of a router's batch."""

    message: msgspec.Raw
    metadata: dict[str, Any] = {}
    destination: dict[str, Any] | None = None


class _Batch(msgspec.Struct, frozen=True):
    input: list[_Routed]
    destinations: dict[str, dict[str, Any]] = {}


class _Wrapped(msgspec.Struct, frozen=True):
    """A call of the Segment HTTP API with several events, or a row of rudder-server's gateway with such a payload."""

    batch: list[msgspec.Raw] | None = None
    event_payload: Any = None


_events: Final = msgspec.json.Decoder(DecodedEvent)
_typed: Final = msgspec.json.Decoder(_Recorded)
_raw: Final = msgspec.json.Decoder(_RawRecorded)
_others: Final = msgspec.json.Decoder(Header | DestinationLine | EndLine)
_batches: Final = msgspec.json.Decoder(_Batch)
_routed: Final = msgspec.json.Decoder(_Routed)
_wrapped: Final = msgspec.json.Decoder(_Wrapped)


class Traffic:
    """The events of files and streams, in order; ``done`` of ``total`` bytes, as they lie on the disk, have been read.

    With ``whole``, which may be set at any time, events keep all of their content, not only what the service
    reads of it. ``cut_off`` names the sources, of those that were read, whose end is missing.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.whole = False
        self.cut_off: list[str] = []
        self._sizes = [_size(source) for source in sources]
        self.total = sum(self._sizes)
        self._sources = sources
        self._before = 0
        self._open: BinaryIO | None = None

    @property
    def done(self) -> int:
        """How many bytes of regular files have been read."""
        opened = self._open
        return self._before + (0 if opened is None or opened.closed or not opened.seekable() else opened.tell())

    def __iter__(self) -> Iterator[TrafficEvent | RecordedDestination]:
        for source, size in zip(self._sources, self._sizes, strict=True):
            with _opened(source) as self._open, _unpacked(self._open) as stream:
                yield from self._entries(_name(source), stream)
            self._before += size

    def _entries(self, name: str, stream: BinaryIO) -> Iterator[TrafficEvent | RecordedDestination]:
        recorded, first = False, True
        for number, line in enumerate(self._lines(name, stream), 1):
            stripped = line.strip()
            if not stripped:
                continue
            if first and _is_document(stripped):
                yield from _document(name, line + _rest(name, stream))
                return
            first = False
            if line.startswith(RECORDED):
                recorded = True
                yield from self._recorded(name, number, line)
            elif recorded:
                raise ReadingError(f"{name}: line {number} does not belong to a recording")
            else:
                yield from _events_of(msgspec.Raw(stripped))

    def _lines(self, name: str, stream: BinaryIO) -> Iterator[bytes]:
        """Yield the lines; a gzip file that is cut off ends early."""
        while True:
            try:
                line = stream.readline(MAX_LINE_BYTES)
            except EOFError:
                self.cut_off.append(name)
                return
            except (OSError, zlib.error) as error:
                raise ReadingError(f"{name}: cannot be read: {error}") from error
            if not line:
                return
            yield line

    def _recorded(self, name: str, number: int, line: bytes) -> Iterator[TrafficEvent | RecordedDestination]:
        if not line.startswith(b'{"line":"event"'):
            try:
                other = _others.decode(line)
            except UNREADABLE as error:
                raise ReadingError(f"{name}: line {number} does not belong to a recording: {error}") from error
            if isinstance(other, DestinationLine):
                yield RecordedDestination(other.id, other.config)
            return
        if not self.whole:
            try:
                one = _typed.decode(line)
            except UNREADABLE:
                pass
            else:
                yield TrafficEvent(_NOT_KEPT, one.at, one.via, one.request, one.to, event=one.event)
                return
        try:
            whole = _raw.decode(line)
        except UNREADABLE as error:
            raise ReadingError(f"{name}: line {number} does not belong to a recording: {error}") from error
        yield TrafficEvent(whole.event, whole.at, whole.via, whole.request, whole.to)


_NOT_KEPT: Final = msgspec.Raw(b"")


def _events_of(raw: msgspec.Raw) -> Iterator[TrafficEvent]:
    """Read an event, or unwrap it: most lines are events, and nothing that wraps events has a ``type``."""
    try:
        event = _events.decode(raw)
    except UNREADABLE:
        yield from unwrap(raw)
    else:
        yield TrafficEvent(raw, event=event)


def unwrap(raw: msgspec.Raw) -> Iterator[TrafficEvent]:
    """Yield the event itself, or those of a request body or a row that holds several."""
    try:
        batch = _batches.decode(raw)
    except UNREADABLE:
        yield from _unwrap_one(raw)
        return
    for item in batch.input:
        yield _of_routed(item, batch.destinations)


def _unwrap_one(raw: msgspec.Raw) -> Iterator[TrafficEvent]:
    try:
        yield _of_routed(_routed.decode(raw), {})
    except UNREADABLE:
        pass
    else:
        return
    try:
        wrapped = _wrapped.decode(raw)
    except UNREADABLE:
        wrapped = _Wrapped()
    if wrapped.event_payload is not None:
        payload = wrapped.event_payload
        inner = payload.encode() if isinstance(payload, str) else msgspec.json.encode(payload)
        yield from unwrap(msgspec.Raw(inner))
    elif wrapped.batch is not None:
        yield from map(TrafficEvent, wrapped.batch)
    else:
        yield TrafficEvent(raw)


def _of_routed(item: _Routed, apart: dict[str, dict[str, Any]]) -> TrafficEvent:
    """The event with its destination, which a compacted body lists apart; None for one without a configuration."""
    destination = item.destination
    if destination is None and apart:
        destination = apart.get(str(item.metadata.get("destinationId")), {})
    return TrafficEvent(item.message, config=msgspec.UNSET if destination is None else destination.get("Config"))


def _is_document(line: bytes) -> bool:
    """Whether the file is one document instead of lines: its first line is an array, or less than an object."""
    if line.startswith(b"["):
        return True
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except UNREADABLE:
        return line == b"{" or not line.endswith(b"}")
    return False


def _rest(name: str, stream: BinaryIO) -> bytes:
    try:
        rest = stream.read(MAX_DOCUMENT_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise ReadingError(f"{name}: cannot be read: {error}") from error
    if len(rest) == MAX_DOCUMENT_BYTES:
        raise ReadingError(
            f"{name}: is one JSON document of more than {MAX_DOCUMENT_BYTES >> 20} MiB; write one event a line instead"
        )
    return rest


def _document(name: str, text: bytes) -> Iterator[TrafficEvent]:
    """Yield the events of a JSON array, of one object over several lines, or else of lines after all."""
    try:
        found = msgspec.json.decode(text, type=list[msgspec.Raw])
    except UNREADABLE:
        try:
            found = [msgspec.json.decode(text, type=msgspec.Raw)]
        except UNREADABLE as error:
            if b"\n" not in text.strip():
                raise ReadingError(f"{name}: is not JSON: {error}") from error
            found = [msgspec.Raw(line.strip()) for line in text.splitlines() if line.strip()]
    for raw in found:
        yield from unwrap(raw)


def fingerprints(files: Sequence[Path]) -> list[tuple[str, int, str]]:
    """Identify files whose processing may continue later: by name, size, and a digest of their beginning.

    Raises :class:`ReadingError`, also for a pipe, which cannot be read twice.
    """
    found = []
    for file in files:
        with _opened_regular(file) as opened:
            begins = opened.read(FINGERPRINT_BYTES)
            found.append((file.name, os.fstat(opened.fileno()).st_size, hashlib.sha256(begins).hexdigest()))
    return found


def is_recording(file: Path) -> bool:
    """Whether the file is one of our recordings, with pseudonyms for persons; raises :class:`ReadingError`."""
    try:
        with _opened_regular(file) as opened, _unpacked(opened) as stream:
            return bytes(stream.read(len(RECORDED))) == RECORDED
    except (OSError, EOFError, zlib.error) as error:
        raise ReadingError(f"{file}: cannot be read: {error}") from error


def _name(source: Source) -> str:
    return str(source) if isinstance(source, Path) else "standard input"


def _opened(source: Source) -> BinaryIO:
    if not isinstance(source, Path):
        return source
    try:
        return source.open("rb")
    except OSError as error:
        raise ReadingError(f"{source}: cannot be read: {error.strerror}") from error


def _opened_regular(file: Path) -> BinaryIO:
    opened = _opened(file)
    if not opened.seekable():
        opened.close()
        raise ReadingError(f"{file}: is not a regular file; save its content to one first")
    return opened


def _unpacked(opened: BinaryIO) -> Any:
    """The text of the file, not buffered again, since filling a buffer loses the end of a file that is cut off."""
    raw: Any = opened
    buffered = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw)
    # A pipe cannot be read twice, so its beginning is peeked at.
    packed = buffered.peek(len(GZIP)).startswith(GZIP)
    return gzip.GzipFile(fileobj=buffered) if packed else buffered


def _size(source: Source) -> int:
    if not isinstance(source, Path):
        return 0
    try:
        return source.stat().st_size
    except OSError as error:
        raise ReadingError(f"{source}: cannot be read: {error.strerror}") from error
