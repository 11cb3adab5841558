"""Tests assert facts; the sentences around them stand in ``wording.json`` (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# Test functions that still assert a sentence, by folder. A number may only fall.
ALLOWED: dict[str, int] = {
    "api": 1,
    "backends": 4,
    "checking": 76,
    "cli": 12,
    "cluster": 2,
    "command": 2,
    "comparison": 5,
    "convert": 17,
    "defaults": 1,
    "demo": 1,
    "files": 5,
    "language": 5,
    "oracle": 4,
    "output": 3,
    "project": 10,
    "report": 8,
    "results": 2,
    "runs": 1,
    "runtime": 3,
    "text": 5,
    "timing": 15,
    "training": 17,
    "upstream": 14,
    "worker": 6,
}
WORD = re.compile(r"[(\"'`]*[A-Za-z][a-z']*[,.:;)?!\"'`]*")


def is_sentence(node: ast.AST) -> bool:
    """Return whether a string has four words or more."""
    if isinstance(node, ast.JoinedStr):
        parts = (p.value if isinstance(p, ast.Constant) else "0" for p in node.values)
        text = "".join(map(str, parts))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
    else:
        return False
    return sum(bool(WORD.fullmatch(word)) for word in text.replace("\\", "").split()) >= 4


def has_sentence(node: ast.AST) -> bool:
    return any(map(is_sentence, ast.walk(node)))


def asserted(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """Yield what a test asserts: conditions, patterns of ``match=``, and facts."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            yield node.test
        elif isinstance(node, ast.keyword) and node.arg == "match":
            yield node.value
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("wording"):
            yield from node.args[1:]


def sentence_names(function: ast.FunctionDef) -> set[str]:
    """Return names of parameters and local variables that hold a sentence."""
    names: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and is_sentence(node.value):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    for call in function.decorator_list:
        if not isinstance(call, ast.Call) or not ast.unparse(call.func).endswith("parametrize"):
            continue
        listed = ast.literal_eval(call.args[0])
        parameters = (
            [name.strip() for name in listed.split(",")] if isinstance(listed, str) else listed
        )
        for row in getattr(call.args[1], "elts", ()):
            cells = row.args if isinstance(row, ast.Call) else getattr(row, "elts", [row])
            cells = [row] if len(parameters) == 1 else cells
            names |= {
                name for name, cell in zip(parameters, cells, strict=False) if is_sentence(cell)
            }
    return names


def asserts_sentence(function: ast.FunctionDef) -> bool:
    """Return whether a test asserts a sentence, itself or as a parameter."""
    names = sentence_names(function)
    return any(
        has_sentence(part)
        or any(isinstance(node, ast.Name) and node.id in names for node in ast.walk(part))
        for part in asserted(function)
    )


def with_sentences(folder: Path) -> list[str]:
    """Return the places of test functions that assert sentences."""
    return [
        f"{path.relative_to(TESTS)}:{node.lineno}: {node.name}"
        for path in sorted(folder.rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test")
        and asserts_sentence(node)
    ]


@pytest.mark.parametrize("folder", sorted({path.parent.name for path in TESTS.glob("*/test_*.py")}))
def test_no_more_tests_assert_sentences(folder: str) -> None:
    found = with_sentences(TESTS / folder)
    allowed = ALLOWED.get(folder, 0)
    places = "\n".join(found)
    assert len(found) <= allowed, f"assert facts, and use the fixture 'wording':\n{places}"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("assert 'the loss is not finite' in output", True),
        ("assert 'loss nan' in output", False),
        ("with raises(E, match=f'{place}: the loss is not finite'): run()", True),
        ("with wording.raises(E, 'x.yaml:3:4 ... loss'): run()", False),
        ("wording.line(output, 'the loss is not finite')", True),
        ("told = 'the loss is not finite'\n assert told in output", True),
        ("told = 'the loss is not finite'\n run(told)", False),
    ],
)
def test_sentences_are_found(body: str, found: bool) -> None:
    (function,) = ast.parse(f"def test_a(output):\n {body}").body
    assert isinstance(function, ast.FunctionDef)
    assert asserts_sentence(function) is found


def test_sentences_in_parameters_are_found() -> None:
    rows = "[(1, 'the loss is not finite')]"
    for body, found in (("assert b in output", True), ("run(b)", False)):
        text = f"@mark.parametrize(('a', 'b'), {rows})\ndef test_a(a, b):\n {body}"
        (function,) = ast.parse(text).body
        assert isinstance(function, ast.FunctionDef)
        assert asserts_sentence(function) is found
