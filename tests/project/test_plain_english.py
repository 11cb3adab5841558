"""Pages, help texts and docstrings stay plain: limits and planted violations."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentences

LONG = " ".join(["word"] * 31).capitalize() + "."
SHORT = "One fact in a few words. " * 9


def test_no_page_gets_harder_to_read() -> None:
    assert sentences.wrong_pages(sentences.pages()) == []


def test_no_docstring_starts_with_a_wrong_word() -> None:
    assert sentences.docstrings() == {}


PLANTED = {
    f"{SHORT}{LONG} {LONG}": (11, 2, 0),
    f"{SHORT}What it says is wrong. Where it is. Of it.": (12, 0, 3),
    f"```\n{LONG}\n```\n\n| What |\n|---|\n| {LONG} |\n\n# What {LONG}\n\n{SHORT}": (9, 0, 0),
    f"- {LONG}\n- `Of` or e.g. Where.\n": (2, 1, 0),
}


@pytest.mark.parametrize("text", PLANTED)
def test_planted_sentences_are_counted(text: str) -> None:
    assert sentences.count(text) == sentences.Count(*PLANTED[text])


def test_a_page_above_the_limits_is_named() -> None:
    counts = {"a.md": sentences.Count(10, 2, 1), "b.md": sentences.Count(10, 1, 0)}
    messages = sentences.wrong_pages(counts)
    assert [line.split()[:2] for line in messages] == [["a.md:", "2"], ["a.md:", "1"]]


def test_planted_docstrings_are_found(tmp_path: Path) -> None:
    file = tmp_path / "harness" / "oracle" / "a.py"
    file.parent.mkdir(parents=True)
    (tmp_path / "backends").mkdir()
    file.write_text(
        '"""What it does."""\n\n\ndef f():\n    """Returns one."""\n\n\n'
        'def g():\n    """Return it."""\n\n\nclass A:\n    """Those of it."""\n'
    )
    assert sentences.docstrings(tmp_path) == {"oracle": 3}


def test_the_changelog_has_each_release_once_and_stays_short() -> None:
    text = (sentences.ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings[0] == "## Unreleased"
    assert len({heading.split()[1] for heading in headings}) == len(headings)
    assert len(text.split()) < 4000
