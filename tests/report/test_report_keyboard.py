"""The page by keyboard alone, on a narrow screen and on paper, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from chromium import NEEDED

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = NEEDED

ACTIVE = "document.activeElement"
# What has the focus: the text of a cell or a control, by which it is known.
NAME = f"{ACTIVE}.title || {ACTIVE}.id || {ACTIVE}.textContent.trim().slice(0, 40)"


# Pixels around what has the focus, in the box that scrolls with it: a line further out is cut off.
ROOM = """
(() => {
  const box = document.activeElement.closest(".scroll");
  if (!box) return 100;
  const one = document.activeElement.getBoundingClientRect(), all = box.getBoundingClientRect();
  return Math.min(one.top - all.top, one.left - all.left, all.bottom - one.bottom);
})()
"""


def stops(page: Page, most: int = 80) -> list[str]:
    """What the tabulator stops at, from the top of the page."""
    page.evaluate(f"{ACTIVE}.blur()")
    found = []
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate(f"{ACTIVE} === document.body"):
            break
        found.append(str(page.evaluate(NAME)))
    return found


def focused(page: Page) -> str:
    return str(page.evaluate(NAME))


def test_the_first_stop_leads_past_the_head(opened: Page) -> None:
    opened.keyboard.press("Tab")
    skip = opened.locator(".skip")
    assert focused(opened) == skip.inner_text()
    box = skip.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    opened.keyboard.press("Enter")
    opened.keyboard.press("Tab")
    assert opened.evaluate(f"document.querySelector('main').contains({ACTIVE})")


def test_the_tabulator_stops_at_one_cell_and_shows_where_it_is(opened: Page) -> None:
    found = stops(opened)
    assert sum(" on mutants-1: " in name or " on numpy: " in name for name in found) == 1
    # Every section's controls are on the way, in the order of the page.
    wanted = [
        "skip to the results",
        "filter",
        "first_rnn on mutants-1: ",
        "baseline",
        "past-filter",
    ]
    places = [next(n for n, name in enumerate(found) if w in name) for w in wanted]
    assert places == sorted(places)


def test_all_that_has_the_focus_shows_it(opened: Page) -> None:
    opened.evaluate(f"{ACTIVE}.blur()")
    for _ in range(40):
        opened.keyboard.press("Tab")
        if opened.evaluate(f"{ACTIVE} === document.body"):
            break
        width = opened.evaluate(f"parseFloat(getComputedStyle({ACTIVE}).outlineWidth)")
        assert width >= 2, focused(opened)
        assert opened.evaluate(ROOM) >= width, focused(opened)


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_a_key_opens_a_cell_and_closes_it(key: str, opened: Page) -> None:
    cell, panel = opened.locator(".cell.agrees").first, opened.locator("#panel")
    cell.focus()
    opened.keyboard.press(key)
    assert panel.is_visible()
    assert cell.get_attribute("aria-expanded") == "true"
    opened.keyboard.press("Tab")
    assert focused(opened) == "close"
    opened.keyboard.press(key)
    assert panel.is_hidden()
    assert cell.evaluate(f"cell => cell === {ACTIVE}")


def test_arrows_pass_what_is_not_shown(opened: Page) -> None:
    """In a row of a table as the page has them: no cell, a hidden one, and one to go to."""
    opened.evaluate(
        """() => {
          const row = document.querySelector(".matrix tbody tr");
          const own = row.querySelector("td");
          const none = document.createElement("td");
          none.textContent = "-";
          own.after(none);
        }"""
    )
    first, last = opened.locator(".cell").first, opened.locator(".cell").last
    first.focus()
    opened.keyboard.press("ArrowRight")
    assert last.evaluate(f"cell => cell === {ACTIVE}")
    opened.keyboard.press("Home")
    assert first.evaluate(f"cell => cell === {ACTIVE}")
    opened.keyboard.press("End")
    assert last.evaluate(f"cell => cell === {ACTIVE}")
    opened.keyboard.press("ArrowDown")
    assert last.evaluate(f"cell => cell === {ACTIVE}")


def test_what_the_filter_hides_is_closed_and_passed(opened: Page) -> None:
    opened.locator(".cell.agrees").first.click()
    assert opened.locator("#panel").is_visible()
    opened.keyboard.press("/")
    opened.keyboard.type("mutants")
    assert opened.locator("#panel").is_hidden()
    assert focused(opened) == "filter"
    opened.keyboard.press("Tab")
    while not opened.evaluate(f"{ACTIVE}.matches('.cell')"):
        assert not opened.evaluate(f"{ACTIVE} === document.body")
        opened.keyboard.press("Tab")
    assert " on mutants-1: " in focused(opened)


def test_escape_clears_the_filter_that_it_is_pressed_in(opened: Page) -> None:
    first, second = opened.locator("#filter"), opened.locator("#past-filter")
    first.fill("numpy")
    second.fill("float32")
    second.press("Escape")
    assert (first.input_value(), second.input_value()) == ("numpy", "")
    assert opened.locator("#past-shown").inner_text() == ""
    assert opened.locator("#shown").inner_text() == "1 of 2 shown"


def test_keys_are_heard_beside_a_choice_that_is_no_text(opened: Page) -> None:
    """With the focus on a dtype, ``/`` filters; Escape there clears nothing."""
    opened.locator("#filter").fill("numpy")
    opened.get_by_label("float64").focus()
    opened.keyboard.press("Escape")
    assert opened.locator("#filter").input_value() == "numpy"
    opened.keyboard.press("/")
    assert focused(opened) == "filter"


def test_escape_closes_the_keys_and_leaves_the_cell_open(opened: Page) -> None:
    opened.locator(".cell.differs").first.click()
    opened.keyboard.press("?")
    assert opened.locator("#keys").is_visible()
    opened.keyboard.press("Escape")
    assert opened.locator("#keys").is_hidden()
    assert opened.locator("#panel").is_visible()


def test_tables_are_sorted_by_keyboard(opened: Page) -> None:
    button = opened.locator(".matrix .sort").first
    button.focus()
    for order in ("ascending", "descending"):
        opened.keyboard.press("Enter")
        assert opened.locator(f".matrix th[aria-sort={order}]").count() == 1
        assert button.evaluate(f"button => button === {ACTIVE}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_shows_all(browser: Browser, folder: Path, scheme: str) -> None:
    """320 pixels, as WCAG 2.2, 1.4.10 wants: nothing is to be scrolled sideways but tables."""
    page = browser.new_page(
        viewport={"width": 320, "height": 700},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page.goto((folder / "page.html").as_uri())
    page.locator(".cell.differs").first.click()
    for summary in page.locator("summary").all():
        if summary.is_visible() and not summary.evaluate("summary => summary.parentElement.open"):
            summary.click()
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")
    # A chart goes on sideways, in letters that can be read.
    charts = page.locator("figure svg:visible")
    assert charts.count() > 0
    sizes = charts.evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().width / one.viewBox.baseVal.width)"
    )
    assert min(sizes) > 0.5
    page.close()


def test_on_paper_nothing_is_folded(browser: Browser, folder: Path) -> None:
    page = browser.new_page()
    page.goto((folder / "page.html").as_uri())
    page.emulate_media(media="print")
    folded = page.locator("details:not([open])")
    assert folded.count() > 0
    heights = folded.evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().height"
        " - one.querySelector('summary').getBoundingClientRect().height)"
    )
    assert min(heights) > 0
    assert page.locator(".skip").is_hidden()
    # What stands side by side on the screen does so on paper.
    places = page.locator(".chain li").evaluate_all("all => all.map(one => one.offsetTop)")
    assert len({*places}) < len(places)
    page.close()
