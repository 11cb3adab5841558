"""``harness check`` at numbers that a user gives: what they replace, and what is said of them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import plugin_faulty_cells
import pytest
import warm_commands
from record_lines import lines_of
from safetensors.numpy import save_file
from wording import Wording

import harness
from harness.checking.checks import AT_GIVEN, CHECKS, FINDINGS
from harness.checking.engine import Engine
from harness.checking.options import ReplayOptions
from harness.checking.replay import run_replay
from harness.checking.reproducer import load
from harness.checking.request import Request
from harness.command.declared import make_options
from harness.errors import UsageError
from harness.given.files import gather
from harness.language.initial_values import initial_parameters

SPEC = "lesson6/stateful_lstm"
SIZES = {"vocab": 20, "factors": 3, "hidden": 4}
SIZE_OPTIONS = [o for name, size in SIZES.items() for o in ("--size", f"{name}={size}")]
FAULT = {f"{SPEC} float64": "indices_of_four_bits"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Weights and a batch of 2 sequences of 5, whose last index is 19."""
    program = harness.load(SPEC).program("training", **SIZES)
    save_file(initial_parameters(program, 1), tmp_path / "w.safetensors")
    chars = np.arange(20)[::-1].reshape(2, 10)[:, :5] % 20
    np.savez(tmp_path / "x.npz", chars=chars)
    return tmp_path


def run(folder: Path, *arguments: str, fault: bool = False) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **plugin_faulty_cells.variables(FAULT if fault else {})}
    return warm_commands.run(arguments, cwd=folder, env=variables)


GIVEN = ("--weights", "w.safetensors", "--inputs", "x.npz", *SIZE_OPTIONS)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_an_honest_backend_agrees_at_them(backend: str, folder: Path) -> None:
    report = harness.check(
        SPEC,
        backend,
        weights=folder / "w.safetensors",
        inputs=folder / "x.npz",
        sizes=SIZES,
        paths=("native", "equations"),
    )
    assert report.exit_code == 0
    for result in report.results:
        made = {FINDINGS[f.check] for f in result.findings}
        wanted = set(AT_GIVEN) - ({"training"} if result.cell.dtype == "float32" else set())
        assert made == wanted


def test_the_output_names_them_and_what_is_not_given(folder: Path, wording: Wording) -> None:
    done = run(folder, "check", SPEC, "--backend", "numpy", "--dtype", "float64", *GIVEN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "given: parameters (sha256 " in done.stdout
    assert ", inputs (sha256 " in done.stdout
    assert "of w.safetensors, x.npz; batch 2, time 5" in " ".join(done.stdout.split())
    wording.line(done.stdout, "state ... statistics, targets")
    assert "shapes, partial-batch, single-example, extremes" in " ".join(done.stdout.split())


def test_a_fault_that_only_they_show_is_found_and_kept(folder: Path) -> None:
    """Drawn indices are below 11 at small sizes: the fault passes there."""
    base = ("check", SPEC, "--backend", "faulty-numpy", "--dtype", "float64", "--check", "values")
    assert run(folder, *base, fault=True).returncode == 0
    kept = ("--reproducers", "kept", "--records", "r.jsonl")
    done = run(folder, *base, *GIVEN, *kept, fault=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "DIFFER" in done.stdout
    saved = next((folder / "kept").rglob("program.json")).parent
    arrays = load(saved).run.material
    np.testing.assert_array_equal(arrays.inputs["chars"], np.load(folder / "x.npz")["chars"])
    asked = make_options(ReplayOptions, {"folder": saved, "backend": "numpy"})
    assert run_replay(asked).exit_code == 0
    assert run(folder, "replay", str(saved), fault=True).returncode == 1
    (head,) = lines_of(folder / "r.jsonl", "head")
    given = head["request"]["given"]
    assert set(given["sha256"]) == {"parameters", "inputs"}
    assert (given["batch"], given["time"]) == (2, 5)


def test_a_check_that_cannot_be_kept_names_the_files(folder: Path) -> None:
    check = ("--check", "carried-state", "--reproducers", "kept")
    base = ("check", SPEC, "--backend", "faulty-numpy", "--dtype", "float64")
    done = run(folder, *base, *GIVEN, *check, fault=True)
    told = " ".join(done.stdout.split())
    assert "--weights w.safetensors --inputs x.npz" in told, done.stdout + done.stderr


def test_a_run_is_taken_up_only_at_the_same_numbers(folder: Path, wording: Wording) -> None:
    base = ("check", SPEC, "--backend", "numpy", "--dtype", "float64", "--check", "values")
    kept = ("--records", "r.jsonl", "--resume")
    assert run(folder, *base, *GIVEN, *kept).returncode == 0
    again = run(folder, *base, *GIVEN, *kept)
    assert "(1 kept: 1 from 20" in again.stdout, again.stderr
    np.savez(folder / "x.npz", chars=np.zeros((2, 5), np.int64))
    other = run(folder, *base, *GIVEN, *kept)
    assert other.returncode == 2
    wording(other.stderr)


def test_json_says_what_was_given(folder: Path) -> None:
    base = ("check", SPEC, "--backend", "numpy", "--dtype", "float64", "--check", "values")
    found = json.loads(run(folder, *base, *GIVEN, "--json").stdout)
    digests = found["given"]["sha256"]
    own = gather(
        harness.load(SPEC), SIZES, parameters=folder / "w.safetensors", inputs=folder / "x.npz"
    )
    assert digests == own.digests
    assert all(len(digest) == 64 for digest in digests.values())


def test_a_digest_is_of_the_numbers_and_not_of_their_file(folder: Path) -> None:
    spec, chars = harness.load(SPEC), np.load(folder / "x.npz")["chars"]
    found = {
        str(gather(spec, SIZES, inputs=inputs).digests)
        for inputs in (
            folder / "x.npz",
            {"chars": chars.astype(np.uint8)},
            {"chars": chars.T.copy().T},
        )
    }
    assert len(found) == 1
    other = chars.copy()
    other[0, 0] += 1 if other[0, 0] < 19 else -1
    assert str(gather(spec, SIZES, inputs={"chars": other}).digests) not in found


def test_weights_alone_and_inputs_alone(folder: Path) -> None:
    call: dict[str, Any] = {"sizes": SIZES, "checks": ("values", "inference")}
    for given in ({"weights": folder / "w.safetensors"}, {"inputs": folder / "x.npz"}):
        assert harness.check(SPEC, "numpy", **given, **call).exit_code == 0


def test_given_state_and_targets_are_used() -> None:
    """And given numbers in place of all that would be drawn."""
    spec, random = harness.load(SPEC), np.random.default_rng(0)
    given = gather(
        spec,
        SIZES,
        inputs={"chars": random.integers(0, 20, (3, 6))},
        targets={"target": random.integers(0, 20, (3, 6))},
        state={n: random.normal(size=(3, 4)) for n in ("h", "c")},
    )
    with Engine(Request(specs=(SPEC,), backends=("numpy",), sizes=SIZES, given=given)) as engine:
        case = engine.case(engine.specs[SPEC], own=False)
        assert engine.case(engine.specs[SPEC], own=True) is case
    assert (case.batch, case.time) == (3, 6)
    for group in ("inputs", "targets", "state"):
        for name, array in getattr(given.arrays, group).items():
            np.testing.assert_array_equal(getattr(case.material, group)[name], array)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_an_honest_backend_is_not_blamed_on_a_kink(backend: str) -> None:
    """Of trained relus some are as near to their kink as float32 can tell, or exactly on it."""
    spec = "lesson6/simple_rnn"
    program = harness.load(spec).program("training", vocab=20, factors=3, hidden=64)
    own = initial_parameters(program, 0)
    own["embed.table" if "embed.table" in own else next(iter(own))][::2] = 0.0
    own["rnn.b"][:32] = 1e-9
    chars = np.random.default_rng(0).integers(0, 20, (32, 8))
    report = harness.check(
        spec,
        backend,
        weights=own,
        inputs={"chars": chars},
        sizes={"vocab": 20, "factors": 3, "hidden": 64},
    )
    assert report.exit_code == 0, [r.first_fault for r in report.results]


@pytest.mark.parametrize(
    ("specs", "options", "words"),
    [
        ((), {"inputs": {"chars": [[1]]}}, "name"),
        ((SPEC, "lesson6/simple_rnn"), {"inputs": {"chars": [[1]]}}, ""),
        ((SPEC,), {"inputs": {"chars": [[99]]}}, "0 ... 85"),
        ((SPEC,), {"inputs": {"chars": [[1]]}, "checks": ("kinks",)}, ""),
        ((SPEC,), {"inputs": {"chars": [[1]]}, "checks": ("kincks",)}, "'kinks'"),
        (
            (SPEC,),
            {"inputs": {"chars": [[1]]}, "state": {n: np.full((1, 256), np.nan) for n in "hc"}},
            "256 ... 256 ... NaN",
        ),
        (
            (SPEC,),
            {"inputs": {"chars": [[1]]}, "state": {n: np.full((1, 256), -1e39) for n in "hc"}},
            "256 ... 256 ... 3.4e+38 ... float32",
        ),
        (
            (SPEC,),
            {
                "inputs": {"chars": [[1]]},
                "state": {n: np.full((1, 256), 1e155) for n in "hc"},
                "dtypes": ("float64",),
            },
            "256 ... 256 ... 1.3e+154 ... float64",
        ),
    ],
)
def test_what_cannot_be_checked_is_said(
    specs: Any, options: Any, words: str, wording: Wording
) -> None:
    with pytest.raises(UsageError) as caught:
        harness.check(specs, "numpy", **options)
    wording.line(caught.value, words)


def test_every_check_is_made_at_given_numbers_or_named_as_not() -> None:
    own = {"shapes", "partial-batch", "extremes", "saturation", "kinks", "embedding-rows"}
    own |= {"bad-index", "nan", "initial-values", "own-sizes", "large-sizes", "functions", "tails"}
    own |= {"large-counts", "single-example", "nan-inputs", "far-inputs"}
    own |= {
        "offset",
        "minus-infinity",
        "strides",
        "long-state",
        "optimizer-steps",
        "trained",
        "soak",
    }
    assert set(CHECKS) == {*AT_GIVEN, *own}
    assert tuple(name for name in CHECKS if name in AT_GIVEN) == AT_GIVEN
