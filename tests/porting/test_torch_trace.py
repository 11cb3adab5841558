"""Specs of small torch functions: rules of operators, constants, relative positions, refusals."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")

from harness.backends.torch.own_model import TorchModel  # noqa: E402
from harness.backends.torch.trace import trace_module  # noqa: E402
from harness.errors import UsageError  # noqa: E402
from harness.language.library import Library  # noqa: E402
from harness.language.model import load_spec  # noqa: E402
from harness.porting.inputs import InputDeclaration, free_sizes  # noqa: E402
from harness.porting.passes import simplify  # noqa: E402
from harness.porting.run import layer_attributes  # noqa: E402
from harness.porting.sizes import trace_at_sizes  # noqa: E402
from harness.porting.spec import write_spec  # noqa: E402

LIBRARY = Library(())
LAYERS = layer_attributes(LIBRARY)
FUNCTIONS = LIBRARY.names("function")
functional = torch.nn.functional


class Inner(torch.nn.Module):
    """Calls a function with the output of a dense layer and the module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function, self.l = function, torch.nn.Linear(6, 6)
        self.table = torch.nn.Embedding(9, 6)

    def forward(self, x: Any) -> Any:
        return self.function(self.l(x), self)


def spec_of(module: Any, declared: str = "x=batch,6") -> dict[str, Any]:
    """Return the spec of a module; raise :class:`UsageError` if it cannot be ported."""
    return dict(yaml.safe_load(text_of(module, declared)))


def text_of(module: Any, declared: str) -> str:
    declaration = InputDeclaration.of(declared)
    file = SimpleNamespace(path=Path(__file__))

    def trace(lengths: Mapping[str, int]) -> Any:
        return trace_module(module, {declaration.name: declaration.array(lengths)}, file)

    graph, _ = trace_at_sizes(trace, free_sizes([declaration]))
    entries = {declaration.name: declaration.entry()}
    about = {"summary": "A test.", "source": "A test."}
    return write_spec(simplify(graph), "net", entries, about, FUNCTIONS, LAYERS).text


def bias_of_t5(x: Any, module: Any) -> Any:
    """Add rows of a table that depend on the distance of two steps, as T5 does."""
    steps = torch.arange(x.shape[1])
    distance = steps[None, :] - steps[:, None]
    far = (torch.log(distance.abs().float() / 2) * 3).to(torch.long)
    bucket = torch.where(distance.abs() < 2, distance.abs(), far.clamp(max=4))
    return x @ module.table((distance > 0) * 4 + bucket).sum(1).T


@pytest.mark.parametrize(
    ("function", "equations"),
    [
        (lambda x, _: functional.softplus(x, beta=2), "y = softplus(l(x) * 2) / 2"),
        (lambda x, _: torch.logsumexp(x, 1, keepdim=True), "y = logsumexp(l(x), axis=1)[:, None]"),
        (lambda x, _: torch.min(x, torch.exp(x)), "h = l(x)\ny = minimum(h, exp(h))"),
        (lambda x, _: x * torch.tensor([1.0, 2.5, 3, 4, 5, 6]), "y = l(x) * constant"),
        (
            lambda x, _: torch.where(torch.tensor([True, False] * 3), x, 0),
            "y = where(constant == 1, l(x), 0)",
        ),
    ],
)
def test_arguments_and_constants_are_in_the_equations(
    function: Callable[..., Any], equations: str
) -> None:
    spec = spec_of(Inner(function))
    assert spec["equations"].strip() == equations
    values = [entry["value"] for entry in spec.get("constants", {}).values()]
    assert values in ([], [[1, 2.5, 3, 4, 5, 6]], [[1, 0] * 3])


@pytest.mark.parametrize(
    ("function", "declared", "part"),
    [
        (lambda x, _: functional.glu(x), "x=batch,6", "h[:, :3] * sigmoid(h[:, 3:])"),
        (
            lambda x, _: torch.lerp(x, x * x, 0.3),
            "x=batch,6",
            "0.3 * (h * h - h)",
        ),
        (
            lambda x, m: torch.einsum("btd,d->bt", x, m.l.bias),
            "x=batch,time,6",
            "sum(l(x) * bias[None, None], axis=-1)",
        ),
        (
            lambda x, _: torch.einsum("...id,...jd->...ij", x, x),
            "x=batch,time,6",
            "h @ permute_dims(h, axes=[0, 2, 1])",
        ),
        (lambda x, _: x.min(1).values, "x=batch,time,6", "-max(-l(x), axis=1)"),
        (lambda x, _: x.flip(1), "x=batch,time,6", "l(x)[:, ::-1]"),
        (lambda x, _: x * torch.ones_like(x) + x.std(1, keepdim=True), "x=batch,6,6", "sqrt(var("),
    ],
)
def test_operators_without_a_rule_are_decomposed(
    function: Callable[..., Any], declared: str, part: str
) -> None:
    assert part in spec_of(Inner(function), declared)["equations"]


def selections(x: Any, module: Any) -> Any:
    """Select, mask and move entries of x [batch, time, 6]."""
    time = x.shape[1]
    above = torch.ones(time, time).triu(1).bool()
    added = torch.zeros(time, time).masked_fill(above, -torch.inf)
    top = x.topk(2)
    return {
        "best": x.gather(1, x.argmax(1, keepdim=True)),
        "rows": module.table(top.indices) * top.values[..., None],
        "attended": functional.scaled_dot_product_attention(x, x, x, attn_mask=added),
        "masked": (x @ x.mT).masked_fill(above, -torch.inf).softmax(-1),
        "triangle": (x @ x.mT).tril(-1),
        "moved": x.roll(1, 1),
        "hot": x.scatter(2, top.indices, 0.0),
        "rounded": x.round(),
    }


def test_selections_and_masks_are_in_the_equations() -> None:
    equations = spec_of(Inner(selections), "x=batch,time,6")["equations"]
    mask = "arange(time)[None, :] <= arange(time)[:, None]"
    for part in (
        "take_along_axis(h, argmax(h, axis=1)[:, None], axis=1)",
        "argsort(h, axis=2, descending=true)[:, :, :2]",
        f"softmax(where({mask}, scores, -1.0e30)) @ h",
        f"where({mask}, h @ permute_dims(h, axes=[0, 2, 1]), -1.0e30)",
        f"where({mask.replace('<=', '<')}, h @",
        "concat([h[:, time - 1:], h[:, :time - 1]], axis=1)",
        "floor(h + 0.5)",
    ):
        assert part in equations


@pytest.mark.parametrize(
    ("function", "declared", "part"),
    [
        (lambda x, _: functional.conv_transpose1d(x, x[0, :, :2, None]), "x=1,6,6", "overlap_add("),
        (lambda x, _: functional.max_pool1d(x, 3, 2, 1), "x=batch,4,6", "lowest=1"),
        (lambda x, _: functional.adaptive_avg_pool1d(x, 4), "x=batch,4,6", "mean(h[:, :, 1:3]"),
        (lambda x, _: functional.pad(x, (1, 0), value=3.0), "x=batch,6", "windows(l(x) - 3"),
        (lambda x, _: torch.logsumexp(x, (0, 1)), "x=batch,6", "logsumexp(logsumexp("),
    ],
)
def test_images_and_sums_have_rules(function: Callable[..., Any], declared: str, part: str) -> None:
    assert part in spec_of(Inner(function), declared)["equations"]


def test_integers_without_a_formula_are_computed_in_floats(tmp_path: Path) -> None:
    text = text_of(Inner(bias_of_t5), "x=batch,time,6")
    loaded(text, tmp_path)
    equations = yaml.safe_load(text)["equations"]
    assert "astype(arange(time)) - astype(arange(time)[:, None])" in equations
    assert "astype(~(arange(time)[None, :] <= arange(time)[:, None])) * 4" in equations
    assert re.search(r"table\(index\(h_\d, 9\)\)", equations)


def local_attention(x: Any, _: Any) -> Any:
    steps = torch.arange(x.shape[1])
    every = torch.ones(len(x), 1, 1, dtype=torch.bool)
    near = every & (steps[:, None] >= steps) & (steps[:, None] - steps < 40)
    return functional.scaled_dot_product_attention(x, x, x, near)


def test_a_window_that_is_longer_than_the_first_traces_is_in_the_spec() -> None:
    equations = spec_of(Inner(local_attention), "x=batch,time,6")["equations"]
    assert "< 40" in equations
    assert "true" not in equations


def test_a_model_of_fixed_lengths_may_compare_positions() -> None:
    masked = Inner(lambda x, _: torch.where(torch.arange(6) < 4, x, 0))
    assert "where(" in spec_of(masked, "x=2,6")["equations"]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x, _: x * x.sum().item(), "aten.item"),
        (lambda x, _: torch.fft.fft(x).abs(), "complex"),
        (lambda x, _: torch.histc(torch.fft.fft(x).abs(), 3), "aten.histc"),
        (lambda x, _: x[x.sum(1) > 0], "data"),
        (lambda x, _: x if x.sum() > 0 else -x, "value of"),
        (lambda x, _: [torch.relu_(x[:, 0]), x][1], "part of"),
        (lambda x, _: x.index_put_([torch.arange(2)], x[:2] * 2), "part of"),
        (lambda x, _: functional.linear(x, torch.ones(300, 6)).sum(1), "[300, 6]"),
        (lambda x, _: functional.avg_pool2d(x[None], 2, divisor_override=3), "divisor_override"),
        (lambda x, _: {"my-output": x, "time": x, "x": x}, "'my-output'"),
    ],
)
def test_refusals_name_the_reason(function: Callable[..., Any], reason: str) -> None:
    with pytest.raises(UsageError, match=re.escape(reason)):
        spec_of(Inner(function))


def test_cudnn_changes_no_spec() -> None:
    norm = torch.nn.GroupNorm(2, 6)
    with torch.backends.cudnn.flags(enabled=False):
        spec = spec_of(norm, "input=batch,6")
    assert [entry["layer"] for entry in spec["layers"].values()] == ["group_norm"]


@pytest.mark.parametrize("lengths", ["8", "8,time", "8,6,5", "8,3,4,5"])
def test_a_group_norm_takes_any_number_of_axes(lengths: str, tmp_path: Path) -> None:
    text = text_of(torch.nn.GroupNorm(2, 8), f"input=batch,{lengths}")
    assert "{layer: group_norm, groups: 2, each: 4}" in text
    loaded(text, tmp_path)


@pytest.mark.parametrize("mode", ["replicate", "reflect", "circular"])
def test_all_paddings_of_convolutions(mode: str, tmp_path: Path) -> None:
    text = text_of(torch.nn.Conv2d(3, 4, 3, padding=(1, 2), padding_mode=mode), "input=batch,3,6,7")
    loaded(text, tmp_path)


def loaded(text: str, folder: Path) -> Any:
    """Return the inference program of a spec's text."""
    path = folder / "net.yaml"
    path.write_text(text, encoding="utf-8")
    return load_spec(str(path)).program("inference")


class Halving(torch.nn.Module):
    """Halves a free size, and calls two operators without a rule."""

    def forward(self, x: Any) -> Any:
        x = functional.max_pool2d(x, 2)
        return torch.cummax(x, 1).values + torch.histc(x, 4).sum()


def test_all_problems_are_in_one_message() -> None:
    with pytest.raises(UsageError) as refused:
        spec_of(Halving(), "x=batch,time,6")
    line = Halving.forward.__code__.co_firstlineno + 1
    halved, *operators, _ = str(refused.value).splitlines()
    assert halved.startswith(f"{Path(__file__).name}:{line}: ")
    assert "time" in halved
    assert [o.split(":")[1] for o in operators] == [f"{line + 1}", f"{line + 1}"]


def test_aliases_of_an_overwritten_tensor_have_its_new_value() -> None:
    def function(x: Any, _: Any) -> Any:
        new = x.contiguous().mul_(2).add_(1)
        mask = torch.ones(6, dtype=torch.bool)
        mask[1:3] = False
        return torch.where(mask, new + x, 0)

    spec = spec_of(Inner(function))
    assert spec["equations"].splitlines()[0] == "h = l(x) * 2 + 1"
    assert "h + h" in spec["equations"]
    assert spec["constants"]["constant"]["value"] == [1, 0, 0, 1, 1, 1]


def test_results_in_float32_get_the_dtype_of_the_comparison() -> None:
    backend = SimpleNamespace(device="cpu", numpy=lambda t: t.detach().numpy())
    module = Inner(lambda x, _: {"y": x.float()}).double()
    placing = SimpleNamespace(call=lambda module, tensors: module(**tensors))
    given = {"x": np.ones((2, 6))}
    results = TorchModel(module, torch.float64, backend).run(given, placing, dict, training=False)
    assert results["y"].dtype == np.float64


class Attention(torch.nn.Module):
    """Attention that scales its queries, and whose scores may get a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (torch.nn.Linear(6, 6, bias=False) for _ in range(4))

    def forward(self, x: Any, bias: Any) -> Any:
        parts = (self.q(x) * 3**-0.5, self.k(x), self.v(x))
        q, k, v = (a.unflatten(-1, (2, 3)).transpose(1, 2) for a in parts)
        y = functional.scaled_dot_product_attention(q, k, v, bias, scale=1.0)
        return x + self.o(y.transpose(1, 2).flatten(2))


class Grouped(Attention):
    """Attention in which two heads of queries share keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.k, self.v = (torch.nn.Linear(6, 3, bias=False) for _ in range(2))

    def forward(self, x: Any) -> Any:
        parts = (self.q(x), self.k(x), self.v(x))
        q, k, v = (a.unflatten(-1, (-1, 3)).transpose(1, 2) for a in parts)
        y = functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.o(y.transpose(1, 2).flatten(2))


def test_heads_that_queries_share_are_repeated() -> None:
    equations = spec_of(Grouped(), "x=batch,time,6")["equations"]
    assert equations.count("repeat(") == 2


class Shared(torch.nn.Module):
    """Two attentions; the first one computes positions that both use."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(9, 6)
        self.blocks = torch.nn.ModuleList(Attention() for _ in range(2))

    def forward(self, x: Any) -> Any:
        bias = (self.table.weight @ self.table.weight.T)[:5, :5]
        for block in self.blocks:
            x = block(x, bias)
        return x


class Windowed(Shared):
    """Two attentions with the same window."""

    def forward(self, x: Any) -> Any:
        steps = torch.arange(x.shape[1])
        every = torch.ones(len(x), 1, 1, 1, dtype=torch.bool)
        mask = every & (steps[:, None] >= steps) & every & (steps[:, None] - steps < 3)
        for block in self.blocks:
            x = block(x, mask)
        return x


def test_a_mask_that_blocks_share_has_all_of_its_axes(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(text_of(Windowed(), "x=batch,time,6"), encoding="utf-8")
    assert load_spec(str(path)).program().parameters


def test_scales_are_folded_and_shared_values_are_inputs_of_blocks() -> None:
    spec = spec_of(Shared(), "x=batch,5,6")
    assert spec["layers"]["blocks"] == {"layer": "attention", "repeat": 2}
    (definition,) = spec["definitions"]
    assert [*definition["inputs"]] == ["x", "x_2"]
    assert "/ 3 ** 0.5" in definition["equations"]


class Fields(torch.nn.Module):
    """One table for three features, whose indices get an offset."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offsets", torch.tensor([0, 5, 12]))
        self.table = torch.nn.Embedding(15, 4)

    def forward(self, x: Any) -> Any:
        return self.table(x + self.offsets)


def test_a_small_buffer_of_integers_is_an_array_of_constants() -> None:
    spec = spec_of(Fields(), "x=batch,3:3")
    assert spec["constants"] == {"constant": {"shape": [3], "index": 13, "value": [0, 5, 12]}}


def test_the_identity_of_a_free_size_is_a_formula() -> None:
    def function(x: Any, module: Any) -> Any:
        return x @ x.transpose(1, 2) + torch.eye(x.shape[1])

    text = text_of(Inner(function), "x=batch,time,6")
    assert "constants" not in yaml.safe_load(text)
