"""Play the tutorials, the README and the page of own models: they print what they show.

They run as a user runs them: the wheel, installed with the extras of the page in an environment
that had nothing. Left out are commands that need hours: they stand in blocks without a prompt.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import wheels
from needed import need
from places import DOCS, ROOT

pytestmark = pytest.mark.pages
BLOCK = re.compile(r"(?:^`(\S+)`:\n\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.*?)(?:   # exit code (\d))?\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
README, TUTORIAL = ROOT / "README.md", DOCS / "tutorial.md"
EXTRAS = re.compile(r'^pip install "\.(\[[\w,]+\])"', re.MULTILINE)


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that was made as the tutorial says, of the wheel."""
    need("torch")
    return installed(TUTORIAL, tmp_path_factory.mktemp("installed"))


def installed(page: Path, folder: Path) -> Path:
    """Install the wheel and the extras that a page names; return the folder of the programs."""
    (extras,) = EXTRAS.findall(page.read_text(encoding="utf-8"))
    return wheels.install(wheels.build(folder), extras, folder / "venv")


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
    tensor = r"loss|(gradient|output|state|metric)\.[\w.]+"
    text = re.sub(rf"\((0 digits in )?({tensor})\)", r"(\1a tensor)", text)
    return " ".join(text.split())


def is_shown(shown: str, printed: str) -> bool:
    """Whether a text is the shown one, where ``...`` stands for anything."""
    parts = [re.escape(part.strip()) for part in shape(shown).split("...")]
    return re.fullmatch(".*".join(parts), shape(printed)) is not None


def test_the_shape_is_held() -> None:
    assert is_shown("a 1.5 │ b\n...\n3 c", "a 2.50e-03 │   b\nwhat there is\n4 c")
    assert is_shown("6.7 digits (gradient.out.W)", "6.8 digits (loss)")
    assert is_shown("differ (1.6 digits in gradient.W)", "differ (1.7 digits in gradient.U)")
    assert not is_shown("differ (1.6 digits in gradient.W)", "differ (gradient.W)")
    assert not is_shown("a 1.5 │ b", "a 1.5 │ b c")
    assert not is_shown("a 1.5\n...\nb", "a 1.5\nc")
    assert list(steps("`a/b.py`:\n\n```python\nx\n```\n\n```console\n$ one   # exit code 2\n1\n2\n"
                      "$ two\n```\n\n```\nno\n```\n")) == [
        ("file", "a/b.py", "x\n"), ("one", "2", "1\n2\n"), ("two", "0", ""),
    ]  # fmt: skip


def play(page: Path, folder: Path, binaries: Path) -> int:
    """Write the files of a page and run its commands in a folder; how many there were."""
    environment = {**wheels.variables(binaries), "COLUMNS": "100"}
    count = 0
    for what, value, shown in steps(page.read_text(encoding="utf-8")):
        if what == "file":
            (folder / value).write_text(shown, encoding="utf-8")
            continue
        run = subprocess.run(
            ["bash", "-c", what],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        printed = run.stdout or run.stderr
        assert run.returncode == int(value), f"{what}\n{printed}{run.stderr}"
        assert not shown or is_shown(shown, printed), f"{what}\n{printed}"
        count += 1
    return count


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path, binaries: Path) -> None:
    (tmp_path / "my_backends").mkdir()
    assert play(TUTORIAL, tmp_path, binaries) > 15
    assert {"report.html", "upgrade.html", "my_gru.py"} <= {p.name for p in tmp_path.iterdir()}


@pytest.mark.slow
def test_the_tutorial_of_the_language_runs(tmp_path: Path, binaries: Path) -> None:
    assert play(DOCS / "spec-tutorial.md", tmp_path, binaries) > 10
    assert (tmp_path / "writer.safetensors").is_file()


@pytest.mark.slow
def test_the_readme_runs(tmp_path: Path) -> None:
    need("torch", "jax", "keras", "tensorflow")
    programs = installed(README, tmp_path)
    assert play(README, tmp_path, programs) == 4
    assert {"report.html", "report.md"} <= {p.name for p in tmp_path.iterdir()}
    # The other command of the page: it draws what the first command ported.
    explain = [programs / "harness", "explain", "port/net.yaml", "--html", "net.html"]
    subprocess.run(explain, cwd=tmp_path, env=wheels.variables(programs), check=True)
    assert "gru_reset_after" in (tmp_path / "net.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_of_own_models_runs(tmp_path: Path, binaries: Path) -> None:
    assert play(DOCS / "own-model.md", tmp_path, binaries) == 3


def test_the_page_of_ports(tmp_path: Path) -> None:
    need("torch", "jax")
    assert play(DOCS / "port.md", tmp_path, Path(sys.executable).parent) == 3


@pytest.mark.slow
def test_the_wheel_has_the_models_and_names_a_missing_framework(
    tmp_path: Path, binaries: Path
) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [binaries / "harness", *words],
            cwd=tmp_path,
            env=wheels.variables(binaries),
            capture_output=True,
            text=True,
        )

    listed = json.loads(run("list", "--json").stdout)
    assert len([n for n in listed["model"] if n.startswith("lesson6/")]) == 12
    assert "332,058" in run("explain", "lesson6/stateful_lstm").stdout
    # A framework that is not installed is an error of its own cells, with what to do.
    missing = run("check", "lesson6/simple_rnn", "--backend", "jax,numpy", "--check", "outputs")
    assert missing.returncode == 3
    assert "No module named 'jax'" in missing.stdout
