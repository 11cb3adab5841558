"""The limits of docs/security.md are those of the code."""

from __future__ import annotations

import re
from importlib import import_module

import pytest
from places import DOCS

from harness.command.ranges import Range

PAGE = (DOCS / "security.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([^|]+) \| ([\d,]+)( [KMG]iB)? \| `([\w.]+)` \|$", PAGE, re.MULTILINE)
UNITS = {"": 1, " KiB": 1 << 10, " MiB": 1 << 20, " GiB": 1 << 30}


def test_every_limit_has_its_name() -> None:
    table = PAGE.split("## Limits")[1].split("##")[0]
    assert len(ROWS) == table.count("\n| ") - 1
    assert len(ROWS) > 15


@pytest.mark.parametrize(("number", "unit", "name"), [row[1:] for row in ROWS])
def test_a_limit_is_that_of_the_code(number: str, unit: str, name: str) -> None:
    module, _, constant = name.rpartition(".")
    found = getattr(import_module(module), constant)
    limit = found.most if isinstance(found, Range) else found
    assert limit == int(number.replace(",", "")) * UNITS[unit]
