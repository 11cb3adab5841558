"""Text files made from Jinja templates. A template is in the folder of the code that fills it."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from harness.output.markdown import escaped


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
