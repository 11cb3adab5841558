"""What is written of the options of commands is as they are declared."""

from __future__ import annotations

import runpy

from places import DOCS


def test_what_is_made_of_the_options_is_as_they_are_declared() -> None:
    made = runpy.run_path(str(DOCS / "options.py"))
    told = "run 'python docs/options.py'"
    assert made["KEYWORDS"].read_text(encoding="utf-8") == made["keywords"](), told
    assert made["STUB"].read_text(encoding="utf-8") == made["stub"](), told
    assert made["PAGE"].read_text(encoding="utf-8") == made["page"](), told
