"""The site of ``make docs``: it is built of the pages, and what leads nowhere stops it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from needed import need
from places import DOCS, ROOT
from wording import Wording

CONFIGURATION = DOCS / "site"
need("sphinx", "myst_parser", "furo")
pytestmark = [pytest.mark.pages, pytest.mark.slow]


def build(source: Path, made: Path) -> subprocess.CompletedProcess[str]:
    """As the Makefile does it."""
    options = ("-q", "-W", "--keep-going", "-c", str(CONFIGURATION))
    command = [sys.executable, "-m", "sphinx", *options, str(source), str(made)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_site_has_every_page(tmp_path: Path) -> None:
    run = build(ROOT, tmp_path)
    assert run.returncode == 0, run.stderr
    for page in (*ROOT.glob("*.md"), *DOCS.glob("*.md")):
        made = tmp_path / page.relative_to(ROOT).with_suffix(".html")
        assert "</article>" in made.read_text(encoding="utf-8"), page
    assert "README.html" in (tmp_path / "index.html").read_text(encoding="utf-8")
    # Words of commands stay whole, for which each has an element of its own.
    first = (tmp_path / "README.html").read_text(encoding="utf-8")
    assert "_static/site.css" in first
    assert '<span class="pre">--between</span>' in first
    assert "code.literal .pre" in (tmp_path / "_static" / "site.css").read_text(encoding="utf-8")


BROKEN = {
    "[a page](nowhere.md)": "cross-reference target not found: 'nowhere.md'",
    "[a heading](ci.md#nowhere)": "local id not found in doc 'docs/ci': 'nowhere'",
    "[a heading here](#nowhere)": "cross-reference target not found: 'nowhere'",
    "[code](../harness/nowhere.py)": "cross-reference target not found: '../harness/nowhere.py'",
    "![a picture](nowhere.png)": "image file not readable: docs/nowhere.png",
}


def test_what_leads_nowhere_stops_the_build(tmp_path: Path, wording: Wording) -> None:
    source = tmp_path / "source"
    shutil.copytree(DOCS, source / "docs")
    for page in ROOT.glob("*.md"):
        shutil.copy(page, source)
    text = "# A page\n\n" + "\n\n".join(BROKEN) + "\n"
    (source / "docs" / "more.md").write_text(text, encoding="utf-8")
    run = build(source, tmp_path / "made")
    assert run.returncode == 1
    for said in BROKEN.values():
        assert said in run.stderr
    wording.line(run.stderr, "docs/more.md: WARNING ... isn't")
