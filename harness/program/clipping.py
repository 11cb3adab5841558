"""Recognition of gradient clipping in the equations of a model, so that a framework's own clipping
can be used."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from harness.program.ir import Node
from harness.program.updates import UpdateRule

ROOT, SQUARE = 0.5, 2.0
# Bounds for the numbers in a clipping. float32 can represent the product of two such numbers.
LEAST, MOST = 2.0**-60, 2.0**60


@dataclass(frozen=True)
class Clipping:
    """The clipping of gradients before the optimizer reads them.

    Attributes:
        by: With ``value``, each entry is limited to the range from ``-limit`` to ``limit``. With
            ``norm``, each gradient becomes ``g * min(1, limit / (norm + epsilon))``, where norm is
            the L2 norm of this gradient (Pascanu, Mikolov and Bengio, 2013). With ``global_norm``,
            norm is the L2 norm of all gradients together.
        limit: A number from 2^-60 to 2^60.
        epsilon: 0 or a number from 2^-60 to 2^60; always 0 for ``value``.
    """

    by: Literal["value", "norm", "global_norm"]
    limit: float
    epsilon: float = 0.0


class _Norm(NamedTuple):
    """The L2 norm of the gradient of one parameter, or of all gradients together if ``whole_model``
    is true. ``epsilon`` is a number that the equation adds to the norm."""

    whole_model: bool
    epsilon: float = 0.0


Factors = frozenset[tuple[Hashable, int]]


class _Factored(NamedTuple):
    """A value written as a product: the positive ``number`` times ``factors``. A factor is the
    gradient, a norm or another value, with the power 1 or -1. The same factor cannot occur twice,
    because ``g / g`` is NaN if ``g`` is 0."""

    number: float
    factors: Factors = frozenset()


def clipping(rule: UpdateRule) -> Clipping | None:
    """Return the gradient clipping that a model's equation for ``gradient`` computes; None if the
    equation computes something else.

    The function recognises different notations of the same clipping: ``g * minimum(1, c / norm)``,
    ``g * c / maximum(c, norm)`` and ``where(norm < c, g, g * c / norm)``. A square may be ``g * g``
    or ``g ** 2``, and a root ``sqrt(x)`` or ``x ** 0.5``.
    """
    return None if rule.fed is None else _GradientEquation(rule).clipping(rule.fed)


class _GradientEquation:
    """The nodes that compute the ``gradient`` of an update rule. The methods compare these nodes
    with the equations of gradient clipping."""

    def __init__(self, rule: UpdateRule) -> None:
        self.gradient = rule.gradient
        self.nodes = {value: node for node in rule.own_nodes for value in node.outputs}
        self.totals = {total.value: total.part for total in rule.totals}

    def clipping(self, value: int) -> Clipping | None:
        """Return the clipping of which ``value`` is the result; return None if the value is
        computed in another way."""
        return self._match_value(value) or self._match_where(value) or self._match_scaled(value)

    def _match_value(self, value: int) -> Clipping | None:
        """Match ``maximum(minimum(g, c), -c)`` or ``minimum(maximum(g, -c), c)``. The constant must
        be the second operand: a constant as first operand would replace NaN, but the clipping
        functions of frameworks keep NaN."""
        outer = self._bound(value)
        inner = None if outer is None else self._bound(outer[2])
        if outer is None or inner is None or inner[2] != self.gradient or inner[0] == outer[0]:
            return None
        by_kind = {kind: bound for kind, bound, _ in (outer, inner)}
        low, high = self._node(by_kind["max"], "constant"), self._number(by_kind["min"])
        if low is None or high is None or low.attributes["value"] != -high:
            return None
        return Clipping("value", high)

    def _match_where(self, value: int) -> Clipping | None:
        """Match the equation ``where(norm < c, g, g * c / norm)``, which clips by a norm. Return
        the clipping, or None if ``value`` is computed differently."""
        node = self._node(value, "where")
        compared = self._node(node.inputs[0], "less", "less_equal") if node is not None else None
        if node is None or compared is None:
            return None
        smaller, larger = map(self._product, compared.inputs)
        unclipped, clipped = node.inputs[1:]
        if smaller is not None and not smaller.factors:
            smaller, larger, unclipped, clipped = larger, smaller, clipped, unclipped
        product = self._product(clipped)
        if (
            smaller is None
            or larger is None
            or product is None
            or unclipped != self.gradient
            or larger.factors
        ):
            return None
        norm = self._norm_of(product.factors, -1)
        if norm is None or smaller.factors != {(norm, 1)}:
            return None
        return self._norm_clipping(norm, product.number, larger.number / smaller.number)

    def _match_scaled(self, value: int) -> Clipping | None:
        """Match the equation ``g * minimum(1, c / norm)`` or ``g * c / maximum(c, norm)``, which
        clips by a norm. Return the clipping, or None if ``value`` is computed differently."""
        product = self._product(value)
        other_factors = (
            product.factors - {(self.gradient, 1)} if product is not None else frozenset()
        )
        if product is None or len(product.factors) != 2 or len(other_factors) != 1:
            return None
        ((factor, power),) = other_factors
        bound = self._bound(factor) if isinstance(factor, int) else None
        if bound is None or (bound[0], power) not in {("min", 1), ("max", -1)}:
            return None
        bound_limit, bound_norm = map(self._product, bound[1:])
        if bound_limit is None or bound_norm is None:
            return None
        if bound_limit.factors:
            bound_limit, bound_norm = bound_norm, bound_limit
        norm = self._norm_of(bound_norm.factors | {(self.gradient, 1)}, -power)
        if norm is None or bound_limit.factors or product.number * bound_limit.number**power != 1:
            return None
        limit = product.number * bound_norm.number**power
        return self._norm_clipping(norm, limit, limit)

    def _norm_of(self, factors: Factors, power: int) -> _Norm | None:
        """Return the norm if ``factors`` are exactly two: the gradient, and a norm with the
        exponent ``power``; otherwise None."""
        norms = [factor for factor, _ in factors if isinstance(factor, _Norm)]
        return norms[0] if norms and factors == {(self.gradient, 1), (norms[0], power)} else None

    @staticmethod
    def _norm_clipping(norm: _Norm, limit: float, begins: float) -> Clipping | None:
        """Return the clipping by a norm, or None if ``begins`` and ``limit`` differ. ``begins`` is
        the norm above which the equation clips gradients, and ``limit`` is the norm of a clipped
        gradient."""
        by = "global_norm" if norm.whole_model else "norm"
        return Clipping(by, limit, norm.epsilon) if begins == limit else None  # type: ignore[arg-type]

    def _product(self, value: int) -> _Factored | None:
        """Return ``value`` written as a product of a number and factors. Return None if a number in
        the product is not between :data:`LEAST` and :data:`MOST`."""
        node = self._node(value, "multiply", "divide", "constant")
        if node is None:
            return _Factored(1.0, frozenset({(self._norm(value) or value, 1)}))
        if node.op == "constant":
            number = float(node.attributes["value"])
            return _Factored(number) if LEAST <= number <= MOST else None
        left, right = map(self._product, node.inputs)
        if left is None or right is None:
            return None
        power = 1 if node.op == "multiply" else -1
        number = left.number * right.number**power
        factors = frozenset((factor, power * exponent) for factor, exponent in right.factors)
        repeated = {factor for factor, _ in left.factors} & {factor for factor, _ in factors}
        return (
            _Factored(number, left.factors | factors)
            if not repeated and LEAST <= number <= MOST
            else None
        )

    def _norm(self, value: int) -> _Norm | None:
        """Match the equation of an L2 norm, ``sqrt(sum of g * g)``, with or without an added
        epsilon. Return the norm, or None if there is no match."""
        added = self._node(value, "add")
        for norm, other in (added.inputs, added.inputs[::-1]) if added is not None else ():
            epsilon, inner_norm = self._number(other), self._norm(norm)
            if epsilon is not None and inner_norm is not None:
                return inner_norm._replace(epsilon=inner_norm.epsilon + epsilon)
        squares = self._power(value, ROOT)
        if squares in self.totals:
            summed, whole_model = self._node(self.totals[squares], "sum"), True
        else:
            summed, whole_model = (
                (self._node(squares, "sum") if squares is not None else None),
                False,
            )
        if summed is None:
            return None
        squared = summed.inputs[0]
        node = self._node(squared, "multiply")
        if self._power(squared, SQUARE) == self.gradient:
            return _Norm(whole_model)
        of_two = node is not None and node.inputs == (self.gradient, self.gradient)
        return _Norm(whole_model) if of_two else None

    def _power(self, value: int, exponent: float) -> int | None:
        """Return x if ``value`` is ``x ** exponent``, otherwise None."""
        if exponent == ROOT and (root := self._node(value, "sqrt")) is not None:
            return root.inputs[0]
        node = self._node(value, "power")
        return node.inputs[0] if node and self._number(node.inputs[1]) == exponent else None

    def _bound(self, value: int) -> tuple[Literal["min", "max"], int, int] | None:
        """Match ``minimum(a, b)`` or ``maximum(a, b)``, which programs compute by ``where``. Return
        ``("min", a, b)`` or ``("max", a, b)``, or None if there is no match."""
        node = self._node(value, "where")
        compared = self._node(node.inputs[0], "less", "less_equal") if node is not None else None
        if node is None or compared is None:
            return None
        first, second = node.inputs[1:]
        if compared.inputs == (first, second):
            return "min", first, second
        return ("max", first, second) if compared.inputs == (second, first) else None

    def _number(self, value: int) -> float | None:
        """Return the number that ``value`` is, if it is a positive constant; otherwise None."""
        product = self._product(value)
        return None if product is None or product.factors else product.number

    def _node(self, value: int, *ops: str) -> Node | None:
        node = self.nodes.get(value)
        return node if node is not None and node.op in ops else None
