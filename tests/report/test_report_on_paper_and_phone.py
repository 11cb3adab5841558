"""A page under a finger, and on paper: controls are large enough, and nothing stays folded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chromium import NEEDED

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = NEEDED
# The least size of what is touched, in CSS pixels (WCAG 2.2, 2.5.8).
FINGER = 24
CONTROLS = "button, summary, select, input[type=search], nav a, fieldset label"


def test_what_is_touched_is_as_large_as_a_finger_needs(opened: Page) -> None:
    opened.set_viewport_size({"width": 390, "height": 800})
    opened.locator(".cell.differs").first.click()
    boxes = opened.evaluate(
        f"""[...document.querySelectorAll({CONTROLS!r})].filter(e => e.checkVisibility())
        .map(e => [e.outerHTML.slice(0, 60), e.offsetWidth, e.offsetHeight])"""
    )
    assert len(boxes) > 20
    small = [box for box in boxes if min(box[1:]) < FINGER]
    assert small == []
    root = "document.documentElement"
    assert opened.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")


def test_nothing_stays_folded_on_paper(opened: Page) -> None:
    opened.evaluate("document.querySelectorAll('details').forEach(each => { each.open = false; })")
    folded = "[...document.querySelectorAll('details > :not(summary)')]"
    seen = f"{folded}.filter(each => each.checkVisibility()).length"
    opened.emulate_media(media="screen")
    assert opened.evaluate(seen) == 0
    opened.emulate_media(media="print")
    assert opened.evaluate(seen) == opened.evaluate(f"{folded}.length") > 3
