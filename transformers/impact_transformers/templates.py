"""Values that are written rather than found: constants in quotes, and text with places of the event in it.

``'newsletter'`` is a constant. ``{{ properties.shop }}-{{ properties.number || "0" }}`` puts texts of the event
together; what follows ``||`` stands for a text that is not there.
"""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

TEMPLATE: Final = re.compile(
    r"\{\{\s*(?:event\.|message\.)?(?P<path>[^|{}]+?)\s*(?:\|\|\s*(?P<default>.*?)\s*)?\}\}", re.DOTALL
)
_CONSTANT: Final = re.compile(r"\s*(['\"])(?P<text>.*)\1\s*", re.DOTALL)


class Placeholder(msgspec.Struct, frozen=True):
    """A place of the event within a text; ``default`` stands for it where it holds nothing."""

    path: str
    default: str | None = None


def constant_of(source: str) -> str | None:
    """The text of a constant; None for everything else."""
    found = _CONSTANT.fullmatch(source)
    return found["text"] if found and not TEMPLATE.search(source) else None


def is_template(source: str) -> bool:
    """Whether places of the event stand in the text."""
    return TEMPLATE.search(source) is not None


def pieces_of(source: str) -> Iterator[str | Placeholder]:
    """The texts and places of a template, in order."""
    end = 0
    for found in TEMPLATE.finditer(source):
        if found.start() > end:
            yield source[end : found.start()]
        default = found["default"]
        yield Placeholder(found["path"], None if default is None else default.strip("\"'"))
        end = found.end()
    if end < len(source):
        yield source[end:]
