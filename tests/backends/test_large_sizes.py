"""What a user makes large costs memory in proportion: nothing is squared, nothing is kept twice."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training_memory
from ratios import BACKENDS
from sampling import sampled

from harness.backends.numpy import segments as numpy_segments
from harness.backends.numpy.executor_kernels import NumpyKernels
from harness.backends.numpy.primitives import PRIMITIVES
from harness.convert.weights import Weights, load, save
from harness.language.initializers import generator
from harness.language.model import load_spec
from harness.oracle.draw import target
from harness.oracle.oracle import TABLE
from harness.text.batches import batches
from harness.text.vocabulary import one_hot
from harness.training.feed import Feed, recipe
from harness.training.generate import writing
from harness.training.generate.request import GenerateRequest
from harness.training.generate.writing import Reader, Reading
from harness.worker.launch import Launch
from harness.worker.remote import Remote
from harness.worker.worker import Worker

MILLION = 1_000_000
MB = 1_000_000
FEW = np.array([[0, 7], [MILLION - 1, 123_456]])
# An index of so many classes, one-hot, and an embedding of them that is trained.
SPEC = f"""model: wide
summary: An index of many classes, one-hot and embedded.
source: none
sizes: {{vocab: {MILLION}, units: 2}}
inputs:
  i: {{shape: [batch], index: vocab}}
layers:
  embed: {{layer: embedding, rows: vocab, units: units}}
  out: {{layer: dense, units: units}}
equations: |
  hot = one_hot(i, vocab)
  y = out(embed(i))
targets:
  target: {{shape: [batch], index: units}}
loss: mean(sparse_cross_entropy(y, target))
optimizer: {{optimizer: sgd}}
"""


def most(run: Callable[[], Any]) -> int:
    """Bytes that Python and numpy held at most while it ran."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class TestOneHot:
    """Four rows of a million classes have 4 million entries; an identity would have 10^12."""

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize(
        "make", [one_hot, PRIMITIVES["one_hot"], TABLE["one_hot"]], ids=["text", "numpy", "oracle"]
    )
    def test_rows_of_a_million_classes(self, make: Callable[..., Any], dtype: str) -> None:
        found: list[Any] = []
        held = most(lambda: found.append(make(FEW, classes=MILLION, dtype=dtype)))
        assert held < 1.5 * FEW.size * MILLION * np.dtype(dtype).itemsize
        assert found[0].dtype == dtype
        assert found[0].shape == (*FEW.shape, MILLION)
        np.testing.assert_array_equal(found[0].argmax(-1), FEW)
        assert found[0].sum() == FEW.size

    def test_the_kernel_of_the_tape(self) -> None:
        out = np.empty((4, MILLION), np.float32)
        held = most(NumpyKernels("float32").table["one_hot"](out, FEW.reshape(-1, 1)))
        assert held < out.nbytes
        np.testing.assert_array_equal(out.argmax(-1), FEW.reshape(-1))
        assert out.sum() == 4

    def test_numpy_refuses_what_has_no_class(self) -> None:
        with pytest.raises(IndexError):
            PRIMITIVES["one_hot"](np.array([1, 3]), 3, "float32")

    def test_no_row_and_a_single_index(self) -> None:
        for make in (one_hot, PRIMITIVES["one_hot"]):
            assert make(np.empty((0, 2), np.int64), 5, "float32").shape == (0, 2, 5)
            assert make(np.array(1), 3, "float32").tolist() == [0, 1, 0]

    @pytest.mark.slow
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_every_backend(self, backend: str, tmp_path: Path) -> None:
        """Forward, and the gradient of an embedding: within 4 GiB, the frameworks included."""
        (tmp_path / "wide.yaml").write_text(SPEC)
        spec = load_spec(str(tmp_path / "wide.yaml"))
        program = spec.program("training")
        index = FEW.reshape(-1)
        given = {p.name: np.full(program.shape(p), 0.5, np.float32) for p in program.parameters}
        inputs, targets = {"i": index}, {"target": np.array([0, 1, 1, 0])}
        limited = Launch(backend, memory_limit=4 << 30)
        with Worker(limited) as worker:
            remote = Remote(worker, 300)
            remote.open(program, spec.program("inference"), None, "equations", "float32", "cpu")
            remote.call("load", parameters=given, statistics={})
            hot = remote.forward("inference", inputs, {})["output.hot"]
            gradients = remote.call(
                "gradients", phase="training", inputs=inputs, state={}, targets=targets
            )["gradients"]
        np.testing.assert_array_equal(hot.argmax(-1), index)
        assert (hot.shape, hot.sum()) == ((4, MILLION), 4)
        assert set(np.flatnonzero(gradients["embed.table"].any(1))) <= set(index)


@pytest.mark.parametrize(("rows", "count"), [(70_000, 1), (MILLION, 64), (300, 300), (70_000, 0)])
def test_sums_of_many_segments_hold_no_square(rows: int, count: int) -> None:
    """They were a product with zeros and ones ``[rows, count]``."""
    random = np.random.default_rng(0)
    x, indices = random.normal(size=(count, 3)), random.integers(0, min(rows, 50), count)
    indices[: min(count, 2)] = (rows - 1, 0)[:count]
    assert rows * count > numpy_segments.LARGE or count < 2
    out, wanted = np.full((rows, 3), np.nan), np.zeros((rows, 3))
    np.add.at(wanted, indices, x)
    kernels = NumpyKernels("float64")
    held = most(lambda: kernels.run([kernels.table["segment_sum"](out, x, indices)]))
    np.testing.assert_allclose(out, wanted, rtol=1e-12, atol=1e-12)
    assert held < 300_000 + 500 * count + 10 * rows
    x[:1, 1] = np.nan
    kernels.run([kernels.table["segment_sum"](out, x, indices)])
    assert np.isnan(out).sum() == min(count, 1)


def test_targets_of_many_classes() -> None:
    program = load_spec("lesson6/sequence_onehot").program("training", vocab=100_000, hidden=1)
    (port,) = program.targets
    sizes, found = {"batch": 2, "time": 3}, []
    held = most(lambda: found.append(target(program, port, sizes, 0)))
    assert held < 4.5 * found[0].nbytes
    assert np.unique(found[0]).tolist() == [0, 0.25, 0.75]
    np.testing.assert_array_equal(found[0].sum(-1), 1)


@pytest.mark.parametrize("rows", [1, 2, 100, 65_537])
def test_an_order_is_the_permutation_of_its_seed(rows: int) -> None:
    made = batches(rows, 7, "shuffled", False, 3, 5)
    wanted = generator(3, "shuffle/5").permutation(rows)
    np.testing.assert_array_equal(np.concatenate(list(made)), wanted, strict=True)
    np.testing.assert_array_equal(np.concatenate(made[2:9] or [wanted[:0]]), wanted[14:63])
    assert made[-1].tolist() == made[len(made) - 1].tolist() == made[-1:][0].tolist()
    assert [made.rows_of(i, i + 1) for i in range(len(made))] == [len(batch) for batch in made]
    assert made.rows == made.rows_of(0, len(made)) == rows


@pytest.mark.parametrize("order", ["shuffled", "sequential"])
@pytest.mark.parametrize("whole_only", [False, True])
def test_how_many_batches_there_are_takes_no_memory(order: Any, whole_only: bool) -> None:
    """A hundred million rows: their numbers would be 800 MB."""
    found: list[int] = []

    def count() -> None:
        made = batches(10**8 + 1, 64, order, whole_only, 0, 0)
        found.extend((len(made), made.rows, made.rows_of(len(made) - 2, len(made))))
        if order == "sequential":
            assert made[-1][0] == (len(made) - 1) * 64

    assert most(count) < MB
    assert found == ([1562500, 10**8, 128] if whole_only else [1562501, 10**8 + 1, 65])


def test_batches_without_an_order_in_between() -> None:
    made = batches(10, 3, "sequential", False, 0, 0)
    with pytest.raises(IndexError):
        made[4]
    with pytest.raises(IndexError, match="must have step 1"):
        made[::2]


@pytest.mark.parametrize("system", ["sequence_rnn", "first_rnn", "three_char", "sequence_onehot"])
def test_a_feed_holds_its_order_and_nothing_else(system: str) -> None:
    spec = load_spec(f"lesson6/{system}")
    text = np.random.default_rng(0).integers(1, 80, 4 * MB).astype(np.uint8)
    program, given = spec.program("training"), recipe(spec)
    feeds: list[Feed] = []
    held = most(lambda: feeds.append(Feed(program, given, text, "float32", 0)))
    assert held < 0.1 * MB
    held = most(lambda: [feeds[0].epoch(n)[0] for n in range(3)])
    assert held < 4.5 * feeds[0].rows, "one epoch's order at a time, 4 bytes a row"
    del feeds[0]


def test_what_is_written_on_is_read_in_windows() -> None:
    """However long the text has become, no more is handed to the model than it reads."""
    spec = load_spec("lesson6/sequence_rnn")
    program = spec.program("inference", vocab=4, hidden=2)
    read: list[int] = []

    class Watching(Reader):
        def inputs(self, indices: Any) -> Any:
            read.append(len(indices))
            return super().inputs(indices)

    class Answering:
        def call(self, *_: Any, **__: Any) -> None:
            """Loads."""

        def open(self, *_: Any) -> None:
            """Opens."""

        def forward(self, _: str, inputs: Any, __: Any) -> Any:
            length = inputs["chars"].shape[1]
            return {"output.next_chars": np.tile([0.1, 0.2, 0.3, 0.4], (1, length, 1))}

    known = Watching(program, {"chars": 0}, "next_chars", None, 8, False)
    weights = Weights("", "", {"vocab": 4, "hidden": 2}, {}, {})
    request = GenerateRequest("", (), Path(), "", length=50)
    text = [1, 2] * 10
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "Remote", lambda *_: Answering())
        # What answers here is not a model; how much is read is what is looked at.
        patch.setattr(Reading, "_prove", lambda *_: None)
        reader = Reading(request, known, spec.program("training"), weights, "numpy", text)
        with reader.worker:  # it is asked what it offers
            for _, found in zip(range(50), reader.probabilities(), strict=False):
                text.append(int(found.argmax()))
    assert text[20:] == [3] * 50
    assert max(read[1:]) == 8


def test_weights_are_held_twice_while_they_are_written(tmp_path: Path) -> None:
    """safetensors has no other way than to make the file once, and its checksum comes first."""
    array = np.random.default_rng(0).normal(size=MB)
    made = Weights("m", "", {}, {"a": array}, {})
    held = most(lambda: save(tmp_path / "w", made))
    assert held < 2.1 * array.nbytes
    found: list[Weights] = []
    held = most(lambda: found.append(load(tmp_path / "w")))
    assert held < 2.1 * array.nbytes
    np.testing.assert_array_equal(found[0].parameters["a"], array)


def test_the_oracle_s_sessions_let_go_of_what_they_were_given() -> None:
    from harness.oracle.case import Case

    spec = load_spec("lesson6/sequence_onehot")
    case = Case(spec, {"vocab": 2000, "hidden": 32}, 2, 3)
    material = case.material
    parameters = sum(array.nbytes for array in material.parameters.values())
    batch = {"inputs": material.inputs, "targets": material.targets, "learning_rate": 0.1}
    assert spec.update is not None
    update = spec.update
    expected = []

    def measure() -> None:
        expected.append(case.train(update, [batch] * 4, material, "memory"))
        expected[0].noise("float32")

    held = most(measure)
    kept = sum(array.nbytes for array in expected[0].values.values())
    assert kept > 11 * parameters, "of each step displacements and two slots"
    assert held - kept < 14 * parameters
    assert not any(s.variables or s.slots for s in case._reference._sessions.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "backend"),
    sampled(
        itertools.product(("sequence_rnn", "first_rnn"), ("numpy", "torch")),
        [("sequence_rnn", "numpy")],
    ),
)
def test_a_byte_of_text_costs_a_few_bytes_of_memory(
    system: str, backend: str, tmp_path: Path
) -> None:
    """25 MB beside 1 MB; each process took 33 bytes a character, of the worker's 17 its own."""
    found = {}
    for size in (1, 25):
        training_memory.write_text(tmp_path / "text", size * MB)
        found[size] = training_memory.training(
            tmp_path / "text", f"lesson6/{system}", backend, tmp_path
        )
    (_, command, worker), (seconds, large_command, large_worker) = found[1], found[25]
    assert large_command.most - command.most < 24 * 2.5 * MB
    assert large_worker.most - worker.most < 24 * 3 * MB
    assert large_worker.own - worker.own < 24 * 1.5 * MB
    assert seconds < 120
