"""Writing on from what is kept of earlier characters: the same text, proved, and faster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sampling import sampled
from wording import Wording

from harness.convert.weights import Weights, save
from harness.language.initial_values import initial_parameters, initial_statistics
from harness.language.initializers import generator
from harness.language.model import fingerprint, load_spec
from harness.program.ir import Program
from harness.text.vocabulary import Vocabulary
from harness.training.generate import writing
from harness.training.generate.console import pace_line
from harness.training.generate.request import GenerateError, GenerateRequest
from harness.training.generate.writing import ALL, KEPT, ReadingPace, TextWriter, prepare

LETTERS = "abcdefghijklmnopqrstuvwxyz ."
PROMPT = "the quick brown fox"
BACKENDS = ("numpy", "torch", "jax", "keras", "keras-torch", "keras-jax")


def writer(model: str, folder: Path, **options: Any) -> TextWriter:
    """A writer with weights that were never trained, far enough from all ties."""
    spec, vocabulary = load_spec(model), Vocabulary.of(LETTERS)
    program = spec.program("training", vocab=len(vocabulary))
    parameters = initial_parameters(program, 3)
    for name, array in parameters.items():
        parameters[name] = array + 0.5 * generator(3, name).normal(size=array.shape)
    file = folder / "weights.safetensors"
    made = Weights(
        spec.name,
        fingerprint(spec),
        dict(program.sizes),
        parameters,
        initial_statistics(program),
        vocabulary.characters,
    )
    save(file, made)
    given = {"prompt": PROMPT, "length": 12, **options}
    return prepare(GenerateRequest(model, ("numpy",), file, **given))


def plain(one: TextWriter) -> TextWriter:
    return replace(one, request=replace(one.request, cache=False))


# Of gpt a test below shows the same, up to the end of its window.
@pytest.mark.parametrize("model", sampled(["gpt", "llama", "mamba"], ["mamba"]))
def test_a_text_is_the_same_with_and_without_what_is_kept(model: str, tmp_path: Path) -> None:
    one, paces = writer(model, tmp_path), (ReadingPace(), ReadingPace())
    text = "".join(one.write("numpy", paces[0]))
    assert text == "".join(plain(one).write("numpy", paces[1]))
    assert len(set(text)) > 3, "the test needs a text that varies"
    assert [list(pace.record()) for pace in paces] == [[KEPT], [ALL]]


@pytest.mark.parametrize("backend", sampled(BACKENDS, ["torch"]))
def test_backends_write_what_the_oracle_reads(backend: str, tmp_path: Path) -> None:
    one = writer("gpt", tmp_path, length=6)
    assert "".join(one.write(backend)) == "".join(plain(one).write("numpy"))


def test_a_text_that_outgrows_the_window_is_read_from_it(tmp_path: Path, wording: Wording) -> None:
    """From the 64th character on the window moves, and with it all positions."""
    one, pace = writer("gpt", tmp_path, length=50), ReadingPace()
    text = "".join(one.write("numpy", pace))
    assert text == "".join(plain(one).write("numpy"))
    told = pace.record()
    assert told[KEPT]["characters"] + 1 == 64 - len(PROMPT) + 1
    assert told[ALL]["characters"] + 1 == 50 - (64 - len(PROMPT) + 1)
    wording.line(pace_line(pace), "45")
    wording.line(pace_line(pace), "45 ... 3 ")
    assert pace_line(ReadingPace()) == ""


def written_late(program: Program) -> Program:
    """What is kept of a step is written from the next one on."""
    nodes = list(program.nodes)
    at = max(n for n, node in enumerate(nodes) if node.op == "equal")
    here = nodes[at]
    nodes[at] = replace(here, op="less", inputs=here.inputs[::-1])
    return replace(program, nodes=tuple(nodes))


def test_a_step_that_is_wrong_writes_nothing(tmp_path: Path, wording: Wording) -> None:
    """Planted: values that are kept one step late."""
    one = writer("gpt", tmp_path)
    assert one.reader.step is not None
    wrong = replace(one, reader=replace(one.reader, step=written_late(one.reader.step)))
    with wording.raises(GenerateError, "numpy ... agree"):
        list(wrong.write("numpy"))


def test_the_last_step_of_the_window_is_proved_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = writer("gpt", tmp_path, length=60)
    proofs: list[int] = []

    def count(self: writing.Reading, inputs: Any, state: Any, results: Any) -> None:
        proofs.append(inputs["chars"].shape[1])

    monkeypatch.setattr(writing.Reading, "_prove", count)
    list(one.write("numpy"))
    assert proofs == [19, 20, 21, 23, 27, 35, 51, 64, *(64 for _ in (0, 1, 2, 4, 8))]


def test_a_model_that_looks_ahead_reads_all(tmp_path: Path) -> None:
    one = writer("lesson6/sequence_unrolled", tmp_path)
    assert one.reader.step is None
    pace = ReadingPace()
    list(one.write("numpy", pace))
    assert list(pace.record()) == [ALL]


def test_what_a_backend_lacks_is_not_asked_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, pace = writer("lesson6/sequence_rnn", tmp_path, prompt="ab", length=4), ReadingPace()
    monkeypatch.setattr(writing, "offers_needed", lambda ops: {"arange in another way"})
    list(one.write("numpy", pace))
    assert list(pace.record()) == [ALL]
    assert np.isfinite(pace.seconds[ALL])
