"""Where a value is found: a dotted path into the event, a named source, or a key of the destination.

A path is written as in the event's JSON: ``properties.order_id``, ``context.page.url``, ``properties.products[0].sku``.
``@name`` is a function of :mod:`impact_transformers.sources`, for places that need logic to read; ``destination.key``
is a value of the configuration; constants and templates are those of :mod:`impact_transformers.templates`. Paths
compile to Python expressions, which the table compiler inlines.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, get_args

import msgspec

from impact_transformers.events import Context, Event, Part
from impact_transformers.templates import Placeholder, constant_of, is_template, pieces_of

NAMED_SOURCE: Final = ("@", "destination.")
"""How a source begins that is not a path of the event."""

_SEGMENT: Final = re.compile(r"[^.\[\]]+|\[\d+\]")

PARTS: Final = ("page", "app", "device", "os", "library", "referrer")
"""The objects of ``context`` that are decoded into Structs; generated code has a local variable for each."""


class PathError(ValueError):
    """The text is not a path; the message says why."""


class Access(msgspec.Struct, frozen=True):
    """How generated code reads one place.

    ``expression`` uses the locals ``event``, ``message``, ``context``, ``properties``, ``traits``, ``context_traits``
    and one for each of :data:`PARTS`. ``wide`` tells that it needs ``message``, the generically decoded event.
    ``root`` is the local it starts from; ``hoisted`` is a key of ``root`` whose object gets a local of its own,
    because several paths go through it (``traits.address.city``, ``traits.address.country``).
    """

    expression: str
    wide: bool = False
    root: str = "event"
    hoisted: str | None = None

    @property
    def inline(self) -> str:
        """The expression without a local of its own."""
        if self.hoisted is None:
            return self.expression
        return self.expression.replace(f"{self.root}_{self.hoisted}", f"object_at({self.root}, {self.hoisted!r})", 1)


def parse_path(path: str) -> tuple[str | int, ...]:
    """Split a path into keys and indices; raises :class:`PathError`."""
    text = path.strip().removeprefix("$.")
    if text.startswith("@"):
        raise PathError(f"{path!r} is not a named source; see the reference of parameters for their names")
    found = _SEGMENT.findall(text)
    if not found or "".join(found) != text.replace(".", ""):
        raise PathError(f"{path!r} is not a path such as properties.order_id")
    return tuple(int(part[1:-1]) if part.startswith("[") else part for part in found)


def dig(value: Any, keys: tuple[str | int, ...]) -> Any:
    """Follow ``keys`` into decoded JSON; None where the way ends."""
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(str(key))
        elif isinstance(value, list) and str(key).isascii() and str(key).isdigit():
            value = value[int(key)] if int(key) < len(value) else None
        else:
            return None
    return value


def event_access(path: str) -> Access:
    """How to read a path of the event."""
    first, *rest = parse_path(path)
    if first in ("properties", "traits") and rest:
        return _dict_access(str(first), tuple(rest))
    if first == "context" and rest:
        return _context_access(path, tuple(rest))
    name = _attribute(Event, first)
    if name is None or rest:
        return _wide_access(path)
    return Access(f"event.{name}")


def item_access(path: str) -> Access:
    """How to read a path of one product; the spellings of RudderStack's form (``products.sku``) are understood."""
    relative = re.sub(r"^(properties\.)?products(\[\])?\.", "", path.strip())
    return _dict_access("item", parse_path(relative))


def template_access(source: str, access: Callable[[str], Access]) -> Access:
    """How to read a template; ``access`` reads the paths in it."""
    parts, wide = [], False
    for piece in pieces_of(source):
        if isinstance(piece, Placeholder):
            found = access(piece.path)
            wide |= found.wide
            parts.append(f"filled({found.inline}, {piece.default!r})")
        else:
            parts.append(repr(piece))
    return Access(f"joined(({', '.join(parts)},))", wide=wide)


def path_problem(source: str) -> str | None:
    """What is wrong with a path, or with those in a template; None when nothing is."""
    if source.startswith(NAMED_SOURCE) or constant_of(source) is not None:
        return None
    paths = [piece.path for piece in pieces_of(source) if isinstance(piece, Placeholder)]
    try:
        for path in paths if is_template(source) else [source]:
            parse_path(path)
    except PathError as error:
        return str(error)
    return None


def _context_access(path: str, keys: tuple[str | int, ...]) -> Access:
    first, *rest = keys
    if first == "traits" and rest:
        return _dict_access("context_traits", tuple(rest))
    if first in PARTS and len(rest) == 1:
        name = _attribute(_part_type(str(first)), rest[0])
        return Access(f"{first}.{name}") if name else _wide_access(path)
    name = None if rest else _attribute(Context, first)
    return Access(f"context.{name}") if name and first not in PARTS else _wide_access(path)


def _part_type(name: str) -> type[Part]:
    kind: type[Part] = get_args(next(f.type for f in msgspec.structs.fields(Context) if f.name == name))[0]
    return kind


def _attribute(struct: type[msgspec.Struct], key: str | int) -> str | None:
    """The attribute that holds the JSON key, when it is a leaf of the Struct."""
    for field in msgspec.structs.fields(struct):
        if field.encode_name == key and str in get_args(field.type):
            return field.name
    return None


def _dict_access(local: str, keys: tuple[str | int, ...]) -> Access:
    first, *rest = keys
    if not rest:
        return Access(f"{local}.get({str(first)!r})", root=local)
    name = str(first)
    # Python reads identifiers in a normal form, so only plain letters may become part of a local's name.
    if len(rest) == 1 and name.isascii() and name.isidentifier() and isinstance(rest[0], str) and not rest[0].isdigit():
        return Access(f"{local}_{name}.get({rest[0]!r})", root=local, hoisted=name)
    return Access(f"dig({local}, {keys!r})", root=local)


def _wide_access(path: str) -> Access:
    return Access(f"dig(message, {parse_path(path)!r})", wide=True)
