"""Writing on from a prompt: the same text from every backend, and what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm_commands
from places import TESTS
from sampling import sampled

from harness.convert.weights import Weights, save
from harness.errors import HarnessError, UsageError
from harness.language.initial_values import initial_parameters, initial_statistics
from harness.language.initializers import generator
from harness.language.library import lesson6
from harness.language.model import fingerprint, load_spec
from harness.oracle.oracle import Oracle
from harness.runtime.session import Session
from harness.text.vocabulary import Vocabulary
from harness.training.generate.console import differences, monotonous
from harness.training.generate.request import GenerateError, GenerateRequest
from harness.training.generate.writing import chooser, prepare, reader

MUTANTS = TESTS / "mutants"
LETTERS = "abcdefghijklmnopqrstuvwxyz ."
PROMPT = "the quick brown fox"
# Weights under which a greedy text has at least four different characters; the gated units with a
# sigmoid for a candidate soon repeat one whatever they are.
SEEDS = {"first_rnn": 3, "simple_rnn": 3, "sequence_unrolled": 4, "sequence_rnn": 3}
SEEDS |= {"stateful_lstm": 16, "keras_gru": 2}
REPEATING = ("theano_gru", "theano_gru_combined")
BACKENDS = ("numpy", "torch", "jax", "keras", "keras-torch", "keras-jax")


def weights(system: str, folder: Path, **changes: Any) -> Path:
    """Weights that were never trained, on the letters above, far enough from all ties."""
    spec = load_spec(system)
    vocabulary = Vocabulary.of(LETTERS)
    seed = SEEDS.get(system.partition("/")[2], 1)
    own = spec.programs["training"].sizes
    sizes = {n: {"hidden": 16}.get(n, len(vocabulary)) for n in own if n != "factors"}
    program = spec.program("training", **sizes)
    parameters = initial_parameters(program, 3)
    for name, array in parameters.items():
        spread = 2.5 / np.sqrt(len(array)) if array.ndim > 1 else 0.1
        parameters[name] = spread * generator(seed, name).normal(size=array.shape)
    given = {
        "spec": spec.name,
        "fingerprint": fingerprint(spec),
        "sizes": dict(program.sizes),
        "parameters": parameters,
        "statistics": initial_statistics(program),
        "vocabulary": vocabulary.characters,
    }
    path = folder / "weights.safetensors"
    save(path, Weights(**{**given, **changes}))
    return path


def written(system: str, backend: str, path: Path, **options: Any) -> str:
    """What a backend writes."""
    request = GenerateRequest(system, (backend,), path, PROMPT, **{"length": 40, **options})
    return "".join(prepare(request).write(backend))


@pytest.mark.parametrize("system", lesson6())
def test_every_system_writes_what_its_probabilities_say(system: str, tmp_path: Path) -> None:
    """Against the oracle, which reads the whole text anew for each character."""
    path = weights(system, tmp_path)
    request = GenerateRequest(system, ("numpy",), path, PROMPT, length=12)
    writer = prepare(request)
    text = "".join(writer.write("numpy"))
    spec, known = writer.spec, writer.reader
    training = spec.program("training", **writer.weights.sizes)
    session = Session(Oracle(), training, known.program, dtype="float64")
    session.load(writer.weights.parameters, writer.weights.statistics)
    indices = list(writer.prompt)
    for character in text:
        # A stateful model is given all from its first state on: that must be the same.
        results = session.forward("inference", known.inputs(indices), known.first_state())
        best = 1 + int(np.argmax(known.probabilities(results)[1 : len(writer.vocabulary)]))
        assert writer.vocabulary.characters[best] == character
        indices.append(best)
    if not system.endswith(REPEATING):
        assert len(set(text)) > 3, "the test needs a text that varies"


@pytest.mark.parametrize(
    "system",
    sampled(["lesson6/stateful_lstm", "lesson6/sequence_unrolled"], ["lesson6/stateful_lstm"]),
)
def test_all_backends_write_the_same(system: str, tmp_path: Path) -> None:
    path = weights(system, tmp_path)
    texts = {backend: written(system, backend, path) for backend in BACKENDS}
    assert len(set(texts.values())) == 1, texts


@pytest.mark.parametrize(
    ("text", "temperature", "told"),
    [
        (
            "and" + 20 * " ",
            0.0,
            "is always ' ': train longer, or sample with",
        ),
        ("and" + 20 * " ", 0.8, ""),
        ("and then " + 10 * "e" + " end", 0.0, ""),
        ("and then he went", 0.0, ""),
        ("", 0.0, ""),
    ],
)
def test_a_text_of_one_character_is_explained(text: str, temperature: float, told: str) -> None:
    request = GenerateRequest("", ("numpy",), Path(), "a", temperature=temperature)
    note = monotonous(text, request)
    assert told in note
    assert bool(told) == bool(note)


def test_a_seed_gives_the_same_choice_on_all_backends(tmp_path: Path) -> None:
    path = weights("lesson6/sequence_rnn", tmp_path)
    options = {"temperature": 1.0, "top_k": 5}
    texts = [written("lesson6/sequence_rnn", b, path, seed=4, **options) for b in ("numpy", "jax")]
    assert texts[0] == texts[1]
    assert texts[0] != written("lesson6/sequence_rnn", "numpy", path, seed=5, **options)


def test_a_backend_that_is_wrong_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = weights("lesson6/sequence_rnn", tmp_path)
    monkeypatch.syspath_prepend(MUTANTS)
    monkeypatch.setenv("PYTHONPATH", str(MUTANTS))
    assert written("lesson6/sequence_rnn", "mutants-1", path, device="control", length=4)
    with pytest.raises(GenerateError, match="mutants-1 does not agree with the oracle: output"):
        written("lesson6/sequence_rnn", "mutants-1", path, device="loop-one-step-late")
    # Right for nine characters.
    with pytest.raises(GenerateError, match="mutants-1 does not agree with the oracle: output"):
        written("lesson6/sequence_rnn", "mutants-1", path, device="tenth-pass-of-another")


@pytest.mark.parametrize(
    ("field", "value", "offered"),
    [("device", "cuda", "cpu"), ("dtype", "float8", "float64, float32, bfloat16, float16")],
)
def test_what_a_backend_has_not_is_told(
    field: str, value: str, offered: str, tmp_path: Path
) -> None:
    path = weights("lesson6/three_char", tmp_path)
    said = rf"numpy: {field} '{value}' is not offered \(offered: {offered}\)"
    with pytest.raises(UsageError, match=said):
        written("lesson6/three_char", "numpy", path, **{field: value})


def choices(probabilities: Sequence[float], count: int = 3000, **options: Any) -> dict[int, float]:
    """How often each index is chosen."""
    request = GenerateRequest("", (), Path(), "", **options)
    choose = chooser(request, len(probabilities))
    found = np.bincount([choose(np.array(probabilities)) for _ in range(count)])
    return {index: float(n) / count for index, n in enumerate(found) if n}


def test_greedy_takes_the_likeliest_and_never_the_padding() -> None:
    assert choices([0.9, 0.02, 0.05, 0.03], 1) == {2: 1.0}


def test_a_temperature_spreads_the_choice() -> None:
    even = choices([0.0, 0.1, 0.3, 0.6], temperature=1.0)
    assert even == pytest.approx({1: 0.1, 2: 0.3, 3: 0.6}, abs=0.04)
    cold = choices([0.0, 0.1, 0.3, 0.6], temperature=0.5)
    squares = np.array([0.01, 0.09, 0.36]) / 0.46
    assert cold == pytest.approx(dict(enumerate(squares, start=1)), abs=0.04)


@pytest.mark.parametrize("cold", [1e-320, 5e-324, 1e-10])
def test_a_temperature_near_0_takes_the_likeliest(cold: float) -> None:
    assert choices([0.0, 0.1, 0.3, 0.6], 50, temperature=cold) == {3: 1.0}
    assert choices([0.0, 0.1, 0.3, 0.6], 50, temperature=cold, top_k=10**30) == {3: 1.0}


def test_a_temperature_without_end_spreads_evenly() -> None:
    even = choices([0.0, 0.1, 0.3, 0.6], temperature=1e308)
    assert even == pytest.approx(dict.fromkeys((1, 2, 3), 1 / 3), abs=0.04)


@pytest.mark.parametrize("probabilities", [[1.0, 0.0, 0.0], [0.0, -0.5, 0.5]])
def test_what_is_no_probabilities_is_an_error(probabilities: list[float]) -> None:
    with pytest.raises(GenerateError, match="probability distribution"):
        choices(probabilities, 1, temperature=1.0)


def test_top_k_leaves_the_likeliest() -> None:
    found = choices([0.0, 0.1, 0.3, 0.6], temperature=1.0, top_k=2)
    assert found == pytest.approx({2: 1 / 3, 3: 2 / 3}, abs=0.04)


def test_probabilities_that_are_no_numbers_are_an_error() -> None:
    with pytest.raises(GenerateError, match="NaN or infinite"):
        choices([0.0, float("nan"), 0.3], 1)


def test_classes_without_a_character_are_never_written() -> None:
    choose = chooser(GenerateRequest("", (), Path(), ""), 3)
    assert choose(np.array([0.1, 0.2, 0.3, 0.4])) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": ""}, "sequence_rnn reads at least 1 character, but the prompt '' has 0"),
        ({"prompt": "Über"}, "unknown character 'Ü' at position 0"),
        ({"length": 0}, "found 0"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_k": -1}, "top-k"),
    ],
)
def test_what_cannot_be_asked_for(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = weights("lesson6/sequence_rnn", tmp_path)
    given = {"prompt": PROMPT, **change}
    with pytest.raises(HarnessError, match=words):
        prepare(GenerateRequest("lesson6/sequence_rnn", ("numpy",), path, **given))


def test_a_prompt_that_is_too_short_for_a_fixed_number_of_inputs(tmp_path: Path) -> None:
    path = weights("lesson6/three_char", tmp_path)
    with pytest.raises(HarnessError, match=r"three_char reads .* 3 characters, .* 'ab' has 2"):
        prepare(GenerateRequest("lesson6/three_char", ("numpy",), path, "ab"))


def test_damaged_weights(tmp_path: Path) -> None:
    path = weights("lesson6/sequence_rnn", tmp_path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(HarnessError, match="damaged"):
        prepare(GenerateRequest("lesson6/sequence_rnn", ("numpy",), path, PROMPT))


def test_weights_of_another_model(tmp_path: Path) -> None:
    path = weights("lesson6/sequence_rnn", tmp_path)
    with pytest.raises(HarnessError, match="lesson6/sequence_rnn"):
        prepare(GenerateRequest("lesson6/simple_rnn", ("numpy",), path, PROMPT))


def test_weights_without_a_vocabulary(tmp_path: Path) -> None:
    path = weights("lesson6/sequence_rnn", tmp_path, vocabulary=())
    with pytest.raises(HarnessError, match="no vocabulary"):
        prepare(GenerateRequest("lesson6/sequence_rnn", ("numpy",), path, PROMPT))


def test_how_much_a_model_reads(tmp_path: Path) -> None:
    systems = {"three_char": 3, "first_rnn": 8, "sequence_unrolled": 8, "sequence_rnn": None}
    for name, fixed in systems.items():
        system = f"lesson6/{name}"
        path = weights(system, tmp_path)
        writer = prepare(GenerateRequest(system, ("numpy",), path, PROMPT))
        assert reader(writer.spec, writer.weights).fixed == fixed


def test_where_texts_part() -> None:
    assert differences({"a": "same", "b": "same"}) == ""
    line = differences({"a": "same", "b": "sane"})
    assert line == "b differs from a at character 3: 'ne' instead of 'me'"


def test_the_command(tmp_path: Path) -> None:
    path = weights("lesson6/sequence_rnn", tmp_path)
    command = ["generate", "lesson6/sequence_rnn", "--weights", str(path)]
    command += ["--prompt", PROMPT, "--length", "5", "--backend", "numpy", "--backend", "torch"]
    run = warm_commands.run(command)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(PROMPT)
    assert "the same text on numpy, torch" in run.stderr
    run = warm_commands.run([*command, "--json"])
    found = json.loads(run.stdout)
    assert found["same"] is True
    assert len(found["texts"]["torch"]) == 5


def test_a_terminal_that_lacks_a_character(tmp_path: Path) -> None:
    path = weights("lesson6/sequence_rnn", tmp_path, vocabulary=("\0", "a", "é"))
    harness = str(Path(sys.executable).with_name("harness"))
    command = [harness, "generate", "lesson6/sequence_rnn", "--weights", str(path)]
    command += ["--prompt", "é", "--length", "1", "--backend", "numpy"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    run = subprocess.run(command, capture_output=True, env=environment, timeout=120)
    assert (run.returncode, run.stderr) == (0, b"starting numpy\n")
    assert run.stdout.startswith(rb"\xe9")
