"""A difference without the harness: a script shows what the check saw, with its framework alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from sampling import sampled

from harness.checking.reproducer import save
from harness.checking.request import Request, make_case
from harness.cli import cli
from harness.convert.formats import Script
from harness.errors import UsageError
from harness.language.model import load_spec
from harness.oracle.case import Case
from harness.oracle.tolerance import Deviation
from harness.results.cell import Cell, CellResult
from harness.results.findings import Finding
from harness.upstream.bundle import (
    ScriptOutcome,
    Upstream,
    _describe_outcome,
    compose_script,
    format_of,
)

# A framework whose linear layer is a thousandth too large: whoever imports torch gets it.
BROKEN = """
import importlib.abc, importlib.util, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "torch.nn.functional":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        right = spec.loader.exec_module
        def exec_module(module):
            right(module)
            linear = module.linear
            module.linear = lambda x, w, b=None: linear(x, w, b) * 1.001
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""
STATEFUL = Cell("lesson6/stateful_lstm", "torch", "cpu", "float64", "native")


def scripted(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The script as somebody runs it who has not the harness."""
    away = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"} | variables
    command = [sys.executable, "-P", str(folder / "reproduce.py")]
    return subprocess.run(command, env=away, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """A check of torch with a fault of its own, and the folder of its reproducer."""
    folder = tmp_path_factory.mktemp("found")
    (folder / "broken").mkdir()
    (folder / "broken" / "sitecustomize.py").write_text(BROKEN)
    command = ["check", "lesson6/simple_rnn", "--backend", "torch", "--dtype", "float32"]
    command += ["--size", "hidden=8", "--check", "values", "--reproducers", str(folder / "out")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder / "broken"))
        run = CliRunner().invoke(cli, command)
    return run, folder / "out" / "lesson6" / "simple_rnn" / "torch-float32-native"


def test_the_script_shows_a_fault_of_the_framework(found: tuple[Result, Path]) -> None:
    run, folder = found
    assert run.exit_code == 1, run.output
    assert "The script reproduces it with torch alone" in run.output
    again = scripted(folder, PYTHONPATH=str(folder.parents[3] / "broken"))
    assert again.returncode == 1, again.stderr
    assert "output.logits: DIFFERS, off by " in again.stdout
    assert "gradient.out.weight: DIFFERS" in again.stdout
    assert "output.hidden_states: agrees" in again.stdout


def test_the_script_agrees_where_the_framework_is_right(found: tuple[Result, Path]) -> None:
    again = scripted(found[1])
    assert again.returncode == 0, again.stdout + again.stderr
    assert "DIFFERS" not in again.stdout
    assert again.stdout.endswith("0 of 9 results differ\n")


def test_the_script_imports_the_framework_and_nothing_of_the_harness(
    found: tuple[Result, Path],
) -> None:
    text = (found[1] / "reproduce.py").read_text(encoding="utf-8")
    imports = {line for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imports == {
        "import sys",
        "from pathlib import Path",
        "import numpy as np",
        "import torch",
        "from torch import Tensor, nn",
    }


def test_the_issue_has_all_that_a_maintainer_asks_for(found: tuple[Result, Path]) -> None:
    folder = found[1]
    text = (folder / "issue.md").read_text(encoding="utf-8")
    off = "output.logits off by 1.0e-03 of its largest entry in float32"
    assert f"# torch.nn.functional.linear: {off}" in text
    assert "\n- torch " in text
    assert (folder / "reproduce.py").read_text(encoding="utf-8").strip() in text
    assert "output.logits: DIFFERS" in text
    assert "the framework's layer is at fault" in text


def test_the_bundle_can_still_be_replayed(found: tuple[Result, Path]) -> None:
    run = CliRunner().invoke(cli, ["replay", str(found[1])])
    assert run.exit_code == 0, run.output  # without the fault


def test_what_is_left_of_it_has_a_script_too(found: tuple[Result, Path], tmp_path: Path) -> None:
    broken = str(found[1].parents[3] / "broken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", broken)
        run = CliRunner().invoke(cli, ["reduce", str(found[1]), "-o", str(tmp_path / "small")])
    assert run.exit_code == 0, run.output
    assert "layers left: out (" in run.output
    assert "The script reproduces it with torch alone" in run.output
    text = (tmp_path / "small" / "issue.md").read_text(encoding="utf-8")
    assert "unknown version" not in text
    assert "\n- torch " in text
    text = (tmp_path / "small" / "reproduce.py").read_text(encoding="utf-8")
    assert "self.out = nn.Linear(1, 1, dtype=dtype)" in text
    assert "nn.RNN" not in text
    assert scripted(tmp_path / "small", PYTHONPATH=broken).returncode == 1
    assert scripted(tmp_path / "small").returncode == 0


# --- Every format, and none -------------------------------------------------------------------


def blamed(
    case: Case, cell: Cell, folder: Path, layers: Mapping[str, str] | None = None
) -> tuple[Path, list[str]]:
    """A reproducer of a check that is said to differ."""
    finding = Finding("outputs", [Deviation("output.x", 1.0, 1e-7, 1e-6)]).judge()
    result = CellResult(cell, [finding], layers=layers or {})
    saved = save(folder, cell, case, "outputs")
    with Upstream(Request()) as upstream:
        return saved, upstream.write(saved, result)


@pytest.fixture(scope="module")
def stateful() -> Case:
    return make_case(load_spec("lesson6/stateful_lstm"), Request(), own=False)


@pytest.mark.parametrize(
    ("backend", "dtype"),
    sampled(
        [("torch", "float64"), ("jax", "float64"), ("keras-torch", "float32")],
        [("torch", "float64"), ("jax", "float64")],
    ),
)
def test_every_format_writes_a_script_that_agrees(
    stateful: Case, backend: str, dtype: str, tmp_path: Path
) -> None:
    cell = Cell(stateful.spec.name, backend, "cpu", dtype, "native")
    folder, lines = blamed(stateful, cell, tmp_path)
    again = scripted(folder)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "state.c: agrees" in again.stdout
    assert ("gradient." in again.stdout) == (not backend.startswith("keras"))
    assert "did not reproduce it in 3 runs of 4 passes. This clears neither" in lines[0]
    assert "at fault" not in lines[0]
    with np.load(folder / "reproduce.npz") as file:
        arrays: dict[str, Any] = {name: file[name] for name in file.files}
    arrays["expected/state.c"] = arrays["expected/state.c"] * 1.001
    np.savez(folder / "reproduce.npz", **arrays)
    again = scripted(folder)
    assert again.returncode == 1, again.stdout + again.stderr
    assert "state.c: DIFFERS" in again.stdout
    assert "1 of " in again.stdout


# Wrong in all passes of a process but the first, as what depends on memory may be.
UNSTEADY = f"""
import itertools
FACTORS = itertools.chain([1.0], itertools.repeat(1.001))
{BROKEN.replace("1.001", "next(FACTORS)")}
"""


def test_a_fault_that_comes_and_goes_is_shown_and_said_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(UNSTEADY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    small = make_case(load_spec("lesson6/simple_rnn"), Request(), own=False)
    cell = Cell(small.spec.name, "torch", "cpu", "float32", "native")
    folder, (line,) = blamed(small, cell, tmp_path / "out")
    assert "The script reproduces it with torch alone" in line
    assert "Some passes on the same numbers agree" in line
    issue = (folder / "issue.md").read_text(encoding="utf-8")
    assert "output.logits: DIFFERS in 3 of 4 passes on the same numbers, off by " in issue


def test_a_script_says_which_functions_of_the_framework_it_does_not_call(tmp_path: Path) -> None:
    case = make_case(load_spec("lenet"), Request(), own=False)
    cell = Cell("lenet", "torch", "cpu", "float32", "native")
    ran = {"conv_1": "torch.nn.functional.conv2d, torch.relu", "loss": "torch.nn.functional.mse"}
    folder, (line,) = blamed(case, cell, tmp_path, ran)
    text = (folder / "reproduce.py").read_text(encoding="utf-8")
    assert "It does not call torch.nn.functional.mse. (python" in line
    # As the plugin does: torch's own layer, on a view of an image whose channels come last.
    assert "nn.Conv2d(" in text
    assert ".movedim(-1, 1)).movedim(1, -1)" in text


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV])
def test_a_script_that_crashes_shows_it_too(number: signal.Signals) -> None:
    verdict = _describe_outcome(ScriptOutcome(-number, "double free"), "torch", [])
    assert f"crashes with {number.name}: the framework is at fault" in verdict
    for code in (None, -signal.SIGKILL, 127):
        assert _describe_outcome(ScriptOutcome(code, ""), "torch", []).startswith(
            "The script could not be run"
        )


def test_a_backend_without_a_format_says_so(stateful: Case, tmp_path: Path) -> None:
    cell = Cell(stateful.spec.name, "numpy", "cpu", "float64", "native")
    folder, lines = blamed(stateful, cell, tmp_path)
    reason = "numpy has no export format that writes source code"
    assert lines == [f"  no script that runs without the harness: {reason}"]
    assert reason in (folder / "issue.md").read_text(encoding="utf-8")
    assert not (folder / "reproduce.py").exists()


def test_formats_are_found_beside_their_backends() -> None:
    found = {name: format_of(name) for name in ("torch", "jax", "keras", "keras-jax", "numpy")}
    assert found["keras"] == found["keras-jax"] == "keras"
    assert (found["torch"], found["jax"], found["numpy"]) == ("torch", "jax", None)
    assert format_of("nobody") is None


def test_files_of_somebody_else_stay(stateful: Case, tmp_path: Path) -> None:
    cell = Cell(stateful.spec.name, "numpy", "cpu", "float64", "native")
    folder = save(tmp_path, cell, stateful, "outputs")
    (folder / "issue.md").write_text("my notes")
    with pytest.raises(UsageError, match=r"cannot write an issue .* is not overwritten"):
        blamed(stateful, cell, tmp_path)
    assert (folder / "issue.md").read_text() == "my notes"


# --- Text of strangers ------------------------------------------------------------------------


def test_a_model_that_has_the_scripts_own_names_is_refused() -> None:
    made = Script("import torch\n\n\ndef main(x):\n    return x\n", "")
    with pytest.raises(UsageError, match="the model defines the name main"):
        compose_script("x", "torch", made, {}, {})


def test_text_stays_text_in_a_script() -> None:
    evil = 'a"""\nimport os\n\\'
    made = Script('"""x"""\nimport torch\n', "def run(i, s, c):\n    return {}\n")
    text = compose_script(evil, evil, made, {evil: 1.0}, {evil: evil})
    compile(text, "script", "exec")
    lines = [line for line in text.splitlines() if line.startswith("import ")]
    assert sorted(lines) == ["import numpy as np", "import os", "import sys", "import torch"]
