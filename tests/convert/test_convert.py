"""``harness export`` and ``harness import`` as a user runs them: files, words, exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from needed import need
from random_weights import SPEC, write_random_weights
from wording import Wording

from harness.cli import cli
from harness.convert import run, weights
from harness.files import kinds

need("jax", "torch")


def harness(*arguments: object) -> Result:
    found = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert "Traceback" not in found.output
    return found


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with weights."""
    monkeypatch.chdir(tmp_path)
    write_random_weights(tmp_path / "w.st")
    return tmp_path


@pytest.mark.parametrize(
    ("format_", "name", "dtype", "vocab"),
    [
        ("torch", "lesson6/stateful_lstm", "float64", 90),
        ("jax", "lesson6/sequence_unrolled", "float32", 86),
    ],
)
def test_weights_go_out_and_come_back_to_the_bit(
    format_: str, name: str, dtype: str, vocab: int, there: Path
) -> None:
    given = write_random_weights(there / "v.st", name, dtype, vocab=vocab)
    found = harness("export", name, "--weights", "v.st", "--to", format_)
    assert found.exit_code == 0, found.output
    short = f"{name.partition('/')[2]}_{format_}"
    suffix = {"torch": ".pt", "jax": ".npz"}[format_]
    assert f"{name} as {format_}, {dtype}: agree in " in found.output
    assert f"wrote {short}{suffix}, {short}.py" in found.output
    assert names(there) == [*sorted((f"{short}{suffix}", f"{short}.py")), "v.st", "w.st"]
    file = f"{short}{suffix}"
    made = harness(
        *("import", name, file, "--from", format_, "--weights", "b.st", "--like", "v.st", "--json")
    )
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["imported"] == {"format": format_, "file": file}
    back = weights.load(there / "b.st")
    for ours, theirs in (
        (given.parameters, back.parameters),
        (given.statistics, back.statistics),
    ):
        assert ours.keys() == theirs.keys()
        assert all(a.tobytes() == theirs[n].tobytes() for n, a in ours.items())
        assert all(a.dtype == theirs[n].dtype for n, a in ours.items())
    assert (back.sizes, back.vocabulary) == (given.sizes, given.vocabulary)


def test_json_tells_what_was_compared(there: Path) -> None:
    found = harness(
        *("export", SPEC, "--weights", "w.st", "--to", "torch", "--output", "m.pt", "--json")
    )
    told = json.loads(found.stdout)
    assert (told["verdict"], told["dtype"], told["comparisons"]) == ("agree", "float32", 6)
    assert 5 < told["digits"] <= 16
    assert told["worst"]["error"] <= told["worst"]["tolerance"]
    assert told["files"] == ["m.pt", "m.py"]
    assert "torch" in told["versions"]


def tampered(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Have ``change(path)`` done to what a format has written, before it is run."""
    call = run.Caller.call

    def tampering(self: run.Caller, verb: str, **payload: Any) -> Any:
        value = call(self, verb, **payload)
        if verb == "write":
            change(Path(payload["path"]))
        return value

    monkeypatch.setattr(run.Caller, "call", tampering)


def swap_gates(path: Path) -> None:
    with np.load(path) as arrays:
        held = dict(arrays)
    held["lstm/W_i"], held["lstm/W_f"] = held["lstm/W_f"], held["lstm/W_i"]
    np.savez(path, **held)


def test_what_differs_is_not_kept(
    there: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    write_random_weights(there / "v.st", "lesson6/stateful_lstm")
    tampered(monkeypatch, swap_gates)
    command = ("export", "lesson6/stateful_lstm", "--weights", "v.st", "--to", "jax")
    found = harness(*command)
    assert found.exit_code == 1
    assert "lesson6/stateful_lstm as jax, float32: differ: " in found.output
    wording(found.output)
    assert "nothing was written" in found.output
    told = harness(*command, "--json")
    assert told.exit_code == 1
    assert json.loads(told.stdout)["verdict"] == "differ"
    assert json.loads(told.stdout)["files"] == []
    assert names(there) == ["v.st", "w.st"]


def test_interrupted_export_leaves_nothing(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: Path) -> None:
        assert path.is_file()
        raise KeyboardInterrupt

    tampered(monkeypatch, interrupt)
    found = harness("export", SPEC, "--weights", "w.st", "--to", "torch")
    assert found.exit_code == 130
    assert names(there) == ["w.st"]


def test_files_that_are_there_are_kept_without_force(there: Path, wording: Wording) -> None:
    command = ("export", SPEC, "--weights", "w.st", "--to", "torch", "--output", "m.pt")
    assert harness(*command).exit_code == 0
    before = (there / "m.py").read_bytes()
    (there / "m.pt").unlink()
    found = harness(*command)
    assert found.exit_code == 2
    wording.line(found.output, "m.py ... --force")
    assert names(there) == ["m.py", "w.st"]
    assert harness(*command, "--force").exit_code == 0
    assert (there / "m.py").read_bytes() == before
    assert names(there) == ["m.pt", "m.py", "w.st"]


@pytest.mark.parametrize("given", [("--output", "m.npz"), ()], ids=["given", "not given"])
def test_a_place_is_looked_at_once_before_anything_is_written(
    given: tuple[str, ...], there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once more when what was written is put there, for that may be long after."""
    looked: list[str] = []
    right = kinds.check_place

    def check_place(path: Path, kind: kinds.FileKind) -> bool:
        looked.append(path.name)
        return right(path, kind)

    monkeypatch.setattr(kinds, "check_place", check_place)
    found = harness("export", SPEC, "--weights", "w.st", "--to", "jax", *given)
    assert found.exit_code == 0, found.output
    files = sorted(names(there)[:-1])
    main = next(name for name in files if name.endswith(".npz"))
    assert sorted(looked) == sorted([main, *files])


@pytest.mark.parametrize("name", ["m.py", "m.pt"])
def test_files_that_no_export_wrote_are_kept_always(name: str, there: Path) -> None:
    (there / name).write_text("mine")
    command = ("export", SPEC, "--weights", "w.st", "--to", "torch", "--output", "m.pt")
    for options in ((), ("--force",)):
        found = harness(*command, *options)
        assert (found.exit_code, f"{name}: this is a text, not a file" in found.output) == (2, True)
        assert names(there) == [name, "w.st"]
        assert (there / name).read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("export", SPEC, "--to", "toch"), "unknown format 'toch'; did you mean 'torch'?"),
        (("export", "lesson6/simple_rnn", "--to", "torch"), "weights of 'lesson6/sequence_rnn'"),
        (("export", SPEC, "--to", "torch", "--output", "m.py"), "must end in .pt, found m.py"),
        (("export", SPEC, "--to", "torch", "--output", "no/m.pt"), "no/m.pt: there is no folder"),
        (("export", SPEC, "--to", "torch", "--output", "/proc/m.pt"), "cannot write /proc/m.pt"),
        (
            ("export", SPEC, "--to", "torch", "--output", "d.pt"),
            "cannot write d.pt: this is a fold",
        ),
        (("import", SPEC, "none.pt", "--from", "torch"), "cannot import none.pt: no such file"),
        (("import", SPEC, "w.txt", "--from", "torch"), "cannot be read as a state_dict"),
        (("import", SPEC, "w.txt", "--from", "jax"), "cannot be read as an npz file"),
        (("import", SPEC, "w.txt", "--from", "jax", "--size", "hiden=3"), "did you mean 'hidden'"),
        (("import", SPEC, "w.txt", "--from", "jax", "--like", "w.txt"), "not a file of weights"),
    ],
)
def test_wrong_usage_is_told_in_words(arguments: tuple[str, ...], words: str, there: Path) -> None:
    (there / "w.txt").write_text("text")
    (there / "d.pt").mkdir()
    before = names(there)
    out = "w.st" if arguments[0] == "export" else "new.st"
    found = harness(*arguments, "--weights", out)
    assert (found.exit_code, words in found.output) == (2, True), found.output
    assert names(there) == before


@pytest.mark.parametrize(
    ("format_", "name"), [("torch", "torch.pt"), ("torch", "json.pt"), ("jax", "numpy.npz")]
)
def test_an_export_hides_no_module(format_: str, name: str, there: Path, wording: Wording) -> None:
    export = ("export", SPEC, "--weights", "w.st", "--to", format_, "--output", name)
    found = harness(*export)
    assert found.exit_code == 2, found.output
    wording.line(found.output, f"{name.split('.')[0]!r}")
    assert names(there) == ["w.st"]


def test_import_keeps_weights_that_are_there(there: Path, wording: Wording) -> None:
    (there / "m.npz").write_bytes(b"")
    command = ("import", SPEC, "m.npz", "--from", "jax", "--weights", "w.st")
    assert "w.st already exists: --force" in harness(*command).output
    wording(harness(*command, "--force").output)
    assert weights.load(there / "w.st").spec == SPEC


def test_format_that_cannot_be_run_is_exit_code_3(there: Path, wording: Wording) -> None:
    nothing = shutil.which("false") or "/bin/false"
    found = harness("export", SPEC, "--weights", "w.st", "--to", "torch", "--python", nothing)
    assert found.exit_code == 3
    wording.line(found.output, "'torch' ... 1")
    found = harness(
        "import", SPEC, "w.st", "--from", "torch", "--weights", "b.st", "--python", "no"
    )
    assert found.exit_code == 3
    assert "cannot run 'no'" in found.output
    assert names(there) == ["w.st"]
