"""Normalisations, attention and the functions between them, as each framework has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from needed import need
from sampling import sampled

import harness

MODEL = """\
model: normalised
summary: Every layer of transformers that a framework may have as its own.
source: None, it is a test.
sizes: {heads: 2, head: 3, half: 2}
inputs:
  x: {shape: [batch, time, heads * head]}
layers:
  centred: {layer: layer_norm}
  scaled: {layer: rms_norm}
  grouped: {layer: group_norm, groups: heads, each: head}
  attend: {layer: causal_attention, heads: heads, head: head}
  every: {layer: self_attention, heads: heads, head: head}
  among: {layer: masked_attention, heads: heads, head: head}
  shared: {layer: grouped_attention, groups: heads, each: head, half: half}
  across: {layer: cross_attention, heads: heads, head: head}
  bare: {layer: cross_attention, heads: heads, head: head, NO_BIASES}
  keyless: {layer: self_attention, heads: heads, head: head, bias_k: false}
  gappy: {layer: masked_attention, heads: heads, head: head, keep: 0.75, ZERO}
  empty: {layer: masked_attention, heads: heads, head: head, ZERO}
  lossy: {layer: causal_attention, heads: heads, head: head, keep: 0.75}
  turned: {layer: grouped_attention, groups: heads, each: head, half: half, keep: 0.75, SOME}
  exact: {layer: dense, units: heads * head, activation: gelu}
  near: {layer: dense, units: heads * head, activation: gelu_tanh}
  swish: {layer: dense, units: heads * head, activation: silu}
  place: {layer: embedding, rows: 9, units: heads * head}
equations: |
  first = across(every(attend(centred(x))), x[:, :, 2:])
  rows = x[:, :1, 0] > 0
  inside = x[..., 1] > 0
  second = bare(keyless(empty(gappy(shared(x), inside & rows), inside & rows)), first)
  attended = turned(lossy(second))
  mixed = grouped(swish(near(exact(scaled(among(attended, x[..., 0] > 0.5))))))
  y = mixed + place(index(astype(arange(time)), 9))
targets:
  target: {shape: [batch, time, heads * head]}
loss: mean(squared_error(y, target))
optimizer: {optimizer: sgd, learning_rate: 0.1}
""".replace("NO_BIASES", ", ".join(f"bias_{n}: false" for n in "qkvo"))
MODEL = MODEL.replace("SOME", "bias_q: true, bias_v: true").replace("ZERO", "zero_if_empty: true")
PLAIN = ("attend", "every", "among", "across", "bare")  # with all biases or none
UNEVEN = ("shared", "keyless")  # with other biases
NOISY = ("gappy", "lossy", "turned")
TORCH, KERAS = "torch.nn.functional.", "keras.layers."
# By backend and dtype: what runs of its own, and the rest runs its equations.
OWN = {
    ("torch", "float64"): {
        "centred": f"{TORCH}layer_norm",
        "scaled": f"{TORCH}rms_norm",
        "grouped": "torch.group_norm",
        **dict.fromkeys((*PLAIN, *UNEVEN, "empty"), f"{TORCH}scaled_dot_product_attention"),
        **dict.fromkeys(NOISY, f"{TORCH}linear, torch.softmax"),
        "exact": f"{TORCH}linear, {TORCH}gelu",
        "near": f"{TORCH}linear, {TORCH}gelu",
        "swish": f"{TORCH}linear, {TORCH}silu",
    },
    ("jax", "float32"): dict.fromkeys((*PLAIN, *UNEVEN), "jax.nn.dot_product_attention"),
    # A CPU has no such products.
    ("jax", "float16"): {},
    # Its softmax is float32's.
    ("jax", "float64"): {},
    ("keras", "float32"): {
        **dict.fromkeys(PLAIN, f"{KERAS}MultiHeadAttention"),
        "centred": f"{KERAS}LayerNormalization",
        "scaled": f"{KERAS}RMSNormalization",
        "grouped": f"{KERAS}GroupNormalization",
        "exact": f"{KERAS}Dense",
        "swish": f"{KERAS}Dense",
    },
    # Of a row that is masked whole its scores keep their derivative.
    ("keras-torch", "float32"): {
        **dict.fromkeys((n for n in PLAIN if n != "among"), f"{KERAS}MultiHeadAttention"),
        "centred": f"{KERAS}LayerNormalization",
        "scaled": f"{KERAS}RMSNormalization",
        "grouped": f"{KERAS}GroupNormalization",
        "exact": f"{KERAS}Dense",
        "swish": f"{KERAS}Dense",
    },
    ("keras-jax", "float32"): {
        **dict.fromkeys(PLAIN, f"{KERAS}MultiHeadAttention"),
        "centred": f"{KERAS}LayerNormalization",
        "scaled": f"{KERAS}RMSNormalization",
        "grouped": f"{KERAS}GroupNormalization",
        "exact": f"{KERAS}Dense",
        "swish": f"{KERAS}Dense",
    },
    # Constants of its gelu and its attention are float32's.
    ("keras", "float64"): {
        "centred": f"{KERAS}LayerNormalization",
        "scaled": f"{KERAS}RMSNormalization",
        "grouped": f"{KERAS}GroupNormalization",
        "swish": f"{KERAS}Dense",
    },
    # Elsewhere Keras normalises in float32.
    ("keras-jax", "float64"): {"exact": f"{KERAS}Dense", "swish": f"{KERAS}Dense"},
    ("keras-torch", "float64"): {},
}


@pytest.mark.parametrize(
    ("backend", "dtype"),
    sampled(
        OWN,
        [
            *(("torch", "float64"), ("jax", "float32"), ("jax", "float16"), ("keras", "float32")),
            *(("keras-torch", "float32"), ("keras-jax", "float32")),
        ],
    ),
)
def test_what_a_framework_has_agrees_with_the_equations(
    backend: str, dtype: str, tmp_path: Path
) -> None:
    path = tmp_path / "normalised.yaml"
    path.write_text(MODEL, encoding="utf-8")
    checks = ["values", "cotangents", "training"]
    report = harness.check(path, backend, dtypes=dtype, checks=checks)
    (result,) = report.results
    assert report.exit_code == 0, str(report)
    layers = {name: result.layers[name] for name in OWN["torch", "float64"]}
    own = {name: label for name, label in layers.items() if label != "equations"}
    assert own == OWN[backend, dtype]


@pytest.mark.thorough
@pytest.mark.slow
def test_where_float16_ends_and_which_class_is_the_likeliest_is_nobodys_fault() -> None:
    need("torch")
    checks = ["partial-batch", "extremes"]
    report = harness.check("gpt", "torch", dtypes=["bfloat16", "float16"], checks=checks)
    assert report.exit_code == 0, str(report)
