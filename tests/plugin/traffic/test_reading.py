"""Reading files and streams of events: as they come, whatever stands before them, and what is refused."""

import gzip
import io
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from impact_plugin.traffic.reading import ReadingError, Traffic, TrafficEvent, fingerprints, is_recording


def events_of(*sources: Any) -> list[bytes]:
    """The events, as bytes."""
    return [bytes(one.message) for one in Traffic(sources) if isinstance(one, TrafficEvent)]


def test_lines_are_read_as_they_come(page: dict[str, Any]) -> None:
    """The first event of a stream is there before the stream has ended."""
    line = msgspec.json.encode(page)
    receiving, sending = os.pipe()
    events = iter(Traffic([os.fdopen(receiving, "rb")]))
    os.write(sending, line + b"\n")
    first = next(events)
    os.write(sending, line)
    os.close(sending)
    (second,) = events

    assert isinstance(first, TrafficEvent)
    assert isinstance(second, TrafficEvent)
    assert [line, line] == [bytes(first.message), bytes(second.message)]


def test_a_stream_may_be_gzipped(page: dict[str, Any]) -> None:
    """Though its beginning cannot be read twice."""
    line = msgspec.json.encode(page)
    receiving, sending = os.pipe()
    os.write(sending, gzip.compress(line))
    os.close(sending)

    assert [line] == events_of(os.fdopen(receiving, "rb"))
    assert [line] == events_of(io.BytesIO(gzip.compress(line)))


def test_blank_lines_before_the_first_event_are_skipped() -> None:
    """They do not make a document of the lines: a file of any size is read a line at a time."""
    stream = io.BytesIO(b"\r\n  \n\n" + b'{"type":"page"}\n' * 100_000)
    events = iter(Traffic([stream]))
    first = next(events)

    assert isinstance(first, TrafficEvent)
    assert b'{"type":"page"}' == bytes(first.message)
    assert stream.tell() < 100_000


def test_progress_is_of_regular_files(tmp_path: Path, page: dict[str, Any]) -> None:
    """A stream has no size that could be told."""
    file = tmp_path / "events"
    file.write_bytes(msgspec.json.encode(page) + b"\n")
    traffic = Traffic([file, io.BytesIO(b"{}")])
    read = list(traffic)

    assert (2, file.stat().st_size) == (len(read), traffic.total)
    assert traffic.done == traffic.total


def test_a_pipe_has_no_fingerprint(tmp_path: Path) -> None:
    """What works on a file twice refuses one in a sentence."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)
    with pytest.raises(ReadingError, match="is not a regular file"):
        fingerprints([pipe])
    with pytest.raises(ReadingError, match="is not a regular file"):
        is_recording(pipe)
    os.close(writer)
