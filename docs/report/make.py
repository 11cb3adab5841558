"""Create the example of docs/report.md: a report page, and a picture of its top.

The script checks Lesson 6 on two backends, repeats one cell with a planted error, and measures the
speed of some systems. It needs some minutes on an idle machine, and Chromium. If the new page has
no reliable speed, or is wider than the screen of a phone, the old page is kept.

    python docs/report/make.py
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import sync_playwright

from harness.checking.engine import Engine
from harness.checking.request import Request

HERE = Path(__file__).parent
BACKENDS = ("numpy", "torch")
TIMED = ("first_rnn", "sequence_rnn", "stateful_lstm", "keras_gru")
WIDTH, HEIGHT = 1000, 1150
TELEPHONE = 390  # CSS pixels
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def main() -> None:
    """Run the commands; write example.html and example.png to the folder of this file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records, results = folder / "run.jsonl", folder / "bench.json"
        request = Request(backends=BACKENDS, records=records)
        words = ["check", *(w for b in BACKENDS for w in ("--backend", b))]
        with Engine(request) as engine:
            engine.run(words)
        wrong = replace(
            request,
            specs=("lesson6/keras_gru",),
            backends=("torch",),
            dtypes=("float32",),
            service="harness.demo.broken:handler",
        )
        with Engine(wrong) as engine:
            engine.run(words)
        specs = [f"lesson6/{spec}" for spec in TIMED]
        bench = [*_harness("bench", *specs), "--records", str(results), "--mode", "train"]
        bench += ["--path", "native"]
        subprocess.run([*bench, *words[1:]], check=True, stdout=subprocess.DEVNULL)
        check_speeds(results)
        page = folder / "example.html"
        report = _harness("report", str(records), str(results), "--relative-to", "numpy")
        subprocess.run([*report, "-o", str(page)], check=True)
        picture(page, HERE / "example.png")
        shutil.copyfile(page, HERE / page.name)


def check_speeds(results: Path) -> None:
    """Exit with the reasons if no speed is reliable."""
    doubts = [
        entry["extra_info"].get("doubts", [])
        for entry in json.loads(results.read_text())["benchmarks"]
    ]
    if all(doubts):
        told = "\n".join(dict.fromkeys(text for each in doubts for text in each))
        sys.exit(f"no speed is reliable; run this again on a quiet machine:\n{told}")


def picture(page: Path, output: Path) -> None:
    """Write a picture of the top of a page. Exit if the page is wider than a phone's screen."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        shown = browser.new_page(viewport={"width": TELEPHONE, "height": HEIGHT})
        shown.goto(page.as_uri())
        wide = shown.evaluate("document.documentElement.scrollWidth")
        if wide > TELEPHONE:
            sys.exit(f"the page is {wide} pixels wide; a telephone has {TELEPHONE}")
        shown.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        shown.emulate_media(color_scheme="light")
        shown.screenshot(path=output)
        browser.close()


def _harness(*words: str) -> list[str]:
    return [sys.executable, "-c", "from harness.cli import main; main()", *words]


if __name__ == "__main__":
    main()
