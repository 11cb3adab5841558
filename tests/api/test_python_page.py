"""The examples of docs/python.md run, and its tables and lists tell of every function."""

from __future__ import annotations

import re

import pytest
from places import DOCS

import harness

pytestmark = pytest.mark.pages
PAGE = (DOCS / "python.md").read_text(encoding="utf-8")


def test_the_page_tells_of_every_function() -> None:
    told = re.findall(r"^(?:\||-) `(\w+)\(", PAGE.partition("## Results")[0], re.MULTILINE)
    assert sorted(told) == sorted(harness.__all__)


def test_the_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "digits of agreement" in printed
    assert "unknown backend 'trch'; did you mean 'torch'? (installed: " in printed
