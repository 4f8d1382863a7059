"""JSON Schemas of the Structs of request and response bodies.

msgspec's generator supports neither raw JSON nor defaults of it, and uses qualified names for Structs of the same name.
We therefore pass it a stand-in for each Struct, in which raw JSON is an open object or anything, under our own name.
"""

import re
import types
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias, Union, get_args, get_origin

import msgspec

Schema: TypeAlias = dict[str, Any]
Direction: TypeAlias = Literal["request", "response"]

PREFIX: Final = "#/components/schemas/"
ANYTHING: Final[Schema] = {}
OPEN: Final[Schema] = {"type": "object"}

_ROLE: Final = re.compile(r":\w+:`~?\.?([^`]+)`")


def components(
    requests: Mapping[str, type[msgspec.Struct]], responses: Mapping[str, type[msgspec.Struct]]
) -> dict[str, Schema]:
    """Return a schema for each name, and one for every nested Struct under its own name.

    In requests fields with a default are optional, and raw JSON is an object. In responses every field is required
    unless its Struct omits defaults, and raw JSON is anything, since it is echoed from the request.
    """
    stand_ins = [*_StandIns("request", requests).all(), *_StandIns("response", responses).all()]
    _, found = msgspec.json.schema_components(stand_ins, ref_template=PREFIX + "{name}")
    return {name: _short(found[name]) for name in sorted(found)}


def ref(name: str) -> Schema:
    """Return a reference to the schema of that name."""
    return {"$ref": PREFIX + name}


def array(items: Schema) -> Schema:
    """Return the schema of an array of ``items``."""
    return {"type": "array", "items": items}


def either(*schemas: Schema) -> Schema:
    """Return the schema of a value that matches at least one of several."""
    return {"anyOf": list(schemas)}


def having(**properties: Schema) -> Schema:
    """Return the schema of an object with these properties, and possibly others."""
    return {"type": "object", "required": list(properties), "properties": properties}


def plain(docstring: str | None) -> str:
    """Return a docstring without its reStructuredText markup."""
    text = " ".join((docstring or "").split())
    return _ROLE.sub(r"`\1`", text).replace("``", "`")


def _short(schema: Any) -> Any:
    """Return the schema with alternative types as one list, and descriptions in Markdown."""
    if isinstance(schema, list | tuple):
        return [_short(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _short(value) for key, value in schema.items() if (key, value) != ("required", [])}
    if "description" in kept and isinstance(kept["description"], str):
        kept["description"] = plain(kept["description"])
    choices = kept.get("anyOf", [])
    if choices and all(isinstance(one.get("type"), str) and len(one) == 1 for one in choices):
        del kept["anyOf"]
        found = [one["type"] for one in choices]
        # Every integer is a number.
        kept["type"] = [name for name in found if name != "integer" or "number" not in found]
    return kept


class _StandIns:
    """Stand-ins of Structs that msgspec's generator supports, each created once."""

    def __init__(self, direction: Direction, named: Mapping[str, type[msgspec.Struct]]) -> None:
        self._direction = direction
        self._names = {kind: name for name, kind in named.items()}
        self._made: dict[type[msgspec.Struct], type[msgspec.Struct]] = {}

    def all(self) -> list[type[msgspec.Struct]]:
        """Return the stand-ins of all named Structs."""
        return [self._of(kind) for kind in self._names]

    def _of(self, kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
        if kind not in self._made:
            self._made[kind] = msgspec.defstruct(
                self._names.get(kind, kind.__name__),
                [self._field(field, kind) for field in msgspec.structs.fields(kind)],
                namespace={"__doc__": kind.__doc__},
                kw_only=True,
                forbid_unknown_fields=kind.__struct_config__.forbid_unknown_fields,
            )
        return self._made[kind]

    def _field(self, field: msgspec.structs.FieldInfo, kind: type[msgspec.Struct]) -> tuple[str, Any, Any]:
        name = field.name
        always = self._direction == "response" and not kind.__struct_config__.omit_defaults
        if field.required or always:
            default = msgspec.field(name=field.encode_name)
        elif isinstance(field.default, msgspec.Raw | msgspec.Struct):
            default = msgspec.field(name=field.encode_name, default_factory=dict)
        elif field.default_factory is not msgspec.NODEFAULT:
            default = msgspec.field(name=field.encode_name, default_factory=field.default_factory)
        else:
            default = msgspec.field(name=field.encode_name, default=field.default)
        return name, self._type(field.type), default

    def _type(self, annotation: Any) -> Any:
        """Return the annotation with every Struct replaced by its stand-in."""
        if annotation is msgspec.Raw:
            return Any if self._direction == "response" else dict[str, Any]
        if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
            return self._of(annotation)
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is None or origin is Literal:
            return annotation
        inner = tuple(self._type(argument) for argument in arguments)
        return Union[inner] if origin in (Union, types.UnionType) else origin[inner]  # noqa: UP007 - built from a tuple
