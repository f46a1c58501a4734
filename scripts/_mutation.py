"""The mutants of a module: for `mutants`, which says what they are for.

Each has one small change of what the code does. Left out is what does nothing when the program runs as it should:
annotations, docstrings, assertions (they speak to the type checker), imports, ``__slots__`` and ``__all__``.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator

Path = tuple["tuple[str, int | None]", ...]
Change = tuple[str, "ast.AST | None"]  # the operator's name, and what stands there instead; None: nothing

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
}  # fmt: skip
_UNSEEN = {"annotation", "returns", "decorator_list", "bases", "type_params"}
_CONTEXT = 60  # characters of a statement shown on each side of the change


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change to one module."""

    module: str
    """Its path within protocol/, without ``.py``."""
    function: str
    """The qualified name of the function; "" for what runs when the module is imported."""
    operator: str
    before: str
    """The statement, cut to the change's neighbourhood; of one that holds others, its head."""
    after: str
    number: int
    """Among those that the above does not tell apart."""
    lines: tuple[int, int]
    """Of the statement."""
    _tree: ast.Module = dataclasses.field(compare=False, repr=False)
    _path: Path = dataclasses.field(compare=False, repr=False)
    _new: ast.AST | None = dataclasses.field(compare=False, repr=False)

    @property
    def name(self) -> str:
        """What it is known by; it stays the same wherever the function moves."""
        again = f" #{self.number}" if self.number > 1 else ""
        return f"{self.module}:{self.function or 'module'}: {self.before} => {self.after}{again}"

    def tree(self) -> ast.Module:
        """The module, changed."""
        return _replaced(self._tree, self._path, self._new)


def mutants(module: str, source: str) -> list[Mutant]:
    """All of a module's, in the order of the source."""
    tree = ast.parse(source)
    found: list[Mutant] = []
    seen: Counter[tuple[str, str, str]] = Counter()
    for function, path, statement, operator, new in _changes(tree):
        before, after = _shown(tree, path, statement, new)
        seen[function, before, after] += 1
        lines = _lines(_at(tree, path[:statement]))
        again = seen[function, before, after]
        found.append(Mutant(module, function, operator, before, after, again, lines, tree, path, new))
    return found


# Where


def _changes(tree: ast.Module) -> Iterator[tuple[str, Path, int, str, ast.AST | None]]:
    """(function, path, length of the path to its statement, operator, what stands there instead)"""

    def visit(
        node: ast.AST, path: Path, statement: int, names: tuple[str, ...], function: str
    ) -> Iterator[tuple[str, Path, int, str, ast.AST | None]]:
        if isinstance(node, ast.stmt):
            statement = len(path)
            if _is_silent(node):
                return
        for operator, new in _changes_of(node, function):
            yield function, path, statement, operator, new
        for field, value in ast.iter_fields(node):
            if field in _UNSEEN or (_is_typing(node) and field != "orelse"):
                continue
            inner_names, inner_function = names, function
            if field == "body" and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                inner_names = (*names, node.name)
                if function or not isinstance(node, ast.ClassDef):
                    inner_function = ".".join(inner_names)
            if isinstance(value, list):
                for index, child in enumerate(value):
                    if isinstance(child, ast.AST):
                        yield from visit(child, (*path, (field, index)), statement, inner_names, inner_function)
            elif isinstance(value, ast.AST):
                yield from visit(value, (*path, (field, None)), statement, inner_names, inner_function)

    yield from visit(tree, (), 0, (), "")


def _is_silent(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], ast.Name) and node.targets[0].id in ("__slots__", "__all__")
    return isinstance(node, (ast.Import, ast.ImportFrom, ast.Assert))


def _is_typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


# What


def _changes_of(node: ast.AST, function: str) -> Iterator[Change]:
    if isinstance(node, ast.Constant):
        yield from _constants(node.value)
    elif isinstance(node, ast.Compare):
        for index, comparison in enumerate(node.ops):
            ops: list[ast.cmpop] = [*node.ops]
            ops[index] = _COMPARISONS[type(comparison)]()
            yield "comparison", _like(node, ops=ops)
    elif isinstance(node, ast.BoolOp):
        yield "boolean", _like(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, (ast.BinOp, ast.AugAssign)):
        yield "arithmetic", _like(node, op=_ARITHMETIC[type(node.op)]())
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.UAdd):
        yield "unary", node.operand
    elif isinstance(node, ast.Slice):
        for bound in ("lower", "upper", "step"):
            if getattr(node, bound) is not None:
                yield "slice", _like(node, **{bound: None})
    elif isinstance(node, ast.comprehension):
        for index, condition in enumerate(node.ifs):
            yield "condition", _like(node, ifs=[*node.ifs[:index], _negated(condition), *node.ifs[index + 1 :]])
    elif isinstance(node, ast.match_case) and node.guard is not None:
        yield "condition", _like(node, guard=_negated(node.guard))
    if isinstance(node, (ast.If, ast.While, ast.IfExp)) and not _is_typing(node):
        # (A comparison's other side, and a `not` left out, is the same again.)
        told = isinstance(node.test, ast.UnaryOp) and isinstance(node.test.op, ast.Not)
        if not told and not (isinstance(node.test, ast.Compare) and _is_exact(node.test)):
            yield "condition", _like(node, test=_negated(node.test))
    if isinstance(node, ast.stmt) and function:
        yield from _statements(node)


def _is_exact(test: ast.Compare) -> bool:
    """Whether a changed comparison is the negation."""
    return len(test.ops) == 1 and not isinstance(test.ops[0], (ast.Lt, ast.LtE, ast.Gt, ast.GtE))


def _constants(value: object) -> Iterator[Change]:
    if isinstance(value, bool):
        yield "constant", ast.Constant(not value)
    elif isinstance(value, (int, float)):
        yield "constant", ast.Constant(value + 1)
        yield "constant", ast.Constant(value - 1)
    elif isinstance(value, str):
        yield "text", ast.Constant(f"XX{value}XX")
    elif isinstance(value, bytes):
        yield "text", ast.Constant(b"XX" + value + b"XX")


def _statements(node: ast.stmt) -> Iterator[Change]:
    nothing = ast.Constant(None)  # in the place of a constant there are others already
    if isinstance(node, ast.Return) and not isinstance(node.value, (ast.Constant, type(None))):
        yield "return", _like(node, value=nothing)
    elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
        if not isinstance(node.value, ast.Constant):
            yield "assignment", _like(node, value=nothing)
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if not isinstance(target, ast.Name):
            yield "statement", None
    elif isinstance(node, (ast.Expr, ast.Raise, ast.AugAssign, ast.Delete)):
        yield "statement", None
    elif isinstance(node, ast.Continue):
        yield "statement", ast.Break()
    elif isinstance(node, ast.Break):
        yield "statement", ast.Continue()


def _negated(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), test)


def _like(node: ast.AST, **changed: object) -> ast.AST:
    made = copy.copy(node)
    for field, value in changed.items():
        setattr(made, field, value)
    return made


# Trees


def _at(node: ast.AST, path: Path) -> ast.AST:
    for field, index in path:
        value = getattr(node, field)
        node = value if index is None else value[index]
    return node


def _replaced(tree: ast.Module, path: Path, new: ast.AST | None) -> ast.Module:
    """A copy with another node there; all that does not lie on the way is shared."""
    old = _at(tree, path)
    made = ast.Pass() if new is None else copy.copy(new)
    found = ast.fix_missing_locations(ast.copy_location(made, old))
    for length in range(len(path) - 1, -1, -1):
        parent = copy.copy(_at(tree, path[:length]))
        field, index = path[length]
        if index is None:
            setattr(parent, field, found)
        else:
            setattr(parent, field, [*getattr(parent, field)])
            getattr(parent, field)[index] = found
        found = parent
    assert isinstance(found, ast.Module)
    return found


def _shown(tree: ast.Module, path: Path, statement: int, new: ast.AST | None) -> tuple[str, str]:
    """The statement before and after, without what is far from the change."""
    before = _head(_at(tree, path[:statement]))
    after = _head(_at(_replaced(tree, path, new), path[:statement]))
    same = _shared(before, after)
    rest = _shared(before[same:][::-1], after[same:][::-1])
    begin, end = max(same - _CONTEXT, 0), max(rest - _CONTEXT, 0)
    dots = "..." if begin else "", "..." if end else ""
    return dots[0] + before[begin : len(before) - end] + dots[1], dots[0] + after[begin : len(after) - end] + dots[1]


def _shared(one: str, other: str) -> int:
    """How long the beginning is that they share."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _lines(statement: ast.AST) -> tuple[int, int]:
    """The first and the last one; of a statement that holds others, of its head."""
    assert isinstance(statement, ast.stmt)
    last = statement.end_lineno or statement.lineno
    inner = getattr(statement, "body", None)
    return statement.lineno, max(statement.lineno, min(inner[0].lineno - 1, last)) if inner else last


def _head(node: ast.AST) -> str:
    """A statement on one line; of one that holds others, its head."""
    emptied: dict[str, object] = {field: [] for field in ("orelse", "finalbody", "handlers") if hasattr(node, field)}
    if isinstance(getattr(node, "body", None), list):
        node = _like(node, **emptied, body=[ast.Pass()])
    text = ast.unparse(node)
    return " ".join(line.strip() for line in text.removesuffix("\n    pass").splitlines())
