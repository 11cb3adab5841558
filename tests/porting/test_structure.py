"""The structure of ported specs: definitions, names and layouts. No framework is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import yaml

from harness.language.library import Library
from harness.porting.passes import simplify
from harness.porting.run import layer_attributes
from harness.porting.sizes import combine
from harness.porting.spec import snake_case, write_spec
from harness.porting.templates import Template, share
from harness.runtime.own_model.graph import GraphBuilder

LIBRARY = Library(())
LAYERS = layer_attributes(LIBRARY)
Modules = Sequence[tuple[str, str]]


class Net:
    """A net of images with channels on axis 1, as a tracer of torch builds it."""

    def __init__(self) -> None:
        self.arrays: dict[str, tuple[Sequence[int], bool]] = {}
        self.builder = GraphBuilder("net", self.arrays)

    def add(
        self, op: str, inputs: Sequence[Any], shape: Sequence[int], at: Modules = (), **own: Any
    ) -> str:
        return self.builder.add(op, inputs, own, shape=shape, modules=at)

    def image(self, channels: int, length: int) -> str:
        return self.add("input", [], (2, channels, length, length), name="x")

    def weight(self, name: str, *shape: int) -> str:
        self.builder.graph["weights"][name] = [list(shape), True]
        return self.add("weight", [], shape, name=name)

    def conv(self, x: str, path: str, units: int, at: Modules, **settings: Any) -> str:
        batch, channels, length, _ = self.builder.shape_of(x)
        own = {"stride": 1, "kernel": 1, "groups": 1, "bias": False, **settings}
        weight = self.weight(
            f"{path}.weight", units, channels // own["groups"], *[own["kernel"]] * 2
        )
        shape = (batch, units, *[length // own["stride"]] * 2)
        about = {"shape": shape, "modules": [*at, (f"{path}@0", "Conv2d")]}
        settings = {"units": units, **own}
        return self.builder.layer("conv2d", [x], settings, {"W": (weight, ".T")}, about, channels=1)

    def spec(self, output: str) -> dict[str, Any]:
        self.builder.graph["outputs"] = [["y", output]]
        graph = simplify(combine([self.builder.graph], {}))
        about = {"summary": "A net.", "source": "A test."}
        shape = ", ".join(map(str, self.builder.graph["nodes"][0]["shape"]))
        text = write_spec(graph, "net", {"x": f"{{shape: [{shape}]}}"}, about, (), LAYERS).text
        return dict(yaml.safe_load(text))


def block(net: Net, x: str, path: str, units: int, **settings: Any) -> str:
    at = [(f"{path}@0", "Block")]
    h = net.conv(x, f"{path}.one", units, at, **settings)
    h = net.add("relu", [h], net.builder.shape_of(h), at)
    return net.conv(h, f"{path}.two", units, at)


def test_numbers_that_differ_from_the_usual_value_become_attributes() -> None:
    net = Net()
    x = block(net, net.image(3, 8), "a", 4)
    x = block(net, x, "b", 8, stride=2, groups=1)
    spec = net.spec(block(net, x, "c", 8))
    assert spec["layers"] == {
        "a": {"layer": "block", "units": 4},
        "b": {"layer": "block", "units": 8, "stride": 2},
        "c": {"layer": "block", "units": 8},
    }
    (definition,) = spec["definitions"]
    assert definition["attributes"] == {"units": "size", "stride": 1}
    assert definition["layers"]["two"] == {
        "layer": "conv2d",
        "units": "units",
        "kernel": 1,
        "bias": False,
    }


def test_the_groups_of_a_depthwise_convolution_are_its_units() -> None:
    net = Net()
    x = net.conv(net.image(3, 4), "up", 4, ())
    x = net.conv(block(net, x, "a", 4, groups=4), "more", 8, ())
    (definition,) = net.spec(block(net, x, "b", 8, groups=8))["definitions"]
    assert definition["layers"]["one"]["groups"] == definition["layers"]["one"]["units"]


def test_the_name_of_a_block_is_not_the_start_of_another_name() -> None:
    net = Net()
    x = block(net, net.conv(net.image(3, 4), "one", 4, ()), "first.a", 4)
    x = block(net, net.add("relu", [x], (2, 4, 4, 4)), "second.b", 4)
    # Exported files write both the layer a.one and a layer a_one as a_one.
    layers = net.spec(net.conv(x, "third.a.one", 4, ()))["layers"]
    assert list(layers) == ["one", "a", "b", "third_a_one"]


def test_equal_blocks_after_a_different_one_are_named_by_the_first() -> None:
    net = Net()
    x = block(net, net.image(3, 4), "stage.0", 3, bias=True)
    x = block(net, block(net, x, "stage.1", 3), "stage.2", 3)
    x = block(net, x, "stage.3", 3, bias=True)
    spec = net.spec(x)
    assert spec["layers"]["stage_1"] == {"layer": "block_2", "repeat": 2}


def test_concatenations_grow_outside_of_the_modules_that_get_all_parts() -> None:
    net = Net()
    parts = [net.image(3, 4)]
    for number in range(3):
        path = f"dense.{number}"
        at = [(f"{path}@0", "Layer")]
        joined = net.add("concat", parts, (2, 3 + 2 * number, 4, 4), at, axis=1)
        x = net.add("relu", [joined], net.builder.shape_of(joined), at)
        parts = [*parts, net.conv(net.conv(x, f"{path}.one", 2, at), f"{path}.two", 2, at)]
    spec = net.spec(net.add("concat", parts, (2, 9, 4, 4), axis=1))
    (definition,) = spec["definitions"]
    assert definition["inputs"] == {"x": ["batch", "rows", "columns", "channels"]}
    assert spec["equations"].count("concat([") == 3
    assert {entry["layer"] for entry in spec["layers"].values()} == {"layer"}


def test_a_scale_of_channels_needs_no_permutation() -> None:
    net = Net()
    x = net.image(3, 4)
    scale = net.add("reshape", [net.weight("gamma", 3)], (1, 3, 1, 1))
    scaled = net.add("*", [net.conv(x, "conv", 3, ()), scale], (2, 3, 4, 4))
    spec = net.spec(net.conv(net.add("+", [scaled, x], (2, 3, 4, 4)), "out", 3, ()))
    assert "conv(permute_dims(x, axes=[0, 2, 3, 1])) * gamma" in spec["equations"]


def test_patches_with_a_residual_are_merged_once() -> None:
    net = Net()
    patches = net.add("reshape", [net.conv(net.image(3, 4), "patch", 6, ())], (2, 6, 16))
    rows = net.add("permute", [patches], (2, 16, 6), axes=[0, 2, 1])
    weights = {n: (net.weight(f"norm.{n}", 6), "") for n in ("gamma", "beta")}
    norm = net.builder.layer("layer_norm", [rows], {}, weights, {"shape": (2, 16, 6)})
    spec = net.spec(net.add("+", [norm, rows], (2, 16, 6)))
    assert spec["equations"].count("merge(") == 1
    assert spec["equations"].count("permute_dims(") == 1


def test_names_of_weights_are_the_end_of_their_paths() -> None:
    net = Net()
    y = net.image(3, 4)
    for path in ("gates.0", "gates.1", "scale", "last.scale", "last.first.scale"):
        y = net.add("*", [y, net.weight(path, 3, 1, 1)], (2, 3, 4, 4))
    assert list(net.spec(y)["parameters"]) == [
        *("gates_0", "gates_1", "scale", "last_scale", "first_scale"),
    ]


def test_a_mean_of_an_image_keeps_no_axes_if_they_are_removed() -> None:
    net = Net()
    mean = net.add("mean", [net.image(3, 4)], (2, 3, 1, 1), axis=[2, 3], keepdims=True)
    assert net.spec(net.add("reshape", [mean], (2, 3)))["equations"] == "y = mean(x, axis=[2, 3])"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GPT2Block", "gpt2_block"),
        ("ConvNeXtBlock", "convnext_block"),
        ("ViTLayer", "vit_layer"),
        ("MBConv", "mb_conv"),
        ("BlockA", "block_a"),
        ("LayerFF", "layer_ff"),
        ("LSTM", "lstm"),
    ],
)
def test_the_name_of_a_class_becomes_words(name: str, expected: str) -> None:
    assert snake_case(name) == expected


def scaled(net: Net, x: str, path: str) -> str:
    """Add a module without layers, which computes its kernel from its weights; its values have
    channels on axis 1."""
    at, shape = [(f"{path}@0", "Scaled")], net.builder.shape_of(x)
    kernel = net.weight(f"{path}.kernel", 3, 3)
    kernel = net.add("*", [kernel, net.add("exp", [kernel], (3, 3), at)], (3, 3), at)
    turned = (shape[0], shape[2], shape[1])
    x = net.add("permute", [x], turned, at, axes=[0, 2, 1])
    x = net.add("tanh", [net.add("@", [x, kernel], turned, at)], turned, at)
    return net.add("permute", [x], shape, at, axes=[0, 2, 1])


def sequence_spec(build: Callable[[Net, str, int], str]) -> dict[str, Any]:
    """Return the spec of a net of sequences, whose channels are on axis 1; the time is free."""
    graphs = []
    for time in (5, 7):
        net = Net()
        result = build(net, net.add("input", [], (2, 3, time), name="x"), time)
        net.builder.graph["outputs"] = [["y", result]]
        graphs.append(net.builder.graph)
    graph = simplify(combine(graphs, {"time": (5, 7)}))
    about, declared = {"summary": "s", "source": "s"}, {"x": "{shape: [batch, 3, time]}"}
    return dict(yaml.safe_load(write_spec(graph, "net", declared, about, (), LAYERS).text))


def test_modules_that_compute_their_kernels_are_definitions() -> None:
    def build(net: Net, x: str, time: int) -> str:
        h = scaled(net, scaled(net, scaled(net, x, "a"), "b"), "c")
        cut = {"axis": 2, "start": 1, "step": 1, "stop": time, "length": time}
        h = net.add("slice", [h], (2, 3, time - 1), **cut)
        return net.add("select", [h], (2, 3), axis=2, index=0, length=time - 1)

    spec = sequence_spec(build)
    assert spec["layers"] == {"a": {"layer": "scaled", "repeat": 3}}
    assert spec["equations"] == "y = a(permute_dims(x, axes=[0, 2, 1]))[:, 1:][:, 0]"
    (definition,) = spec["definitions"]
    assert definition["equations"] == "y = tanh(x @ (kernel * exp(kernel)))"


def test_an_axis_of_a_definition_has_no_name_of_a_free_size() -> None:
    def build(net: Net, x: str, time: int) -> str:
        for path in "ab":
            at = [(f"{path}@0", "Shifted")]
            x = net.add("tanh", [x], (2, 3, time), at)
            x = net.add("+", [x, net.weight(f"{path}.shift", 3, 1)], (2, 3, time), at)
        return x

    (definition,) = sequence_spec(build)["definitions"]
    assert definition["inputs"] == {"x": ["batch", "channels", "time"]}


def test_axes_of_a_definition_are_named_apart_from_the_free_sizes_of_its_inputs() -> None:
    def build(net: Net, x: str, time: int) -> str:
        h = net.add("tanh", [net.weight("first", 2, 5, 3)], (2, 5, 3))
        for path in "ab":
            at = [(f"{path}@0", "Cross")]
            h = net.add("@", [h, net.weight(f"{path}.kernel", 3, 3)], (2, 5, 3), at)
            scores = net.add("@", [h, x], (2, 5, time), at)
            turned = net.add("permute", [x], (2, time, 3), at, axes=[0, 2, 1])
            h = net.add("@", [scores, turned], (2, 5, 3), at)
        return h

    (definition,) = sequence_spec(build)["definitions"]
    assert definition["inputs"]["x"] == ["batch", "time_2", "features"]
    assert definition["inputs"]["x_2"] == [2, 3, "time"]


def test_an_attribute_has_no_name_of_an_axis_of_the_first_input() -> None:
    block_: Any = None
    templates = [
        Template(block_, [(width, "channels", None)], {"x": "[batch, channels]"}, features=3)
        for width in (4, 5)
    ]
    assert share(templates).attributes == {"channels_2": "size"}


def test_numbers_of_the_config_are_named_sizes() -> None:
    net = Net()
    # Two entries are 7, so the name is unknown. A layer has the name `width`.
    config = {"hidden_size": 4, "n_channels": 7, "inner_dim": 7, "width": 6, "num_labels": 8}
    net.builder.graph["config"] = config
    x = net.image(3, 8)
    for path, units in (("a", 4), ("b", 7), ("width", 6), ("d", 8)):
        x = net.conv(x, path, units, ())
    spec = net.spec(x)
    assert spec["sizes"] == {"hidden_size": 4, "num_labels": 8}
    assert [layer["units"] for layer in spec["layers"].values()] == [
        "hidden_size",
        7,
        6,
        "num_labels",
    ]


def test_a_layer_does_not_take_the_name_of_an_input() -> None:
    net = Net()
    spec = net.spec(net.conv(net.image(3, 8), "x", 4, ()))
    (name,) = spec["layers"]
    assert name not in spec["inputs"]


def test_outputs_have_names_that_a_spec_can_have_and_may_be_equal() -> None:
    net = Net()
    x = net.image(3, 8)
    y = net.add("tanh", [x], (2, 3, 8, 8))
    net.builder.graph["outputs"] = [["mean", y], ["z", y], ["x", x]]
    graph = simplify(combine([net.builder.graph], {}))
    declared = {"x": "{shape: [batch, 3, 8, 8]}"}
    about = {"summary": "s", "source": "s"}
    spec = yaml.safe_load(write_spec(graph, "net", declared, about, (), LAYERS).text)
    assert spec["outputs"] == ["mean_output", "z", "x_output"]
    assert spec["equations"].splitlines() == [
        "mean_output = tanh(x)",
        "z = mean_output",
        "x_output = x",
    ]


def test_weights_that_no_output_needs_are_unused() -> None:
    net = Net()
    y = net.conv(net.image(3, 8), "a", 4, ())
    net.conv(y, "dead", 4, ())
    net.weight("alone", 3)
    net.builder.graph["outputs"] = [["y", y]]
    assert combine([net.builder.graph], {}).unused_weights == ["dead.weight", "alone"]


def test_a_name_does_not_start_with_an_underscore() -> None:
    net = Net()
    spec = net.spec(net.conv(net.image(3, 8), "/sub/_inner", 4, ()))
    assert [*spec["layers"]] == ["sub__inner"]


def test_a_repeated_part_ends_with_its_activation() -> None:
    net, shape = Net(), (2, 4, 8, 8)
    x = net.add("relu", [net.conv(net.image(3, 8), "stem", 4, ())], shape)
    for path in ("a", "b", "c"):
        h = net.add("relu", [net.conv(x, f"{path}1", 4, ())], shape)
        x = net.add("relu", [net.add("+", [net.conv(h, f"{path}2", 4, ()), x], shape)], shape)
    spec = net.spec(x)
    assert spec["layers"]["blocks"] == {"layer": "block", "repeat": 3}
    assert spec["definitions"][0]["equations"] == "y = relu(conv_2(relu(conv(x))) + x)"
