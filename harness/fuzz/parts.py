"""The parts of random models: inputs, layers and functions as text."""

from __future__ import annotations

from harness.program.dims import ONE, Dim, Shape

BATCH, TIME, WIDTH, VOCAB = (Dim.of(name) for name in ("batch", "time", "width", "vocab"))
INPUTS = {
    "x": ((BATCH, TIME, WIDTH), "{shape: [batch, time, width]}"),
    "u": ((BATCH, WIDTH), "{shape: [batch, width]}"),
    "w": ((BATCH,), "{shape: [batch]}"),
}
# The inputs of single calls, without their image.
SINGLE = {
    **INPUTS,
    "y": INPUTS["x"],
    "r": ((WIDTH,), "{shape: [width]}"),
    "t": ((VOCAB, WIDTH), "{shape: [vocab, width]}"),
}
INDEX = "{shape: [batch, time], index: vocab}"
MOST_AXES = 4
RECURRENT = (
    *("simple_rnn, activation: relu", "simple_rnn_two_biases", "simple_rnn_without_bias", "lstm"),
    *("lstm, gate: hard_sigmoid_fifth", "gru", "gru_reset_after, gate: hard_sigmoid_sixth"),
    *("gru_concatenated", "gru_concatenated, gate: hard_sigmoid_fifth"),
)
FUNCTIONS = (
    *("tanh({0})", "relu({0})", "sigmoid({0})", "softmax({0})", "log_softmax({0})", "linear({0})"),
    *("hard_sigmoid_fifth({0})", "exp(0.1 * {0})", "sqrt({0} * {0} + 1)", "stop_gradient({0})"),
    *("-{0}", "{0} ** 2", "{0} ** 1", "0.5 * {0}", "{0} * 2", "{0} / 4", "{0} + 0", "1 - {0}"),
    *("gelu({0})", "silu({0})", "softplus({0})", "sin({0})", "cos({0})", "erf({0})"),
    *("-1 * {0}", "0 * {0}", "{0} - 0.5", "0 - {0}", "1 * {0}", "{0} / (1 + {0} * {0})"),
)
BINARY = (
    *("{0} + {1}", "{0} - {1}", "{0} * {1}", "-{0} + {1}", "{0} / (1 + {1} * {1})"),
    *("maximum({0}, {1})", "minimum({0}, {1})", "where({0} < {1}, {0}, 0.5 * {1})"),
    "{0} * {1} + (1 - {0}) * {1}",
)
# Functions and operators for single calls, which may have kinks, or results that are not finite.
CALL_FUNCTIONS = (
    *("exp({0})", "log({0})", "sqrt({0})", "tanh({0})", "erf({0})", "sin({0})", "cos({0})"),
    *("floor({0})", "abs({0})", "sign({0})", "-{0}", "1 / {0}", "{0} ** 2", "{0} ** -1", "0 * {0}"),
    *("sigmoid({0})", "relu({0})", "relu6({0})", "leaky_relu({0})", "elu({0})", "softplus({0})"),
    *(
        "gelu({0})",
        "gelu_tanh({0})",
        "gelu_sigmoid({0})",
        "silu({0})",
        "mish({0})",
        "softsign({0})",
    ),
    *("hard_swish({0})", "hard_sigmoid_fifth({0})", "hard_sigmoid_sixth({0})", "clip({0})"),
    *(
        "log(abs({0}))",
        "sqrt(abs({0}))",
        "{0} ** 0.5",
        "stop_gradient({0})",
        "where({0} < 0, 0, {0})",
    ),
)
CALL_BINARY = (
    *(
        "{0} + {1}",
        "{0} - {1}",
        "{0} * {1}",
        "{0} * {1}",
        "{0} / {1}",
        "abs({0}) ** {1}",
        "{0} ** {1}",
    ),
    *("maximum({0}, {1})", "minimum({0}, {1})", "astype({0} < {1})", "astype({0} <= {1})"),
    # A mask, as models write it.
    "{0} * astype({1} < 0)",
    *("astype({0} == {1})", "where({0} < {1}, {0}, {1})"),
)
ACTIVATIONS = ("linear", "tanh", "sigmoid", "relu", "gelu", "silu", "hard_sigmoid_fifth")
# Functions along one axis, which keep the shape.
ALONG_AXIS = (
    *("cumsum({0}, axis={1})", "sort({0}, axis={1})", "sort({0}, axis={1}, descending=true)"),
    *("astype(argsort({0}, axis={1}))", "softmax({0}, axis={1})", "log_softmax({0}, axis={1})"),
)
# Functions that remove one axis.
OVER_AXIS = (
    *("max({0}, axis={1})", "sum({0}, axis={1})", "mean({0}, axis={1})", "var({0}, axis={1})"),
    *("logsumexp({0}, axis={1})", "astype(argmax({0}, axis={1}))"),
)
# Functions of a table and of indices.
LOOKUPS = (*("take({1}, {0})", "one_hot({0}, vocab) @ {1}", "segment_sum({2}, {0})"),)


def losses(name: str, shape: Shape, index: str = "i") -> tuple[str, ...]:
    """Return losses of a value, as text. ``index`` is the input with the right indices."""
    if shape == (BATCH, TIME, VOCAB):
        rest = "mean(clipped_cross_entropy(softmax({0}), one_hot({1}, vocab)))"
        losses = ("mean(sparse_cross_entropy({0}, {1}))", "sum(cross_entropy({0}, softmax({0})))")
        return tuple(loss.format(name, index) for loss in (*losses, rest))
    return f"mean({name})", f"mean(squared_error({name}, 0 * {name}))"


def is_product(dim: Dim) -> bool:
    """Return whether a size is a product of named sizes and a number."""
    return len(dim.terms) == 1 and not dim.constant


def is_free_of_batch_and_time(dim: Dim) -> bool:
    """Return whether a size is the same for all batches."""
    return not {"batch", "time"}.intersection(dim.names)


def broadcast(one: Shape, other: Shape) -> Shape | None:
    """Return the shape of a function of two arrays, or None if their shapes do not fit."""
    rank = max(len(one), len(other))
    wide = [(*[ONE] * (rank - len(s)), *s) for s in (one, other)]
    if any(a != b and ONE not in (a, b) for a, b in zip(*wide, strict=True)):
        return None
    return tuple(b if a == ONE else a for a, b in zip(*wide, strict=True))
