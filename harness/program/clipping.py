"""Clipping of gradients, known again in the equations that a model makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from harness.program.ir import Node
from harness.program.updates import UpdateRule

ROOT, SQUARE = 0.5, 2.0


@dataclass(frozen=True)
class Clipping:
    """What frameworks do with gradients that are too long, before the optimizer reads them.

    Attributes:
        by: ``value``: each entry is cut off at ``-limit`` and ``limit``. ``norm``: each parameter's
            gradient, and ``global_norm``: all of them together, are
            ``g * min(1, limit / (norm + epsilon))`` (Pascanu, Mikolov and Bengio, 2013).
        limit: Above 0.
        epsilon: From 0 on; 0 for ``value``.
    """

    by: Literal["value", "norm", "global_norm"]
    limit: float
    epsilon: float = 0.0


class _Norm(NamedTuple):
    """The root of the sum of the squares of a parameter's gradient, or of all."""

    whole_model: bool
    epsilon: float = 0.0


class _Powers(NamedTuple):
    """A number times powers: of the gradient, of norms, and of what is neither (its value)."""

    number: float
    powers: dict[Hashable, int]

    def over(self, other: _Powers, power: int) -> _Powers:
        """This times another to the power of 1 or -1."""
        powers = Counter(self.powers)
        for factor, count in other.powers.items():
            powers[factor] += power * count
        left = {factor: count for factor, count in powers.items() if count}
        return _Powers(self.number * other.number**power, left)


def clipping(rule: UpdateRule) -> Clipping | None:
    """The clipping that a model's ``gradient`` is, however it is written; None for anything else.

    ``g * minimum(1, c / norm)``, ``g * c / maximum(c, norm)`` and ``where(norm < c, g, g * c /
    norm)`` are one; so are ``g * g`` and ``g ** 2``, ``sqrt(x)`` and ``x ** 0.5``.
    """
    return None if rule.fed is None else _FedGradient(rule).clipping(rule.fed)


class _FedGradient:
    """The values of a rule, as far as clipping is made of them."""

    def __init__(self, rule: UpdateRule) -> None:
        self.gradient = rule.gradient
        self.nodes = {value: node for node in rule.own_nodes for value in node.outputs}
        self.totals = {total.value: total.part for total in rule.totals}

    def clipping(self, value: int) -> Clipping | None:
        """The clipping that makes a value."""
        found = self._by_value(value) or self._chosen(value) or self._scaled(value)
        # Of other limits it is no clipping: nothing would be left, or all would be turned round.
        return found if found and 0 < found.limit < float("inf") and found.epsilon >= 0 else None

    def _by_value(self, value: int) -> Clipping | None:
        """``maximum(minimum(g, c), -c)``, or ``minimum(maximum(g, -c), c)``.

        Not with the numbers first: what is NaN would be one of them, which in frameworks stays NaN.
        """
        outer = self._bound(value)
        inner = None if outer is None else self._bound(outer[2])
        if outer is None or inner is None or inner[2] != self.gradient or inner[0] == outer[0]:
            return None
        by_kind = {kind: self._number(bound) for kind, bound, _ in (outer, inner)}
        low, high = by_kind["max"], by_kind["min"]
        return None if high is None or low != -high else Clipping("value", high)

    def _chosen(self, value: int) -> Clipping | None:
        """``where(norm < c, g, g * c / norm)``."""
        node = self._node(value, "where")
        compared = self._node(node.inputs[0], "less", "less_equal") if node is not None else None
        if node is None or compared is None:
            return None
        least, most = map(self._product, compared.inputs)
        kept, cut = node.inputs[1:]
        if not least.powers:
            least, most, kept, cut = most, least, cut, kept
        made = self._product(cut)
        norm = self._norm_of(made.powers, -1)
        if norm is None or kept != self.gradient or most.powers or least.powers != {norm: 1}:
            return None
        if not made.number or made.number * least.number != most.number:
            return None
        return self._made(norm, made.number)

    def _scaled(self, value: int) -> Clipping | None:
        """``g * minimum(1, c / norm)``, or ``g * c / maximum(c, norm)``."""
        made = self._product(value)
        rest = {f: count for f, count in made.powers.items() if f != self.gradient}
        if made.powers.get(self.gradient) != 1 or len(rest) != 1:
            return None
        ((factor, power),) = rest.items()
        bound = self._bound(factor) if isinstance(factor, int) else None
        if bound is None or (bound[0], power) not in {("min", 1), ("max", -1)}:
            return None
        one, other = map(self._product, bound[1:])
        if one.powers:
            one, other = other, one
        norm = self._norm_of({self.gradient: 1, **other.powers}, -power)
        if norm is None or one.powers or not one.number or made.number * one.number**power != 1:
            return None
        return self._made(norm, made.number * other.number**power)

    def _norm_of(self, powers: dict[Hashable, int], power: int) -> _Norm | None:
        """The norm in a product of the gradient and a norm to that power, and nothing else."""
        norms = [factor for factor in powers if isinstance(factor, _Norm)]
        if len(norms) != 1 or powers != {self.gradient: 1, norms[0]: power}:
            return None
        return norms[0]

    @staticmethod
    def _made(norm: _Norm, limit: float) -> Clipping:
        return Clipping("global_norm" if norm.whole_model else "norm", limit, norm.epsilon)

    def _product(self, value: int) -> _Powers:
        node = self._node(value, "multiply", "divide", "constant")
        if node is not None and node.op == "constant":
            return _Powers(float(node.attributes["value"]), {})
        if node is not None:
            one, other = map(self._product, node.inputs)
            if node.op == "multiply" or other.number:
                return one.over(other, 1 if node.op == "multiply" else -1)
        return _Powers(1.0, {self._norm(value) or value: 1})

    def _norm(self, value: int) -> _Norm | None:
        """``sqrt(sum of g * g)``, with an epsilon beside it or without."""
        added = self._node(value, "add")
        for norm, more in (added.inputs, added.inputs[::-1]) if added is not None else ():
            epsilon, found = self._number(more), self._norm(norm)
            if epsilon is not None and found is not None:
                return found._replace(epsilon=found.epsilon + epsilon)
        squares = self._power(value, ROOT)
        if squares in self.totals:
            summed, whole = self._node(self.totals[squares], "sum"), True
        else:
            summed, whole = (self._node(squares, "sum") if squares is not None else None), False
        if summed is None:
            return None
        squared = summed.inputs[0]
        node = self._node(squared, "multiply")
        if self._power(squared, SQUARE) == self.gradient:
            return _Norm(whole)
        of_two = node is not None and node.inputs == (self.gradient, self.gradient)
        return _Norm(whole) if of_two else None

    def _power(self, value: int, exponent: float) -> int | None:
        """x where a value is ``x ** exponent``."""
        if exponent == ROOT and (root := self._node(value, "sqrt")) is not None:
            return root.inputs[0]
        node = self._node(value, "power")
        return node.inputs[0] if node and self._number(node.inputs[1]) == exponent else None

    def _bound(self, value: int) -> tuple[Literal["min", "max"], int, int] | None:
        """``minimum(a, b)`` or ``maximum(a, b)``, as they are written with ``where``."""
        node = self._node(value, "where")
        compared = self._node(node.inputs[0], "less", "less_equal") if node is not None else None
        if node is None or compared is None:
            return None
        one, other = node.inputs[1:]
        if compared.inputs == (one, other):
            return "min", one, other
        return ("max", one, other) if compared.inputs == (other, one) else None

    def _number(self, value: int) -> float | None:
        found = self._product(value)
        return None if found.powers else found.number

    def _node(self, value: int, *ops: str) -> Node | None:
        node = self.nodes.get(value)
        return node if node is not None and node.op in ops else None
