"""What is said of a user's model that a check at ordinary numbers does not tell, and of names."""

from __future__ import annotations

from pathlib import Path

import pytest
from users_models import checked, model_file
from wording import Wording

from harness.checking.runner import Report
from harness.errors import UsageError
from harness.language.model import load_spec
from harness.runtime.native import Native
from harness.runtime.own_model.contract import ModelArray
from harness.runtime.own_model.matching import Sides, find_weights
from harness.runtime.own_model.renames import read_rules
from harness.runtime.own_model.service import OwnModelService
from harness.runtime.packing import Packing, Part
from harness.runtime.plugins import load

HEAD = "summary: One of a test.\nsource: A test.\n"
# To be formatted with the first layer, how many units the last one has, and the equation.
TWO_LAYERS = f"""\
model: two
{HEAD}sizes: {{{{features: 5}}}}
inputs:
  x: {{{{shape: [batch, features]}}}}
layers:
  first: {{}}
  out: {{{{layer: dense, units: {{}}}}}}
equations: |
  {{}}
"""
DENSE = "{layer: dense, units: features}"
CUT = TWO_LAYERS.format(DENSE, 4, "logits = out(minimum(relu(first(x)), 6))")
GATE = "logits = out(hard_sigmoid_sixth(first(x)))"
CUTS = """\
import torch
from torch import nn


class Cut(nn.Module):
    act = nn.ReLU6()

    def __init__(self, features=5, classes=4):
        super().__init__()
        self.first = nn.Linear(features, features)
        self.out = nn.Linear(features, classes)

    def forward(self, x):
        return self.out(self.act(self.first(x)))


class Whole(Cut):
    act = nn.ReLU()


class Chances(Cut):
    def forward(self, x):
        return super().forward(x).softmax(-1)


class Narrow(Cut):
    def forward(self, x):
        return super().forward(x).float().double()


class NarrowWhole(Whole):
    def forward(self, x):
        return super().forward(x).float().double() * (1 + 1e-5)


class Slightly(Cut):
    def forward(self, x):
        return super().forward(x) * (1 + 1e-7)


class Gate(Cut):
    act = nn.Hardsigmoid()
"""


@pytest.mark.parametrize(
    ("name", "check", "words"),
    [
        ("Whole", "saturation", "outputs"),
        ("Chances", "inference", "softmax(logits)"),
    ],
)
def test_what_else_a_model_computes_is_told(
    torch_service: OwnModelService,
    tmp_path: Path,
    name: str,
    check: str,
    words: str,
    wording: Wording,
) -> None:
    spec, file = model_file(tmp_path, CUT, "cut.yaml"), model_file(tmp_path, CUTS)
    right = checked(torch_service, spec, f"{file}:Cut", "float64")
    assert {f.verdict for f in right.findings} == {"agree"}
    result = checked(torch_service, spec, f"{file}:{name}", "float64")
    assert next(f.check for f in result.findings if f.verdict == "differ") == check
    wording.line(result.location, words)


def test_a_model_that_computes_in_float32_agrees_to_its_precision(
    torch_service: OwnModelService, tmp_path: Path, wording: Wording
) -> None:
    spec, file = model_file(tmp_path, CUT, "cut.yaml"), model_file(tmp_path, CUTS)
    result = checked(torch_service, spec, f"{file}:Narrow", "float64")
    assert result.verdict == "float32-precision"
    assert Report([result]).exit_code == 0
    line = CUTS.split("class Narrow")[0].count("\n") + 3
    excuses = {f.excuse for f in result.findings if f.verdict == "float32-precision"}
    wording(excuses, f"model.py:{line}")


def test_the_derivative_of_a_hard_sigmoid_in_torch_has_the_precision_of_float32(
    torch_service: OwnModelService, tmp_path: Path
) -> None:
    spec = model_file(tmp_path, TWO_LAYERS.format(DENSE, 4, GATE), "gate.yaml")
    file = model_file(tmp_path, CUTS)
    result = checked(torch_service, spec, f"{file}:Gate", "float64")
    assert result.verdict == "float32-precision"
    assert {f.check for f in result.findings if f.excuse} == {"cotangent-gradients"}


@pytest.mark.parametrize("name", ["NarrowWhole", "Slightly"])
def test_a_fault_is_no_rounding_of_float32(
    torch_service: OwnModelService, tmp_path: Path, name: str
) -> None:
    """A fault beside float32 exceeds its rounding; without float32, its rounding excuses none."""
    spec, file = model_file(tmp_path, CUT, "cut.yaml"), model_file(tmp_path, CUTS)
    result = checked(torch_service, spec, f"{file}:{name}", "float64")
    assert next(f.check for f in result.findings if f.verdict == "differ") == "inference"


def test_a_jax_function_that_computes_in_float32(tmp_path: Path) -> None:
    source = """\
import jax
import jax.numpy as jnp


@jax.jit
def cut(params, x):
    first, out = params["first"], params["out"]
    h = x.astype(jnp.float32) @ first["W"].astype(jnp.float32) + first["b"].astype(jnp.float32)
    return jnp.clip(h, 0, 6).astype(x.dtype) @ out["W"] + out["b"]
"""
    spec, file = model_file(tmp_path, CUT, "cut.yaml"), model_file(tmp_path, source)
    service = OwnModelService("jax", load("jax"))
    result = checked(service, spec, f"{file}:cut", "float64")
    assert result.verdict == "float32-precision"
    excuse = next(f.excuse for f in result.findings if f.excuse)
    assert "model.py:8" in excuse


CURVED = TWO_LAYERS.format(DENSE, "features", "y = out(ACTIVATION)")
CURVES = """\
from torch import nn


def net(features):
    return nn.Sequential(nn.Linear(features, features), nn.GELU(), nn.Linear(features, features))
"""


@pytest.mark.parametrize("written", ["gelu_tanh(first(x))", "relu(first(x))"])
def test_a_function_that_is_taken_for_another_is_named(
    torch_service: OwnModelService, tmp_path: Path, written: str, wording: Wording
) -> None:
    file, maps = model_file(tmp_path, CURVES), ["first=0", "out=2"]
    spec = model_file(tmp_path, CURVED.replace("ACTIVATION", "gelu(first(x))"), "right.yaml")
    assert checked(torch_service, spec, f"{file}:net", "float64", maps=maps).verdict == "agree"
    spec = model_file(tmp_path, CURVED.replace("ACTIVATION", written), "curved.yaml")
    result = checked(torch_service, spec, f"{file}:net", "float64", maps=maps)
    wording.line(result.location, f"{written.partition('(')[0]}")


def test_a_function_with_an_attribute_that_others_lack_is_no_fault(
    torch_service: OwnModelService, tmp_path: Path
) -> None:
    file, maps = model_file(tmp_path, CURVES), ["first=0", "out=2"]
    written = "leaky_relu(first(x), slope=0.2)"
    spec = model_file(tmp_path, CURVED.replace("ACTIVATION", written), "curved.yaml")
    result = checked(torch_service, spec, f"{file}:net", "float64", maps=maps)
    assert result.verdict == "differ"
    assert "The result is right if" not in result.location


NORMED = TWO_LAYERS.format("{layer: batch_norm, momentum: 0.9}", 2, "y = out(first(x))")
NORMS = """\
import torch
from torch import nn


class Biased(nn.BatchNorm1d):
    def forward(self, x):
        if not self.training:
            return super().forward(x)
        mean, variance = x.mean(0), x.var(0, unbiased=False)
        self.running_mean.lerp_(mean.detach(), self.momentum)
        self.running_var.lerp_(variance.detach(), self.momentum)
        return (x - mean) / (variance + self.eps).sqrt() * self.weight + self.bias


class Net(nn.Module):
    def __init__(self, features, kind=Biased, momentum=0.1):
        super().__init__()
        self.bn = kind(features, eps=1e-3, momentum=momentum)
        self.out = nn.Linear(features, 2)

    def forward(self, x):
        return self.out(self.bn(x))


def unbiased(features):
    return Net(features, nn.BatchNorm1d)


def slow(features):
    return Net(features, momentum=0.03)


def both(features):
    return Net(features, nn.BatchNorm1d, 0.03)


class Lost(Biased):
    def forward(self, x):
        y = super().forward(x)
        if self.training:
            self.running_mean.fill_(float("nan"))
        return y


def lost(features):
    return Net(features, Lost)
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unbiased", "with the sample variance, which is n / (n - 1) times"),
        ("slow", "The result is right if momentum of first is 0.97 instead of the spec's 0.9"),
        ("both", ""),
        ("lost", ""),
    ],
)
def test_statistics_that_move_otherwise_are_explained(
    torch_service: OwnModelService, tmp_path: Path, name: str, words: str
) -> None:
    """A rule for the layer takes torch's buffers along, by their names."""
    spec, file = model_file(tmp_path, NORMED, "normed.yaml"), model_file(tmp_path, NORMS)
    right = checked(torch_service, spec, f"{file}:Net", "float64", maps=["first=bn"])
    assert {f.verdict for f in right.findings} == {"agree"}
    result = checked(torch_service, spec, f"{file}:{name}", "float64", maps=["first=bn"])
    assert [f.check for f in result.findings if f.verdict == "differ"] == ["statistics"]
    assert words in result.location
    assert bool(words) == (". " in result.location)


LENGTHS = f"""\
model: lengths
{HEAD}sizes: {{features: 5}}
inputs:
  x: {{shape: [batch, time, features]}}
  lengths: {{shape: [batch], at_most: time}}
layers:
  out: {{layer: dense, units: 2}}
equations: |
  inside = arange(time)[None, :] < lengths[:, None]
  y = out(sum(x * astype(inside)[..., None], axis=1) / maximum(astype(lengths), 1)[:, None])
"""
DIVIDES = """\
import torch
from torch import nn


class Mean(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.out = nn.Linear(features, 2)

    def forward(self, x, lengths):
        inside = torch.arange(x.shape[1])[None] < lengths[:, None]
        return self.out((x * inside[..., None]).sum(1) / lengths[:, None])
"""


def test_rows_that_alone_are_wrong_are_named(
    torch_service: OwnModelService, tmp_path: Path, wording: Wording
) -> None:
    spec, file = model_file(tmp_path, LENGTHS, "lengths.yaml"), model_file(tmp_path, DIVIDES)
    result = checked(torch_service, spec, f"{file}:Mean", "float64", returns=["y"])
    wording.line(result.location, "0")


ATTENDS = f"""\
model: attends
{HEAD}sizes: {{features: 5}}
inputs:
  x: {{shape: [batch, time, features]}}
  lengths: {{shape: [batch], at_most: time}}
layers:
  score: {{layer: dense, units: 1}}
equations: |
  inside = arange(time)[None, :] < lengths[:, None]
  y = sum(softmax(where(inside, score(x)[:, :, 0], -1.0e30))[:, :, None] * x, axis=1)
"""
ADDS = """\
import torch
from torch import nn


class Adds(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.score = nn.Linear(features, 1)

    def forward(self, x, lengths):
        inside = torch.arange(x.shape[1])[None] < lengths[:, None]
        masked = (~inside).double() * -1e30
        return ((self.scores(x) + masked).softmax(-1)[..., None] * x).sum(1)

    def scores(self, x):
        return self.score(x)[..., 0]


class Detached(Adds):
    def scores(self, x):
        return super().scores(x.detach())
"""


def test_a_mask_that_is_added_is_told_by_rows_of_length_0(
    torch_service: OwnModelService, tmp_path: Path, wording: Wording
) -> None:
    """The large number absorbs the scores, but their gradients remain."""
    spec, file = model_file(tmp_path, ATTENDS, "attends.yaml"), model_file(tmp_path, ADDS)
    result = checked(torch_service, spec, f"{file}:Adds", "float64", returns=["y"])
    assert [f.check for f in result.findings if f.verdict == "differ"] == ["cotangent-gradients"]
    wording.line(result.location, "score.W ... rows of length 0")
    result = checked(torch_service, spec, f"{file}:Detached", "float64", returns=["y"])
    assert "length 0" not in result.location


@pytest.mark.parametrize(
    ("theirs", "rule"),
    [
        ((4, 2, 3, 3), "'wide.W=conv.weight.transpose(2, 3, 1, 0)'"),
        ((3, 3, 2, 4), "wide.W=conv.weight"),
    ],
)
def test_a_kernel_with_its_channels_first_is_told_by_its_axes(
    tmp_path: Path, theirs: tuple[int, ...], rule: str, wording: Wording
) -> None:
    """``.T`` fits a square one, and exchanges its rows and columns."""
    layer = "layers:\n  wide: {layer: conv2d, bias: false, units: 4, kernel: 3}\n"
    shape = "inputs:\n  image: {shape: [batch, 6, 6, 2]}\n"
    text = f"model: image\n{HEAD}{shape}{layer}equations: |\n  y = wide(image)\n"
    program = load_spec(str(model_file(tmp_path, text, "image.yaml"))).program("inference")
    entries = {"conv.weight": ModelArray(theirs, True), "mask": ModelArray((7,), False)}
    with pytest.raises(UsageError) as caught:
        find_weights(Sides(program, {}, entries, (), {}))
    wording.line(caught.value, f"--map {rule}")


def test_a_layer_with_rules_does_not_take_the_tensors_of_a_layer_with_its_name(
    tmp_path: Path,
) -> None:
    """A module has its own ``norm``, and an inner module has one too."""
    norms = "{norm: {layer: layer_norm}, norm_2: {layer: layer_norm}}"
    text = f"model: norms\n{HEAD}inputs: {{x: {{shape: [batch, 5]}}}}\nlayers: {norms}\n"
    path = model_file(tmp_path, f"{text}equations: |\n  y = norm_2(norm(x))\n", "norms.yaml")
    program = load_spec(str(path)).program("inference")
    owners = {"norm": "inner.norm", "norm_2": "norm"}
    ours = {"gamma": "weight", "beta": "bias"}
    rules = {f"{o}.{n}": f"{t}.{ours[n]}" for o, t in owners.items() for n in ours}
    entries = {name: ModelArray((5,), True) for name in rules.values()}
    packing = Packing({theirs: Part(name) for name, theirs in ours.items()})
    natives = {name: Native("", lambda _, __: (), packing) for name in owners}
    read = read_rules(f"{name} = {theirs}" for name, theirs in rules.items())
    assert find_weights(Sides(program, natives, entries, read, {})).described() == rules


def test_layers_of_both_directions_are_known_by_their_own_name() -> None:
    """Keras calls what is in them ``forward_lstm``, ``forward_lstm_1`` and so on."""
    from harness.backends.keras.own_model import KerasModel

    backend = load("keras")
    keras = backend.keras
    x = keras.Input((None, 3))
    y = x
    for name in ("low", "high"):
        lstm = keras.layers.LSTM(4, return_sequences=True)
        y = keras.layers.Bidirectional(lstm, name=name)(y)
    names = KerasModel(keras.Model(x, y), backend).entries()
    assert set(names) == {
        f"{layer}.{way}.{variable}"
        for layer in ("low", "high")
        for way in ("forward", "backward")
        for variable in ("kernel", "recurrent_kernel", "bias")
    }
