"""The same border behind ``generate``, ``train``, ``bench``, ``export`` and ``replay``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import plugin_broken_promises
import pytest
from process_faults.support import launch
from quick_rounds import quick_rounds

from harness.convert.request import Export
from harness.convert.run import Caller, FormatFault, relative_output
from harness.convert.weights import Weights, save
from harness.language.initial_values import initial_parameters, initial_statistics
from harness.language.model import fingerprint, load_spec
from harness.runtime.answers import IllFormed
from harness.text.vocabulary import Vocabulary
from harness.timing import rounds
from harness.timing.contestant import Contestant
from harness.timing.json_file import document
from harness.timing.request import BenchRequest, Entry
from harness.timing.run import Bench
from harness.timing.table import list_tracebacks
from harness.training.generate.request import GenerateError, GenerateRequest
from harness.training.generate.writing import check_results, chooser, prepare
from harness.training.request import TrainRequest
from harness.training.request import prepare as prepare_training
from harness.training.run import TrainingError, TrainingRun
from harness.worker.launch import Launch
from harness.worker.worker import Worker

LETTERS = "abcdefghij"
SYSTEM = "lesson6/sequence_rnn"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(plugin_broken_promises.FOLDER)
    monkeypatch.setenv("PYTHONPATH", plugin_broken_promises.variables()["PYTHONPATH"])


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    spec, vocabulary = load_spec(SYSTEM), Vocabulary.of(LETTERS)
    sizes = {"hidden": 5, "factors": 3, "vocab": len(vocabulary)}
    program = spec.program("training", **sizes)
    made = Weights(
        spec.name,
        fingerprint(spec),
        dict(program.sizes),
        initial_parameters(program, 1),
        initial_statistics(program),
        vocabulary.characters,
    )
    save(tmp_path / "w.safetensors", made)
    return tmp_path / "w.safetensors"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("nothing", ""),
        ("numpy-none", "numpy() returned None for"),
        ("forward-none", "forward: IllFormed: answer: Input should be a valid dictionary"),
        ("forward-odd", "forward: IllFormed: answer[1]: Input should be a valid string"),
        ("forward-flat", "output.next_chars: expected shape [1, 1, 11], found [11]"),
        ("forward-empty", "output.next_chars: nothing was returned"),
        ("forward-texts", "output.next_chars: expected an array of numbers, found dtype <U1"),
        ("primitive-signature", "argument 'shape' (in the primitive broadcast_to("),
        ("dict", "harness_backend returned a value of type dict"),
    ],
)
def test_generate_says_what_came_back(fault: str, words: str, weights: Path) -> None:
    request = GenerateRequest(SYSTEM, (f"wrong-{fault}",), weights, "ab", length=3)
    if not words:
        assert len("".join(prepare(request).write(f"wrong-{fault}"))) == 3
        return
    with pytest.raises(GenerateError) as caught:
        list(prepare(request).write(f"wrong-{fault}"))
    assert words in str(caught.value)
    assert f"wrong-{fault} failed" in str(caught.value)


@pytest.mark.parametrize(
    ("probabilities", "words"),
    [([0.5, -0.1, 0.6], "some are below 0"), ([1.0, 0.0, 0.0], "all are 0")],
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_holds_no_probabilities_is_not_chosen_from(
    probabilities: list[float], words: str, temperature: float
) -> None:
    request = GenerateRequest("s", ("b",), Path("w"), "p", temperature=temperature)
    with pytest.raises(GenerateError, match=words):
        chooser(request, 3)(np.array(probabilities))


def test_a_state_of_another_shape_is_not_sent_on() -> None:
    spec = load_spec("lesson6/stateful_lstm")
    program = spec.program("inference")
    sizes = {**program.sizes, "batch": 1, "time": 3}
    shapes = {
        f"{group}.{p.name}": [d.resolve(sizes) for d in program.types[p.value].shape]
        for group, ports in (("output", program.outputs), ("state", program.new_state))
        for p in ports
    }
    right = {name: np.zeros(shape) for name, shape in shapes.items()}
    check_results(program, "next_chars", right, 3)
    for name in (n for n in right if n.startswith("state.")):
        with pytest.raises(IllFormed, match=f"{name}: expected shape"):
            check_results(program, "next_chars", {**right, name: right[name][0]}, 3)
        missing = {n: a for n, a in right.items() if n != name}
        with pytest.raises(IllFormed, match=f"{name}: nothing was returned"):
            check_results(program, "next_chars", missing, 3)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("read-empty", "snapshot: IllFormed: answer['parameters']: Field required"),
        ("read-odd", "snapshot: IllFormed: answer['parameters']['no.such']: expected an array"),
        ("read-narrow", "snapshot: parameter embed.table: expected shape [86, 42], found [1]"),
        ("read-integers", "snapshot: parameter embed.table: expected floats, found int64"),
        ("settings-list", "begin: ContractError: settings() returned a value of type list"),
        ("memory-huge", "device_memory() returned more bytes than any machine has"),
        ("paths-list", "begin: IllFormed: answer['paths']: Input should be a valid dictionary"),
        ("primitive-signature", "argument 'shape' (in the primitive broadcast_to("),
        ("versions-list", "cannot be started: ContractError: versions() returned a value"),
    ],
)
def test_training_says_what_came_back_and_keeps_nothing(
    fault: str, words: str, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("abcdefghij " * 30)
    request = TrainRequest(
        SYSTEM,
        f"wrong-{fault}",
        text=str(text),
        epochs=1,
        batch=4,
        dtype="float64",
        path="derived",
        sizes={"hidden": 5},
        proof=False,  # which would find some of them first
    )
    kept = tmp_path / "kept.safetensors"
    training = TrainingRun(prepare_training(request), kept)
    with training, pytest.raises(TrainingError) as caught:
        training.run()
    assert words in str(caught.value)
    assert not kept.exists()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_rounds(monkeypatch)


def bench(*faults: str, mode: str = "forward", path: str = "derived") -> Any:
    asked = BenchRequest(
        specs=(SYSTEM,),
        backends=(),
        batches=(4,),
        sizes={"hidden": (5,), "vocab": (11,), "factors": (3,)},
        modes=(mode,),
        rounds=1,
        threads=1,
        path=path,
    )
    made = [
        Entry(f, Launch(f"wrong-{f}", environment=plugin_broken_promises.variables()))
        for f in faults
    ]
    with Bench(asked, made) as running:
        found = {r.entry.label: r for r in running.run()}
    return asked, found


def test_bench_refuses_what_came_back_and_measures_the_others(quick: None) -> None:
    asked, found = bench(
        "execute-empty", "execute-none", "advance-none", "settings-list", "paths-list", "nothing"
    )
    assert found["nothing"].measured, found["nothing"].reason
    for fault, words in {
        "execute-empty": "nothing was returned",
        "execute-none": "execute() returned None; expected a function",
        "advance-none": "advance() returned None; expected a function",
        "settings-list": "settings() returned a value of type list",
        "paths-list": "prepare: IllFormed: answer['paths']: Input should be a valid dictionary",
    }.items():
        assert found[fault].status == "refused", fault
        assert words in found[fault].reason
    assert "execute() returned None" in found["execute-none"].traceback
    lost = document(asked, list(found.values())).harness.without_speed
    assert [bool(entry.traceback) for entry in lost] == [False, True, True, True, False]
    assert any("ContractError" in line for line in list_tracebacks(list(found.values())))


def test_a_fault_of_the_harness_costs_one_cell_of_bench(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = rounds.time_round

    def slip(contestant: Contestant, *more: Any) -> None:
        if contestant.entry.label == "equal-floats":
            raise LookupError("a slip of the harness")
        right(contestant, *more)

    monkeypatch.setattr(rounds, "time_round", slip)
    _, found = bench("equal-floats", "nothing")
    lost = found["equal-floats"]
    assert (lost.status, found["nothing"].status) == ("broken", "measured")
    assert (
        "error in the harness itself, not in the backend: LookupError: a slip of the harness"
        in lost.reason
    )
    assert "in slip" in lost.traceback


def test_a_path_that_costs_the_process_leaves_the_others_their_speed(quick: None) -> None:
    """The device is lost while a second path is tried; the first is prepared anew."""
    _, found = bench("second-path-lost", path="fastest")
    assert found["second-path-lost"].measured, found["second-path-lost"].reason
    candidates = {c["path"]: c for c in found["second-path-lost"].record.candidates}
    assert "CUDA error" in candidates["equations"]["reason"]


@pytest.mark.parametrize(
    ("value", "wanted"), [(7, "valid string"), (3.5, "valid string"), (["x"], "valid string")]
)
def test_a_format_that_answers_nonsense_is_a_message(value: Any, wanted: str) -> None:
    with Caller("onnx", sys.executable, 60.0) as caller:
        caller.worker = Worker(launch("onnx", handler="process_faults.identities:echoing"))
        with pytest.raises(FormatFault, match=wanted):
            caller.call("suffix", value=value)


@pytest.mark.parametrize("name", ["", "../elsewhere.onnx", "inner/a.onnx", "missing.onnx"])
def test_a_file_that_a_format_did_not_write_is_not_moved(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "staging"
    (folder / "inner").mkdir(parents=True)
    for file in (tmp_path / "elsewhere.onnx", folder / "inner/a.onnx", folder / "right.onnx"):
        file.write_text("x")
    asked = Export(spec=SYSTEM, weights=tmp_path / "w", format_="onnx")
    assert relative_output(folder, folder / "right.onnx", asked) == Path("right.onnx")
    with pytest.raises(FormatFault, match="it reported to have written"):
        relative_output(folder, folder / name, asked)
