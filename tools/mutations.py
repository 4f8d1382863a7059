"""Small mistakes, made on purpose in the core: in its functions, in its tables, and in the rows of its mappings.

``make mutants`` makes each of them in turn and runs the tests of the core, which should notice. Texts for people (those
with a blank in them), docstrings, annotations and the options of classes are left alone: they are no behaviour.
"""

import ast
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import CodeType
from typing import Any, Final, Literal, NamedTuple, TypeAlias

CORE: Final = Path(__file__).parents[1] / "transformers" / "impact_transformers"
SHOWN: Final = 70
"""Characters of a piece of code that are shown."""

Kind: TypeAlias = Literal["function", "table", "row"]

_COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_CALLS: Final = {"any": "all", "all": "any", "min": "max", "max": "min"}
_SKIPPED: Final = frozenset({"annotation", "returns", "decorator_list", "type_comment", "type_params", "bases", "msg"})
"""Fields of the tree that are left alone."""

_TYPES: Final = ("TypeAlias", "TypeVar", "Protocol")

_RULES: Final = ("text", "identifier")
"""What a row's rule is changed to, whichever it is not."""


class Mutant(NamedTuple):
    """One mistake: in which file (below the core) and where, what is changed, and the changed file.

    ``code`` is the module with the mistake, None for a mapping, whose ``text`` it is then.
    """

    file: str
    kind: Kind
    place: str
    what: str
    number: int
    line: int
    edit: "Edit | None" = None
    text: str = ""

    @property
    def id(self) -> str:
        """The same for the same mistake in the same place, however the rest of the file changes."""
        facts = "\x1f".join((self.file, self.place, self.what, str(self.number)))
        return hashlib.blake2b(facts.encode(), digest_size=8).hexdigest()

    @property
    def name(self) -> str:
        """Where it is, for people."""
        return f"{self.file}:{self.line} {self.place}"

    def code(self) -> CodeType:
        """Compile the module with the mistake in it."""
        if self.edit is None:
            raise ValueError(f"{self.name}: is a row, not code")
        return self.edit.compiled(str(CORE / self.file))


class Edit(NamedTuple):
    """One change of a tree: ``new`` takes the place ``at`` in ``holder``, a list or a node."""

    tree: ast.Module
    holder: Any
    at: Any
    new: ast.AST

    def compiled(self, name: str) -> CodeType:
        """Make the change, compile the tree, and take the change back."""
        before = self._swap(self.new)
        try:
            return compile(ast.fix_missing_locations(self.tree), name, "exec")
        finally:
            self._swap(before)

    def _swap(self, new: ast.AST) -> ast.AST:
        before: ast.AST
        if isinstance(self.holder, list):
            before, self.holder[self.at] = self.holder[self.at], new
        else:
            before = getattr(self.holder, self.at)
            setattr(self.holder, self.at, new)
        return before


def all_mutants() -> list[Mutant]:
    """Every mistake, by file and place."""
    found: list[Mutant] = []
    for path in sorted(CORE.glob("*.py")):
        # The package's own module only says what is public.
        found += code_mutants(path.name, path.read_text(encoding="utf-8")) if path.name != "__init__.py" else ()
    for path in sorted((CORE / "mappings").glob("*.toml")):
        found += row_mutants(f"mappings/{path.name}", path.read_text(encoding="utf-8"))
    return found


def code_mutants(file: str, source: str) -> list[Mutant]:
    """The mistakes in one module."""
    return [*_Walk(file, source).mutants()]


class _Walk:
    """Goes through the tree of one module and proposes a change at every place that has one."""

    def __init__(self, file: str, source: str) -> None:
        self._file = file
        self._tree = ast.parse(source)
        self._seen: Counter[tuple[str, str]] = Counter()

    def mutants(self) -> Iterator[Mutant]:
        """All of them."""
        yield from self._below(self._tree, (), in_function=False)

    def _below(self, node: ast.AST, names: tuple[str, ...], *, in_function: bool) -> Iterator[Mutant]:
        if isinstance(node, ast.AnnAssign) and any(name in ast.unparse(node.annotation) for name in _TYPES):
            return
        for field, value in ast.iter_fields(node):
            if field in _SKIPPED or (isinstance(node, ast.ClassDef) and field == "keywords"):
                continue
            holder: Any = value if isinstance(value, list) else node
            for at, child in enumerate(value) if isinstance(value, list) else [(field, value)]:
                if isinstance(child, ast.AST) and not _is_docstring(child):
                    yield from self._at(child, holder, at, names, in_function=in_function)

    def _at(
        self, node: ast.AST, holder: Any, at: Any, names: tuple[str, ...], *, in_function: bool
    ) -> Iterator[Mutant]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = (*names, node.name)
        place = ".".join(names) or _assigned(node) or "(module)"
        if not names and isinstance(node, ast.Assign | ast.AnnAssign):
            names = (place,)
        inside = in_function or isinstance(node, ast.FunctionDef)
        slot = _Slot(holder, at, place, in_function)
        for new in _replacements(node, in_function=in_function):
            yield self._mutant(slot, node, new, f"{_shown(node)} -> {_shown(new)}")
        if not in_function:
            for new, entry in _without_one(node):
                yield self._mutant(slot, node, new, f"{_shown(entry)} -> (nothing)")
        yield from self._below(node, names, in_function=inside)

    def _mutant(self, slot: "_Slot", node: ast.AST, new: ast.AST, what: str) -> Mutant:
        self._seen[slot.place, what] += 1
        number, line = self._seen[slot.place, what], getattr(node, "lineno", 0)
        kind: Kind = "function" if slot.in_function else "table"
        edit = Edit(self._tree, slot.holder, slot.at, ast.copy_location(new, node))
        return Mutant(self._file, kind, slot.place, what, number, line, edit)


class _Slot(NamedTuple):
    """Where a node stands: in a list or a field, in the code of which name, and whether a function's."""

    holder: Any
    at: Any
    place: str
    in_function: bool


def _replacements(node: ast.AST, *, in_function: bool) -> Iterator[ast.AST]:
    """What a node may be changed to."""
    yield from _operators(node)
    if isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.If | ast.While) and not isinstance(node.test, ast.Compare | ast.BoolOp | ast.UnaryOp):
        yield _with(node, test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Return) and not (node.value is None or isinstance(node.value, ast.Constant)):
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and in_function:
        yield ast.Pass()
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield _with(node, ifs=node.ifs[1:])
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
        yield _with(node, func=ast.Name(_CALLS[node.func.id], ast.Load()))
    elif isinstance(node, ast.Break | ast.Continue):
        yield ast.Continue() if isinstance(node, ast.Break) else ast.Break()


def _operators(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        for at, operator in enumerate(node.ops):
            yield _with(node, ops=[*node.ops[:at], _COMPARISONS[type(operator)](), *node.ops[at + 1 :]])
    elif isinstance(node, ast.BoolOp):
        yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _ARITHMETIC:
        yield _with(node, op=_ARITHMETIC[type(node.op)]())


def _constants(node: ast.Constant) -> Iterator[ast.AST]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
    elif isinstance(value, str) and value and not re.search(r"\s", value):
        yield ast.Constant(f"{value}XX")


def _without_one(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """A collection less one of its entries, and that entry."""
    if isinstance(node, ast.Dict):
        for at, key in enumerate(node.keys):
            rest = ast.Dict(node.keys[:at] + node.keys[at + 1 :], node.values[:at] + node.values[at + 1 :])
            yield rest, node.values[at] if key is None else key
    elif isinstance(node, ast.Set | ast.Tuple | ast.List):
        for at, entry in enumerate(node.elts):
            yield _with(node, elts=node.elts[:at] + node.elts[at + 1 :]), entry


def _with(node: ast.AST, **changes: Any) -> ast.AST:
    """A copy of the node with other fields; its parts are shared, since nothing changes within them."""
    made = type(node)(**{**dict(ast.iter_fields(node)), **changes})
    return ast.copy_location(made, node)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _assigned(node: ast.AST) -> str:
    """The name that a statement of the module gives something."""
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    return target.id if isinstance(target, ast.Name) else ""


def _shown(node: ast.AST) -> str:
    if isinstance(node, ast.If | ast.While):
        text = f"{'if' if isinstance(node, ast.If) else 'while'} {ast.unparse(node.test)}"
    elif isinstance(node, ast.comprehension):
        text = ast.unparse(node).strip()
    else:
        text = ast.unparse(node)
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


_ROW: Final = re.compile(r"^\[\[parameter\]\]\n(?:(?!\[\[).*\n?)*", re.MULTILINE)
_FIELD: Final = re.compile(r"^(\w+) = (.*)$", re.MULTILINE)


def row_mutants(file: str, text: str) -> list[Mutant]:
    """The mistakes in the rows of one mapping."""
    found: list[Mutant] = []
    seen: Counter[tuple[str, str]] = Counter()
    for row in _ROW.finditer(text):
        fields = dict(_FIELD.findall(row[0]))
        place = json.loads(fields["param"])
        line = text.count("\n", 0, row.start()) + 1
        for what, changed in _row_changes(row[0], fields):
            seen[place, what] += 1
            whole = text[: row.start()] + changed + text[row.end() :]
            found.append(Mutant(file, "row", place, what, seen[place, what], line, text=whole))
    return found


def _row_changes(row: str, fields: dict[str, str]) -> Iterator[tuple[str, str]]:
    """What is changed in a row, and the row with the change."""
    yield "the row -> (nothing)", ""
    paths = json.loads(fields["from"])
    for what, changed in _path_changes(paths):
        yield what, _field_set(row, "from", json.dumps(changed))
    rule = json.loads(fields["as"])
    other = next(one for one in _RULES if one != rule)
    yield f"as {rule} -> {other}", _field_set(row, "as", json.dumps(other))
    for limit in ("max", "digits"):
        if limit in fields:
            for change in (-1, 1):
                value = int(fields[limit]) + change
                yield f"{limit} {fields[limit]} -> {value}", _field_set(row, limit, str(value))
    for flag in ("required", "when", "overlong"):
        if flag in fields:
            yield f"{flag} {fields[flag]} -> (nothing)", re.sub(rf"^{flag} = .*\n", "", row, flags=re.MULTILINE)


def _path_changes(paths: list[str]) -> Iterator[tuple[str, list[str]]]:
    for at, path in enumerate(paths):
        yield f"{path} -> (nothing)", paths[:at] + paths[at + 1 :]
        shorter, dot, _ = path.rpartition(".")
        if dot:
            yield f"{path} -> {shorter}", [*paths[:at], shorter, *paths[at + 1 :]]
    for at, (one, other) in enumerate(pairwise(paths)):
        yield f"{one}, {other} -> {other}, {one}", [*paths[:at], other, one, *paths[at + 2 :]]


def _field_set(row: str, name: str, value: str) -> str:
    return re.sub(rf"^{name} = .*$", lambda _: f"{name} = {value}", row, flags=re.MULTILINE)
