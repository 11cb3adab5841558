"""Sphinx configuration of the documentation site: ``make docs`` writes it to ``build/site``.

The sources are the Markdown pages in the repository; a broken hyperlink is an error. The README is
the first page, and this file defines the order of the other pages.
"""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

# The headings and pages in the side bar. Sphinx warns about a page that is missing here.
CHAPTERS = {
    "First steps": ("tutorial", "glossary", "command-line", "python"),
    "The spec language": (
        "spec-language",
        "spec-tutorial",
        "spec-data",
        "spec-masks",
        "spec-weights",
        "spec-blocks",
        "spec-layers",
        "spec-functions",
        "spec-noise",
        "spec-convolutions",
        "spec-optimizers",
        "spec-reference",
    ),
    "Guides": (
        "port",
        "ports",
        "models",
        "differences",
        "report",
        "localisation",
        "reproducers",
        "known-differences",
        "fuzz",
        "found",
        "given-numbers",
        "own-model",
        "ci",
        "many-machines",
        "versions-side-by-side",
        "framework-versions",
        "benchmarks",
        "training",
        "formats",
        "gpu",
        "adding-a-backend",
    ),
    "Lesson 6": ("semantics", "lesson6", "performance"),
    "Reference": ("method", "method-details", "records", "security", "versions"),
    "Internals": (
        "architecture",
        "adding-a-check",
        "adding-a-primitive",
        "plans",
        "workers",
        "false-alarms",
        "odd-sizes",
        "CONTRIBUTING",
        "CHANGELOG",
    ),
}
IN_THE_ROOT = ("CONTRIBUTING", "CHANGELOG")

project = "Backend comparison harness"
root_doc = "README"
include_patterns = ["README.md", *(f"{name}.md" for name in IN_THE_ROOT), "docs/*.md"]
exclude_patterns = ["build", ".*", "tests", "harness", "backends", "specs"]
extensions = ["myst_parser"]
# Anchors of headings are as on GitHub and GitLab: the words of a heading, joined by dashes.
myst_heading_anchors = 4
html_theme = "furo"
html_title = project
html_static_path, html_css_files = ["static"], ["site.css"]
html_show_copyright = html_show_sphinx = html_copy_source = False
# Most code blocks are output of commands, which is not highlighted.
highlight_language = "none"


def with_chapters(app: Sphinx, name: str, content: list[str]) -> None:
    """Append the table of contents to the first page; it is visible only on the site."""
    if name != root_doc:
        return
    for heading, pages in CHAPTERS.items():
        listed = [page if page in IN_THE_ROOT else f"docs/{page}" for page in pages]
        options = f":hidden:\n:caption: {heading}\n"
        content[0] += "\n```{toctree}\n" + options + "\n" + "\n".join(listed) + "\n```\n"


def with_index(app: Sphinx, error: Exception | None) -> None:
    """Write an ``index.html`` that redirects to the first page, README.html."""
    text = '<!doctype html><meta http-equiv="refresh" content="0; url=README.html">\n'
    (Path(app.outdir) / "index.html").write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> None:
    app.connect("source-read", with_chapters)
    app.connect("build-finished", with_index)
