"""The resnet18 of torchvision: its spec has answers, although a maximum pads with -inf."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from users_models import LocalWorker, model_file

from harness.checking.known_differences import Differences
from harness.checking.own_model.against import parse_against
from harness.checking.own_model.run import UsersModel
from harness.checking.request import Request, make_case
from harness.checking.run_cell import CellRun
from harness.language.model import Spec, load_spec
from harness.oracle.tolerance import VOID, K
from harness.results.cell import Cell
from harness.runtime.own_model.service import OwnModelService

SPEC = """\
model: resnet18
summary: What is on an image, by torchvision's resnet18.
source: torchvision.models.resnet18.
sizes: {part: 1, width: 64, classes: 10}
inputs:
  image: {shape: [batch, 32 * part, 32 * part, 3]}
layers:
  conv: {layer: conv2d, bias: false, units: width, kernel: 7, padding: 3, stride: 2}
  norm: {layer: batch_norm, momentum: 0.9, epsilon: 1.0e-5}
  pool: {layer: max_pool_first, window: 3, stride: 2, padding: 1}
  one: {layer: tv_block, repeat: 2}
  down_2: {layer: tv_block_down, units: 2 * width}
  two: {layer: tv_block}
  down_3: {layer: tv_block_down, units: 4 * width}
  three: {layer: tv_block}
  down_4: {layer: tv_block_down, units: 8 * width}
  four: {layer: tv_block}
  out: {layer: dense, units: classes}
equations: |
  maps = one(pool(relu(norm(conv(image)))))
  deep = four(down_4(three(down_3(two(down_2(maps))))))
  logits = out(mean(deep, axis=[1, 2]))
"""
BLOCK = """\
layer: tv_block
summary: Two convolutions inside a residual connection.
source: torchvision.
inputs:
  x: [batch, rows, columns, channels]
layers:
  conv_1: {layer: conv2d, bias: false, units: channels, kernel: 3, padding: 1}
  norm_1: {layer: batch_norm, momentum: 0.9, epsilon: 1.0e-5}
  conv_2: {layer: conv2d, bias: false, units: channels, kernel: 3, padding: 1}
  norm_2: {layer: batch_norm, momentum: 0.9, epsilon: 1.0e-5}
equations: |
  h = relu(norm_1(conv_1(x)))
  y = relu(x + norm_2(conv_2(h)))
output: y
"""
DOWN = """\
layer: tv_block_down
summary: A `tv_block` with stride 2.
source: torchvision.
inputs:
  x: [batch, rows, columns, channels]
attributes: {units: size}
layers:
  conv_1: {layer: conv2d, bias: false, units: units, kernel: 3, padding: 1, stride: 2}
  norm_1: {layer: batch_norm, momentum: 0.9, epsilon: 1.0e-5}
  conv_2: {layer: conv2d, bias: false, units: units, kernel: 3, padding: 1}
  norm_2: {layer: batch_norm, momentum: 0.9, epsilon: 1.0e-5}
  short: {layer: conv2d, bias: false, units: units, kernel: 1, stride: 2}
  norm_3: {layer: batch_norm, momentum: 0.9, epsilon: 1.0e-5}
equations: |
  h = relu(norm_1(conv_1(x)))
  y = relu(norm_3(short(x)) + norm_2(conv_2(h)))
output: y
"""
SOURCE = """\
from torch import nn
from torchvision.models import resnet18


class Resnet18(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = resnet18(num_classes=10)

    def forward(self, image):
        return self.net(image.permute(0, 3, 1, 2))
"""
# The names of torchvision's modules: STAGES[name of the spec] is a layer with its two parts.
STAGES = {"two": "layer2.1", "three": "layer3.1", "four": "layer4.1"}
RULES = (
    "conv=net.conv1",
    "norm=net.bn1",
    "out=net.fc",
    "down_*.short=net.layer*.0.downsample.0",
    "down_*.norm_3=net.layer*.0.downsample.1",
    *(f"{part}_{n}={theirs}{n}" for part, theirs in (("one.*.conv", "net.layer1.*.conv"),
      ("one.*.norm", "net.layer1.*.bn"), ("down_*.conv", "net.layer*.0.conv"),
      ("down_*.norm", "net.layer*.0.bn")) for n in (1, 2)),
    *(f"{name}.{part}_{n}=net.{layer}.{theirs}{n}" for name, layer in STAGES.items()
      for part, theirs in (("conv", "conv"), ("norm", "bn")) for n in (1, 2)),
)  # fmt: skip


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    folder = tmp_path_factory.mktemp("resnet18")
    (folder / "layers").mkdir()
    model_file(folder / "layers", BLOCK, "tv_block.yaml")
    model_file(folder / "layers", DOWN, "tv_block_down.yaml")
    return load_spec(str(model_file(folder, SPEC, "resnet18.yaml")), (folder,))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_maximum_that_pads_with_infinity_has_an_answer(resnet18: Spec, dtype: str) -> None:
    """All gaps are small beside an infinite operand, so each comparison was taken for a kink."""
    request = Request(specs=("resnet18",), sizes={"width": 4})
    case = make_case(resnet18, request, own=True)
    along = case.cotangents
    noise = case.gradients(case.material, "main", along).noise(dtype)
    assert noise["gradient.conv.W"] > 0
    assert K * max(noise.values()) < VOID


@pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed")
def test_torchvision_agrees(resnet18: Spec, tmp_path: Path, torch_service: OwnModelService) -> None:
    file = model_file(tmp_path, SOURCE)
    own = parse_against(f"{file}:Resnet18", ("torch",), RULES, (), ("logits",))
    case = make_case(resnet18, Request(specs=("resnet18",), against=own), own=True)
    for dtype in ("float64", "float32"):
        cell = Cell("resnet18", own.column, "cpu", dtype, "native")
        worker = LocalWorker(torch_service)
        run = CellRun(cell, case, case, worker, Differences(), UsersModel(own))  # type: ignore[arg-type]
        found = {f.check: f.verdict for f in run.run().findings}
        # torch updates the moving variance with the sample variance.
        assert found.pop("statistics") == "differ"
        assert set(found.values()) == {"agree"}, found
