"""Docstrings say what a function raises, and say something of their own in their first line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
# Of code that is being rewritten: to be documented with it.
PENDING: frozenset[str] = frozenset()


def documented(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Public classes and functions, and their public methods, with their names."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, FUNCTIONS | ast.ClassDef) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from documented(node, f"{prefix}{node.name}.")


def raised(function: ast.AST) -> set[str]:
    """The exceptions that a function's own body makes and lets out, by name."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(function):
        if isinstance(node, FUNCTIONS | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func).rpartition(".")[2]
            # What has a small name is a function that makes one.
            if name.isidentifier() and name[0].isupper():
                found.add(name)
        elif isinstance(node, ast.Try):
            inside = raised(ast.Module(node.body, []))
            caught = " ".join(ast.unparse(h.type) for h in node.handlers if h.type is not None)
            found |= inside - set(re.findall(r"\w+", caught))
            found |= raised(ast.Module([*node.handlers, *node.orelse, *node.finalbody], []))
        else:
            found |= raised(node)
    return found


def lacking(source: str) -> Iterator[tuple[str, str]]:
    """What is wrong with the docstrings of a source, by the name of a function or class."""
    for name, node in documented(ast.parse(source)):
        text = ast.get_docstring(node) or ""
        if re.match(r"See\b", text):
            yield name, "a docstring begins with what is documented, not with another place"
        if isinstance(node, FUNCTIONS):
            for error in sorted(raised(node)):
                abstract = error == "NotImplementedError"
                if not abstract and not re.search(rf"\b{error}\b", text):
                    yield name, f"it raises {error}, and its docstring does not say when"


FILES = sorted(ROOT.glob("harness/**/*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_docstring_says_what_is_raised(path: Path) -> None:
    told = {
        f"{path.relative_to(ROOT)}:{name}": problem
        for name, problem in lacking(path.read_text(encoding="utf-8"))
    }
    assert {place: problem for place, problem in told.items() if place not in PENDING} == {}


WRONG = {
    "def f():\n    '''One.'''\n    if 1:\n        raise UsageError('no')": "it raises UsageError",
    "class A:\n    def f(self):\n        raise errors.SpecError('no')": "it raises SpecError",
    "def f():\n    '''See the module.'''": "a docstring begins with",
    "class A:\n    '''See :class:`B`.'''": "a docstring begins with",
}
RIGHT = (
    "def f():\n    '''One; :class:`UsageError` for two.'''\n    raise UsageError('no')",
    "def _f():\n    raise UsageError('no')",
    "def f():\n    def g():\n        raise UsageError('no')",
    "def f():\n    try:\n        g()\n    except OSError as error:\n        raise error",
    "def f():\n    try:\n        raise KeyError(1)\n    except (KeyError, OSError):\n        pass",
    "def f():\n    raise made('no')",
    "class A:\n    def f(self):\n        raise NotImplementedError('f')",
)


@pytest.mark.parametrize("source", WRONG)
def test_what_is_wrong_is_seen(source: str) -> None:
    assert [problem.startswith(WRONG[source]) for _, problem in lacking(source)] == [True]


@pytest.mark.parametrize("source", RIGHT)
def test_what_is_right_is_let_pass(source: str) -> None:
    assert list(lacking(source)) == []
