"""Convolutions and pools that torch and JAX run as their own equal their definitions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from image_model import IMAGES
from needed import need
from two_paths import by_oracle, draw, worst

import harness
from harness.language.model import load_spec
from harness.runtime.backend import Backend
from harness.runtime.plugins import load
from harness.runtime.session import make_session

CONVOLUTION = "jax.lax.conv_general_dilated"
LABELS = {
    "torch": {
        "conv": "torch.nn.functional.conv2d, torch.tanh",
        "top": "equations",
        **dict.fromkeys(("deep", "tall", "near"), "torch.nn.functional.conv2d"),
        "even": "torch.nn.functional.avg_pool2d",
        "inner": "equations",  # torch's padding same would need the length
        "most": "torch.nn.functional.max_pool2d",
        "up": "torch.nn.functional.conv_transpose2d",
        "line": "torch.nn.functional.conv1d, torch.relu",
    },
    "jax": {
        **dict.fromkeys(("conv", "deep", "tall", "near", "up", "line"), CONVOLUTION),
        "top": "equations",
        **dict.fromkeys(("even", "most", "inner"), "jax.lax.reduce_window"),
    },
}
# Options that matter to each layer in another way.
OTHER = (
    (
        "kernel: 3, padding: 1, stride: 2, activation: tanh",
        "kernel: 3, stride: 1, activation: relu",
    ),
    (
        "units: 8, groups: 4, kernel: 2, dilation: 2, padding: 1",
        "units: 4, groups: 4, kernel: 3, padding: 2",
    ),
    ("window: 2, stride: 1", "window: 3, stride: 1, padding: 1"),
    ("units: 2, kernel: 3, stride: 2, padding: 1", "units: 2, kernel: 2, stride: 3, dilation: 2"),
    (
        "kernel: 2, activation: relu",
        "kernel: 3, stride: 1, dilation: 2, padding: 1, activation: tanh",
    ),
)


@pytest.fixture(scope="module", params=LABELS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    need(request.param)
    if request.param == "torch":
        yield load("torch")
        return
    from jax_config import kept_config

    with kept_config():
        yield load("jax")


@pytest.mark.parametrize("changed", [False, True])
def test_a_claimed_layer_is_the_definition(backend: Backend, changed: bool) -> None:
    text = IMAGES
    for old, new in OTHER if changed else ():
        assert old in text
        text = text.replace(old, new)
    spec, free = load_spec("images", overrides={("model", "images"): text}), {"batch": 3}
    program = spec.program()
    given = draw(program, free)
    backend.use("cpu", "float64")
    inference = spec.program("inference")
    session = make_session(
        backend, program, inference, path="native", dtype="float64", rule=spec.update
    )
    session.load(given["parameters"], given["statistics"])
    results, gradients = session.gradients(
        "training", given["inputs"], given["state"], given["targets"]
    )
    wanted = by_oracle(program, given, free)
    found = {n: a for n, a in {**results, **gradients}.items() if n in wanted}
    assert len(found) > 12
    assert worst(found, wanted) < 1e-13
    paths = session.paths()
    activation = {"conv": ("tanh", "relu"), "line": ("relu", "tanh")} if changed else {}
    for layer, label in LABELS[backend.name].items():
        assert paths[layer] == label.replace(*activation.get(layer, ("", "")))


STRIDED = """model: strided
summary: A 1x1 kernel with a stride.
source: own
inputs: {x: {shape: [batch, 16, 16, 8]}}
layers:
  conv: {layer: conv2d, units: 16, kernel: 1, stride: 2, bias: false}
equations: y = mean(conv(x), axis=[1, 2])
targets: {target: {shape: [batch], index: 16}}
loss: mean(sparse_cross_entropy(y, target))
optimizer: {optimizer: sgd, learning_rate: 0.01}
"""


@pytest.mark.parametrize("name", ["torch", "keras", "keras-torch"])
def test_a_strided_1x1_kernel_does_not_damage_memory(name: str, tmp_path: Path) -> None:
    """With this image and an odd batch, the gradient of torch and of TensorFlow ended the process
    on CPUs with AVX-512."""
    need("torch", "keras")
    spec = tmp_path / "strided.yaml"
    spec.write_text(STRIDED)
    report = harness.check(spec, name, dtypes="float32")
    assert {result.verdict for result in report.results} == {"agree"}, str(report)


@pytest.mark.parametrize(
    ("layer", "channels", "units"), [("conv2d", 8, 1), ("conv2d_transpose", 1, 2)]
)
def test_a_convolution_with_one_channel_has_a_gradient(
    layer: str, channels: int, units: int, tmp_path: Path
) -> None:
    """Keras' own layer raises an error on torch."""
    need("torch", "keras")
    spec = tmp_path / "strided.yaml"
    text = STRIDED.replace("16, 16, 8]", f"16, 16, {channels}]").replace("conv2d", layer)
    text = text.replace("units: 16, kernel: 1, stride: 2", f"units: {units}, kernel: 3").replace(
        ", bias: false", ""
    )
    spec.write_text(text.replace("index: 16", f"index: {units}"))
    report = harness.check(spec, "keras-torch", dtypes="float64", checks=("gradients",))
    assert {result.verdict for result in report.results} == {"agree"}, str(report)
