"""Layers made of layers, and chains of them: inlined, with parameters of their own names."""

from __future__ import annotations

from pathlib import Path
from time import process_time

import numpy as np
import pytest
from nested_specs import BLOCK, CHAIN, loaded, model
from wording import Wording

from harness.errors import SpecError
from harness.language.checksums import checksum
from harness.language.initial_values import initial_parameters
from harness.language.library import Library
from harness.language.model import Spec, load_spec
from harness.oracle import oracle
from harness.program.plan import training_plan


def run(spec: Spec, arrays: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    program = spec.program("training")
    env = {port.value: arrays[port.name] for port in program.parameters}
    env[program.inputs[0].value] = x
    sizes = {**program.sizes, "batch": x.shape[0], "time": x.shape[1]}
    values = oracle.run(program.nodes, env | _target(spec, x), sizes)
    return values[program.outputs[-1].value]


def _target(spec: Spec, x: np.ndarray) -> dict[int, np.ndarray]:
    return {port.value: x for port in spec.program("training").targets}


FLAT = """\
first_mix: {layer: simple_rnn, units: width}
  first_up: {layer: dense, units: 2 * wide, activation: tanh}
  first_down: {layer: dense, units: width}
  then_mix: {layer: simple_rnn, units: width}
  then_up: {layer: dense, units: 2 * wide, activation: tanh}
  then_down: {layer: dense, units: width}"""
FLAT_EQUATIONS = """\
a = x + first_mix(x)
b = a + first_down(first_up(a))
c = b + then_mix(b)
y = c + then_down(then_up(c))"""


def test_a_chain_is_what_it_is_written_out() -> None:
    chain, flat = loaded(model(CHAIN)), loaded(model(FLAT, FLAT_EQUATIONS))
    arrays = initial_parameters(chain.program("training"), 0)
    names = {f"blocks.{n}.{p}": f"{w}_{p}" for n, w in ((0, "first"), (1, "then"))
             for p in (f"{layer}.{v}" for layer, vs in
                       (("mix", "WUb"), ("up", "Wb"), ("down", "Wb")) for v in vs)}  # fmt: skip
    assert list(arrays) == list(names)
    assert [names[n] for n in arrays] == [p.name for p in flat.program("training").parameters]
    x = np.random.default_rng(1).normal(size=(2, 3, 4))
    same = {names[n]: a for n, a in arrays.items()}
    assert np.array_equal(run(chain, arrays, x), run(flat, same, x))


def test_layers_nest_and_are_shared() -> None:
    spec = loaded(model("both: {layer: pair, wide: wide}", "y = both(x)"))
    program = spec.program("training")
    owners = dict.fromkeys(p.name.rpartition(".")[0] for p in program.parameters)
    assert list(owners) == [
        f"both.{block}.{layer}" for block in ("first", "again") for layer in ("mix", "up", "down")
    ]
    calls = [n.attributes["label"] for n in program.calls if n.attributes["kind"] == "layer"]
    assert calls == [
        *("both.first.mix", "both.first.up", "both.first.down"),
        *("both.again.mix", "both.again.up", "both.again.down"),
        *("both.again.mix#2", "both.again.up#2", "both.again.down#2"),
    ]
    given = {n.attributes["label"]: n.attributes["attributes"] for n in program.calls}
    assert given["both.first.up"]["activation"] == "relu"
    assert given["both.again.up"]["activation"] == "tanh"
    assert "both.again#2/h" in program.names.values()


def test_a_layer_of_the_library_can_be_repeated() -> None:
    spec = loaded(model("blocks: {layer: dense, repeat: 3, units: width, activation: tanh}"))
    shapes = {p.name: spec.program().shape(p) for p in spec.program().parameters}
    assert list(shapes) == [f"blocks.{n}.{p}" for n in range(3) for p in "Wb"]


def test_another_depth_is_another_program(wording: Wording) -> None:
    spec = loaded(model(CHAIN))
    assert spec.program("training").structural == ("depth",)
    deep = spec.program("inference", depth=5, width=6)
    assert deep.sizes == {"width": 6, "wide": 5, "depth": 5}
    assert len(deep.parameters) == 5 * 7
    assert len(spec.program("inference").parameters) == 2 * 7
    assert deep.nodes == spec.program("inference", depth=5).nodes
    with wording.raises(SpecError, "1"):
        spec.program("training", depth=0)


def test_further_inputs_go_to_every_link() -> None:
    gated = """\
layer: gated
summary: A dense layer times a gate.
source: Made for a test.
inputs: {x: [..., features], gate: [..., features]}
layers:
  d: {layer: dense, units: features}
equations: y = gate * d(x)
output: y
"""
    spec = loaded(model("blocks: {layer: gated, repeat: 2}", "y = blocks(x, gate=x)"), gated=gated)
    assert len(spec.program().parameters) == 4


def test_meaning_knows_what_is_inside(wording: Wording) -> None:
    def known(**definitions: str) -> str:
        overrides = {("layer", n): t for n, t in ({"block": BLOCK} | definitions).items()}
        return checksum(Library((), overrides), "layer", "block")

    plain = known()
    assert known(block=BLOCK.replace("summary: A", "summary: Some")) == plain
    assert known(block=BLOCK.replace("activation: tanh", "activation: relu")) == plain
    for old, new in (
        ("2 * wide", "3 * wide"),
        (", activation: activation", ", activation: relu"),
        ("simple_rnn", "gru"),
        ("down(up(h))", "down(up(x))"),
        ("mix: {", "mix: {repeat: 2, "),
    ):
        assert known(block=BLOCK.replace(old, new)) != plain, new
    loop = BLOCK.replace("simple_rnn", "block")
    with wording.raises(SpecError, "layer cannot"):
        known(block=loop)


def test_files_of_a_folder_may_hold_them(tmp_path: Path) -> None:
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "block.yaml").write_text(BLOCK, encoding="utf-8")
    (tmp_path / "m.yaml").write_text(model(CHAIN), encoding="utf-8")
    spec = load_spec(str(tmp_path / "m.yaml"), [tmp_path])
    assert len(spec.program().parameters) == 14


def seconds(depth: int) -> tuple[float, float]:
    """Processor time to load a model of so many blocks, and to plan its training step."""
    start = process_time()
    spec = loaded(model(f"blocks: {{layer: flat, repeat: {depth}, wide: wide}}"), flat=FLAT_BLOCK)
    program = spec.program("training")
    middle = process_time()
    assert spec.update is not None
    sizes = {**program.sizes, "batch": 2, "time": 3}
    training_plan(program, spec.update, sizes, "float32", (), learning_rate=0.1)
    return middle - start, process_time() - middle


FLAT_BLOCK = BLOCK.replace("layer: block", "layer: flat").replace(
    "layer: simple_rnn,", "layer: dense,"
)


@pytest.mark.slow
def test_time_grows_with_the_number_of_blocks_and_no_faster() -> None:
    """Four times the blocks in less than seven times the time: nothing is of the square."""
    seconds(2)
    few = seconds(24)
    # The least of three: what else a long process has in memory is looked through at any moment.
    many = [min(times) for times in zip(*(seconds(96) for _ in range(3)), strict=True)]
    assert many[0] < 7 * few[0] + 0.2
    assert many[1] < 7 * few[1] + 0.2
