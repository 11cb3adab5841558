"""Texts of strangers as Markdown: they are shown, and nothing of them acts."""

from __future__ import annotations

import pytest

from harness.output.markdown import code, escaped, fenced, table
from harness.output.table import Grid

HOSTILE = "a\x1b[31m\r\n::error::x | `y` <img src=x> [l](u) @team #1 *b* _i_ & ~s~ $m$"
SHOWN = (
    r"a\\x1b\[31m ::error::x \| \`y\` \<img src=x\> \[l\](u) &#64;team \#1 "
    r"\*b\* \_i\_ \& \~s\~ \$m\$"
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (HOSTILE, SHOWN),
        ("off by 1.0e-03 (x)", "off by 1.0e-03 (x)"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("0.1 is right", "0.1 is right"),
        ("a_b*c", r"a\_b\*c"),
        ("two\nlines", "two lines"),
        ("www.example.org", r"www\.example.org"),
        ("https://example.org", r"https:\//example.org"),
    ],
)
def test_a_text_is_shown_as_it_is(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_a_table_has_the_same_of_a_grid_and_keeps_lines_apart() -> None:
    rows = [["x\ny", "-"], ["<b>", "*1"]]
    found = table(["system", "a|b"], rows)
    assert found == ("| system | a\\|b |\n| --- | ---: |\n| x<br>y | - |\n| \\<b\\> | \\*1 |")
    grid = Grid("a_title", ["system", "a|b"], [[*row] for row in rows])
    assert grid.markdown() == f"**a\\_title**\n\n{found}"


def test_nothing_ends_code() -> None:
    first, *_, last = fenced("a\n````\nb", "text")
    assert first == "`````text"
    assert last == "`````"
    assert code("a b") == "`a b`"
    assert code("a `b``\n c") == "```a `b``  c```"
    assert code("`b`") == "`` `b` ``"
