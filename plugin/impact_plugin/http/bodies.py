"""Request bodies: read whole, inflated by ourselves so that what is passed on stays as it came, and bounded."""

import zlib
from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import web

from impact_plugin.errors import EnvelopeError

MEMBERS: Final = 64
"""Members of one compressed body; each costs a pass over the rest."""

_WINDOWS: Final = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class RequestBody(msgspec.Struct, frozen=True):
    """A body as it came and as it reads; the same bytes where it was not compressed."""

    raw: bytes
    text: bytes


async def read_body(request: web.Request, limit: int) -> RequestBody:
    """Read and inflate; raises :class:`EnvelopeError` for an encoding we do not know or a stream that is cut off.

    ``limit`` bounds the bytes after inflation; beyond it :class:`web.HTTPRequestEntityTooLarge` is raised.
    """
    return _settled(request, await request.read(), limit)


async def read_bounded(request: web.Request, limit: int, held: Callable[[int], None]) -> RequestBody:
    """As :func:`read_body`, and no more than ``limit`` bytes are taken in before inflation either.

    ``held`` is told how many bytes there are whenever they become more, and may raise to have no more of them.
    """
    if (request.content_length or 0) > limit:
        raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=request.content_length or 0)
    pieces: list[bytes] = []
    size = 0
    async for piece in request.content.iter_any():
        size += len(piece)
        if size > limit:
            raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=size)
        held(size)
        pieces.append(piece)
    body = _settled(request, b"".join(pieces), limit)
    held(len(body.text))
    return body


def _settled(request: web.Request, raw: bytes, limit: int) -> RequestBody:
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return RequestBody(raw, raw)
    if encoding not in _WINDOWS:
        raise EnvelopeError(f"the encoding {encoding[:16]!a} is not understood; send gzip or nothing")
    return RequestBody(raw, _inflate(raw, _WINDOWS[encoding], limit))


def _inflate(raw: bytes, window: int, limit: int) -> bytes:
    """All members of the stream, one after the other."""
    pieces: list[bytes] = []
    size = 0
    for _ in range(MEMBERS):
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
    raise EnvelopeError(f"the compressed body has more than {MEMBERS} members; send it as one")
