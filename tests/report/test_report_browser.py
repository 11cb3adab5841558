"""The page in a real browser: Chromium, headless, driven by Playwright."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chromium import MANY, NEEDED
from wording import Wording

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = NEEDED
FAILED = "(outputs: error 3.5e-02)"
DIFFERS = f"float32 differ {FAILED}, float64 differ {FAILED}"


def shown(page: Page) -> list[str]:
    """The titles of the cells that can be seen."""
    cells = page.locator(".cell:visible").all()
    titles = [cell.get_attribute("title") for cell in cells]
    hidden = page.evaluate(
        "[...document.querySelectorAll('.cell')]"
        ".filter(c => getComputedStyle(c).visibility === 'hidden').map(c => c.title)"
    )
    return [title for title in titles if title and title not in hidden]


def test_the_filter_leaves_what_has_all_words(opened: Page) -> None:
    opened.keyboard.press("/")
    opened.keyboard.type("mutants differ")
    assert shown(opened) == [f"lesson6/first_rnn on mutants-1: {DIFFERS}"]
    assert opened.locator("#shown").inner_text() == "1 of 2 shown"
    opened.keyboard.press("Escape")
    assert len(shown(opened)) == 2
    assert opened.locator("#shown").inner_text() == ""


def test_a_cell_opens_and_closes_by_keyboard(opened: Page) -> None:
    cell = opened.locator(".cell.differs").first
    opened.locator(".cell.agrees").first.focus()
    opened.keyboard.press("ArrowLeft")
    assert cell.evaluate("cell => cell === document.activeElement")
    opened.keyboard.press("Enter")
    panel = opened.locator("#panel")
    assert panel.is_visible()
    text = panel.inner_text()
    assert "lesson6/first_rnn · mutants-1 · float32 · native: differ" in text
    assert "outputs" in text
    assert panel.locator(".bar.over").count() > 0
    assert panel.locator(".spread").count() > 0
    assert cell.get_attribute("aria-expanded") == "true"
    opened.keyboard.press("Escape")
    assert panel.is_hidden()
    assert cell.evaluate("cell => cell === document.activeElement")


def test_checks_and_systems_are_sorted(opened: Page) -> None:
    opened.locator(".cell.differs").first.click()
    table = opened.locator("#panel table").first

    def column(number: int) -> list[str]:
        return table.locator(f"tbody td:nth-child({number})").all_inner_texts()

    heads = table.locator("th button")
    heads.nth(0).click()
    assert column(1) == sorted(column(1), key=str.casefold)
    heads.nth(0).click()
    assert column(1) == sorted(column(1), key=str.casefold, reverse=True)
    opened.locator(".matrix .sort").first.click()
    assert opened.locator(".matrix th[aria-sort=ascending]").count() == 1


def test_a_dtype_is_chosen_without_script(browser: Browser, folder: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((folder / "page.html").as_uri())
    assert page.locator(".cell [data-dtype='1']").first.is_visible()
    page.get_by_label("float64").check()
    assert page.locator(".cell [data-dtype='1']").first.is_hidden()
    # All that is to be read is there; what needs the script is not offered.
    assert page.locator("#look details").first.is_visible()
    assert page.locator("#filter").is_hidden()
    # The baseline that was asked for is shown, and cannot be chosen.
    assert page.locator("#speed .track").first.is_visible()
    assert page.locator("#beside").inner_text() == "relative to torch"
    assert page.locator("#baseline").is_hidden()
    page.get_by_text("as numbers").first.click()
    assert "512 k (507 to 517), 2.00 times" in page.locator("#speed .numbers").inner_text()
    assert page.locator(".past summary").first.is_visible()
    assert page.locator("#past-filter").is_hidden()
    context.close()


@pytest.mark.parametrize("script", [True, False])
def test_a_cell_has_the_colour_and_the_word_of_the_dtype_that_is_chosen(
    script: bool, browser: Browser, folder: Path
) -> None:
    context = browser.new_context(java_script_enabled=script)
    page = context.new_page()
    page.goto((folder / "mixed.html").as_uri())
    wrong = page.locator(".cell[title*=' on mutants-1: ']")
    right = page.locator(".cell[title*=' on numpy: ']")
    assert wrong.get_attribute("title") == (
        f"lesson6/first_rnn on mutants-1: float32 differ {FAILED}, float64 agree"
    )

    def look(cell: Any) -> tuple[str, str]:
        sign = "getComputedStyle(cell, '::before').content"
        found = cell.evaluate(f"cell => [getComputedStyle(cell).backgroundColor, {sign}]")
        return found[0], found[1].strip('"').strip()

    red, sign = look(wrong)
    assert sign == "✗"
    assert "differ" in wrong.inner_text()
    page.get_by_label("float64").check()
    green, sign = look(wrong)
    assert sign == ""
    assert green not in (red, look(right)[0])  # it is at its tolerance, and numpy far below
    assert "differ" not in wrong.inner_text()
    page.get_by_label("float32").check()
    assert look(wrong) == (red, "✗")
    if script:
        page.locator("#filter").fill("differ")
        assert len(shown(page)) == 1
        page.get_by_label("float64").check()
        assert shown(page) == []
        page.locator("#filter").fill("agree native")
        assert len(shown(page)) == 2
    context.close()


def test_the_baseline_of_speeds_is_chosen_on_the_page(opened: Page, wording: Wording) -> None:
    """Dots, axis and numbers follow it."""
    opened.get_by_text("as numbers").first.click()
    numbers, unit = opened.locator("#speed .numbers"), opened.locator("#speed .unit")
    picker = opened.locator("#baseline")
    assert picker.locator("option").all_inner_texts() == ["none: as measured", "numpy", "torch"]
    assert picker.input_value() == "torch"

    def place(backend: str) -> float:
        dot = opened.locator(f"#speed .track i[title$='{backend}']")
        assert dot.is_visible() == (backend != "jax")
        return float(dot.evaluate("dot => dot.getBoundingClientRect().x"))

    def one() -> float:
        return float(opened.locator("#speed .one").evaluate("one => one.getBoundingClientRect().x"))

    assert abs(place("torch") - one()) < 8 < place("numpy") - one()
    picker.select_option("numpy")
    assert opened.locator("#beside").inner_text() == "relative to numpy"
    wording(unit.inner_text(), "numpy")
    assert ", 1.00 times" in numbers.inner_text()
    assert ", 0.50 times" in numbers.inner_text()
    assert abs(place("numpy") - one()) < 8 < one() - place("torch")
    assert opened.locator("#speed .axis span").all_inner_texts() != []
    picker.select_option("")
    assert opened.locator("#beside").inner_text() == ""
    assert unit.inner_text() == "characters per second"
    assert "times" not in numbers.inner_text()
    assert opened.locator("#speed .one").count() == 0
    assert place("torch") < place("numpy")


def test_the_history_is_filtered_and_unfolds(opened: Page) -> None:
    rows = opened.locator(".past tbody tr:visible")
    assert rows.count() == 0
    opened.locator("#past-filter").fill("first_rnn float32 mutants")
    assert rows.count() == 1
    assert "mutants-1 float32 native" in rows.first.inner_text()
    assert rows.first.locator("svg").is_visible()
    assert rows.first.locator("svg polyline").count() == 1
    assert opened.locator("#past-shown").inner_text() == "1 of 4 shown"
    opened.locator("#past-filter").fill("nothing")
    assert opened.locator(".past:visible").count() == 0
    opened.locator("#past-filter").fill("")
    assert opened.locator(".past:visible").count() == 1


def test_an_entry_of_known_differences_is_taken_whole(opened: Page) -> None:
    accept = opened.locator("details.accept").first
    accept.locator("summary").click()
    assert accept.locator("pre").inner_text().startswith("differences:\n")
    accept.locator("[data-copy]").click()
    opened.wait_for_function(
        "document.querySelector('.accept [data-copy]').textContent !== 'copy'", timeout=5000
    )


def test_keys_are_shown_and_a_command_is_taken(opened: Page) -> None:
    opened.keyboard.press("?")
    assert opened.locator("#keys").is_visible()
    opened.keyboard.press("Escape")
    assert opened.locator("#keys").is_hidden()
    button = opened.locator("[data-copy]").first
    button.click()
    opened.wait_for_function(
        "document.querySelector('[data-copy]').textContent !== 'copy'", timeout=5000
    )
    assert button.inner_text() in ("copied", "selected")


def test_on_a_telephone_nothing_sticks_out_and_options_stay_whole(
    browser: Browser, folder: Path
) -> None:
    page = browser.new_page(viewport={"width": 400, "height": 800})
    page.goto((folder / "page.html").as_uri())
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")
    words = page.locator(".command span").all()
    assert "--reproducers" in [word.inner_text() for word in words]
    # Their hyphens are no place to break a line.
    assert len({word.evaluate("word => word.offsetHeight") for word in words}) == 1
    page.close()


def test_it_prints_whole(browser: Browser, folder: Path, tmp_path: Path) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto((folder / "page.html").as_uri())
    page.emulate_media(media="print")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(255, 255, 255)"
    assert page.locator(".controls:visible").count() == 0
    page.pdf(path=tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_in_light_and_dark(browser: Browser, folder: Path, scheme: str) -> None:
    """The contrast of WCAG 2.2, 1.4.3: 4.5 to 1."""
    page = browser.new_page(color_scheme="dark" if scheme == "dark" else "light")
    page.goto((folder / "page.html").as_uri())
    for selector in ("body", ".cell.agrees", ".cell.differs", ".headline p", ".key.known"):
        assert page.locator(selector).first.evaluate(CONTRAST) >= 4.5, (scheme, selector)
    page.close()


# Of an element's text over what is below it; colours of any notation go through a canvas.
CONTRAST = """
element => {
  const context = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = colour => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = colour => {
    const part = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = rgba(colour).map(part);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let below = element;
  while (below.parentElement && rgba(getComputedStyle(below).backgroundColor)[3] < 255)
    below = below.parentElement;
  const one = light(getComputedStyle(element).color);
  const other = light(getComputedStyle(below).backgroundColor);
  return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
}
"""


def test_thousands_of_cells_open_soon(browser: Browser, folder: Path) -> None:
    file = folder / "many.html"
    assert file.stat().st_size < 6_000_000
    page = browser.new_page()
    page.goto(file.as_uri())
    assert page.locator(".cell").count() == MANY // 2  # two dtypes each
    # Processor time of a laptop would be a fraction; a page that grows with the square is not.
    seconds = page.evaluate("performance.getEntriesByType('navigation')[0].duration") / 1000
    assert seconds < 20
    page.locator("#filter").fill("system_123 mutants")
    assert shown(page) == [f"system_123 on mutants-1: {DIFFERS}"]
    page.close()
