"""The command line: exit codes, errors in words, plain output when piped, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import plugin_faulty_cells
import pytest
import warm_commands
from click.testing import CliRunner
from process_faults.support import allow_interrupts, is_gone, wait_until
from time_limits import over_within

from harness.cli import cli
from harness.results.file import read_records
from harness.results.lines import Begin, End, Head, Result

HARNESS = Path(sys.executable).with_name("harness")
FRAMEWORKS = {"torch", "jax", "jaxlib", "optax", "keras", "tensorflow", "onnx", "onnxruntime"}
QUICK = ("lesson6/simple_rnn", "--backend", "numpy", "--check", "values")


def environment(faults: Mapping[str, str]) -> dict[str, str]:
    """An environment in which the faulty backends have faults, by cell: ``SPEC DTYPE``."""
    return {**os.environ, **plugin_faulty_cells.variables(faults)}


def harness(
    *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return warm_commands.run(arguments, cwd=cwd, env=env or environment({}))


def faults(**by_dtype: str) -> dict[str, str]:
    """An environment in which the faulty backends have faults at the model of these tests."""
    return environment({f"lesson6/simple_rnn {dtype}": fault for dtype, fault in by_dtype.items()})


FAULTY_RUN = ("check", "lesson6/simple_rnn", "--backend", "faulty-numpy", "--check", "values")


@pytest.mark.parametrize(
    ("fault", "code", "shown"),
    [
        ("print_megabytes", 0, "2 agree"),
        ("wrong_shape", 1, "DIFFER"),
        ("nan", 1, "DIFFER"),
        ("exit_0", 3, "CRASHED"),
    ],
)
def test_exit_code_tells_what_happened(fault: str, code: int, shown: str) -> None:
    run = harness(*FAULTY_RUN, env=faults(float32=fault))
    assert run.returncode == code, run.stdout
    assert shown in run.stdout
    assert "Traceback" not in run.stdout + run.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--backend", "nump"], "unknown backend 'nump'; did you mean 'numpy'?"),
        (["lesson6/simple_rn"], "'lesson6/simple_rn'; did you mean 'lesson6/simple_rnn'?"),
        (["no/such/file.yaml"], "no/such/file.yaml"),
        (["--size", "hiden=3"], "no size 'hiden'; did you mean 'hidden'?"),
        (["--size", "hidden=0"], "positive whole number, found '0'"),
        (["--size", "hidden"], "--size takes NAME=NUMBER, found 'hidden'"),
        (["--dtype", "float8"], "unknown dtype 'float8'"),
        (["--dtype", "float23"], "did you mean 'float32'?"),
        (["--check", "valeus"], "unknown check 'valeus'; did you mean 'values'?"),
        (["--path", "nativ"], "unknown path 'nativ'; did you mean 'native'?"),
        (["--python", "nmpy=/bin/true"], "'nmpy', which is not checked; did you mean 'numpy'?"),
        (["--env", "numpy"], "--env takes [BACKEND:]NAME=VALUE, found 'numpy'"),
        (["--env", "nmpy:A=1"], "'nmpy', which is not checked; did you mean 'numpy'?"),
        (["--timeout", "0"], "positive number of seconds, found '0' (allowed: 0.001 to"),
        (["--timeout", "nan"], "positive number of seconds, found 'nan'"),
        (["--memory", "-5"], "a memory limit must be a positive size"),
        (["--records", "no/such/folder/r.jsonl"], "cannot write records to no/such/folder"),
        (["--specs", "no/such/folder"], "no/such/folder"),
        (["--threads", "2"], "check has no option --threads; bench, fuzz and train have it"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_told_in_words(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = [] if "--backend" in arguments else ["--backend", "numpy"]
    run = CliRunner().invoke(cli, ["check", *named, *arguments])
    assert run.exit_code == 2, run.output
    assert words in run.stderr


def test_wrong_spec_file_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("model: wrong\nsizes: {units: 0}\n")
    run = harness("check", "wrong.yaml", "--backend", "numpy", cwd=tmp_path)
    assert run.returncode == 2
    assert "wrong.yaml:2:16" in run.stderr
    assert "Traceback" not in run.stderr


def test_json_has_every_field_and_nothing_else_on_the_output() -> None:
    run = harness(*FAULTY_RUN, "--json", env=faults(float32="nan"))
    found = json.loads(run.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert found["exit_code"] == run.returncode == 1
    assert len(found["results"]) == 6
    for result in found["results"]:
        # A histogram and the number of comparisons are there if they are known.
        assert set(result) - {"spread", "compared"} == {*Result.model_fields} - Result.LEFT_OUT
    verdicts = {(r["dtype"], r["check"]): r["verdict"] for r in found["results"]}
    assert verdicts["float32", "outputs"] == "differ"
    assert verdicts["float64", "outputs"] == "agree"


def test_records_are_appended_to_the_file(tmp_path: Path) -> None:
    for count in (1, 2):
        assert harness("check", *QUICK, "--records", "r.jsonl", cwd=tmp_path).returncode == 0
        records = read_records(tmp_path / "r.jsonl")
        kinds = [len(records.of_kind(kind)) for kind in (Head, Begin, Result, End)]
        assert kinds == [count, 2 * count, 6 * count, 2 * count]
        assert records.torn is None


def test_size_reaches_the_program() -> None:
    run = harness("check", *QUICK, "--size", "hidden=32", "--verbose")
    assert run.returncode == 0, run.stderr
    explained = harness("explain", "lesson6/simple_rnn", "--size", "hidden=32")
    assert "rnn.U [32, 32]" in " ".join(explained.stdout.split()).replace("|", "")


def test_another_interpreter_can_be_named_and_a_missing_one_is_told() -> None:
    assert harness("check", *QUICK, "--python", f"numpy={sys.executable}").returncode == 0
    run = harness("check", *QUICK, "--python", "numpy=/no/such/python")
    assert run.returncode == 3
    assert "cannot run '/no/such/python'" in run.stdout
    assert "Traceback" not in run.stdout + run.stderr


def test_environment_reaches_the_backend_that_it_is_for() -> None:
    cell = {"lesson6/simple_rnn float64": "exit_0"}
    run = harness(*FAULTY_RUN, "--env", f"faulty-numpy:FAULTS={json.dumps(cell)}", "--json")
    verdicts = {r["dtype"]: r["verdict"] for r in json.loads(run.stdout)["results"]}
    assert verdicts == {"float64": "crashed", "float32": "agree"}


def test_piped_output_is_plain() -> None:
    run = harness(*FAULTY_RUN, env=faults(float32="nan") | {"TERM": "xterm-256color"})
    assert "lesson6/simple_rnn" in run.stdout
    assert "\x1b" not in run.stdout + run.stderr
    assert "\r" not in run.stdout + run.stderr


def test_checks_that_do_not_apply_anywhere_are_no_success() -> None:
    arguments = ["lesson6/theano_rnn", "--backend", "numpy", "--check", "embedding-rows"]
    run = harness("check", *arguments)
    assert run.returncode == 2
    assert "none of the selected checks applies to lesson6/theano_rnn" in run.stderr
    # Beside a model that it applies to, the one that it does not apply to has no say.
    assert harness("check", "lesson6/simple_rnn", *arguments).returncode == 0


def test_device_that_is_not_offered_is_told() -> None:
    run = harness("check", *QUICK, "--device", "cuda")
    assert run.returncode == 3
    assert run.stdout.count("numpy: unsupported: device 'cuda' is not offered (offered: cpu)") == 1


@pytest.mark.parametrize(
    "words",
    [
        ("check", "--backend", "numpy,torch"),
        ("bench", "--backend", "numpy,torch"),
        ("localise", "lesson6/simple_rnn", "--backend", "torch"),
        ("train", "lesson6/simple_rnn", "--backend", "torch"),
        ("run", "lesson6/simple_rnn", "--backend", "torch"),
    ],
)
def test_a_device_that_no_backend_has_is_told_before_one_starts(
    words: tuple[str, ...],
) -> None:
    run = harness(*words, "--device", "gpu")
    assert run.returncode == 2
    assert (
        "unknown device 'gpu'; did you mean 'cuda'? (known: cpu, cuda, cuda:N, mps)" in run.stderr
    )
    assert "starting" not in run.stderr


# What imports what, and how quickly.

STARTS = {
    "import harness": "import harness",
    "harness --help": "import sys; sys.argv[1:] = ['--help']; from harness.cli import main; main()",
    "harness list": "import sys; sys.argv[1:] = ['list']; from harness.cli import main; main()",
}


@pytest.mark.parametrize("name", STARTS)
def test_start_imports_little(name: str) -> None:
    """Before the help is shown, click is imported; the packages of arrays take far longer."""
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('MODULES', *sys.modules, file=sys.stderr))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code + STARTS[name]], capture_output=True, text=True, check=True
    )
    modules = run.stderr.partition("MODULES ")[2].split()
    packages = {m.partition(".")[0] for m in modules} - sys.stdlib_module_names
    assert "harness" in packages
    assert packages & FRAMEWORKS == set()
    assert not any("harness.backends" in m for m in modules)
    if name != "harness list":
        installed = {m for m in packages if not m.startswith("_")}
        assert installed <= {"harness", "click"}


# How it ends when it is told to.


def running(folder: Path) -> tuple[subprocess.Popen[str], int]:
    """A run whose second cell hangs, and the process number of its worker."""
    command = [HARNESS, *FAULTY_RUN, "--records", "r.jsonl", "--timeout", "100"]
    run = subprocess.Popen(
        allow_interrupts(command),
        env=faults(float32="hang_with_gil"),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert wait_until(lambda: _begun(folder / "r.jsonl") == 2, 30.0)
    workers = _workers(run.pid)
    assert len(workers) == 1
    time.sleep(0.2)
    return run, workers[0]


def _begun(path: Path) -> int:
    return path.read_bytes().count(b'"kind":"begin"') if path.exists() else 0


def _workers(parent: int) -> list[int]:
    """The workers that a process has started, by their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"harness.worker.serve" in words and str(parent).encode() in words:
                found.append(int(entry.name))
    return found


def _check_records(path: Path, torn_allowed: bool) -> None:
    records = read_records(path)
    assert [line.dtype for line in records.of_kind(Begin)] == ["float64", "float32"]
    ended = [(line.dtype, line.verdict) for line in records.of_kind(End)]
    assert ended == [("float64", "agree")]
    assert {line.dtype for line in records.of_kind(Result)} == {"float64"}
    assert torn_allowed or records.torn is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_leaves_no_worker_and_whole_records(
    number: signal.Signals, tmp_path: Path
) -> None:
    run, worker = running(tmp_path)
    with over_within(30.0):
        run.send_signal(number)
        _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "interrupted; finished cells are in r.jsonl" in errors
    assert "Traceback" not in errors
    assert is_gone(worker)
    assert _workers(run.pid) == []
    _check_records(tmp_path / "r.jsonl", torn_allowed=False)


def test_killed_run_leaves_no_worker_and_records_that_can_be_read(tmp_path: Path) -> None:
    run, worker = running(tmp_path)
    run.kill()
    run.communicate(timeout=60)
    assert wait_until(lambda: is_gone(worker), 10.0)
    assert _workers(run.pid) == []
    _check_records(tmp_path / "r.jsonl", torn_allowed=True)
