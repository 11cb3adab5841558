"""Text files and pages made from Jinja templates. A template is in the folder of the code that
fills it."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from harness.output.markdown import escaped
from harness.output.printing import visible


def filled(package: str, name: str, **values: object) -> str:
    """Return the text of the template ``name.j2`` in a Python package, filled with ``values``.

    In the template, the filter ``markdown`` escapes a value for Markdown.
    """
    templates = Environment(
        loader=PackageLoader(package, ""),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["markdown"] = escaped
    return templates.get_template(f"{name}.j2").render(values)


def html_templates(package: str, folder: str = "") -> Environment:
    """Return the environment of HTML templates in a folder of a package. Every inserted text is
    escaped, and its control characters are visible."""
    return Environment(
        loader=PackageLoader(package, folder),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )


def page_style() -> str:
    """Return the style sheet that all HTML pages share: colours, text, headline, print."""
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")
