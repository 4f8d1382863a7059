"""Reads request bodies, bounded in size.

We decompress them ourselves, so that a request passed through to the upstream keeps its body byte for byte.
"""

import zlib
from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import web

from impact_plugin.errors import EnvelopeError

MAX_MEMBERS: Final = 64
"""Members of one compressed body; decompressing each copies the rest of the body."""

_WINDOWS: Final = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class RequestBody(msgspec.Struct, frozen=True):
    """A body as received (``raw``) and decompressed (``text``); the same bytes unless it was compressed."""

    raw: bytes
    text: bytes


async def read_body(request: web.Request, limit: int) -> RequestBody:
    """Read and decompress the body.

    ``limit`` is in bytes, after decompression; a larger body raises :class:`web.HTTPRequestEntityTooLarge`. An unknown
    encoding or a truncated stream raises :class:`EnvelopeError`.
    """
    return _decoded(request, await request.read(), limit)


async def read_bounded(request: web.Request, limit: int, on_size: Callable[[int], None]) -> RequestBody:
    """Like :func:`read_body`, but apply ``limit`` to the compressed bytes as well.

    ``on_size`` is called with the number of bytes in memory whenever it grows; it may raise to stop the reading.
    """
    if (request.content_length or 0) > limit:
        raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=request.content_length or 0)
    pieces: list[bytes] = []
    size = 0
    async for piece in request.content.iter_any():
        size += len(piece)
        if size > limit:
            raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=size)
        on_size(size)
        pieces.append(piece)
    body = _decoded(request, b"".join(pieces), limit)
    on_size(len(body.text))
    return body


def _decoded(request: web.Request, raw: bytes, limit: int) -> RequestBody:
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return RequestBody(raw, raw)
    if encoding not in _WINDOWS:
        raise EnvelopeError(f"the encoding {encoding[:16]!a} is not understood; send gzip or nothing")
    return RequestBody(raw, _inflate(raw, _WINDOWS[encoding], limit))


def _inflate(raw: bytes, window: int, limit: int) -> bytes:
    """Decompress all members of the stream."""
    pieces: list[bytes] = []
    size = 0
    for _ in range(MAX_MEMBERS):
        inflater = zlib.decompressobj(window)
        try:
            piece = inflater.decompress(raw, limit + 1 - size)
        except zlib.error as error:
            raise EnvelopeError(f"the body cannot be inflated: {error}") from error
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=size)
        if not inflater.eof:
            raise EnvelopeError("the compressed body is cut off")
        raw = inflater.unused_data
        if not raw:
            return b"".join(pieces)
    raise EnvelopeError(f"the compressed body has more than {MAX_MEMBERS} members; send it as one")
