"""One meaning a word: no two files have a class of one name."""

from __future__ import annotations

import ast
from collections import defaultdict

from places import ROOT

# The same role in several backends' folders.
SHARED = {"Writer"}


def test_no_two_classes_have_one_name() -> None:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for top in ("harness", "backends"):
        for path in sorted((ROOT / top).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    found[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert len(found) > 300
    assert {name: places for name, places in found.items() if len(places) > 1}.keys() == SHARED
