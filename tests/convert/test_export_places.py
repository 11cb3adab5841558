"""Where an export is made: its own folder, which goes whatever happens; and the bytes it makes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from format_cases import Case, everything, written
from needed import need
from sampling import sampled

import harness
from harness.convert import weights
from harness.convert.formats import launch
from harness.convert.weights import Weights
from harness.errors import UsageError
from harness.files.atomic import FILES, FOLDERS, LEFT_OVER, staging, sweep, whole
from harness.language.model import fingerprint, load_spec
from harness.oracle.draw import draw
from harness.worker.worker import Worker

SUFFIXES = {"torch": "pt", "jax": "npz", "keras": "keras", "onnx": "onnx"}
SPEC = "lesson6/sequence_rnn"


def aged(path: Path, seconds: float = LEFT_OVER + 1) -> Path:
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_left_of_a_killed_export_goes_with_the_next(tmp_path: Path) -> None:
    folder = tmp_path / f"{FOLDERS}abc"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "m.pt").write_bytes(b"half")
    aged(folder)
    (tmp_path / f"{FILES}abc.pt").write_bytes(b"half")
    aged(tmp_path / f"{FILES}abc.pt")
    with staging(tmp_path / "m.pt") as made:
        assert left(tmp_path) == [made.name]
        assert made.parent == tmp_path
    assert left(tmp_path) == []


def test_what_is_young_held_or_somebody_else_s_stays(tmp_path: Path) -> None:
    (tmp_path / f"{FOLDERS}young").mkdir()
    (tmp_path / ".harness-other").mkdir()
    aged(tmp_path / ".harness-other")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("mine")
    aged(elsewhere)
    (tmp_path / f"{FOLDERS}link").symlink_to(elsewhere)
    os.mkfifo(tmp_path / f"{FILES}pipe")
    (tmp_path / f"{FILES}young").write_text("half")
    with staging(tmp_path / "m.pt") as held, whole(tmp_path / "m.txt") as part:
        part.write_text("half")
        aged(held), aged(part)
        before = left(tmp_path)
        sweep(tmp_path)
        assert left(tmp_path) == before
    assert left(tmp_path) == sorted(set(before) - {held.name, part.name} | {"m.txt"})
    assert left(elsewhere) == ["kept"]


def test_a_place_where_nothing_can_be_made_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"cannot write /proc/m\.pt: "),
        staging(Path("/proc/m.pt")),
    ):
        pass


@pytest.mark.slow
def test_an_export_that_is_killed_leaves_nothing_for_long(tmp_path: Path) -> None:
    need("jax")
    spec = load_spec(SPEC)
    program = spec.program("training", hidden=8)
    arrays = {n: a.astype("f4") for n, a in draw(program, 1, 1, 3).parameters.items()}
    made = Weights(SPEC, fingerprint(spec), dict(program.sizes), arrays, {})
    weights.save(tmp_path / "w.st", made)
    program_ = "from harness.cli import main; main()"
    arguments = ["export", SPEC, "--weights", "w.st", "--to", "jax"]
    command = [sys.executable, "-c", program_, *arguments]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not (found := list(tmp_path.glob(f"{FOLDERS}*"))):
        assert time.monotonic() < end
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert found[0].is_dir()
    time.sleep(0.5)  # its worker ends with it
    aged(found[0])
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert left(tmp_path) == ["sequence_rnn_jax.npz", "sequence_rnn_jax.py", "w.st"]


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(SUFFIXES, ["keras", "onnx"]))
def test_the_same_weights_give_the_same_bytes_in_any_process(name: str, tmp_path: Path) -> None:
    """At other hash seeds, at other times, and with arrays in another order."""
    module = {"onnx": "onnxruntime", "keras": "tensorflow"}.get(name, name)
    need(module)
    specs = [harness.load("lesson6/stateful_lstm"), everything(tmp_path)]
    found: list[dict[str, bytes]] = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with Worker(launch(name, environment={"PYTHONHASHSEED": str(seed)})) as worker:
            for spec in specs:
                case = Case.of(spec, "float32")
                items = list(case.exported.parameters.items())
                random.Random(seed).shuffle(items)
                notes = dict(sorted({"b": 1, "a": [2]}.items(), reverse=seed == 1))
                exported = replace(case.exported, parameters=dict(items), metadata=notes)
                stem = spec.name.rpartition("/")[2]
                path = folder / f"{stem}.{SUFFIXES[name]}"
                written(worker, replace(case, exported=exported), path)
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
        time.sleep(2.1)  # an archive tells time in steps of two seconds
    assert found[0].keys() == found[1].keys()
    assert [n for n in found[0] if found[0][n] != found[1][n]] == []
