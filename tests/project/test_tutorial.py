"""The tutorial, the README and the page of own models are played whole, and print what they show.

Left out are commands that need a network or hours: they stand in blocks without a prompt.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from needed import need
from places import DOCS, ROOT, SUPPORT

BLOCK = re.compile(r"(?:^`(\S+)`:\n\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.*?)(?:   # exit code (\d))?\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
# The index is not asked: the package needs nothing that is not there.
INSTALL = "pip install --editable "
OFFLINE = (
    f'"{sys.executable}" -m pip install -q --no-index --no-deps --no-build-isolation --upgrade '
    "--target site "
)


def steps(text: str) -> Iterator[tuple[str, str, str]]:
    """Files, as name and content; commands, with exit code and what they print."""
    for name, language, content in BLOCK.findall(text):
        if name:
            yield "file", name, content
        elif language == "console":
            for command, code, printed in COMMAND.findall(content):
                yield command, code or "0", printed


def shape(text: str) -> str:
    """A text without its figures, rules, line breaks, and the names of worst tensors."""
    text = re.sub(r"[━─┏┓┗┛┡┩├┤└┘┳┻╇╋┼┴┬]+", "", text)
    text = re.sub(r"\b\d[\d,]*(\.\d+)?(e[+-]?\d+)?", "0", text)
    text = re.sub(r"\((loss|(gradient|output|state|metric)\.[\w.]+)\)", "(a tensor)", text)
    return " ".join(text.split())


def is_shown(shown: str, printed: str) -> bool:
    """Whether a text is the shown one, where ``...`` stands for anything."""
    parts = [re.escape(part.strip()) for part in shape(shown).split("...")]
    return re.fullmatch(".*".join(parts), shape(printed)) is not None


def test_the_shape_is_held() -> None:
    assert is_shown("a 1.5 │ b\n...\n3 c", "a 2.50e-03 │   b\nwhat there is\n4 c")
    assert is_shown("6.7 digits (gradient.out.W)", "6.8 digits (loss)")
    assert not is_shown("a 1.5 │ b", "a 1.5 │ b c")
    assert not is_shown("a 1.5\n...\nb", "a 1.5\nc")
    assert list(steps("`a/b.py`:\n\n```python\nx\n```\n\n```console\n$ one   # exit code 2\n1\n2\n"
                      "$ two\n```\n\n```\nno\n```\n")) == [
        ("file", "a/b.py", "x\n"), ("one", "2", "1\n2\n"), ("two", "0", ""),
    ]  # fmt: skip


def play(page: Path, folder: Path) -> int:
    """Write the files of a page and run its commands in a folder; how many there were."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder / "site")}
    environment["COLUMNS"] = "100"
    count = 0
    for what, value, shown in steps(page.read_text(encoding="utf-8")):
        if what == "file":
            (folder / value).write_text(shown, encoding="utf-8")
            continue
        command = what.replace(INSTALL, OFFLINE)
        run = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        printed = run.stdout or run.stderr
        assert run.returncode == int(value), f"{command}\n{printed}{run.stderr}"
        assert not shown or is_shown(shown, printed), f"{command}\n{printed}"
        count += 1
    return count


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path) -> None:
    need("torch")
    (tmp_path / "my_backends").mkdir()
    shutil.copy(SUPPORT / "plugin_example/harness_columns.py", tmp_path / "my_backends")
    assert play(DOCS / "tutorial.md", tmp_path) > 15
    assert {"report.html", "upgrade.html", "my_gru.py"} <= {p.name for p in tmp_path.iterdir()}


@pytest.mark.slow
def test_the_readme_runs(tmp_path: Path) -> None:
    need("torch")
    assert play(ROOT / "README.md", tmp_path) == 2
    assert {"report.html", "report.md"} <= {p.name for p in tmp_path.iterdir()}


@pytest.mark.slow
def test_the_page_of_own_models_runs(tmp_path: Path) -> None:
    need("torch")
    assert play(DOCS / "own-model.md", tmp_path) == 3
