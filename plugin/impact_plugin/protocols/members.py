"""Fallback for a body that cannot be decoded as a whole: splits it into members without decoding them.

Anyone with a shop's public write key can send an event nested a thousand levels deep, or with half a surrogate pair.
Refusing the whole body would block the router forever, since it retries the same batch. We therefore find the members
of an object or array by their brackets alone, and reject only those that cannot be decoded.
"""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{},:]', re.DOTALL)
_OPEN: Final = (b"{", b"[")
_CLOSE: Final = (b"}", b"]")


def members(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the top-level members of a JSON object (key and raw value) or array (with empty keys).

    Yields nothing for other values, and stops at unbalanced brackets.
    """
    depth, start, key = 0, 0, ""
    for found in _TOKEN.finditer(raw):
        token = found.group()
        if token in _OPEN:
            depth += 1
            start = found.end() if depth == 1 else start
        elif token == b":" and depth == 1:
            key, start = _key(raw[start : found.start()]), found.end()
        elif depth == 1 and (token == b"," or token in _CLOSE):
            value = raw[start : found.start()].strip()
            if value:
                yield key, value
            key, start = "", found.end()
        if token in _CLOSE:
            depth -= 1
            if depth <= 0:
                return


def _key(raw: bytes) -> str:
    try:
        return msgspec.json.decode(raw, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
