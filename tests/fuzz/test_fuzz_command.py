"""The command ``harness fuzz``: its options, record file and exit codes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import plugin_planted
import pytest
from wording import Wording

from harness.command.declared import make_options
from harness.command.outcome import CommandResult
from harness.errors import UsageError
from harness.fuzz.cases import ORDINARY, Draft, draw_case
from harness.fuzz.compare import SmoothPass, StridedPass, passes
from harness.fuzz.console import run_fuzz
from harness.fuzz.models import RandomModel
from harness.fuzz.options import FuzzOptions
from harness.results.file import RecordError
from harness.runtime.answers import Arguments

COMMAND = (sys.executable, "-c", "from harness.cli import main; main()", "fuzz")


def fuzz(**options: object) -> CommandResult:
    return run_fuzz(make_options(FuzzOptions, {"backends": ("numpy",), **options}))


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_case_depends_on_seed_and_number_only() -> None:
    (draft, case), (again, same) = (draw_case(3, 5, ("float32",)) for _ in range(2))
    assert draft.text == again.text
    for name, array in case.material.inputs.items():
        np.testing.assert_array_equal(array, same.material.inputs[name])
    assert draw_case(4, 5, ("float32",))[0].text != draft.text


def test_records_are_resumed(tmp_path: Path, wording: Wording) -> None:
    records = tmp_path / "fuzz.jsonl"
    fuzz(cases=6, records=records)
    with records.open("ab") as file:
        file.write(b'{"kind":"case","number":6,"ba')
    outcome = fuzz(cases=10, records=records, resume=True)
    whole = [json.loads(t) for t in records.read_text().splitlines() if not t.endswith('"ba')]
    assert [line["number"] for line in whole if line["kind"] == "case"] == list(range(10))
    data = outcome.json()
    assert data["exit_code"] == 0
    assert sum(data["backends"]["numpy"].values()) == 10
    assert sum(data["dtypes"].values()) == sum(data["values"].values()) == 10
    with wording.raises(UsageError, "seed 0"):
        fuzz(cases=12, seed=1, records=records, resume=True)


def test_a_wrong_line_is_an_error_with_its_number(tmp_path: Path, wording: Wording) -> None:
    records = tmp_path / "fuzz.jsonl"
    fuzz(cases=1, records=records)
    first, second = records.read_text().splitlines()
    records.write_text(f"{first}\n{second.replace('agree', 'perhaps')}\n{second}\n")
    with wording.raises(RecordError, "fuzz.jsonl:2 ... 'perhaps'"):
        fuzz(cases=2, records=records, resume=True)


def test_options_are_checked() -> None:
    for options in ({"resume": True}, {"dtypes": ("float8",)}, {"path": "fast"}):
        with pytest.raises(UsageError):
            fuzz(cases=1, **options)


def test_a_fault_has_exit_code_1_and_a_reproducer(tmp_path: Path) -> None:
    variables = {**os.environ, "PYTHONPATH": str(plugin_planted.FOLDER)}
    options = ("--backend", "planted", "--device", "exp-17", "--cases", "43", "--json")
    run = subprocess.run(
        [*COMMAND, *options, "--reproducers", "found"],
        env=variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1, run.stderr
    fault = json.loads(run.stdout)["faults"][0]
    assert fault["lengths"] == "long"
    assert {file.name for file in (tmp_path / fault["folder"]).iterdir()} == {
        *("program.json", "arrays.npz", "issue.md")
    }
    replay = [*COMMAND[:-1], "replay", fault["folder"]]
    assert subprocess.run(replay, env=variables, cwd=tmp_path, capture_output=True).returncode == 1


def test_an_interrupt_keeps_the_records_whole(tmp_path: Path) -> None:
    records = tmp_path / "fuzz.jsonl"
    process = subprocess.Popen(
        [*COMMAND, "--backend", "numpy", "--records", str(records)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not records.exists() or records.read_bytes().count(b"\n") < 4:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert len(lines_of(records)) >= 4


def test_cases_also_run_with_threads_and_instruction_sets() -> None:
    data = fuzz(cases=2, threads=(1,), instruction_sets=True).json()
    columns = ("numpy", "numpy@threads-1", "numpy@sse4", "numpy@avx2")
    assert set(data["backends"]) == set(columns)
    assert all(sum(tally.values()) == 2 for tally in data["backends"].values())


def test_models_have_optimizers() -> None:
    drafts = [draw_case(0, number, ("float32", "float64"))[0] for number in range(7, 400, 8)]
    names = {draft.functions[-1]: draft.dtype for draft in drafts}
    assert {"adam", "sgd_momentum"} <= {*names}
    assert {name for name, dtype in names.items() if dtype == "float32"} <= {
        *("sgd", "sgd_momentum", "sgd_momentum_scaled")
    }


def test_models_with_parameters_are_trained() -> None:
    trained = set()
    for number in (7, 15, 23, 31):
        draft, case = draw_case(0, number, ("float64",))
        checks = {run.check for run in passes(draft, case)}
        assert ("training" in checks) == bool(case.training.parameters)
        trained.add("training" in checks)
    assert trained == {True, False}


def test_all_results_on_unusual_memory_layouts_are_compared() -> None:
    draft, case = next(
        (draft, case)
        for draft, case in (draw_case(0, number, ("float64",)) for number in range(0, 40, 4))
        if draft.values == ORDINARY
    )
    (run,) = (run for run in passes(draft, case) if isinstance(run, StridedPass))
    with np.errstate(all="ignore"):
        expected = run.expected(case)
        right = run.comparable(case, expected, {**expected.values})
        wrong = {name: array + 1 for name, array in expected.values.items()}
        compared = run.comparable(case, expected, wrong)
        assert all(d.agrees for d in expected.deviations(right, draft.dtype))
        differing = [d.name for d in expected.deviations(compared, draft.dtype) if not d.agrees]
    for prefix in ("gaps: output", "views: output", "training on gaps: gradient"):
        assert any(name.startswith(prefix) for name in differing)


def test_gradients_at_special_values_are_compared_away_from_kinks() -> None:
    """The gradient of tanh is 0 at infinity, and relu has a kink at 0."""
    model = RandomModel(random.Random(0).randint, {"width": 4})
    model.equations = ["v0 = tanh(x)", "v1 = relu(y)", "v2 = log(z)"]
    model.inputs = dict.fromkeys("xyz", "{shape: [width]}")
    draft = Draft(0, "calls", model, "", 1, 1, "special", "float64", 0)
    inputs = {
        "x": np.array([np.inf, 1.0, -0.5, 0.0]),
        "y": np.array([0.0, -np.inf, 2.0, -2.0]),
        "z": np.array([-1.0, 1.0, 2.0, 3.0]),
    }
    case = draft.case(Arguments({}, {}, inputs, {}, {}))
    (run,) = (run for run in passes(draft, case) if isinstance(run, SmoothPass))
    with np.errstate(all="ignore"):
        expected = run.expected(case)
        wrong = {name: array + 1 for name, array in expected.values.items()}
        compared = run.comparable(case, expected, wrong)
    differs = {n[-1]: (compared[n] == wrong[n]).tolist() for n in wrong}
    assert differs == {
        "x": [True, True, True, True],
        "y": [False, True, True, True],
        "z": [False, False, False, False],  # the logarithm of -1 is NaN
    }
