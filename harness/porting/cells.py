"""Recognise the step of a traced loop as a shipped recurrent layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.porting.graph import TracedCall

# A part of a weight: its array, and the first and the last entry along the last axis.
Part = tuple[str, int, int]


@dataclass(frozen=True)
class Gate:
    """The sum ``x @ W + h @ U + b``; ``biases`` has any number of vectors."""

    input: Part | None = None
    state: Part | None = None
    biases: tuple[Part, ...] = ()

    def plus(self, other: Gate) -> Gate | None:
        """Return the sum with another gate; None if both have the same product."""
        twice = (self.input and other.input) or (self.state and other.state)
        biases = (*self.biases, *other.biases)
        return None if twice else Gate(self.input or other.input, self.state or other.state, biases)


class Step:
    """The calls of one step of a loop over ``x_1`` with states ``h`` and perhaps ``c``."""

    def __init__(self, calls: Mapping[str, TracedCall]) -> None:
        self.calls = calls

    def is_input(self, name: Any, own: str) -> bool:
        """Return whether an operand is the input or the old state of this name."""
        call = self.calls.get(name)
        return call is not None and call.op == "input" and call.attributes["name"] == own

    def operands(self, name: Any, op: str) -> tuple[Any, ...]:
        """Return the operands of a call of an operator; empty for another operand."""
        call = self.calls.get(name) if isinstance(name, str) else None
        return call.inputs if call is not None and call.op == op else ()

    def gate(self, name: Any, start: int = 0, stop: int | None = None) -> Gate | None:
        """Return the gate that the entries from ``start`` to ``stop`` of an operand's last axis
        are, or None."""
        call = self.calls.get(name) if isinstance(name, str) else None
        if call is None:
            return None
        stop = int(call.shape[-1]) if stop is None else stop
        a = call.attributes
        if call.op == "+":
            one, other = (self.gate(i, start, stop) for i in call.inputs)
            return one.plus(other) if one is not None and other is not None else None
        if call.op == "slice" and a["axis"] == len(call.shape) - 1 and a["step"] == 1:
            return self.gate(call.inputs[0], start + a["start"], stop + a["start"])
        part = self._part(call.inputs[1] if call.op == "@" else name, start, stop)
        if part is not None and call.op != "@":
            return Gate(biases=(part,)) if len(call.shape) == 1 else None
        if part is not None and self.is_input(call.inputs[0], "x_1"):
            return Gate(input=part)
        if part is not None and self.is_input(call.inputs[0], "h"):
            return Gate(state=part)
        return None

    def _part(self, name: Any, start: int, stop: int) -> Part | None:
        """Return entries of a weight, or of one of several concatenated weights."""
        call = self.calls[name]
        if call.op == "weight":
            return str(call.attributes["name"]), start, stop
        if call.op == "concat" and call.attributes["axis"] == len(call.shape) - 1:
            for weight in call.inputs:
                length = int(self.calls[weight].shape[-1])
                if start >= 0 and stop <= length:
                    return self._part(weight, start, stop)
                start, stop = start - length, stop - length
        return None

    def activated(self, name: Any, op: str) -> Gate | None:
        """Return the complete gate whose activation an operand is, or None."""
        operands = self.operands(name, op)
        gate = self.gate(operands[0]) if operands else None
        return gate if gate is not None and gate.input and gate.state else None


# The layer, its attributes other than ``units``, and the part of a weight for each parameter.
Found = tuple[str, dict[str, bool], dict[str, Part]]


def recognise_cell(a: Mapping[str, Any], calls: Mapping[str, TracedCall]) -> Found | None:
    """Return the shipped layer of a loop with these attributes, or None."""
    new = {name: result for name, result, _ in a["states"]}
    plain = not a["reverse"] and a["over"] == ["x_1"] and not any(s for _, _, s in a["states"])
    if not plain or a["output"] != new.get("h"):
        return None
    step = Step(calls)
    if list(new) == ["h"]:
        return _simple(step, new["h"])
    return _lstm(step, new) if set(new) == {"h", "c"} else None


def _simple(step: Step, h: str) -> Found | None:
    gate = step.activated(h, "tanh")
    if gate is None or len(gate.biases) > 2:
        return None
    layer = ("simple_rnn_without_bias", "simple_rnn", "simple_rnn_two_biases")[len(gate.biases)]
    assert gate.input is not None
    assert gate.state is not None
    biases = dict(zip("bc", gate.biases, strict=False))
    return layer, {}, {"W": gate.input, "U": gate.state, **biases}


def _lstm(step: Step, new: Mapping[str, str]) -> Found | None:
    gates: dict[str, Gate | None] = {}
    for product in step.operands(new["c"], "+"):
        one, other = step.operands(product, "*") or (None, None)
        if step.is_input(one, "c") or step.is_input(other, "c"):
            gates["f"] = step.activated(other if step.is_input(one, "c") else one, "sigmoid")
        else:
            one, other = (one, other) if step.operands(one, "sigmoid") else (other, one)
            gates |= {"i": step.activated(one, "sigmoid"), "g": step.activated(other, "tanh")}
    one, other = step.operands(new["h"], "*") or (None, None)
    one, other = (one, other) if step.operands(one, "sigmoid") else (other, one)
    gates["o"] = (
        step.activated(one, "sigmoid") if step.operands(other, "tanh") == (new["c"],) else None
    )
    if set(gates) != set("fgio"):
        return None
    parts: dict[str, Part] = {}
    count = len(gates["i"].biases) if gates["i"] is not None else 3
    for name, gate in sorted(gates.items()):
        if gate is None or gate.input is None or gate.state is None:
            return None
        parts |= {f"W_{name}": gate.input, f"U_{name}": gate.state}
        parts |= {f"{b}_{name}": part for b, part in zip("bc", gate.biases, strict=False)}
        if len(gate.biases) != count or count > 2:
            return None
    return "lstm", {"bias": count > 0, "second_bias": count > 1}, parts


def rule_end(part: Part, shape: tuple[Any, ...]) -> str:
    """Return the end of a ``--map`` rule for a part of a weight: ``[:, 0:24]``."""
    _, start, stop = part
    if (start, stop) == (0, shape[-1]):
        return ""
    return f"[{':, ' * (len(shape) - 1)}{start}:{stop}]"
