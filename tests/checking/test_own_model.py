"""``harness check SPEC --against MODEL``: what agrees, what differs and where, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sampling import sampled
from users_models import GRU, NET, RULES, checked, model_file
from wording import Wording

from harness.checking.report import find_places
from harness.checking.request import Request
from harness.errors import UsageError
from harness.given.make_request import apply_own_model
from harness.language.library import Library
from harness.language.model import ModelCollection
from harness.runtime.own_model.service import OwnModelService

TWO_NORMS = """model: two
summary: Two norms.
source: A test.
sizes: {features: 6}
inputs:
  x: {shape: [batch, features]}
layers:
  after: {layer: layer_norm, epsilon: 1.0e-3}
  between: {layer: dense, units: features}
  before: {layer: layer_norm, epsilon: 1.0e-5}
equations: |
  y = after(between(before(x)))
"""
CHECKS = ["repeatability", "inference", "cotangent-gradients", "saturation", "corners", "shapes"]


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return model_file(tmp_path, GRU, "gru_lm.yaml")


def verdicts(result) -> dict[str, str]:
    return {f.check: f.verdict for f in result.findings}


@pytest.mark.parametrize("dtype", sampled(("float64", "float32"), ["float64"]))
def test_a_right_model_agrees(
    torch_service: OwnModelService, spec: Path, tmp_path: Path, dtype: str
) -> None:
    file = model_file(tmp_path, NET)
    result = checked(torch_service, spec, f"{file}:Net", dtype, maps=RULES)
    assert verdicts(result) == dict.fromkeys(CHECKS, "agree")
    # A report prints a command that asks for each finding by its name.
    request = Request(specs=(str(spec),), checks=tuple(verdicts(result)))
    apply_own_model(request, {"against": f"{file}:Net"})
    gradients = next(f for f in result.findings if f.check == "cotangent-gradients")
    assert {d.name for d in gradients.deviations} == {
        "gradient.embed.table",
        *(f"gradient.rnn.{kind}_{gate}" for kind in "WUbc" for gate in "zrn"),
        "gradient.out.W",
        "gradient.out.b",
    }
    assert result.cell.backend == "torch@model.Net"
    assert result.layers == {"model": "torch.nn.Module Net"}


# What a user gets wrong, as source in the place of the method; and what is said of it.
WRONG = {
    "batch_first": (
        "    def __init__(self, vocab=40, factors=12, hidden=24):\n"
        "        super().__init__(vocab, factors, hidden)\n"
        "        self.gru = nn.GRU(factors, hidden)\n",
        "inference",
        "The model iterates over the batch, but the spec iterates over time",
    ),
    "softmax": (
        "    def forward(self, x):\n        return super().forward(x).softmax(-1)\n",
        "inference",
        "The output equals next_chars of the spec: use --returns next_chars",
    ),
    "detached": (
        "    def forward(self, x):\n        return self.fc(self.gru(self.emb(x).detach())[0])\n",
        "cotangent-gradients",
        "gradients: the outputs are right; wrong: embed.table; right: rnn.W_z",
    ),
    "late": (
        "    def forward(self, x):\n"
        "        y = super().forward(x)\n"
        "        return torch.cat([y[:, :2], 2 * y[:, 2:]], 1)\n",
        "inference",
        "it differs from time step 2 of 4 on",
    ),
    "drawn": (
        "    def forward(self, x):\n        return super().forward(x) + torch.rand(())\n",
        "repeatability",
        "the model returns different results in each call",
    ),
    "fixed batch": (
        "    def forward(self, x):\n"
        "        assert len(x) == 3, 'three rows'\n"
        "        return super().forward(x)\n",
        "shapes",
        "checks that differ: shapes",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_model_differs_and_it_is_said_where(
    torch_service: OwnModelService, spec: Path, tmp_path: Path, wrong: str
) -> None:
    body, check, words = WRONG[wrong]
    file = model_file(tmp_path, f"{NET}\n\nclass Wrong(Net):\n{body}")
    result = checked(torch_service, spec, f"{file}:Wrong", "float64", maps=RULES)
    assert result.verdict == "differ"
    assert next(f.check for f in result.findings if f.verdict == "differ") == check
    assert words in result.location


def test_weights_that_were_handed_over_wrongly_are_named(
    torch_service: OwnModelService, spec: Path, tmp_path: Path, wording: Wording
) -> None:
    """torch has the gates as r, z, n; whoever maps them one by one in another order is told."""
    rules = ["embed=emb", "out=fc"]
    places = dict(zip("zrn", ("0:7", "7:14", "14:21"), strict=True))
    for ours, theirs in (
        ("W", "weight_ih"),
        ("U", "weight_hh"),
        ("b", "bias_ih"),
        ("c", "bias_hh"),
    ):
        turn = ".T" if ours in "WU" else ""
        rules += [f"rnn.{ours}_{g}=gru.{theirs}_l0[{p}]{turn}" for g, p in places.items()]
    file = model_file(tmp_path, NET)
    result = checked(torch_service, spec, f"{file}:Net", "float64", maps=rules)
    wording(result.location)


def test_another_epsilon_is_named(
    torch_service: OwnModelService, tmp_path: Path, wording: Wording
) -> None:
    spec = model_file(
        tmp_path,
        "model: normed\nsummary: A layer.\nsource: A test.\nsizes: {features: 6}\n"
        "inputs:\n  x: {shape: [batch, features]}\nlayers:\n  norm: {layer: layer_norm}\n"
        "equations: |\n  y = norm(x)\n",
        "normed.yaml",
    )
    source = "from torch import nn\n\n\ndef net(features):\n    return nn.Sequential("
    file = model_file(tmp_path, f"{source}nn.LayerNorm(features, eps=1e-6))\n")
    result = checked(torch_service, spec, f"{file}:net", "float64", maps=["norm=0"])
    wording.line(result.location, "1e-06 ... 1e-05")


def test_the_layer_whose_epsilon_differs_is_named(
    torch_service: OwnModelService, tmp_path: Path, wording: Wording
) -> None:
    """Two layers have an epsilon, and the first of them is right."""
    spec = model_file(tmp_path, TWO_NORMS, "two.yaml")
    source = "from torch import nn\n\n\ndef net(features):\n    return nn.Sequential("
    layers = "nn.LayerNorm(features), nn.Linear(features, features), nn.LayerNorm(features)"
    file = model_file(tmp_path, f"{source}{layers})\n")
    rules = ["before=0", "between=1", "after=2"]
    result = checked(torch_service, spec, f"{file}:net", "float64", maps=rules)
    wording.line(result.location, "1e-05 ... 0.001")
    specs = ModelCollection(Library())
    specs.add(str(spec))
    result = replace(result, cell=replace(result.cell, spec="two"))
    assert next(find_places(result, specs)).endswith("two.yaml:8")


def test_a_scalar_and_a_condition_are_told_too(
    torch_service: OwnModelService, tmp_path: Path, wording: Wording
) -> None:
    spec = model_file(
        tmp_path,
        "model: odd\nsummary: Odd outputs.\nsource: A test.\nsizes: {features: 6}\n"
        "inputs:\n  x: {shape: [batch, features]}\n"
        "layers:\n  out: {layer: dense, units: features}\n"
        "equations: |\n  y = out(x)\n  low = y < 0.0\n  total = sum(y, axis=[0, 1])\n",
        "odd.yaml",
    )
    file = model_file(
        tmp_path,
        "import torch\n\n\nclass Odd(torch.nn.Module):\n"
        "    def __init__(self, features):\n        super().__init__()\n"
        "        self.out = torch.nn.Linear(features, features)\n\n"
        "    def forward(self, x):\n        return {'low': self.out(x) > 0}\n\n\n"
        "class Off(Odd):\n"
        "    def forward(self, x):\n        return {'total': self.out(x).sum() + 1}\n",
    )
    low = checked(torch_service, spec, f"{file}:Odd", "float64", checks=("inference",))
    wording.line(low.location, "output.low ... 1.00e+00")
    total = checked(torch_service, spec, f"{file}:Off", "float64", checks=("inference",))
    assert "output.total is off by" in total.location
    assert "the worst is [], " in total.location


REFUSED = {
    "no rules": (NET, "Net", (), "--map embed=emb --map rnn=gru --map out=fc"),
    "no name": (NET, "Nett", RULES, "has no 'Nett'; did you mean 'Net'? (it has: Net)"),
    "raises": ("import torch\nraise KeyError('x')\n", "Net", (), "KeyError: 'x' (line 2)"),
    "exits": ("import torch, sys\nsys.exit(3)\n", "Net", (), "SystemExit: 3 (line 2)"),
    "no module": ("import torch\nNet = 3\n", "Net", (), "is a int: name a torch.nn.Module"),
    "makes none": (
        "import torch\ndef Net():\n    return 3\n", "Net", (), "returns int, not a torch.nn.Module"
    ),
    "needs more": (
        "import torch\ndef Net(vocab, width):\n    pass\n", "Net", (),
        "Net takes width, but the spec has no size of that name (it has: vocab, factors, hidden)",
    ),
    "left over": (
        f"{NET}        \n\nclass More(Net):\n    def __init__(self, vocab, factors, hidden):\n"
        "        super().__init__(vocab, factors, hidden)\n"
        "        self.scale = nn.Parameter(torch.ones(3))\n",
        "More", RULES, "the spec has no counterpart for scale [3]",
    ),
    "other sizes": (
        f"{NET}\n\nnet = Net(11, 5, 7)\n", "net", RULES, "use --size vocab=11,factors=5,hidden=7"
    ),
    "other shape": (
        f"{NET}\n\nclass Turned(Net):\n    def forward(self, x):\n"
        "        return super().forward(x).transpose(1, 2)\n",
        "Turned", RULES, "logits is [3, 4, 11] in the spec, but the model returns [3, 11, 4]; the",
    ),
    "other dtype": (
        f"{NET}\n\nclass Half(Net):\n    def forward(self, x):\n"
        "        return super().forward(x).half()\n",
        "Half", RULES, "logits is float16 in the model, expected float64",
    ),
    "coarse dtype": (
        f"{NET}\n\nclass Coarse(Net):\n    def forward(self, x):\n"
        "        return super().forward(x).bfloat16()\n",
        "Coarse", RULES, "logits is bfloat16 in the model, expected float64",
    ),
    "an array": (
        f"{NET}\n\nclass Bare(Net):\n    def forward(self, x):\n"
        "        return super().forward(x).detach().numpy()\n",
        "Bare", RULES, "logits is ndarray in the model: return a Tensor",
    ),
    "nothing": (
        f"{NET}\n\nclass Mute(Net):\n    def forward(self, x):\n        super().forward(x)\n",
        "Mute", RULES, "the model returns None, which contains no tensor",
    ),
    "lazy": (
        f"{NET}\n\nclass Lazy(Net):\n    def __init__(self, vocab, factors, hidden):\n"
        "        super().__init__(vocab, factors, hidden)\n"
        "        self.fc = nn.LazyLinear(vocab)\n",
        "Lazy", RULES, "has parameters without a shape (fc.weight)",
    ),
    "too many": (
        f"{NET}\n\nclass Many(Net):\n    def forward(self, x):\n"
        "        return (super().forward(x),) * 3\n",
        "Many", RULES, "returns 3 tensors, but the spec has 2 outputs (logits, next_chars)",
    ),
    "raises when called": (
        f"{NET}\n\nclass Bad(Net):\n    def forward(self, x):\n        return x @ x\n",
        "Bad", RULES, "raised an error when called: RuntimeError: ",
    ),
    "wrong rule": (NET, "Net", (*RULES, "lost=x"), "the spec has no 'lost'"),
    "wrong place": (NET, "Net", ("out.weight=fd.weight", *RULES), "did you mean 'fc.weight'?"),
    "transposed": (
        "from torch import nn\nimport torch\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self, vocab, factors, hidden):\n        super().__init__()\n"
        "        self.w = nn.Parameter(torch.ones(vocab, hidden))\n",
        "Net", ("out.W=w",), "it is transposed; use --map out.W=w.T",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_mistake_is_one_sentence(
    torch_service: OwnModelService, spec: Path, tmp_path: Path, mistake: str
) -> None:
    source, name, rules, words = REFUSED[mistake]
    file = model_file(tmp_path, source)
    with pytest.raises(UsageError) as caught:
        checked(torch_service, spec, f"{file}:{name}", "float64", maps=rules)
    first = str(caught.value).split("\n")[0]
    assert words in first
    assert first.startswith("model.py:")
