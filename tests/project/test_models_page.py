"""docs/models.md has every model that ships, and no other."""

from __future__ import annotations

import re

from places import DOCS

from harness.language.library import Library


def test_the_page_has_every_model() -> None:
    text = (DOCS / "models.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([\w/.]+)` \|", text, re.MULTILINE))
    ship = {name for name in Library().names("model") if not name.startswith("lesson6/")}
    assert named - {"lesson6/..."} == ship
