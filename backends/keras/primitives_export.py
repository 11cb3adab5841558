"""The source code of each primitive in the module next to a ``.keras`` file, and the names that
this module may use."""

from __future__ import annotations

from harness.extend.source import Words, names_in

UNARY = (
    *("exp", "log", "tanh", "sqrt", "negative", "stop_gradient", "relu", "sigmoid"),
    *("erf", "sin", "cos", "floor", "silu", "sign", "logical_not"),
)
# TensorFlow rounds the constants of gelu to float32, also in float64. Keras on torch computes a
# linear softplus above 20.
LACKING = ("gelu", "gelu_tanh", "softplus", "elu")
LOGIC = ("equal", "not_equal", "logical_and", "logical_or")
# In these templates, operands are numbered and attributes have names. ``tensordot`` is missing,
# because only gradients use it.
CALLS = {
    **{n: f"ops.{n}({{0}})" for n in UNARY},
    **{n: f"ops.{n}({{0}}, {{1}})" for n in ("power", "matmul", *LOGIC)},
    **{n: f"ops.{n}({{0}}, axis={{axis}}, keepdims={{keepdims}})" for n in ("sum", "max", "mean")},
    **{n: f"ops.{n}({{0}}, axis={{axis}})" for n in ("expand_dims", "squeeze", "flip")},
    **{n: f"ops.{n}({{0}}, axis=-1)" for n in ("softmax", "log_softmax", "argsort")},
    **{f"{n}_along": f"ops.{n}({{0}}, axis={{axis}})" for n in ("softmax", "log_softmax")},
    # The derivative of ops.clip at both limits is 1, but that of the spec is 0.
    "clip": "ops.where(ops.logical_and({0} > {low}, {0} < {high}), {0}, "
    "ops.stop_gradient(ops.clip({0}, {low}, {high})))",
    "where": "ops.where({0}, {1}, {2})",
    "astype": "ops.cast({0}, self.compute_dtype)",
    "permute_dims": "ops.transpose({0}, {axes})",
    "broadcast_to": "ops.broadcast_to({0}, {shape})",
    "arange": 'ops.arange({stop}, dtype="int32")',
    "reshape": "ops.reshape({0}, {shape})",
    "take": "ops.take({0}, {1}, axis=0)",
    "take_along_axis": "ops.take_along_axis({0}, {1}, axis=-1)",
    "cumulative_sum": "ops.cumsum({0}, axis=-1)",
    "segment_sum": "ops.segment_sum({0}, {1}, num_segments={rows})",
    "one_hot": "ops.one_hot({0}, {classes}, dtype=self.compute_dtype)",
}
# Primitive -> Python operator and its precedence. Calls bind more tightly than all operators.
INFIX = {
    "less": ("<", 0),
    "less_equal": ("<=", 0),
    "add": ("+", 1),
    "subtract": ("-", 1),
    "multiply": ("*", 2),
    "divide": ("/", 2),
}
DECORATOR = "keras.saving.register_keras_serializable"
# Names that a module's source may use; see :mod:`harness.convert.source.vetting`.
WORDS = Words(
    imports=frozenset({"import keras", "from keras import ops"}),
    roots=frozenset({"keras", "ops"}),
    known=frozenset(
        {
            *names_in(CALLS),
            *("ops.shape", "ops.scan", "ops.arange", "ops.zeros", "ops.full", "ops.concatenate"),
            *(
                "ops.pad",
                "ops.conv",
                "ops.max_pool",
                "ops.average_pool",
                "ops.tensordot",
                "ops.zeros_like",
                "ops.ones_like",
                "keras.layers.Layer",
                DECORATOR,
            ),
        }
    ),
    methods=frozenset({"add_weight"}),
    keywords=frozenset(
        {
            *("axis", "axes", "keepdims", "dtype", "reverse", "constant_values"),
            *("name", "shape", "initializer", "trainable", "package", "num_segments"),
            *("strides", "dilation_rate"),
        }
    ),
    python=frozenset({"super", "float"}),
    decorator=DECORATOR,
)
