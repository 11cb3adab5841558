"""Pages of many backends, long names and many changes: nothing hides the rest."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import report_files
from chromium import NEEDED
from report_pages import markdown, page
from wording import Wording

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def wide(files: Path, place: Path, *, backends: int = 7) -> Path:
    """The records of one backend as those of many, of a system with a long name."""
    head, *rest = (files / "run.jsonl").read_text().splitlines()
    own = [line for line in map(json.loads, rest) if line.get("backend") == "numpy"]
    found = [head]
    for number in range(backends):
        named = {"backend": f"framework-{number}", "spec": "recurrent/" + 5 * "some_long_name_"}
        found += [json.dumps({**line, **named}, separators=(",", ":")) for line in own]
    place.write_text("\n".join(found) + "\n")
    return place


@NEEDED
def test_on_a_telephone_only_the_table_of_many_backends_goes_on_sideways(
    browser: Browser, files: Path, tmp_path: Path
) -> None:
    page(tmp_path, wide(files, tmp_path / "wide.jsonl"))
    shown = browser.new_page(viewport={"width": 390, "height": 800})
    shown.goto((tmp_path / "out.html").as_uri())
    root = "document.documentElement"
    table = shown.locator(".matrix")
    assert table.evaluate("table => table.offsetWidth") > 390
    assert shown.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")
    # A long name leaves room for a cell beside it.
    cell = shown.locator(".cell").first.bounding_box()
    assert cell is not None
    assert cell["x"] + cell["width"] <= 390
    shown.close()


def test_many_changes_for_the_better_are_folded(
    files: Path, tmp_path: Path, wording: Wording
) -> None:
    run = files / "run.jsonl"
    old = report_files.many(run, tmp_path / "old.jsonl", 4)
    new = report_files.many(run, tmp_path / "new.jsonl", 60)
    text = page(tmp_path, new, "--base", old)
    changes = text.partition('<section id="changes">')[2].partition("</section>")[0]
    # Of each new system two cells differ: those are worse, and in sight.
    before, folded, after = changes.partition(
        "<details><summary>28 changes that are not worse</summary>"
    )
    assert folded
    assert before.count('<b class="bad">') == 28
    assert before.count('<b class="good">') == 0
    assert after.count('<b class="good">') == 28
    written = markdown(tmp_path, new, "--base", old)
    wording.line(written, "- 28 changes")
    assert "- **new** " not in written
    few = report_files.many(run, tmp_path / "few.jsonl", 8)
    assert "that are not worse" not in page(tmp_path, few, "--base", old)


def test_ticks_of_a_short_axis_have_room_for_their_names(files: Path, tmp_path: Path) -> None:
    content = json.loads((files / "bench.json").read_text())
    for entry, rate in zip(content["benchmarks"], (6.2e6, 9.8e6), strict=True):
        entry["extra_info"]["rate"] |= {"median": rate, "q1": rate, "q3": rate}
    near = tmp_path / "near.json"
    near.write_text(json.dumps(content))
    axis = page(tmp_path, near).partition('<div class="lane axis">')[2].partition("</figure>")[0]
    places = [float(left) for left in re.findall(r'<span style="left:([\d.]+)%">', axis)]
    assert len(places) >= 2
    assert min(b - a for a, b in pairwise(places)) > 12
