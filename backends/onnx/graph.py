"""Translation of a program to an ONNX graph. Each primitive becomes a few standard operators.

Layers are inlined. If the length of an axis can vary (e.g. batch), nodes read it from the shapes of
the inputs. A loop over time becomes a Scan, whose body reads outer values by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from harness.extend import Array, Arrays, Program, UsageError
from harness.extend.program import Dim, Node, Port, Shape, needed_nodes

ELEMENTS = {"float32": onnx.TensorProto.FLOAT, "float64": onnx.TensorProto.DOUBLE}
INTEGERS = onnx.TensorProto.INT64
NEW_STATE = "new_state."
Operator = Callable[["Graph", Node, list[str], str], Any]


class Graph:
    """The ONNX graph of one program; its parameters and statistics are initializers.

    ``operators`` maps each primitive to the function that adds its nodes
    (:mod:`harness.backends.onnx.primitives_export`). Inputs and outputs have the names of the spec;
    indices are int64. A state is the input ``state.NAME`` and the output ``new_state.NAME``.
    """

    def __init__(self, program: Program, dtype: str, operators: Mapping[str, Operator]) -> None:
        self.program, self.dtype, self._operators = program, dtype, operators
        self._names: dict[int, str] = {}
        self._taken: set[str] = set()
        # Constants and lengths are computed at the start of the graph, outside of all loops.
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._lengths: dict[Dim | Shape, str] = {}
        self._prelude: list[onnx.NodeProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._label, self._place = "", ""

    def build(self, arrays: Arrays) -> onnx.GraphProto:
        """Return the finished graph. ``arrays`` has the values of the parameters and statistics by
        name."""
        program = self.program
        inputs = [*self._ports("", program.inputs), *self._ports("state.", program.state)]
        self._ports("", (*program.parameters, *program.statistics))
        ends = [*program.outputs, *program.new_state]
        prefixes = [""] * len(program.outputs) + [NEW_STATE] * len(program.new_state)
        names = [
            self._unique(f"{prefix}{p.name}") for prefix, p in zip(prefixes, ends, strict=True)
        ]
        copies = self._name_ends(ends, names)
        self._walk(needed_nodes(program.nodes, [p.value for p in ends]), "")
        for value, name in copies:
            self.emit("Identity", [self._names[value]], name)
        return helper.make_graph(
            [*self._prelude, *self._nodes],
            program.name.rpartition("/")[2],
            [self._info(p.value, name) for p, name in inputs],
            [self._info(p.value, name) for p, name in zip(ends, names, strict=True)],
            [numpy_helper.from_array(np.asarray(a, order="C"), n) for n, a in arrays.items()],
        )

    def _ports(self, prefix: str, ports: Sequence[Port]) -> list[tuple[Port, str]]:
        for port in ports:
            self._names[port.value] = self._unique(f"{prefix}{port.name}")
        return [(port, self._names[port.value]) for port in ports]

    def _name_ends(self, ends: Sequence[Port], names: Sequence[str]) -> list[tuple[int, str]]:
        """Give the values that are outputs of the program (``ends``) the names of these outputs.

        A value may have a name already, e.g. because it is two outputs. Then the graph must contain
        a copy of it. Return these values as pairs (number of the value, name of the output).
        """
        copies = []
        for port, name in zip(ends, names, strict=True):
            if port.value in self._names:
                copies.append((port.value, name))
            else:
                self._names[port.value] = name
        return copies

    def _unique(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name

    def _info(self, value: int, name: str) -> onnx.ValueInfoProto:
        """Return the ONNX description of a value: name, type and shape. An axis whose length can
        vary has a name instead of a length."""
        type_ = self.program.types[value]
        kinds = {"index": INTEGERS, "bool": onnx.TensorProto.BOOL}
        known = self.program.sizes
        shape = [str(d) if self._is_free(d) else d.resolve(known) for d in type_.shape]
        kind = kinds.get(type_.kind, ELEMENTS[self.dtype])
        return helper.make_tensor_value_info(name, kind, shape)

    def _is_free(self, dim: Dim) -> bool:
        return not self.program.sizes.keys() >= set(dim.names)

    def _walk(self, nodes: Iterable[Node], label: str) -> None:
        for node in nodes:
            self._label, self._place = label, Path(node.place).name
            if node.op == "call":
                self._walk(node.block.nodes, str(node.attributes["label"]))
            elif node.op == "scan":
                self._scan(node, label)
            elif node.op == "constant":
                self._names[node.output] = self.number(node.attributes["value"])
            elif node.op == "extent":
                dims = self.shape(node.attributes["dims"])
                count = self._emit_at_start("ReduceProd", [dims], "count", keepdims=0)
                self.emit("Cast", [count], self._name(node.output), to=ELEMENTS[self.dtype])
            else:
                inputs = [self._names[value] for value in node.inputs]
                self._operators[node.op](self, node, inputs, self._name(node.output))

    def _name(self, value: int) -> str:
        """Return the name of a value in the graph, given its number. The name is chosen when it is
        first needed."""
        if value not in self._names:
            known = self.program.names.get(value)
            made = f"{self._label}/{value}" if self._label else f"value/{value}"
            self._names[value] = self._unique(known or made)
        return self._names[value]

    def _scan(self, node: Node, label: str) -> None:
        body = node.block
        outer, self._nodes = self._nodes, []
        inputs = [self._info(value, self._name(value)) for value in body.inputs]
        self._walk(body.nodes, label)
        own = {name for made in self._nodes for name in made.output}
        outputs = []
        for value in body.outputs:
            name = self._names[value]
            # An output needs a new name if it is an input, an outer value, or an earlier output.
            if name not in own:
                name = self.emit("Identity", [name])
            own.discard(name)
            outputs.append(self._info(value, name))
        name = self._unique(f"{label}/step")
        step = helper.make_graph(self._nodes, name, inputs, outputs)
        self._nodes = outer
        count = node.carries
        backwards = int(node.reverse)
        self._label, self._place = label, Path(node.place).name
        self.emit(
            "Scan",
            [self._names[value] for value in node.inputs],
            *[self._name(value) for value in node.outputs],
            body=step,
            num_scan_inputs=len(node.inputs) - count,
            scan_input_directions=[backwards] * (len(node.inputs) - count),
            scan_output_directions=[backwards] * (len(node.outputs) - count),
        )

    def emit(self, op: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> str:
        """Add a node with the operator ``op``, and return the name of its first output. If no
        output names are given, the node has one output with a new name."""
        outputs = outputs or (self._unique(f"{self._label or 'value'}/{op.lower()}"),)
        node = helper.make_node(op, inputs, outputs, name=f"{outputs[0]}:{op}", **attributes)
        node.doc_string = self._place
        self._nodes.append(node)
        return outputs[0]

    def number(self, value: float) -> str:
        """Return the name of a constant in the graph: the number ``value``, in the model's
        dtype."""
        return self.constant(np.asarray(value, self.dtype))

    def integers(self, *values: int) -> str:
        """Return the name of a constant in the graph: the int64 vector ``values``."""
        return self.constant(np.asarray(values, np.int64))

    def constant(self, array: Array) -> str:
        """Return the name of a constant in the graph that holds ``array``. Equal constants share a
        name."""
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            text = ",".join(map(str, array.ravel()[:4].tolist()))
            name = self._constants[key] = self._unique(f"constant/{text}")
            value = numpy_helper.from_array(array)
            node = helper.make_node("Constant", [], [name], name=f"{name}:Constant", value=value)
            self._prelude.append(node)
        return self._constants[key]

    def _emit_at_start(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        name = self._unique(name)
        node = helper.make_node(op, inputs, [name], name=f"{name}:{op}", **attributes)
        self._prelude.append(node)
        return name

    def length(self, dim: Dim) -> str:
        """Return the name of a value in the graph: an int64 vector with a single entry, the length
        ``dim``. If the length can vary, nodes compute it."""
        if dim not in self._lengths:
            self._lengths[dim] = self._length(dim)
        return self._lengths[dim]

    def range(self, dim: Dim) -> str:
        """Return the name of a value in the graph: the int64 vector 0, 1, ..., with as many entries
        as the length ``dim``."""
        if not self._is_free(dim):
            return self.constant(np.arange(dim.resolve(self.program.sizes)))
        stop = self.emit("Squeeze", [self.length(dim)])  # Range needs scalars
        return self.emit("Range", [self.constant(np.array(0)), stop, self.constant(np.array(1))])

    def _length(self, dim: Dim) -> str:
        free = [term for term in dim.terms if self._is_free(Dim(0, (term,)))]
        if dim.names and dim == Dim.of(dim.names[0]) and free:
            return self._axis(dim)
        total = self.integers((dim - Dim(0, tuple(free))).resolve(self.program.sizes))
        for product, coefficient in free:
            term = self.integers(coefficient)
            for size in product.split("*"):
                term = self._emit_at_start(
                    "Mul", [self.length(Dim.of(size)), term], f"length/{product}"
                )
            total = self._emit_at_start("Add", [total, term], f"length/{dim}")
        return total

    def _axis(self, size: Dim) -> str:
        """Return the name of a value in the graph: the length ``size`` of an axis that can vary,
        read from the shape of an input.

        Raises:
            UsageError: no input has an axis of this length.
        """
        for port in (*self.program.inputs, *self.program.state):
            shape = self.program.type_of(port).shape
            if size in shape:
                axis, value = shape.index(size), self._names[port.value]
                return self._emit_at_start(
                    "Shape", [value], f"length/{size}", start=axis, end=axis + 1
                )
        raise UsageError(
            f"{self.program.name} cannot become an ONNX graph: its equations need the length of "
            f"{size}, but no input has an axis of this length; add an input that has"
        )

    def shape(self, dims: Shape) -> str:
        """Return the name of a value in the graph: an int64 vector with the lengths ``dims``."""
        dims = tuple(map(Dim.of, dims))
        if not any(map(self._is_free, dims)):
            return self.integers(*(dim.resolve(self.program.sizes) for dim in dims))
        if dims not in self._lengths:
            lengths = [self.length(dim) for dim in dims]
            self._lengths[dims] = self._emit_at_start("Concat", lengths, "shape", axis=0)
        return self._lengths[dims]
