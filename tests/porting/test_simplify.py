"""Rewrites of traced graphs, without a framework: the equations of a spec, from a graph by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml

from harness.language.library import Library
from harness.porting.passes import simplify
from harness.porting.run import layer_attributes
from harness.porting.sizes import combine
from harness.porting.spec import write_spec
from harness.runtime.own_model.graph import GraphBuilder

LIBRARY = Library(())


class Graph:
    """A traced graph that is built call by call; values have channels last."""

    def __init__(self, *shape: int, **weights: tuple[int, ...]) -> None:
        self.builder = GraphBuilder("model", {n: (s, True) for n, s in weights.items()})
        self.weights = weights
        self.x = self.add("input", [], shape, name="x")

    def add(self, op: str, inputs: Any, shape: tuple[int, ...], **attributes: Any) -> str:
        about = {"shape": shape, "kind": "float", "modules": (), "place": "", "values": None}
        return str(self.builder.add(op, inputs, attributes, **about))

    def weight(self, name: str) -> str:
        return self.add("weight", [], self.weights[name], name=name)

    def about(self, *shape: int) -> dict[str, Any]:
        return {"shape": shape, "kind": "float", "modules": (), "place": ""}

    def dense(self, x: str, weight: str, shape: tuple[int, ...]) -> str:
        weights = {"W": (self.weight(weight), "")}
        if bias := f"{weight}_b" in self.weights:
            weights["b"] = (self.weight(f"{weight}_b"), "")
        settings = {"units": shape[-1], "bias": bias}
        return str(self.builder.layer("dense", [x], settings, weights, self.about(*shape)))

    def spec(self, result: str) -> dict[str, Any]:
        """Return the spec of the graph with this result."""
        self.builder.graph["outputs"] = [["y", result]]
        graph = simplify(combine([self.builder.graph], {}))
        layers = layer_attributes(LIBRARY)
        about = {"summary": "A model.", "source": "A test."}
        shape = ", ".join(map(str, self.builder.graph["nodes"][0]["shape"]))
        declared = {"x": f"{{shape: [{shape}]}}"}
        text = write_spec(graph, "model", declared, about, LIBRARY.names("function"), layers).text
        return dict(yaml.safe_load(text))


def convolution(g: Graph, x: str, shape: tuple[int, ...], **settings: Any) -> str:
    given = {"units": shape[-1], "kernel": 3, "padding": 0, "bias": False, **settings}
    weights = {"W": (g.weight("w"), "")}
    return str(g.builder.layer("conv2d", [x], given, weights, g.about(*shape)))


def test_zeros_around_an_image_are_the_padding_of_a_convolution() -> None:
    g = Graph(2, 5, 6, 3, w=(3, 3, 3, 4))
    padded = g.builder.pad(g.x, {1: (1, 2), 2: (0, 1)}, g.about())
    spec = g.spec(convolution(g, str(padded), (2, 8, 7, 4), padding=1))
    (layer,) = spec["layers"].values()
    assert layer["padding"] == [[2, 3], [1, 2]]
    assert "windows" not in spec["equations"]


@pytest.mark.parametrize(("function", "joined"), [("relu", True), ("tanh", False)])
def test_zeros_are_the_padding_of_a_maximum_of_values_at_least_zero(
    function: str, joined: bool
) -> None:
    g = Graph(2, 5, 6, 3)
    x = g.add(function, [g.x], (2, 5, 6, 3))
    padded = str(g.builder.pad(x, {1: (1, 1), 2: (1, 1)}, g.about()))
    windows = {"size": [3, 3], "stride": [2, 2], "dilation": [1, 1], "pads": [[0, 0], [0, 0]]}
    spec = g.spec(g.builder.pool(padded, windows, "max", g.about()))
    (layer,) = spec["layers"].values()
    assert (layer.get("padding") == 1) is joined
    assert ("windows" in spec["equations"]) is not joined


def test_a_mean_without_padding_is_a_pool() -> None:
    g = Graph(2, 5, 6, 3)
    windows = {"size": [3, 2], "stride": [2, 2], "dilation": [1, 1], "pads": [[1, 1], [0, 1]]}
    spec = g.spec(g.builder.pool(g.x, windows, "mean", g.about()))
    expected = {"window": [3, 2], "padding": [[1, 1], [0, 1]], "count_padding": False}
    (layer,) = spec["layers"].values()
    assert layer == {"layer": "avg_pool", **expected}


def test_a_limited_relu_is_recognised() -> None:
    g = Graph(2, 6)
    spec = g.spec(g.add("minimum", [g.add("relu", [g.x], (2, 6)), 6.0], (2, 6)))
    assert spec["equations"].strip() == "y = relu6(x)"


def test_every_shipped_function_of_one_number_is_recognised() -> None:
    g = Graph(2, 6)
    below = g.add("+", [g.add("abs", [g.x], (2, 6)), 1.0], (2, 6))
    spec = g.spec(g.add("/", [g.x, below], (2, 6)))
    assert spec["equations"].strip() == "y = softsign(x)"


def test_a_function_with_other_attributes_is_not_recognised_inside_equations() -> None:
    g = Graph(2, 6)
    slope = g.add("leaky_relu", [g.x], (2, 6), slope=-1.0)  # the absolute value of x
    below = g.add("+", [slope, 1.0], (2, 6))
    spec = g.spec(g.add("/", [g.x, below], (2, 6)))
    assert spec["equations"].strip() == "y = x / (leaky_relu(x, slope=-1) + 1)"


def test_attention_with_a_shift_and_axes_of_length_1() -> None:
    square = dict.fromkeys(("q", "k", "v", "o"), (8, 8))
    g = Graph(2, 5, 8, **square, **{f"{n}_b": (8,) for n in square})
    heads = {
        n: g.add("reshape", [g.dense(g.x, n, (2, 5, 8))], (2, 5, 2, 4)) for n in ("q", "k", "v")
    }
    query = g.add("permute", [heads["q"]], (2, 2, 5, 4), axes=[0, 2, 1, 3])
    key = g.add("permute", [heads["k"]], (2, 2, 4, 5), axes=[0, 2, 3, 1])
    value = g.add("permute", [heads["v"]], (2, 2, 5, 4), axes=[0, 2, 1, 3])
    scores = g.add("@", [query, key], (2, 2, 5, 5))
    scores = g.add("reshape", [scores], (2, 2, 5, 1, 5))
    scores = g.add("permute", [scores], (1, 2, 2, 5, 5), axes=[3, 0, 1, 2, 4])
    scores = g.add("*", [scores, 0.5], (1, 2, 2, 5, 5))
    largest = g.add("max", [scores], (1, 2, 2, 5, 1), axis=[4], keepdims=True)
    shifted = g.add("-", [scores, largest], (1, 2, 2, 5, 5))
    chosen = g.add("softmax", [shifted], (1, 2, 2, 5, 5), axis=4)
    chosen = g.add("reshape", [chosen], (2, 2, 5, 5))
    mixed = g.add("@", [chosen, value], (2, 2, 5, 4))
    mixed = g.add("permute", [mixed], (2, 5, 2, 4), axes=[0, 2, 1, 3])
    spec = g.spec(g.dense(g.add("reshape", [mixed], (2, 5, 8)), "o", (2, 5, 8)))
    (layer,) = spec["layers"].values()
    assert layer == {"layer": "self_attention", "heads": 2, "head": 4}


def attend(
    g: Graph, queries: str, memory: str, names: str, time_first: bool = False, twice: bool = False
) -> str:
    """Attention with dropout, written as equations; weights ``names`` of q, k, v and o."""
    lengths = {"q": 5, "k": 3 if memory != queries else 5, "v": 3 if memory != queries else 5}
    q, k, v = (
        g.add(
            "permute",
            [g.add("reshape", [g.dense(x, n, (2, lengths[p], 8))], (2, lengths[p], 2, 4))],
            (2, 2, 4, lengths[p]) if p == "k" else (2, 2, lengths[p], 4),
            axes=[0, 2, 3, 1] if p == "k" else [0, 2, 1, 3],
        )
        for p, n, x in zip("qkv", names, (queries, memory, memory), strict=False)
    )
    shape = (2, 2, 5, lengths["k"])
    scores = g.add("*", [g.add("@", [q, k], shape), 0.5], shape)
    chosen = g.add("softmax", [scores], shape, axis=3)
    chosen = str(g.builder.layer("dropout", [chosen], {"keep": 0.75}, {}, g.about(*shape)))
    mixed = g.add("@", [chosen, v], (2, 2, 5, 4))
    order, shape = ([2, 0, 1, 3], (5, 2, 2, 4)) if time_first else ([0, 2, 1, 3], (2, 5, 2, 4))
    rows = g.add("reshape", [g.add("permute", [mixed], shape, axes=order)], (*shape[:2], 8))
    made = g.dense(rows, names[3], (*shape[:2], 8))
    made = g.add("permute", [made], (2, 5, 8), axes=[1, 0, 2]) if time_first else made
    return (
        g.add("+", [made, g.add("mean", [mixed], (), axis=[0, 1, 2, 3], keepdims=False)], (2, 5, 8))
        if twice
        else made
    )


@pytest.mark.parametrize("time_first", [False, True])
def test_attention_with_dropout_and_some_biases_is_a_layer(time_first: bool) -> None:
    square = dict.fromkeys("qkvoabcd", (8, 8))
    g = Graph(2, 5, 8, **square, q_b=(8,), v_b=(8,))
    memory = g.add("slice", [g.x], (2, 3, 8), axis=1, start=0, stop=3, step=1, length=5)
    h = attend(g, g.x, g.x, "qkvo", time_first)
    spec = g.spec(attend(g, h, memory, "abcd", time_first))
    own, across = spec["layers"].values()
    given = {"heads": 2, "head": 4, "keep": 0.75, "bias_k": False, "bias_o": False}
    assert own == {"layer": "self_attention", **given}
    assert across == {"layer": "cross_attention", **given, "bias_q": False, "bias_v": False}
    inner, outer = spec["layers"]
    assert spec["equations"].strip() == f"y = {outer}({inner}(x), x[:, :3])"


@pytest.mark.parametrize("written", ["added", "gathered"])
def test_attention_with_a_padding_mask_is_a_layer(written: str) -> None:
    g = Graph(2, 5, 8, **dict.fromkeys("qkvo", (8, 8)))
    steps = g.add("select", [g.x], (2, 5), axis=2, index=0, length=8)
    about = {**g.about(2, 5), "kind": "boolean"}
    if written == "added":
        padding = g.builder.node(">", [steps, 0.5], about)
        chosen = g.add("where", [padding, -1e30, 0], (2, 5))
        mask = g.add("reshape", [chosen], (2, 1, 1, 5))
        expected = "~(x[:, :, 0] > 0.5)"
    else:
        inside = g.builder.node(">", [steps, 0.5], about)
        places = [
            g.builder.add("constant", [], {}, shape=s, kind="index", values=np.arange(n).reshape(s))
            for n, s in ((2, (2, 1, 1, 1)), (5, (1, 1, 1, 5)))
        ]
        mask = g.builder.node("gather", [inside, *places], about, (2, 1, 1, 5), axes=[0, 1])
        mask = g.builder.node("broadcast", [mask], about, (2, 1, 5, 5))
        expected = "x[:, :, 0] > 0.5"
    heads = {
        n: g.add("reshape", [g.dense(g.x, n, (2, 5, 8))], (2, 5, 2, 4)) for n in ("q", "k", "v")
    }
    parts = [g.add("permute", [h], (2, 2, 5, 4), axes=[0, 2, 1, 3]) for h in heads.values()]
    own = {"scale": 0.5, "causal": False, "keep": 1.0, "width": 4}
    mixed = g.add("attention", [*parts, mask], (2, 2, 5, 4), **own)
    mixed = g.add("permute", [mixed], (2, 5, 2, 4), axes=[0, 2, 1, 3])
    spec = g.spec(g.dense(g.add("reshape", [mixed], (2, 5, 8)), "o", (2, 5, 8)))
    (layer,) = spec["layers"].values()
    assert layer["layer"] == "masked_attention"
    assert spec["equations"] == f"y = masked_attention(x, {expected})"


def test_attention_whose_dropout_has_a_second_use_stays_equations() -> None:
    g = Graph(2, 5, 8, **dict.fromkeys("qkvo", (8, 8)))
    layers = g.spec(attend(g, g.x, g.x, "qkvo", twice=True))["layers"]
    assert sorted(entry["layer"] for entry in layers.values()) == [*["dense"] * 4, "dropout"]


def test_two_weights_of_one_module_are_two_layers() -> None:
    g = Graph(2, 5, **{"inner.a": (5, 5), "inner.b": (5, 5)})
    h = g.dense(g.add("tanh", [g.dense(g.x, "inner.a", (2, 5))], (2, 5)), "inner.b", (2, 5))
    spec = g.spec(g.dense(h, "inner.a", (2, 5)))
    assert spec["equations"].strip() == "y = inner(inner_2(tanh(inner(x))))"


def test_a_size_has_no_name_if_the_input_has_the_same_length() -> None:
    g = Graph(2, 6, a=(6, 6), b=(6, 5))
    g.builder.graph["config"] = {"hidden_size": 6, "num_labels": 5}
    h = g.add("tanh", [g.dense(g.x, "a", (2, 6))], (2, 6))
    spec = g.spec(g.dense(g.add("+", [g.x, h], (2, 6)), "b", (2, 5)))
    assert spec["sizes"] == {"num_labels": 5}
    assert [layer["units"] for layer in spec["layers"].values()] == [6, "num_labels"]


def test_repeated_parts_of_a_graph_without_modules_are_definitions() -> None:
    sizes = {"a": 6, "b": 6, "c": 7, "d": 7}
    g = Graph(2, 5, 4, **{f"{n}_{way}": (4, 4) for n in sizes for way in ("up", "down")})
    h = g.x
    for name, width in sizes.items():
        inner = g.add("relu", [g.dense(h, f"{name}_up", (2, 5, width))], (2, 5, width))
        h = g.add("+", [h, g.dense(inner, f"{name}_down", (2, 5, 4))], (2, 5, 4))
    spec = g.spec(h)
    (definition,) = spec["definitions"]
    assert [entry["units"] for entry in definition["layers"].values()] == ["units", "features"]
    uses = [(entry["repeat"], entry["units"]) for entry in spec["layers"].values()]
    assert uses == [(2, 6), (2, 7)]


def test_an_axis_of_length_1_at_the_front_is_no_part_of_a_reshape() -> None:
    g = Graph(1, 3, 4, 5)
    spec = g.spec(g.add("reshape", [g.x], (1, 60)))
    assert spec["equations"].strip() == "y = merge(x, axes=[1, 2, 3])"


def test_an_axis_of_length_1_that_moves_is_permuted() -> None:
    g = Graph(2, 1, 4, 4)
    spec = g.spec(g.add("permute", [g.x], (2, 4, 4, 1), axes=[0, 2, 3, 1]))
    assert spec["equations"].strip() == "y = permute_dims(x, axes=[0, 2, 3, 1])"


def test_the_keys_of_an_attention_have_one_permutation() -> None:
    g = Graph(2, 5, 3, 4)
    query = g.add("permute", [g.x], (2, 3, 5, 4), axes=[0, 2, 1, 3])
    key = g.add("permute", [g.x], (2, 3, 4, 5), axes=[0, 2, 3, 1])
    scores = g.add("softmax", [g.add("@", [query, key], (2, 3, 5, 5))], (2, 3, 5, 5), axis=3)
    spec = g.spec(g.add("@", [scores, query], (2, 3, 5, 4)))
    assert "scores = h @ permute_dims(x, axes=[0, 2, 3, 1])" in spec["equations"].splitlines()


def test_a_mask_that_is_stored_as_floats_stays_a_condition() -> None:
    g = Graph(2, 5)
    mask = g.builder.add("<", [g.x, 1.0], {}, shape=(2, 5), kind="boolean")
    mask = g.add("reshape", [g.add("cast", [mask], (2, 5))], (2, 1, 5))
    mask = g.builder.add("!=", [mask, 0.0], {}, shape=(2, 1, 5), kind="boolean")
    spec = g.spec(g.add("where", [mask, 1.0, 0.0], (2, 1, 5)))
    assert spec["equations"].strip() == "y = where((x < 1)[:, None], 1, 0)"
