"""Files of events, read a line at a time: our recordings, exports, dumps and bodies of routers, gzipped or not."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from impact_plugin.errors import ImpactPluginError
from impact_plugin.recording.lines import DestinationLine, EndLine, Header
from impact_transformers import AnyEvent, DecodedEvent, UndecodableEventError, decode_event
from impact_transformers.events import UNREADABLE

GZIP: Final = b"\x1f\x8b"
FINGERPRINT_BYTES: Final = 64 * 1024
RECORDED: Final = b'{"line":'
LARGEST_DOCUMENT: Final = 512 * 1024 * 1024
"""Of a file that is one JSON document instead of lines, and so must be read whole."""

LONGEST_LINE: Final = 64 * 1024 * 1024


class ReadingError(ImpactPluginError):
    """A file cannot be read; the message names it and says why."""


class TrafficEvent(msgspec.Struct, frozen=True, gc=False):
    """One event as it stands in the file, with what the file says of it.

    ``request`` numbers events that came together; ``to`` are ids of destinations, and ``config`` is the configuration
    the event brings itself. ``event`` is decoded already where that came for free.
    """

    message: msgspec.Raw
    at: int | None = None
    via: str = ""
    request: int | None = None
    to: tuple[str, ...] = ()
    config: dict[str, Any] | None = None
    event: AnyEvent | None = None


class RecordedDestination(msgspec.Struct, frozen=True):
    """What a recording says of a destination."""

    id: str
    config: dict[str, Any]


class _Recorded(msgspec.Struct, frozen=True, gc=False, tag_field="line", tag="event"):
    """A line with its event decoded along."""

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
    """The events of some files, in order; ``done`` of ``total`` bytes, as they lie on the disk, have been read.

    With ``whole``, which may be set at any time, events keep all that stands in them, not only what we read of them.
    ``cut_off`` are files whose end is missing, of those that were read.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.whole = False
        self.cut_off: list[Path] = []
        self._sizes = [_size(file) for file in files]
        self.total = sum(self._sizes)
        self._files = files
        self._before = 0
        self._open: BinaryIO | None = None

    @property
    def done(self) -> int:
        """How many bytes have been read."""
        return self._before + (0 if self._open is None or self._open.closed else self._open.tell())

    def __iter__(self) -> Iterator[TrafficEvent | RecordedDestination]:
        for file, size in zip(self._files, self._sizes, strict=True):
            with _opened(file) as self._open, _unpacked(self._open) as stream:
                yield from self._subjects(file, stream)
            self._before += size

    def _subjects(self, file: Path, stream: BinaryIO) -> Iterator[TrafficEvent | RecordedDestination]:
        recorded = False
        for number, line in enumerate(self._lines(file, stream), 1):
            if number == 1 and _is_document(line):
                yield from _document(file, line + _rest(file, stream))
                return
            if line.startswith(RECORDED):
                recorded = True
                yield from self._recorded(file, number, line)
            elif recorded:
                raise ReadingError(f"{file}: line {number} is not of a recording")
            elif stripped := line.strip():
                yield from _subjects_of(msgspec.Raw(stripped))

    def _lines(self, file: Path, stream: BinaryIO) -> Iterator[bytes]:
        """The lines; a gzip that was cut off ends with what can be read of it."""
        while True:
            try:
                line = stream.readline(LONGEST_LINE)
            except EOFError:
                self.cut_off.append(file)
                return
            except (OSError, zlib.error) as error:
                raise ReadingError(f"{file}: cannot be read: {error}") from error
            if not line:
                return
            yield line

    def _recorded(self, file: Path, number: int, line: bytes) -> Iterator[TrafficEvent | RecordedDestination]:
        if not line.startswith(b'{"line":"event"'):
            try:
                told = _others.decode(line)
            except UNREADABLE as error:
                raise ReadingError(f"{file}: line {number} is not of a recording: {error}") from error
            if isinstance(told, DestinationLine):
                yield RecordedDestination(told.id, told.config)
            return
        if not self.whole:
            try:
                one = _typed.decode(line)
            except UNREADABLE:
                pass
            else:
                yield TrafficEvent(_NOT_KEPT, one.at, one.via, one.request, one.to, None, one.event)
                return
        try:
            whole = _raw.decode(line)
        except UNREADABLE as error:
            raise ReadingError(f"{file}: line {number} is not of a recording: {error}") from error
        yield TrafficEvent(whole.event, whole.at, whole.via, whole.request, whole.to)


def _subjects_of(raw: msgspec.Raw) -> Iterator[TrafficEvent]:
    """Most lines are events, and are taken for such first: nothing that wraps events has a type of its own."""
    try:
        event = _events.decode(raw)
    except UNREADABLE:
        yield from unwrap(raw)
    else:
        yield TrafficEvent(raw, event=event)


_NOT_KEPT: Final = msgspec.Raw(b"")


def decoded(subject: TrafficEvent) -> AnyEvent | None:
    """The event; None where nobody can read it."""
    if subject.event is not None:
        return subject.event
    try:
        return decode_event(subject.message)
    except UndecodableEventError:
        return None


def unwrap(raw: msgspec.Raw) -> Iterator[TrafficEvent]:
    """The event itself, or those of a body or a row that holds several."""
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


def _of_routed(item: _Routed, destinations: dict[str, dict[str, Any]]) -> TrafficEvent:
    destination = item.destination or destinations.get(str(item.metadata.get("destinationId")), {})
    return TrafficEvent(item.message, config=destination.get("Config"))


def _is_document(line: bytes) -> bool:
    """Whether the file does not hold one object a line: its first line is an array, or less than an object."""
    stripped = line.strip()
    if stripped.startswith(b"["):
        return True
    try:
        msgspec.json.decode(stripped, type=msgspec.Raw)
    except UNREADABLE:
        return stripped in (b"", b"{") or not stripped.endswith(b"}")
    return False


def _rest(file: Path, stream: BinaryIO) -> bytes:
    try:
        rest = stream.read(LARGEST_DOCUMENT)
    except (OSError, EOFError, zlib.error) as error:
        raise ReadingError(f"{file}: cannot be read: {error}") from error
    if len(rest) == LARGEST_DOCUMENT:
        raise ReadingError(f"{file}: is one JSON document of more than {LARGEST_DOCUMENT >> 20} MiB: write it in lines")
    return rest


def _document(file: Path, text: bytes) -> Iterator[TrafficEvent]:
    """A JSON array of events, or one object over several lines; else lines after all."""
    try:
        found = msgspec.json.decode(text, type=list[msgspec.Raw])
    except UNREADABLE:
        try:
            found = [msgspec.json.decode(text, type=msgspec.Raw)]
        except UNREADABLE as error:
            if b"\n" not in text.strip():
                raise ReadingError(f"{file}: is not JSON: {error}") from error
            found = [msgspec.Raw(line.strip()) for line in text.splitlines() if line.strip()]
    for raw in found:
        yield from unwrap(raw)


def fingerprints(files: Sequence[Path]) -> list[tuple[str, int, str]]:
    """What the files are known by when work on them goes on: name, size, and a digest of how they begin.

    Raises :class:`ReadingError`.
    """
    found = []
    for file in files:
        with _opened(file) as opened:
            begins = opened.read(FINGERPRINT_BYTES)
            found.append((file.name, os.fstat(opened.fileno()).st_size, hashlib.sha256(begins).hexdigest()))
    return found


def is_recording(file: Path) -> bool:
    """Whether the file begins as a recording of ours, with pseudonyms for persons; raises :class:`ReadingError`."""
    try:
        with _opened(file) as opened, _unpacked(opened) as stream:
            return bytes(stream.read(len(RECORDED))) == RECORDED
    except (OSError, EOFError, zlib.error) as error:
        raise ReadingError(f"{file}: cannot be read: {error}") from error


def _opened(file: Path) -> BinaryIO:
    try:
        opened = file.open("rb")
    except OSError as error:
        raise ReadingError(f"{file}: cannot be read: {error.strerror}") from error
    if not opened.seekable():
        opened.close()
        raise ReadingError(f"{file}: is no regular file; write what comes into one first")
    return opened


def _unpacked(opened: BinaryIO) -> Any:
    """The text of the file, not buffered: a buffer that is filled whole loses the end of a file that was cut off."""
    packed = opened.read(len(GZIP)) == GZIP
    opened.seek(0)
    return gzip.GzipFile(fileobj=opened) if packed else opened


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise ReadingError(f"{file}: cannot be read: {error.strerror}") from error
