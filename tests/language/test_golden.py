"""Every definition, run by the oracle, against kernels that know nothing of the definitions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from golden.tiny import evaluate, tiny, train
from places import TESTS

from harness.language.library import FOLDERS, Library
from harness.language.model import load_spec

GOLDEN = TESTS / "golden"
KINDS = ("layer", "function", "loss", "optimizer")
# Largest error over the array's largest entry. The float32 kernels round at every step.
TOLERANCE = {"float64": 1e-14, "float32": 1e-6}
Case = Mapping[str, Any]


@cache
def read(kind: str) -> list[Case]:
    return json.loads((GOLDEN / f"{kind}.json").read_text(encoding="utf-8"))["cases"]


CASES = [(kind, case) for kind in KINDS for case in read(kind)]


def title(entry: tuple[str, Case]) -> str:
    _, case = entry
    values = [str(v) for v in case["attributes"].values()]
    return "-".join([case["definition"], case["source"], *values])


def differences(
    kind: str, case: Case, overrides: Mapping[tuple[str, str], str] | None = None
) -> dict[str, float]:
    """The relative error of every golden array that the oracle does not reproduce."""
    name, attributes, given = case["definition"], dict(case["attributes"]), case["given"]
    changed = dict(overrides or {})
    if kind == "optimizer":
        found = train(name, attributes, given, changed)
    else:
        small = tiny(kind, name, attributes, case["phase"], changed)
        found = evaluate(small, given, case["cotangents"])
    assert case["expected"], "a case without expected arrays"
    assert set(case["expected"]) <= set(found)
    expected = {n: np.asarray(e) for n, e in case["expected"].items()}
    most = max(float(np.max(np.abs(a))) for a in expected.values())
    errors = {n: relative(found[n], e, most) for n, e in expected.items()}
    limit = TOLERANCE[case["dtype"]]
    return {n: error for n, error in errors.items() if not error <= limit}


def relative(found: np.ndarray, expected: np.ndarray, most: float) -> float:
    """The largest error; of what is zero but for rounding, as the gradient of a bias of keys is,
    over the largest entry of all arrays."""
    assert found.shape == expected.shape
    largest = float(np.max(np.abs(expected)))
    largest = most if largest < 1e-12 * most else largest
    return float(np.max(np.abs(found - expected))) / (largest or 1.0)


def shipped(kind: str, name: str) -> str:
    return files("harness.specs").joinpath(f"{FOLDERS[kind]}/{name}.yaml").read_text("utf-8")


@pytest.mark.parametrize(("kind", "case"), CASES, ids=[title(entry) for entry in CASES])
def test_the_definition_gives_what_the_kernel_gave(kind: str, case: Case) -> None:
    assert differences(kind, case) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_every_definition_and_attribute_has_vectors(kind: str) -> None:
    missing = []
    for name in Library().names(kind):
        cases = [case for case in read(kind) if case["definition"] == name]
        definition = Library().find(kind, name).content
        defaults: Mapping[str, Any] = getattr(definition, "attributes", {})
        missing.extend([] if cases else [name])
        for attribute, default in defaults.items():
            if attribute == "learning_rate":
                values = {rate for case in cases for rate in case["given"]["learning_rates"]}
            elif default == "size":
                continue  # the oracle's shapes would not fit the kernel's
            else:
                values = {str(case["attributes"].get(attribute, default)) for case in cases}
            missing.extend([] if len(values) > 1 else [f"{name}: {attribute} only at {values}"])
    assert missing == []


def test_every_vector_names_its_source_and_versions() -> None:
    for _, case in CASES:
        assert case["source"].split(".")[0] in case["versions"]
        assert all(case["versions"].values())


def test_every_layer_has_gradients_of_everything() -> None:
    for name in Library().names("layer"):
        full = [c for c in read("layer") if c["definition"] == name and c["dtype"] == "float64"]
        assert full, name
        for case in full:
            small = tiny("layer", name, case["attributes"], case["phase"])
            assert {f"gradient.{n}" for n in small.against} <= set(case["expected"])


def test_what_the_models_use_has_vectors() -> None:
    """A model's own choice of activation and gate is witnessed, not only the defaults."""
    missing = []
    for model in Library().names("model"):
        for call in load_spec(model).programs["training"].calls:
            name, kind = call.attributes["definition"], call.attributes["kind"]
            used = {n: v for n, v in call.attributes["attributes"].items() if isinstance(v, str)}
            pairs = [c["attributes"] for c in read(kind) if c["definition"] == name]
            if not any(used.items() <= attributes.items() for attributes in pairs):
                missing.append((model, name, used))
    assert missing == []


# A wrong text for every definition: each one would go unseen if only backends were compared.
FAULTS = [
    ("layer", "lstm", "x_t @ W_f + h @ U_f + b_f", "x_t @ W_f + h @ U_f - b_f"),
    ("layer", "lstm", "c = f * c + i * g", "c = i * c + f * g"),
    ("layer", "lstm", "h = o * activation(c)", "h = activation(o * c)"),
    ("layer", "gru", "(h * r) @ U_n", "r * (h @ U_n)"),
    ("layer", "gru", "z * h + (1 - z) * n", "(1 - z) * h + z * n"),
    ("layer", "gru_concatenated", "concat([h * r, x_t]", "concat([h * r * r, x_t]"),
    ("layer", "gru_reset_after", "r * (h @ U_n + c_n)", "r * (h @ U_n) + c_n"),
    ("layer", "bidirectional_lstm", "reverse: true", "reverse: false"),
    ("layer", "bidirectional_gru_reset_after", "[ahead, back]", "[back, ahead]"),
    ("layer", "masked_bidirectional_lstm", "f * c + i * g, c)", "f * c + i * g, 0)"),
    ("layer", "masked_bidirectional_lstm", "axis=-1), 0)", "axis=-1), 0.5)"),
    ("layer", "simple_rnn", "h @ U + b", "h @ U - b"),
    ("layer", "simple_rnn_two_biases", "h @ U + c", "h @ U + 2 * c"),
    ("layer", "simple_rnn_without_bias", "+ h @ U", "- h @ U"),
    ("layer", "dense", "activation(x @ W + b)", "activation(x @ W) + b"),
    ("layer", "embedding", "y = take(table, indices)", "y = 1.001 * take(table, indices)"),
    ("layer", "batch_norm", "sqrt(variance + epsilon)", "(sqrt(variance) + epsilon)"),
    ("layer", "batch_norm", "+ (1 - momentum) * center", "+ momentum * center"),
    ("layer", "batch_norm", "(1 - momentum) * variance", "1.07 * (1 - momentum) * variance"),
    ("layer", "sample_batch_norm", "count / (count - 1)", "count / count"),
    ("function", "hard_sigmoid_fifth", "0.2 * x", "x / 6"),
    ("function", "hard_sigmoid_sixth", "x / 6", "0.2 * x"),
    ("function", "relu", "where(x <= 0, 0, x)", "where(x < 0, 0.001 * x, x)"),
    ("function", "relu", "where(x <= 0, 0, x)", "where(x < 0, 0, x)"),
    ("function", "sigmoid", "tanh(0.5 * x)", "tanh(0.51 * x)"),
    ("function", "softmax", "max(x, axis=axis", "0 * max(x, axis=axis"),
    ("function", "log_softmax", "log(sum(exp(z), axis=axis", "log(sum(exp(z), axis=1"),
    ("function", "linear", "1 * x", "1.0001 * x"),
    ("function", "last", "x[:, -1]", "x[:, 0]"),
    ("function", "reverse", "x[:, ::-1]", "x[::-1]"),
    ("function", "maximum", "a <= b", "a >= b"),
    ("function", "minimum", "a >= b", "a <= b"),
    ("layer", "layer_norm", "center ** 2", "x ** 2"),
    ("layer", "rms_norm", "mean(x ** 2, axis=-1, keepdims=1)", "var(x, axis=-1, keepdims=1)"),
    ("layer", "group_norm", "axis=[1, 3]", "axis=[1, 2]"),
    ("layer", "group_norm", "variance = mean(center ** 2", "variance = 1.01 * mean(center ** 2"),
    ("layer", "causal_attention", "<= step[:, None]", ">= step[:, None]"),
    ("layer", "causal_attention", "head ** 0.5", "head"),
    ("layer", "causal_attention", "x @ W_k + b_k", "2 * x @ W_k + b_k"),
    ("layer", "learned_positions", "table[:time]", "table[-time:]"),
    ("layer", "gpt_block", "attend(norm_1(x))", "attend(norm_1(norm_1(x)))"),
    ("layer", "gpt_block", "h + down(up(norm_2(h)))", "x + down(up(norm_2(h)))"),
    ("layer", "dropout", "(kept / keep)", "kept"),
    ("layer", "gaussian_sample", "0.5 * log_variance", "log_variance"),
    ("layer", "zoneout_lstm", "c_t * c + (1 - c_t) * n", "(1 - c_t) * c + c_t * n"),
    ("layer", "zoneout_lstm", "o * activation(n)", "o * activation(c)"),
    ("function", "relu6", "6)", "5)"),
    ("function", "hard_swish", "x + 3", "x + 2"),
    ("function", "mish", "softplus(x)", "exp(x)"),
    ("function", "softsign", "1 + abs", "2 + abs"),
    ("function", "gelu_sigmoid", "1.702", "1.7"),
    ("function", "resize_bilinear", "rows / tall - 0.5", "rows / tall"),
    ("function", "resize_nearest", "+ 0.25, i", "- 0.25, i"),
    ("function", "clip", "x, low", "x, 2 * low"),
    ("layer", "conv1d", " + b)", " - b)"),
    ("layer", "conv1d", "stretches, W", "stretches, W[::-1]"),
    ("layer", "conv2d", "squares, W", "squares, W[:, ::-1]"),
    ("layer", "conv2d", " + b)", " + 2 * b)"),
    ("layer", "conv2d", "padding=padding)", "padding=padding)[:, ::-1]"),
    ("layer", "basic_block", "relu(x + norm_2", "relu(h + norm_2"),
    ("layer", "bottleneck_block", "relu(x + norm_3", "relu(0.999 * x + norm_3"),
    ("layer", "bottleneck_block_down", "norm_2(conv_2(relu(norm_1", "norm_2(conv_2((norm_1"),
    ("layer", "basic_block_down", "conv_1(x)", "conv_1(2 * x * x)"),
    ("layer", "basic_block_down", "relu(norm_3", "0.999 * relu(norm_3"),
    ("layer", "conv2d_transpose", "axes=[3, 0, 1, 2]", "axes=[3, 1, 0, 2]"),
    ("layer", "conv2d_transpose", "x @ kernels", "1.001 * x @ kernels"),
    ("layer", "max_pool", ", lowest=1", ""),
    ("layer", "max_pool", "y = max(", "y = mean("),
    ("layer", "max_pool_first", "argmax(squares, axis=3)", "argmax(-squares, axis=3)"),
    ("layer", "avg_pool", "padding=padding)", "padding=padding, lowest=1)"),
    ("layer", "avg_pool", "mean(squares", "max(squares"),
    ("layer", "causal_attention", "kept / keep", "kept"),
    ("layer", "self_attention", "head ** 0.5", "head"),
    ("layer", "self_attention", "kept / keep", "kept * keep"),
    ("layer", "cross_attention", "head ** 0.5", "head"),
    ("layer", "cross_attention", "memory @ W_v + b_v", "memory @ W_v - b_v"),
    ("layer", "cross_attention", "kept / keep", "kept"),
    ("layer", "masked_attention", "mask[:, None, None, :]", "~mask[:, None, None, :]"),
    ("layer", "bert_block", "norm_1(x + attend(x, mask))", "norm_1(x) + attend(x, mask)"),
    ("layer", "vit_block", "x + attend(norm_1(x))", "x + norm_1(attend(x))"),
    ("layer", "selective_scan", "decay * h", "0.9 * decay * h"),
    ("layer", "selective_scan", " + 1)", " + 2)"),
    ("layer", "mamba_block", "scan(conv(up(h)))", "conv(scan(up(h)))"),
    ("layer", "causal_conv1d", "padding=kernel - 1, after=0", "padding=0, after=kernel - 1"),
    ("layer", "unet_convs", "second(first(x))", "first(x) + 0 * second(first(x))"),
    ("layer", "unembedding", "x @ permute", "2 * x @ permute"),
    ("layer", "mixture_of_experts", "x @ W_route, chosen", "-x @ W_route, chosen"),
    ("layer", "mixture_of_experts", "softmax(score)", "softmax(2 * score)"),
    ("layer", "graph_convolution", "1 + segment_sum", "2 + segment_sum"),
    ("layer", "graph_convolution", "sender, axis=-2), receiver", "receiver, axis=-2), sender"),
    ("layer", "masked_attention", "| ~zero_if_empty", "| zero_if_empty"),
    ("layer", "grouped_attention", "rotary(queries", "rotary(-queries"),
    ("layer", "grouped_attention", "<= step[:, None]", ">= step[:, None]"),
    ("layer", "grouped_attention", "x @ W_v + b_v", "x @ W_v + 2 * b_v"),
    ("layer", "grouped_attention", "kept / keep", "kept"),
    ("layer", "llama_block", "gate(inner) * up(inner)", "gate(inner) + up(inner)"),
    ("function", "rotary", "b * cos(turn) + a", "b * cos(turn) - a"),
    ("function", "rotary_interleaved", "b * cos(turn) + a", "b * cos(turn) - a"),
    ("function", "elu", "alpha * (exp", "1.01 * alpha * (exp"),
    ("function", "abs", "x * sign(x)", "x"),
    ("function", "sign", "0 * x))", "1))"),
    ("function", "gelu", "0.7071067811865476", "0.707"),
    ("function", "gelu_tanh", "0.044715", "0.0447"),
    ("function", "silu", "x * sigmoid(x)", "x * sigmoid(1.001 * x)"),
    ("function", "softplus", "maximum(x, 0)", "maximum(0 * x, 0)"),
    ("function", "elu", "where(x <= 0, x, 0)", "minimum(x, 0)"),
    ("function", "leaky_relu", "slope * x", "1.001 * slope * x"),
    ("function", "logsumexp", "max(x, axis=axis)", "0 * max(x, axis=axis)"),
    ("loss", "accuracy", "max(logits, axis=-1) <= take", "0 <= take"),
    ("loss", "ctc", "where(repeats <= 0", "where(repeats <= 1"),
    ("loss", "focal", "(1 - exp(right))", "exp(right)"),
    ("loss", "info_nce", "axes=[1, 0]) / temperature", "axes=[1, 0])"),
    ("loss", "squared_error", "** 2", "** 2 / 2"),
    ("loss", "cross_entropy", "-sum(target *", "-sum(target * target *"),
    ("loss", "sparse_cross_entropy", "log_softmax(logits)", "logits"),
    ("loss", "clipped_cross_entropy", "maximum(probabilities, epsilon)", "probabilities + epsilon"),
    ("function", "warmup_cosine", "(t - first) / (steps - first)", "t / steps"),
    ("function", "newton_schulz", "c * (gram @ gram)", "c * gram"),
    ("optimizer", "sgd", "p - learning_rate * g", "p - 1.0001 * learning_rate * g"),
    ("optimizer", "sgd_momentum", "momentum * velocity + g", "momentum * (velocity + g)"),
    ("optimizer", "sgd_momentum_scaled", "p + velocity", "p + momentum * velocity"),
    ("optimizer", "adam", "(1 - beta_2 ** t)) + epsilon)", "(1 - beta_2 ** t) + epsilon))"),
    ("optimizer", "adam_epsilon_hat", "sqrt(1 - beta_2 ** t) / (1", "1 / (1"),
    ("optimizer", "rmsprop", "(sqrt(v) + epsilon)", "sqrt(v + epsilon)"),
    ("optimizer", "rmsprop_epsilon_inside", "sqrt(v + epsilon)", "(sqrt(v) + epsilon)"),
    ("optimizer", "adamw", "(u + weight_decay * p)", "u - weight_decay * p"),
    ("optimizer", "adamw_epsilon_hat", "(sqrt(v) + epsilon)", "sqrt(v + epsilon)"),
    ("optimizer", "amsgrad", "maximum(v, largest)", "v"),
    ("optimizer", "amsgrad_corrected", "maximum(v / (1 - beta_2 ** t), ", "maximum(v, "),
    ("optimizer", "amsgrad_epsilon_hat", "maximum(v, largest)", "maximum(v, 0 * largest)"),
    ("optimizer", "nadam", "(1 - product * next)", "(1 - product)"),
    ("optimizer", "nadam", "product * now", "product * next"),
    ("optimizer", "nadam_constant", "(t + 1)", "t"),
    ("optimizer", "radam", "length > 5", "length > 6"),
    ("optimizer", "radam_epsilon_hat", "sqrt(1 - beta_2 ** t) / (sqrt(v)", "1 / (sqrt(v)"),
    ("optimizer", "adagrad", "(sqrt(squares) + epsilon)", "sqrt(squares + epsilon)"),
    ("optimizer", "adagrad_epsilon_inside", "sqrt(squares + epsilon)", "(sqrt(squares) + epsilon)"),
    ("optimizer", "adadelta", "* u * u", "* g * g"),
    ("optimizer", "lion", "m = beta_2 * m", "m = beta_1 * m"),
    ("optimizer", "lamb", "sum(u * u)", "max(u * u)"),
    ("optimizer", "adafactor", "sqrt(of_rows / mean(of_rows))", "sqrt(of_rows)"),
    ("optimizer", "adafactor", "mean(squares, axis=0", "mean(g * g, axis=0"),
    ("optimizer", "adafactor", "v = b * v + (1 - b)", "v = b * v + b"),
    ("optimizer", "muon", "columns / rows", "rows / columns"),
    ("optimizer", "muon", "newton_schulz(newton_schulz(three))", "newton_schulz(three)"),
    ("optimizer", "muon", "learning_rate * adam_rate * (u", "learning_rate * (adam_rate * u"),
    ("optimizer", "muon_matched", "maximum(rows, columns)", "minimum(rows, columns)"),
    ("optimizer", "muon_matched", "ahead = momentum * m + g", "ahead = m"),
    ("optimizer", "muon_matched", "(u + adam_weight_decay * p)", "(u - adam_weight_decay * p)"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "right", "wrong"), FAULTS)
def test_a_planted_fault_is_seen(kind: str, name: str, right: str, wrong: str) -> None:
    text = shipped(kind, name)
    assert right in text
    overrides = {(kind, name): text.replace(right, wrong)}
    cases = [case for case in read(kind) if case["definition"] == name]
    assert any(differences(kind, case, overrides) for case in cases)


def test_every_definition_has_a_planted_fault() -> None:
    planted = {(kind, name) for kind, name, _, _ in FAULTS}
    assert planted == {(kind, name) for kind in KINDS for name in Library().names(kind)}
