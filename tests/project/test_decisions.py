"""No decision is taken from a sentence: messages are for people, and fields are for code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from places import ROOT

SEARCHES = {"startswith", "endswith", "split", "rsplit", "partition", "rpartition"}
SEARCHES |= {"removeprefix", "removesuffix", "find", "index", "count"}
PATTERNS = {"compile", "search", "match", "fullmatch", "findall", "finditer"}
# Two words with a blank between them.
SENTENCE = re.compile(r"[A-Za-z]{2,}[:,;]? [A-Za-z(\\]")
# What is looked for in texts that are no messages of this process: a part of each, and whose it is.
ALLOWED = {
    "(at line (": "the parser of TOML",
    "Value error, ": "pydantic",
    "known difference ": "a record of a run",
    "cpu MHz": "Linux",
    "model name": "Linux",
    "step (": "the name of a tensor",
    "Caused by ": "the module that downloads",
    " for url": "the module that downloads",
    "results differ": "a script that ran by itself",
    "No module named": "an interpreter",
    "unknown option": "an interpreter",
}


def searched(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The constants that are looked for in a text, each with its line."""
    for node in ast.walk(tree):
        found: list[ast.expr] = []
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            found = [node.left]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of_re = isinstance(node.func.value, ast.Name) and node.func.value.id == "re"
            if node.func.attr in SEARCHES or (of_re and node.func.attr in PATTERNS):
                found = node.args[:1]
        for each in found:
            for part in ast.walk(each):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.lineno, part.value


def test_no_decision_is_taken_from_a_sentence() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text!r}"
        for path in sorted((ROOT / "harness").rglob("*.py"))
        for line, text in searched(ast.parse(path.read_text("utf-8")))
        if SENTENCE.search(text) and not any(part in text.replace("\\", "") for part in ALLOWED)
    ]
    assert not found, "\n".join(found)


SEARCHES_OF_ALL_KINDS = "'is wrong' in x or x.startswith('the file') or re.search('no such', x)"


def test_a_search_is_seen() -> None:
    found = {text for _, text in searched(ast.parse(SEARCHES_OF_ALL_KINDS))}
    assert found == {"is wrong", "the file", "no such"}
