"""A run, its speeds and a training, as files that reports are made of, and pages in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import report_files
from chromium import ARGUMENTS, CHROMIUM, MANY
from click.testing import CliRunner

from harness.commands import cli

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with run.jsonl, bench.json and w.safetensors."""
    folder = tmp_path_factory.mktemp("report")
    report_files.records(folder / "run.jsonl")
    report_files.speeds(folder / "bench.json")
    report_files.weights(folder / "w.safetensors")
    return folder


def made(output: Path, *words: object) -> Path:
    found = CliRunner().invoke(cli, ["report", *map(str, words), "-o", str(output)])
    assert found.exit_code == 0, found.output
    return output


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a page of two systems (one wrong), speeds and a history, and one of many."""
    folder = tmp_path_factory.mktemp("browser")
    run = report_files.records(folder / "run.jsonl")
    # The planted fault stands on the same device, as a backend of its own.
    report_files.changed(run, run, {"device": "cpu"}, backend="mutants-1")
    report_files.speeds(folder / "bench.json")
    history = folder / "history"
    history.mkdir()
    head = {"started": "2020-01-01T00:00:00Z"}
    report_files.changed(run, history / "old.jsonl", head, kind="head")
    (history / "now.jsonl").write_bytes(run.read_bytes())
    files = (run, folder / "bench.json")
    made(folder / "page.html", *files, "--history", history, "--relative-to", "torch")
    # A backend that differs in one dtype only.
    mixed = {"verdict": "agree"}
    report_files.changed(run, folder / "mixed.jsonl", mixed, backend="mutants-1", dtype="float64")
    made(folder / "mixed.html", folder / "mixed.jsonl")
    made(folder / "many.html", report_files.many(run, folder / "many.jsonl", MANY))
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser, folder: Path) -> Iterator[Page]:
    """The page, which must say nothing on the console and load nothing."""
    page = browser.new_page(viewport={"width": 1100, "height": 800})
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda asked: told.append(asked.url))
    url = (folder / "page.html").as_uri()
    page.goto(url)
    yield page
    page.close()
    assert set(told) == {url}
