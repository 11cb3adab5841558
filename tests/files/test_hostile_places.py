"""Every option that names a file, given pipes, devices, folders, names too long and other kinds.

Nothing hangs, nothing is read without end, nothing of the user's is touched, and the message names
the file. An alarm ends what hangs all the same.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_results import REQUEST, result
from click.testing import CliRunner, Result
from needed import need
from wording import Wording

from harness.cli import cli
from harness.convert import weights
from harness.convert.weights import Weights
from harness.files import kinds
from harness.files.user_file import GIB
from harness.language.model import fingerprint, load_spec
from harness.results.cell import Cell
from harness.results.file import RecordWriter
from harness.results.lines import Begin
from harness.timing.json_file import document, write
from harness.training.checkpoint import place_of

SPEC = "lesson6/sequence_rnn"
SECONDS = 20
ONE = ("--backend", "numpy", "--size", "hidden=4")

# Every option that names a file to read.
READERS: dict[str, tuple[str, ...]] = {
    "generate": ("generate", SPEC, "--backend", "numpy", "--prompt", "a", "--weights", "HERE"),
    "export": ("export", SPEC, "--to", "onnx", "--weights", "HERE"),
    "like": ("import", SPEC, "w", "--from", "jax", "--weights", "new", "--like", "HERE"),
    "import": ("import", SPEC, "HERE", "--from", "jax", "--weights", "new"),
    "text": ("train", SPEC, *ONE, "--text", "HERE"),
    "records": ("check", SPEC, *ONE, "--records", "HERE", "--resume"),
    "baseline": ("check", SPEC, *ONE, "--baseline", "HERE"),
    "compare": ("compare", "HERE", "results.json"),
    "compare_new": ("compare", "results.json", "HERE"),
    "bench": ("bench", SPEC, "--backend", "numpy", "--baseline", "HERE"),
    "spec": ("explain", "HERE"),
    "spec_of_check": ("check", "HERE", *ONE),
    "replay": ("replay", "HERE"),
    "resume": ("train", SPEC, *ONE, "--weights", "HERE", "--resume"),
}
# Every option that names a place to write to, and which kind it writes.
WRITERS: dict[str, tuple[tuple[str, ...], kinds.Kind]] = {
    "train": (("train", SPEC, *ONE, "--force", "--weights", "HERE"), kinds.WEIGHTS),
    "import": (
        ("import", SPEC, "w", "--from", "jax", "--force", "--weights", "HERE"),
        kinds.WEIGHTS,
    ),
    "records": (("check", SPEC, *ONE, "--records", "HERE"), kinds.RECORDS),
    "bench": (("bench", SPEC, "--backend", "numpy", "--records", "HERE"), kinds.RESULTS),
    "export": (
        ("export", SPEC, "--weights", "w", "--to", "onnx", "--force", "--output", "HERE.onnx"),
        kinds.EXPORT,
    ),
}


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """Ends a test that hangs, and one that takes memory without end."""

    def late(*_: object) -> None:
        raise AssertionError(f"it hung for {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (4 * GIB, limits[1]))
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    resource.setrlimit(resource.RLIMIT_DATA, limits)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with weights, results and records."""
    monkeypatch.chdir(tmp_path)
    weights.save("w", small())
    write(Path("results.json"), document(REQUEST, [result()]))
    with RecordWriter("records.jsonl") as writer:
        writer.append(Begin.of(Cell("a", "b", "cpu", "float32", "native"), None))
    Path("spec.yaml").write_text("model: mine\n")
    Path("text.txt").write_text("mine")
    os.mkfifo("pipe")
    os.mkfifo("pipe.onnx")
    Path("link").symlink_to("pipe")
    return tmp_path


def small(**changes: Any) -> Weights:
    """Weights of the spec."""
    spec = load_spec(SPEC)
    program = spec.program("training", hidden=4)
    random = np.random.default_rng(0)
    parameters = {
        p.name: random.normal(size=program.shape(p)).astype(np.float32) for p in program.parameters
    }
    given = {"vocabulary": ("\0", "a", "b"), "parameters": parameters, **changes}
    return Weights(spec.name, fingerprint(spec), dict(program.sizes), statistics={}, **given)


def harness(command: tuple[str, ...], here: str) -> Result:
    found = CliRunner().invoke(cli, [part.replace("HERE", here) for part in command])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


@pytest.mark.parametrize("here", ["pipe", "link", "/dev/zero", "/dev/full", ".", "n" * 300])
@pytest.mark.parametrize("name", READERS)
def test_reading(name: str, here: str, there: Path) -> None:
    if name == "replay" and here == "pipe":
        here = "folder"
        os.mkdir(here)
        os.mkfifo("folder/program.json")
    before = content(there)
    found = harness(READERS[name], here)
    assert found.exit_code == 2, found.output
    assert here[:50] in found.output  # names of specs are cut
    assert content(there) == before


@pytest.mark.parametrize("here", ["pipe", "link", "/dev/null", "/dev/zero", ".", "n" * 300])
@pytest.mark.parametrize("name", WRITERS)
def test_writing_where_no_file_can_be(name: str, here: str, there: Path) -> None:
    if name == "export" and len(here) < 255:  # whose files have an ending
        Path("odd.onnx").symlink_to(here)
        here = "odd"
    before = content(there)
    found = harness(WRITERS[name][0], here)
    assert found.exit_code == 2, found.output
    assert here in found.output
    assert content(there) == before


OTHERS = {
    "w": kinds.WEIGHTS,
    "results.json": kinds.RESULTS,
    "records.jsonl": kinds.RECORDS,
    "spec.yaml": None,
    "text.txt": None,
}


@pytest.mark.parametrize(
    ("name", "here"), [(n, h) for n in WRITERS for h in OTHERS if OTHERS[h] is not WRITERS[n][1]]
)
def test_writing_over_another_kind(name: str, here: str, there: Path, wording: Wording) -> None:
    command, kind = WRITERS[name]
    if name == "export":
        Path(here).rename(f"{here}.onnx")
        if here == "w":
            Path("w").write_bytes(Path("w.onnx").read_bytes())
    before = content(there)
    found = harness(command, here)
    assert found.exit_code == 2, found.output
    assert f"{here}" in found.output
    wording.line(found.output, f"{kind.name}")
    assert content(there) == before


def test_a_module_of_the_user_beside_an_export_stays(there: Path) -> None:
    need("jax")
    signal.alarm(100)  # JAX is imported
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    command = ("export", SPEC, "--weights", "w", "--to", "jax", "--force", "--output", "HERE.npz")
    Path("model.py").write_text("print('mine')\n")
    before = content(there)
    found = harness(command, "model")
    assert (found.exit_code, "model.py: this is a text, not a file" in found.output) == (2, True)
    assert content(there) == before
    for _ in range(2):  # what an export wrote, another one may write anew
        found = harness(command, "other")
        assert found.exit_code == 0, found.output
    assert set(content(there)) == {*before, "other.npz", "other.py"}


def test_a_folder_of_definitions_with_pipes(there: Path) -> None:
    folder = there / "specs"
    for kind in ("models", "layers"):
        (folder / kind).mkdir(parents=True)
    command = ("check", "mine", *ONE, "--specs", str(folder))
    os.mkfifo(folder / "models" / "mine.yaml")
    found = harness(command, "")
    assert (found.exit_code, "mine.yaml" in found.output) == (2, True)
    assert "a named pipe" in found.output
    os.mkfifo(folder / "known_differences.yaml")
    found = harness(("check", SPEC, *ONE, "--specs", str(folder)), "")
    assert (found.exit_code, "known_differences.yaml" in found.output) == (2, True)
    assert "a named pipe" in found.output


@pytest.mark.parametrize("here", ["pipe", "n" * 300, "/dev/null", "text.txt", "absent"])
def test_what_is_no_folder_of_definitions(here: str, there: Path) -> None:
    found = harness(("explain", SPEC, "--specs", "HERE"), here)
    told = f"there is no folder '{here}' of definitions"
    assert (found.exit_code, told in found.output) == (2, True)


def test_a_corpus_that_is_a_pipe(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CORPUS", "pipe")
    found = harness(("train", SPEC, *ONE, "--text", "nietzsche"), "")
    assert (found.exit_code, "a named pipe" in found.output) == (2, True)


def test_a_checkpoint_that_is_a_pipe(there: Path) -> None:
    os.mkfifo(place_of(Path("new")))
    for option in ("--resume", "--force"):
        found = harness(("train", SPEC, *ONE, "--weights", "new", option), "")
        assert (found.exit_code, "new.checkpoint: this is not a reg" in found.output) == (2, True)


@pytest.mark.parametrize("here", ["pipe", "w", "n" * 300, "/dev/null"])
def test_reproducers_where_no_folder_can_be(here: str, there: Path) -> None:
    before = content(there)
    found = harness(("check", SPEC, *ONE, "--reproducers", "HERE"), here)
    assert (found.exit_code, here in found.output) == (2, True)
    assert "[Errno" not in found.output
    assert content(there) == before


@pytest.mark.parametrize("name", ["generate", "export"])
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(name: str, odd: float, there: Path, wording: Wording) -> None:
    parameters = dict(small().parameters)
    first = next(iter(parameters))
    parameters[first].flat[0] = odd
    weights.save("bad", small(parameters=parameters))
    found = harness(READERS[name], "bad")
    assert found.exit_code == 2
    wording.line(found.output, f"{first} ... NaN")


@pytest.mark.parametrize(
    ("vocabulary", "words"),
    [
        (("\0",), "only the padding character"),
        (("\0", *(chr(97 + i) for i in range(200))), "86 classes are too few"),
    ],
)
def test_a_vocabulary_that_no_text_gives(
    vocabulary: tuple[str, ...], words: str, there: Path
) -> None:
    weights.save("bad", small(vocabulary=vocabulary))
    found = harness(READERS["generate"], "bad")
    assert (found.exit_code, words in found.output) == (2, True), found.output
