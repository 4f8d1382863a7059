"""Mapping rows become one Python function per table and destination, as attrs and dataclasses make theirs.

The function holds an inlined look-up for each path and a call of the row's rule, nothing else; walking the rows of a
table for each event would cost more than decoding the event. :func:`trace` walks the same rows the slow way and tells
what was tried; a property test keeps the two equal.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from types import CodeType
from typing import Any, Final, TypeAlias

import msgspec

from impact_transformers import events, sources
from impact_transformers.amounts import Reading
from impact_transformers.consent import listed_consent, parse_consent_path
from impact_transformers.fields import MappingRow, ValueRule
from impact_transformers.normalize import as_text
from impact_transformers.outcome import Notice, UnusableValueError
from impact_transformers.paths import PARTS, Access, dig, event_access, item_access, template_access
from impact_transformers.templates import constant_of, is_template
from impact_transformers.trail import Step, Try

Fill: TypeAlias = Callable[[Any, Any, dict[str, Any], str, list[Notice]], None]
"""``fill(event or product, message, form, index, notices)`` adds the parameters to ``form``.

What must not be sent is told in ``notices`` and the next path is tried.
"""

Named: TypeAlias = Mapping[str, Callable[..., Any]]
"""Named sources that are a destination's own, in the place of those of the same name."""


class ValueSource(msgspec.Struct, frozen=True):
    """One place of a row: its path as written, and how to read it (a constant when it is the destination's)."""

    path: str
    access: Access | None = None
    constant: str | None = None


class Compiled(msgspec.Struct, frozen=True):
    """A row whose paths and rule are resolved for one destination."""

    row: MappingRow
    sources: tuple[ValueSource, ...]
    rule: ValueRule

    @property
    def fixed(self) -> bool:
        """Whether the value is the destination's alone and can be worked out once."""
        return bool(self.sources) and all(source.constant is not None for source in self.sources)

    @property
    def wide(self) -> bool:
        """Whether a path needs the generically decoded event."""
        return any(source.access is not None and source.access.wide for source in self.sources)


_BLANK_IS_NOTHING: Final = frozenset({"date", "email", "ip_address", "readable", "url", "visitor_id"})
"""Rules for which no blank value (empty text, zero, false) is of use: it need not be handed to them."""

_EVENT_LOCALS: Final = (
    ("context", "event.context or NO_CONTEXT"),
    ("properties", "event.properties or EMPTY"),
    ("traits", "event.traits or EMPTY"),
    ("context_traits", "context.traits or EMPTY"),
    *((part, f"context.{part} or NO_{part.upper()}") for part in PARTS),
)
_NAMESPACE: Final = {
    "EMPTY": {},
    "NO_CONTEXT": events.NO_CONTEXT,
    **{f"NO_{part.upper()}": getattr(events, f"NO_{part.upper()}") for part in PARTS},
    **{f"named_{name}": source.function for name, source in sources.NAMED.items()},
    "dig": dig,
    "listed_consent": listed_consent,
    "UnusableValueError": UnusableValueError,
}


def source_of(path: str, constants: Mapping[str, str], *, item: bool = False) -> ValueSource:
    """Resolve one entry of a row's ``from``."""
    if path.startswith("destination."):
        return ValueSource(path, constant=constants.get(path.removeprefix("destination."), ""))
    if path in constants:
        return ValueSource(path, constant=constants[path])
    constant = constant_of(path)
    if constant is not None:
        return ValueSource(path, constant=constant)
    if is_template(path):
        return ValueSource(path, access=template_access(path, item_access if item else event_access))
    if path.startswith("@"):
        arguments = ", ".join(sources.NAMED[path[1:]].arguments)
        return ValueSource(path, access=Access(f"named_{path[1:]}({arguments})"))
    return ValueSource(path, access=item_access(path) if item else event_access(path))


def consent_source_of(entry: str) -> ValueSource:
    """Resolve one entry of ``consentPaths``."""
    found = parse_consent_path(entry)
    access = event_access(found.path)
    if found.id is not None:
        expression = f"listed_consent({access.inline}, {found.id!r}, {found.denies})"
        access = Access(expression, wide=access.wide)
    return ValueSource(entry, access)


def compile_fill(rows: Sequence[Compiled], named: Named, *, item: bool = False) -> Fill:
    """Generate the function that fills a form from an event, or from one product of it (``item``)."""
    namespace = _scope(named)
    parameter = "item" if item else "event"
    lines = [f"def fill({parameter}, message, form, index, notices):", *_indent(_locals(rows, item=item))]
    for guard, guarded in _by_guard(rows):
        body = [line for number, row in guarded for line in _row_lines(row, number, namespace)]
        lines += _indent([f"if {guard}:", *_indent(body)] if guard and body else body)
    lines.append("    return None")
    text = "\n".join(lines) + "\n"
    exec(compile(text, "<impact_transformers mapping>", "exec"), namespace)  # noqa: S102 - generated from our own tables and checked paths
    fill: Fill = namespace["fill"]
    return fill


def _scope(named: Named) -> dict[str, Any]:
    own = {f"named_{name}": function for name, function in named.items()}
    return dict(_NAMESPACE, object_at=object_at, filled=filled, joined=joined, **own)


def _locals(rows: Sequence[Compiled], *, item: bool) -> list[str]:
    """The statements that give the generated code its local names."""
    hoists = dict.fromkeys(
        (source.access.root, source.access.hoisted)
        for row in rows
        for source in row.sources
        if source.access is not None and source.access.hoisted is not None
    )
    return [
        *(() if item else _event_locals(rows)),
        *(f"{root}_{key} = object_at({root}, {key!r})" for root, key in hoists),
    ]


def _event_locals(rows: Sequence[Compiled]) -> list[str]:
    """Those of the event's parts that a row reads; ``device`` also decides whether its rows apply."""
    accesses = [source.access for row in rows for source in row.sources if source.access is not None]
    text = " ".join([*(access.expression for access in accesses), *(access.root for access in accesses)])
    used = {name for name, _ in _EVENT_LOCALS if re.search(rf"\b{name}\b", text)}
    if any(row.row.when == "device" for row in rows):
        used.add("device")
    return [f"{name} = {expression}" for name, expression in _EVENT_LOCALS if name in used | {"context"}]


def _by_guard(rows: Sequence[Compiled]) -> list[tuple[str, list[tuple[int, Compiled]]]]:
    """The rows, numbered, under the condition that must hold for them to find anything; "" is always."""
    groups: dict[str, list[tuple[int, Compiled]]] = {}
    for number, row in enumerate(rows):
        if row.sources:
            groups.setdefault(_guard(row), []).append((number, row))
    return sorted(groups.items())


def _guard(row: Compiled) -> str:
    if row.row.when == "device":
        return "device is not NO_DEVICE"
    roots = {source.access.root if source.access else "" for source in row.sources}
    return " or ".join(sorted(roots)) if roots <= {"traits", "context_traits"} else ""


def _indent(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def object_at(value: dict[str, Any], key: str) -> dict[str, Any]:
    """The object under ``key``, or an empty one."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def filled(value: Any, default: str | None) -> str | None:
    """A place of a template as text; ``default`` where it holds none."""
    found = as_text(value)
    return default if found is None else found


def joined(parts: tuple[str | None, ...]) -> str | None:
    """A template as text; None when one of its places holds nothing."""
    return None if None in parts else "".join(part for part in parts if part is not None)


def _row_lines(row: Compiled, number: int, namespace: dict[str, Any]) -> list[str]:
    """The statements of one row."""
    target = repr(row.row.param)
    if "{i}" in row.row.param:
        before, after = row.row.param.split("{i}")
        target = f"{before!r} + index + {after!r}" if after else f"{before!r} + index"
    if row.fixed:
        value = _first(row.rule(source.constant) for source in row.sources)
        return [] if value is None else [f"form[{target}] = {value!r}"]
    namespace[f"rule_{number}"] = row.rule
    useless = "not value" if row.row.rule in _BLANK_IS_NOTHING else "value is None"
    lines: list[str] = []
    indent = ""
    for source in row.sources:
        expression = repr(source.constant) if source.access is None else source.access.expression
        lines += [
            f"{indent}value = {expression}",
            f"{indent}try:",
            f"{indent}    text = None if {useless} else rule_{number}(value)",
            f"{indent}except UnusableValueError as unusable:",
            f"{indent}    notices.append(unusable.as_notice({target}, {source.path!r}))",
            f"{indent}    text = unusable.instead",
            f"{indent}if text is not None:",
            f"{indent}    form[{target}] = text",
            f"{indent}else:",
        ]
        indent += "    "
    return [*lines, f"{indent}pass"]


def _first(values: Any) -> str | None:
    return next((value for value in values if value is not None), None)


def trace(
    rows: Sequence[Compiled], subject: Any, message: Any, named: Named, index: str = "", *, item: bool = False
) -> Iterator[Step]:
    """Do what the compiled function does, and say for each row what was tried and what won."""
    scope = {**_scope(named), "message": message, "item" if item else "event": subject}
    for line in _locals(rows, item=item):
        name, expression = line.split(" = ")
        scope[name] = _evaluate(expression, scope)
    has_device = scope.get("device") is not events.NO_DEVICE
    for row in rows:
        if row.row.when != "device" or has_device:
            yield _trace_row(row, scope, index)


def _trace_row(row: Compiled, scope: dict[str, Any], index: str) -> Step:
    tries: list[Try] = []
    for source in row.sources:
        value = source.constant if source.access is None else _evaluate(source.access.expression, scope)
        found = value is not None and value != ""
        refused = None
        try:
            result = row.rule(value) if found else None
        except UnusableValueError as unusable:
            result, refused = unusable.instead, unusable.detail
        tries.append(Try(source.path, found, None if result is None else _shown(result), refused))
        if result is not None:
            break
    name = row.row.param.replace("{i}", index)
    return Step(name, row.row.rule, tuple(tries), _first(one.result for one in tries))


def _shown(result: Any) -> str:
    """What a rule made of a value, as text; amounts and products are read, not sent."""
    if isinstance(result, Reading):
        return f"{result.amount():f}" + (" %" if result.percent else "")
    return f"{len(result)} products" if isinstance(result, list) else str(result)


def _evaluate(expression: str, scope: dict[str, Any]) -> Any:
    return eval(_code(expression), scope)  # noqa: S307 - the very expression the compiled function runs


@lru_cache(maxsize=4096)
def _code(expression: str) -> CodeType:
    return compile(expression, "<impact_transformers path>", "eval")
