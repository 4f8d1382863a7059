"""Request bodies: read whole, inflated by ourselves so that what is passed on stays as it came, and bounded."""

import zlib
from typing import Final

import msgspec
from aiohttp import web

from impact_plugin.errors import EnvelopeError

_WINDOWS: Final = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class RequestBody(msgspec.Struct, frozen=True):
    """A body as it came and as it reads; the same bytes where it was not compressed."""

    raw: bytes
    text: bytes


async def read_body(request: web.Request, limit: int) -> RequestBody:
    """Read and inflate; raises :class:`EnvelopeError` for an encoding we do not know or a stream that is cut off.

    ``limit`` bounds the bytes after inflation; beyond it :class:`web.HTTPRequestEntityTooLarge` is raised.
    """
    raw = await request.read()
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return RequestBody(raw, raw)
    if encoding not in _WINDOWS:
        raise EnvelopeError(f"the encoding {encoding[:16]} is not understood; send gzip or nothing")
    return RequestBody(raw, _inflate(raw, _WINDOWS[encoding], limit))


def _inflate(raw: bytes, window: int, limit: int) -> bytes:
    inflater = zlib.decompressobj(window)
    try:
        text = inflater.decompress(raw, limit + 1)
    except zlib.error as error:
        raise EnvelopeError(f"the body cannot be inflated: {error}") from error
    if len(text) > limit:
        raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=len(text))
    if not inflater.eof:
        raise EnvelopeError("the compressed body is cut off")
    return text
