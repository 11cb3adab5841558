"""Python source that is written of programs: its form, and what it is recognised from."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from exporting import SYSTEMS, case_of, exported

from harness.convert.source import literals
from harness.convert.source.composites import fold
from harness.convert.source.document import form_title
from harness.convert.source.emitter import (
    COMPARISON,
    PRODUCT,
    SUM,
    UNARY,
    Code,
    Emitter,
    bracketed,
    count_reads,
    fill,
    infix,
    mapping,
    number,
    statement,
)
from harness.convert.source.idioms import Idioms
from harness.program.builder import Builder
from harness.program.dims import Dim
from harness.program.ir import Port, Type

RUFF = shutil.which("ruff", path=str(Path(sys.executable).parent))
BATCH, UNITS = Dim.of("batch"), Dim.of("units")


IMAGES = ("resnet", "unet")


@pytest.mark.skipif(RUFF is None, reason="ruff is not installed")
@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_every_file_is_formatted_and_without_complaints(framework: str, tmp_path: Path) -> None:
    module = pytest.importorskip(f"harness.backends.{framework}.module")
    for system in (*SYSTEMS, *IMAGES, "gpt"):
        given = exported(case_of(system, 256), "float64")
        name = f"{Path(system).stem}.py"
        (tmp_path / name).write_text(module.Writer(given, name).source(), encoding="utf-8")
    for command in (
        ["format", "--check", "--diff", "--isolated", "--line-length", "99"],
        ["check", "--isolated", "--line-length", "99", "--select", "E,F,W,I,B,UP,PIE"],
    ):
        run = subprocess.run(
            [RUFF or "", *command, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout


def jax_functions(system: str) -> dict[str, ast.FunctionDef]:
    """The functions of a model's JAX source, by name."""
    module = pytest.importorskip("harness.backends.jax.module")
    source = module.Writer(exported(case_of(system), "float32"), "model.py").source()
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return {function.name: function for function in functions}


def test_repeated_blocks_are_a_loop_over_one_function() -> None:
    functions = jax_functions("gpt")
    assert [name for name in functions if "block" in name] == ["gpt_block"]
    (loop,) = (node for node in functions["apply"].body if isinstance(node, ast.For))
    assert ast.unparse(loop.iter) == "range(2)"
    (call,) = (node for node in ast.walk(loop) if isinstance(node, ast.Call) and len(node.args) > 1)
    assert ast.unparse(call) == "gpt_block(params['blocks'][str(number)], blocks)"
    # Dropout computes nothing in inference.
    assert "dropout" not in functions


def test_pools_are_modules_of_torch() -> None:
    module = pytest.importorskip("harness.backends.torch.module")
    source = module.Writer(exported(case_of("lenet"), "float32"), "model.py").source()
    (model,) = (n for n in ast.parse(source).body if isinstance(n, ast.ClassDef))
    assert model.name == "Lenet"
    assert "self.pool_1 = nn.AvgPool2d(2)\n" in source
    # The channels stay on axis 1 between a pool and a convolution.
    assert "self.conv_2(self.pool_1(conv_1.movedim(-1, 1))).movedim(1, -1)" in source


def test_convolutions_of_all_settings_share_one_function() -> None:
    functions = jax_functions("resnet")
    assert [name for name in functions if "conv" in name] == ["conv2d"]
    assert [a.arg for a in functions["conv2d"].args.args[:4]] == [
        *("params", "x", "stride", "padding"),
    ]


def test_a_block_with_a_value_that_is_read_outside_keeps_its_nodes() -> None:
    program = case_of(SYSTEMS[-1]).inference
    labels = [c.label for c in program.composites if "." not in c.label]
    assert labels == ["both"]
    (both,) = (call for call in fold(program).calls if call.attributes["label"] == "both")
    inner = both.block.nodes[0].output
    outside = replace(program, outputs=(*program.outputs, Port("inner", inner)))
    assert "both" not in {call.attributes["label"] for call in fold(outside).calls}


def test_titles_of_layers_have_the_attributes_of_each_axis() -> None:
    three, size = Dim.of(3), Dim.of("half")
    given = {
        "units": size,
        "kernel": (size, three),
        "padding": ((three, three), (Dim(), three)),
        "stride": (three, three),
        "groups": 2.0,
    }
    program = exported(case_of(SYSTEMS[0], 256), "float64").inference
    title = form_title(replace(program, sizes={"half": 4}), "conv2d", given)
    assert title == "Layer conv2d: kernel [4, 3], padding [3, [0, 3]], stride 3, groups 2."


# Idioms, and what only looks like one.


def found(make: Callable[[Builder, int], int], rank: int = 2) -> list[str]:
    """The ops of an expression of ``x`` after idioms are recognised."""
    builder = Builder()
    x = builder.value(Type((BATCH, UNITS, UNITS)[:rank]), "x")
    result = make(builder, x)
    nodes, _ = Idioms(builder.types, names=builder.names).block(builder.nodes, [result])
    return [node.op for node in nodes]


def limited(b: Builder, x: int, bound: float, kept: float, below: bool) -> int:
    """``where(x <= bound, kept, x)``, or with ``bound <= x``."""
    pair = (x, b.constant(bound)) if below else (b.constant(bound), x)
    return b.emit("where", b.emit("less_equal", *pair), b.constant(kept), x)


def sigmoid(b: Builder, x: int, inner: float, outer: float, shift: float) -> int:
    tanh = b.emit("tanh", b.emit("multiply", b.constant(inner), x))
    return b.emit("add", b.emit("multiply", b.constant(outer), tanh), b.constant(shift))


def gelu(b: Builder, x: int, factor: float) -> int:
    erf = b.emit("erf", b.emit("multiply", b.constant(factor), x))
    half = b.emit("multiply", b.constant(0.5), x)
    return b.emit("multiply", half, b.emit("add", b.constant(1.0), erf))


def sign(b: Builder, x: int, above: float) -> int:
    zero, low, high = (b.constant(number) for number in (0.0, -1.0, above))
    positive = b.emit("where", b.emit("less", zero, x), high, b.emit("multiply", zero, x))
    return b.emit("where", b.emit("less", x, zero), low, positive)


def swapped(b: Builder, x: int) -> int:
    return b.emit("permute_dims", x, axes=(1, 0))


def undropped(b: Builder, x: int, keep: float) -> int:
    """``x * (kept / 0.9)`` with a mask of dropout whose entries are ``keep``."""
    kept = b.emit("broadcast_to", b.constant(keep), shape=(BATCH, UNITS))
    return b.emit("multiply", x, b.emit("divide", kept, b.constant(0.9)))


def softmax(b: Builder, x: int, axis: int, total: Sequence[int], stopped: bool = True) -> int:
    most = b.emit("max", x, axis=(axis,), keepdims=True)
    most = b.emit("stop_gradient", most) if stopped else most
    e = b.emit("exp", b.emit("subtract", x, most))
    return b.emit("divide", e, b.emit("sum", e, axis=tuple(total), keepdims=True))


def log_softmax(b: Builder, x: int, axis: int) -> int:
    most = b.emit("stop_gradient", b.emit("max", x, axis=(axis,), keepdims=True))
    z = b.emit("subtract", x, most)
    total = b.emit("sum", b.emit("exp", z), axis=(axis,), keepdims=True)
    return b.emit("subtract", z, b.emit("log", total))


def softplus(b: Builder, x: int, shift: int) -> int:
    shift = b.emit("stop_gradient", shift)
    above, below = b.emit("subtract", x, shift), b.emit("negative", shift)
    total = b.emit("add", b.emit("exp", above), b.emit("exp", below))
    return b.emit("add", shift, b.emit("log", total))


def elu(b: Builder, x: int, one: float) -> int:
    zero = b.constant(0.0)
    below = b.emit("where", b.emit("less_equal", x, zero), x, zero)
    low = b.emit("subtract", b.emit("exp", below), b.constant(one))
    return b.emit("where", b.emit("less_equal", x, zero), low, x)


@pytest.mark.parametrize(
    ("make", "ops"),
    [
        (lambda b, x: limited(b, x, 0, 0, True), ["relu"]),
        (lambda b, x: limited(b, limited(b, x, 0, 0, True), 1, 1, False), ["clip"]),
        (lambda b, x: sigmoid(b, x, 0.5, 0.5, 0.5), ["sigmoid"]),
        (lambda b, x: b.emit("multiply", sigmoid(b, x, 0.5, 0.5, 0.5), x), ["silu"]),
        (lambda b, x: gelu(b, x, 0.7071067811865476), ["gelu"]),
        (lambda b, x: b.emit("multiply", x, sign(b, x, 1.0)), ["sign", "multiply"]),
        (lambda b, x: swapped(b, swapped(b, x)), ["permute_dims"]),
        (lambda b, x: b.emit("exp", undropped(b, x, 0.9)), ["exp"]),
        (lambda b, x: softmax(b, x, 1, [1]), ["softmax"]),
        # Whether the maximum is stopped: softmax is the same for all shifts, so is its gradient.
        (lambda b, x: softmax(b, x, 1, [1], stopped=False), ["softmax"]),
        (lambda b, x: log_softmax(b, x, 1), ["log_softmax"]),
        (lambda b, x: softmax(b, x, 0, [0]), ["softmax_along"]),
        (lambda b, x: log_softmax(b, x, 0), ["log_softmax_along"]),
        (lambda b, x: softplus(b, x, limited(b, x, 0, 0, True)), ["softplus"]),
        (lambda b, x: elu(b, x, 1.0), ["elu"]),
        (lambda b, x: b.mean(x, [0], keepdims=False), ["mean"]),
        (lambda b, x: b.emit("exp", b.emit("multiply", b.constant(1), x)), ["exp"]),
        (
            lambda b, x: b.emit("squeeze", b.slice_axis(x, 1, UNITS - 1, UNITS), axis=1),
            ["select"],
        ),
    ],
)
def test_an_idiom_is_one_operation(make: Callable[[Builder, int], int], ops: list[str]) -> None:
    assert found(make) == ops


def test_conditions_and_comparisons_of_indices_have_operators() -> None:
    b = Builder()
    x = b.value(Type((BATCH,)), "x")
    index = b.value(Type((BATCH,), "index", Dim(9)), "i")

    def floats(value: int) -> int:
        return b.emit("astype", value)

    def inverse(value: int) -> int:
        return b.emit("equal", floats(value), b.constant(0.0))

    low, high = b.emit("less", x, b.constant(2.0)), b.emit("less", b.constant(0.5), x)
    both = b.emit("equal", b.emit("multiply", floats(low), floats(high)), b.constant(1.0))
    three = b.emit("equal", floats(index), b.constant(3.0))
    neither = b.emit("equal", b.emit("add", floats(both), floats(inverse(three))), b.constant(0.0))
    below = b.emit("less", b.emit("add", floats(index), b.constant(0.5)), b.constant(7.0))
    results = [inverse(neither), inverse(inverse(high)), below]
    dialect = pytest.importorskip("harness.backends.jax.primitives_export").JaxDialect()
    e = Emitter(dialect, b.types, lambda value: b.names.get(value, ""), {}, "x")
    nodes, ends = Idioms(b.types, names=b.names).block(b.nodes, results)
    e.left = count_reads(nodes, ends)
    for value in (x, index):
        e.argument(value, b.names[value])
    e.block(nodes, ends)
    assert [e.read(code) for code in e.operands(ends)] == [
        "(x < 2.0) & mask | (i != 3)",
        "mask",
        "i < 7",
    ]
    assert e.lines == ["        mask = x > 0.5"]


@pytest.mark.parametrize(
    ("make", "idiom"),
    [
        (lambda b, x: limited(b, x, 0.5, 0.5, True), "relu"),
        (lambda b, x: limited(b, x, 0, 1, True), "relu"),
        (lambda b, x: limited(b, x, 0, 0, False), "relu"),
        (lambda b, x: limited(b, limited(b, x, 0, 0, True), 1, 0, False), "clip"),
        (lambda b, x: limited(b, limited(b, x, 0, 0, False), 1, 1, False), "clip"),
        (lambda b, x: sigmoid(b, x, 1.0, 0.5, 0.5), "sigmoid"),
        (lambda b, x: sigmoid(b, x, 0.5, 0.25, 0.5), "sigmoid"),
        (lambda b, x: sigmoid(b, x, 0.5, 0.5, 0.4), "sigmoid"),
        (lambda b, x: gelu(b, x, 0.7), "gelu"),
        (lambda b, x: b.emit("multiply", x, sign(b, x, 2.0)), "sign"),
        (lambda b, x: softmax(b, x, 1, [0, 1]), "softmax"),
        (lambda b, x: softmax(b, x, 0, [1]), "softmax_along"),
        (lambda b, x: softplus(b, x, x), "softplus"),
        (lambda b, x: elu(b, x, 0.5), "elu"),
        (
            lambda b, x: b.emit(
                "divide",
                b.emit("sum", x, axis=(0,), keepdims=False),
                b.emit("extent", dims=(BATCH, UNITS)),
            ),
            "mean",
        ),
    ],
)
def test_what_only_looks_like_an_idiom_is_left(
    make: Callable[[Builder, int], int], idiom: str
) -> None:
    assert idiom not in found(make)
    assert len(found(make)) > 1


def test_one_times_a_number_that_grows_is_no_identity() -> None:
    def make(b: Builder, x: int) -> int:
        row = b.emit("sum", x, axis=(0,), keepdims=False)
        ones = b.emit("broadcast_to", b.constant(1), shape=(BATCH, UNITS))
        return b.emit("multiply", ones, row)

    assert found(make)[-1] == "multiply"
    assert found(lambda b, x: undropped(b, x, 0.8))[-1] == "multiply"


# Words.


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_reader_of_exports_knows_the_arguments_in_all_templates(framework: str) -> None:
    export = pytest.importorskip(f"harness.backends.{framework}.primitives_export")
    texts = [text for text in export.TEMPLATES.values() if isinstance(text, str)]
    used = {name for text in texts for name in re.findall(r"(\w+)=", text)}
    assert used
    assert used <= export.WORDS.keywords


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("lesson6/sequence_rnn", "SequenceRnn"),
        ("2nd model", "Model2ndModel"),
        ("a/b-c.d", "BCD"),
        ("über", "Ber"),
        ("éé", "Model"),
    ],
)
def test_class_names(spec: str, name: str) -> None:
    assert literals.camel(spec).isidentifier()
    assert literals.camel(spec) == name


def test_identifiers() -> None:
    assert literals.identifier("class") == "class_"
    assert literals.identifier("dense#2") == "dense_2"
    assert literals.identifier("2nd") == "v2nd"
    assert literals.identifier("load", {"load"}) == "load_"
    assert literals.uses(["x = -math.exp(2.0)"], "math")
    assert not literals.uses(["x = self.aftermath.weight", 'x = p["math.x"]'], "math")
    assert literals.unique("h", {"h", "h_2"}) == "h_3"


def test_texts_mean_what_they_were_of() -> None:
    every = "".join(map(chr, [*range(300), 0x20AC, 0x1F600, ord('"'), ord("\\")]))
    lines = literals.text_lines(every, 60)
    assert max(map(len, lines)) <= 60
    assert len(lines) > 10
    assert ast.literal_eval("(" + "\n".join(lines) + ")") == every


A, B, C = (Code((name,)) for name in "abc")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (infix("-", SUM, A, infix("-", SUM, B, C)), "a - (b - c)"),
        (infix("-", SUM, infix("-", SUM, A, B), C), "a - b - c"),
        (infix("*", PRODUCT, infix("+", SUM, A, B), number(2.0)), "(a + b) * 2.0"),
        (infix("<", COMPARISON, infix("<", COMPARISON, A, B), C), "(a < b) < c"),
        (fill("^0.sum(%1)", infix("@", PRODUCT, A, B), number(-1.0)), "(a @ b).sum(-1.0)"),
        (fill("^0[0]", Code(("-", "a"), UNARY)), "(-a)[0]"),
        (fill("f(%10)", *(Code((str(n),)) for n in range(11))), "f(10)"),
    ],
)
def test_brackets_stand_where_they_are_needed(code: Code, text: str) -> None:
    assert "".join(map(str, code.parts)) == text


def test_long_lines_are_broken_inside_their_brackets() -> None:
    long = [f"argument_{n}" for n in range(8)]
    assert bracketed(1, "f(", ["a", "b"], ")") == ["    f(a, b)"]
    assert bracketed(0, "wide(", long, ")") == ["wide(", f"    {', '.join(long)}", ")"]
    longer = bracketed(0, "f(", long * 2, ")")
    assert longer == ["f(", *(f"    {a}," for a in long * 2), ")"]
    broken = statement(0, f"x = f({', '.join(long)})")
    assert broken == ["x = f(", f"    {', '.join(long)}", ")"]
    nested = statement(0, f"x = f(g({', '.join(long)}), [1, 2], {', '.join(long)})")
    assert nested[:3] == ["x = f(", f"    g({', '.join(long)}),", "    [1, 2],"]
    assert mapping(0, "return ", [("a", "b")]) == ['return {"a": b}']
    assert mapping(0, "x = ", [(a, a) for a in long])[1] == '    "argument_0": argument_0,'
