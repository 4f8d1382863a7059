"""JSON Schema of the Structs that stand in requests and replies, whatever msgspec's own generator cannot take.

It knows neither raw JSON nor defaults made of it, and calls two Structs of one name by their whole paths. So it is
given a likeness of each Struct: raw JSON as an open object or as anything, and a name of our choice.
"""

import re
import types
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias, Union, get_args, get_origin

import msgspec

Schema: TypeAlias = dict[str, Any]
Side: TypeAlias = Literal["request", "reply"]

PREFIX: Final = "#/components/schemas/"
ANYTHING: Final[Schema] = {}
OPEN: Final[Schema] = {"type": "object"}

_ROLE: Final = re.compile(r":\w+:`~?\.?([^`]+)`")


def components(
    requests: Mapping[str, type[msgspec.Struct]], replies: Mapping[str, type[msgspec.Struct]]
) -> dict[str, Schema]:
    """A schema for each name, and one for every Struct inside under its own.

    In requests what has a default may be missing, and raw JSON is an object of others. In replies everything is there
    that is not left out for being the default, and raw JSON is whatever came with the request.
    """
    likenesses = [*_Likenesses("request", requests).all(), *_Likenesses("reply", replies).all()]
    _, found = msgspec.json.schema_components(likenesses, ref_template=PREFIX + "{name}")
    return {name: _short(found[name]) for name in sorted(found)}


def ref(name: str) -> Schema:
    """The schema of that name."""
    return {"$ref": PREFIX + name}


def array(items: Schema) -> Schema:
    """A list of such."""
    return {"type": "array", "items": items}


def either(*schemas: Schema) -> Schema:
    """One of several, or more of them at once."""
    return {"anyOf": list(schemas)}


def having(**properties: Schema) -> Schema:
    """An object with these, and with whatever else."""
    return {"type": "object", "required": list(properties), "properties": properties}


def plain(docstring: str | None) -> str:
    """A docstring without the marks of reStructuredText."""
    text = " ".join((docstring or "").split())
    return _ROLE.sub(r"`\1`", text).replace("``", "`")


def _short(schema: Any) -> Any:
    """The same, said shorter: types that a value may have as a list of them, and descriptions in Markdown."""
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


class _Likenesses:
    """Structs as msgspec's generator can take them, each made once."""

    def __init__(self, side: Side, named: Mapping[str, type[msgspec.Struct]]) -> None:
        self._side = side
        self._names = {kind: name for name, kind in named.items()}
        self._made: dict[type[msgspec.Struct], type[msgspec.Struct]] = {}

    def all(self) -> list[type[msgspec.Struct]]:
        """The likeness of every named one."""
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
        always = self._side == "reply" and not kind.__struct_config__.omit_defaults
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
        """The annotation with likenesses in the places of what they are of."""
        if annotation is msgspec.Raw:
            return Any if self._side == "reply" else dict[str, Any]
        if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
            return self._of(annotation)
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is None or origin is Literal:
            return annotation
        inner = tuple(self._type(argument) for argument in arguments)
        return Union[inner] if origin in (Union, types.UnionType) else origin[inner]  # noqa: UP007 - made of a tuple
