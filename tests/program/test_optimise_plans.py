"""What the passes make of the Lesson 6 models: counted in nodes, operations and loops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from harness.language.library import lesson6
from harness.language.model import load_spec
from harness.program.builder import Builder
from harness.program.flops import count
from harness.program.ir import Node, walk_nodes
from harness.program.passes import optimise, products
from harness.program.passes.products import SliceFinder
from harness.program.plan import Plan, forward_plan, training_plan

LONG = 40  # a loop of so many steps is not written out
MODELS = lesson6()


def plan_of(model: str, mode: str = "training", **sizes: int) -> Plan:
    spec = load_spec(f"lesson6/{model}")
    program = spec.program("training" if mode == "training" else "inference")
    numbers = {**program.sizes, "batch": 64, "time": 8, **sizes}
    if mode == "forward":
        return forward_plan(program, numbers, "float32", ())
    return training_plan(program, spec.update, numbers, "float32", (), learning_rate=0.1)


def ops_of(nodes: Iterable[Node]) -> Counter[str]:
    return Counter(node.op for node in walk_nodes(nodes))


def loops(plan: Plan) -> list[Node]:
    return [node for node in plan.nodes if node.op == "scan"]


def test_adams_bias_corrections_are_made_once() -> None:
    ops = ops_of(plan_of("sequence_rnn").nodes)
    assert ops["power"] == 2  # beta_1 ** t and beta_2 ** t
    assert ops["sqrt"] == 1 + len(load_spec("lesson6/sequence_rnn").program("training").parameters)


def products_of(nodes: Iterable[Node]) -> int:
    return ops_of(nodes)["matmul"] + ops_of(nodes)["tensordot"]


def test_products_stay_in_place_where_they_are_to() -> None:
    """Eight steps of a loop that is written out, two products each, and one after it."""
    program = load_spec("lesson6/theano_rnn").program("inference")
    sizes = {**program.sizes, "batch": 64, "time": 8}
    moved, in_place = (
        forward_plan(program, sizes, "float32", (), moved=m).nodes for m in (True, False)
    )
    assert products_of(in_place) == 17
    assert products_of(moved) < 17


@pytest.mark.parametrize("model", MODELS)
def test_a_training_plan_permutes_no_large_values(model: str) -> None:
    """Only what comes in, small indices and weights."""
    plan = plan_of(model.removeprefix("lesson6/"))
    given = set(plan.inputs.values())
    for node in walk_nodes(plan.nodes):
        if node.op == "permute_dims" and node.inputs[0] not in given:
            assert len(plan.shape(node.output)) == 2 or plan.types[node.output].kind == "index"


@pytest.mark.parametrize(("batch", "kept"), [(512, False), (1024, True)])
def test_a_loop_that_carries_much_stays_one_where_products_stay(batch: int, kept: bool) -> None:
    """A step has one product, of input and state for all gates; written out it has eight."""
    program = load_spec("lesson6/stateful_lstm").program("inference")
    sizes = {**program.sizes, "batch": batch, "time": 8}
    plan = forward_plan(program, sizes, "float32", (), moved=False)
    assert len(loops(plan)) == kept
    assert products_of(plan.nodes) == 1 + (1 if kept else 64)
    assert not loops(forward_plan(program, sizes, "float32", ()))


def test_what_depends_on_sequences_alone_is_one_product() -> None:
    (forward, backward) = loops(plan_of("theano_rnn", time=LONG))
    for loop in (forward, backward):
        assert ops_of(loop.block.nodes)["matmul"] == 1  # with U, and with its transpose
    # The input's part and both biases come summed; relu is less_equal and where.
    assert ops_of(forward.block.nodes) == Counter(matmul=1, add=1, less_equal=1, where=1)


def test_a_deeper_model_is_not_looked_through_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be joined is joined at once: once for each join, 96 blocks took two minutes."""
    looks: list[int] = []
    once = products.SliceFinder

    def counted(*arguments: Any) -> SliceFinder:
        looks[-1] += 1
        return once(*arguments)

    monkeypatch.setattr(products, "SliceFinder", counted)
    spec = load_spec("gpt")
    joins = []
    for depth in (2, 8):
        looks.append(0)
        program = spec.program("training", depth=depth)
        sizes = {**program.sizes, "batch": 4, "time": 16}
        plan = training_plan(program, spec.update, sizes, "float32", (), learning_rate=0.1)
        joins.append(ops_of(plan.nodes)["concat"])
    assert joins[1] >= joins[0] + 6  # each block has its own
    assert looks[0] == looks[1] > 0


@pytest.mark.parametrize(("fuses", "products"), [(False, 3), (True, 5)])
def test_where_a_compiler_fuses_each_loop_has_its_own_product(fuses: bool, products: int) -> None:
    """Of both layers' inputs, for the loops of two directions; and one after the loops."""
    program = load_spec("bilstm_tagger").program("inference")
    sizes = {**program.sizes, "batch": 64, "time": LONG}
    plan = forward_plan(program, sizes, "float32", (), fuses=fuses)
    assert ops_of(node for node in plan.nodes if node.body is None)["matmul"] == products


def test_a_loop_stacks_only_what_is_read() -> None:
    """simple_rnn reads the last state, which is carried out."""
    (loop,) = loops(plan_of("simple_rnn", "forward", time=LONG))
    assert len(loop.outputs) == loop.carries == 1


@pytest.mark.parametrize("model", ["stateful_lstm", "keras_gru"])
def test_the_gates_gradients_are_stacked_once(model: str) -> None:
    """The recurrent weights' gradient reads parts of what the input's reads."""
    backward = loops(plan_of(model, time=LONG))[1]
    assert len(backward.outputs) == backward.carries + 1


def test_short_loops_are_written_out() -> None:
    assert not loops(plan_of("sequence_rnn", time=32))
    assert len(loops(plan_of("sequence_rnn", time=33))) == 2


@pytest.mark.parametrize(
    ("model", "products"),
    [("stateful_lstm", 1), ("keras_gru", 2), ("theano_gru", 2), ("theano_gru_combined", 2)],
)
def test_gates_are_joined(model: str, products: int) -> None:
    """All gates of a state in one product a step, in both directions."""
    plan = plan_of(model, time=LONG)
    for loop in loops(plan):
        assert ops_of(loop.block.nodes)["matmul"] == products
    # The gradients: of the recurrent weights, of the input's, and of the output layer's.
    assert ops_of(plan.nodes)["tensordot"] == products + 2 + (2 if model == "stateful_lstm" else 0)


def test_like_gates_go_through_their_function_together() -> None:
    (loop,) = loops(plan_of("stateful_lstm", "forward", time=LONG))
    ops = ops_of(loop.block.nodes)
    assert (ops["where"], ops["tanh"]) == (2, 2)  # the bounds of i, f and o; g, and the new c
    assert ops["add"] == 2  # the input's part to the state's, for all gates in the same order; c


def test_the_slopes_of_hard_gates_are_in_the_weights() -> None:
    (loop,) = loops(plan_of("stateful_lstm", "forward", time=LONG))
    assert ops_of(loop.block.nodes)["multiply"] == 3  # i * g, f * c, o * tanh(c): none by 0.2


def test_a_layer_used_many_times_is_one_product_of_all_its_rows() -> None:
    outputs = ops_of(plan_of("sequence_unrolled", "forward").nodes)
    assert outputs["max"] == 1  # one softmax for eight outputs
    assert ops_of(plan_of("sequence_unrolled", batch=1024).nodes)["max"] == 1


def test_biases_and_states_before_and_after_come_with_the_products() -> None:
    """Gradients: of W and both biases, of U from the first state on, of the output layer."""
    ops = ops_of(plan_of("theano_rnn").nodes)
    assert ops["tensordot"] == 3
    assert ops["sum"] == 5  # the loss's; of them over all rows, only the output layer's bias
    # Of h before and after each step, of d loss / dh, of x with ones, and of W with b.
    assert ops["concat"] == 5


def test_a_first_state_of_zeros_costs_no_products() -> None:
    """keras_gru: T - 1 steps of both, forward and back; the input; the output layer twice."""
    assert ops_of(plan_of("keras_gru").nodes)["matmul"] == 4 * 7 + 1 + 2


def test_a_table_is_transformed_rather_than_what_is_chosen_from_it() -> None:
    plan = plan_of("sequence_rnn")
    units = plan.sizes["factors"]
    for node in plan.nodes:
        for value in node.outputs:
            assert len(plan.shape(value)) < 3 or plan.shape(value)[-1] != units
    few = plan_of("sequence_rnn", batch=2)
    assert any(few.shape(n.output)[-1] == units for n in few.nodes if n.op == "take")


def test_a_loss_of_indices_takes_one_entry_before_it_subtracts() -> None:
    """Over all classes: a maximum, a difference, exp, a sum; in the gradient two more."""
    plan = plan_of("sequence_rnn")
    classes = plan.sizes["vocab"]
    wide = Counter(
        node.op
        for node in plan.nodes
        if node.op != "concat" and plan.shape(node.output) == (8, 64, classes)
    )
    assert wide == Counter(
        matmul=1, add=2, subtract=1, exp=1, one_hot=1, multiply=1
    )  # logits, z, exp(z); exp(z) / s, and the one-hot entry, added to it


def test_a_training_step_needs_the_products_of_one_by_hand() -> None:
    """Table; T - 1 steps with U forward, back, and for its gradient; three output products."""
    plan = plan_of("sequence_rnn", batch=1024)
    batch, time, hidden, vocab, factors = 1024, 8, 256, 86, 42
    by_hand = 3 * vocab * factors * hidden
    by_hand += 3 * (time - 1) * batch * hidden * hidden + 3 * time * batch * hidden * vocab
    assert count(plan.nodes, plan.types, plan.sizes).products == 2 * by_hand


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("mode", ["training", "forward"])
def test_a_plan_needs_no_more_than_the_program(model: str, mode: str) -> None:
    name = model.removeprefix("lesson6/")
    plan = plan_of(name, mode)
    spec = load_spec(model)
    if mode == "forward":
        program = spec.program("inference")
        before = count(program.nodes, program.types, plan.sizes)
        after = count(plan.nodes, plan.types, plan.sizes)
        # A bias that is a row of a weight is a product with one and its sum, instead of a sum.
        saved = before.elementwise - after.elementwise
        assert after.products - before.products <= 2 * saved
        assert after.elementwise <= before.elementwise
    else:
        assert len(list(walk_nodes(plan.nodes))) < 700


def test_nothing_is_added_by_a_second_time() -> None:
    plan = plan_of("stateful_lstm", time=LONG)
    builder = Builder(dict(plan.types))
    again = optimise(plan.nodes, plan.outputs.values(), builder, plan.sizes, ())
    assert ops_of(again) == ops_of(plan.nodes)


@pytest.mark.parametrize(("batch", "leaves"), [(8, True), (512, False)])
def test_elementwise_work_on_a_sequence_leaves_a_long_loop(batch: int, leaves: bool) -> None:
    """The decays of a selective scan, as long as all of them stay in a cache."""
    program = load_spec("mamba").program("inference")
    sizes = {**program.sizes, "batch": batch, "time": 64}
    plan = forward_plan(program, sizes, "float32", ())
    bodies = [ops_of(node.block.nodes) for node in loops(plan)]
    assert bodies
    assert all((ops["exp"] == 0) == leaves for ops in bodies)


@pytest.mark.parametrize("fuses", [False, True])
def test_what_only_a_stack_needs_is_done_after_a_long_loop(fuses: bool) -> None:
    """Of a selective scan a step keeps what the next one needs, in both directions; where all of a
    step is one call in any case, the rest stays there."""
    spec = load_spec("mamba")
    program = spec.program("training")
    sizes = {**program.sizes, "batch": 8, "time": 64}
    assert spec.update is not None
    plan = training_plan(program, spec.update, sizes, "float32", (), learning_rate=0.1, fuses=fuses)
    bodies = [ops_of(node.block.nodes) for node in loops(plan)]
    assert len(bodies) == 4
    least = Counter({"multiply": 1, "add": 1})
    assert all((ops == least) != fuses for ops in bodies)


@pytest.mark.parametrize("fuses", [False, True])
def test_loops_of_a_training_are_written_out_where_no_compiler_fuses_a_step(fuses: bool) -> None:
    spec = load_spec("lesson6/stateful_lstm")
    assert spec.update is not None
    kept = {}
    for phase in ("training", "inference"):
        program = spec.program(phase)
        sizes = {**program.sizes, "batch": 4, "time": 24}
        if phase == "inference":
            plan = forward_plan(program, sizes, "float32", (), fuses=fuses)
        else:
            chosen = {"learning_rate": 0.1, "fuses": fuses}
            plan = training_plan(program, spec.update, sizes, "float32", (), **chosen)
        kept[phase] = len(loops(plan))
    assert kept == {"training": 2 if fuses else 0, "inference": 0}
