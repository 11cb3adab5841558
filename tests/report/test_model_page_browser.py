"""The page of ``harness explain --html`` in a browser: on a phone, and on paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from chromium import NEEDED
from click.testing import CliRunner

from harness.commands import cli

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = NEEDED
FOLDED = "[...document.querySelectorAll('details > :not(summary)')]"


def test_a_model_is_readable_on_a_phone_and_on_paper(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert CliRunner().invoke(cli, ["explain", "resnet", "--html", str(page)]).exit_code == 0
    shown = browser.new_page(viewport={"width": 400, "height": 800})
    loaded: list[str] = []
    shown.on("console", lambda message: loaded.append(message.text))
    shown.on("request", lambda asked: loaded.append(asked.url))
    shown.goto(page.as_uri())
    assert loaded == [page.as_uri()]
    root = "document.documentElement"
    assert shown.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")
    small = "[...document.querySelectorAll('summary')].filter(e => e.checkVisibility())"
    assert shown.evaluate(f"{small}.every(e => e.offsetHeight >= 24)")
    # The first use of each definition is open. A later one is folded, but not on paper.
    visible = f"{FOLDED}.filter(each => each.checkVisibility()).length"
    assert 0 < shown.evaluate(visible) < shown.evaluate(f"{FOLDED}.length")
    shown.emulate_media(media="print")
    assert shown.evaluate(visible) == shown.evaluate(f"{FOLDED}.length")
    shown.close()
