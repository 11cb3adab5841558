"""The rules of ONNX' recurrent operators."""

from __future__ import annotations

from typing import Any

from harness.extend.models import Operand

from .trace_rules import RULES, About, Result

# The gates in the order of ONNX, by the names of the shipped layers.
GATES = {"LSTM": "iofg", "GRU": "zrn", "RNN": ""}
ACTIVATIONS = {
    "LSTM": ["sigmoid", "tanh", "tanh"],
    "GRU": ["sigmoid", "tanh"],
    "RNN": ["tanh"],
}
STATES = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}


@RULES.of("LSTM", "GRU", "RNN")
def _recurrent(t: Any, node: Any, about: About) -> Result:
    a, inputs = t.attributes(node), [*node.input, *[""] * 8][:8]
    kind, units = node.op_type, a["hidden_size"]
    ways = {"forward": 1, "reverse": 1, "bidirectional": 2}[a.get("direction", "forward")]
    usual = [n.lower() for n in a_texts(a.get("activations", []))] in ([], ACTIVATIONS[kind] * ways)
    odd = a.get("clip") or a.get("input_forget") or a.get("layout") or inputs[7] or inputs[4]
    states = [inputs[n] for n in STATES[kind]]
    if not usual or odd or any(n and not is_zero(t, n) for n in states):
        return None
    if inputs[1] not in t.views or inputs[2] not in t.views or inputs[3] not in t.views:
        return None
    layer = {"LSTM": "lstm", "RNN": "simple_rnn"}.get(kind, "gru")
    if kind == "GRU" and a.get("linear_before_reset"):
        layer = "gru_reset_after"
    x, (time, batch, width) = t.get(inputs[0]), t.shape(inputs[0])
    x = t.builder.node("permute", [x], about, (batch, time, width), axes=[1, 0, 2])
    joined = _joined(t, node) if kind == "LSTM" or layer == "gru_reset_after" else None
    if ways == 2 and joined is not None:
        weights = _weights(layer, GATES[kind], inputs[1:4], 0, units)
        backward = _weights(layer, GATES[kind], inputs[1:4], 1, units)
        weights |= {f"back_{n}": w for n, w in backward.items()}
        shape = {**about, "shape": (batch, time, 2 * units)}
        both = t.layer(f"bidirectional_{layer}", [x], {"units": units}, weights, shape)
        turned = t.builder.node("permute", [both], about, (time, batch, 2 * units), axes=[1, 0, 2])
        t.done.update(id(n) for n in joined)
        t.operands[joined[1].output[0]] = turned
        return [turned]
    results = []
    for way in range(ways):
        back = way == 1 or a.get("direction") == "reverse"
        weights = _weights(layer, GATES[kind], inputs[1:4], way, units)
        ahead = t.builder.node("reverse", [x], about, (batch, time, width)) if back else x
        shape = {**about, "shape": (batch, time, units)}
        h = t.layer(layer, [ahead], {"units": units}, weights, shape)
        results.append((t.builder.node("reverse", [h], shape) if back else h, back))
    return _outputs(t, node, results, (batch, time, units), about)


def _joined(t: Any, node: Any) -> list[Any] | None:
    """Return the transposition and the reshape that join both directions of all steps, if only they
    use the results."""
    if any(n in t.users or n in t.kept for n in node.output[1:] if n):
        return None
    turn = t.sole_user(node.output[0])
    if (
        turn is None
        or turn.op_type != "Transpose"
        or list(t.attributes(turn)["perm"]) != [0, 2, 1, 3]
    ):
        return None
    time, ways, batch, units = t.shape(node.output[0])
    users = [n for n in t.users.get(turn.output[0], []) if n.op_type != "Shape"]
    join = users[0] if len(users) == 1 else None
    if join is None or t.shape(join.output[0]) != (time, batch, ways * units):
        return None
    return [turn, join]


def a_texts(values: Any) -> list[str]:
    """Return the texts of an attribute."""
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def is_zero(t: Any, name: str) -> bool:
    """Return whether a state is zero in every run."""
    return (name in t.known or name in t.views) and not t.values[name].any()


def _weights(
    layer: str, gates: str, names: list[str], way: int, units: int
) -> dict[str, tuple[str, str]]:
    """Return the part of the weights of each parameter of a shipped layer."""
    w, u, b = names
    rows = {gate: f"{n * units}:{(n + 1) * units}" for n, gate in enumerate(gates)}
    if not gates:
        count = f"0:{units}"
        return {"W": (w, f"[{way}].T"), "U": (u, f"[{way}].T"), "b": (b, f"[{way}, {count}]")}
    found = {}
    for gate, part in rows.items():
        found[f"W_{gate}"] = (w, f"[{way}, {part}].T")
        found[f"U_{gate}"] = (u, f"[{way}, {part}].T")
        found[f"b_{gate}"] = (b, f"[{way}, {part}]")
    if layer == "gru_reset_after":
        for n, gate in enumerate(gates, len(gates)):
            found[f"c_{gate}"] = (b, f"[{way}, {n * units}:{(n + 1) * units}]")
    return found


def _outputs(
    t: Any,
    node: Any,
    results: list[tuple[Operand, bool]],
    shape: tuple[int, int, int],
    about: About,
) -> Result:
    """Return all steps ``[time, ways, batch, units]``, and the last step of each way."""
    batch, time, units = shape
    ways = len(results)
    first: Operand = ""
    if node.output[0] in t.users or node.output[0] in t.kept:
        parts = []
        for value, _ in results:
            turned = t.builder.node("permute", [value], about, (time, batch, units), axes=[1, 0, 2])
            parts.append(t.builder.node("reshape", [turned], about, (time, 1, batch, units)))
        own = (time, ways, batch, units)
        first = parts[0] if ways == 1 else t.builder.node("concat", parts, about, own, axis=1)
    if len(node.output) < 2 or (node.output[1] not in t.users and node.output[1] not in t.kept):
        return [first]
    lasts = []
    for value, back in results:
        step = t.builder.select(value, 1, 0 if back else -1, about)
        lasts.append(t.builder.node("reshape", [step], about, (1, batch, units)))
    last = (
        lasts[0]
        if ways == 1
        else t.builder.node("concat", lasts, about, (ways, batch, units), axis=0)
    )
    return [first, last]
