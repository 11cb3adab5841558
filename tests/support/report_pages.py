"""Pages of the command ``report``, for tests of their content."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

from click.testing import CliRunner, Result

from harness.commands import cli

HOSTILE = (
    "</script><img src=x onerror=alert(1)> {{ 7 * 7 }} `*_[x](javascript:y)|@all $x_1$ \x1b[31m"
)


def made(*words: object) -> Result:
    return CliRunner().invoke(cli, ["report", *map(str, words)])


def page(folder: Path, *words: object) -> str:
    output = folder / "out.html"
    found = made(*words, "-o", output)
    assert found.exit_code == 0, found.output
    return output.read_text()


def markdown(folder: Path, *words: object) -> str:
    output = folder / "out.md"
    found = made(*words, "-o", output)
    assert found.exit_code == 0, found.output
    return output.read_text()


def commands(text: str) -> list[str]:
    """Return the commands on an HTML page, in which each word of a command is an element."""
    found = re.findall(r'<code class="command">(.*?)</code>', text)
    return [unescape(re.sub(r"</?span>", "", each)) for each in found]


class Tags(HTMLParser):
    """The elements and attributes of a page; asserts that every opened element is closed."""

    VOID = frozenset({"meta", "input", "br", "wbr", "img", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
