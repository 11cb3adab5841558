"""Prepare a user's ONNX graph: all weights become initializers, and inputs accept every shape."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from harness.extend import Array

# The end of the name of a weight's copy.
COPY = re.compile(r"_copy_\d+$")
FLOATS = (1, 11)  # the data types float32 and float64
# Operators that keep the entries of indices.
MOVES = frozenset(["Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Flatten"])
# Names of axes without a length or name, for arrays of up to three axes and for images.
AXES = {
    **dict.fromkeys((1, 2, 3), ("batch", "time", "features")),
    4: ("batch", "channels", "rows", "columns"),
}

# A part of a name that names a list of modules, not a class.
NUMBER = re.compile(r"\d+")
# The metadata in which torch's exporter keeps the module path of a node, and the classes.
SCOPES, CLASSES = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy"


def prepare(proto: Any) -> dict[str, list[str]]:
    """Change a graph in place, so that its weights can be replaced. Return the names of the copies
    of each weight that has copies.

    - Float arrays of operators ``Constant`` and ``ConstantOfShape`` become initializers.
    - ``LSTM``, ``GRU`` and ``RNN`` add their two biases before each use; the second becomes zero.
    - ``ZipMap`` is removed: its input is the output.
    - Inputs have no fixed shape.
    - A weight that several layers use gets a copy for each of them, because exporters store equal
      initial weights once.
    """
    onnx = import_module("onnx")
    if proto.functions:
        proto.CopyFrom(import_module("onnx.inliner").inline_local_functions(proto))
    graph = proto.graph
    proto.ir_version = max(proto.ir_version, 4)
    _move_constants(graph, onnx)
    _join_biases(graph, onnx)
    for node in graph.node:
        if node.op_type == "ZipMap":
            node.op_type, node.domain = "Identity", ""
            del node.attribute[:]
            for output in graph.output:
                if output.name == node.output[0]:
                    output.ClearField("type")
    names = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in names]
    del graph.input[:], graph.value_info[:]
    for value in inputs:
        value.type.tensor_type.ClearField("shape")
    graph.input.extend(inputs)
    for output in graph.output:
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.ClearField("shape")
    return _copy_weights(graph)


def _move_constants(graph: Any, onnx: Any) -> None:
    """Turn the constants of several floats into initializers."""
    arrays = {t.name: t for t in graph.initializer}
    kept = []
    for node in graph.node:
        array = _constant_array(node, arrays, onnx)
        if array is not None and array.dtype.kind == "f" and array.size > 1:
            tensor = onnx.numpy_helper.from_array(array, node.output[0])
            graph.initializer.append(tensor)
        else:
            kept.append(node)
    _replace_nodes(graph, kept)


def _constant_array(node: Any, arrays: Mapping[str, Any], onnx: Any) -> Array | None:
    """Return the array of a node that depends on no input, or None."""
    found = {a.name: a for a in node.attribute}
    if node.op_type == "Constant":
        if "value" in found:
            return np.array(onnx.numpy_helper.to_array(found["value"].t))
        if "value_floats" in found:
            return np.array(found["value_floats"].floats, np.float32)
        return None
    if node.op_type != "ConstantOfShape" or node.input[0] not in arrays:
        return None
    shape = onnx.numpy_helper.to_array(arrays[node.input[0]])
    value = (
        onnx.numpy_helper.to_array(found["value"].t)
        if "value" in found
        else np.zeros(1, np.float32)
    )
    return np.full([int(n) for n in shape], value.ravel()[0], value.dtype)


def _join_biases(graph: Any, onnx: Any) -> None:
    """Add the two biases of recurrent operators, and declare biases that are missing."""
    arrays = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type not in ("LSTM", "GRU", "RNN") or len(node.input) < 3:
            continue
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        recurrent = arrays.get(node.input[2])
        if recurrent is None:
            continue
        bias = node.input[3] if len(node.input) > 3 else ""
        if not bias:
            bias = f"{node.input[2]}_bias"
            zeros = np.zeros((recurrent.dims[0], 2 * recurrent.dims[1]), np.float32)
            arrays[bias] = onnx.numpy_helper.from_array(zeros, bias)
            graph.initializer.append(arrays[bias])
            arrays[bias] = graph.initializer[-1]
            rest = list(node.input)[4:]
            inputs = [*list(node.input)[:3], bias, *rest]
            del node.input[:]
            node.input.extend(inputs)
        if bias in arrays and not attributes.get("linear_before_reset"):
            array = np.array(onnx.numpy_helper.to_array(arrays[bias]))
            half = array.shape[1] // 2
            array[:, :half] += array[:, half:]
            array[:, half:] = 0
            arrays[bias].CopyFrom(onnx.numpy_helper.from_array(array, bias))


def _copy_weights(graph: Any) -> dict[str, list[str]]:
    """Give each layer weights of its own. Calls of one layer are in one module of the metadata, or
    have the same weights in a graph without modules."""
    arrays = {
        t.name: t for t in graph.initializer if t.data_type in FLOATS and max(t.dims, default=1) > 1
    }
    copies: dict[str, list[str]] = {}
    _copy_identities(graph, arrays, copies)
    users: dict[str, dict[str, list[Any]]] = {}
    for node in graph.node:
        used = tuple(n for n in node.input if n in arrays)
        layer = str((node.op_type, modules_of(node)[-1:] or used))
        for name in used:
            users.setdefault(name, {}).setdefault(layer, []).append(node)
    for name, layers in users.items():
        first, *others = layers.values()
        for nodes in others:
            new = _copied_name(name, first[0], nodes[0], arrays)
            copies.setdefault(name, []).append(new)
            arrays[new] = _add_copy(graph, arrays[name], new)
            for node in nodes:
                inputs = [new if n == name else n for n in node.input]
                del node.input[:]
                node.input.extend(inputs)
    return copies


def _copy_identities(graph: Any, arrays: dict[str, Any], copies: dict[str, list[str]]) -> None:
    """Replace the operator ``Identity`` of a weight by a copy, which has the name of the weight
    that an exporter found equal to the first."""
    kept = []
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in arrays:
            new = node.output[0]
            copies.setdefault(node.input[0], []).append(new)
            arrays[new] = _add_copy(graph, arrays[node.input[0]], new)
        else:
            kept.append(node)
    _replace_nodes(graph, kept)


def _add_copy(graph: Any, tensor: Any, name: str) -> Any:
    new = graph.initializer.add()
    new.CopyFrom(tensor)
    new.name = name
    return new


def _copied_name(name: str, first: Any, other: Any, arrays: Mapping[str, Any]) -> str:
    """Return the name of a copy: for ``layers.0.norm.bias``, the same weight of ``layers.1``."""
    pairs = zip(modules_of(first)[::-1], modules_of(other)[::-1], strict=False)
    for (old, _), (new, _) in pairs:
        moved = f"{new}{name.removeprefix(old)}"
        if name.startswith(f"{old}.") and moved not in arrays:
            return moved
    number = 2
    while f"{name}_copy_{number}" in arrays:
        number += 1
    return f"{name}_copy_{number}"


def _replace_nodes(graph: Any, kept: list[Any]) -> None:
    if len(kept) < len(graph.node):
        copies = [type(node).FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(copies)


def clean(name: str) -> str:
    """Return a name of the spec language for a value: ``gpu_0_data_0`` for ``gpu_0/data_0``."""
    text = re.sub(r"\W", "_", name).strip("_") or "x"
    return text if not text[0].isdigit() else f"x_{text}"


def declarations(proto: Any) -> dict[str, str]:
    """Return the declaration of each input, as :mod:`harness.porting.inputs` reads it.

    Call this function before :func:`prepare`, which removes the lengths.
    """
    names = {t.name: t for t in proto.graph.initializer}
    found = {}
    for value in proto.graph.input:
        if value.name in names:
            continue
        tensor = value.type.tensor_type
        usual = AXES.get(len(tensor.shape.dim), ())
        lengths = []
        for axis, dim in enumerate(tensor.shape.dim):
            free = re.sub(r"\W", "_", dim.dim_param).strip("_")
            spare = usual[axis] if axis < len(usual) else f"axis_{axis}"
            lengths.append(str(dim.dim_value or (free if free[:1].isalpha() else spare)))
        below = "" if tensor.elem_type in FLOATS else f":{_below(proto.graph, value.name, names)}"
        found[clean(value.name)] = f"{','.join(lengths)}{below}"
    return found


def _below(graph: Any, name: str, arrays: Mapping[str, Any]) -> int:
    """Return the number of rows that an index selects from; 2 if it selects from no weight."""
    reached = {name}
    for node in graph.node:
        if node.op_type in MOVES and node.input[0] in reached:
            reached.update(node.output)
        if node.op_type == "Gather" and node.input[1] in reached and node.input[0] in arrays:
            return int(arrays[node.input[0]].dims[0])
    return 2


def modules_of(node: Any) -> list[tuple[str, str]]:
    """Return path and class of each module around a node, outermost first.

    torch's exporters write the path into the metadata, or into the name of the node:
    ``/layer1/layer1.0/conv1/Conv``. Such a name has no classes; the class is then the name of the
    last part of the path, or ``Block`` for a part that is a number.
    """
    metadata = {p.key: p.value for p in node.metadata_props}
    if SCOPES in metadata and CLASSES in metadata:
        paths, kinds = (re.findall(r"'([^']*)'", metadata[key]) for key in (SCOPES, CLASSES))
        pairs = zip(paths[:-1], kinds[:-1], strict=False)
        return [(path, kind.rpartition(".")[2]) for path, kind in pairs if path and path[0] != "_"]
    if not node.name.startswith("/"):
        return []
    found: list[tuple[str, str]] = []
    path = ""
    for part in node.name.split("/")[1:-1]:
        last = path.rpartition(".")[2]
        if last and part.startswith(f"{last}."):
            path = f"{path.rpartition('.')[0]}.{part}".strip(".")
        else:
            path = f"{path}.{part}".strip(".")
        leaf = path.rpartition(".")[2]
        kind = "Block" if leaf.isdigit() else NUMBER.sub("", leaf).title().replace("_", "")
        found.append((path, kind or "Block"))
    return found
