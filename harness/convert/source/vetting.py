"""Check that generated source contains only code that an export writes, before the source is
written or run.

Names and notes from a spec are string literals in the source (:mod:`.literals`). If such a text
could end its quotation marks early and become code, this check would reject the code. The check
covers the kinds of statements and expressions, the imports, every called function and every name
that is read.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from harness.errors import UsageError, shorten
from harness.files.user_file import FileFault, read_bytes

# The kinds of syntax nodes that emitters write; no other kind is allowed.
KINDS: tuple[type[ast.AST], ...] = (
    *(ast.Module, ast.ClassDef, ast.FunctionDef, ast.arguments, ast.arg, ast.Return),
    *(ast.Import, ast.ImportFrom, ast.alias, ast.Assign, ast.Expr, ast.If, ast.For),
    *(ast.With, ast.withitem, ast.Call, ast.keyword, ast.Starred, ast.Name, ast.Attribute),
    *(ast.Subscript, ast.Slice, ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.IfExp),
    *(ast.ListComp, ast.comprehension, ast.BinOp, ast.UnaryOp, ast.Compare, ast.expr_context),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.MatMult, ast.USub, ast.BitOr),
    *(ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq, ast.Is, ast.In),
    *(ast.BitAnd, ast.Invert, ast.BoolOp, ast.And, ast.Or, ast.Not),
)
# Statements allowed outside of classes and functions.
TOP = (ast.Import, ast.ImportFrom, ast.Assign, ast.ClassDef, ast.FunctionDef, ast.Expr)
LITERALS = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Words:
    """The names and imports that the generated source of one format may use.

    ``imports`` has import statements, and ``roots`` the names that they define (``torch``).
    ``known`` has allowed dotted names that begin with such a name (``torch.zeros``). ``methods``
    has names of methods that may be called on values, ``python`` has names of Python itself, and
    ``keywords`` has names of keyword arguments. ``decorator`` is the only allowed decorator.
    """

    imports: frozenset[str]
    roots: frozenset[str]
    known: frozenset[str]
    methods: frozenset[str]
    keywords: frozenset[str]
    python: frozenset[str] = frozenset()
    decorator: str = ""


def vetted(source: str, words: Words, name: str) -> str:
    """Return ``source`` if it contains only code that an export to the format writes; otherwise
    raise an error. ``words`` has the allowed names.

    Raises:
        UsageError: the source contains forbidden code; the message begins with ``name``.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise UsageError(f"{name} is not valid Python source: {reason}; nothing was run") from None
    for node, problem in _SyntaxReader(words, tree).problems():
        line = f", line {node.lineno}" if isinstance(node, ast.expr | ast.stmt | ast.arg) else ""
        raise UsageError(
            f"{name}{line}: an export contains no {problem}, so nothing was run; "
            "export the model anew"
        )
    return source


@dataclass
class _SyntaxReader:
    """A check of a syntax tree, which first collects the names that the source defines.

    ``functions`` and ``methods`` are the names of functions and methods that the source defines,
    and ``bound`` the names to which it assigns values. ``attributes`` has the names that are
    assigned on ``self``. ``inner`` has the expressions that stand before a dot.
    """

    words: Words
    tree: ast.Module
    functions: set[str] = field(default_factory=set)
    methods: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    bound: set[str] = field(default_factory=set)
    inner: set[ast.AST] = field(default_factory=set)

    def problems(self) -> Iterator[tuple[ast.AST, str]]:
        """Yield each node that an export may not contain, with a text that names it. The error
        message puts "an export contains no" before this text, e.g. "an export contains no
        expression outside of functions"."""
        nodes = list(ast.walk(self.tree))
        for node in nodes:
            self._note(node)
        for node in self.tree.body:
            if not isinstance(node, TOP):
                yield node, f"{_kind(node)} outside of functions"
            elif isinstance(node, ast.Expr) and not _is_text(node.value):
                yield node, "expression outside of functions"
            elif isinstance(node, ast.Assign) and not _is_data(node.value):
                yield node, "computed value outside of functions"
        for node in nodes:
            problem = self._problem(node)
            if problem:
                yield node, problem

    def _note(self, node: ast.AST) -> None:
        match node:
            case ast.ClassDef():
                own = [part for part in node.body if isinstance(part, ast.FunctionDef)]
                self.methods.update(part.name for part in own)
                self.functions.add(node.name)
            case ast.FunctionDef():
                self.functions.add(node.name)
            case ast.Name(ctx=ast.Store()):
                self.bound.add(node.id)
            case ast.arg():
                self.bound.add(node.arg)
            case ast.Attribute():
                self.inner.add(node.value)
                if isinstance(node.ctx, ast.Store) and _dotted(node.value) == "self":
                    self.attributes.add(node.attr)

    def _problem(self, node: ast.AST) -> str:
        if not isinstance(node, KINDS):
            return _kind(node)
        match node:
            case ast.Import() | ast.ImportFrom():
                is_allowed = node in self.tree.body and ast.unparse(node) in self.words.imports
                return "" if is_allowed else f"import like {shorten(ast.unparse(node))!r}"
            case ast.Constant():
                return "" if isinstance(node.value, LITERALS) else _kind(node)
            case ast.ClassDef() | ast.FunctionDef():
                return self._definition(node)
            case ast.Call():
                return "" if self._may_call(node.func) else f"call of {_shown(node.func)}"
            case ast.keyword(arg=str(name)):
                return "" if name in self.words.keywords else f"argument {name!r}"
            case ast.Attribute():
                return "" if self._may_read(node) else f"use of {_shown(node)}"
            case ast.Name(ctx=ast.Load()):
                return "" if self._is_known(node) else f"use of {node.id!r}"
            case ast.Name():
                return self._new(node.id)
            case ast.arg():
                return "" if node.arg == "self" else self._new(node.arg)
        return ""

    def _definition(self, node: ast.ClassDef | ast.FunctionDef) -> str:
        for decorator in node.decorator_list:
            call = decorator.func if isinstance(decorator, ast.Call) else decorator
            if not self.words.decorator or _dotted(call) != self.words.decorator:
                return f"decorator {_shown(call)}"
        return "" if node.name == "__init__" else self._new(node.name)

    def _new(self, name: str) -> str:
        """Return a text about the problem if the source assigns a value to ``name`` although this
        name already has a meaning in the source, e.g. as a module. Return "" if there is no
        problem."""
        taken = name in self.words.roots or name in self.words.python or name.startswith("__")
        return f"other meaning of {name!r}" if taken or name == "self" else ""

    def _is_known(self, node: ast.Name) -> bool:
        if node.id in self.words.roots:
            return node.id in self.words.known or node in self.inner
        return node.id in {"self", *self.bound, *self.functions, *self.words.python}

    def _may_call(self, func: ast.expr) -> bool:
        dotted = _dotted(func)
        if dotted.partition(".")[0] in self.words.roots:
            return dotted in self.words.known
        match func:
            case ast.Name(id=name):
                return name in self.words.python or name in self.functions
            case ast.Attribute(attr="__init__", value=ast.Call(func=ast.Name(id="super"))):
                return True
            case ast.Attribute(attr=name, value=ast.Name(id="self")):
                return name in {*self.attributes, *self.methods, *self.words.methods}
            case ast.Attribute(attr=name):
                return name in self.words.methods or name in self.methods
            case ast.Subscript(value=ast.List(elts=forms)):
                return all(_dotted(form) in {f"self.{m}" for m in self.methods} for form in forms)
        return False

    def _may_read(self, node: ast.Attribute) -> bool:
        dotted, known = _dotted(node), self.words.known
        if dotted.partition(".")[0] in self.words.roots:
            within = node in self.inner and any(k.startswith(f"{dotted}.") for k in known)
            return dotted in known or within
        if node.attr == "__init__":
            return isinstance(node.value, ast.Call) and _dotted(node.value.func) == "super"
        return not node.attr.startswith("__")


def _dotted(node: ast.expr) -> str:
    """Return the dotted name that an expression consists of, e.g. ``torch.nn.functional``. Return
    "" for an expression that is not a dotted name."""
    if isinstance(node, ast.Name):
        return node.id
    inner = _dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{inner}.{node.attr}" if inner and isinstance(node, ast.Attribute) else ""


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_data(node: ast.expr) -> bool:
    return _is_text(node) or (isinstance(node, ast.Tuple) and all(map(_is_text, node.elts)))


def _kind(node: ast.AST) -> str:
    return type(node).__name__


def _shown(node: ast.expr) -> str:
    return repr(shorten(ast.unparse(node)))


# Execution of generated source files. A file is checked first, then run as a user would run it.

# The most bytes of a source file: ten times the size of a file with a thousand layers.
LIMIT = 1 << 24


def run_file(path: Path, words: Words) -> ModuleType:
    """Check a source file, run it, and return its module. Nothing is stored in ``sys.modules`` or
    on disk.

    Raises:
        UsageError: the file is missing, or contains something that no export writes.
    """
    if not path.is_file():
        raise UsageError(f"there is no {path.name} beside {path.with_suffix('').name}'s weights")
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        text = read_bytes(path, LIMIT, "a module").decode("utf-8", "replace")
    except FileFault as fault:
        raise UsageError(str(fault)) from None
    exec(compile(vetted(text, words, path.name), str(path), "exec"), module.__dict__)
    return module
