"""The first wrong module of a user's model: which it is, and what is said when there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from users_models import checked, model_file
from wording import Wording

from harness.checking.own_model.spec_values import arrangements
from harness.results.cell import CellResult
from harness.runtime.own_model.service import OwnModelService

SPEC = """\
model: small_gpt
summary: A decoder of two blocks.
source: A test.
sizes: {vocab: 11, heads: 2, head: 4, wide: 24, depth: 2, context: 9}
inputs:
  chars: {shape: [batch, time], index: vocab}
layers:
  embed: {layer: embedding, rows: vocab, units: heads * head}
  place: {layer: learned_positions, context: context}
  blocks: {layer: gpt_block, repeat: depth, heads: heads, head: head, wide: wide}
  norm: {layer: layer_norm}
  out: {layer: dense, units: vocab}
equations: logits = out(norm(blocks(place(embed(chars)))))
"""
NET = """\
import torch
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention


class Attention(nn.Module):
    scale = None
    causal = True

    def __init__(self, heads, width):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        b, t, w = x.shape
        q, k, v = (
            part.reshape(b, t, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)
        )
        y = scaled_dot_product_attention(q, k, v, is_causal=self.causal, scale=self.scale)
        return self.out(y.transpose(1, 2).reshape(b, t, w))


class Block(nn.Module):
    def __init__(self, heads, width, wide):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(heads, width)
        self.up, self.down = nn.Linear(width, wide), nn.Linear(wide, width)

    def act(self, x):
        return gelu(x, approximate="tanh")

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.down(self.act(self.up(self.ln_2(x))))


class Net(nn.Module):
    block = Block

    def __init__(self, vocab=11, heads=2, head=4, wide=24, depth=2, context=9):
        super().__init__()
        width = heads * head
        self.emb, self.pos = nn.Embedding(vocab, width), nn.Embedding(context, width)
        self.drop = nn.Dropout(0.1)
        self.h = nn.ModuleList([self.block(heads, width, wide) for _ in range(depth)])
        self.ln_f = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab)
        self.plant()

    def plant(self):
        pass

    def start(self, x):
        return self.drop(self.emb(x) + self.pos(torch.arange(x.shape[1])))

    def end(self, x):
        return self.head(self.ln_f(x))

    def forward(self, x):
        x = self.start(x)
        for block in self.h:
            x = block(x)
        return self.end(x)


class NoMask(Net):
    def plant(self):
        self.h[1].attn.causal = False


class Scaled(Net):
    def plant(self):
        self.h[1].attn.scale = 0.2


class Late(Net):
    def start(self, x):
        return self.emb(x) + self.pos(torch.arange(1, x.shape[1] + 1) % len(self.pos.weight))


class Doubled(Net):
    def start(self, x):
        return 2 * super().start(x)


class NoNorm(Net):
    def end(self, x):
        return self.head(x)


class PostBlock(Block):
    def forward(self, x):
        x = self.ln_1(x + self.attn(x))
        return self.ln_2(x + self.down(self.act(self.up(x))))


class Post(Net):
    block = PostBlock


class ReluBlock(Block):
    def act(self, x):
        return torch.relu(x) ** 2


class Relu(Net):
    block = ReluBlock


class Halved(Net):
    def end(self, x):
        return super().end(x) / 2


class First(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.transpose(1, 2).transpose(1, 2).flip(1)).flip(1) + x.mean()


class Shifted(Net):
    def plant(self):
        self.h[0].ln_2.__class__ = First
"""
RULES = [
    "embed=emb",
    "place.table=pos.weight",
    "blocks.*.norm_1=h.*.ln_1",
    "blocks.*.norm_2=h.*.ln_2",
    "blocks.*.attend.in_proj_weight=h.*.attn.qkv.weight",
    "blocks.*.attend.in_proj_bias=h.*.attn.qkv.bias",
    "blocks.*.attend.out_proj=h.*.attn.out",
    "blocks.*.up=h.*.up",
    "blocks.*.down=h.*.down",
    "norm=ln_f",
    "out=head",
]


def compared(service: OwnModelService, folder: Path, name: str, dtype: str) -> CellResult:
    spec, file = model_file(folder, SPEC, "small_gpt.yaml"), model_file(folder, NET)
    only = ("inference",)
    return checked(service, spec, f"{file}:{name}", dtype, maps=RULES, checks=only)


def test_a_right_model_agrees(torch_service: OwnModelService, tmp_path: Path) -> None:
    assert compared(torch_service, tmp_path, "Net", "float64").verdict == "agree"


# The planted mistake -> the layer of the spec that is named, and texts with the module.
PLANTED = {
    "NoMask": ("blocks.1.attend", "h.1.attn (spec: blocks.1.attend)"),
    "Scaled": ("blocks.1.attend", "h.1.attn (spec: blocks.1.attend) ... from time step 1 on"),
    "Late": ("place", "pos (spec: place)"),
    "Doubled": ("blocks.0.norm_1", "drop ... h.0.ln_1 (spec: blocks.0.norm_1)"),
    "NoNorm": ("out", "never calls ln_f (spec: norm)"),
    "Post": ("blocks.0.attend", "drop ... h.0.attn (spec: blocks.0.attend) ... place ... norm_1"),
    "Relu": ("blocks.0.down", "h.0.up ... h.0.down (spec: blocks.0.down)"),
    "Halved": ("", "head"),
    "Shifted": ("blocks.0.norm_2", "h.0.ln_2 (spec: blocks.0.norm_2)"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_the_first_wrong_module_is_named(
    torch_service: OwnModelService, tmp_path: Path, name: str, wording: Wording
) -> None:
    layer, words = PLANTED[name]
    dtype = "float32" if name == "Scaled" else "float64"
    result = compared(torch_service, tmp_path, name, dtype)
    assert result.verdict == "differ"
    assert list(result.wrong_layers)[:1] == [layer] * bool(layer), result.location
    wording.line(result.location, words)


POOLED = """\
model: pooled
summary: A layer without weights.
source: A test.
sizes: {channels: 3, units: 5}
inputs:
  image: {shape: [batch, 6, 6, channels]}
layers:
  conv: {layer: conv2d, units: units, kernel: 3}
  pool: {layer: max_pool, window: 2, stride: 2}
  out: {layer: dense, units: units}
equations: y = out(mean(pool(conv(image)), axis=[1, 2]))
"""
POOLING = """\
from torch import nn


class Net(nn.Module):
    def __init__(self, channels=3, units=5):
        super().__init__()
        self.conv = nn.Conv2d(channels, units, 3)
        self.p = POOL
        self.out = nn.Linear(units, units)

    def forward(self, image):
        return self.out(self.p(self.conv(image.permute(0, 3, 1, 2))).mean((2, 3)))
"""


def test_the_rows_and_columns_of_a_square_image_are_told_apart(
    torch_service: OwnModelService, tmp_path: Path, wording: Wording
) -> None:
    spec = model_file(tmp_path, POOLED, "pooled.yaml")
    source = POOLING.replace("POOL", "nn.MaxPool2d(2)").replace("(0, 3, 1, 2)", "(0, 3, 2, 1)")
    rules = ["conv.W=conv.weight.transpose(2, 3, 1, 0)", "conv.b=conv.bias"]
    model = f"{model_file(tmp_path, source)}:Net"
    result = checked(torch_service, spec, model, "float64", maps=rules)
    wording.line(result.location, "before conv")


@pytest.mark.parametrize(
    ("shape", "wanted", "order"),
    [
        ((2, 5, 4, 4), (2, 4, 4, 5), (0, 2, 3, 1)),
        ((2, 4, 4, 4), (2, 4, 4, 4), (0, 2, 3, 1)),
        ((4, 3, 5), (3, 4, 5), (1, 0, 2)),
        ((1, 6, 3, 2), (2, 3, 6), (3, 2, 1)),
        ((2, 3, 4, 5), (2, 3, 20), None),
    ],
)
def test_usual_orders_of_axes(
    shape: tuple[int, ...], wanted: tuple[int, ...], order: tuple[int, ...] | None
) -> None:
    array = np.random.default_rng(0).normal(size=shape)
    turned = array if order is None else np.transpose(array.reshape(shape), _whole(order, shape))
    expected = turned.reshape(wanted)
    assert any(np.array_equal(each, expected) for each in arrangements(array, wanted))


def _whole(order: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The order, with the axes that it leaves out in front."""
    return (*(axis for axis in range(len(shape)) if axis not in order), *order)


def test_a_rule_names_the_module_of_a_layer_without_weights(
    torch_service: OwnModelService, tmp_path: Path, wording: Wording
) -> None:
    """Channels are the second axis in the model, and the last in the spec."""
    spec = model_file(tmp_path, POOLED, "pooled.yaml")
    rules = ["conv.W=conv.weight.transpose(2, 3, 1, 0)", "conv.b=conv.bias"]
    for pool, agrees in (("nn.MaxPool2d(2)", True), ("nn.AvgPool2d(2)", False)):
        name = "right.py" if agrees else "wrong.py"
        model = f"{model_file(tmp_path, POOLING.replace('POOL', pool), name)}:Net"
        by_weights = checked(torch_service, spec, model, "float64", maps=rules)
        by_name = checked(torch_service, spec, model, "float64", maps=[*rules, "pool=p"])
        assert (by_name.verdict == "agree") is (by_weights.verdict == "agree") is agrees
    wording.line(by_weights.location, "conv (right) ... p:")
    wording.line(by_name.location, "wrong module: p (spec: pool)")


LOOPED = """\
model: looped
summary: A recurrent layer.
source: A test.
sizes: {features: 3, units: 5}
inputs:
  x: {shape: [batch, time, features]}
layers:
  rnn: {layer: lstm, units: units}
  out: {layer: dense, units: units}
equations: y = out(rnn(x))
"""
LOOP = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, features=3, units=5):
        super().__init__()
        self.cell = nn.LSTMCell(features, units)
        self.out = nn.Linear(units, units)

    def forward(self, x):
        state, states = None, []
        for step in x.unbind(1):
            state = self.cell(step, state)
            states.append(state[0])
            state = self.between(*state)
        return self.out(torch.stack(states, 1))

    def between(self, h, c):
        return h, c


class Mixed(Net):
    def between(self, h, c):
        return h, c.tanh()
"""


def test_a_module_that_is_called_in_each_time_step_is_compared(
    torch_service: OwnModelService, tmp_path: Path, wording: Wording
) -> None:
    spec, file = model_file(tmp_path, LOOPED, "looped.yaml"), model_file(tmp_path, LOOP)
    rules = [f"rnn.{n}_l0=cell.{n}" for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    assert checked(torch_service, spec, f"{file}:Net", "float64", maps=rules).verdict == "agree"
    result = checked(torch_service, spec, f"{file}:Mixed", "float64", maps=rules)
    wording.line(result.location, "cell ... step 1")
