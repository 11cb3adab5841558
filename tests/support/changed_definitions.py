"""Changed copies of built-in definitions: some compute other results, some the same results."""

from __future__ import annotations

from places import SPECS

from harness.language.library import FOLDERS

# (kind, name, old text, new text): each change makes a layer that differs from the framework's
# layer of this name.
OTHER = [
    ("layer", "lstm", "c = f * c + i * g", "c = i * c + f * g"),
    ("layer", "lstm", "x_t @ W_o + h @ U_o + b_o", "x_t @ W_o + h @ U_o + c * b_o"),
    ("layer", "lstm", "h @ U_f + b_f", "h @ U_f + 0 * b_f"),
    ("layer", "gru", "z * h + (1 - z) * n", "(1 - z) * h + z * n"),
    ("layer", "gru_reset_after", "r * (h @ U_n + c_n)", "r * (h @ U_n) + c_n"),
    ("layer", "bidirectional_lstm", "reverse: true", "reverse: false"),
    ("layer", "bidirectional_lstm", "output: back_h", "output: back_c"),
    (
        "layer",
        "bidirectional_lstm",
        "back_h @ back_U_f + back_b_f",
        "back_h @ back_U_f + 0 * back_b_f",
    ),
    ("layer", "bidirectional_gru_reset_after", "[ahead, back]", "[back, ahead]"),
    (
        "layer",
        "masked_bidirectional_lstm",
        "y = where(mask[:, :, None], concat([ahead, back], axis=-1), 0)",
        "y = concat([ahead, back], axis=-1)",
    ),
    ("layer", "simple_rnn", "h @ U + b", "h @ U - b"),
    ("layer", "simple_rnn_two_biases", "h @ U + c", "h @ U + 2 * c"),
    ("layer", "simple_rnn_without_bias", "+ h @ U", "- h @ U"),
    ("layer", "dense", "activation(x @ W + b)", "activation(x @ W) + b"),
    ("layer", "dense", "activation(x @ W + b)", "activation(x @ W + 0 * b)"),
    ("layer", "dense", "b: {shape: [units]", "b: {shape: [1]"),
    ("layer", "embedding", "y = take(table, indices)", "y = 2 * take(table, indices)"),
    ("layer", "batch_norm", "sqrt(variance + epsilon)", "(sqrt(variance) + epsilon)"),
    ("layer", "batch_norm", "+ (1 - momentum) * center", "+ momentum * center"),
    ("loss", "squared_error", "** 2", "** 2 / 2"),
    ("loss", "cross_entropy", "-sum(target *", "-sum(target * target *"),
    ("loss", "sparse_cross_entropy", "log_softmax(logits)", "logits"),
    ("optimizer", "sgd", "p - learning_rate * g", "p - 2 * learning_rate * g"),
    ("optimizer", "sgd_momentum", "momentum * velocity + g", "momentum * (velocity + g)"),
    ("optimizer", "sgd_momentum_scaled", "p + velocity", "p + momentum * velocity"),
    ("optimizer", "adam", "(1 - beta_2 ** t)) + epsilon)", "(1 - beta_2 ** t) + epsilon))"),
    ("optimizer", "adam", "beta_1 * m + (1 - beta_1) * g", "beta_2 * m + (1 - beta_2) * g"),
    ("optimizer", "adam_epsilon_hat", "sqrt(1 - beta_2 ** t) / (1", "1 / (1"),
    ("optimizer", "rmsprop", "(sqrt(v) + epsilon)", "(sqrt(v) + 2 * epsilon)"),
    ("optimizer", "rmsprop_epsilon_inside", "sqrt(v + epsilon)", "(epsilon + v) ** 0.5"),
    ("layer", "layer_norm", "mean(center ** 2", "mean(x ** 2"),
    ("layer", "rms_norm", "+ epsilon)", "+ 2 * epsilon)"),
    ("layer", "group_norm", "[groups, each]", "[each, groups]"),
    ("layer", "causal_attention", "<= step[:, None]", ">= step[:, None]"),
    ("layer", "learned_positions", "table[:time]", "table[-time:]"),
    ("layer", "gpt_block", "attend(norm_1(x))", "attend(norm_1(norm_1(x)))"),
    ("layer", "conv1d", "stretches, W", "stretches, W[::-1]"),
    ("layer", "conv2d", "squares, W", "squares, W[::-1]"),
    ("layer", "conv2d", "padding=padding)", "padding=padding, lowest=1)"),
    ("layer", "conv2d_transpose", "x @ kernels", "2 * x @ kernels"),
    ("layer", "avg_pool", "padding=padding)", "padding=padding, lowest=1)"),
    ("layer", "max_pool_first", "argmax(squares, axis=3)", "argmax(-squares, axis=3)"),
    ("loss", "ctc", "where(repeats <= 0", "where(repeats <= 1"),
    ("layer", "unembedding", "x @ permute", "2 * x @ permute"),
    ("layer", "mixture_of_experts", "softmax(score)", "softmax(2 * score)"),
    ("layer", "graph_convolution", "1 + segment_sum", "2 + segment_sum"),
    ("layer", "grouped_attention", "<= step[:, None]", ">= step[:, None]"),
    ("layer", "llama_block", "gate(inner) * up(inner)", "gate(inner) + up(inner)"),
    ("function", "rotary", "b * cos(turn) + a", "b * cos(turn) - a"),
    ("function", "rotary_interleaved", "b * cos(turn) + a", "b * cos(turn) - a"),
    ("function", "gelu", "0.7071067811865476", "0.707"),
    # Changes in functions that layers call, directly or through an attribute.
    ("function", "sigmoid", "tanh(0.5 * x)", "tanh(0.25 * x)"),
    ("function", "relu", "where(x <= 0, 0, x)", "where(x <= 0, 0.125 * x, x)"),
    ("function", "log_softmax", "log(sum(exp(z)", "log(1 + sum(exp(z)"),
    ("function", "linear", "1 * x", "2 * x"),
    ("function", "hard_sigmoid_fifth", "0.2 * x", "0.25 * x"),
    ("function", "softmax", "e / sum(", "0.5 * e / sum("),
]
# Changes of the text that keep the meaning.
SAME = [
    ("layer", "dense", "y = activation(x @ W + b)\noutput: y", "|\n  z = x @ W\n  out = "
     "activation(z + b)\noutput: out"),
    ("layer", "dense", "features", "columns"),
    ("layer", "dense", "init: glorot_uniform", "init: orthogonal"),
    ("layer", "dense", "activation: linear", "activation: relu"),
    ("layer", "lstm", "i = gate(x_t @ W_i + h @ U_i + b_i + c_i)", "# The input gate.\n    "
     "z = x_t @ W_i\n    i = gate((z + h @ U_i) + b_i + c_i)"),
    ("layer", "lstm", "{x_t: x}", "{x_t: x}  # one step"),
    ("layer", "batch_norm", "momentum: 0.99", "momentum: 0.5"),
    ("loss", "squared_error", "** 2", "** 2.0"),
    ("optimizer", "adam", "beta_1: 0.9,", "beta_1: 0.5,"),
    ("function", "relu", "x <= 0", "0 >= x"),
]  # fmt: skip


def shipped(kind: str, name: str) -> str:
    """Return the text of a built-in definition."""
    return (SPECS / FOLDERS[kind] / f"{name}.yaml").read_text(encoding="utf-8")


def changed(kind: str, name: str, old: str, new: str) -> str:
    """Return the text of a built-in definition with ``old`` replaced by ``new``."""
    text = shipped(kind, name)
    assert old in text, (name, old)
    return text.replace(old, new)
