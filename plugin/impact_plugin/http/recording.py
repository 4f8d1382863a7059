"""Records the traffic of a running service: over an operator's connection, or into a file from its start."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from aiohttp import web
from anyio import CancelScope, CapacityLimiter, WouldBlock

from impact_plugin.config.settings import MAX_RECORDING_MB, MAX_RECORDING_MINUTES, RecordSettings
from impact_plugin.errors import SettingsError
from impact_plugin.http.replies import ErrorReply, json_response
from impact_plugin.process.shutdown import Shutdown
from impact_plugin.recording.recorder import Recorder
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.http import RecordingEnded, RecordingStarted
from impact_plugin.units import MIB, MINUTE_SECONDS
from impact_transformers.configuration import Problem

MAX_RECORDINGS: Final = 4
"""At the same time; each recording slows down every event."""

CONTENT_TYPE: Final = "application/x-ndjson+gzip"


class Recordings:
    """Starts recordings, and emits telemetry about them."""

    def __init__(self, recorder: Recorder, telemetry: Telemetry, shutdown: Shutdown) -> None:
        self._recorder = recorder
        self._telemetry = telemetry
        self._shutdown = shutdown
        self._slots = CapacityLimiter(MAX_RECORDINGS)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Stream a recording, limited by ``?seconds=`` and ``?mb=``, until the client disconnects."""
        try:
            seconds = float(request.query.get("seconds", "60"))
            size = int(request.query.get("mb", "50"))
        except ValueError:
            return json_response(ErrorReply("seconds and mb must be numbers"), 400)
        most_seconds = MAX_RECORDING_MINUTES * MINUTE_SECONDS
        if not 0 < seconds <= most_seconds or not 1 <= size <= MAX_RECORDING_MB:
            limits = f"seconds may be up to {most_seconds:,.0f}, mb from 1 to {MAX_RECORDING_MB:,}"
            return json_response(ErrorReply(limits), 400)
        try:
            self._slots.acquire_nowait()
        except WouldBlock:
            return json_response(ErrorReply(f"{MAX_RECORDINGS} recordings are in progress already"), 429)
        try:
            return await self._stream(request, seconds, size * MIB)
        finally:
            self._slots.release()

    async def _stream(self, request: web.Request, seconds: float, size: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE})
        await response.prepare(request)

        async def write(piece: bytes) -> None:
            # Without traffic the pieces are empty, and writing an empty piece does not detect a disconnected client.
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError
            await response.write(piece)

        await self._record("the operator", seconds, size, write)
        with suppress(ConnectionResetError):
            await response.write_eof()
        return response

    async def write(self, file: Path, settings: RecordSettings) -> None:
        """Record into a file that only its owner can read."""
        opened = await asyncio.to_thread(_create, file)

        async def write(piece: bytes) -> None:
            await asyncio.to_thread(_write_all, opened, piece)

        try:
            # Shutting down ends the recording by itself; a cancellation would cut off its last line.
            with CancelScope(shield=True):
                async with self._slots:
                    await self._record(str(file), settings.minutes * MINUTE_SECONDS, settings.max_mb * MIB, write)
        finally:
            os.close(opened)

    async def _record(self, to: str, seconds: float, size: int, write: Callable[[bytes], Awaitable[object]]) -> None:
        """Write a recording piece by piece, and emit its start and end."""
        self._telemetry.emit(RecordingStarted(to, seconds, size))
        with self._recorder.recording() as recording:
            cause = "cancelled"
            try:
                async with aclosing(recording.pieces(seconds, size, self._shutdown)) as pieces:
                    async for piece in pieces:
                        await write(piece)
                cause = recording.cause
            except ConnectionResetError:
                cause = "the client hung up"
            except OSError as error:
                cause = f"it cannot be written: {error.strerror}"
            finally:
                self._telemetry.emit(RecordingEnded(to, recording.size, recording.left_out, cause))


def _create(file: Path) -> int:
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def _write_all(opened: int, piece: bytes) -> None:
    while piece:
        piece = piece[os.write(opened, piece) :]


def recording_file(settings: RecordSettings) -> Path:
    """Return a new path for this process's recording; raises :class:`SettingsError` if its folder cannot be created."""
    folder = Path(settings.dir)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(Problem("record.dir", f"{folder} cannot be created: {error.strerror}")) from error
    return folder / datetime.now(UTC).strftime(f"recording-%Y%m%dT%H%M%S-{os.getpid()}.ndjson.gz")
