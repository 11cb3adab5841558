"""Rules that translate Keras' recurrent layers, and layers that run at each step of a sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.extend.models import GraphBuilder, Operand

from .trace_rules import RULES, About, Result, activate, input_shape, masks_of


@RULES.of("LSTM", "GRU", "SimpleRNN", "RNN")
def _recurrent(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer = node.operation
    if type(layer.cell).__name__ == "StackedRNNCells":
        return _stacked(t, node, inputs, about)
    name = shipped(layer)
    if name is None or len(inputs) > 1 + len(masks_of(node)):
        return None
    batch, time, _ = shape = input_shape(t, node)
    units = layer.cell.units
    own, (x, *mask) = {**about, "shape": (batch, time, units)}, inputs
    if mask:
        h = _loop(t, layer, layer.cell, inputs, own)
        if h is not None and layer.go_backwards:
            h = t.builder.node("reverse", [h], own)
    else:
        x = t.builder.node("reverse", [x], about, shape) if layer.go_backwards else x
        # The harness knows how Keras packs the weights of this layer.
        h = recurrent_layer(t, name, x, units, layer.name, own)
    if h is None or (layer.return_sequences and not layer.return_state):
        return h
    last = {**about, "shape": (batch, units)}
    end = t.builder.select(h, 1, -1, last)
    if not layer.return_state:
        return end
    states = [end]
    if name == "lstm" and mask:
        return None
    if name == "lstm":
        # The results of the layer are y, h and c.
        states.append(t.builder.node("result", [h], last, number=2))
    return [h if layer.return_sequences else end, *states]


def _stacked(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    """Add a loop for each cell of ``StackedRNNCells``."""
    layer = node.operation
    if layer.return_state or layer.stateful or len(inputs) > 1:
        return None
    batch, time, _ = input_shape(t, node)
    x = inputs[0]
    for cell in layer.cell.cells:
        own = {**about, "shape": (batch, time, cell.units)}
        states = _loop(t, layer, cell, [x], own)
        if states is None:
            return None
        x = states
    if layer.return_sequences:
        return t.builder.node("reverse", [x], about) if layer.go_backwards else x
    return t.builder.select(x, 1, 0 if layer.go_backwards else -1, about)


def _loop(t: Any, layer: Any, cell: Any, inputs: Sequence[Operand], about: About) -> Operand | None:
    """Add a loop over a sequence, and over a mask: the loop keeps its states where the mask is
    false. Return None for a cell that has no equations here. The results are in the order of time,
    also of a layer that goes backwards."""
    kind = shipped_cell(cell) or ""
    step = STEPS.get(kind)
    if step is None:
        return None
    batch, _, units = about["shape"]
    features = t.builder.shape_of(inputs[0])[-1]
    # The loop has a graph of its own.
    body, place = GraphBuilder("", {}), dict[str, Any](shape=(batch, units))
    names = ["h", "c"] if kind == "lstm" else ["h"]
    states = [body.add("input", [], {"name": n}, **place) for n in names]
    x = body.add("input", [], {"name": "x"}, shape=(batch, features))
    weights = [
        body.add("weight", [], {"name": t.names[id(v)]}, shape=v.shape)
        for v in (cell.kernel, cell.recurrent_kernel, cell.bias)
    ]
    after, masked = step(body, x, states, weights, place), len(inputs) > 1
    if masked:
        mask = body.add("input", [], {"name": "mask"}, shape=(batch,), kind="boolean")
        inside = body.node("reshape", [mask], place, (batch, 1), "boolean")
        after = [
            body.node("where", [inside, new, old], place)
            for new, old in zip(after, states, strict=True)
        ]
    attributes = {
        "name": f"{'Masked' if masked else ''}{type(cell).__name__.removesuffix('Cell')}",
        "body": body.graph["nodes"],
        "states": [[n, r, 0.0] for n, r in zip(names, after, strict=True)],
        "over": ["x", "mask"] if masked else ["x"],
        "output": after[0],
        "reverse": bool(layer.go_backwards),
    }
    h = t.builder.add("scan", inputs, attributes, **about)
    if not (masked and layer.zero_output_for_mask):
        return h
    shape = (*about["shape"][:2], 1)
    column = t.builder.node("reshape", [inputs[1]], about, shape, "boolean")
    return t.builder.node("where", [column, h, 0.0], about)


Step = Callable[[GraphBuilder, Operand, list[str], list[str], About], list[str]]


def _sum(g: GraphBuilder, *terms: Operand, about: About) -> Operand:
    """Add the sum of values of the same shape."""
    first, *others = terms
    for other in others:
        first = g.node("+", [first, other], about)
    return first


def _gates(g: GraphBuilder, value: Operand, count: int, about: About) -> list[Operand]:
    """Add the parts of a row of gates, each with the shape in ``about``."""
    units = about["shape"][-1]
    return [g.cut(value, 1, (n * units, (n + 1) * units, 1), about) for n in range(count)]


def _product(g: GraphBuilder, value: Operand, table: str, about: About) -> str:
    return g.node("@", [value, table], about, (about["shape"][0], g.shape_of(table)[1]))


def _simple_step(
    g: GraphBuilder, x: Operand, states: list[str], weights: list[str], about: About
) -> list[str]:
    kernel, recurrent, bias = weights
    products = _product(g, x, kernel, about), _product(g, states[0], recurrent, about)
    return [g.node("tanh", [_sum(g, *products, bias, about=about)], about)]


def _lstm_step(
    g: GraphBuilder, x: Operand, states: list[str], weights: list[str], about: About
) -> list[str]:
    (h, c), (kernel, recurrent, bias) = states, weights
    products = _product(g, x, kernel, about), _product(g, h, recurrent, about)
    wide = {**about, "shape": g.shape_of(products[0])}
    i, f, new, o = _gates(g, _sum(g, *products, bias, about=wide), 4, about)
    i, f, o = (g.node("sigmoid", [gate], about) for gate in (i, f, o))
    remembered = g.node("*", [f, c], about)
    added = g.node("*", [i, g.node("tanh", [new], about)], about)
    c = g.node("+", [remembered, added], about)
    return [g.node("*", [o, g.node("tanh", [c], about)], about), c]


def _gru_step(
    g: GraphBuilder, x: Operand, states: list[str], weights: list[str], about: About
) -> list[str]:
    (h,), (kernel, recurrent, bias) = states, weights
    sides = []
    for n, (value, table) in enumerate(((x, kernel), (h, recurrent))):
        product = _product(g, value, table, about)
        wide = {**about, "shape": g.shape_of(product)}
        row = g.select(bias, 0, n, about)
        sides.append(_gates(g, g.node("+", [product, row], wide), 3, about))
    z, r = (
        g.node("sigmoid", [g.node("+", [*pair], about)], about)
        for pair in zip(sides[0][:2], sides[1][:2], strict=True)
    )
    new = g.node("+", [sides[0][2], g.node("*", [r, sides[1][2]], about)], about)
    new = g.node("tanh", [new], about)
    # The new state, where ``z`` is 0.
    change = g.node("*", [z, g.node("-", [h, new], about)], about)
    return [g.node("+", [new, change], about)]


STEPS: dict[str, Step] = {
    "simple_rnn": _simple_step,
    "lstm": _lstm_step,
    "gru_reset_after": _gru_step,
}


def recurrent_layer(t: Any, name: str, x: Operand, units: int, owner: str, about: About) -> Operand:
    """Add a shipped recurrent layer, whose weights are those of a layer of the model."""
    attributes = {
        "layer": name,
        "settings": {"units": units},
        "weights": {},
        "channels": -1,
        "rules": [["", owner]],
        "owner": owner,
    }
    return t.builder.add("layer", [x], attributes, **about)


def shipped(layer: Any) -> str | None:
    """Return the shipped layer of a recurrent layer, or None if it has other settings or cells."""
    return None if layer.stateful else shipped_cell(layer.cell)


def shipped_cell(cell: Any) -> str | None:
    """Return the shipped layer of a cell, or None if it has other settings."""
    name = {"LSTMCell": "lstm", "GRUCell": "gru", "SimpleRNNCell": "simple_rnn"}.get(
        type(cell).__name__
    )
    if name is None:
        return None
    functions = [cell.activation.__name__]
    functions += [] if name == "simple_rnn" else [cell.recurrent_activation.__name__]
    odd = cell.dropout or cell.recurrent_dropout or not cell.use_bias
    if odd or functions not in (["tanh"], ["tanh", "sigmoid"]):
        return None
    return "gru_reset_after" if name == "gru" and cell.reset_after else name


@RULES.of("Bidirectional")
def _bidirectional(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer = node.operation
    inner, back = layer.forward_layer, layer.backward_layer
    name = shipped(inner) if hasattr(inner, "return_state") else None
    if name not in ("lstm", "gru_reset_after") or shipped(back) != name:
        return None
    plain = layer.merge_mode == "concat" and inner.units == back.units
    if not plain or inner.return_state or len(inputs) > 1 + len(masks_of(node)):
        return None
    batch, time = input_shape(t, node)[:2]
    units, own = inner.units, {**about, "shape": (batch, time, 2 * inner.units)}
    if len(inputs) > 1:
        one = {**about, "shape": (batch, time, units)}
        ways = [_loop(t, way, way.cell, inputs, one) for way in (inner, back)]
        h = t.builder.node("concat", ways, own, axis=2)
    else:
        h = recurrent_layer(t, f"bidirectional_{name}", inputs[0], units, layer.name, own)
    if inner.return_sequences:
        return h
    parts = []
    for start, index in ((0, -1), (units, 0)):
        step = t.builder.select(h, 1, index, about)
        parts.append(t.builder.cut(step, 1, (start, start + units, 1), about))
    return t.builder.node("concat", parts, about, axis=1)


@RULES.of("TimeDistributed")
def _every_step(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    inner = node.operation.layer
    if type(inner).__name__ != "Dense":
        return None
    weights = {"W": inner.kernel} | ({"b": inner.bias} if inner.use_bias else {})
    settings = {"units": inner.units, "bias": bool(inner.use_bias)}
    return activate(
        t, inner.activation, t.layer("dense", inputs[:1], settings, weights, about), about
    )


@RULES.of("Masking")
def _no_masked_steps(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    """Add a product with 0 at the steps whose entries are all the mask's value."""
    shape = about["shape"]
    value = float(node.operation.mask_value)
    is_other = t.builder.node("!=", [inputs[0], value], about, kind="boolean")
    entries = t.builder.node("cast", [is_other], about)
    inside = t.builder.node(
        "max", [entries], about, (*shape[:-1], 1), axis=[len(shape) - 1], keepdims=True
    )
    return t.builder.node("*", [inputs[0], inside], about)
